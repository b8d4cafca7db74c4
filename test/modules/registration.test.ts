import { describe, expect, test } from 'vitest'
import { Failure } from '../../shared/errors.ts'
import { HttpFault, type Send } from '../../shared/http.ts'
import type { Metadata } from '../../shared/metadata.ts'
import type { RegistrationRequest } from '../../shared/client-metadata.ts'
import { register, unregister } from '../../shared/registration.ts'

const issuer = 'https://as.example.com'
const registrationOrigin = 'https://register.example.com'
const metadata: Metadata = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  registration_endpoint: `${registrationOrigin}/register`,
}
const wanted: RegistrationRequest = {
  client_name: 'Coatcheck',
  redirect_uri: 'https://app.example.com/bff/callback/main',
  post_logout_redirect_uri: 'https://app.example.com/bff/logout',
  backchannel_logout_uri: 'https://app.example.com/bff/backchannel-logout/main',
  scopes: ['openid', 'read'],
  initial_access_token: undefined,
  jwks_uri: undefined,
}
const reply = {
  client_id: 'c1',
  client_secret: 's1',
  client_secret_expires_at: 0,
  redirect_uris: [wanted.redirect_uri],
  token_endpoint_auth_method: 'client_secret_basic',
}
const answering =
  (members: object, status = 201): Send =>
  async () => ({ status, headers: [['content-type', 'application/json']], body: Buffer.from(JSON.stringify(members)) })
const registered = (members: object, change: Partial<Metadata> = {}) =>
  register(answering({ ...reply, ...members }), { ...metadata, ...change }, wanted).catch((error: unknown) =>
    error instanceof Failure ? `${error.reason}: ${error.detail}` : String(error),
  )

