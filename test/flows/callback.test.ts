import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectErrorPage, expectOurHeaders, sessionCookie, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** The hosted callback URL when all is well: the code becomes a session, new at every login. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack()
})

beforeEach(() => {
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

const ticket = (browser = tab) => browser.cookies.get(stack.origin, sessionCookie) ?? ''
const session = async (browser = tab) => (await browser.fetch('/bff/session')).json()
const isLive = async (cookie: string): Promise<unknown> => {
  const reply = await tab.raw({
    path: '/bff/session',
    cookies: false,
    headers: [['Cookie', `${sessionCookie}=${cookie}`]],
  })
  return reply.json()['authenticated']
}

describe('a callback', () => {
  test('is answered by a redirect, which nothing keeps and nothing of it leaks from', async () => {
    const pending = await authorize(tab, { return_to: '/here' })
    const page = await comeBack(tab, pending)
    const [answer] = page.hops
    expect(answer).toMatchObject({ status: 303, location: `${stack.origin}/here` })
    expect(answer?.setCookies).toHaveLength(2)
    const direct = stack.newBrowser()
    const other = await authorize(direct)
    const reply = await direct.raw({
      path: other.callback.pathname + other.callback.search,
      headers: [['Accept', 'text/html']],
    })
    expectOurHeaders(reply)
    expect([reply.status, reply.text]).toEqual([303, ''])
  })

  test('takes two calls of the table, one of the token endpoint, and one of the keys once', async () => {
    await signIn(tab)
    const [calls, requests] = [stack.stack.awsCalls.length, stack.authorizationServer.requests.length]
    await signIn(stack.newBrowser())
    const { functionName } = stack.stack.function('Callback').definition
    const tableCalls = stack.stack.awsCalls
      .slice(calls)
      .filter((call) => call.functionName === functionName)
      .map(({ action }) => action)
      .filter((action) => action.startsWith('dynamodb'))
    expect(tableCalls).toEqual(['dynamodb:PutItem', 'dynamodb:TransactWriteItems'])
    const endpoints = stack.authorizationServer.requests.slice(requests).map(({ endpoint }) => endpoint)
    expect(endpoints.filter((endpoint) => endpoint !== 'jwks')).toEqual(['authorize', 'token'])
  })

  test('leaves a session and a grant, and nothing that anybody could use', async () => {
    const before = signedInRecords(await stack.items())
    await signIn(tab)
    const added = signedInRecords(await stack.items()).filter((key) => !before.includes(key))
    expect(added.map((key) => key.slice(0, 2))).toEqual(['G#', 'S#'])
    const stored = JSON.stringify(await stack.items())
    for (const half of ticket().split('.').slice(1)) expect(stored).not.toContain(half)
  })

  test('with parameters that nobody asked for is read without them', async () => {
    stack.authorizationServer.plan(
      'authorize',
      faults.sentBack((parameters) => {
        parameters.set('session_state', 'x')
        parameters.set('scope', 'admin')
        for (let index = 0; index < 50; index += 1) parameters.append('state[]', `${index}`)
      }),
    )
    expect((await signIn(tab, { returnTo: '/here' })).url).toBe(`${stack.origin}/here`)
    expect(await session()).toMatchObject({ authenticated: true })
  })

  test.each(['POST', 'PUT', 'HEAD', 'DELETE'])('is no %s, and the login goes on', async (method) => {
    const pending = await authorize(tab)
    const reply = await tab.raw({ method, path: pending.callback.pathname + pending.callback.search })
    expect([reply.status, reply.headers['allow'], reply.setCookies]).toEqual([405, 'GET', []])
    expect((await comeBack(tab, pending)).url).toBe(`${stack.origin}/`)
  })

  test.each(['demo', 'nobody', '__proto__', 'constructor', 'demo%2Fx', '%3Cscript%3E'])(
    'of %s out of the blue is a page',
    async (provider) => {
      const page = await tab.navigate(`/bff/callback/${provider}`)
      expectErrorPage(page, 400, 'login_invalid')
      expect(page.text).not.toMatch(/__proto__|constructor|<script/)
    },
  )
})

describe('what the token endpoint answers besides', () => {
  const typed =
    (type: string): Fault =>
    async (proceed) => ({ ...(await proceed()), headers: { 'Content-Type': type } })
  const extra = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`member_${index}`, { a: [index] }]))
  const polluting = (text: string) =>
    text.replace('{', '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1,')

  test.each<[string, Fault]>([
    ['a content type with a character set', typed('application/json;charset=UTF-8')],
    ['a content type in capitals', typed('Application/JSON')],
    ['a token type in small letters', faults.changed({ token_type: 'bearer' })],
    ['a thousand members more', faults.changed(extra)],
    ['members that are no members', faults.rewritten(polluting)],
    ['an ID token hint of nothing', faults.changed({ error: undefined, error_description: 'all is well' })],
    ['no scope', faults.changed({ scope: undefined })],
    ['less scope', faults.changed({ scope: 'openid' })],
    ['no refresh token', faults.changed({ refresh_token: undefined })],
    ['an access token of 4 KB', faults.changed({ access_token: `at-${'a'.repeat(4_000)}` })],
  ])('%s does no harm', async (_, fault) => {
    stack.authorizationServer.plan('token', fault)
    expect((await signIn(tab)).status).toBe(200)
    expect(await session()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    expect(stack.authorizationServer.unmet()).toEqual([])
  })
})

