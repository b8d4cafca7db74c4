import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { registerAtCoder } from './coder-client.ts'
import { startCoderServer, type CoderServer } from './coder-server.ts'
import { createBrowser } from './user-agent.ts'

type Client = Awaited<ReturnType<typeof registerAtCoder>>

const eras = ['2.31', '2.34', '2.37', '2.38'] as const
const servers = new Map<string, { server: CoderServer; client: Client }>()

beforeAll(async () => {
  for (const era of eras) {
    const server = await startCoderServer({ era })
    servers.set(era, { server, client: await registerAtCoder(server) })
  }
})

afterAll(() => Promise.all([...servers.values()].map(({ server }) => server.close())))

const at = (era: string): { server: CoderServer; client: Client } => {
  const found = servers.get(era)
  if (!found) throw new Error(`no server of era ${era}`)
  return found
}

describe.each(eras)('in era %s', (era) => {
  test('the second code of a user and client deletes the pair of the first, and no other', async () => {
    const { client, server } = at(era)
    const other = await registerAtCoder(server)
    const [first, grace, elsewhere] = await Promise.all([
      client.redeem('ada'),
      client.redeem('grace'),
      other.redeem('ada'),
    ])
    const second = await client.redeem('ada')
    const pairs = [first, grace, elsewhere, second].map((reply) => reply.json())
    const statuses = await Promise.all(pairs.map(async (pair) => (await client.whoami(pair['access_token'])).status))
    expect(statuses).toEqual([401, 200, 200, 200])
    expect((await client.refresh(pairs[0]?.['refresh_token'])).json()).toMatchObject({ error: 'invalid_grant' })
  })

  test('tokens are opaque and of the forms that Coder has, and no ID token comes', async () => {
    const reply = (await at(era).client.redeem('ada')).json()
    expect(reply).toMatchObject({
      access_token: expect.stringMatching(/^\w{10}-\w{22}$/),
      refresh_token: expect.stringMatching(/^coder_\w{10}_\w{40}$/),
      token_type: 'Bearer',
      expires_in: 86_400,
    })
    expect(Object.keys(reply)).not.toContain('id_token')
    expect('scope' in reply).toBe(era === '2.38')
  })

  test('registration never tells when the secret ends', async () => {
    const { registered } = at(era).client
    expect(registered.json()).toMatchObject({ client_secret: expect.stringMatching(/^coder_\w{10}_\w{40}$/) })
    expect(registered.json()).not.toHaveProperty('client_secret_expires_at')
  })

  test('unknown parameters are refused before 2.38, repeated ones always', async () => {
    const { client } = at(era)
    const strict = era !== '2.38'
    const unknown = await client.consent('ada', client.authorizationPath({ nonce: 'n' }))
    expect(unknown.reply.status).toBe(strict ? 400 : 302)
    expect((await client.redeem('ada', { audience: 'a' })).status).toBe(strict ? 400 : 200)
    const twice = await client.consent('ada', `${client.authorizationPath()}&state=again`)
    expect([twice.reply.status, twice.back.get('error')]).toEqual(strict ? [400, null] : [302, 'invalid_request'])
    const repeated = await client.form('/oauth2/tokens', [
      ['grant_type', 'refresh_token'],
      ['client_id', client.credentials.client_id],
      ['client_secret', client.credentials.client_secret],
      ['refresh_token', 'a'],
      ['refresh_token', 'b'],
    ])
    expect(repeated.status).toBe(400)
  })

  test('unknown paths are a web page with status 200', async () => {
    for (const path of ['/.well-known/openid-configuration', '/.well-known/security.txt', '/workspaces']) {
      const reply = await at(era).client.call(path)
      expect([reply.status, reply.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8'])
    }
    const metadata = (await at(era).client.call('/.well-known/oauth-authorization-server/some/path')).json()
    expect(metadata).toMatchObject({ issuer: at(era).server.issuer })
    for (const name of ['jwks_uri', 'userinfo_endpoint', 'end_session_endpoint', 'introspection_endpoint'])
      expect(metadata).not.toHaveProperty(name)
  })

  test('a refresh kills the old pair at once and leaves no trace of it', async () => {
    const { client } = at(era)
    const old = (await client.redeem('ada')).json()
    const fresh = (await client.refresh(old['refresh_token'])).json()
    expect((await client.whoami(old['access_token'])).status).toBe(401)
    expect((await client.refresh(old['refresh_token'])).json()).toMatchObject({ error: 'invalid_grant' })
    expect((await client.whoami(fresh['access_token'])).status, 'a replay ends nothing').toBe(200)
  })

  test('who loses a refresh race gets a 500 that is not OAuth, from 2.38 on invalid_grant', async () => {
    const { client, server } = at(era)
    const old = (await client.redeem('lin')).json()
    const both = Promise.withResolvers<void>()
    let arrived = 0
    server.settings.beforeWrite = () => {
      arrived += 1
      if (arrived === 2) both.resolve()
      return both.promise
    }
    const replies = await Promise.all([client.refresh(old['refresh_token']), client.refresh(old['refresh_token'])])
    server.settings.beforeWrite = undefined
    const lost = replies.filter(({ status }) => status !== 200)
    expect(lost).toHaveLength(1)
    const expected = era === '2.38' ? { error: 'invalid_grant' } : { message: 'Failed to exchange token' }
    expect([lost[0]?.status, lost[0]?.json()]).toEqual([era === '2.38' ? 400 : 500, expect.objectContaining(expected)])
  })

  test('refresh and revocation need the secret from 2.38 on only', async () => {
    const { client } = at(era)
    const { refresh_token: token } = (await client.redeem('ada')).json()
    const refreshed = await client.refresh(token, { client_secret: undefined })
    expect(refreshed.status).toBe(era === '2.38' ? 401 : 200)
    const live = refreshed.status === 200 ? refreshed.json() : (await client.redeem('ada')).json()
    expect((await client.revoke(live['refresh_token'], { client_secret: undefined })).status).toBe(
      era === '2.38' ? 401 : 200,
    )
  })

  test('revoking either token ends the pair; another of the right form is no error', async () => {
    const { client } = at(era)
    for (const name of ['access_token', 'refresh_token']) {
      const pair = (await client.redeem('ada')).json()
      const reply = await client.revoke(pair[name])
      expect([reply.status, reply.text]).toEqual([200, ''])
      expect((await client.whoami(pair['access_token'])).status).toBe(401)
      expect((await client.refresh(pair['refresh_token'])).status).toBe(400)
      expect((await client.revoke(pair[name])).status).toBe(200)
    }
    expect((await client.revoke('something')).status).toBe(400)
  })

  test('a cookie, a query parameter and a header of its own come before the bearer token', async () => {
    const { client, server } = at(era)
    const { access_token: token } = (await client.redeem('ada')).json()
    const bearer: [string, string] = ['Authorization', `Bearer ${String(token)}`]
    const grace = server.sessionOf('grace')
    const names = await Promise.all([
      client.call('/api/v2/users/me', [bearer]),
      client.call('/api/v2/users/me', [bearer, ['Cookie', `a=b; coder_session_token=${grace}`]]),
      client.call(`/api/v2/users/me?coder_session_token=${grace}`, [bearer]),
      client.call('/api/v2/users/me', [bearer, ['Coder-Session-Token', grace]]),
      client.call(`/api/v2/users/me?access_token=${grace}`, [bearer]),
      client.call(`/api/v2/users/me?access_token=${grace}`),
    ])
    expect(names.map((reply) => reply.json()['username'])).toEqual(['ada', 'grace', 'grace', 'grace', 'ada', 'grace'])
  })

  test('the API says who called, 401 with a challenge otherwise, and its version to everybody', async () => {
    const { client, server } = at(era)
    const refused = await client.whoami('A'.repeat(10) + '-' + 'A'.repeat(22))
    expect([refused.status, refused.json()]).toEqual([
      401,
      { message: expect.stringContaining('signed out'), detail: 'API key is invalid.' },
    ])
    expect(refused.headers['www-authenticate']).toMatch(/^Bearer realm="coder", error="invalid_token".*resource_meta/)
    expect((await client.call('/api/v2/users/me')).json()).toMatchObject({ detail: expect.stringMatching(/^Cookie /) })
    expect((await client.call('/api/v2/buildinfo')).json()).toMatchObject({
      version: expect.stringContaining(`v${era}`),
    })
    expect(refused.headers['x-coder-build-version']).toContain(`v${era}`)
    server.expireAccessTokens()
  })
})

describe('how eras differ at the token endpoint', () => {
  test('HTTP Basic is unknown before 2.32 and not percent-decoded after', async () => {
    const basicOf = (
      { credentials: { client_id: id, client_secret: secret } }: Client,
      encode: (t: string) => string,
    ) => ['Authorization', `Basic ${btoa(`${encode(id)}:${encode(secret)}`)}`] as [string, string]
    const plain = (text: string) => text
    const percent = (text: string) => text.replaceAll('-', '%2D').replaceAll('_', '%5F')
    const refresh = { grant_type: 'refresh_token', refresh_token: 'coder_a' }
    for (const [era, encode, status, error] of [
      ['2.31', plain, 400, 'invalid_request'],
      ['2.34', plain, 400, 'invalid_grant'],
      ['2.34', percent, 401, 'invalid_client'],
      ['2.38', plain, 400, 'invalid_grant'],
      ['2.38', percent, 401, 'invalid_client'],
    ] as const) {
      const { client } = at(era)
      const reply = await client.form('/oauth2/tokens', refresh, [basicOf(client, encode)])
      expect([era, reply.status, reply.json()['error']]).toEqual([era, status, error])
    }
  })

  test('a code is redeemed once, with its redirect URI and its verifier', async () => {
    const { client } = at('2.37')
    for (const change of [{ redirect_uri: undefined }, { code_verifier: 'w'.repeat(128) }, { code: 'coder_unknown' }])
      expect((await client.redeem('ada', change)).json()).toMatchObject({ error: 'invalid_grant' })
    expect((await client.redeem('ada', { client_secret: 'wrong' })).status).toBe(401)
    const { back } = await client.consent('ada')
    await client.consent('ada')
    expect((await client.redeem('ada', { code: back.get('code') ?? '' })).json(), 'a later consent').toMatchObject({
      error: 'invalid_grant',
    })
  })

  test('a resource is sent the same twice, and has to be the deployment', async () => {
    const { client } = at('2.37')
    const path = client.authorizationPath({ resource: 'https://api.example' })
    const code = async () => (await client.consent('ada', path)).back.get('code') ?? ''
    expect((await client.redeem('ada', { code: await code() })).json()).toMatchObject({ error: 'invalid_target' })
    const reply = await client.redeem('ada', { code: await code(), resource: 'https://api.example' })
    expect((await client.whoami(reply.json()['access_token'])).status).toBe(403)
  })
})

describe('how eras differ at the authorization endpoint', () => {
  const first = 'http://localhost:8080/bff/callback/coder'
  const below = `${first}/below`
  const second = 'http://localhost:8080/second'

  test.each([
    ['2.31', below, true],
    ['2.34', below, false],
    ['2.37', second, false],
    ['2.38', second, true],
  ])('in %s the redirect URI %s works: %s', async (era, uri, works) => {
    const client = await registerAtCoder(at(era).server, {
      redirect_uris: [first, second],
    })
    const { reply } = await client.consent('ada', client.authorizationPath({ redirect_uri: uri }))
    expect(reply.status).toBe(works ? 302 : 400)
  })

  test.each([
    ['2.31', 302],
    ['2.34', 400],
    ['2.37', 400],
  ])('in %s a request without PKCE is answered %s', async (era, status) => {
    const { client } = at(era)
    const path = client.authorizationPath({ code_challenge: undefined, code_challenge_method: undefined })
    expect((await client.consent('ada', path)).reply.status).toBe(status)
  })

  test('a browser signs in at Coder and is asked for consent each time', async () => {
    const { client, server } = at('2.37')
    const tab = createBrowser({ origin: server.issuer })
    const signedOut = await tab.navigate(server.issuer + client.authorizationPath())
    expect(signedOut.hops.map(({ status }) => status)).toEqual([303, 200])
    const consent = await tab.submit(signedOut, 'Ada')
    expect(consent.links.map(({ href }) => new URL(href).searchParams.get('error'))).toEqual(['access_denied'])
    const forged = await tab.navigate(consent.url, { method: 'POST' })
    expect(forged.status).toBe(400)
    const again = await tab.navigate(server.issuer + client.authorizationPath())
    expect(again.visible).toContain('Allow')
  })

  test('in 2.38 an unknown scope comes back, and a narrow one does not reach the account', async () => {
    const { client } = at('2.38')
    const openid = await client.consent('ada', client.authorizationPath({ scope: 'openid' }))
    expect(openid.back.get('error')).toBe('invalid_scope')
    const { back } = await client.consent('ada', client.authorizationPath({ scope: 'coder:workspaces.access' }))
    const reply = (await client.redeem('ada', { code: back.get('code') ?? '' })).json()
    expect(reply['scope']).toBe('coder:workspaces.access')
    expect((await client.whoami(reply['access_token'])).status).toBe(404)
  })
})

describe('registration', () => {
  test('is read, replaced and deleted with its token, which like the secret is never shown again', async () => {
    const { server } = at('2.37')
    const client = await registerAtCoder(server, { token_endpoint_auth_method: 'client_secret_post' })
    const { registration_client_uri: uri, registration_access_token: token } = client.registered.json()
    const headers = { authorization: `Bearer ${String(token)}` }
    const manage = async (init: RequestInit) => {
      const reply = await fetch(String(uri), { headers, ...init })
      const text = await reply.text()
      return { status: reply.status, body: text === '' ? {} : JSON.parse(text) }
    }
    const read = await manage({})
    expect(read.status).toBe(200)
    for (const name of ['client_secret', 'registration_access_token', 'client_secret_expires_at'])
      expect(read.body).not.toHaveProperty(name)
    const replaced = await manage({ method: 'PUT', body: JSON.stringify({ redirect_uris: [client.redirectUri] }) })
    expect(replaced.body).toMatchObject({ token_endpoint_auth_method: 'client_secret_basic' })
    expect((await client.redeem('ada')).status, 'the secret is what it was').toBe(200)
    expect((await manage({ headers: { authorization: 'Bearer wrong' } })).status).toBe(401)
    expect((await manage({ method: 'DELETE' })).status).toBe(204)
    expect((await manage({})).status).toBe(401)
    expect((await client.redeem('ada')).status).toBe(401)
  })

  test('can be switched off from 2.37 on, and everything in every era', async () => {
    for (const [era, wellKnown, status] of [
      ['2.31', 200, 403],
      ['2.34', 403, 403],
      ['2.38', 404, 404],
    ] as const) {
      const { server, client } = at(era)
      server.settings.enabled = false
      const found = await client.call('/.well-known/oauth-authorization-server')
      const { registered } = await registerAtCoder(server)
      expect([era, found.status, registered.status]).toEqual([era, wellKnown, status])
      server.settings.enabled = true
    }
    const { server, client } = at('2.37')
    server.settings.registration = false
    expect((await registerAtCoder(server)).registered.json()).toMatchObject({ error: 'invalid_request' })
    expect((await client.call('/.well-known/oauth-authorization-server')).json()).not.toHaveProperty(
      'registration_endpoint',
    )
    server.settings.registration = true
  })
})
