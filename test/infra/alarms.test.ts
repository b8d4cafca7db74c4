import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { countAlarms, gaugeAlarms, type CountAlarm, type GaugeAlarm } from '../../infra/alarm-table.ts'
import { flows } from '../../infra/flows.ts'
import { reasons } from '../../shared/errors.ts'
import { anchorOf, headings, section, table, textOf } from '../docs/documents.ts'
import { metricIdentity, writtenMetrics } from '../support/metrics.ts'
import { synthesizeStage } from '../support/stacks.ts'

/** The alarms of a stack: that they watch what is counted, that CloudWatch takes them, and that they say what to do. */

interface MetricOfAlarm {
  Namespace: string
  MetricName: string
  Dimensions: { Name: string; Value: unknown }[]
}
interface Alarm {
  AlarmName: string
  AlarmDescription: string
  AlarmActions?: unknown[]
  OKActions?: unknown[]
  InsufficientDataActions?: unknown[]
  ActionsEnabled?: boolean
  ComparisonOperator: string
  Threshold: number
  EvaluationPeriods: number
  DatapointsToAlarm: number
  TreatMissingData: string
  /** Where it watches one metric. */
  Statistic?: string
  Period?: number
  /** Where it adds up several. */
  Metrics?: {
    Id: string
    Expression?: string
    ReturnData?: boolean
    MetricStat?: { Metric: MetricOfAlarm; Period: number; Stat: string }
  }[]
}
type Template = { Resources: Record<string, { Type: string; Properties: Record<string, unknown> }> }

const topic = 'arn:aws:sns:eu-central-1:123456789012:on-call'
const stage = {
  origin: 'https://app.example.com',
  providers: {
    main: { issuer: 'https://as.example.com' },
    theirs: { issuer: 'https://theirs.example.com', client: 'static' },
  },
}
const synthesized = async (content: unknown): Promise<Template> => {
  const folder = await synthesizeStage(content)
  const file = readdirSync(folder).find((name) => name.endsWith('.template.json')) ?? ''
  return JSON.parse(readFileSync(join(folder, file), 'utf8'))
}
const resourcesOf = (from: Template, type: string) =>
  Object.entries(from.Resources).filter(([, { Type }]) => Type === type)
const alarmsOf = (from: Template): Alarm[] =>
  resourcesOf(from, 'AWS::CloudWatch::Alarm').map(([, { Properties }]) => Properties as unknown as Alarm)

let template: Template
let alarms: Alarm[]
beforeAll(async () => {
  template = await synthesized({ ...stage, alarms: { topic_arn: topic } })
  alarms = alarmsOf(template)
})

/** The metrics that an alarm watches, each with its statistic and period (seconds). */
const watched = (alarm: Alarm): { metric: MetricOfAlarm; stat: string; period: number }[] =>
  alarm.Metrics === undefined
    ? [
        {
          metric: alarm as unknown as MetricOfAlarm,
          stat: alarm.Statistic ?? 'none',
          period: alarm.Period ?? 0,
        },
      ]
    : alarm.Metrics.flatMap(({ MetricStat: given }) =>
        given === undefined ? [] : [{ metric: given.Metric, stat: given.Stat, period: given.Period }],
      )

/** The name that every function has for its stack. */
const stackInEnvironment = (): string => {
  const names = resourcesOf(template, 'AWS::Lambda::Function').map(([, { Properties }]) => {
    const { Variables } = Object(Properties['Environment'])
    return String(Object(Variables)['COATCHECK_STACK'])
  })
  const [name = '', ...others] = new Set(names)
  expect(others).toEqual([])
  return name
}

