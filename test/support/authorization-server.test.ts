import { randomUUID } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT, type CryptoKey, type JWK, type JWTPayload } from 'jose'
import * as oauth from 'oauth4webapi'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from './authorization-server.ts'
import { lost, refused, sentBackWith, webPage } from './faults.ts'
import { json, startRecordingServer } from './server.ts'

const insecure = { [oauth.allowInsecureRequests]: true }
const redirectUri = 'http://localhost:8080/bff/callback/demo'
const resource = 'https://api.example'
const verifier = 'v'.repeat(128)
const state = 's'.repeat(43)
const nonce = 'n'.repeat(43)

let server: StrictAuthorizationServer
let metadata: oauth.AuthorizationServer
let client: oauth.Client
let basic: oauth.ClientAuth

beforeAll(async () => {
  server = await startStrictAuthorizationServer({ resources: [resource], par: true })
  const issuer = new URL(server.issuer)
  metadata = await oauth.processDiscoveryResponse(
    issuer,
    await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
  )
  const asked = { redirect_uris: [redirectUri], grant_types: ['authorization_code', 'refresh_token'] }
  const reply = await oauth.dynamicClientRegistrationRequest(metadata, asked, insecure)
  const registered = await oauth.processDynamicClientRegistrationResponse(reply)
  client = { client_id: registered.client_id }
  basic = oauth.ClientSecretBasic(server.clients()[0]?.client_secret ?? '')
})

afterAll(() => server.close())

const authorizationUrl = async (change: Record<string, string | undefined> = {}): Promise<string> => {
  const url = new URL(String(metadata.authorization_endpoint))
  const good = {
    response_type: 'code',
    client_id: client.client_id,
    redirect_uri: redirectUri,
    scope: 'openid read',
    state,
    nonce,
    resource,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    ...change,
  }
  for (const [name, value] of Object.entries(good)) if (value !== undefined) url.searchParams.set(name, value)
  return url.href
}

const visit = async (url: string) => {
  const reply = await fetch(url, { redirect: 'manual' })
  return { status: reply.status, back: new URL(reply.headers.get('location') ?? 'about:blank'), reply }
}

const redeem = async (back: URL, changes: Record<string, string> = {}) => {
  const parameters = oauth.validateAuthResponse(metadata, client, back, state)
  const additionalParameters = { resource, ...changes }
  const uri = changes['redirect_uri'] ?? redirectUri
  return oauth.authorizationCodeGrantRequest(metadata, client, basic, parameters, uri, verifier, {
    ...insecure,
    additionalParameters,
  })
}

const signIn = async () => {
  const reply = await redeem((await visit(await authorizationUrl())).back)
  return oauth.processAuthorizationCodeResponse(metadata, client, reply, { expectedNonce: nonce })
}

const renew = (refreshToken: string) =>
  oauth.refreshTokenGrantRequest(metadata, client, basic, refreshToken, {
    ...insecure,
    additionalParameters: { resource },
  })

const membersOf = async (reply: Response): Promise<Record<string, unknown>> => JSON.parse(await reply.text())
const errorOf = async (reply: Response) => (await membersOf(reply))['error']

