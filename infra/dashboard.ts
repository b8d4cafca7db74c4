import { Duration } from 'aws-cdk-lib'
import type { Stack } from 'aws-cdk-lib'
import type { HttpApi } from 'aws-cdk-lib/aws-apigatewayv2'
import { AlarmStatusWidget, Dashboard, GraphWidget, MathExpression } from 'aws-cdk-lib/aws-cloudwatch'
import type { IAlarm, IMetric } from 'aws-cdk-lib/aws-cloudwatch'
import { ourMetric } from './alarms.ts'

interface DashboardProps {
  api: HttpApi
  alarms: readonly IAlarm[]
}

const period = Duration.minutes(5)
const WHOLE_WIDTH = 24

const row = (graphs: readonly (readonly [title: string, metrics: IMetric[]])[]): GraphWidget[] =>
  graphs.map(([title, left]) => new GraphWidget({ title, left, width: WHOLE_WIDTH / graphs.length, height: 6 }))

/** One page in CloudWatch shows how the stack is: its alarms, sign-ins, failures by reason, renewals, and the gateway. */
export const addDashboard = (stack: Stack, { api, alarms }: DashboardProps): void => {
  /** Whatever has been counted with these dimensions, one line each. */
  const every = (dimensions: string, term: string, statistic: string, over = period): IMetric[] => {
    const search = `{Coatcheck,${dimensions}} stack="${stack.stackName}" ${term}`
    const expression = `SEARCH('${search}', '${statistic}', ${over.toSeconds()})`
    return [new MathExpression({ expression, usingMetrics: {}, label: '', period: over })]
  }
  const outcomes = (...names: string[]): IMetric[] =>
    names.map((outcome) => ourMetric(stack, 'count', { outcome }, { period, statistic: 'Sum', label: outcome }))

  new Dashboard(stack, 'Dashboard', {
    dashboardName: stack.stackName,
    widgets: [
      [new AlarmStatusWidget({ title: 'Alarms', alarms: [...alarms], width: WHOLE_WIDTH, height: 6 })],
      row([
        ['Sign-ins, and why others failed', every('flow,outcome,stack', 'MetricName="count" flow="callback"', 'Sum')],
        ['Every event and failure', every('outcome,stack', 'MetricName="count"', 'Sum')],
      ]),
      row([
        ['Renewals', outcomes('renewed', 'renewal_pending', 'grant_ended', 'client_rejected')],
        [
          'Latency',
          ['p50', 'p95', 'p99'].map((statistic) => api.metricLatency({ period, statistic, label: statistic })),
        ],
        [
          'Requests',
          [api.metricCount({ period }), api.metricClientError({ period }), api.metricServerError({ period })],
        ],
        [
          'Days left of secrets',
          every('provider,stack', 'MetricName="secret_days_left"', 'Minimum', Duration.hours(1)),
        ],
      ]),
    ],
  })
}
