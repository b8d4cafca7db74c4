import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
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
    const [, output] =
      Object.entries(bundles.metafile.outputs).find(([path]) => path.endsWith(`${name}/index.mjs`)) ?? []
    const origins = new Map<string, number>()
    for (const [input, { bytesInOutput }] of Object.entries(output?.inputs ?? {})) {
      const from = originOf(input)
      origins.set(from, (origins.get(from) ?? 0) + bytesInOutput)
    }
    const biggest = [...origins].map(([from, bytes]) => ({ from, bytes })).toSorted((a, b) => b.bytes - a.bytes)
    const folder = bundles.folderOf(name)
    const content = readFileSync(join(folder, 'index.mjs'))
    const later = readdirSync(folder).filter((file) => file.endsWith('.mjs') && file !== 'index.mjs')
    return {
      name,
      bytes: content.length,
      gzipBytes: gzipSync(content).length,
      laterBytes: later.reduce((sum, file) => sum + statSync(join(folder, file)).size, 0),
      biggest,
    }
  })
