import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sessionCookie } from '../support/answers.ts'
import {
  changed,
  hung,
  insteadJson,
  lost,
  moved,
  nothing,
  refused,
  reset,
  rewritten,
  truncated,
  webPage,
} from '../support/faults.ts'
import type { Reply } from '../support/http.ts'
import { leaseMs, startRenewalStack } from '../support/renewal.ts'
import type { Fault } from '../support/server.ts'
import type { Browser } from '../support/user-agent.ts'

let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 4 })
})
beforeEach(async () => {
  tab = await stack.signedIn()
})
afterAll(() => stack.close())

const call = () => tab.fetch('/api/demo/x')
const expectRetryLater = (reply: Reply, code: string): void => {
  expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([503, code, []])
  expect(reply.headers['retry-after']).toBe('1')
}
const expectSignedOut = (reply: Reply): void => {
  expect([reply.status, reply.json()['code']]).toEqual([401, 'session_required'])
  expect(reply.setCookies).toEqual([expect.stringMatching(/^__Host-Http-session=;.*Max-Age=0/)])
  expect(tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
}
/** How many records of sessions and grants there are. */
const records = async () => (await stack.records.all('grant')).length + (await stack.records.all('session')).length

describe('an authorization server that cannot renew now', () => {
  test.each<[how: string, fault: Fault]>([
    ['resets the connection', reset],
    ['never answers', hung],
    ['is broken', insteadJson(500, { error: 'server_error' })],
    ['is overloaded', insteadJson(429, { error: 'slow_down' })],
    ['is away behind a page', webPage(503)],
    ['says temporarily_unavailable', refused('temporarily_unavailable')],
    ['says invalid_request', refused('invalid_request')],
    ['says unauthorized_client', refused('unauthorized_client')],
    ['says invalid_grant_type, which is not invalid_grant', refused('invalid_grant_type')],
    ['refuses with a page', webPage(400)],
    ['forbids with a page', webPage(403)],
    ['is gone', webPage(404)],
    ['answers with a page', webPage(200)],
    ['answers nothing', nothing],
    ['moves us elsewhere', moved('https://evil.example/token')],
    ['answers no JSON', rewritten((text) => text.slice(1))],
    ['answers no token', changed({ access_token: undefined })],
    ['answers a token that no header can carry', changed({ access_token: 'a\r\nb' })],
    ['answers another type of token', changed({ token_type: 'mac' })],
    ['answers with a strange lifetime', changed({ expires_in: '3600abc' })],
  ])('%s: 503, and the session lives on', async (_, fault) => {
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', fault)
    const before = stack.resourceServer.requests.length
    expectRetryLater(await call(), 'authorization_server_unavailable')
    expect(stack.authorizationServer.unmet()).toEqual([])
    expect(stack.resourceServer.requests).toHaveLength(before)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  })

  test('is asked again once the lease is over, and all is well', async () => {
    await stack.records.expireTokens()
    const before = stack.refreshes()
    stack.authorizationServer.plan('token', insteadJson(502, {}))
    expectRetryLater(await call(), 'authorization_server_unavailable')
    // It may have used the refresh token: nobody asks before the lease would be over, and callers hear how long that is.
    const early = await call()
    expect([early.status, early.json()['code'], early.setCookies]).toEqual([503, 'refresh_pending', []])
    const seconds = Number(early.headers['retry-after'])
    expect(seconds).toBeGreaterThan(1)
    expect(seconds).toBeLessThanOrEqual(leaseMs / 1_000)
    expect(stack.refreshes()).toBe(before + 1)
    await delay(seconds * 1_000)
    const replies = await Promise.all([call(), call(), call()])
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(stack.refreshes()).toBe(before + 2)
  })

  test('is asked again after a second where it has surely done nothing', async () => {
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', refused('temporarily_unavailable'))
    const refreshes = stack.refreshes()
    expectRetryLater(await call(), 'authorization_server_unavailable')
    await delay(1_000)
    expect((await call()).status).toBe(200)
    expect(stack.refreshes()).toBe(refreshes + 2)
  })

  test('does not matter while the token still works', async () => {
    await stack.records.makeTokensDue()
    stack.authorizationServer.plan('token', webPage(500))
    for (const round of [1, 2, 3]) expect([round, (await call()).status]).toEqual([round, 200])
    await stack.stack.backgroundIsIdle()
    expect((await call()).status).toBe(200)
    expect(stack.authorizationServer.unmet()).toEqual([])
  })

  test('and says invalid_client is asked again with credentials that were read again', async () => {
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', refused('invalid_client', 401))
    expect((await call()).status).toBe(200)
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', refused('invalid_client', 401), refused('invalid_client'))
    const reply = await call()
    expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([
      503,
      'authorization_server_unavailable',
      [],
    ])
    await delay(1_000)
    expect((await call()).status).toBe(200)
  })

  test('keeps callers waiting no longer than they can: 503 refresh_pending, and the cookie stays', async () => {
    await stack.records.age('grant', { expires: 0, fresh_until: 0, lease_until_ms: Date.now() + 60_000 })
    const before = stack.refreshes()
    expectRetryLater(await call(), 'refresh_pending')
    expect(stack.refreshes()).toBe(before)
    await stack.records.endLeases()
    expect((await call()).status).toBe(200)
  })
})

describe('a grant that the authorization server ended', () => {
  const endEverything = () => stack.authorizationServer.endGrants('ada')

  test('ends the session: 401, cookie and records gone, and nobody asks again', async () => {
    // Sign-ins here are many; the oldest sessions of the user end after them.
    await stack.stack.backgroundIsIdle()
    const before = await records()
    await stack.records.expireTokens()
    endEverything()
    const refreshes = stack.refreshes()
    const cookie = tab.cookies.header(stack.origin, 'strict')
    expectSignedOut(await call())
    expect(await records()).toBe(before - 2)
    const later = await tab.fetch('/api/demo/x', { headers: { Cookie: cookie } })
    expect(later.status).toBe(401)
    expect((await tab.fetch('/bff/session', { headers: { Cookie: cookie } })).json()).toMatchObject({
      authenticated: false,
    })
    expect(stack.refreshes()).toBe(refreshes + 1)
  })

  test('ends it for all who call at that moment, with one question', async () => {
    await stack.records.expireTokens()
    endEverything()
    const refreshes = stack.refreshes()
    const replies = await Promise.all(Array.from({ length: 12 }, call))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([401]))
    expect(stack.refreshes()).toBe(refreshes + 1)
  })

  test('ends it while the access token still works', async () => {
    await stack.records.makeTokensDue()
    endEverything()
    const refreshes = stack.refreshes()
    expect((await call()).status).toBe(200)
    await stack.stack.backgroundIsIdle()
    expectSignedOut(await call())
    expect(stack.refreshes()).toBe(refreshes + 1)
  })

  test('ends it at POST /bff/refresh', async () => {
    await stack.records.expireTokens()
    endEverything()
    expectSignedOut(await tab.fetch('/bff/refresh', { method: 'POST' }))
  })

  test('is also one that comes back as another user’s, whose tokens are revoked', async () => {
    await stack.records.expireTokens()
    stack.authorizationServer.settings.idToken = { claims: { sub: 'mallory' } }
    const [revoked, calls] = [stack.authorizationServer.count('revoke'), stack.resourceServer.requests.length]
    expectSignedOut(await call())
    stack.authorizationServer.settings.idToken = {}
    expect(stack.authorizationServer.count('revoke')).toBe(revoked + 1)
    expect(stack.resourceServer.requests).toHaveLength(calls)
  })
})

