import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  expectErrorPage,
  expectNoSession,
  expectOurHeaders,
  expectProblem,
  signedInRecords,
} from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn, startLogin } from '../support/sign-in.ts'
import { startCoderStack, startStrictStack, type StageFile } from '../support/stacks.ts'
import type { Browser, Page } from '../support/user-agent.ts'

/** Signing in with an API token that the user pastes: where a server has no OAuth, or where the stage prefers it. */

type Stack = Awaited<ReturnType<typeof startCoderStack>>

const withApiToken =
  (mode: string) =>
  (stage: StageFile): StageFile => ({
    ...stage,
    providers: { demo: { ...stage.providers['demo'], api_token: mode } },
    renewal: { authorization_server_timeout_seconds: 1 },
  })

/** Coder without its OAuth provider. */
let stack: Stack
/** Coder with it, where API tokens come first all the same. */
let preferring: Stack

beforeAll(async () => {
  stack = await startCoderStack({
    stage: withApiToken('fallback'),
    before: (server) => {
      server.always('metadata', faults.webPage(404))
    },
  })
  preferring = await startCoderStack({ stage: withApiToken('preferred') })
})

afterAll(async () => {
  await stack.close()
  await preferring.close()
})

const tokenOf = (name: string, { authorizationServer }: Stack = stack): string => {
  const user = authorizationServer.users.find(({ username }) => username === name)
  return authorizationServer.sessionOf(user?.username ?? '')
}
const paste = (tab: Browser, page: Page, token: string): Promise<Page> => tab.submit(page, 'Sign in', { token })
const alertOf = (page: Page): string | undefined => /role="alert"[^>]*>([^<]*)</.exec(page.text)?.[1]
const post = (tab: Browser, body: string, headers: [string, string][] = []) =>
  tab.raw({
    path: '/bff/api-token/demo',
    method: 'POST',
    headers: [
      ['Content-Type', 'application/x-www-form-urlencoded'],
      ['Sec-Fetch-Site', 'same-origin'],
      ['Sec-Fetch-Mode', 'navigate'],
      ['Origin', tab.origin],
      ...headers,
    ],
    body,
  })
const stateOf = (page: Page): string => page.forms[0]?.fields.find(([name]) => name === 'state')?.[1] ?? ''

describe('where the server has no OAuth', () => {
  test('the deploy goes through and says why in the log, and a login asks for a token', async () => {
    const said = stack.logs.find(
      ({ functionName, line }) => functionName.includes('Register') && line.includes('reason'),
    )
    expect(JSON.parse(said?.line ?? '{}')).toMatchObject({ flow: 'register', reason: 'metadata_invalid' })
    const page = await startLogin(stack.newBrowser(), { returnTo: '/here' })
    expect([page.status, page.url]).toEqual([200, `${stack.origin}/bff/login?return_to=%2Fhere`])
    expect(page.visible).toContain('There is no other way to sign in here: 127.0.0.1')
    expect(page.links.map(({ href }) => href)).toEqual(['/'])
    expectOurHeaders(page)
    expect(page.headers['content-security-policy']).toContain("form-action 'self';")
  })

  test('the token of a user is their session, calls the API as it is, and is forgotten at sign-out', async () => {
    const tab = stack.newBrowser()
    const token = tokenOf('ada')
    const page = await paste(tab, await startLogin(tab, { returnTo: '/here' }), ` ${token}\n`)
    expect(page.url).toBe(`${stack.origin}/here`)
    const ada = stack.authorizationServer.users.find(({ username }) => username === 'ada')
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({
      authenticated: true,
      claims: { sub: ada?.id, name: 'Ada', preferred_username: 'ada' },
    })
    expect((await tab.fetch('/api/demo/users/me')).json()).toMatchObject({ id: ada?.id })
    expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    const before = stack.authorizationServer.requests.length
    const reply = await tab.fetch('/bff/logout', { method: 'POST' })
    expect([reply.status, reply.json()]).toEqual([200, { logout_url: null }])
    await stack.stack.backgroundIsIdle()
    expect(stack.authorizationServer.requests).toHaveLength(before)
    expect(signedInRecords(await stack.items())).toEqual([])
    expect(stack.logs.filter(({ line }) => line.includes('"flow":"logout","reason"'))).toEqual([])
  })

  test('a new sign-in ends the session that the browser had', async () => {
    const tab = stack.newBrowser()
    await paste(tab, await startLogin(tab), tokenOf('ada'))
    await paste(tab, await startLogin(tab), tokenOf('grace'))
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ claims: { name: 'Grace' } })
    expect(signedInRecords(await stack.items())).toHaveLength(2)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })
})