describe('what an alarm watches', () => {
  test('is counted by the functions of this very stack, with these dimensions, or measured by Lambda', () => {
    const counted = writtenMetrics(stackInEnvironment(), Object.keys(stage.providers))
    const functions = resourcesOf(template, 'AWS::Lambda::Function').map(([id]) => id)
    const measured = ['Errors', 'Throttles', 'AsyncEventsDropped'].flatMap((name) =>
      functions.map((id) => ({
        namespace: 'AWS/Lambda',
        name,
        dimensions: [['FunctionName', { Ref: id }]] as [string, unknown][],
      })),
    )
    const known = new Set([...counted, ...measured].map(metricIdentity))
    const named = alarms
      .flatMap(watched)
      .map(({ metric: { Namespace: namespace, MetricName: name, Dimensions } }) =>
        metricIdentity({ namespace, name, dimensions: Dimensions.map(({ Name, Value }) => [Name, Value]) }),
      )
    expect(named.length).toBeGreaterThan(50)
    expect(named.filter((metric) => !known.has(metric))).toEqual([])
  })

  test('is every reason that needs an operator', () => {
    const known = new Set(
      countAlarms.flatMap(({ watch }) => watch.flatMap((one) => ('outcomes' in one ? one.outcomes : []))),
    )
    const errors = Object.entries(reasons).filter(([, { level }]) => level === 'error')
    expect(errors.map(([reason]) => reason).filter((reason) => !known.has(reason))).toEqual([])
  })

  test('is every function that answers requests, for crashes and throttles', () => {
    const routes = JSON.stringify(resourcesOf(template, 'AWS::ApiGatewayV2::Integration'))
    const behindRoutes = resourcesOf(template, 'AWS::Lambda::Function')
      .map(([id]) => id)
      .filter((id) => routes.includes(id))
    expect(behindRoutes).toHaveLength(Object.keys(flows).length)
    for (const name of ['functions-crash', 'functions-throttled']) {
      const found = alarms.filter(({ AlarmName }) => AlarmName.startsWith(`coatcheck-local-${name}`)).flatMap(watched)
      const ids = found.map(({ metric }) => String(Object(metric.Dimensions[0]?.Value)['Ref']))
      expect(ids.toSorted()).toEqual(behindRoutes.toSorted())
    }
  })

  test('is another stack’s nowhere', async () => {
    const names = alarms.flatMap(watched).flatMap(({ metric }) => metric.Dimensions)
    expect(new Set(names.flatMap(({ Name, Value }) => (Name === 'stack' ? [Value] : [])))).toEqual(
      new Set(['coatcheck-local']),
    )
    const unbound = alarms
      .flatMap(watched)
      .filter(({ metric }) => !metric.Dimensions.some(({ Name }) => Name === 'stack' || Name === 'FunctionName'))
    expect(unbound).toEqual([])
  })

  test('follows the stage: rotation and its functions only where there are any', async () => {
    const providers = { theirs: stage.providers.theirs }
    const names = alarmsOf(await synthesized({ ...stage, providers })).map(({ AlarmName }) => AlarmName)
    expect(names.filter((name) => /near-expiry|orphaned/.test(name))).toEqual([])
    const off = { main: { issuer: 'https://as.example.com', rotation: { mode: 'off' } } }
    const kept = alarmsOf(await synthesized({ ...stage, providers: off }))
    expect(kept.map(({ AlarmName }) => AlarmName)).toContain('coatcheck-local-secret-near-expiry-main')
    const failed = kept.find(({ AlarmName }) => AlarmName.endsWith('rotation-failed'))
    expect(failed && watched(failed).map(({ metric }) => metric.Namespace)).toEqual(['Coatcheck'])
  })
})

describe('CloudWatch', () => {
  test('takes each of them: names, lengths, periods, and at most ten metrics', () => {
    expect(alarms.length).toBe(countAlarms.length + gaugeAlarms.length)
    expect(new Set(alarms.map(({ AlarmName }) => AlarmName)).size).toBe(alarms.length)
    for (const alarm of alarms) {
      expect(alarm.AlarmName).toMatch(/^coatcheck-local-[a-z-]{1,100}$/)
      expect(alarm.AlarmDescription.length).toBeLessThanOrEqual(1_024)
      const metrics = watched(alarm)
      expect([alarm.AlarmName, metrics.length]).toEqual([
        alarm.AlarmName,
        expect.toSatisfy((count: number) => count >= 1 && count <= 10),
      ])
      const [period = 0, ...otherPeriods] = new Set(metrics.map((one) => one.period))
      expect(otherPeriods).toEqual([])
      expect(period % 60 === 0 && period >= 60).toBe(true)
      expect(period * alarm.EvaluationPeriods).toBeLessThanOrEqual(86_400)
      expect(alarm.DatapointsToAlarm).toBeLessThanOrEqual(alarm.EvaluationPeriods)
      expect(alarm.ActionsEnabled ?? true).toBe(true)
    }
  })

  test('takes nothing for nothing, and at least the threshold for too much', () => {
    for (const alarm of alarms) {
      expect(alarm).toMatchObject({
        TreatMissingData: 'notBreaching',
        ComparisonOperator: 'GreaterThanOrEqualToThreshold',
      })
    }
  })

  test('adds up what several outcomes count, and shows that alone', () => {
    const several = alarms.filter(({ Metrics }) => Metrics !== undefined)
    expect(several.length).toBeGreaterThan(5)
    for (const { Metrics = [] } of several) {
      const [sum, ...parts] = Metrics.toSorted(
        (one, other) => Number(one.Expression === undefined) - Number(other.Expression === undefined),
      )
      expect(sum?.Expression).toBe(`SUM([${parts.map(({ Id }) => Id).join(', ')}])`)
      expect(Metrics.filter(({ ReturnData = true }) => ReturnData)).toEqual([sum])
      expect(new Set(parts.map(({ MetricStat }) => MetricStat?.Stat))).toEqual(new Set(['Sum']))
    }
  })

  test('measures over the time that the table says', () => {
    for (const { name, limit } of countAlarms) {
      const alarm = alarms.find(({ AlarmName }) => AlarmName === `coatcheck-local-${name}`)
      expect([name, alarm?.Threshold]).toEqual([name, limit.atLeast])
      expect(alarm && watched(alarm).every(({ period }) => period === limit.minutes * 60)).toBe(true)
    }
    for (const { name } of gaugeAlarms) {
      const alarm = alarms.find(({ AlarmName }) => AlarmName === `coatcheck-local-${name}-main`)
      expect(alarm).toMatchObject({
        Threshold: 1,
        Statistic: 'Maximum',
        Period: 3_600,
        EvaluationPeriods: 3,
        DatapointsToAlarm: 2,
      })
    }
  })
})

