import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AwsFault } from '../../infra/local/aws-call.ts'
import { expectErrorPage, expectOurHeaders, expectProblem, sessionCookie, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Signing out: the record first, then the cookie, then the tokens, whatever the authorization server does. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser
let home: string
let storeFault: ((action: string) => AwsFault | undefined) | undefined

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 1 } }),
    gate: ({ action }) => storeFault?.(action),
  })
  home = `${stack.origin}/`
})

beforeEach(async () => {
  tab = stack.newBrowser()
  await signIn(tab)
})

afterEach(() => {
  storeFault = undefined
})

afterAll(() => stack.close())

const signOut = (query = '') => tab.fetch(`/bff/logout${query}`, { method: 'POST' })
const ticketOf = (browser: Browser) => `${sessionCookie}=${browser.cookies.get(stack.origin, sessionCookie)}`
const grant = () => stack.authorizationServer.grants.at(-1)

const expectDead = async (cookie: string): Promise<void> => {
  const headers: [string, string][] = [
    ['X-CSRF', '1'],
    ['Cookie', cookie],
  ]
  const asked = await tab.raw({ path: '/bff/session', headers, cookies: false })
  expect(asked.json()).toMatchObject({ authenticated: false })
  for (const [method, path] of [
    ['POST', '/bff/refresh'],
    ['GET', '/api/demo/whoami'],
  ] as const) {
    expectProblem(await tab.raw({ method, path, headers, cookies: false }), 401, 'session_required')
  }
}

