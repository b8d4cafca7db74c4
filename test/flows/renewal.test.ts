import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sessionCookie } from '../support/answers.ts'
import { changed, gate, insteadJson, refused } from '../support/faults.ts'
import { startRenewalStack } from '../support/renewal.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

const instances = 8
let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: instances })
  await stack.stack.function('Api').warm(instances)
})
beforeEach(async () => {
  tab = await stack.signedIn()
})
afterAll(() => stack.close())

/** What happens to refreshes and calls while `run` goes on. */
const during = async <T>(run: () => Promise<T>) => {
  const [refreshes, calls] = [stack.refreshes(), stack.resourceServer.requests.length]
  const result = await run()
  return { result, refreshes: stack.refreshes() - refreshes, tokens: stack.tokensSince(calls) }
}
const calls = (count: number) =>
  Promise.all(Array.from({ length: count }, (_, index) => tab.fetch(`/api/demo/${index}`)))
const statuses = (replies: { status: number }[]) => [...new Set(replies.map(({ status }) => status))]
const tokenNow = async () => (await during(() => tab.fetch('/api/demo/now'))).tokens[0] ?? ''
const lastRefreshToken = () =>
  new URLSearchParams(stack.authorizationServer.tokenRequests('refresh_token').at(-1)?.body.toString()).get(
    'refresh_token',
  )

describe('an access token that has ended', () => {
  test('is renewed once for forty parallel calls over eight instances, and all of them go through', async () => {
    const old = await tokenNow()
    await stack.records.expireTokens()
    const { result, refreshes, tokens } = await during(() => calls(40))
    expect(statuses(result)).toEqual([200])
    expect(refreshes).toBe(1)
    expect(tokens).toHaveLength(40)
    expect(new Set(tokens).size).toBe(1)
    expect(tokens).not.toContain(old)
    expect(stack.stack.function('Api').stats()).toMatchObject({ started: instances, idle: instances })
    expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: true, renewals: 1 })
  })

  test('is renewed again and again, each time with the refresh token of the time before', async () => {
    const seen = new Set<string | null>()
    for (let round = 1; round <= 4; round += 1) {
      await stack.records.expireTokens()
      expect((await during(() => calls(10))).refreshes).toBe(1)
      seen.add(lastRefreshToken())
    }
    expect(seen.size).toBe(4)
    expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: true, renewals: 4 })
  })

  test('of one session has nothing to do with another session', async () => {
    const other = await stack.signedIn()
    await stack.records.expireTokens()
    const { result, refreshes, tokens } = await during(() => Promise.all([calls(5), other.fetch('/api/demo/other')]))
    expect(statuses([...result[0], result[1]])).toEqual([200])
    expect([refreshes, new Set(tokens).size]).toEqual([2, 2])
  })

  test('is renewed by POST /bff/refresh, and by no other call beside it', async () => {
    await stack.records.expireTokens()
    const refresh = () => tab.fetch('/bff/refresh', { method: 'POST' })
    const { result, refreshes } = await during(() => Promise.all([calls(5), refresh(), refresh()]))
    expect(refreshes).toBe(1)
    expect(result[1].json()).toMatchObject({ authenticated: true, access_token_expires_in: expect.any(Number) })
    const again = await during(refresh)
    expect([again.refreshes, again.result.status]).toEqual([0, 200])
  })

  test('that lives no second is renewed once a call, without a hot loop', async () => {
    stack.authorizationServer.always('token', changed({ expires_in: 0 }))
    await stack.records.expireTokens()
    for (const round of [1, 2, 3]) {
      const { result, refreshes } = await during(() => tab.fetch(`/api/demo/${round}`))
      expect([result.status, refreshes]).toEqual([200, 1])
    }
    stack.authorizationServer.always('token', undefined)
  })

  test('may come back with less scope, which is for the resource server to judge', async () => {
    stack.authorizationServer.plan('token', changed({ scope: 'read' }))
    await stack.records.expireTokens()
    const { result, refreshes } = await during(() => calls(3))
    expect([statuses(result), refreshes]).toEqual([[200], 1])
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  })

  test.each([
    ['without', undefined],
    ['with null for', null],
  ])('may come back %s a new refresh token; the old one is used again', async (_, none) => {
    stack.authorizationServer.plan('token', changed({ refresh_token: none }))
    await stack.records.expireTokens()
    expect((await tab.fetch('/api/demo/1')).status).toBe(200)
    const first = lastRefreshToken()
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', refused('temporarily_unavailable'))
    await tab.fetch('/api/demo/2')
    expect(lastRefreshToken()).toBe(first)
  })
})

