import { createHash } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectErrorPage, sessionCookie } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { authorize, comeBack, finishLogin, navigation, signIn, startLogin } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Signing in, from the link on the frontend to the session, at both authorization servers. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 1 } }),
  })
})

beforeEach(() => {
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

const start = (query: string, headers: [string, string][] = []) =>
  tab.raw({ path: `/bff/login${query}`, headers: [...navigation, ...headers], cookies: false })

describe('the authorization request', () => {
  test('has every parameter once, ours, and none that was not asked for', async () => {
    const { authorization } = await authorize(tab)
    const { issuer, clients } = stack.authorizationServer
    expect(authorization.origin + authorization.pathname).toBe(`${issuer}/authorize`)
    const random = /^[\w-]{43}$/
    expect([...authorization.searchParams].toSorted(([a], [b]) => (a < b ? -1 : 1))).toEqual([
      ['client_id', clients()[0]?.client_id],
      ['code_challenge', expect.stringMatching(random)],
      ['code_challenge_method', 'S256'],
      ['nonce', expect.stringMatching(random)],
      ['redirect_uri', `${stack.origin}/bff/callback/demo`],
      ['resource', 'https://resource.example'],
      ['response_type', 'code'],
      ['scope', 'openid profile email offline_access'],
      ['state', expect.stringMatching(random)],
    ])
  })

  test('is proven by a verifier of 128 characters at the token endpoint, which gets nothing else', async () => {
    const pending = await authorize(tab)
    await comeBack(tab, pending)
    const sent = stack.authorizationServer.tokenRequests('authorization_code').at(-1)
    const form = new URLSearchParams(sent?.body.toString())
    const verifier = form.get('code_verifier') ?? ''
    expect(verifier).toMatch(/^[\w.~-]{128}$/)
    const challenge = createHash('sha256').update(verifier).digest('base64url')
    expect(challenge).toBe(pending.authorization.searchParams.get('code_challenge'))
    expect([...form.keys()].toSorted()).toEqual(['code', 'code_verifier', 'grant_type', 'redirect_uri', 'resource'])
    expect(sent?.headers).not.toHaveProperty('cookie')
  })

  test('never has the same secret twice, and none that follows from another', async () => {
    const urls = await Promise.all(Array.from({ length: 50 }, async () => (await start('')).headers['location'] ?? ''))
    const values = urls.flatMap((url) => {
      const { searchParams } = new URL(url)
      return ['state', 'nonce', 'code_challenge'].map((name) => searchParams.get(name) ?? '')
    })
    expect(new Set(values).size).toBe(150)
    for (const [state, nonce, challenge] of urls.map((url) =>
      ['state', 'nonce', 'code_challenge'].map((name) => new URL(url).searchParams.get(name) ?? ''),
    )) {
      const hashes = [state, nonce].map((value) =>
        createHash('sha256')
          .update(value ?? '')
          .digest('base64url'),
      )
      expect(hashes).not.toContain(challenge)
      expect(hashes).not.toContain(nonce)
    }
  })

  test('takes prompt and login_hint from the link and nothing else', async () => {
    const plain = new URL((await start('')).headers['location'] ?? '')
    const over =
      '?prompt=login&login_hint=grace&state=s&nonce=n&redirect_uri=https://evil.example&client_id=c&code_challenge=x&response_mode=fragment&resource=r&scope=admin&response_type=token&request=r&request_uri=u&acr_values=1&max_age=0'
    const asked = new URL((await start(over)).headers['location'] ?? '')
    expect([asked.searchParams.get('prompt'), asked.searchParams.get('login_hint')]).toEqual(['login', 'grace'])
    for (const name of ['prompt', 'login_hint', 'state', 'nonce', 'code_challenge']) {
      asked.searchParams.delete(name)
      plain.searchParams.delete(name)
    }
    expect(asked.href).toBe(plain.href)
    expect(new URL((await start('?prompt=evil')).headers['location'] ?? '').searchParams.has('prompt')).toBe(false)
  })

  test('comes from the configuration, whatever host the browser claims', async () => {
    const spoofed: [string, string][] = ['Host', 'X-Forwarded-Host', 'X-Original-Host'].map((name) => [
      name,
      'evil.example',
    ])
    const reply = await start('', [...spoofed, ['X-Forwarded-Proto', 'https'], ['Forwarded', 'host=evil.example']])
    const location = new URL(reply.headers['location'] ?? '')
    expect(location.searchParams.get('redirect_uri')).toBe(`${stack.origin}/bff/callback/demo`)
    expect(JSON.stringify([reply.headers, reply.setCookies])).not.toContain('evil')
  })

  test('needs no call of the table, and writes nothing', async () => {
    const { functionName } = stack.stack.function('Login').definition
    await start('')
    const actions = stack.stack.awsCalls
      .filter((call) => call.functionName === functionName)
      .map(({ action }) => action)
    expect(new Set(actions)).toEqual(new Set(['secretsmanager:GetSecretValue']))
  })
})

describe('a link that is wrong', () => {
  test.each([
    ['?provider=nobody', 404, 'provider_unknown'],
    ['?provider=__proto__', 404, 'provider_unknown'],
    ['?provider=', 404, 'provider_unknown'],
    ['?provider=demo&provider=demo', 400, 'request_invalid'],
    ['?prompt=login&prompt=none', 400, 'request_invalid'],
    ['?login_hint=a&login_hint=b', 400, 'request_invalid'],
    [`?login_hint=${'a'.repeat(5_000)}`, 400, 'request_invalid'],
  ])('%s', async (query, status, code) => {
    const reply = await start(query)
    expectErrorPage(reply, status, code)
    expect(reply.setCookies).toEqual([])
  })

  test.each(['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS'])('%s is not how a login starts', async (method) => {
    const reply = await tab.raw({ path: '/bff/login', method, headers: navigation })
    expect([reply.status, reply.headers['allow']]).toEqual([405, 'GET'])
    expect(reply.setCookies).toEqual([])
  })
})

describe.each([
  ['client_secret_basic, with characters that must be encoded', ['client_secret_basic']],
  ['client_secret_post', ['client_secret_post']],
  ['no secret at all', ['none']],
])('a client that authenticates by %s', (_, authMethods) => {
  test('signs in, refreshes and revokes', async () => {
    const other = await startStrictStack({ strict: { authMethods, accessTokenSeconds: 1 } })
    const browser = other.newBrowser()
    await signIn(browser)
    expect((await browser.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    expect((await browser.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    expect(other.authorizationServer.grants).toMatchObject([{ live: false }])
    const statuses = other.authorizationServer.requests.filter(({ endpoint }) => ['token', 'revoke'].includes(endpoint))
    expect(statuses.map(({ status }) => status)).toEqual(statuses.map(() => 200))
    await other.close()
  })
})

test('plain OAuth gets no nonce and no openid, and its user has an account of each login', async () => {
  const other = await startStrictStack({ strict: { openid: false, resources: [], metadata: 'oauth' } })
  const browser = other.newBrowser()
  const pending = await authorize(browser)
  const { searchParams } = pending.authorization
  expect([searchParams.get('scope'), searchParams.has('nonce'), searchParams.has('resource')]).toEqual([
    'offline_access',
    false,
    false,
  ])
  await comeBack(browser, pending)
  expect((await browser.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: {} })
  await other.close()
})

describe('a server that wants the request pushed', () => {
  let pushing: Awaited<ReturnType<typeof startStrictStack>>
  beforeAll(async () => {
    pushing = await startStrictStack({
      strict: { par: true, authMethods: ['client_secret_post'], metadata: 'openid' },
      stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 1 } }),
    })
  })
  afterAll(() => pushing.close())

  test('gets it so, and the browser carries a reference only', async () => {
    const browser = pushing.newBrowser()
    const pending = await authorize(browser, { return_to: '/here' })
    expect([...pending.authorization.searchParams.keys()].toSorted()).toEqual(['client_id', 'request_uri'])
    expect((await comeBack(browser, pending)).url).toBe(`${pushing.origin}/here`)
  })

  test.each<[string, Fault, number, string]>([
    ['refuses', faults.refused('invalid_request'), 502, 'authorization_server_invalid'],
    ['answers a web page', faults.webPage(201), 502, 'authorization_server_invalid'],
    ['answers nothing', faults.nothing, 502, 'authorization_server_invalid'],
    ['gives no reference', faults.changed({ request_uri: undefined }), 502, 'authorization_server_invalid'],
    ['gives a reference that is none', faults.changed({ request_uri: 7 }), 502, 'authorization_server_invalid'],
    ['redirects', faults.moved('/elsewhere'), 502, 'authorization_server_invalid'],
    ['is down', faults.webPage(503), 503, 'authorization_server_unavailable'],
    ['breaks off', faults.reset, 503, 'authorization_server_unavailable'],
    ['hangs', faults.hung, 503, 'authorization_server_unavailable'],
  ])('and %s: a page says so and leads back here, and no login has begun', async (_, fault, status, code) => {
    pushing.authorizationServer.plan('par', fault)
    const browser = pushing.newBrowser()
    const page = await browser.navigate('/bff/login?return_to=/here')
    expectErrorPage(page, status, code)
    expect(page.links[0]).toEqual({
      href: `/bff/login?${new URLSearchParams({ provider: 'demo', return_to: `${pushing.origin}/here` }).toString()}`,
      text: 'Sign in again',
    })
    expect(page.setCookies).toEqual([])
    expect(pushing.authorizationServer.unmet()).toEqual([])
  })
})

describe('the demo server', () => {
  let demo: Awaited<ReturnType<typeof startDemoStack>>
  beforeAll(async () => {
    demo = await startDemoStack()
  })
  afterAll(() => demo.close())

  test('asks who it is and what is allowed, and sends the user back signed in', async () => {
    const browser = demo.newBrowser()
    const chooser = await startLogin(browser, { returnTo: '/here?x=1#y', user: 'Grace' })
    expect(new URL(chooser.url).origin).toBe(demo.authorizationServer.issuer)
    const end = await finishLogin(browser, chooser, { user: 'Grace' })
    expect([end.status, end.url]).toEqual([200, `${demo.origin}/here?x=1#y`])
    expect((await browser.fetch('/bff/session')).json()).toMatchObject({
      authenticated: true,
      provider: 'demo',
      claims: { sub: 'grace', name: 'Grace Hopper', email: 'grace@example.com' },
    })
    expect((await browser.fetch('/api/demo/whoami')).json()).toMatchObject({ subject: 'grace' })
  })

  test.each(['Deny', 'Cancel'])('%s ends in a page that offers to try again', async (button) => {
    const browser = demo.newBrowser()
    const chooser = await startLogin(browser, { returnTo: '/here' })
    const denied =
      button === 'Cancel'
        ? await browser.submit(chooser, 'Cancel')
        : await finishLogin(browser, chooser, { consent: 'Deny' })
    expectErrorPage(denied, 403, 'login_denied')
    expect(browser.cookies.names(demo.origin)).toEqual([])
    const again = await finishLogin(browser, await browser.click(denied, 'Sign in again'))
    expect(again.url).toBe(`${demo.origin}/here`)
    expect(browser.cookies.names(demo.origin)).toEqual([sessionCookie])
  })

  test('says at once that nobody is signed in there when it must not ask', async () => {
    const browser = demo.newBrowser()
    expectErrorPage(await browser.navigate('/bff/login?prompt=none', { from: `${demo.origin}/` }), 400, 'login_failed')
  })
})
