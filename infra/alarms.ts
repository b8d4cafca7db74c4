import { Duration } from 'aws-cdk-lib'
import type { Stack } from 'aws-cdk-lib'
import { Alarm, ComparisonOperator, MathExpression, Metric, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch'
import type { IAlarm, IMetric, MetricOptions } from 'aws-cdk-lib/aws-cloudwatch'
import type { IFunction } from 'aws-cdk-lib/aws-lambda'
import type { Stage } from '../shared/config.ts'
import { countAlarms, gaugeAlarms } from './alarm-table.ts'
import type { Sentences, Source } from './alarm-table.ts'

interface AlarmsProps {
  stage: Stage
  /** Every function of the stack that an alarm may watch, by the name of its bundle. */
  functions: Readonly<Record<string, IFunction>>
}

/** What the notification shows, in its own words; `<provider>` stands for any, where the alarm is not one provider's. */
const descriptionOf = ({ means, todo, see }: Sentences, counted: readonly string[], provider = '<provider>'): string =>
  [
    means,
    `What to do: ${todo}`,
    ...(counted.length === 0 ? [] : [`Counted: ${counted.join(', ')}.`]),
    `More: docs/operations.md, "${see}".`,
  ]
    .join(' ')
    .replaceAll('<provider>', provider)

/** A metric of this stack, as lambdas/report.ts writes it. */
export const ourMetric = (
  stack: Stack,
  metricName: string,
  dimensions: Record<string, string>,
  how: MetricOptions,
): Metric =>
  new Metric({
    ...how,
    namespace: 'Coatcheck',
    metricName,
    dimensionsMap: { stack: stack.stackName, ...dimensions },
  })

/** The alarms of the table are in the stack, and notify the topic that the stage names; nobody where it names none. */
export const addAlarms = (stack: Stack, { stage, functions }: AlarmsProps): IAlarm[] => {
  const alarms: IAlarm[] = []
  const topic = stage.alarms?.topic_arn

  const metricsOf = (source: Source, period: Duration): IMetric[] => {
    if ('measure' in source) {
      const present = source.of.flatMap((name) => functions[name] ?? [])
      return present.map((one) => one.metric(source.measure, { period, statistic: 'Sum' }))
    }
    const { outcomes, flow } = source
    return outcomes.map((outcome) =>
      ourMetric(stack, 'count', { ...(flow && { flow }), outcome }, { period, statistic: 'Sum' }),
    )
  }

  const add = (
    name: string,
    alarmDescription: string,
    metric: IMetric,
    {
      atLeast,
      evaluationPeriods,
      datapointsToAlarm,
    }: Record<'atLeast' | 'evaluationPeriods' | 'datapointsToAlarm', number>,
  ): void => {
    const alarm = new Alarm(stack, `Alarm-${name}`, {
      alarmName: `${stack.stackName}-${name}`,
      alarmDescription,
      metric,
      threshold: atLeast,
      comparisonOperator: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      evaluationPeriods,
      datapointsToAlarm,
      // Nothing is counted where nothing happens.
      treatMissingData: TreatMissingData.NOT_BREACHING,
    })
    alarms.push(alarm)
    if (topic !== undefined) alarm.addAlarmAction({ bind: () => ({ alarmActionArn: topic }) })
  }

  for (const alarm of countAlarms) {
    const period = Duration.minutes(alarm.limit.minutes)
    const metrics = alarm.watch.flatMap((source) => metricsOf(source, period))
    const [only] = metrics
    if (only === undefined) continue
    const named = Object.fromEntries(metrics.map((metric, index) => [`m${index}`, metric]))
    // Without FILL: a sum leaves out what has no value, and what is filled could not come late any more.
    const expression = `SUM([${Object.keys(named).join(', ')}])`
    const sum = metrics.length === 1 ? only : new MathExpression({ expression, usingMetrics: named, period })
    const outcomes = alarm.watch.flatMap((source) => ('outcomes' in source ? source.outcomes : []))
    add(alarm.name, descriptionOf(alarm, outcomes), sum, {
      atLeast: alarm.limit.atLeast,
      evaluationPeriods: 1,
      datapointsToAlarm: 1,
    })
  }

  const dynamic = Object.entries(stage.providers).filter(([, { client }]) => client !== 'static')
  for (const [provider] of dynamic) {
    for (const alarm of gaugeAlarms) {
      const measured = ourMetric(stack, alarm.gauge, { provider }, { period: Duration.hours(1), statistic: 'Maximum' })
      // Once may be a rotation that is under way, and an hour may pass without a measurement.
      const twice = { atLeast: 1, evaluationPeriods: 3, datapointsToAlarm: 2 }
      add(`${alarm.name}-${provider}`, descriptionOf(alarm, [], provider), measured, twice)
    }
  }
  return alarms
}