test('a token that ends soon is used on while it is renewed in the background', async () => {
  const old = await tokenNow()
  await stack.records.makeTokensDue()
  const held = gate()
  stack.authorizationServer.plan('token', held.fault)
  const first = await during(() => tab.fetch('/api/demo/first'))
  expect([first.result.status, first.tokens]).toEqual([200, [old]])
  await held.reached
  const beside = await during(() => calls(6))
  expect([statuses(beside.result), beside.refreshes]).toEqual([[200], 0])
  expect(new Set(beside.tokens)).toEqual(new Set([old]))
  held.release()
  await stack.stack.backgroundIsIdle()
  expect(await tokenNow()).not.toBe(old)
})

describe('a resource server that refuses a token', () => {
  const noMore = insteadJson(401, { error: 'invalid_token' }, { 'WWW-Authenticate': 'Bearer error="invalid_token"' })

  test('is asked once more, with the same body and a renewed token', async () => {
    const old = await tokenNow()
    stack.resourceServer.plan('call', noMore)
    const { result, refreshes, tokens } = await during(() => tab.fetch('/api/demo/x', { method: 'POST', body: 'same' }))
    expect([result.status, refreshes, tokens.length]).toEqual([200, 1, 2])
    expect(tokens[0]).toBe(old)
    expect(tokens[1]).not.toBe(old)
    expect(stack.resourceServer.requests.slice(-2).map(({ body }) => body.toString())).toEqual(['same', 'same'])
  })

  test('and refuses the renewed one has the last word, and the session stays', async () => {
    stack.resourceServer.plan('call', noMore, noMore)
    const { result, refreshes, tokens } = await during(() => tab.fetch('/api/demo/x'))
    expect([result.status, result.text, refreshes, tokens.length]).toEqual([401, '{"error":"invalid_token"}', 1, 2])
    expect(result.headers['www-authenticate']).toBe('Bearer error="invalid_token"')
    expect([result.setCookies, (await tab.fetch('/api/demo/x')).status]).toEqual([[], 200])
  })

  test('leads to one renewal for all calls that met the same token', async () => {
    const old = await tokenNow()
    stack.resourceServer.always('call', (proceed, request) =>
      request.headers.authorization === `Bearer ${old}` ? noMore(proceed, request) : proceed(),
    )
    const { result, refreshes } = await during(() => calls(20))
    stack.resourceServer.always('call', undefined)
    expect([statuses(result), refreshes]).toEqual([[200], 1])
  })
})

describe.each([
  ['without', undefined],
  ['with null for', null],
])('%s a refresh token', (_, none) => {
  beforeEach(async () => {
    stack.authorizationServer.plan('token', changed({ refresh_token: none, expires_in: 120 }))
    tab = await stack.signedIn()
  })

  test('the session ends with the access token', async () => {
    const session = (await tab.fetch('/bff/session')).json()
    expect(session).toMatchObject({ authenticated: true, access_token_expires_in: expect.any(Number) })
    expect(session['expires_in']).toBe(session['access_token_expires_in'])
    await stack.records.expireTokens()
    const { result, refreshes, tokens } = await during(() => tab.fetch('/api/demo/x'))
    expect([result.status, refreshes, tokens]).toEqual([401, 0, []])
    expect(tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
  })

  test('a 401 of the resource server is passed on', async () => {
    stack.resourceServer.plan('call', insteadJson(401, { error: 'invalid_token' }))
    const { result, refreshes, tokens } = await during(() => tab.fetch('/api/demo/x'))
    expect([result.status, refreshes, tokens.length]).toEqual([401, 0, 1])
  })
})

test('with two-second tokens and strict rotation at a real server, nobody is signed out', async () => {
  const demo = await startDemoStack({ demo: { accessTokenSeconds: 2, refreshTokens: 'strict' }, maxInstances: 4 })
  const user = demo.newBrowser()
  await signIn(user)
  const seen = new Set<unknown>()
  while (seen.size < 3) {
    const replies = await Promise.all(Array.from({ length: 8 }, () => user.fetch('/api/demo/whoami')))
    expect(statuses(replies)).toEqual([200])
    for (const reply of replies) seen.add(reply.json()['expires_at'])
  }
  await demo.close()
})
