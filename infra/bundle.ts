import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { build } from 'esbuild'
import type { BuildOptions, Metafile, Plugin } from 'esbuild'

/**
 * One bundle a flow: ESM, minified, with its source map beside it, in a folder of its own. All are built in one run of esbuild, and in another what
 * they import when it is needed, the client that starts tasks: a file beside each bundle that costs a cold start nothing. (With `splitting` each
 * flow needs a run of its own, three times as long; without either, esbuild wraps each module of the bundle, and all start later.)
 *
 * An ESM `import` of node's http modules evaluates lazy members of theirs that load undici, 20 to 25 ms of each cold start; of its net
 * and dns modules, such that cost one or two. The aliases take the modules from `process.getBuiltinModule` instead, which does not. Another alias leaves out the SDK's ways to find
 * credentials (profiles, single sign-on, token exchanges, instance metadata): 135 kB, and 25 ms of each cold start.
 */

const root = path.resolve(import.meta.dirname, '..')
const builtin = (file: string): string => path.join(root, 'infra', 'builtins', file)

export interface Bundles {
  /** Folder of each flow's bundle: `index.mjs`, what that loads later, and the map of each. */
  folderOf(flow: string): string
  /** What each `index.mjs` is made of. */
  metafile: Metafile
}

/** A folder that goes when this process ends; the CDK app copies what it needs from it. */
const temporaryFolder = (): string => {
  const folder = mkdtempSync(path.join(tmpdir(), 'coatcheck-bundles-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

const options = {
  absWorkingDir: root,
  bundle: true,
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
} as const satisfies BuildOptions

/** What is imported by `import()` stays outside, as a file beside the bundle; `found` hears of its source. */
const outside = (found: Set<string>): Plugin => ({
  name: 'outside',
  setup: (plugin) => {
    plugin.onResolve({ filter: /^\.\.?\/.*\.ts$/ }, ({ kind, path: file, resolveDir }) => {
      if (kind !== 'dynamic-import') return undefined
      found.add(path.resolve(resolveDir, file))
      return { path: `./${path.basename(file, '.ts')}.mjs`, external: true }
    })
  },
})

/** The entry files are bundled, each under the name it is given, into `outdir` or a temporary folder. */
export const bundle = async (
  entries: Readonly<Record<string, string>>,
  outdir = temporaryFolder(),
): Promise<Bundles> => {
  const folderOf = (flow: string): string => path.join(outdir, flow)
  const found = new Set<string>()
  const entryPoints = Object.entries(entries).map(([name, file]) => ({ in: file, out: `${name}/index` }))
  const { metafile } = await build({ ...options, entryPoints, outdir, plugins: [outside(found)] })
  await build({ ...options, entryPoints: [...found], outdir: path.join(outdir, 'beside') })
  for (const [file, { imports }] of Object.entries(metafile.outputs)) {
    for (const { path: name, external, kind } of imports) {
      if (external !== true || kind !== 'dynamic-import' || !name.startsWith('./')) continue
      for (const beside of [name, `${name}.map`]) {
        copyFileSync(path.join(outdir, 'beside', beside), path.join(root, path.dirname(file), beside))
      }
    }
  }
  return { folderOf, metafile }
}
