import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loseReply, REGION, type AwsServer, type Gate } from '../../infra/local/aws-call.ts'
import { startDynamoDb } from '../../infra/local/dynamodb.ts'
import { Failure } from '../../shared/errors.ts'
import { decodeGrant, type Tokens } from '../../shared/grant-record.ts'
import { createGrants, type Grants } from '../../shared/grants.ts'
import type { GrantWire } from '../../shared/renewal.ts'
import { createSealer } from '../../shared/seal.ts'
import { createTable, type Key, type Table } from '../../shared/table.ts'
import type { Tasks } from '../../shared/tasks.ts'
import { failing } from '../support/aws-faults.ts'
import { fc } from '../support/seeded.ts'

/** How the authorization server meets one refresh: `lost` and `crashed` have happened there, `silent` and `dead` have not. */
const answers = ['ok', 'ok', 'ok', 'refused connection', 'lost', 'silent', 'crashed', 'dead'] as const
type AnswerKind = (typeof answers)[number]
/** What the table does to a save. */
const saves = ['ok', 'ok', 'failing', 'unanswered'] as const
type SaveKind = (typeof saves)[number]

const settings = { leeway_seconds: 60, authorization_server_timeout_seconds: 1 }
const leaseMs = 6_000
const sealer = createSealer(async () => ({ current: 'k', keys: { k: 'a key of thirty-two characters...' } }))
const tableName = 'grants'
/** Nobody renews ahead of time here, and revoking never fails. */
const tasks: Tasks = { start: () => Promise.reject(new Error('no task is expected')) }
let dynamoDb: AwsServer
let table: Table
let saveFaults: SaveKind[] = []

const gate: Gate = ({ action, input }) => {
  if (action !== 'dynamodb:UpdateItem' || !String(input['UpdateExpression']).includes('REMOVE')) return undefined
  const kind = saveFaults.shift()
  if (kind === 'unanswered') throw loseReply
  return kind === 'failing'
    ? failing({ accessKeyId: '', service: 'dynamodb', action, resources: [], input })
    : undefined
}

beforeAll(async () => {
  dynamoDb = await startDynamoDb({ gate })
  const names = ['pk', 'sk']
  await dynamoDb.call('CreateTable', {
    TableName: tableName,
    BillingMode: 'PAY_PER_REQUEST',
    AttributeDefinitions: names.map((AttributeName) => ({ AttributeName, AttributeType: 'S' })),
    KeySchema: names.map((AttributeName, index) => ({ AttributeName, KeyType: index === 0 ? 'HASH' : 'RANGE' })),
  })
  Object.assign(process.env, {
    AWS_ENDPOINT_URL_DYNAMODB: dynamoDb.endpoint,
    AWS_REGION: REGION,
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  })
  table = createTable(tableName)
})
afterAll(() => dynamoDb.close())

/** An authorization server with strict refresh token rotation, and everything that it saw go wrong. */
const createServer = (clock: { jumpMs: number }, plan: AnswerKind[]) => {
  const spent = new Map<string, 'delivered' | 'lost'>()
  const inFlight = new Set<string>()
  const revoked = new Set<string | undefined>()
  const wrong: string[] = []
  let issued = 0
  let live = true
  let killed = 0
  let last = 'rt-0'
  const next = (): Tokens => {
    issued += 1
    last = `rt-${issued}`
    return {
      access_token: `at-${issued}`,
      refresh_token: last,
      id_token: undefined,
      scope: undefined,
      expires: 9_999_999_999,
    }
  }
  const wire: GrantWire = {
    async refresh(_grant, { refresh_token: token = '' }) {
      const kind = plan.shift() ?? 'ok'
      if (inFlight.has(token)) wrong.push(`${token} is on its way twice`)
      if (spent.get(token) === 'delivered') wrong.push(`${token} comes again after its answer was delivered`)
      inFlight.add(token)
      await delay(Math.random() * 8)
      inFlight.delete(token)
      const waits = () => {
        // The lease stays as it is; instead of waiting for its end, time goes there. Nobody else can be sending now.
        clock.jumpMs += leaseMs + 500
      }
      const never = (): Promise<never> => {
        killed += 1
        return new Promise(() => {})
      }
      if (kind === 'refused connection') return { kind: 'unavailable', reason: 'server_unreachable', processed: 'no' }
      if (kind === 'silent' || kind === 'dead') {
        waits()
        return kind === 'dead' ? await never() : { kind: 'unavailable', reason: 'server_timeout', processed: 'perhaps' }
      }
      if (!live || spent.has(token) || revoked.has(token)) {
        live = false
        return { kind: 'refused' }
      }
      spent.set(token, kind === 'ok' ? 'delivered' : 'lost')
      const tokens = next()
      if (kind === 'ok') return { kind: 'refreshed', tokens }
      waits()
      return kind === 'crashed' ? await never() : { kind: 'unavailable', reason: 'server_failed', processed: 'perhaps' }
    },
    exchange: () => Promise.reject(new Error('nothing is exchanged here')),
    async revoke(_grant, tokens) {
      revoked.add(tokens.refresh_token)
      if (tokens.refresh_token === last) live = false
      return true
    },
  }
  return {
    wire,
    wrong,
    revoked,
    isLive: () => live,
    /** How many callers' instances have died while they waited for the server. */
    killed: () => killed,
    lastRefreshToken: () => last,
    lostSome: () => [...spent.values()].includes('lost'),
  }
}