describe('the strict authorization server', () => {
  test('lets a right client through every step', async () => {
    const tokens = await signIn()
    expect(oauth.getValidatedIdTokenClaims(tokens)).toMatchObject({ sub: 'ada', name: 'Ada', nonce })
    const renewed = await oauth.processRefreshTokenResponse(metadata, client, await renew(String(tokens.refresh_token)))
    const info = await oauth.userInfoRequest(metadata, client, renewed.access_token, insecure)
    expect(await info.json()).toMatchObject({ sub: 'ada' })
    await oauth.revocationRequest(metadata, client, basic, String(renewed.refresh_token), insecure)
    expect(server.grants.at(-1)).toMatchObject({ live: false, renewals: 1 })
    expect(server.secrets).toContain(tokens.access_token)
  })

  test.each([
    ['an unknown parameter', { surprise: '1' }, 400],
    ['an empty parameter', { prompt: '' }, 400],
    ['another redirect URI', { redirect_uri: `${redirectUri}/` }, 400],
    ['an unknown client', { client_id: 'nobody' }, 400],
    ['no S256 challenge', { code_challenge: undefined }, 302],
    ['the plain method', { code_challenge_method: 'plain' }, 302],
    ['no state', { state: undefined }, 302],
    ['no nonce', { nonce: undefined }, 302],
    ['no resource', { resource: undefined }, 302],
    ['another scope', { scope: 'openid admin' }, 302],
  ])('refuses an authorization request with %s', async (_, change, status) => {
    const answer = await visit(await authorizationUrl(change))
    expect(answer.status).toBe(status)
    expect(answer.back.searchParams.has('error')).toBe(status === 302)
    expect(answer.back.searchParams.has('code')).toBe(false)
  })

  test('refuses a parameter that stands twice', async () => {
    expect((await visit(`${await authorizationUrl()}&state=${state}`)).status).toBe(400)
  })

  test('takes a pushed request once, and nothing beside it', async () => {
    const parameters = new URL(await authorizationUrl()).searchParams
    parameters.delete('client_id')
    const reply = await oauth.pushedAuthorizationRequest(metadata, client, basic, parameters, insecure)
    const { request_uri: uri } = await oauth.processPushedAuthorizationResponse(metadata, client, reply)
    const query = new URLSearchParams({ client_id: client.client_id, request_uri: uri })
    const target = `${String(metadata.authorization_endpoint)}?${query.toString()}`
    expect((await visit(`${target}&scope=read`)).status).toBe(400)
    expect((await visit(target)).back.searchParams.has('code')).toBe(true)
    expect((await visit(target)).status).toBe(400)
  })

  test('ends the grant when a code comes again', async () => {
    const { back } = await visit(await authorizationUrl())
    expect((await redeem(back)).status).toBe(200)
    expect(await errorOf(await redeem(back))).toBe('invalid_grant')
    expect(server.grants.at(-1)?.live).toBe(false)
  })

  test('refuses a code with another redirect URI or another resource', async () => {
    const first = await visit(await authorizationUrl())
    expect(await errorOf(await redeem(first.back, { redirect_uri: 'https://evil.example/' }))).toBe('invalid_grant')
    const second = await visit(await authorizationUrl())
    expect(await errorOf(await redeem(second.back, { resource: 'https://other.example' }))).toBe('invalid_target')
  })

  test('ends the grant when a refresh token comes again', async () => {
    const { refresh_token: first = '' } = await signIn()
    const { refresh_token: second } = await membersOf(await renew(first))
    expect(await errorOf(await renew(first))).toBe('invalid_grant')
    expect(await errorOf(await renew(String(second)))).toBe('invalid_grant')
  })

  test('takes credentials only as registered and only form-encoded', async () => {
    const secret = server.clients()[0]?.client_secret ?? ''
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: 'x', resource })
    const url = String(metadata.token_endpoint)
    const plain = Buffer.from(`${client.client_id}:${secret}`).toString('base64')
    const unencoded = await fetch(url, { method: 'POST', body, headers: { Authorization: `Basic ${plain}` } })
    expect([unencoded.status, await errorOf(unencoded)]).toEqual([401, 'invalid_client'])
    body.set('client_id', client.client_id)
    body.set('client_secret', secret)
    expect(await errorOf(await fetch(url, { method: 'POST', body }))).toBe('invalid_client')
  })

  test('manages a registration with its token, which changes at every update', async () => {
    const [registered] = server.clients()
    if (!registered) throw new Error('no client')
    const uri = String(registered['registration_client_uri'])
    const call = (method: string, token: string, members?: object) =>
      fetch(uri, {
        method,
        headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
        ...(members && { body: JSON.stringify(members) }),
      })
    const { registration_access_token: token, client_id, redirect_uris, grant_types } = registered
    expect((await call('GET', 'wrong')).status).toBe(401)
    expect((await call('PUT', token, registered)).status).toBe(400)
    const updated = await call('PUT', token, { client_id, redirect_uris, grant_types, client_name: 'New' })
    expect(await membersOf(updated)).toMatchObject({ client_name: 'New', client_secret: registered.client_secret })
    expect((await call('GET', token)).status).toBe(401)
  })

  test('meets planned faults one request at a time, and knows those that were not met', async () => {
    server.plan('authorize', sentBackWith('access_denied'))
    server.plan('token', lost, refused('invalid_grant'))
    expect((await visit(await authorizationUrl())).back.searchParams.get('error')).toBe('access_denied')
    const { back } = await visit(await authorizationUrl())
    await expect(redeem(back)).rejects.toThrow('fetch failed')
    expect(server.grants.at(-1)).toMatchObject({ live: true })
    expect(server.unmet()).toEqual(['token'])
    expect(await errorOf(await redeem(back))).toBe('invalid_grant')
    server.always('metadata', webPage())
    expect((await fetch(`${server.issuer}/.well-known/openid-configuration`)).headers.get('content-type')).toBe(
      'text/html',
    )
    server.always('metadata', undefined)
    expect(server.unmet()).toEqual([])
  })

  test.each(['none', 'HS256', 'another key', 'unknown kid', 'tampered'] as const)(
    'makes an ID token that a right client refuses: %s',
    async (as) => {
      server.settings.idToken = { as }
      const reply = await redeem((await visit(await authorizationUrl())).back)
      server.settings.idToken = {}
      const check = async () => {
        await oauth.processAuthorizationCodeResponse(metadata, client, reply, { expectedNonce: nonce })
        await oauth.validateApplicationLevelSignature(metadata, reply, insecure)
      }
      await expect(check()).rejects.toThrow(/JWT|signature|algorithm|key|JWS/i)
    },
  )
})

