import { afterEach, describe, expect, test } from 'vitest'
import type { RegistrationRequest } from '../../shared/client-metadata.ts'
import type { Client } from '../../shared/client.ts'
import { Failure } from '../../shared/errors.ts'
import { HttpFault, type OutgoingRequest, type Send } from '../../shared/http.ts'
import type { Metadata } from '../../shared/metadata.ts'
import { read, update } from '../../shared/registration.ts'

/** What a server may answer to the management of a registration (RFC 7592), well and badly. */

const issuer = 'https://as.example.com'
const metadata: Metadata = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  registration_endpoint: `${issuer}/register`,
  end_session_endpoint: `${issuer}/logout`,
  backchannel_logout_supported: true,
  token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
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
const client: Client = {
  client_id: 'c1',
  client_secret: 'secret-one',
  client_secret_expires_at: 1_900_000_000,
  token_endpoint_auth_method: 'client_secret_post',
  registration_client_uri: `${issuer}/register/c1`,
  registration_access_token: 'rat-one',
  redirect_uri: wanted.redirect_uri,
  scope: 'openid read',
  requested_scope: 'openid read',
  requested: '{}',
  registered_at: 1_800_000_000,
}
const registered = {
  client_id: 'c1',
  client_secret: 'secret-one',
  client_secret_expires_at: 1_900_000_000,
  client_id_issued_at: 1_800_000_000,
  redirect_uris: [wanted.redirect_uri],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'client_secret_post',
  registration_client_uri: `${issuer}/register/c1`,
  registration_access_token: 'rat-one',
}

type Answered = { status?: number; members?: object; text?: string; type?: string } | HttpFault

let sent: OutgoingRequest[] = []
let kept: Client[] = []
afterEach(() => {
  sent = []
  kept = []
})

const persist = async (one: Client): Promise<void> => void kept.push(one)

/** A server that answers each method as told; what it does with the method is up to the test. */
const server =
  (answers: { GET?: Answered; PUT?: Answered | Answered[] }): Send =>
  async (request) => {
    sent.push(request)
    const answer = answers[request.method === 'PUT' ? 'PUT' : 'GET'] ?? {}
    const one = Array.isArray(answer) ? answer.shift() : answer
    if (one instanceof HttpFault) throw one
    const { status = 200, members = {}, text, type = 'application/json' } = one ?? {}
    const body = Buffer.from(text ?? JSON.stringify({ ...registered, ...members }))
    return { status, headers: [['content-type', type]], body }
  }

const words = (error: unknown): string =>
  error instanceof Failure ? `${error.reason}: ${error.detail}` : `unexpected: ${String(error)}`
const reading = (answer: Answered, one = client) => read(server({ GET: answer }), one, persist).catch(words)
const updating = (answers: Parameters<typeof server>[0], one = client, change: Partial<Metadata> = {}) =>
  update(server(answers), { ...metadata, ...change }, one, wanted, persist).catch(words)
const bodyOf = (request: OutgoingRequest | undefined): Record<string, unknown> =>
  JSON.parse(Buffer.from(request?.body ?? []).toString())