const schedule = fc.record({
  answers: fc.array(fc.constantFrom(...answers), { maxLength: 8 }),
  saves: fc.array(fc.constantFrom(...saves), { maxLength: 4 }),
  /** When each caller begins, in milliseconds. */
  callers: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 2, maxLength: 7 }),
  /** When the session is ended, if it is. */
  endsAfterMs: fc.option(fc.integer({ min: 0, max: 50 }), { nil: undefined }),
})

let runs = 0

test(
  'whatever happens when: no refresh token is used twice, no save is lost, and what was ended stays ended',
  { timeout: 240_000 },
  async () => {
    const happens = fc.asyncProperty(schedule, async (plan) => {
      const clock = { jumpMs: 0 }
      const server = createServer(clock, [...plan.answers])
      saveFaults = [...plan.saves]
      const now = () => Date.now() + clock.jumpMs
      /** Each caller is an instance of its own: nothing is shared but the table and the server. */
      const instance = (): Grants =>
        createGrants({ table: createTable(tableName), sealer, wire: server.wire, tasks, settings, now })

      runs += 1
      const key: Key = { pk: `A#${runs}`, sk: 'G#1' }
      const first: Tokens = {
        access_token: 'at-0',
        refresh_token: 'rt-0',
        id_token: undefined,
        scope: undefined,
        expires: 9_999_999_999,
      }
      await table.transact([
        await instance().place(key, { provider: 'p', clientId: 'c', tokens: first, ttl: 9_999_999_999 }),
      ])
      const readGrant = async () => decodeGrant((await table.read([key]))[0])

      const call = async (afterMs: number): Promise<string> => {
        await delay(afterMs)
        const grant = await readGrant()
        if (grant === undefined) return 'signed out'
        try {
          const { tokens, grant: after } = await instance().renewed(grant)
          if (after.version <= grant.version) return `${tokens.access_token} is not newer`
          return 'renewed'
        } catch (error) {
          return error instanceof Failure ? error.reason : String(error)
        }
      }
      let ended = false
      const end = async (afterMs: number): Promise<string> => {
        await delay(afterMs)
        const [item] = await table.read([key])
        if (item !== undefined) await instance().end(item)
        ended = true
        return (await readGrant()) === undefined ? 'ended' : 'not ended'
      }

      const work = plan.callers.map(call)
      const endings = plan.endsAfterMs === undefined ? [] : [end(plan.endsAfterMs)]
      const outcomes: string[] = []
      for (const one of [...work, ...endings]) void one.then((outcome) => outcomes.push(outcome))
      while (outcomes.length + server.killed() < work.length + endings.length) await delay(5)

      const allowed = new Set([
        'renewed',
        'ended',
        'signed out',
        'renewal_pending',
        'server_unreachable',
        'server_timeout',
        'server_failed',
      ])
      // An answer that was lost is the one loss that cannot be avoided.
      if (server.lostSome() || ended) allowed.add('grant_ended')
      if (ended) allowed.add('session_missing')
      const item = await readGrant()
      const wrong = [...server.wrong, ...outcomes.filter((outcome) => !allowed.has(outcome))]
      if (ended && item !== undefined) wrong.push('the record came back')
      if (ended && !server.lostSome() && !server.revoked.has(server.lastRefreshToken()))
        wrong.push('live tokens were left')
      if (!ended && !server.lostSome()) {
        const kept = item === undefined ? undefined : (await instance().open(item)).refresh_token
        if (kept !== server.lastRefreshToken() || !server.isLive()) wrong.push(`the save was lost: ${kept}`)
      }
      expect(wrong).toEqual([])
    })
    await fc.assert(happens, { numRuns: 60 })
  },
)

test('a refusal is believed only where nothing newer is there', async () => {
  const clock = { jumpMs: 0 }
  const now = () => Date.now() + clock.jumpMs
  const key: Key = { pk: 'A#refused', sk: 'G#1' }
  const tokens = (number: number): Tokens => ({
    access_token: `at-${number}`,
    refresh_token: `rt-${number}`,
    id_token: undefined,
    scope: undefined,
    expires: 9_999_999_999,
  })
  const wire = (refresh: GrantWire['refresh']): GrantWire => ({
    refresh,
    exchange: () => Promise.reject(new Error('nothing is exchanged here')),
    revoke: async () => true,
  })
  const instance = (refresh: GrantWire['refresh']): Grants =>
    createGrants({ table, sealer, wire: wire(refresh), tasks, settings, now })

  const second = instance(async () => ({ kind: 'refreshed', tokens: tokens(2) }))
  await table.transact([
    await second.place(key, { provider: 'p', clientId: 'c', tokens: tokens(1), ttl: 9_999_999_999 }),
  ])
  const grant = decodeGrant((await table.read([key]))[0])
  if (grant === undefined) throw new Error('the grant is not there')

  // The first caller is held up until its lease has run out and somebody else has renewed; then the server refuses it.
  const first = instance(async () => {
    clock.jumpMs += leaseMs + 500
    await second.renewed(grant)
    return { kind: 'refused' }
  })
  const renewed = await first.renewed(grant)
  expect(renewed.tokens).toEqual(tokens(2))

  const refused = instance(async () => ({ kind: 'refused' }))
  await expect(refused.renewed(renewed.grant)).rejects.toMatchObject({ reason: 'grant_ended' })
})
