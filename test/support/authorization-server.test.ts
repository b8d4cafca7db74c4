import * as oauth from 'oauth4webapi'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from './authorization-server.ts'
import { lost, refused, sentBackWith, webPage } from './faults.ts'

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