describe('a session', () => {
  test('is new at every login, and ends the one that the browser had', async () => {
    const others = signedInRecords(await stack.items())
    await signIn(tab)
    const [first, grant] = [ticket(), stack.authorizationServer.grants.at(-1)]
    const records = signedInRecords(await stack.items()).filter((key) => !others.includes(key))
    await signIn(tab)
    const left = signedInRecords(await stack.items())
    expect(records.filter((key) => left.includes(key))).toEqual([])
    expect(ticket().split('.')[1]).not.toBe(first.split('.')[1])
    expect([await isLive(first), await isLive(ticket())]).toEqual([false, true])
    expect(grant?.live, 'its tokens are revoked').toBe(false)
  })

  test('of another user has nothing of the one before', async () => {
    await signIn(tab, { user: 'ada' })
    const first = ticket()
    await signIn(tab, { user: 'grace' })
    const { claims } = await session()
    expect(claims).toEqual({ sub: 'grace', name: 'Grace' })
    expect((await tab.fetch('/api/demo/whoami')).json()).toMatchObject({ subject: 'grace' })
    expect([ticket().split('.')[0] === first.split('.')[0], await isLive(first)]).toEqual([false, false])
  })

  test('never has a handle that was there before the login', async () => {
    const attacker = stack.newBrowser()
    await signIn(attacker, { user: 'grace' })
    for (const planted of [ticket(attacker), `${'A'.repeat(43)}.${'B'.repeat(43)}`, 'chosen']) {
      const victim = stack.newBrowser()
      victim.cookies.set(`${sessionCookie}=${planted}; Path=/; Secure; HttpOnly; SameSite=Strict`, stack.origin)
      await signIn(victim, { user: 'ada' })
      expect(ticket(victim)).not.toBe(planted)
      expect(await session(victim)).toMatchObject({ claims: { sub: 'ada' } })
      expect(await isLive(planted)).toBe(false)
    }
  })

  test('of another browser goes on', async () => {
    const other = stack.newBrowser()
    await signIn(other)
    await signIn(tab)
    expect([await session(other), await session()]).toMatchObject([{ authenticated: true }, { authenticated: true }])
    expect((await other.fetch('/api/demo/whoami')).status).toBe(200)
  })

  test('that cannot be revoked any more is replaced all the same', async () => {
    await signIn(tab)
    stack.authorizationServer.plan('revoke', faults.webPage(503))
    expect((await signIn(tab, { user: 'grace', returnTo: '/here' })).url).toBe(`${stack.origin}/here`)
    expect(await session()).toMatchObject({ claims: { sub: 'grace' } })
  })
})

describe('a server that announces no iss in its responses', () => {
  let quiet: Awaited<ReturnType<typeof startStrictStack>>
  beforeAll(async () => {
    quiet = await startStrictStack({ strict: { iss: false } })
  })
  afterAll(() => quiet.close())

  test.each<[string, (issuer: string) => string | undefined, boolean]>([
    ['none', () => undefined, true],
    ['the right one', (issuer) => issuer, true],
    ['another', () => 'https://evil.example', false],
    ['an empty one', () => '', false],
  ])('may send %s', async (_, iss, right) => {
    const browser = quiet.newBrowser()
    const pending = await authorize(browser, { return_to: '/here' })
    const value = iss(quiet.authorizationServer.issuer)
    if (value !== undefined) pending.callback.searchParams.set('iss', value)
    const page = await comeBack(browser, pending)
    expect(page.url).toBe(right ? `${quiet.origin}/here` : pending.callback.href)
    expect(browser.cookies.names(quiet.origin).includes(sessionCookie)).toBe(right)
  })
})
