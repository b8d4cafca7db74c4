import { generateKeyPair, exportJWK, SignJWT } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectOurHeaders, expectProblem } from '../support/answers.ts'
import type { Signing } from '../support/grants.ts'
import { logoutEvent, logoutToken, postLogout, sendLogoutToken } from '../support/logout-tokens.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Which logout tokens end sessions, and which of what comes to the endpoint is refused without any effect. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
/** Ada's browser, signed in before every test. */
let ada: Browser
/** The authorization server's name for Ada's session. */
let sid: string

const isSignedIn = async (tab: Browser): Promise<boolean> => {
  const shown = (await tab.fetch('/bff/session')).json()['authenticated'] === true
  expect((await tab.fetch('/api/demo/whoami')).status).toBe(shown ? 200 : 401)
  return shown
}

const signedInAs = async (user: string) => {
  const tab = stack.newBrowser()
  await signIn(tab, { user })
  return { tab, sid: stack.authorizationServer.grants.at(-1)?.id ?? '' }
}

const token = (claims: Record<string, unknown>, signing?: Signing): Promise<string> =>
  logoutToken(stack.authorizationServer, claims, signing)

const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset

beforeAll(async () => {
  stack = await startStrictStack({ strict: { backchannelLogout: true } })
})

afterAll(() => stack.close())

beforeEach(async () => {
  if (ada !== undefined && (await isSignedIn(ada))) return
  ;({ tab: ada, sid } = await signedInAs('Ada'))
})

test('the registration names the endpoint where the server does back-channel logout', () => {
  const [client] = stack.authorizationServer.clients()
  expect(client).toMatchObject({
    backchannel_logout_uri: `${stack.origin}/bff/backchannel-logout/demo`,
    backchannel_logout_session_required: true,
  })
})

describe('a logout token', () => {
  test.each<[string, Record<string, unknown>, Signing?]>([
    ['with sid', {}],
    ['with sid and sub', { sub: 'ada' }],
    ['for several clients, us among them', { aud: ['somebody else', 'us'] }],
    ['without a type', {}, { typ: undefined }],
    ['of the plain type JWT', {}, { typ: 'JWT' }],
    ['with its type written in full', {}, { typ: 'application/Logout+JWT' }],
    ['without an expiry, which older servers leave out', { exp: undefined }],
    ['with more in its event', { events: { [logoutEvent]: { more: 1 }, 'https://other.example/event': {} } }],
    ['of a server whose clock is half a minute ahead', { iat: seconds(30), exp: seconds(150) }],
  ])('%s ends the session that it names, and no other', async (_, { aud, ...claims }, signing) => {
    const [client] = stack.authorizationServer.clients()
    const audience = Array.isArray(aud) ? { aud: aud.map((one) => (one === 'us' ? client?.client_id : one)) } : {}
    const second = await signedInAs('Ada')
    const reply = await sendLogoutToken(stack.origin, await token({ sid, ...claims, ...audience }, signing))
    expect([reply.status, reply.text]).toEqual([200, ''])
    expectOurHeaders(reply)
    expect(reply.setCookies).toEqual([])
    expect(await isSignedIn(ada)).toBe(false)
    expect(await isSignedIn(second.tab)).toBe(true)
    ;({ tab: ada, sid } = second)
  })

  test('gives back the tokens of the sessions that it ends', async () => {
    await sendLogoutToken(stack.origin, await token({ sid }))
    expect(stack.authorizationServer.grants.find(({ id }) => id === sid)?.live).toBe(false)
  })

  test('with sub alone ends all sessions of that user and nobody else', async () => {
    const [second, grace] = [await signedInAs('Ada'), await signedInAs('Grace')]
    expect((await sendLogoutToken(stack.origin, await token({ sub: 'ada' }))).status).toBe(200)
    expect(await Promise.all([ada, second.tab, grace.tab].map(isSignedIn))).toEqual([false, false, true])
  })

  test('of a session or user that we do not know succeeds', async () => {
    for (const claims of [{ sid: 'nobody' }, { sub: 'nobody' }]) {
      expect((await sendLogoutToken(stack.origin, await token(claims))).status).toBe(200)
    }
    expect(await isSignedIn(ada)).toBe(true)
  })

  test('that comes again has no second effect', async () => {
    const first = await token({ sub: 'ada' })
    expect((await sendLogoutToken(stack.origin, first)).status).toBe(200)
    expect(await isSignedIn(ada)).toBe(false)
    ;({ tab: ada, sid } = await signedInAs('Ada'))
    expect((await sendLogoutToken(stack.origin, first)).status).toBe(200)
    expect(await isSignedIn(ada)).toBe(true)
  })

  test('that comes many times at once succeeds each time', async () => {
    const same = await token({ sid })
    const replies = await Promise.all(Array.from({ length: 8 }, () => sendLogoutToken(stack.origin, same)))
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200))
    expect(await isSignedIn(ada)).toBe(false)
  })
})