describe('an update', () => {
  test('is a full replacement, with the client and its secret and without what the RFC forbids', async () => {
    await updating({ GET: { members: { application_type: 'web', subject_type: 'pairwise', client_name: 'Older' } } })
    expect(sent.map(({ method, url, headers }) => [method, url.href, headers['authorization']])).toEqual([
      ['GET', `${issuer}/register/c1`, 'Bearer rat-one'],
      ['PUT', `${issuer}/register/c1`, 'Bearer rat-one'],
    ])
    expect(bodyOf(sent[1])).toEqual({
      client_id: 'c1',
      client_secret: 'secret-one',
      client_name: 'Coatcheck',
      redirect_uris: [wanted.redirect_uri],
      post_logout_redirect_uris: [wanted.post_logout_redirect_uri],
      backchannel_logout_uri: wanted.backchannel_logout_uri,
      backchannel_logout_session_required: true,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_post',
      scope: 'openid read',
      // What the server had added would be lost if it were not said again.
      application_type: 'web',
      subject_type: 'pairwise',
    })
  })

  test('says nothing that is ours to say and that we do not say, nor what is empty', async () => {
    const members = {
      logo_uri: 'https://evil.example/logo',
      jwks_uri: 'https://evil.example/keys',
      jwks: { keys: [] },
      software_statement: 'e30.e30.',
      post_logout_redirect_uris: ['https://evil.example/'],
      policy_uri: null,
    }
    await updating({ GET: { members } }, client, { end_session_endpoint: undefined })
    for (const name of Object.keys(members)) expect(bodyOf(sent[1])).not.toHaveProperty(name)
  })

  test.each([400, 403])('that is refused with %i for what need not be said is asked for without', async (status) => {
    const members = { created_at: 'yesterday' }
    const refusal = { status, text: '{"error":"invalid_client_metadata"}' }
    expect(await updating({ GET: { members }, PUT: [refusal, {}] })).toMatchObject({ client_secret: 'secret-one' })
    expect(sent.map(({ method }) => method)).toEqual(['GET', 'PUT', 'PUT'])
    const { created_at, client_secret, ...rest } = bodyOf(sent[1])
    expect([created_at, client_secret]).toEqual(['yesterday', 'secret-one'])
    expect(bodyOf(sent[2])).toEqual(rest)
  })

  test.each([403, 405, 501])('goes without a read that is answered %i', async (status) => {
    expect(await updating({ GET: { status } })).toMatchObject({ client_id: 'c1' })
    expect(bodyOf(sent[1])).toMatchObject({
      client_secret: 'secret-one',
      token_endpoint_auth_method: 'client_secret_post',
    })
  })

  test('leaves the method that the client has, as long as the server offers it', async () => {
    const post = 'client_secret_post'
    const basic = { token_endpoint_auth_methods_supported: ['client_secret_basic'] }
    await updating({})
    await updating({ PUT: { members: { token_endpoint_auth_method: 'client_secret_basic' } } }, client, basic)
    expect(bodyOf(sent[1])['token_endpoint_auth_method']).toBe(post)
    expect(bodyOf(sent[3])['token_endpoint_auth_method']).toBe('client_secret_basic')
  })

  test('that brings nothing new keeps what we have (DR-16), and when the client began', async () => {
    const silent = {
      client_secret: undefined,
      client_secret_expires_at: undefined,
      registration_access_token: undefined,
      registration_client_uri: undefined,
    }
    const updated = await updating({ GET: { members: silent }, PUT: { members: silent } })
    expect(updated).toMatchObject({ ...client, requested: expect.stringContaining('Coatcheck') })
    expect(kept).toEqual([])
  })

  test('keeps a new secret and a new token before anything else, from the read and from the update (DR-17)', async () => {
    const GET = { members: { registration_access_token: 'rat-two', client_secret: 'secret-two' } }
    const PUT = { members: { registration_access_token: 'rat-three', client_secret: 'secret-three' } }
    const order: string[] = []
    const send: Send = async (request) => {
      order.push(`${request.method} ${request.headers['authorization']}`)
      return await server({ GET, PUT })(request)
    }
    const updated = await update(send, metadata, client, wanted, async (one) => {
      order.push(`keeps ${one.client_secret} ${one.registration_access_token}`)
    })
    expect(order).toEqual([
      'GET Bearer rat-one',
      'keeps secret-two rat-two',
      'PUT Bearer rat-two',
      'keeps secret-three rat-three',
    ])
    expect(bodyOf(sent[1])['client_secret']).toBe('secret-two')
    expect(updated).toMatchObject({ client_secret: 'secret-three', registration_access_token: 'rat-three' })
  })

  test('is not sent when what the read brought could not be kept', async () => {
    const send = server({ GET: { members: { registration_access_token: 'rat-two' } } })
    const failing = () => Promise.reject(new Failure('secrets_unavailable'))
    await expect(update(send, metadata, client, wanted, failing)).rejects.toThrow('secrets_unavailable')
    expect(sent).toHaveLength(1)
  })

  test('may hold null for what the server does not have', async () => {
    const members = { scope: null, grant_types: null, client_secret: null, registration_access_token: null }
    expect(await updating({ PUT: { members } })).toMatchObject({ client_secret: 'secret-one', scope: 'openid read' })
    expect(await reading({ members })).toMatchObject({ client_secret: 'secret-one' })
  })

  test('that a secret ends with takes its end along, and none where that is not said', async () => {
    const extended = await updating({ PUT: { members: { client_secret_expires_at: 2_000_000_000 } } })
    expect(extended).toMatchObject({ client_secret: 'secret-one', client_secret_expires_at: 2_000_000_000 })
    expect(kept).toHaveLength(1)
    const renewed = { client_secret: 'secret-two', client_secret_expires_at: undefined }
    expect(await updating({ PUT: { members: renewed } })).toMatchObject({
      client_secret: 'secret-two',
      client_secret_expires_at: undefined,
    })
  })

  test('to no secret at all drops the one that the server still shows', async () => {
    const members = { token_endpoint_auth_method: 'none', client_secret: 'kept by the server' }
    expect(await updating({ PUT: { members } })).toMatchObject({
      token_endpoint_auth_method: 'none',
      client_secret: undefined,
    })
  })

  test('with less scope lowers what is requested at authorization', async () => {
    expect(await updating({ PUT: { members: { scope: 'read write' } } })).toMatchObject({
      scope: 'read',
      requested_scope: 'openid read',
    })
  })
})

