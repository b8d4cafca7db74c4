import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../../infra/local/demo/authorization-server.ts'
import { startResourceServer, type ResourceServer } from '../../infra/local/demo/resource-server.ts'
import { exchange } from '../support/http.ts'
import { registerClient, signInAndRedeem, type DemoClient } from './demo-client.ts'

const audience = 'https://resource.example'
let authorizationServer: AuthorizationServer
let server: ResourceServer
let client: DemoClient
let token: string

beforeAll(async () => {
  authorizationServer = await startAuthorizationServer({ port: 0, resource: audience })
  server = await startResourceServer({ port: 0, issuer: authorizationServer.issuer, audience })
  client = await registerClient(authorizationServer.issuer)
  token = String((await signInAndRedeem(client))['access_token'])
})

afterAll(async () => {
  client.close()
  await Promise.all([server.close(), authorizationServer.close()])
})

const call = (path: string, init: { method?: string; body?: string | Uint8Array; token?: string } = {}) =>
  exchange({
    origin: server.url,
    method: init.method ?? 'GET',
    path,
    headers: [['Authorization', `Bearer ${init.token ?? token}`]],
    body: init.body,
  })

test('whoami tells the subject, the scopes and the expiry of the token', async () => {
  const reply = await call('/whoami')
  expect(reply.json()).toEqual({
    subject: 'ada',
    scopes: expect.arrayContaining(['openid', 'demo:read']),
    expires_at: expect.stringMatching(/^\d{4}-.*Z$/),
    expires_in_seconds: expect.any(Number),
    issuer: authorizationServer.issuer,
    token: 'jwt',
  })
})

describe('echo', () => {
  test('shows what arrived, and of the token only its length and the start of its hash', async () => {
    const reply = await call('/echo/a%20b/./c?x=1&x=%2F&y', { method: 'POST', body: '{"grüße":true}' })
    const hash = createHash('sha256').update(token).digest('hex').slice(0, 12)
    expect(reply.json()).toMatchObject({
      method: 'POST',
      path: '/echo/a%20b/./c',
      query: {
        raw: 'x=1&x=%2F&y',
        parsed: [
          ['x', '1'],
          ['x', '/'],
          ['y', ''],
        ],
      },
      headers: { authorization: `Bearer [redacted ${token.length} characters, sha256 ${hash}]` },
      body: '{"grüße":true}',
      body_bytes: 16,
    })
    expect(reply.text).not.toContain(token.slice(0, 40))
  })

  test('shows bytes that are no text in base64', async () => {
    const reply = await call('/echo', { method: 'PUT', body: Uint8Array.of(0xff, 0, 0xfe) })
    expect(reply.json()).toMatchObject({ method: 'PUT', body: null, body_base64: '/wD+', body_bytes: 3 })
  })
})

test.each([
  [200, '{"status":200}', {}],
  [204, '', {}],
  [302, '{"status":302}', { location: '/whoami' }],
  [304, '', {}],
  [401, '{"status":401}', { 'www-authenticate': 'Bearer error="invalid_token"' }],
  [503, '{"status":503}', { 'retry-after': '1' }],
  [599, '{"status":599}', {}],
])('status %i is answered as asked', async (code, text, headers) => {
  expect(await call(`/status/${code}`)).toMatchObject({ status: code, text, headers })
})

test.each(['100', '600', '42', 'abc', '200/1', ''])('status %j is 400', async (code) => {
  expect((await call(`/status/${code}`)).status).toBe(400)
})

test('its other routes misbehave as told', async () => {
  expect((await call('/bytes?n=300')).bytes).toEqual(Buffer.from(Uint8Array.from({ length: 300 }, (_, i) => i % 256)))
  expect((await call('/cookies')).setCookies).toHaveLength(2)
  expect((await call('/redirect?to=https://other.example/')).headers['location']).toBe('https://other.example/')
  expect((await call('/slow?ms=1')).json()).toEqual({ waited_ms: 1 })
  expect((await call('/nothing')).status).toBe(404)
  expect((await call('/whoami', { method: 'DELETE' })).status).toBe(405)
})

describe('a token is refused', () => {
  const refused = async (reply: Promise<{ status: number; headers: Record<string, string> }>) => {
    const { status, headers } = await reply
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toMatch(/^Bearer realm=/)
    return headers['www-authenticate']
  }

  test('when it is missing', async () => {
    const reply = exchange({ origin: server.url, method: 'GET', path: '/whoami', headers: [] })
    expect(await refused(reply)).not.toContain('error')
  })

  test('when it is garbage, or its signature is another one', async () => {
    expect(await refused(call('/echo', { token: 'garbage' }))).toContain('error="invalid_token"')
    const forged = `${token.slice(0, token.lastIndexOf('.'))}.${Buffer.alloc(64).toString('base64url')}`
    expect(await refused(call('/echo', { token: forged }))).toContain('error="invalid_token"')
  })

  test('when it is an ID token', async () => {
    const { id_token: idToken } = await signInAndRedeem(client)
    await refused(call('/whoami', { token: String(idToken) }))
  })

  test('when it is for another resource', async () => {
    const other = await startResourceServer({ port: 0, issuer: authorizationServer.issuer })
    const headers: [string, string][] = [['Authorization', `Bearer ${token}`]]
    await refused(exchange({ origin: other.url, method: 'GET', path: '/whoami', headers }))
    await other.close()
  })
})

test('a token for another resource is taken where any will do, if the issuer signed it', async () => {
  const trusting = await startResourceServer({ port: 0, issuer: authorizationServer.issuer, audience: 'any' })
  const whoami = (bearer: string) =>
    exchange({
      origin: trusting.url,
      method: 'GET',
      path: '/whoami',
      headers: [['Authorization', `Bearer ${bearer}`]],
    })
  expect((await whoami(token)).json()).toMatchObject({ subject: 'ada', token: 'jwt' })
  expect((await whoami(`${token.slice(0, -8)}AAAAAAAA`)).status).toBe(401)
  await trusting.close()
})

test('an opaque token of an authorization server elsewhere is checked at its UserInfo endpoint', async () => {
  const foreign = createServer((request, response) => {
    const issuer = `http://${String(request.headers.host)}`
    const known = request.headers.authorization === 'Bearer opaque-token'
    if (request.url === '/.well-known/openid-configuration') {
      response.end(JSON.stringify({ issuer, jwks_uri: `${issuer}/jwks`, userinfo_endpoint: `${issuer}/userinfo` }))
    } else response.writeHead(known ? 200 : 401).end(JSON.stringify({ sub: 'someone' }))
  }).listen(0, '127.0.0.1')
  await once(foreign, 'listening')
  const address = foreign.address()
  const issuer = `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
  const other = await startResourceServer({ port: 0, issuer })
  const whoami = (value: string) =>
    exchange({ origin: other.url, method: 'GET', path: '/whoami', headers: [['Authorization', `Bearer ${value}`]] })
  expect((await whoami('opaque-token')).json()).toEqual({
    subject: 'someone',
    scopes: null,
    expires_at: null,
    expires_in_seconds: null,
    issuer,
    token: 'opaque',
  })
  expect((await whoami('another')).status).toBe(401)
  foreign.closeAllConnections()
  foreign.close()
  expect((await whoami('opaque-token')).status).toBe(503)
  await other.close()
})
