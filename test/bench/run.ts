// What `npm run bench` runs: what each function weighs, and what the session check and the API call cost beside floors that do the
// least that such a function can do. Progress goes to stderr, the result to stdout.
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { bundle } from '../../infra/bundle.ts'
import { bundleEntries } from '../../infra/flows.ts'
import { bundleSizes } from './bundle-sizes.ts'
import { createMeasure, median } from './measure.ts'
import type { Round } from './measure.ts'
import { asText } from './report.ts'
import type { ColdRow, Result, WarmRow } from './report.ts'
import { startSubjects } from './subjects.ts'
import type { Subject } from './subjects.ts'

const help = `What Coatcheck's functions cost, beside floors: a handler that makes one BatchGetItem through the SDK and
answers JSON, and for the API call one that calls the resource server besides.

  npm run bench [-- options]

  --quick   Fewer rounds: a look, not a measurement.
  --json    Print the numbers as JSON.
  --help    Print this.
`

const floorEntries = { floor: 'test/bench/floor.ts', 'floor-proxy': 'test/bench/floor-proxy.ts' }
const few: Result['settings'] = { rounds: 2, calls: 20, warmUp: 20, runs: 2 }
const many: Result['settings'] = { rounds: 41, calls: 100, warmUp: 800, runs: 31 }
const progress = (text: string): void => void process.stderr.write(`${text}\n`)

const options = () => {
  const flag = { type: 'boolean', default: false } as const
  try {
    return parseArgs({ options: { quick: flag, json: flag, help: { ...flag, short: 'h' } } }).values
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nSee npm run bench -- --help.\n`)
    process.exit(2)
  }
}

type Settings = Result['settings']
type Subjects = Awaited<ReturnType<typeof startSubjects>>
type Measure = Awaited<ReturnType<typeof createMeasure>>

/** The two comparisons, of a session that has just begun: a longer one would have its idle end moved, which is a write a minute. */
const comparisons = async (subjects: Subjects) => {
  const { session, api, floor, floorProxy } = await subjects.ofNewSession()
  return { check: [session, floor], call: [api, floor, floorProxy] }
}

const namesOf = (group: readonly Subject[]): string => group.map(({ name }) => name).join(', ')

/** The median of a number of one subject over all rounds, or of what it is together with the first subject's. */
const over = <T extends object>(rounds: readonly Round<T>[], at: number) => {
  const values = (name: keyof T, of: (own: number, ours: number) => number): number =>
    median(rounds.map((round) => of(Number(round[at]?.[name]), Number(round[0]?.[name]))))
  return {
    typical: (name: keyof T): number => values(name, (own) => own),
    /** A ratio is taken within each round, where all had the same conditions. */
    ratio: (name: keyof T): number => values(name, (own, ours) => ours / own),
  }
}

const warmCalls = async (measure: Measure, group: readonly Subject[], settings: Settings): Promise<WarmRow[]> => {
  progress(`warm calls: ${namesOf(group)}`)
  const rounds = await measure.warmCalls(group, settings)
  return group.map(({ name }, at) => {
    const { typical, ratio } = over(rounds, at)
    return { name, cpuMs: typical('cpuMs'), dynamoDbCalls: typical('dynamoDbCalls'), cpuRatio: ratio('cpuMs') }
  })
}

const coldStarts = async (measure: Measure, group: readonly Subject[], { runs }: Settings): Promise<ColdRow[]> => {
  progress(`cold starts: ${namesOf(group)}`)
  const rounds = await measure.coldStarts(group, runs)
  return group.map(({ name }, at) => {
    const { typical, ratio } = over(rounds, at)
    return {
      name,
      importCpuMs: typical('importCpuMs'),
      cpuMs: typical('cpuMs'),
      wallMs: typical('wallMs'),
      cpuRatio: ratio('cpuMs'),
      wallRatio: ratio('wallMs'),
    }
  })
}

const bench = async (settings: Settings): Promise<Result> => {
  progress('building the bundles')
  const bundles = await bundle({ ...bundleEntries, ...floorEntries })
  progress('starting the stack')
  const subjects = await startSubjects({ read: bundles.folderOf('floor'), proxy: bundles.folderOf('floor-proxy') })
  const measure = await createMeasure(subjects.dynamoDbCalls)
  try {
    const warm = [
      await warmCalls(measure, (await comparisons(subjects)).check, settings),
      await warmCalls(measure, (await comparisons(subjects)).call, settings),
    ]
    const { check, call } = await comparisons(subjects)
    const cold = [await coldStarts(measure, check, settings), await coldStarts(measure, call, settings)]
    progress('the first answer of every flow')
    const flows = await subjects.ofEveryFlow()
    const [first = []] = await measure.coldStarts(flows, 1)
    return {
      machine: {
        cores: availableParallelism(),
        processor: cpus()[0]?.model ?? 'unknown',
        platform: `${process.platform} ${process.arch}`,
        node: process.version,
      },
      settings,
      bundles: bundleSizes(bundles, [...Object.keys(bundleEntries), ...Object.keys(floorEntries)]),
      warm,
      cold,
      undici: flows.map(({ name }, at) => ({ name, loaded: first[at]?.undici ?? 'no' })),
    }
  } finally {
    await measure.close()
    await subjects.close()
  }
}

const { quick, json, help: asked } = options()
if (asked) process.stdout.write(help)
else {
  const result = await bench(quick ? few : many)
  process.stdout.write(json ? `${JSON.stringify(result, undefined, 2)}\n` : asText(result))
}