const elsewhere = 'https://evil.example/register/c1'
const hostile: [why: string, answer: Answered, words: RegExp][] = [
  ['another client', { members: { client_id: 'c2', client_secret: 's' } }, /another client than c1/],
  ['no client', { members: { client_id: undefined } }, /lacks or misspells client_id/],
  ['another redirect URI', { members: { redirect_uris: ['https://evil.example'] } }, /other redirect URIs/],
  ['a redirect URI more', { members: { redirect_uris: [wanted.redirect_uri, elsewhere] } }, /other redirect URIs/],
  [
    'the redirect URI twice',
    { members: { redirect_uris: [wanted.redirect_uri, wanted.redirect_uri] } },
    /other redirect/,
  ],
  ['no redirect URI', { members: { redirect_uris: undefined } }, /lacks or misspells redirect_uris/],
  ['another grant', { members: { grant_types: ['implicit'] } }, /authorization_code grant/],
  ['another response type', { members: { response_types: ['token'] } }, /response type code/],
  ['another method', { members: { token_endpoint_auth_method: 'tls_client_auth' } }, /authentication method/],
  ['management elsewhere', { members: { registration_client_uri: elsewhere } }, /management URI/],
  ['management over http', { members: { registration_client_uri: 'http://as.example.com/c1' } }, /management URI/],
  ['a password in it', { members: { registration_client_uri: 'https://a:b@as.example.com/c1' } }, /management URI/],
  ['a fragment in it', { members: { registration_client_uri: `${issuer}/c1#x` } }, /management URI/],
  ['a secret with a line break', { members: { client_secret: 'a\r\nb' } }, /misspells client_secret/],
  ['an empty secret', { members: { client_secret: '' } }, /misspells client_secret/],
  ['a huge secret', { members: { client_secret: 's'.repeat(5_000) } }, /misspells client_secret/],
  ['a token that is none', { members: { registration_access_token: 7 } }, /misspells registration_access_token/],
  ['an end in milliseconds', { members: { client_secret_expires_at: 1.9e15 } }, /misspells client_secret_expires_at/],
  ['an end before time', { members: { client_secret_expires_at: -1 } }, /misspells client_secret_expires_at/],
  ['an end in words', { members: { client_secret_expires_at: '1900000000' } }, /misspells client_secret_expires_at/],
  ['an end between seconds', { members: { client_secret_expires_at: 1.5 } }, /misspells client_secret_expires_at/],
  ['a web page', { text: '<!doctype html>', type: 'text/html' }, /is no JSON object \(content type: /],
  ['JSON in a web page', { type: 'text/html' }, /is no JSON object \(content type: /],
  ['a list', { text: '[]' }, /is no JSON object \(content type: /],
  [
    'its redirect URIs twice',
    { text: JSON.stringify(registered).replace(/\}$/, ',"redirect_uris":["https://evil.example"]}') },
    /other redirect URIs/,
  ],
  ['half of it', { text: '{"client_id":"c1"' }, /is no JSON object \(content type: /],
  ['nothing', { text: '' }, /is no JSON object \(content type: /],
  ['no content', { status: 204, text: '' }, /status 204/],
  ['a redirect', { status: 307 }, /status 307/],
  ['too much', new HttpFault('too_large'), /reply is too large/],
  ['no answer', new HttpFault('broken'), /server_unreachable: no answer from https:\/\/as\.example\.com/],
  ['nothing in time', new HttpFault('timeout'), /server_timeout: no answer/],
  [
    'an error',
    { status: 400, text: '{"error":"invalid_redirect_uri","error_description":"no"}' },
    /invalid_redirect_uri: no/,
  ],
  ['a failure', { status: 500, text: 'oops', type: 'text/plain' }, /status 500 without an OAuth error/],
  [
    '403',
    { status: 403, text: '{"message":"Client was not made so"}' },
    /status 403 without an OAuth error: Client was/,
  ],
  [
    '401',
    { status: 401, text: '{"error":"invalid_token"}' },
    /registration_lost: .* no longer knows client c1, or its/,
  ],
]

describe('a reply that is not what was asked for', () => {
  test.each(hostile)('is refused in words when read: %s', async (_, answer, expected) => {
    expect(await reading(answer)).toMatch(expected)
  })

  test.each(hostile)('is refused in words after an update: %s', async (_, answer, expected) => {
    expect(await updating({ PUT: answer })).toMatch(expected)
  })

  test.each([404, 405, 501])('%i means that the server does not manage registrations', async (status) => {
    expect(await reading({ status })).toMatch(/^registration_unmanaged: the server does not show registrations/)
    expect(await updating({ PUT: { status } })).toMatch(/^registration_unmanaged: the server does not update/)
  })

  test.each(['registration_client_uri', 'registration_access_token'])('nothing is sent without %s', async (name) => {
    const unmanaged = { ...client, [name]: undefined }
    expect(await reading({}, unmanaged)).toMatch(/^registration_unmanaged: .* client c1 \(RFC 7592\)/)
    expect(await updating({}, unmanaged)).toMatch(/^registration_unmanaged: /)
    expect(sent).toEqual([])
  })

  test.each<[why: string, members: object]>([
    ['other redirect URIs', { redirect_uris: [] }],
    ['management elsewhere', { registration_client_uri: elsewhere }],
    ['a broken end of the secret', { client_secret_expires_at: 'soon' }],
    ['no client', { client_id: undefined }],
  ])('gives up its credentials first, since the old ones are void: %s', async (_, wrong) => {
    const members = { client_secret: 'secret-two', registration_access_token: 'rat-two', ...wrong }
    expect(await updating({ PUT: { members } })).toMatch(/^registration_refused/)
    expect(kept).toEqual([
      expect.objectContaining({
        client_secret: 'secret-two',
        registration_access_token: 'rat-two',
        registration_client_uri: `${issuer}/register/c1`,
      }),
    ])
  })

  test('keeps nothing of another client, nor of a secret that cannot be one', async () => {
    await updating({ PUT: { members: { client_id: 'c2', client_secret: 's', registration_access_token: 'r' } } })
    await reading({ members: { client_secret: 'a\nb', registration_access_token: '' } })
    expect(kept).toEqual([])
  })

  test('does not tell our secrets, whoever quotes them', async () => {
    const text = JSON.stringify({ error: 'invalid_token', error_description: 'rat-one and secret-one are wrong' })
    for (const status of [400, 401, 403]) {
      expect(await reading({ status, text })).toMatch(/invalid_token: \(a secret\) and \(a secret\) are wrong$/)
    }
  })
})
