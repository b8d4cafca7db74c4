import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../shared/errors.ts'
import { createSend } from '../../shared/http.ts'
import { challengedMetadata, discoverResource, judgeResource } from '../../shared/protected-resource.ts'
import { wellKnownUrl } from '../../shared/well-known.ts'
import { eras } from '../support/coder-era.ts'
import { startCoderServer } from '../support/coder-server.ts'
import * as faults from '../support/faults.ts'
import { json, startRecordingServer, type Answer } from '../support/server.ts'

const api = 'https://api.example.com/v1'
const good = { resource: api, authorization_servers: ['https://as.example.com'], bearer_methods_supported: ['header'] }
const verdict = (document: unknown, asked = api): unknown => {
  try {
    return judgeResource(document, new URL(asked))
  } catch (error) {
    return error instanceof Failure ? `${error.reason}: ${error.detail}` : error
  }
}

describe('resource metadata', () => {
  test('say what the resource is called and whom it trusts', () => {
    const document = { ...good, scopes_supported: ['read'], jwks_uri: 'x', signed_metadata: 'y' }
    expect(verdict(document)).toEqual({
      resource: api,
      authorizationServers: ['https://as.example.com'],
      scopes: ['read'],
    })
    expect(verdict({ resource: api })).toEqual({ resource: api, authorizationServers: [], scopes: [] })
  })

  test.each(['https://api.example.com', 'https://api.example.com/'])(
    'of a whole origin may be written %s',
    (resource) => {
      expect(verdict({ ...good, resource }, 'https://api.example.com')).toMatchObject({ resource })
    },
  )

  test.each([
    `${api}/`,
    'https://api.example.com',
    'https://API.example.com/v1',
    'http://api.example.com/v1',
    `${api}?a`,
  ])('of the resource %s are another’s', (resource) => {
    expect(verdict({ ...good, resource })).toBe(
      `metadata_invalid: the resource's metadata are of another resource, ${resource}; ask about that one`,
    )
  })

  test.each<[change: object, words: RegExp]>([
    [{ resource: undefined }, /lack or misspell resource$/],
    [{ resource: 'x\r\ny' }, /of another resource, something else;/],
    [{ authorization_servers: 'https://as.example.com' }, /lack or misspell authorization_servers$/],
    [{ authorization_servers: ['http://as.example.com'] }, /no https URL/],
    [{ authorization_servers: ['https://as.example.com', 'https://a@as.example.com'] }, /no https URL/],
    [{ authorization_servers: ['https://as.example.com?x'] }, /no https URL/],
    [{ authorization_servers: ['https://as.example.com/\r\n'] }, /no https URL/],
    [{ authorization_servers: ['javascript:alert(1)'] }, /no https URL/],
    [{ bearer_methods_supported: ['body', 'query'] }, /no token in the Authorization header/],
    [{ dpop_bound_access_tokens_required: true }, /DPoP only/],
  ])('with %j are refused', (change, words) => {
    expect(verdict({ ...good, ...change })).toMatch(words)
  })

  test('with a thousand servers have eight', () => {
    const servers = Array.from({ length: 1_000 }, (_, index) => `https://as-${index}.example.com`)
    expect(verdict({ ...good, authorization_servers: servers })).toMatchObject({
      authorizationServers: servers.slice(0, 8),
    })
  })
})

test.each([
  ['https://api.example.com', 'https://api.example.com/.well-known/oauth-protected-resource'],
  ['https://api.example.com/v1/', 'https://api.example.com/.well-known/oauth-protected-resource/v1'],
  ['https://api.example.com/v1?k=v', 'https://api.example.com/.well-known/oauth-protected-resource/v1?k=v'],
])('the metadata of %s are at %s', (resource, url) => {
  expect(wellKnownUrl('oauth-protected-resource', new URL(resource)).href).toBe(url)
})

test.each<[values: string[], found: string | undefined]>([
  [['Bearer resource_metadata="https://a.example/x"'], 'https://a.example/x'],
  [['bearer realm="a, b=c", Resource_Metadata = https-token'], 'https-token'],
  [['Basic dG9r ZW4=, Bearer error="invalid_token", resource_metadata="x\\"y"'], 'x"y'],
  [['Basic realm="x"', 'Bearer resource_metadata="a"'], 'a'],
  [['Bearer resource_metadata="a"', 'Bearer resource_metadata="a"'], 'a'],
  [['Bearer resource_metadata="a"', 'Bearer resource_metadata="b"'], undefined],
  [['Basic resource_metadata="a"'], undefined],
  [['DPoP resource_metadata="a", Bearer realm="b"'], undefined],
  [['Bearer realm="resource_metadata=a"'], undefined],
  [['Bearer realm="Bearer resource_metadata=\\"a\\""'], undefined],
  [['Bearer resource_metadata='], undefined],
  [['"""""', '', ',,,', '='.repeat(10_000)], undefined],
  [[], undefined],
])('the challenges %j lead to %j', (values, found) => {
  expect(challengedMetadata(values)).toBe(found)
})