describe('a client that signs who it is', () => {
  const sets = { calls: 0 }
  let signing: StrictAuthorizationServer
  let publisher: Awaited<ReturnType<typeof startRecordingServer>>
  let id = ''
  let key: CryptoKey
  let published: JWK[] = []

  const newKey = async (kid: string): Promise<CryptoKey> => {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    published = [...published, { ...(await exportJWK(publicKey)), kid, alg: 'ES256' }]
    return privateKey
  }
  const algorithm = { token_endpoint_auth_signing_alg: 'ES256' }
  const register = (more: object) =>
    fetch(`${signing.issuer}/register`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ redirect_uris: [redirectUri], token_endpoint_auth_method: 'private_key_jwt', ...more }),
    })
  beforeAll(async () => {
    signing = await startStrictAuthorizationServer({ authMethods: ['private_key_jwt'] })
    key = await newKey('k1')
    publisher = await startRecordingServer(
      () => 'keys',
      () => {
        sets.calls += 1
        return json(200, { keys: published })
      },
    )
    const registered = await membersOf(await register({ jwks_uri: publisher.url, ...algorithm }))
    id = String(registered['client_id'])
  })
  afterAll(async () => {
    await signing.close()
    await publisher.close()
  })

  const claimsOf = (change: Record<string, unknown>): JWTPayload => {
    const iat = Math.floor(Date.now() / 1_000)
    return { iss: id, sub: id, aud: signing.issuer, jti: randomUUID(), iat, exp: iat + 60, ...change }
  }
  const assertionOf = (
    change: Record<string, unknown> = {},
    header: { alg: string; kid: string } = { alg: 'ES256', kid: 'k1' },
  ) => new SignJWT(claimsOf(change)).setProtectedHeader(header).sign(key)
  /** What the server says to a code that nobody was given: a client that it believes hears of the code. */
  const present = async (
    assertion: string,
    change: Record<string, string> = {},
    headers: Record<string, string> = {},
  ) => {
    const body = new URLSearchParams({
      grant_type: 'authorization_code',
      code: 'none',
      redirect_uri: redirectUri,
      code_verifier: verifier,
      client_id: id,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
      ...change,
    })
    return await errorOf(await fetch(`${signing.issuer}/token`, { method: 'POST', body, headers }))
  }

  test('registers only with where its keys are and how it signs, and gets no secret', async () => {
    expect((await register(algorithm)).status).toBe(400)
    expect((await register({ jwks_uri: publisher.url })).status).toBe(400)
    expect(signing.clients().map((known) => [known.client_id, known.client_secret])).toEqual([[id, undefined]])
  })

  test('is believed, once for each assertion', async () => {
    const assertion = await assertionOf()
    expect([await present(assertion), await present(assertion)]).toEqual(['invalid_grant', 'invalid_client'])
  })

  test.each<[string, Record<string, unknown>]>([
    ['of another issuer', { iss: 'c:other' }],
    ['of another subject', { sub: 'c:other' }],
    ['for another audience', { aud: 'https://other.example' }],
    ['for several audiences', { aud: ['https://other.example', 'https://as.example'] }],
    ['that has ended', { exp: 1 }],
    ['without an end', { exp: undefined }],
    ['that does not end for long', { exp: 9_999_999_999 }],
    ['without an id', { jti: undefined }],
  ])('is not believed with an assertion %s', async (_, change) => {
    expect(await present(await assertionOf(change))).toBe('invalid_client')
  })

  test('is not believed with another algorithm, signature, type, or with two proofs', async () => {
    const none = new UnsecuredJWT(claimsOf({})).encode()
    const mac = await new SignJWT(claimsOf({})).setProtectedHeader({ alg: 'HS256', kid: 'k1' }).sign(new Uint8Array(32))
    const [head = '', body = '', signature = ''] = (await assertionOf()).split('.')
    const forged = `${head}.${body}.${signature.replace(/^./, (first) => (first === 'A' ? 'B' : 'A'))}`
    const said = [
      await present(none),
      await present(mac),
      await present(forged),
      await present('no assertion'),
      await present(await assertionOf(), { client_assertion_type: 'urn:other' }),
      await present(await assertionOf(), { client_secret: 'x' }),
      await present(await assertionOf(), {}, { Authorization: `Basic ${Buffer.from('a:b').toString('base64')}` }),
    ]
    expect(said).toEqual(said.map(() => 'invalid_client'))
  })

  test('is not believed with a key that is not in the set that the server keeps, however new', async () => {
    const before = sets.calls
    key = await newKey('k2')
    const header = { alg: 'ES256', kid: 'k2' }
    expect(await present(await assertionOf({}, header))).toBe('invalid_client')
    expect(sets.calls).toBe(before)
    signing.keySets.forget()
    expect(await present(await assertionOf({}, header))).toBe('invalid_grant')
    expect(signing.keySets.fetched).toEqual([['k1'], ['k1', 'k2']])
  })
})
