import { vi } from 'vitest'
import { bundleEntries } from '../../infra/flows.ts'
import { audit, auditEvents, gauge, gauges, reportFailure } from '../../lambdas/report.ts'
import { Failure, reasons, type Reason } from '../../shared/errors.ts'
import { recordStage } from './records-of-today.ts'

/** A metric as CloudWatch knows it: it is another one where anything of this differs. */
export interface WrittenMetric {
  namespace: string
  name: string
  /** Dimensions with their values, in the order of their names. */
  dimensions: [name: string, value: unknown][]
}

/** The same text for the same metric, in whatever order its dimensions come. */
export const metricIdentity = ({ namespace, name, dimensions }: WrittenMetric): string =>
  JSON.stringify([namespace, name, dimensions.toSorted(([one], [other]) => one.localeCompare(other))])

interface Directive {
  Namespace: string
  Dimensions: string[][]
  Metrics: { Name: string }[]
}

/** Every metric that functions of a stack of that name can write about those providers, as read from what the module of functions that writes them wrote. */
export const writtenMetrics = (stackName: string, providers: readonly string[]): WrittenMetric[] => {
  const lines: string[] = []
  vi.stubEnv('COATCHECK_STAGE', JSON.stringify(recordStage()))
  vi.stubEnv('COATCHECK_STACK', stackName)
  const out = vi.spyOn(process.stdout, 'write').mockImplementation((line) => lines.push(String(line)) > 0)
  const errors = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  for (const flow of Object.keys(bundleEntries)) {
    for (const reason of Object.keys(reasons)) reportFailure(flow, new Failure(reason as Reason))
    for (const event of auditEvents) audit(flow, event, {})
  }
  for (const name of gauges) for (const provider of providers) gauge(name, provider, 1)
  out.mockRestore()
  errors.mockRestore()
  return lines.flatMap((line) => {
    const { _aws: directive, ...members } = JSON.parse(line)
    const written: Directive[] = directive?.CloudWatchMetrics ?? []
    return written.flatMap(({ Namespace: namespace, Dimensions, Metrics }) =>
      Dimensions.flatMap((set) =>
        Metrics.map(({ Name: name }) => ({
          namespace,
          name,
          dimensions: set.map((dimension): [string, unknown] => [dimension, members[dimension]]),
        })),
      ),
    )
  })
}