describe('discovery from a URL', () => {
  const send = createSend({ keepAlive: false, mayConnect: () => true })
  let server: Awaited<ReturnType<typeof startRecordingServer<'known' | 'other' | 'api'>>>
  let known: Answer
  let other: Answer
  let call: Answer

  beforeAll(async () => {
    server = await startRecordingServer(
      (_, path) => (path === '/.well-known/oauth-protected-resource/v1' ? 'known' : path === '/v1' ? 'api' : 'other'),
      ({ endpoint }) => ({ known, other, api: call })[endpoint],
    )
  })
  beforeEach(() => {
    known = other = { status: 404 }
    call = { status: 401, headers: { 'WWW-Authenticate': `Bearer resource_metadata="${server.url}/metadata?r=1"` } }
  })
  afterAll(() => server.close())

  const document = () => json(200, { resource: `${server.url}/v1`, authorization_servers: [server.url] })
  const found = () => ({
    kind: 'found',
    metadata: { resource: `${server.url}/v1`, authorizationServers: [server.url], scopes: [] },
  })
  const outcome = (challenge = true) =>
    discoverResource(send, new URL(`${server.url}/v1`), { challenge }).catch((error: unknown) =>
      error instanceof Failure ? `${error.reason}: ${error.detail}` : error,
    )

  test('asks at the well-known URL, and is content with what is there', async () => {
    known = document()
    const before = server.requests.length
    expect(await outcome()).toEqual(found())
    expect(server.requests.length - before).toBe(1)
    expect(server.requests.at(-1)?.headers).not.toHaveProperty('authorization')
  })

  test('goes on to where a 401 says', async () => {
    other = document()
    expect(await outcome()).toEqual(found())
    expect(server.requests.at(-1)?.path).toBe('/metadata?r=1')
    expect(await outcome(false)).toMatchObject({ kind: 'missing' })
  })

  test.each<[how: string, challenge: (url: string) => Answer, words: RegExp]>([
    ['200', () => ({ status: 200 }), /\/v1 answered 200, not 401, to a call without a token$/],
    ['a redirect', () => ({ status: 302, headers: { Location: '/' } }), /answered 302/],
    ['401 and no more', () => ({ status: 401 }), /names no resource_metadata/],
    [
      'another origin',
      () => ({ status: 401, headers: { 'WWW-Authenticate': 'Bearer resource_metadata="https://evil.example/x"' } }),
      /not on its origin$/,
    ],
    [
      'no URL',
      () => ({ status: 401, headers: { 'WWW-Authenticate': 'Bearer resource_metadata="/metadata"' } }),
      /not on its origin$/,
    ],
  ])('says what a call without a token was answered: %s', async (_, challenge, words) => {
    call = challenge(server.url)
    expect(await outcome()).toEqual({ kind: 'missing', complaint: expect.stringMatching(words) })
  })

  test.each([
    ['a web page', faults.webPage(), 'missing'],
    ['the metadata of another', faults.insteadJson(200, { resource: 'https://evil.example' }), 'of another resource'],
    ['too much', faults.instead({ status: 200, body: Buffer.alloc(300_000, ' ') }), 'are over 262144 bytes'],
    ['a broken connection', faults.reset, 'server_unreachable'],
    ['a list', faults.insteadJson(200, []), 'missing'],
  ] as const)('survives %s where the metadata should be', async (_, fault, words) => {
    server.plan('known', fault)
    call = { status: 500 }
    expect(JSON.stringify(await outcome())).toContain(words)
  })

  test('of a call that never ends says so', { timeout: 15_000 }, async () => {
    server.plan('api', faults.hung)
    expect(await outcome()).toEqual({
      kind: 'missing',
      complaint: expect.stringMatching(/gave no usable answer \(timeout\)$/),
    })
  })

  test.each(eras)('finds that a Coder of %s is its own authorization server', async (era) => {
    const coder = await startCoderServer({ era })
    try {
      const resource = new URL(coder.issuer)
      const { metadata } = (await discoverResource(send, resource, { challenge: false })) as ReturnType<typeof found>
      expect(metadata).toMatchObject({ resource: coder.issuer, authorizationServers: [coder.issuer] })
      // Coder answers below the well-known path too, always with the document of the whole.
      const below = discoverResource(send, new URL(`${coder.issuer}/api/v2`), { challenge: true })
      await expect(below).rejects.toThrow(`of another resource, ${coder.issuer}; ask about that one`)
    } finally {
      await coder.close()
    }
  })
})
