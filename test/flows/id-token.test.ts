import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expectErrorPage, sessionCookie, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { IdTokenChange } from '../support/grants.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Who signed in is believed only if every claim and the signature are right (OpenID Connect Core section 3.1.3.7). */

const vectors: { expires_in: { json: string; expect: 'accept' | 'reject' | 'default' | 'accept-as-expired' }[] } =
  JSON.parse(await readFile(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'))

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack({
    // Without a resource the access token is good for UserInfo, which is asked for the claim that no ID token has.
    strict: { resources: [] },
    stage: (stage) => ({
      ...stage,
      renewal: { authorization_server_timeout_seconds: 1 },
      providers: { demo: { ...stage.providers['demo'], claims: ['sub', 'name', 'nickname'] } },
    }),
  })
})

beforeEach(() => {
  stack.authorizationServer.settings.idToken = {}
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

const expectFailure = async (status: number, code: string): Promise<void> => {
  const before = stack.authorizationServer.count('userinfo')
  expectErrorPage(await signIn(tab), status, code)
  expect(tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
  expect(signedInRecords(await stack.items())).toEqual([])
  expect(stack.authorizationServer.unmet()).toEqual([])
  expect(stack.authorizationServer.count('userinfo'), 'the tokens are not used').toBe(before)
  expect(stack.authorizationServer.grants.at(-1)?.live, 'the tokens are given back').toBe(false)
}

const session = async () => (await tab.fetch('/bff/session')).json()
const signOut = () => tab.fetch('/bff/logout', { method: 'POST' })

// First, since keys are kept once they are known.
describe('the keys of the server', () => {
  const huge = JSON.stringify({ keys: [{ kty: 'RSA', n: 'n'.repeat(300_000) }] })
  test.each<[string, Fault, number, string]>([
    ['a web page', faults.webPage(), 502, 'authorization_server_invalid'],
    ['404', faults.webPage(404), 502, 'authorization_server_invalid'],
    ['nothing', faults.nothing, 502, 'authorization_server_invalid'],
    ['JSON cut short', faults.rewritten((text) => text.slice(0, -9)), 502, 'authorization_server_invalid'],
    [
      'too much',
      faults.instead({ status: 200, headers: { 'Content-Type': 'application/json' }, body: huge }),
      502,
      'authorization_server_invalid',
    ],
    ['a redirect', faults.moved('/elsewhere'), 502, 'authorization_server_invalid'],
    ['half an answer', faults.truncated, 503, 'authorization_server_unavailable'],
    ['a broken connection', faults.reset, 503, 'authorization_server_unavailable'],
    ['nothing in time', faults.hung, 503, 'authorization_server_unavailable'],
    ['503', faults.webPage(503), 503, 'authorization_server_unavailable'],
    ['keys that are no list', faults.changed({ keys: 7 }), 400, 'login_invalid'],
  ])('%s instead of them', async (_, fault, status, code) => {
    stack.authorizationServer.plan('jwks', fault)
    await expectFailure(status, code)
    expect(stack.authorizationServer.count('other'), 'redirects are not followed').toBe(0)
  })
})

test.each<[string, Fault]>([
  ['no key', faults.changed({ keys: [] })],
  ['a symmetric key', faults.changed({ keys: [{ kty: 'oct', k: 'c2VjcmV0', kid: 'strict-1' }] })],
  ['a key of another kind', faults.changed({ keys: [{ kty: 'EC', crv: 'P-256', x: 'A', y: 'B', kid: 'strict-1' }] })],
])('a server with %s signs nobody in', async (_, fault) => {
  const other = await startStrictStack()
  other.authorizationServer.always('jwks', fault)
  expectErrorPage(await signIn(other.newBrowser()), 400, 'login_invalid')
  expect(signedInRecords(await other.items())).toEqual([])
  await other.close()
})

describe('an ID token', () => {
  const seconds = Math.floor(Date.now() / 1_000)
  const without = (name: string): IdTokenChange => ({ claims: { [name]: undefined } })
  const withClaim = (name: string, value: unknown): IdTokenChange => ({ claims: { [name]: value } })

  test.each<[string, IdTokenChange]>([
    ['of another issuer', withClaim('iss', 'https://evil.example')],
    ['of an issuer that is a list', withClaim('iss', ['https://evil.example'])],
    ['without issuer', without('iss')],
    ['for another client', withClaim('aud', 'another')],
    ['for others besides us, with no authorized party', withClaim('aud', ['another', 'one more'])],
    ['without audience', without('aud')],
    ['with another nonce', withClaim('nonce', 'A'.repeat(43))],
    ['without nonce', without('nonce')],
    ['without subject', without('sub')],
    ['with a number for a subject', withClaim('sub', 7)],
    ['with an empty subject', withClaim('sub', '')],
    ['with a blank subject', withClaim('sub', ' \t')],
    ['with a subject that cannot be seen', withClaim('sub', 'ada\u0000\u202e')],
    ['with a subject of 5,000 characters', withClaim('sub', 'a'.repeat(5_000))],
    ['without expiry', without('exp')],
    ['that has expired', withClaim('exp', seconds - 120)],
    ['with words for an expiry', withClaim('exp', 'tomorrow')],
    ['that ends long after all time', withClaim('exp', 1e300)],
    ['without time of issue', without('iat')],
    ['of a week ago', withClaim('iat', seconds - 7 * 86_400)],
    ['of the future', withClaim('iat', seconds + 600)],
    ['not valid yet', withClaim('nbf', seconds + 600)],
    ['without signature', { as: 'none' }],
    ['signed with the client secret', { as: 'HS256' }],
    ['signed by a stranger', { as: 'another key' }],
    ['signed with a key that nobody knows', { as: 'unknown kid' }],
    ['changed after it was signed', { as: 'tampered' }],
  ])('%s ends the login', async (_, change) => {
    stack.authorizationServer.settings.idToken = change
    await expectFailure(400, 'login_invalid')
  })

  test.each<[string, unknown]>([
    ['missing', undefined],
    ['no JWT', 'a.b'],
    ['something else', { a: 1 }],
    ['encrypted', 'eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkExMjhHQ00ifQ.a.b.c.d'],
    ['of 200 KB', `a.${'b'.repeat(200_000)}.c`],
  ])('that is %s ends the login', async (_, value) => {
    stack.authorizationServer.plan('token', faults.changed({ id_token: value }))
    await expectFailure(400, 'login_invalid')
  })

  test('for us and others is right when it was issued to us', async () => {
    const clientId = stack.authorizationServer.clients()[0]?.client_id
    stack.authorizationServer.settings.idToken = { claims: { aud: [clientId, 'another'], azp: clientId } }
    await signIn(tab)
    expect(await session()).toMatchObject({ authenticated: true })
    await signOut()
    stack.authorizationServer.settings.idToken = { claims: { aud: [clientId, 'another'], azp: 'another' } }
    await expectFailure(400, 'login_invalid')
  })

  test.each([-45, 45])('of a clock that is %s seconds ahead is right', async (aheadSeconds) => {
    stack.authorizationServer.settings.aheadSeconds = aheadSeconds
    await signIn(tab)
    stack.authorizationServer.settings.aheadSeconds = 0
    expect(await session()).toMatchObject({ authenticated: true })
    await signOut()
  })
})

describe('UserInfo', () => {
  const huge = JSON.stringify({ sub: 'ada', nickname: 'n'.repeat(300_000) })

  test('adds the claims that the ID token lacks', async () => {
    stack.authorizationServer.plan('userinfo', faults.changed({ nickname: 'The Countess', shoe_size: 38 }))
    await signIn(tab)
    expect((await session())['claims']).toEqual({ sub: 'ada', name: 'Ada', nickname: 'The Countess' })
    await signOut()
  })

  test.each<[string, Fault]>([
    ['is somebody else', faults.changed({ sub: 'mallory', nickname: 'M' })],
    ['has no subject', faults.changed({ sub: undefined, nickname: 'M' })],
    ['refuses', faults.refused('invalid_token', 401)],
    ['is a web page', faults.webPage()],
    ['is empty', faults.nothing],
    ['breaks off', faults.truncated],
    ['is huge', faults.instead({ status: 200, headers: { 'Content-Type': 'application/json' }, body: huge })],
    ['never comes', faults.hung],
    ['is down', faults.webPage(503)],
    ['is elsewhere', faults.moved('/elsewhere')],
    ['has an error with status 200', faults.insteadJson(200, { error: 'x', sub: 'ada', nickname: 'M' })],
  ])('that %s is left out: who signed in is known without it', async (_, fault) => {
    stack.authorizationServer.plan('userinfo', fault)
    const page = await signIn(tab, { returnTo: '/here' })
    expect([page.status, page.url]).toEqual([200, `${stack.origin}/here`])
    expect((await session())['claims']).toEqual({ sub: 'ada', name: 'Ada' })
    expect(stack.authorizationServer.unmet()).toEqual([])
    await signOut()
  })
})

describe('the lifetime of the access token', () => {
  const lifetimes = { accept: 3_600, default: 300, 'accept-as-expired': 0 }
  const accepted = vectors.expires_in.flatMap(({ json, expect: outcome }) =>
    outcome === 'reject' ? [] : [{ json, most: lifetimes[outcome] }],
  )
  test.each(accepted)('$json: $most seconds', async ({ json, most }) => {
    stack.authorizationServer.plan(
      'token',
      faults.rewritten((text) => text.replace(/"expires_in":\d+/, `"expires_in":${json}`)),
    )
    await signIn(tab)
    const { authenticated, access_token_expires_in: left } = await session()
    expect([authenticated, Number(left)]).toEqual([
      true,
      expect.toSatisfy((is: number) => is <= most && is >= most - 5),
    ])
    await signOut()
  })

  const refused = vectors.expires_in.filter(({ expect: outcome }) => outcome === 'reject').map(({ json }) => json)
  test.each([...refused, '"3600abc"', '""', '" 12 "', 'true', '{}', '1e10'])('%s: reject', async (json) => {
    stack.authorizationServer.plan(
      'token',
      faults.rewritten((text) => text.replace(/"expires_in":\d+/, `"expires_in":${json}`)),
    )
    expectErrorPage(await signIn(tab), 502, 'authorization_server_invalid')
  })

  test('left out: five minutes', async () => {
    stack.authorizationServer.plan('token', faults.changed({ expires_in: undefined }))
    await signIn(tab)
    expect(Number((await session())['access_token_expires_in'])).toBeGreaterThan(290)
    await signOut()
  })
})
