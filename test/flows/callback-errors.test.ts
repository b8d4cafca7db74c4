import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AwsFault } from '../../infra/local/aws-call.ts'
import { expectErrorPage, sessionCookie, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser, Page } from '../support/user-agent.ts'

/** Every way in which a login can fail between the authorization response and the session; none leaves anything behind. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser
let storeFault: ((action: string) => AwsFault | undefined) | undefined

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 1 } }),
    gate: ({ action }) => storeFault?.(action),
  })
})

beforeEach(() => {
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

/** The login ended in that page, with no session in the browser or the table, and this many token requests. */
const expectFailure = async (page: Page, status: number, code: string): Promise<void> => {
  expectErrorPage(page, status, code)
  expect(tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
  expect(signedInRecords(await stack.items())).toEqual([])
  expect(stack.authorizationServer.unmet()).toEqual([])
}

const tokenRequests = () => stack.authorizationServer.tokenRequests('authorization_code').length

describe('the authorization response', () => {
  const meets = async (change: (parameters: URLSearchParams) => void): Promise<Page> => {
    stack.authorizationServer.plan('authorize', faults.sentBack(change))
    const before = tokenRequests()
    const page = await signIn(tab, { returnTo: '/here' })
    expect(tokenRequests()).toBe(before)
    return page
  }
  const errorOf = (error: string, description?: string) => (parameters: URLSearchParams) => {
    parameters.delete('code')
    parameters.set('error', error)
    if (description !== undefined) parameters.set('error_description', description)
  }

  test.each([
    ['access_denied', 403, 'login_denied'],
    ['invalid_request', 400, 'login_failed'],
    ['unauthorized_client', 400, 'login_failed'],
    ['unsupported_response_type', 400, 'login_failed'],
    ['invalid_scope', 400, 'login_failed'],
    ['invalid_target', 400, 'login_failed'],
    ['server_error', 400, 'login_failed'],
    ['temporarily_unavailable', 400, 'login_failed'],
    ['login_required', 400, 'login_failed'],
    ['interaction_required', 400, 'login_failed'],
    ['consent_required', 400, 'login_failed'],
    ['one_that_nobody_knows', 400, 'login_failed'],
    ['', 400, 'login_failed'],
  ])(
    'with the error "%s" ends in a page from which one may sign in again to the same place',
    async (error, status, code) => {
      const page = await meets(errorOf(error))
      await expectFailure(page, status, code)
      const [again] = page.links
      expect(new URL(again?.href ?? '', page.url).searchParams.get('return_to')).toBe(`${stack.origin}/here`)
      expect((await tab.click(page, 'Sign in again')).url).toBe(`${stack.origin}/here`)
      expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    },
  )

  test.each([
    ['markup', '<img src=x onerror=alert(1)>'],
    ['markup, encoded twice', '%3Cscript%3Ealert(1)%3C%2Fscript%3E'],
    ['a header', 'x\r\nSet-Cookie: a=b'],
    ['a right-to-left override', 'ab\u202ecd'],
    ['an ANSI escape', '\u001b[31mred'],
    ['much text', 'y'.repeat(2_000)],
  ])('shows nothing of an error whose text is %s', async (_, text) => {
    const page = await meets(errorOf(text, `described: ${text}`))
    await expectFailure(page, 400, 'login_failed')
    for (const part of ['described', 'onerror', 'alert', 'Set-Cookie', '\u202e', '\u001b', 'yyyyy']) {
      expect(page.text).not.toContain(part)
    }
    const lines = stack.logs.map(({ line }) => line).join('')
    for (const part of ['described', '\u202e', '\u001b', 'y'.repeat(100)]) expect(lines).not.toContain(part)
  })

  test('that is too long as a whole is refused before anything is looked at', async () => {
    const page = await tab.navigate(`/bff/callback/demo?error=x&error_description=${'y'.repeat(8_192)}`)
    await expectFailure(page, 400, 'request_invalid')
  })

  const change =
    (name: string, value: string | undefined) =>
    (parameters: URLSearchParams): void => {
      if (value === undefined) parameters.delete(name)
      else parameters.set(name, value)
    }
  const twice = (name: string) => (parameters: URLSearchParams) => parameters.append(name, parameters.get(name) ?? '')

  test.each<[string, (parameters: URLSearchParams) => void, string]>([
    ['no state', change('state', undefined), 'login_invalid'],
    ['an empty state', change('state', ''), 'login_invalid'],
    ['a state that nobody knows', change('state', 'A'.repeat(43)), 'login_invalid'],
    ['a state cut short', (p) => p.set('state', (p.get('state') ?? '').slice(0, -1)), 'login_invalid'],
    ['a state made longer', (p) => p.set('state', `${p.get('state')}A`), 'login_invalid'],
    ['a state in other case', (p) => p.set('state', (p.get('state') ?? '').toLowerCase()), 'login_invalid'],
    ['a state of 16 KB', change('state', 'A'.repeat(4_097)), 'request_invalid'],
    ['two states', twice('state'), 'request_invalid'],
    ['an error without a state', (p) => (errorOf('access_denied')(p), p.delete('state')), 'login_invalid'],
    ['no code', change('code', undefined), 'login_invalid'],
    ['an empty code', change('code', ''), 'login_invalid'],
    ['two codes', twice('code'), 'request_invalid'],
    ['a code of 5 KB', change('code', 'c'.repeat(5_000)), 'login_invalid'],
    ['a code with a line break', change('code', 'a\r\nb'), 'login_invalid'],
    ['a code with a NUL', change('code', 'a\0b'), 'login_invalid'],
    ['a code beyond ASCII', change('code', 'codé'), 'login_invalid'],
    ['a code and an error', change('error', 'access_denied'), 'request_invalid'],
    ['no issuer though it was announced', change('iss', undefined), 'login_invalid'],
    ['another issuer', change('iss', 'https://evil.example'), 'login_invalid'],
    ['an issuer with a slash more', (p) => p.set('iss', `${p.get('iss')}/`), 'login_invalid'],
    ['an issuer in other case', (p) => p.set('iss', (p.get('iss') ?? '').replace('http', 'HTTP')), 'login_invalid'],
    ['two issuers', twice('iss'), 'request_invalid'],
    [
      'an error of another issuer',
      (p) => (errorOf('access_denied')(p), p.set('iss', 'https://evil.example')),
      'login_invalid',
    ],
    ['an ID token, which was not asked for', change('id_token', 'a.b.c'), 'request_invalid'],
  ])('with %s never reaches the token endpoint', async (_, broken, code) => {
    await expectFailure(await meets(broken), 400, code)
  })
})

describe('the token endpoint', () => {
  const big = `{"access_token":"${'a'.repeat(300_000)}"}`
  const typed =
    (type: string | undefined): Fault =>
    async (proceed) => ({ ...(await proceed()), headers: type === undefined ? {} : { 'Content-Type': type } })
  const jsonType = { 'Content-Type': 'application/json' }
  const invalid: [status: number, code: string] = [502, 'authorization_server_invalid']
  const unavailable: [status: number, code: string] = [503, 'authorization_server_unavailable']
  const rejected: [status: number, code: string] = [400, 'login_invalid']

  test.each<[string, Fault, [number, string]]>([
    ['invalid_grant', faults.refused('invalid_grant'), rejected],
    ['invalid_grant with status 200', faults.insteadJson(200, { error: 'invalid_grant' }), rejected],
    ['invalid_request', faults.refused('invalid_request'), invalid],
    ['unauthorized_client', faults.refused('unauthorized_client'), invalid],
    ['unsupported_grant_type', faults.refused('unsupported_grant_type'), invalid],
    ['invalid_scope', faults.refused('invalid_scope'), invalid],
    ['invalid_target', faults.refused('invalid_target'), invalid],
    ['markup for an error code', faults.refused('<script>alert(1)</script>'), invalid],
    ['an error that is no string', faults.insteadJson(400, { error: { code: 7 } }), invalid],
    ['a web page', faults.webPage(200), invalid],
    ['a web page with status 400', faults.webPage(400), invalid],
    ['a web page with status 401', faults.webPage(401), invalid],
    ['404', faults.webPage(404), invalid],
    ['429', faults.refused('slow_down', 429), unavailable],
    ['500', faults.webPage(500), unavailable],
    ['502', faults.webPage(502), unavailable],
    ['503 in JSON', faults.refused('temporarily_unavailable', 503), unavailable],
    ['nothing', faults.nothing, invalid],
    ['204', faults.instead({ status: 204 }), invalid],
    ['half an answer', faults.truncated, unavailable],
    ['JSON cut short', faults.rewritten((text) => text.slice(0, -20)), invalid],
    ['too much', faults.instead({ status: 200, headers: jsonType, body: big }), invalid],
    ['a list', faults.rewritten((text) => `[${text}]`), invalid],
    ['null', faults.rewritten(() => 'null'), invalid],
    ['a string', faults.rewritten((text) => JSON.stringify(text)), invalid],
    [
      'bytes that are no UTF-8',
      faults.instead({ status: 200, headers: jsonType, body: Buffer.from([0x7b, 0xff, 0x7d]) }),
      invalid,
    ],
    ['a JWT', faults.instead({ status: 200, headers: { 'Content-Type': 'application/jwt' }, body: 'a.b.c' }), invalid],
    ['JSON that is called a web page', typed('text/html'), invalid],
    ['JSON that is called nothing', typed(undefined), invalid],
    ['a broken connection', faults.reset, unavailable],
    ['nothing, having done it', faults.lost, unavailable],
    ['nothing in time', faults.hung, unavailable],
    ['a byte at a time', faults.dripping(50), unavailable],
    ['307', faults.moved('/elsewhere', 307), invalid],
    ['308', faults.moved('/elsewhere', 308), invalid],
    ['302', faults.moved('/elsewhere', 302), invalid],
    ['no access token', faults.changed({ access_token: undefined }), invalid],
    ['an access token of null', faults.changed({ access_token: null }), invalid],
    ['an empty access token', faults.changed({ access_token: '' }), invalid],
    ['a number for an access token', faults.changed({ access_token: 7 }), invalid],
    ['a header in the access token', faults.changed({ access_token: 'a\r\nX-Evil: b' }), invalid],
    ['a NUL in the access token', faults.changed({ access_token: 'a\0b' }), invalid],
    ['a space in the access token', faults.changed({ access_token: 'a b' }), invalid],
    ['an access token beyond ASCII', faults.changed({ access_token: 'tokén' }), invalid],
    ['a header in the refresh token', faults.changed({ refresh_token: 'a\r\nb' }), invalid],
    ['no token type', faults.changed({ token_type: undefined }), invalid],
    ['token type mac', faults.changed({ token_type: 'mac' }), invalid],
    ['token type DPoP', faults.changed({ token_type: 'DPoP' }), invalid],
    ['a scope that is a list', faults.changed({ scope: ['openid'] }), invalid],
  ])('answers %s', async (_, fault, [status, code]) => {
    stack.authorizationServer.plan('token', fault)
    const before = tokenRequests()
    await expectFailure(await signIn(tab), status, code)
    expect(tokenRequests() - before, 'the code is sent once').toBe(1)
    expect(stack.authorizationServer.count('other'), 'redirects are not followed').toBe(0)
  })

  test.each([400, 401])(
    'answers invalid_client with status %s, also to credentials that were read again',
    async (status) => {
      const fault = faults.refused('invalid_client', status)
      stack.authorizationServer.plan('token', fault, fault)
      await expectFailure(await signIn(tab), ...unavailable)
    },
  )

  test('what failed is over: the same callback does not try again', async () => {
    stack.authorizationServer.plan('token', faults.reset)
    const pending = await authorize(tab)
    await expectFailure(await comeBack(tab, pending), ...unavailable)
    const before = tokenRequests()
    await expectFailure(await comeBack(tab, pending), ...rejected)
    expect(tokenRequests()).toBe(before)
  })

  test('a login that fails leaves the session that there was', async () => {
    await signIn(tab)
    stack.authorizationServer.plan('token', faults.refused('invalid_grant'))
    expectErrorPage(await signIn(tab, { user: 'Grace' }), ...rejected)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    await tab.fetch('/bff/logout', { method: 'POST' })
  })
})

describe('our own table', () => {
  const failing = (action: string) => (called: string) =>
    called === action ? { status: 500, type: 'InternalServerError', message: 'as the test wants it' } : undefined

  test('cannot tell whether the login was used: the code is kept, and a reload signs in', async () => {
    const pending = await authorize(tab, { return_to: '/here' })
    const before = tokenRequests()
    storeFault = failing('dynamodb:PutItem')
    const page = await comeBack(tab, pending)
    storeFault = undefined
    await expectFailure(page, 503, 'store_unavailable')
    expect(tokenRequests()).toBe(before)
    expect((await comeBack(tab, pending)).url).toBe(`${stack.origin}/here`)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test('cannot keep the session: the tokens are given back', async () => {
    const before = stack.authorizationServer.count('revoke')
    storeFault = failing('dynamodb:TransactWriteItems')
    const page = await signIn(tab)
    storeFault = undefined
    await expectFailure(page, 503, 'store_unavailable')
    expect(stack.authorizationServer.count('revoke')).toBe(before + 1)
    expect(stack.authorizationServer.grants.at(-1)?.live).toBe(false)
  })

  test('cannot keep the session: the one that there was goes on', async () => {
    await signIn(tab)
    storeFault = failing('dynamodb:TransactWriteItems')
    expectErrorPage(await signIn(tab, { user: 'Grace' }), 503, 'store_unavailable')
    storeFault = undefined
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    expect((await tab.fetch('/api/demo/whoami')).status).toBe(200)
  })
})
