import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  startAuthorizationServer,
  type AuthorizationServer,
  type AuthorizationServerEvent,
} from '../../infra/local/demo/authorization-server.ts'
import { listen } from '../../infra/local/edge.ts'
import { createBrowser, type Browser, type Page } from '../support/user-agent.ts'
import { registerClient, signInAndRedeem, type DemoClient } from './demo-client.ts'

const resource = 'https://resource.example'
const events: AuthorizationServerEvent[] = []
let server: AuthorizationServer
let client: DemoClient

beforeAll(async () => {
  server = await startAuthorizationServer({
    port: 0,
    resource,
    accessTokenSeconds: 120,
    onEvent: (e) => events.push(e),
  })
  client = await registerClient(server.issuer)
})

afterAll(async () => {
  client.close()
  await server.close()
})

const browser = () => createBrowser({ origin: client.home })
const parametersOf = (page: Page) => Object.fromEntries(new URL(page.url).searchParams)

test('its metadata offers what the demo needs and nothing that it does not do', async () => {
  const openid = await fetch(`${server.issuer}/.well-known/openid-configuration`)
  const oauth = await fetch(`${server.issuer}/.well-known/oauth-authorization-server`)
  const metadata = await openid.json()
  expect(await oauth.json()).toEqual(metadata)
  expect(metadata).toMatchObject({
    issuer: server.issuer,
    response_types_supported: ['code'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
    registration_endpoint: `${server.issuer}/reg`,
    revocation_endpoint: `${server.issuer}/token/revocation`,
    end_session_endpoint: `${server.issuer}/session/end`,
  })
  expect(metadata).not.toHaveProperty('pushed_authorization_request_endpoint')
  expect(metadata).not.toHaveProperty('require_pushed_authorization_requests')
})

describe('a login', () => {
  test('takes two plain forms and yields tokens for the resource server, with the profile in the ID token', async () => {
    const tokens = await signInAndRedeem(client)
    expect(tokens).toMatchObject({ token_type: 'Bearer', expires_in: 120, refresh_token: expect.any(String) })
    expect(decodeProtectedHeader(String(tokens['access_token']))).toMatchObject({ typ: 'at+jwt', alg: 'ES256' })
    expect(decodeJwt(String(tokens['access_token']))).toMatchObject({
      iss: server.issuer,
      aud: resource,
      sub: 'ada',
      client_id: client.clientId,
      scope: expect.stringContaining('demo:read'),
    })
    expect(decodeJwt(String(tokens['id_token']))).toMatchObject({
      aud: client.clientId,
      sub: 'ada',
      name: 'Ada Lovelace',
      email: 'ada@example.com',
    })
  })

  test('comes back with the code, the state and the issuer', async () => {
    const tab = browser()
    const consent = await tab.submit(await tab.navigate(client.authorizationUrl()), 'Grace Hopper')
    expect(consent.visible).toContain('You are Grace Hopper')
    expect(parametersOf(await tab.submit(consent, 'Allow'))).toEqual({
      code: expect.any(String),
      state: 'a-state',
      iss: server.issuer,
    })
  })

  test('needs no page the second time, unless the client asks for one', async () => {
    const tab = browser()
    await signInAndRedeem(client, tab)
    expect(parametersOf(await tab.navigate(client.authorizationUrl()))).toHaveProperty('code')
    expect(parametersOf(await tab.navigate(client.authorizationUrl({ prompt: 'none' })))).toHaveProperty('code')
    const again = await tab.navigate(client.authorizationUrl({ prompt: 'login' }))
    expect(again.visible).toContain('Who are you?')
    expect(parametersOf(await tab.submit(again, 'Ada'))).toHaveProperty('code')
  })

  test('of somebody else in the same browser replaces the first user', async () => {
    const tab = browser()
    await signInAndRedeem(client, tab)
    const chooser = await tab.navigate(client.authorizationUrl({ prompt: 'login' }))
    const leaving = await tab.submit(chooser, 'Alan')
    const consent = await tab.submit(leaving)
    expect(consent.visible).toContain('You are Alan Turing')
  })

  test('that was cancelled or denied comes back as access_denied', async () => {
    const tab = browser()
    const cancelled = await tab.submit(await tab.navigate(client.authorizationUrl()), 'Cancel')
    expect(parametersOf(cancelled)).toMatchObject({ error: 'access_denied', state: 'a-state', iss: server.issuer })
    const consent = await tab.submit(await tab.navigate(client.authorizationUrl()), 'Ada')
    expect(parametersOf(await tab.submit(consent, 'Deny'))).toMatchObject({ error: 'access_denied' })
  })

  test('with prompt=none and nobody signed in comes back as login_required', async () => {
    const page = await browser().navigate(client.authorizationUrl({ prompt: 'none' }))
    expect(parametersOf(page)).toMatchObject({ error: 'login_required' })
  })

  test('offers the hinted user first', async () => {
    const page = await browser().navigate(client.authorizationUrl({ login_hint: 'grace@example.com' }))
    expect(page.forms[0]?.buttons.map(({ value }) => value)).toEqual(['grace', 'ada', 'alan', 'yes'])
  })

  test('without PKCE is refused', async () => {
    const url = client.authorizationUrl({ code_challenge: undefined, code_challenge_method: undefined })
    expect(parametersOf(await browser().navigate(url))).toMatchObject({ error: 'invalid_request' })
  })

  test('for another resource is refused', async () => {
    const page = await browser().navigate(client.authorizationUrl({ resource: 'https://other.example' }))
    expect(parametersOf(page)).toMatchObject({ error: 'invalid_target' })
  })

  test('that cannot be sent back ends on a readable page', async () => {
    const page = await browser().navigate(client.authorizationUrl({ redirect_uri: 'https://evil.example/<script>' }))
    expect(page.status).toBe(400)
    expect(page.visible).toContain('This request cannot continue')
    expect(page.visible).toContain('invalid_redirect_uri')
  })

  test('whose interaction is over ends on a page that says so', async () => {
    const page = await browser().navigate(`${server.issuer}/interaction/gone`)
    expect(page.status).toBe(400)
    expect(page.visible).toContain('This sign-in is over')
  })
})

describe('refresh tokens', () => {
  test('rotate; using one twice ends its grant', async () => {
    const first = await signInAndRedeem(client)
    const second = await client.refresh(first['refresh_token'])
    expect(second).toMatchObject({ status: 200, body: { expires_in: 120 } })
    expect(decodeJwt(String(second.body['access_token']))).toMatchObject({ aud: resource })
    expect(await client.refresh(first['refresh_token'])).toMatchObject({
      status: 400,
      body: { error: 'invalid_grant' },
    })
    expect(await client.refresh(second.body['refresh_token'])).toMatchObject({ body: { error: 'invalid_grant' } })
    expect(events).toContainEqual(
      expect.objectContaining({ name: 'grant.error', detail: 'refresh token already used' }),
    )
  })

  test('belong to their own login: revoking one leaves the next one alone', async () => {
    const tab = browser()
    const first = await signInAndRedeem(client, tab)
    const second = (await client.redeem(await tab.navigate(client.authorizationUrl()))).body
    expect(await client.revoke(first['refresh_token'])).toMatchObject({ status: 200 })
    expect(await client.introspect(first['refresh_token'])).toMatchObject({ body: { active: false } })
    expect(await client.refresh(second['refresh_token'])).toMatchObject({ status: 200 })
  })

  test('are not given to a client that may not use them', async () => {
    const without = await registerClient(server.issuer, { grant_types: ['authorization_code'] })
    expect(await signInAndRedeem(without)).not.toHaveProperty('refresh_token')
    without.close()
  })

  test('answer with the same successor for a minute when the server is told so, also where they come at once', async () => {
    const kind = await startAuthorizationServer({ port: 0, resource, refreshTokens: 'grace' })
    const other = await registerClient(kind.issuer)
    const { refresh_token: token } = await signInAndRedeem(other)
    const [first, ...more] = await Promise.all([other.refresh(token), other.refresh(token), other.refresh(token)])
    const again = await other.refresh(token)
    expect(first).toMatchObject({ status: 200, body: { expires_in: 300 } })
    expect(first.body['refresh_token']).not.toBe(token)
    for (const { status, body } of [...more, again]) {
      expect(status).toBe(200)
      expect([body['access_token'], body['refresh_token']]).toEqual([
        first.body['access_token'],
        first.body['refresh_token'],
      ])
    }
    expect(await other.refresh(first.body['refresh_token'])).toMatchObject({ status: 200 })
    const stranger = await registerClient(kind.issuer)
    expect(await stranger.refresh(token), 'another client gets nothing').toMatchObject({
      status: 400,
      body: { error: 'invalid_grant' },
    })
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 })
    expect(await other.refresh(token), 'after a minute').toMatchObject({ body: { error: 'invalid_grant' } })
    vi.useRealTimers()
    for (const { close } of [other, stranger]) close()
    await kind.close()
  })

  test('stay as they are when the server is told so', async () => {
    const lenient = await startAuthorizationServer({ port: 0, resource, refreshTokens: 'reusable' })
    const other = await registerClient(lenient.issuer)
    const { refresh_token: token } = await signInAndRedeem(other)
    expect(await other.refresh(token)).toMatchObject({ status: 200, body: { refresh_token: token } })
    expect(await other.refresh(token)).toMatchObject({ status: 200 })
    other.close()
    await lenient.close()
  })
})

