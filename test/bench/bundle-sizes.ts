import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Bundles } from '../../infra/bundle.ts'

/** What a function loads at its cold start: minified, gzipped, and by origin, biggest first; and how much it may load later. Sizes are bytes. */
export interface BundleSize {
  name: string
  bytes: number
  gzipBytes: number
  laterBytes: number
  biggest: { from: string; bytes: number }[]
}

/** The npm package that a bundled file is from, or the product. */
const originOf = (input: string): string => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)?.[1] ?? 'coatcheck'

/** The size of each bundle of those names and what is in it. */
export const bundleSizes = (bundles: Bundles, names: readonly string[]): BundleSize[] =>
  names.map((name) => {
    const outputs = bundles.metafiles.get(name)?.outputs ?? {}
    const modules = Object.keys(outputs).filter((file) => file.endsWith('.mjs'))
    const first = new Set(modules.filter((file) => file.endsWith('/index.mjs')))
    // A set that grows while it is gone through: whatever is imported at once, by what is imported at once.
    for (const file of first) {
      for (const { path, kind } of outputs[file]?.imports ?? [])
        if (kind === 'import-statement' && outputs[path]) first.add(path)
    }
    const origins = new Map<string, number>()
    for (const [input, { bytesInOutput }] of [...first].flatMap((file) =>
      Object.entries(outputs[file]?.inputs ?? {}),
    )) {
      const from = originOf(input)
      origins.set(from, (origins.get(from) ?? 0) + bytesInOutput)
    }
    const biggest = [...origins].map(([from, bytes]) => ({ from, bytes })).toSorted((a, b) => b.bytes - a.bytes)
    const contents = [...first].map((file) => readFileSync(join(bundles.folderOf(name), basename(file))))
    const sum = (sizes: number[]): number => sizes.reduce((total, size) => total + size, 0)
    const bytes = sum(contents.map(({ length }) => length))
    return {
      name,
      bytes,
      gzipBytes: sum(contents.map((content) => gzipSync(content).length)),
      laterBytes: sum(modules.map((file) => outputs[file]?.bytes ?? 0)) - bytes,
      biggest,
    }
  })