describe('an answer that is lost', () => {
  test.each<[how: string, fault: Fault]>([
    ['on the way', lost],
    ['half-way', truncated],
  ])('%s: one more question after the lease, and with strict rotation a clean end', async (_, fault) => {
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', fault)
    const refreshes = stack.refreshes()
    expectRetryLater(await call(), 'authorization_server_unavailable')
    expect(stack.refreshes()).toBe(refreshes + 1)
    await stack.records.endLeases()
    expectSignedOut(await call())
    expect(stack.refreshes()).toBe(refreshes + 2)
  })
})

test('an instance is killed before its question is answered: the next caller takes over after the lease', async () => {
  await stack.records.expireTokens()
  stack.authorizationServer.plan('token', hung)
  const [refreshes, startedMs, doomed] = [stack.refreshes(), Date.now(), call()]
  await stack.authorizationServer.reached('token', stack.authorizationServer.count('token') + 1)
  stack.stack.function('Api').kill()
  expect((await doomed).status).toBe(500)
  const replies = await Promise.all([call(), call(), call()])
  expect(replies.map(({ status }) => status)).toEqual([200, 200, 200])
  expect(stack.refreshes()).toBe(refreshes + 2)
  expect(Date.now() - startedMs).toBeGreaterThan(leaseMs - 1_000)
})