describe('a token that is none', () => {
  test.each<[what: string, token: string, asked: number]>([
    ['wrong', 'wrongwrong-wrongwrongwrongwrongwrong', 1],
    ['empty', '', 0],
    ['only blanks', ' \t\n', 0],
    ['two words', 'two words', 0],
    ['with a line break in it', 'planted-token-one\r\nX-Injected: yes', 0],
    ['with a NUL', 'planted-token\u0000two', 0],
    ['with letters that no header carries', 'planted-tökén-three', 0],
    ['huge', 'x'.repeat(4_097), 0],
    ['markup', '"><script>alert(1)</script>', 1],
  ])('%s is asked for again, with the reason, and loses nothing', async (_, token, asked) => {
    const tab = stack.newBrowser()
    await paste(tab, await startLogin(tab), tokenOf('lin'))
    const before = stack.authorizationServer.count('account')
    const login = await startLogin(tab, { returnTo: '/here' })
    const again = await paste(tab, login, token)
    expect([again.status, alertOf(again)]).toEqual([403, expect.stringMatching(/^That API token was not accepted/)])
    expect(stack.authorizationServer.count('account') - before).toBe(asked)
    expectNoSession(again)
    expectOurHeaders(again)
    expect(token.trim().length > 3 && again.text.includes(token.trim())).toBe(false)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ claims: { name: 'Lin' } })
    expect((await paste(tab, again, tokenOf('ada'))).url).toBe(`${stack.origin}/here`)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ claims: { name: 'Ada' } })
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test.each<[what: string, fault: Fault]>([
    ['is broken', faults.webPage(500)],
    ['has no id', faults.changed({ id: undefined })],
    ['is elsewhere', faults.moved('/api/v2/buildinfo', 302)],
    ['comes too late', faults.hung],
  ])('cannot be told where the account endpoint %s: the page says so and asks again', async (_, fault) => {
    const tab = stack.newBrowser()
    const login = await startLogin(tab)
    stack.authorizationServer.plan('account', fault)
    const again = await paste(tab, login, tokenOf('ada'))
    expect([again.status, alertOf(again)]).toEqual([
      502,
      expect.stringMatching(/^It could not be found out who you are/),
    ])
    expect((await paste(tab, again, tokenOf('ada'))).url).toBe(`${stack.origin}/`)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })
})