describe('notifications', () => {
  test('go to the topic of the stage, when an alarm goes off', () => {
    for (const alarm of alarms) {
      expect(alarm.AlarmActions).toEqual([topic])
      expect([alarm.OKActions, alarm.InsufficientDataActions]).toEqual([undefined, undefined])
    }
  })

  test('go nowhere where the stage names no topic, and the alarms are there', async () => {
    const silent = alarmsOf(await synthesized(stage))
    expect(silent.map(({ AlarmName }) => AlarmName)).toEqual(alarms.map(({ AlarmName }) => AlarmName))
    for (const alarm of silent) expect(alarm.AlarmActions).toBeUndefined()
  })

  test('cost functions no room: the topic is in no environment', () => {
    expect(JSON.stringify(resourcesOf(template, 'AWS::Lambda::Function'))).not.toContain('on-call')
  })

  test('say what it means, what to do, and where there is more', () => {
    const chapters = headings(textOf('docs/operations.md'))
    for (const { see } of [...countAlarms, ...gaugeAlarms]) expect(chapters).toContain(see)
    for (const { AlarmDescription: words } of alarms) {
      expect(words).toMatch(
        /^[A-Z].{30,}\. What to do: [A-Z].{20,}\. (Counted: [\w, ]+\. )?More: docs\/operations\.md, "[^"]+"\.$/,
      )
    }
    const near = alarms.find(({ AlarmName }) => AlarmName.endsWith('secret-near-expiry-main'))
    expect(near?.AlarmDescription).toContain('npm run rotate -- main`')
  })
})

describe('docs/audit.md', () => {
  const inWords = (list: readonly string[]): string =>
    list
      .map((one) => `\`${one}\``)
      .join(', ')
      .replace(/, (?!.*, )/, ' or ')
  const idOf = (name: string): string => name.replace(/^[a-z]/, (letter) => letter.toUpperCase())
  const limitOf = ({ watch, limit }: CountAlarm): string => {
    const sources = watch.map((source) => {
      if ('outcomes' in source)
        return inWords(source.outcomes) + (source.flow === undefined ? '' : ` in \`${source.flow}\``)
      const isAll = source.of.length === Object.keys(flows).length
      return `\`${source.measure}\` of ${isAll ? 'functions that answer requests' : inWords(source.of.map(idOf))}`
    })
    const time = limit.minutes === 60 ? '1 hour' : limit.minutes === 1 ? '1 minute' : `${limit.minutes} minutes`
    return `${sources.join(', or ')} ≥ ${limit.atLeast} in ${time}`
  }
  const row = ({ name, means, todo, see }: CountAlarm | GaugeAlarm, limit: string): string[] => [
    `\`${name}\``,
    limit,
    means,
    `${todo} [${see}](operations.md#${anchorOf(see)})`,
  ]

  test('lists the alarms of the stack, word for word', () => {
    const expected = [
      ...countAlarms.map((alarm) => row(alarm, limitOf(alarm))),
      ...gaugeAlarms.map((alarm) =>
        row({ ...alarm, name: `${alarm.name}-<provider>` }, `\`${alarm.gauge}\` ≥ 1 in 2 of 3 hours`),
      ),
    ]
    expect(table(section(textOf('docs/audit.md'), 'Alarms'))).toEqual(expected)
  })

  test('says how many metrics they watch', () => {
    const [, documented] = /watch (\d+) metrics/.exec(section(textOf('docs/audit.md'), 'Alarms')) ?? []
    expect(Number(documented)).toBe(alarms.flatMap(watched).length)
  })
})
