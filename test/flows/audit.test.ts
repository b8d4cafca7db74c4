import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { leaksOf } from '../support/canaries.ts'
import { logoutToken, sendLogoutToken } from '../support/logout-tokens.ts'
import { openRecords } from '../support/records.ts'
import { authorize, navigation, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** What auditors and alarms get to see of what users and servers do. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>
const browsers: Browser[] = []
const returnTo = '/canary-of-where-the-user-was'

beforeAll(async () => {
  // One instance a function, so that what it remembers of its own lines is in one place.
  stack = await startStrictStack({
    strict: { backchannelLogout: true },
    maxInstances: 1,
    stage: (stage) => ({ ...stage, session: { max_parallel: 3 } }),
  })
  records = openRecords(stack.stack)
})

afterAll(async () => {
  records.close()
  await stack.close()
})

type Entry = Record<string, unknown>

const parsed = (): Entry[] =>
  stack.logs.flatMap(({ line }) => (line.startsWith('{') ? [JSON.parse(line) as Entry] : []))
const trail = (): Entry[] => parsed().filter(({ audit }) => audit === true)
const metrics = (): Entry[] => parsed().filter((entry) => '_aws' in entry)
const counted = (flow: string, outcome: string): number =>
  metrics().filter((metric) => metric['flow'] === flow && metric['outcome'] === outcome).length

/** What is added to the trail meanwhile, without what every line has. */
const added = async (run: () => Promise<unknown>): Promise<Entry[]> => {
  const before = trail().length
  await run()
  await stack.stack.backgroundIsIdle()
  return trail()
    .slice(before)
    .map((entry) => {
      expect(entry).toMatchObject({ service: 'coatcheck', audit: true, timestamp: expect.any(String) })
      return Object.fromEntries(Object.entries(entry).filter(([member]) => !ofEveryLine.has(member)))
    })
}
const ofEveryLine = new Set(['service', 'audit', 'timestamp', 'sampling_rate'])

const name = expect.stringMatching(/^[\w-]{12}$/)
const anId = expect.stringMatching(/^[\w+/=-]{8,}$/)

/** Signs in and resolves with how the trail calls the session and its account. */
const signedIn = async (user = 'Ada') => {
  const tab = stack.newBrowser()
  browsers.push(tab)
  const events = await added(() => signIn(tab, { user, returnTo }))
  const event = events.find(({ message }) => message === 'signed_in')
  return { tab, session: event?.['session'], account: event?.['account'] }
}

describe('the audit trail', () => {
  test('has a sign-in, with its user and session as pseudonyms and the request that it answered', async () => {
    const tab = stack.newBrowser()
    browsers.push(tab)
    const { callback } = await authorize(tab, { login_hint: 'ada' })
    const before = counted('callback', 'signed_in')
    let requestId: string | undefined
    const events = await added(async () => {
      const reply = await tab.raw({ path: callback.pathname + callback.search, headers: navigation })
      requestId = reply.headers['x-request-id']
    })
    const who = { provider: 'demo', account: name, session: name }
    expect(events).toEqual([{ level: 'INFO', message: 'signed_in', flow: 'callback', request_id: requestId, ...who }])
    expect(counted('callback', 'signed_in') - before).toBe(1)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test('names one user always the same, sessions each by their own', async () => {
    const [one, two, other] = [await signedIn(), await signedIn(), await signedIn('Grace')]
    expect(two.account).toBe(one.account)
    expect(other.account).not.toBe(one.account)
    expect(new Set([one, two, other].map(({ session }) => session)).size).toBe(3)
    const events = await added(() => two.tab.fetch('/bff/sessions', { method: 'DELETE' }))
    expect(events).toEqual([
      {
        level: 'INFO',
        message: 'sessions_ended',
        flow: 'sessions',
        request_id: anId,
        provider: 'demo',
        account: two.account,
        session: two.session,
        count: 1,
        sessions: one.session,
      },
    ])
    for (const { tab } of [two, other]) await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test('has a sign-out', async () => {
    const { tab, session, account } = await signedIn()
    const events = await added(() => tab.fetch('/bff/logout', { method: 'POST' }))
    const who = { provider: 'demo', account, session }
    expect(events).toEqual([{ level: 'INFO', message: 'signed_out', flow: 'logout', request_id: anId, ...who }])
  })

  test.each([
    ['a renewal for a call that waited for it', 'api', () => records.expireTokens(), '/api/demo/whoami', 'GET'],
    ['a renewal by the keep-alive', 'refresh', () => records.expireTokens(), '/bff/refresh', 'POST'],
    ['a renewal ahead of time', 'background', () => records.makeTokensDue(), '/api/demo/whoami', 'GET'],
  ])('has %s', async (_, flow, make, path, method) => {
    const { tab, session, account } = await signedIn()
    await make()
    const events = await added(() => tab.fetch(path, { method }))
    const who = { provider: 'demo', account, session }
    expect(events).toEqual([{ level: 'INFO', message: 'renewed', flow, request_id: anId, ...who }])
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test('has the end of a grant that a call meets', async () => {
    const { tab, session, account } = await signedIn()
    await records.expireTokens()
    stack.authorizationServer.endGrants('ada')
    const what = { level: 'WARN', message: 'request failed', flow: 'api', reason: 'grant_ended' }
    expect(await added(() => tab.fetch('/api/demo/whoami'))).toEqual([{ ...what, request_id: anId, account, session }])
  })

  test('has the end of a grant that is found ahead of time', async () => {
    const { tab, session, account } = await signedIn()
    await records.makeTokensDue()
    stack.authorizationServer.endGrants('ada')
    const what = { level: 'INFO', message: 'grant_ended', flow: 'background' }
    const events = await added(() => tab.fetch('/bff/refresh', { method: 'POST' }))
    expect(events).toEqual([{ ...what, request_id: anId, account, session }])
  })

  test('has a back-channel logout, with the sessions that it ended', async () => {
    const { session, account } = await signedIn()
    const sid = stack.authorizationServer.grants.at(-1)?.id
    const token = await logoutToken(stack.authorizationServer, { sid })
    const event = { level: 'INFO', message: 'signed_out_by_server', flow: 'backchannel-logout', request_id: anId }
    const who = { provider: 'demo', account, count: 1, sessions: session }
    expect(await added(() => sendLogoutToken(stack.origin, token))).toEqual([{ ...event, ...who, by: 'sid' }])
    expect(await added(() => sendLogoutToken(stack.origin, token)), 'a repetition is none').toEqual([])
    const bySub = await logoutToken(stack.authorizationServer, { sub: 'ada' })
    expect(await added(() => sendLogoutToken(stack.origin, bySub))).toEqual([
      { ...event, provider: 'demo', account, count: 0, by: 'sub' },
    ])
  })

  test('has the sessions that a limit ended', async () => {
    const [oldest] = [await signedIn(), await signedIn(), await signedIn()]
    await records.age('session', { created: Math.floor(Date.now() / 1000) - 100 })
    const tab = stack.newBrowser()
    browsers.push(tab)
    const events = await added(() => signIn(tab, { user: 'Ada' }))
    const ended = events.find(({ message }) => message === 'sessions_ended')
    expect(ended).toMatchObject({ flow: 'background', account: oldest.account, provider: 'demo', count: 1 })
    await tab.fetch('/bff/sessions?all=true', { method: 'DELETE' })
  })

  test('has a revocation that was made up for', async () => {
    const { tab } = await signedIn()
    const down = () => ({ status: 503 })
    stack.authorizationServer.plan('revoke', down)
    const events = await added(() => tab.fetch('/bff/logout', { method: 'POST' }))
    expect(new Set(events.map(({ message }) => message))).toEqual(new Set(['revoked', 'signed_out']))
    expect(events.find(({ message }) => message === 'revoked')).toMatchObject({
      flow: 'background',
      provider: 'demo',
      request_id: anId,
    })
  })

  test('has failures, with their reason and where they happened', async () => {
    const tab = stack.newBrowser()
    browsers.push(tab)
    let requestId: string | undefined
    const denied = async () => {
      requestId = (await tab.raw({ path: '/bff/callback/demo?state=x&code=y', headers: navigation })).headers[
        'x-request-id'
      ]
    }
    expect(await added(denied)).toEqual([
      {
        level: 'WARN',
        message: 'request failed',
        flow: 'callback',
        reason: 'login_cookie_missing',
        provider: 'demo',
        request_id: requestId,
      },
    ])
    const forged = await logoutToken(stack.authorizationServer, { sub: 'ada' }, { as: 'another key' })
    const [refused] = await added(() => sendLogoutToken(stack.origin, forged))
    expect(refused).toMatchObject({
      level: 'WARN',
      flow: 'backchannel-logout',
      reason: 'logout_token_invalid',
      provider: 'demo',
    })
  })

  test('has what one session does over and over once a minute, and counts it each time', async () => {
    const [one, two] = [await signedIn(), await signedIn()]
    const before = counted('api', 'csrf_header_missing')
    const events = await added(async () => {
      for (let call = 0; call < 5; call += 1) await one.tab.fetch('/api/demo/whoami', { csrf: false })
      await two.tab.fetch('/api/demo/whoami', { csrf: false })
      await one.tab.fetch('/bff/refresh', { method: 'POST', csrf: false })
    })
    expect(events.map(({ flow, session }) => [flow, session])).toEqual([
      ['api', one.session],
      ['api', two.session],
      ['refresh', one.session],
    ])
    expect(counted('api', 'csrf_header_missing') - before).toBe(6)
    await one.tab.fetch('/bff/sessions?all=true', { method: 'DELETE' })
  })
})

test('every metric is one that CloudWatch takes from a log line', () => {
  const seen = metrics()
  expect(seen.length).toBeGreaterThan(20)
  for (const { _aws: directive, ...members } of seen) {
    const { Timestamp, CloudWatchMetrics } = directive as { Timestamp: number; CloudWatchMetrics: unknown[] }
    expect(Number.isInteger(Timestamp) && Math.abs(Date.now() - Timestamp) < 600_000).toBe(true)
    expect(CloudWatchMetrics).toEqual([
      {
        Namespace: 'Coatcheck',
        Dimensions: [
          ['stack', 'outcome'],
          ['stack', 'flow', 'outcome'],
        ],
        Metrics: [{ Name: 'count', Unit: 'Count' }],
      },
    ])
    expect(members).toEqual({
      stack: 'coatcheck-local',
      flow: expect.stringMatching(/^[a-z-]{1,32}$/),
      outcome: expect.stringMatching(/^[a-z_]{1,40}$/),
      count: 1,
    })
  }
})

test('nothing in any log line is a secret, a cookie, a key of the table, or about the person', async () => {
  const cookies = browsers.flatMap((tab) => tab.cookies.received.flatMap(({ value }) => value.split('.')))
  const urls = browsers.flatMap((tab) => tab.history.flatMap(({ url }) => [...new URL(url).searchParams.values()]))
  const keys = (await stack.items()).flatMap(({ pk, sk }) => [pk?.S ?? '', sk?.S ?? ''].map((key) => key.slice(2)))
  const sealing = Object.values(JSON.parse(await stack.secretValue('SealingKeys')) as Record<string, string>)
  const all = [...stack.authorizationServer.secrets, ...cookies, ...urls, ...keys, ...sealing]
  const canaries = [...new Set(all)].filter((value) => value.length >= 20)
  expect(canaries.length).toBeGreaterThan(50)
  const logs = stack.logs.map(({ line }) => line).join('\n')
  expect(leaksOf([...canaries, returnTo], { logs })).toEqual([])
  for (const words of ['ada@example.com', 'Mozilla', '"Ada"']) expect(logs).not.toContain(words)
})
