import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { metricIdentity, writtenMetrics, type WrittenMetric } from '../support/metrics.ts'
import { synthesizeStage } from '../support/stacks.ts'

/** The page in CloudWatch: what it shows is there, and is this stack's. */

interface Widget {
  type: string
  x: number
  width: number
  properties: { title: string; alarms?: string[]; metrics?: unknown[][] }
}
type Resource = { Type: string; Properties: Record<string, unknown> }

let resources: [id: string, resource: Resource][]
let dashboards: Resource['Properties'][]
let widgets: Widget[]
let written: WrittenMetric[]

/** What CloudFormation puts in stands as its own JSON, without its quotes. */
const textOf = (body: unknown): string => {
  const [, parts = []] = Object(Object(body)['Fn::Join'])
  return parts
    .map((part: unknown) => (typeof part === 'string' ? part : JSON.stringify(part).replaceAll('"', '')))
    .join('')
}

beforeAll(async () => {
  const folder = await synthesizeStage({
    origin: 'https://app.example.com',
    providers: { main: { issuer: 'https://as.example.com' } },
  })
  const file = readdirSync(folder).find((name) => name.endsWith('.template.json')) ?? ''
  const template: { Resources: Record<string, Resource> } = JSON.parse(readFileSync(join(folder, file), 'utf8'))
  resources = Object.entries(template.Resources)
  dashboards = all('AWS::CloudWatch::Dashboard').map(([, { Properties }]) => Properties)
  widgets = JSON.parse(textOf(dashboards[0]?.['DashboardBody'])).widgets
  written = writtenMetrics('coatcheck-local', ['main'])
})

const all = (type: string) => resources.filter(([, { Type }]) => Type === type)

test('is one, called like the stack', () => {
  expect(dashboards.map((given) => given['DashboardName'])).toEqual(['coatcheck-local'])
})

test('shows every alarm of the stack', () => {
  const shown = widgets.flatMap(({ properties }) => properties.alarms ?? [])
  expect(shown).toEqual(all('AWS::CloudWatch::Alarm').map(([id]) => `{Fn::GetAtt:[${id},Arn]}`))
  expect(shown.length).toBeLessThanOrEqual(100)
})

test('has a title on each graph, and rows that fit', () => {
  expect(new Set(widgets.map(({ properties }) => properties.title)).size).toBe(widgets.length)
  for (const { x, width } of widgets) expect(x + width).toBeLessThanOrEqual(24)
})

describe('each graph', () => {
  const lines = () => widgets.flatMap(({ properties }) => properties.metrics ?? [])
  const expressions = () =>
    lines().flatMap(([first]) => (typeof first === 'object' ? [String(Object(first)['expression'])] : []))

  test('of one metric shows one that functions write, or the gateway measures', () => {
    const [[api] = []] = all('AWS::ApiGatewayV2::Api')
    const gateway = ['Latency', 'Count', '4xx', '5xx'].map((name): WrittenMetric => ({
      namespace: 'AWS/ApiGateway',
      name,
      dimensions: [['ApiId', `{Ref:${api}}`]],
    }))
    const known = new Set([...written, ...gateway].map(metricIdentity))
    const named = lines().flatMap(([namespace, name, ...rest]) => {
      if (typeof namespace !== 'string') return []
      const words = rest.filter((word) => typeof word === 'string')
      const dimensions = words.flatMap((word, index): [string, unknown][] =>
        index % 2 === 0 ? [[word, words[index + 1]]] : [],
      )
      return [metricIdentity({ namespace, name: String(name), dimensions })]
    })
    expect(named.length).toBeGreaterThan(8)
    expect(named.filter((metric) => !known.has(metric))).toEqual([])
  })

  test('of a search finds what functions write, in this stack alone', () => {
    const found = expressions().map((expression) => {
      const [, schema = '', terms = '', statistic] =
        /^SEARCH\('\{([^}]+)\} ([^']+)', '(\w+)', \d+\)$/.exec(expression) ?? []
      const [namespace, ...names] = schema.split(',')
      const wanted = [...terms.matchAll(/(\w+)="([^"]+)"/g)].map(([, name = '', value]) => ({ name, value }))
      expect(wanted).toContainEqual({ name: 'stack', value: 'coatcheck-local' })
      expect(statistic).toMatch(/^(Sum|Minimum)$/)
      const matching = written.filter(
        (metric) =>
          metric.namespace === namespace &&
          JSON.stringify(metric.dimensions.map(([name]) => name).toSorted((a, b) => a.localeCompare(b))) ===
            JSON.stringify(names) &&
          wanted.every(
            ({ name, value }) =>
              (name === 'MetricName' ? metric.name : Object.fromEntries(metric.dimensions)[name]) === value,
          ),
      )
      return new Set(matching.map(metricIdentity)).size
    })
    expect(found).toHaveLength(3)
    const [signIns = 0, outcomes, secrets] = found
    expect(signIns).toBeGreaterThan(20)
    expect([outcomes, secrets]).toEqual([signIns, 1])
  })
})
