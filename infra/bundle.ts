import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { build as esbuild } from 'esbuild'
import type { Metafile } from 'esbuild'

/**
 * One bundle a flow: ESM, minified, with its source maps beside it, in a folder of its own. What is imported when it is needed is in files of its own
 * there, and costs a cold start nothing: the client that starts tasks, the SDK's reader of browsers' names.
 *
 * An ESM `import` of node's http modules evaluates lazy members of theirs that load undici, 20 to 25 ms of each cold start; of its net
 * and dns modules, such that cost one or two. The aliases take the modules from `process.getBuiltinModule` instead, which does not. Another alias leaves out the SDK's ways to find
 * credentials (profiles, single sign-on, token exchanges, instance metadata): 135 kB, and 25 ms of each cold start.
 */

const root = path.resolve(import.meta.dirname, '..')
const builtin = (file: string): string => path.join(root, 'infra', 'builtins', file)

export interface Bundles {
  /** Folder of each flow's bundle: `index.mjs`, what it loads, and the map of each. */
  folderOf(flow: string): string
  /** What each flow's files are made of. */
  metafiles: ReadonlyMap<string, Metafile>
}

/** A folder that goes when this process ends; the CDK app copies what it needs from it. */
const temporaryFolder = (): string => {
  const folder = mkdtempSync(path.join(tmpdir(), 'coatcheck-bundles-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** One bundle in a folder of its own. */
const build = async (file: string, outdir: string): Promise<Metafile> => {
  const { metafile } = await esbuild({
    absWorkingDir: root,
    entryPoints: [{ in: file, out: 'index' }],
    outdir,
    bundle: true,
    splitting: true,
    chunkNames: '[name]-[hash]',
    platform: 'node',
    target: 'node24',
    format: 'esm',
    outExtension: { '.js': '.mjs' },
    mainFields: ['module', 'main'],
    minify: true,
    keepNames: false,
    sourcemap: 'linked',
    sourcesContent: false,
    metafile: true,
    logLevel: 'warning',
    legalComments: 'none',
    alias: {
      ...Object.fromEntries(
        ['http', 'https', 'http2', 'net', 'dns'].flatMap((name) => [
          [name, builtin(`${name}.cjs`)],
          [`node:${name}`, builtin(`${name}.cjs`)],
        ]),
      ),
      '@aws-sdk/credential-provider-node': builtin('credentials.js'),
    },
    banner: {
      js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
    },
  })
  return metafile
}

/** The entry files are bundled, each under the name it is given, into `outdir` or a temporary folder. */
export const bundle = async (
  entries: Readonly<Record<string, string>>,
  outdir = temporaryFolder(),
): Promise<Bundles> => {
  const folderOf = (flow: string): string => path.join(outdir, flow)
  const built = await Promise.all(
    Object.entries(entries).map(async ([name, file]) => [name, await build(file, folderOf(name))] as const),
  )
  return { folderOf, metafiles: new Map(built) }
}
