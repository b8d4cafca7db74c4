import { randomUUID } from 'node:crypto'
import { ACCOUNT_ID, isRecord, REGION } from './aws-call.ts'
import { expectOnly, type Properties } from './resources.ts'

/** Rules of EventBridge that go by the clock. */
export interface Schedules {
  /** The rule fires from now on. Throws where it does what the local run does not play. */
  add: (logicalId: string, name: string, properties: Properties) => void
  /** The targets of a rule, named by the beginning of its logical id, have handled an event. Rejects where one failed. */
  fire: (logicalId: string) => Promise<void>
  close: () => void
}

const unitMs: Record<string, number> = { minute: 60_000, hour: 3_600_000, day: 86_400_000 }

/** The ARN of a rule by its name. */
export const ruleArn = (name: string): string => `arn:aws:events:${REGION}:${ACCOUNT_ID}:rule/${name}`

const periodMs = (expression: unknown): number => {
  const [, count = '', unit = ''] = /^rate\((\d+) (minute|hour|day)s?\)$/.exec(String(expression)) ?? []
  const period = Number(count) * (unitMs[unit] ?? 0)
  if (!(period >= 60_000 && period <= 24 * 86_400_000))
    throw new Error(`its schedule is ${String(expression)}; the local run knows rate(...) of a minute to 24 days`)
  return period
}

/** Rules that invoke functions by ARN, one after the other where a rule has several targets. */
export function createSchedules(options: {
  /** Rejects where the function fails, or its policy does not let the rule in. */
  invoke: (functionArn: string, ruleArn: string, event: unknown) => Promise<unknown>
  onLog?: (message: string) => void
}): Schedules {
  const { invoke, onLog } = options
  const rules = new Map<string, { run: () => Promise<void>; timer: NodeJS.Timeout }>()
  return {
    add: (logicalId, name, properties) => {
      expectOnly(properties, { State: 'ENABLED', EventPattern: undefined, EventBusName: undefined })
      const targets = [properties['Targets'] ?? []].flat().filter(isRecord)
      for (const target of targets) {
        const unknown = Object.keys(target).find((member) => !['Arn', 'Id', 'Input'].includes(member))
        if (unknown !== undefined) throw new Error(`its target has ${unknown}, which the local run does not know`)
      }
      const run = async (): Promise<void> => {
        for (const { Arn: arn, Input: input } of targets) {
          const scheduled = {
            version: '0',
            id: randomUUID(),
            'detail-type': 'Scheduled Event',
            source: 'aws.events',
            account: ACCOUNT_ID,
            time: new Date().toISOString(),
            region: REGION,
            resources: [ruleArn(name)],
            detail: {},
          }
          await invoke(String(arn), ruleArn(name), typeof input === 'string' ? JSON.parse(input) : scheduled)
        }
      }
      const timer = setInterval(() => {
        run().catch((error: unknown) => onLog?.(`${name}: ${error instanceof Error ? error.message : String(error)}`))
      }, periodMs(properties['ScheduleExpression']))
      timer.unref()
      rules.set(logicalId, { run, timer })
    },

    fire: async (logicalId) => {
      const found = [...rules].filter(([name]) => name.startsWith(logicalId)).map(([, rule]) => rule)
      const [rule] = found
      if (rule === undefined || found.length > 1)
        throw new Error(`${found.length} rules have a logical id that begins with ${logicalId}`)
      await rule.run()
    },

    close: () => rules.forEach(({ timer }) => clearInterval(timer)),
  }
}