describe('the form', () => {
  test('counts only with its login in this browser, and once', async () => {
    const [tab, other] = [stack.newBrowser(), stack.newBrowser()]
    const login = await startLogin(tab)
    const body = new URLSearchParams({ state: stateOf(login), token: tokenOf('ada') }).toString()
    expectErrorPage(await post(other, body), 400, 'login_invalid')
    expectErrorPage(await post(tab, new URLSearchParams({ token: tokenOf('ada') }).toString()), 400, 'login_invalid')
    expectErrorPage(await post(tab, `${body}&state=x`), 400, 'request_invalid')
    expectErrorPage(await post(tab, `${body}&token=x`), 400, 'request_invalid')
    expect((await post(tab, body)).status).toBe(303)
    expectErrorPage(await post(tab, body), 400, 'login_invalid')
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test.each<[what: string, headers: [string, string][], status: number]>([
    ['another site', [['Sec-Fetch-Site', 'cross-site']], 403],
    ['another origin', [['Origin', 'https://evil.example']], 403],
    ['a subdomain', [['Sec-Fetch-Site', 'same-site']], 403],
  ])('from %s is refused', async (_, headers, status) => {
    const tab = stack.newBrowser()
    const login = await startLogin(tab)
    const body = new URLSearchParams({ state: stateOf(login), token: tokenOf('ada') }).toString()
    const replaced = new Set(headers.map(([name]) => name))
    const ours: [string, string][] = [
      ['Content-Type', 'application/x-www-form-urlencoded'],
      ['Sec-Fetch-Site', 'same-origin'],
      ['Sec-Fetch-Mode', 'navigate'],
      ['Origin', tab.origin],
    ]
    const lines = [...ours.filter(([name]) => !replaced.has(name)), ...headers]
    const reply = await tab.raw({ path: '/bff/api-token/demo', method: 'POST', headers: lines, body })
    expectErrorPage(reply, status, 'csrf_rejected')
  })

  test('of a login that went to the authorization server brings nothing', async () => {
    const tab = preferring.newBrowser()
    await tab.navigate('/bff/login?method=oauth', { from: await tab.navigate('/') })
    const authorize = tab.history.find(({ url }) => url.includes('/oauth2/authorize'))
    const state = new URL(authorize?.url ?? '').searchParams.get('state') ?? ''
    const body = new URLSearchParams({ state, token: tokenOf('ada', preferring) }).toString()
    expectErrorPage(await post(tab, body), 400, 'login_invalid')
    const asked = await startLogin(tab)
    const callback = await tab.navigate(`/bff/callback/demo?code=x&state=${stateOf(asked)}`)
    expect(callback.status).toBeGreaterThanOrEqual(400)
    expectNoSession(callback)
  })

  test('is answered as a problem where a script sends it, and refused where it is no form or too long', async () => {
    const tab = stack.newBrowser()
    const login = await startLogin(tab)
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' }
    const send = (body: string, type = headers) =>
      tab.fetch('/bff/api-token/demo', { method: 'POST', body, headers: type })
    expectProblem(await send(`state=${stateOf(login)}&token=wrong`), 403, 'api_token_rejected')
    expectProblem(await send(`token=${'x'.repeat(20_000)}`), 400, 'request_invalid')
    expectProblem(await send('{}', { 'Content-Type': 'application/json' }), 400, 'request_invalid')
    expectProblem(await tab.fetch('/bff/api-token/nobody', { method: 'POST' }), 404, 'provider_unknown')
    const get = await tab.fetch('/bff/api-token/demo')
    expect([get.status, get.headers['allow']]).toEqual([405, 'POST'])
  })

  test('does nothing where the stage does not allow tokens', async () => {
    const other = await startStrictStack()
    const reply = await other.newBrowser().fetch('/bff/api-token/demo', { method: 'POST' })
    expectProblem(reply, 404, 'provider_unknown')
    await other.close()
  })
})

describe('where the stage prefers tokens', () => {
  test('a login asks for one, and leads to OAuth for who has none', async () => {
    const tab = preferring.newBrowser()
    const page = await startLogin(tab, { returnTo: '/here' })
    expect(page.visible).toContain('Create an API token at 127.0.0.1')
    const oauth = page.links.find(({ text }) => text === 'Sign in without a token')
    const back = encodeURIComponent(`${preferring.origin}/here`)
    expect(oauth?.href).toBe(`/bff/login?provider=demo&method=oauth&return_to=${back}`)
    const away = await tab.click(page, 'Sign in without a token')
    expect(new URL(away.url).origin).toBe(preferring.authorizationServer.issuer)
  })

  test('both kinds of session of a user live side by side, each with its own tokens', async () => {
    const [byToken, byOAuth] = [preferring.newBrowser(), preferring.newBrowser()]
    await paste(byToken, await startLogin(byToken), tokenOf('ada', preferring))
    const start = await byOAuth.navigate('/bff/login?method=oauth', { from: await byOAuth.navigate('/') })
    await byOAuth.submit(await byOAuth.submit(start, 'Ada'), 'Allow')
    for (const tab of [byToken, byOAuth]) {
      expect((await tab.fetch('/api/demo/users/me')).json()).toMatchObject({ username: 'ada' })
    }
    expect((await byOAuth.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    expect((await byToken.fetch('/api/demo/users/me')).json()).toMatchObject({ username: 'ada' })
    expect(preferring.authorizationServer.pairs().map(({ endedBy }) => endedBy)).toEqual(['revocation'])
    await byToken.fetch('/bff/logout', { method: 'POST' })
  })

  test('a token in the place of a sign-in by OAuth ends that, and gives its tokens back', async () => {
    const tab = preferring.newBrowser()
    const start = await tab.navigate('/bff/login?method=oauth', { from: await tab.navigate('/') })
    await tab.submit(await tab.submit(start, 'Ada'), 'Allow')
    await paste(tab, await startLogin(tab), tokenOf('ada', preferring))
    await preferring.stack.backgroundIsIdle()
    expect(preferring.authorizationServer.pairs().map(({ live }) => live)).toEqual([false, false])
    expect((await tab.fetch('/api/demo/users/me')).json()).toMatchObject({ username: 'ada' })
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test('a server without OAuth leaves the token as the only way, and says so', async () => {
    const tab = stack.newBrowser()
    const page = await tab.navigate('/bff/login?method=oauth', { from: await tab.navigate('/') })
    expect(page.visible).toContain('There is no other way to sign in here')
  })
})

test('a server whose OAuth can be used is not asked for tokens in fallback', async () => {
  const other = await startCoderStack({ stage: withApiToken('fallback') })
  const tab = other.newBrowser()
  await signIn(tab, { user: 'Ada' })
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  await other.close()
})

test('pasted tokens show nowhere: not in logs, records, pages, nor anywhere but at the server', async () => {
  const tab = stack.newBrowser()
  const token = tokenOf('grace')
  const page = await paste(tab, await startLogin(tab), token)
  const session = await tab.fetch('/bff/session')
  const list = await tab.fetch('/bff/sessions')
  const places = {
    logs: stack.logs,
    items: await stack.items(),
    pages: [page.text, session.text, list.text],
    locations: tab.history,
  }
  expect(leaksOf([{ name: 'the token', value: token }], places)).toEqual([])
  const planted = ['planted-token-one', 'wrongwrong-wrongwrongwrong', '<script>alert(1)</script>']
  expect(leaksOf(planted, { logs: stack.logs, items: await stack.items() })).toEqual([])
})

test('its function uses all that it is granted', () => {
  const { definition } = stack.stack.function('ApiTokenFunction')
  const granted = stack.stack
    .statements('ApiTokenFunction')
    .flatMap(({ Action }) => [Action].flat())
    .filter((action) => !action.startsWith('logs:'))
  const used = [stack, preferring].flatMap(({ stack: one }) =>
    one.usedPermissions.filter(({ functionName }) => functionName.startsWith('coatcheck-local-ApiTokenFunction')),
  )
  expect(definition.functionName).toContain('ApiToken')
  expect([...new Set(used.map(({ action }) => action))].toSorted()).toEqual([...new Set(granted)].toSorted())
})