test('signing out asks first, then goes back to the client, and the next login asks who it is', async () => {
  const tab = browser()
  const { id_token: idToken } = await signInAndRedeem(client, tab)
  const query = new URLSearchParams({ id_token_hint: String(idToken), post_logout_redirect_uri: `${client.home}/` })
  const question = await tab.navigate(`${server.issuer}/session/end?${query.toString()}`)
  expect(question.visible).toContain('Sign out?')
  expect((await tab.submit(question, 'Sign out')).url).toBe(`${client.home}/`)
  expect((await tab.navigate(client.authorizationUrl())).visible).toContain('Who are you?')
})

describe('back-channel logout', () => {
  const listening = async (status: number) => {
    const bodies: string[] = []
    const { port, close } = await listen((request, response) => {
      request.on('data', (chunk: Buffer) => bodies.push(chunk.toString()))
      request.on('end', () => response.writeHead(status).end())
    }, 0)
    return { uri: `http://localhost:${port}/logout`, bodies, close }
  }
  const signOut = async (tab: Browser, idToken: unknown) => {
    const query = new URLSearchParams({ id_token_hint: String(idToken) })
    await tab.submit(await tab.navigate(`${server.issuer}/session/end?${query.toString()}`), 'Sign out')
  }

  test('tells the client, on loopback too, whose session ended', async () => {
    const receiver = await listening(200)
    const other = await registerClient(server.issuer, {
      backchannel_logout_uri: receiver.uri,
      backchannel_logout_session_required: true,
    })
    const tab = browser()
    const { id_token: idToken } = await signInAndRedeem(other, tab)
    await signOut(tab, idToken)
    expect(receiver.bodies).toHaveLength(1)
    const token = new URLSearchParams(receiver.bodies[0]).get('logout_token') ?? ''
    expect(decodeProtectedHeader(token)).toMatchObject({ typ: 'logout+jwt', alg: 'RS256' })
    expect(decodeJwt(token)).toMatchObject({
      iss: server.issuer,
      aud: other.clientId,
      sub: 'ada',
      sid: decodeJwt(String(idToken))['sid'],
    })
    other.close()
    await receiver.close()
  })

  test('that the client does not take is reported, and the user is signed out all the same', async () => {
    const receiver = await listening(503)
    const other = await registerClient(server.issuer, { backchannel_logout_uri: receiver.uri })
    const tab = browser()
    const { id_token: idToken } = await signInAndRedeem(other, tab)
    await signOut(tab, idToken)
    expect(events).toContainEqual(expect.objectContaining({ name: 'backchannel.error' }))
    expect((await tab.navigate(other.authorizationUrl())).visible).toContain('Who are you?')
    other.close()
    await receiver.close()
  })
})

test('registrations are managed by their clients', async () => {
  const other = await registerClient(server.issuer)
  const { registration_client_uri: uri, registration_access_token: token } = other.registration
  const headers = { authorization: `Bearer ${String(token)}` }
  expect(await (await fetch(String(uri), { headers })).json()).toMatchObject({ client_id: other.clientId })
  expect((await fetch(String(uri), { headers, method: 'DELETE' })).status).toBe(204)
  expect((await fetch(String(uri), { headers })).status).toBe(401)
  other.close()
})

test('registration wants the initial access token where there is one', async () => {
  const closed = await startAuthorizationServer({ port: 0, resource, initialAccessToken: 'let-me-in' })
  const register = (headers: Record<string, string>) =>
    fetch(`${closed.issuer}/reg`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ redirect_uris: ['https://client.example/callback'] }),
    })
  expect((await register({})).status).toBe(401)
  expect((await register({ authorization: 'Bearer let-me-in' })).status).toBe(201)
  await closed.close()
})

test('a taken port is an error', async () => {
  const port = Number(new URL(server.issuer).port)
  await expect(startAuthorizationServer({ port, resource })).rejects.toMatchObject({ code: 'EADDRINUSE' })
})