describe('a fetch', () => {
  test('ends the session, its tokens and its cookie, and learns where the server ends its own', async () => {
    const cookie = ticketOf(tab)
    const reply = await signOut()
    expectOurHeaders(reply)
    expect(reply.status).toBe(200)
    expect(reply.headers['clear-site-data']).toBe('"cache", "storage"')
    const url = new URL(String(reply.json()['logout_url']))
    expect(url.origin + url.pathname).toBe(`${stack.authorizationServer.issuer}/end_session`)
    expect([...url.searchParams.keys()].toSorted()).toEqual(['client_id', 'post_logout_redirect_uri', 'state'])
    expect(url.searchParams.get('post_logout_redirect_uri')).toBe(`${stack.origin}/bff/logout`)
    expect(tab.cookies.names(stack.origin)).toEqual([])
    expect(signedInRecords(await stack.items())).toEqual([])
    expect(grant()?.live).toBe(false)
    await expectDead(cookie)
  })

  test.each([
    ['with the header', true],
    ['by the word of the browser alone', false],
  ])(
    'is told where the server ends its session, and not sent there, also where it posts a form %s',
    async (_, csrf) => {
      const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
      const reply = await tab.fetch('/bff/logout', { method: 'POST', csrf, headers, body: 'a=b' })
      expect([reply.status, reply.headers['location']]).toEqual([200, undefined])
      expect(reply.json()['logout_url']).toMatch(/^http.*\/end_session\?/)
    },
  )

  test('takes three calls of the table, the record of the session first, and one of the server', async () => {
    const before = [stack.stack.awsCalls.length, stack.authorizationServer.requests.length]
    await signOut()
    const { functionName } = stack.stack.function('Logout').definition
    const calls = stack.stack.awsCalls
      .slice(before[0])
      .filter((call) => call.functionName === functionName)
      .map(({ action }) => action)
    expect(calls.filter((action) => action.startsWith('dynamodb'))).toEqual([
      'dynamodb:DeleteItem',
      'dynamodb:Query',
      'dynamodb:DeleteItem',
    ])
    const [revocation, ...more] = stack.authorizationServer.requests.slice(before[1])
    expect([revocation?.endpoint, more]).toEqual(['revoke', []])
    const form = new URLSearchParams(revocation?.body.toString())
    expect([form.get('token_type_hint'), form.get('token')]).toEqual(['refresh_token', expect.stringMatching(/^rt-/)])
  })

  test('again, or without a session, or with a cookie that is none, signs out as well and asks the server nothing', async () => {
    await signOut()
    const before = stack.authorizationServer.requests.length
    for (const headers of [
      {},
      { Cookie: `${sessionCookie}=rubbish` },
      { Cookie: `${sessionCookie}=${'A'.repeat(43)}.${'B'.repeat(43)}` },
    ]) {
      const reply = await tab.fetch('/bff/logout', { method: 'POST', headers })
      expect([reply.status, reply.json()]).toEqual([200, { logout_url: null }])
    }
    expect(stack.authorizationServer.requests.length).toBe(before)
  })

  test('at the same moment twice ends it once', async () => {
    const before = stack.authorizationServer.count('revoke')
    const replies = await Promise.all([signOut(), signOut(), signOut()])
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(stack.authorizationServer.count('revoke')).toBe(before + 1)
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('of one browser leaves the user signed in in another', async () => {
    const other = stack.newBrowser()
    await signIn(other)
    await signOut()
    expect((await other.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
    expect((await other.fetch('/api/demo/whoami')).status).toBe(200)
    await other.fetch('/bff/logout', { method: 'POST' })
  })

  test('without the proof does nothing', async () => {
    expectProblem(await tab.fetch('/bff/logout', { method: 'POST', csrf: false }), 403, 'csrf_rejected')
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
    await signOut()
  })
})

describe('a page', () => {
  test('asks first, since a link must not sign out', async () => {
    const before = await stack.items()
    const page = await tab.navigate('/bff/logout?return_to=/bye', { from: home })
    expectOurHeaders(page)
    expect([page.status, page.forms.length, page.setCookies]).toEqual([200, 1, []])
    expect(page.forms[0]).toMatchObject({ method: 'POST', fields: [] })
    expect(page.headers['content-security-policy']).toContain(`form-action 'self' ${stack.authorizationServer.issuer};`)
    expect(await stack.items()).toEqual(before)
    await signOut()
  })

  test('posts the form, passes by the server, and comes back to where it was to go', async () => {
    const cookie = ticketOf(tab)
    const page = await tab.submit(await tab.navigate('/bff/logout?return_to=/bye%3Fx%3D1', { from: home }), 'Sign out')
    expect(page.hops.map(({ method, status, url }) => [method, status, new URL(url).pathname])).toEqual([
      ['POST', 303, '/bff/logout'],
      ['GET', 302, '/end_session'],
      ['GET', 303, '/bff/logout'],
      ['GET', 200, '/bye'],
    ])
    expect(page.url).toBe(`${stack.origin}/bye?x=1`)
    expect(page.hops[0]?.setCookies).toEqual([expect.stringMatching(/^__Host-Http-session=;/)])
    await expectDead(cookie)
  })

  test('ends on a page that says so where no place was named', async () => {
    const page = await tab.submit(await tab.navigate('/bff/logout', { from: home }), 'Sign out')
    expect([page.status, page.url.split('?')[0]]).toEqual([200, `${stack.origin}/bff/logout`])
    expect(page.visible).toContain('You are signed out')
    expect(page.forms).toEqual([])
    expect((await tab.click(page, 'Sign in again')).url).toBe(home)
    await signOut()
  })

  test('without a session goes where it was to go at once', async () => {
    await signOut()
    const question = await tab.navigate('/bff/logout?return_to=/bye', { from: home })
    expect((await tab.submit(question, 'Sign out')).url).toBe(`${stack.origin}/bye`)
  })

  test.each([
    ['no state', () => ''],
    ['an empty state', () => '?state='],
    ['a state that is not ours', () => `?state=${'A'.repeat(120)}`],
    ['a state that was changed', (state: string) => `?state=${state.slice(0, -2)}AA`],
    [
      'a state with a destination beside it',
      (state: string) => `?state=${state.slice(0, -2)}AA&return_to=https://evil.example/`,
    ],
  ])('that comes back with %s is signed out and goes nowhere', async (_, query) => {
    const state =
      new URL(String((await signOut('?return_to=/bye')).json()['logout_url'])).searchParams.get('state') ?? ''
    const page = await tab.navigate(`${stack.origin}/bff/logout${query(state)}`, {
      from: `${stack.authorizationServer.issuer}/end_session`,
    })
    expect([200, 400]).toContain(page.status)
    expect(page.url.startsWith(`${stack.origin}/bff/logout`)).toBe(true)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: false })
  })

  test('that comes back with two states is refused', async () => {
    expectErrorPage(await tab.navigate('/bff/logout?state=a&state=b'), 400, 'request_invalid')
    await signOut()
  })
})

describe('an authorization server that', () => {
  test.each<[string, Fault]>([
    ['is down', faults.webPage(503)],
    ['hangs', faults.hung],
    ['breaks off', faults.reset],
    ['refuses', faults.refused('unsupported_token_type')],
    ['does not know the client any more', faults.refused('invalid_client', 401)],
    ['answers a web page', faults.webPage(404)],
    ['redirects', faults.moved('/elsewhere')],
  ])('%s at revocation keeps nobody signed in', async (_, fault) => {
    const cookie = ticketOf(tab)
    stack.authorizationServer.always('revoke', fault)
    const reply = await signOut()
    stack.authorizationServer.always('revoke', undefined)
    expect([reply.status, reply.setCookies]).toEqual([200, [expect.stringMatching(/^__Host-Http-session=;/)]])
    expect(signedInRecords(await stack.items())).toEqual([])
    expect(stack.authorizationServer.count('other')).toBe(0)
    await expectDead(cookie)
  })
})

test('a table that fails keeps the session and the cookie, and says to try again', async () => {
  storeFault = (called) =>
    called === 'dynamodb:DeleteItem' ? { status: 500, type: 'InternalServerError', message: 'no' } : undefined
  const reply = await signOut()
  storeFault = undefined
  expectProblem(reply, 503, 'store_unavailable')
  expect(reply.setCookies).toEqual([])
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  await signOut()
})

test.each(['PUT', 'DELETE', 'PATCH'])('%s is not a way to sign out', async (method) => {
  const reply = await tab.fetch('/bff/logout', { method })
  expectProblem(reply, 405, 'method_not_allowed')
  expect(reply.headers['allow']).toBe('GET, POST')
  await signOut()
})

test('the demo server asks whether to sign out there too, and the way leads back', async () => {
  const demo = await startDemoStack()
  const browser = demo.newBrowser()
  await signIn(browser)
  const question = await browser.navigate('/bff/logout?return_to=/bye', { from: `${demo.origin}/` })
  const there = await browser.submit(question, 'Sign out')
  expect(there.visible).toContain('Sign out here too?')
  expect((await browser.submit(there, 'Sign out')).url).toBe(`${demo.origin}/bye`)
  expect(signedInRecords(await demo.items())).toEqual([])
  // Nobody is signed in there any more: the next login asks who it is.
  expect((await browser.navigate('/bff/login')).visible).toContain('Who are you?')
  await demo.close()
})