describe('a registration reply', () => {
  test('gives the client, with what is requested under it', async () => {
    expect(await registered({})).toMatchObject({
      client_id: 'c1',
      client_secret: 's1',
      scope: 'openid read',
      requested_scope: 'openid read',
    })
  })

  test.each(['client_secret_post', 'none'])('has the last word about %s', async (method) => {
    const client = await registered({ token_endpoint_auth_method: method })
    expect(client).toMatchObject({
      token_endpoint_auth_method: method,
      client_secret: method === 'none' ? undefined : 's1',
    })
  })

  test.each([`${issuer}/register/c1`, `${registrationOrigin}/register/c1`])('may be managed at %s', async (uri) => {
    expect(await registered({ registration_client_uri: uri })).toMatchObject({ registration_client_uri: uri })
  })

  test.each<[why: string, members: object, words: RegExp]>([
    ['a management URI elsewhere', { registration_client_uri: 'https://evil.example/register/c1' }, /management URI/],
    ['a management URI that is none', { registration_client_uri: '/register/c1' }, /management URI/],
    ['another redirect URI', { redirect_uris: ['https://evil.example'] }, /other redirect URIs/],
    ['a redirect URI more', { redirect_uris: [wanted.redirect_uri, 'https://evil.example'] }, /other redirect URIs/],
    ['no redirect URI', { redirect_uris: [] }, /other redirect URIs/],
    ['no client', { client_id: undefined }, /lacks or misspells client_id/],
    ['an empty client', { client_id: '' }, /lacks or misspells client_id/],
    ['a client with a line break', { client_id: 'a\nb' }, /lacks or misspells client_id/],
    ['a huge client', { client_id: 'x'.repeat(10_000) }, /lacks or misspells client_id/],
    ['no secret', { client_secret: undefined }, /issued no secret/],
    ['a secret that no header can carry', { client_secret: 'ä' }, /client_secret/],
    ['a method that we do not have', { token_endpoint_auth_method: 'tls_client_auth' }, /authentication method/],
    ['no grant of ours', { grant_types: ['implicit'] }, /authorization_code grant/],
    ['a broken expiry', { client_secret_expires_at: 'never' }, /client_secret_expires_at/],
  ])('with %s is refused in words', async (_, members, words) => {
    expect(await registered(members)).toMatch(words)
    expect(await registered(members)).toMatch(/^registration_refused: /)
  })

  test.each<[uri: string, deleted: string[]]>([
    [`${issuer}/register/c1`, [`DELETE ${issuer}/register/c1 Bearer rat`]],
    ['https://evil.example/register/c1', []],
  ])('that is refused is given back, where the reply says how: at %s', async (uri, deleted) => {
    const seen: string[] = []
    const members = { redirect_uris: [], registration_client_uri: uri, registration_access_token: 'rat' }
    const send: Send = (request) => {
      if (request.method !== 'POST')
        seen.push(`${request.method} ${request.url.href} ${request.headers['authorization']}`)
      return answering({ ...reply, ...members })(request)
    }
    await expect(register(send, metadata, wanted)).rejects.toThrow('other redirect URIs')
    expect(seen).toEqual(deleted)
  })

  test('with less scope lowers what is requested', async () => {
    expect(await registered({ scope: 'read write' })).toMatchObject({ scope: 'read', requested_scope: 'openid read' })
  })

  test('of a server without registration is none', async () => {
    expect(await registered({}, { registration_endpoint: undefined })).toMatch(/has no registration endpoint/)
    expect(await registered({}, { token_endpoint_auth_methods_supported: ['tls_client_auth'] })).toMatch(
      /offers none of client_secret_basic/,
    )
  })

  describe('to a request for keys', () => {
    const jwks_uri = 'https://app.example.com/bff/jwks.json'
    const offered = { token_endpoint_auth_methods_supported: ['client_secret_basic', 'private_key_jwt'] }
    const asked = (members: object, change: Partial<Metadata> = offered) => {
      const bodies: unknown[] = []
      const send: Send = (request) => {
        bodies.push(JSON.parse(Buffer.from(request.body ?? []).toString()))
        return answering({ ...reply, client_secret: undefined, ...members })(request)
      }
      return register(send, { ...metadata, ...change }, { ...wanted, jwks_uri }).then(
        (client) => ({ client, bodies }),
        (error: unknown) => String(error),
      )
    }

    test('gives a client without a secret, whatever else came', async () => {
      for (const members of [{}, { client_secret: 'kept nowhere' }]) {
        expect(await asked({ token_endpoint_auth_method: 'private_key_jwt', ...members })).toMatchObject({
          client: { token_endpoint_auth_method: 'private_key_jwt', client_secret: undefined },
          bodies: [
            { token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks_uri },
          ],
        })
      }
    })

    test('with another method is refused, and so is one with keys that nobody asked for', async () => {
      expect(await asked({ client_secret: 's1' })).toMatch(
        /rotation.mode is keys, but the server registered client_sec/,
      )
      expect(await registered({ token_endpoint_auth_method: 'private_key_jwt' })).toMatch(/was not asked for/)
    })

    test.each<[string, Partial<Metadata>]>([
      ['announces no methods', {}],
      ['announces others', { token_endpoint_auth_methods_supported: ['client_secret_basic'] }],
      ['signs with RS256 only', { ...offered, token_endpoint_auth_signing_alg_values_supported: ['RS256'] }],
    ])('is not made at a server that %s', async (_, change) => {
      expect(await asked({}, change)).toMatch(/does not offer private_key_jwt with ES256/)
    })
  })

  test.each([400, 401, 403, 500])('with status %i says what the server said, cut and cleaned', async (status) => {
    const answer = answering(
      { error: 'invalid_client_metadata', error_description: `no\u0007 <b>${'x'.repeat(1_000)}` },
      status,
    )
    const words: unknown = await register(answer, metadata, wanted).catch((error: unknown) => error)
    expect(words).toMatchObject({
      reason: 'registration_refused',
      detail: expect.stringMatching(new RegExp(`status ${status}, invalid_client_metadata: no  <b>x{1,300}(; |$)`)),
    })
  })
})

describe('giving a client up', () => {
  const client = { client_id: 'c1', token_endpoint_auth_method: 'none', redirect_uri: wanted.redirect_uri } as const
  const managed = { ...client, registration_client_uri: `${issuer}/register/c1`, registration_access_token: 'rat' }

  test('succeeds where it is gone, and says so where it may not be', async () => {
    for (const status of [204, 401, 404]) expect(await unregister(answering({}, status), managed)).toBe(true)
    for (const status of [200, 403, 405, 500]) expect(await unregister(answering({}, status), managed)).toBe(false)
    expect(await unregister(() => Promise.reject(new HttpFault('timeout')), managed)).toBe(false)
    expect(await unregister(answering({}, 204), client)).toBe(false)
  })
})
