import type { BundleSize } from './bundle-sizes.ts'
import type { ColdStart } from './measure.ts'

/** A subject's answer when warm; the ratio says how many times as much the comparison's first subject takes. */
export interface WarmRow {
  name: string
  cpuMs: number
  dynamoDbCalls: number
  cpuRatio: number
}

/** A subject's cold start; ratios as above. */
export interface ColdRow {
  name: string
  importCpuMs: number
  cpuMs: number
  wallMs: number
  cpuRatio: number
  wallRatio: number
}

/** All that a run of the benchmark found. Times are medians, in milliseconds. */
export interface Result {
  machine: { cores: number; processor: string; platform: string; node: string }
  settings: { rounds: number; calls: number; warmUp: number; runs: number }
  bundles: BundleSize[]
  /** Each list is ours, then its floors. */
  warm: WarmRow[][]
  cold: ColdRow[][]
  /** Which functions load undici, which takes longer than all else that they do. */
  undici: { name: string; loaded: ColdStart['undici'] }[]
}

/** Lines of a table; columns of numbers stand to the right. */
const table = (head: string[], rows: string[][]): string => {
  const columns = head.map((title, at) => {
    const cells = rows.map((row) => row[at] ?? '')
    const width = Math.max(...[title, ...cells].map(({ length }) => length))
    return { width, numbers: cells.every((cell) => /^(\d|$)/.test(cell)) }
  })
  const line = (row: string[]): string =>
    columns
      .map(({ width, numbers }, at) => (numbers ? (row[at] ?? '').padStart(width) : (row[at] ?? '').padEnd(width)))
      .join('   ')
      .trimEnd()
  return `${[head, ...rows].map((row) => `  ${line(row)}`).join('\n')}\n`
}

const kilobytes = (bytes: number): string => `${(bytes / 1_000).toFixed(0)} kB`
const ms = (value: number): string => `${value.toFixed(value < 10 ? 3 : 1)} ms`
const times = (ratio: number, own: boolean): string => (own ? '' : `${ratio.toFixed(2)} x`)

/** The result as tables for a person. */
export const asText = ({ machine, settings, bundles, warm, cold, undici }: Result): string => {
  const { rounds, calls, runs } = settings
  const sizes = bundles.map(({ name, bytes, gzipBytes, laterBytes, biggest }) => [
    name,
    kilobytes(bytes),
    kilobytes(gzipBytes),
    kilobytes(laterBytes),
    biggest
      .slice(0, 4)
      .map(({ from, bytes: part }) => `${from} ${kilobytes(part)}`)
      .join(', '),
  ])
  const calling = warm.flatMap((group) =>
    group.map(({ name, cpuMs, cpuRatio, dynamoDbCalls }, at) => [
      name,
      ms(cpuMs),
      dynamoDbCalls.toFixed(2),
      times(cpuRatio, at === 0),
    ]),
  )
  const starting = cold.flatMap((group) =>
    group.map(({ name, cpuMs, wallMs, cpuRatio, wallRatio, importCpuMs }, at) => [
      name,
      ms(importCpuMs),
      ms(cpuMs),
      ms(wallMs),
      times(cpuRatio, at === 0),
      times(wallRatio, at === 0),
    ]),
  )
  const loading = undici.map(({ name, loaded }) => [name, loaded])
  return `
Node.js ${machine.node}, ${machine.platform}, ${machine.cores} cores, ${machine.processor}

Bundles: what is loaded at a cold start, and what may be later
${table(['function', 'minified', 'gzip', 'later', 'biggest parts at the start'], sizes)}
CPU time per call, warm: median of ${rounds} rounds of ${calls} calls
${table(['function', 'CPU', 'DynamoDB calls', 'ours is'], calling)}
Cold start, import of the bundle and first answer: median of ${runs} fresh processes
${table(['function', 'import CPU', 'CPU', 'wall', 'ours is, CPU', 'wall'], starting)}
Who loads undici, the fetch of Node.js
${table(['function', 'loaded'], loading)}`
}