describe('refused, with nothing ended, is a token', () => {
  const refused = async (forged: string): Promise<void> => {
    expectProblem(await sendLogoutToken(stack.origin, forged), 400, 'logout_token_invalid')
    expect(await isSignedIn(ada)).toBe(true)
  }

  test.each<[string, Signing]>([
    ['without a signature', { as: 'none' }],
    ['under our client secret', { as: 'HS256' }],
    ['under another key of that name', { as: 'another key' }],
    ['under a key that nobody knows', { as: 'unknown kid' }],
    ['that was changed after it was signed', { as: 'tampered' }],
    ['of type at+jwt', { typ: 'at+jwt' }],
    ['of type dpop+jwt', { typ: 'dpop+jwt' }],
    ['of type application/at+jwt', { typ: 'application/at+jwt' }],
  ])('%s', async (_, signing) => refused(await token({ sid, sub: 'ada' }, signing)))

  test.each<[string, Record<string, unknown>]>([
    ['of another issuer', { iss: 'https://evil.example' }],
    ['of an issuer with a slash more', { iss: 'add a slash' }],
    ['of no issuer', { iss: undefined }],
    ['for another client', { aud: 'another' }],
    ['for several others', { aud: ['one', 'another'] }],
    ['for nobody', { aud: undefined }],
    ['for an empty list', { aud: [] }],
    ['without iat', { iat: undefined }],
    ['with an iat that is text', { iat: 'now' }],
    ['issued long ago', { iat: seconds(-400), exp: seconds(60) }],
    ['issued in the future', { iat: seconds(180), exp: seconds(300) }],
    ['that has expired', { iat: seconds(-200), exp: seconds(-100) }],
    ['that is not valid yet', { nbf: seconds(1_000_000) }],
    ['without events', { events: undefined }],
    ['with another event', { events: { 'http://schemas.openid.net/event/other': {} } }],
    ['with events that are text', { events: logoutEvent }],
    ['with events that are a list', { events: [logoutEvent] }],
    ['with events of null', { events: null }],
    ['with an event that is text', { events: { [logoutEvent]: 'yes' } }],
    ['with an event that is a list', { events: { [logoutEvent]: [] } }],
    ['with a nonce', { nonce: 'n' }],
    ['with an empty nonce', { nonce: '' }],
    ['with a nonce of null', { nonce: null }],
    ['without jti', { jti: undefined }],
    ['with an empty jti', { jti: '' }],
    ['with a jti that is a number', { jti: 7 }],
    ['with a sid that is a number', { sid: 7 }],
    ['with a sub that is a list', { sub: ['ada'] }],
    ['with neither sid nor sub', { sid: undefined, sub: undefined }],
    ['with a sid of many pages', { sid: 's'.repeat(2_000) }],
  ])('%s', async (_, claims) => {
    const iss = claims['iss'] === 'add a slash' ? { iss: `${stack.authorizationServer.issuer}/` } : {}
    await refused(await token({ sid, sub: 'ada', ...claims, ...iss }))
  })

  test('under the public key taken for a shared secret', async () => {
    for (const secret of [JSON.stringify(stack.authorizationServer.jwk), String(stack.authorizationServer.jwk.n)]) {
      await refused(await token({ sid }, { as: 'HS256', secret }))
    }
  })

  test('that brings its own key', async () => {
    const { privateKey, publicKey } = await generateKeyPair('RS256')
    const good = JSON.parse(Buffer.from((await token({ sid })).split('.')[1] ?? '', 'base64url').toString())
    const header = { alg: 'RS256', typ: 'logout+jwt', jwk: await exportJWK(publicKey), jku: 'https://evil.example' }
    await refused(await new SignJWT(good).setProtectedHeader(header).sign(privateKey))
    await refused(await new SignJWT(good).setProtectedHeader({ ...header, kid: 'strict-1' }).sign(privateKey))
  })

  test('that is the ID token of the same login', async () => {
    const idToken = stack.authorizationServer.secrets.findLast((secret) => secret.split('.').length === 3) ?? ''
    await refused(idToken)
  })

  test.each(['', 'a', 'a.b.c', '..', 'a.b.c.d.e', '{}', '\0', 'ä.ö.ü', '.'.repeat(20_000)])('of garbage: %j', refused)
})

describe('refused, with nothing ended, is a request', () => {
  const form = async (claims: Record<string, unknown> = { sid }) =>
    new URLSearchParams({ logout_token: await token(claims) }).toString()

  test('for a provider that there is not', async () => {
    for (const provider of ['other', 'DEMO', '__proto__', 'constructor', '%64emo%2F']) {
      expectProblem(await postLogout(stack.origin, await form(), { provider }), 404, 'provider_unknown')
    }
    expect(await isSignedIn(ada)).toBe(true)
  })

  test.each(['GET', 'PUT', 'DELETE', 'OPTIONS'])('by %s', async (method) => {
    const reply = await postLogout(stack.origin, await form(), { method, query: `?${await form()}` })
    expectProblem(reply, 405, 'method_not_allowed')
    expect(reply.headers['allow']).toBe('POST')
    expect(await isSignedIn(ada)).toBe(true)
  })

  test.each<[string, (good: string) => { body: string; type?: string; query?: string }]>([
    ['whose token is in the query', (good) => ({ body: '', query: `?${good}` })],
    ['with two tokens', (good) => ({ body: `${good}&${good}` })],
    ['with a second, empty token', (good) => ({ body: `${good}&logout_token=` })],
    ['with nothing', () => ({ body: '' })],
    ['that calls its form JSON', (good) => ({ body: good, type: 'application/json' })],
    [
      'of JSON',
      (good) => ({
        body: JSON.stringify(Object.fromEntries(new URLSearchParams(good))),
        type: 'application/json',
      }),
    ],
    ['of plain text', (good) => ({ body: good, type: 'text/plain' })],
    ['of another form encoding', (good) => ({ body: good, type: 'multipart/form-data; boundary=x' })],
    ['of 1 MB', (good) => ({ body: `${good}&padding=${'x'.repeat(1_000_000)}` })],
  ])('%s', async (_, change) => {
    const { body, ...rest } = change(await form())
    expectProblem(await postLogout(stack.origin, body, rest), 400, 'logout_token_invalid')
    expect(await isSignedIn(ada)).toBe(true)
  })
})
