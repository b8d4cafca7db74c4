import { causeName, Failure, reasons } from '../shared/errors.ts'
import { sessionOfGrant } from '../shared/grant-record.ts'
import type { Request } from '../shared/message.ts'
import { hashHandle, pseudonym } from '../shared/seal.ts'
import type { Session } from '../shared/sessions.ts'
import type { Key } from '../shared/table.ts'
import { sessionTicket } from '../shared/user-agent.ts'
import { logger, stackName } from './runtime.ts'
import { sourceFrames } from './source-frames.ts'

/**
 * What operators and auditors get to read: one log line a failure and an event, with pseudonyms and never a secret; and a count of each
 * outcome, in CloudWatch's embedded metric format, so that alarms can be set on them.
 */

/** Identical lines about one session are written once in this time, by each instance; they are counted all the same. */
const WINDOW_MS = 60_000
const REMEMBERED_LINES = 1_000

const written = new Map<string, number>()

/** Whether this line about this session was not written lately. */
const isNews = (line: string, nowMs: number): boolean => {
  if (nowMs - (written.get(line) ?? -WINDOW_MS) < WINDOW_MS) return false
  written.delete(line)
  written.set(line, nowMs)
  const [oldest] = written.keys()
  if (written.size > REMEMBERED_LINES && oldest !== undefined) written.delete(oldest)
  return true
}

export type Facts = Record<string, string | number | boolean>

/** The request, and the session that its cookie claims, as pseudonyms; of a task there is only its id. */
const factsOf = (request: Request | string | undefined): Facts => {
  if (request === undefined) return {}
  if (typeof request === 'string') return { request_id: request }
  const ticket = request.cookies.length > 8_192 ? undefined : sessionTicket(request).ticket
  const provider = /^[a-z][a-z0-9-]{0,31}$/.exec(request.pathParameters['provider'] ?? '')?.[0]
  return {
    request_id: request.id,
    ...(provider === undefined ? {} : { provider }),
    ...(ticket === undefined
      ? {}
      : { session: pseudonym(hashHandle(ticket.handle)), account: pseudonym(ticket.account) }),
  }
}

/** Whom a grant concerns, as pseudonyms. */
export const holderOf = (key: Key): Facts => {
  const session = sessionOfGrant(key)
  return { account: pseudonym(key.pk.slice(2)), ...(session === undefined ? {} : { session: pseudonym(session) }) }
}

/** How many sessions ended, and where there were any, which, as pseudonyms, and whose. */
export const endedSessions = (sessions: readonly Session[]): Facts => {
  const [first] = sessions
  if (first === undefined) return { count: 0 }
  const { account, provider } = first
  const names = sessions.map(({ key }) => pseudonym(key.sk.slice(2))).join(' ')
  return { count: sessions.length, sessions: names, account: pseudonym(account), provider }
}

/** A line that CloudWatch takes for a metric (its "Specification: embedded metric format"), by the name of our stack before all else. */
const emit = (name: string, unit: 'Count' | 'None', dimensions: string[][], members: Facts): void => {
  const ofStack = dimensions.map((set) => ['stack', ...set])
  const description = { Namespace: 'Coatcheck', Dimensions: ofStack, Metrics: [{ Name: name, Unit: unit }] }
  const directive = { Timestamp: Date.now(), CloudWatchMetrics: [description] }
  process.stdout.write(`${JSON.stringify({ _aws: directive, stack: stackName(), ...members })}\n`)
}

/** One more of that outcome. */
const count = (flow: string, outcome: string): void =>
  emit('count', 'Count', [['outcome'], ['flow', 'outcome']], { flow, outcome, count: 1 })

/** What is measured every hour of each provider. */
export const gauges = ['secret_days_left', 'secret_near_expiry', 'orphaned_registrations'] as const

/** How much there is of something at a provider now; 1 or 0 where it is a question. */
export const gauge = (name: (typeof gauges)[number], provider: string, value: number): void =>
  emit(name, 'None', [['provider']], { provider, [name]: value })

const write = (level: 'info' | 'warn' | 'error', line: string, entry: Facts): void => {
  const { session, request_id: _, ...same } = entry
  if (session === undefined || isNews(JSON.stringify([line, session, same]), Date.now())) logger()[level](line, entry)
}

/** What was thrown, as a failure of the table; what is not of ours keeps its name and where it happened, not its words. */
export const asFailure = (error: unknown): Failure => {
  if (error instanceof Failure) return error
  const frames = error instanceof Error ? sourceFrames(error) : ''
  return new Failure('internal', { detail: `${causeName(error)} ${frames}`.trim(), cause: error })
}

/** A failure is in the log and counted: the reason and our own words, never a message of somebody else. */
export const reportFailure = (flow: string, failure: Failure, request?: Request | string): void => {
  write(reasons[failure.reason].level, 'request failed', {
    audit: true,
    flow,
    reason: failure.reason,
    ...factsOf(request),
    ...(failure.detail === undefined ? {} : { detail: failure.detail }),
    ...(failure.cause === undefined ? {} : { cause: causeName(failure.cause) }),
  })
  count(flow, failure.reason)
}

/** Everything that is audited besides failures. */
export const auditEvents = [
  'signed_in',
  'signed_out',
  'sessions_ended',
  'signed_out_by_server',
  'renewed',
  'grant_ended',
  'revoked',
  'client_left_behind',
  'clients_deleted',
  'credentials_rotated',
] as const

/** An event is in the audit trail and counted; its facts win over what the request says. */
export const audit = (
  flow: string,
  event: (typeof auditEvents)[number],
  facts: Facts,
  request?: Request | string,
): void => {
  write('info', event, { audit: true, flow, ...factsOf(request), ...facts })
  count(flow, event)
}

/** Runs what must not fail the request; a failure is reported. */
export const bestEffort = async <T>(flow: string, request: Request, run: () => Promise<T>): Promise<T | undefined> => {
  try {
    return await run()
  } catch (error) {
    reportFailure(flow, asFailure(error), request)
    return undefined
  }
}
