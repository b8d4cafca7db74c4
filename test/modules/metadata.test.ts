import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../shared/errors.ts'
import type { IncomingReply, Send } from '../../shared/http.ts'
import { jsonObject } from '../../shared/json-reply.ts'
import { discover, judgeMetadata } from '../../shared/metadata.ts'
import { fc } from '../support/seeded.ts'

const vectors: { issuer_or_endpoint_url: { value: string }[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'),
)
const issuer = 'https://as.example.com'
const good = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  code_challenge_methods_supported: ['S256'],
}
const verdict = (metadata: unknown, endpointOrigins: string[] = []): string => {
  try {
    judgeMetadata(metadata, issuer, endpointOrigins)
    return 'good'
  } catch (error) {
    return error instanceof Failure ? `${error.reason}: ${error.detail}` : String(error)
  }
}
const endpoints = [
  'authorization_endpoint',
  'token_endpoint',
  'registration_endpoint',
  'revocation_endpoint',
  'userinfo_endpoint',
  'jwks_uri',
  'end_session_endpoint',
  'pushed_authorization_request_endpoint',
] as const

describe('metadata', () => {
  test('of this issuer are good, and what we do not read is dropped', () => {
    const judged = judgeMetadata(
      { ...good, scopes_supported: ['openid'], check_session_iframe: 'x', signed_metadata: 'y' },
      issuer,
      [],
    )
    expect(judged).toEqual({ ...good, scopes_supported: ['openid'] })
  })

  test.each([
    `${issuer}/`,
    'https://AS.example.com',
    'http://as.example.com',
    'https://as.example.com:443',
    'https://as.example.com/tenant',
    '',
    undefined,
    1,
    [issuer],
  ])('of the issuer %j are another’s', (other) => {
    expect(verdict({ ...good, issuer: other })).toMatch(
      /^metadata_invalid: the metadata (are of another issuer(, https?:\/\/\S+)?|lack or misspell issuer)$/,
    )
  })

  test.each([undefined, [], ['plain'], ['s256'], 'S256', null])(
    'that announce %j for PKCE cannot be used',
    (methods) => {
      expect(verdict({ ...good, code_challenge_methods_supported: methods })).toMatch(
        /^metadata_invalid: .*code_challenge_methods_supported/,
      )
    },
  )

  test('may say null for what the server does not have, but not for what it must have', () => {
    const judged = judgeMetadata({ ...good, revocation_endpoint: null, scopes_supported: null }, issuer, [])
    expect(judged).toEqual(good)
    for (const name of ['issuer', 'authorization_endpoint', 'token_endpoint', 'code_challenge_methods_supported']) {
      expect(verdict({ ...good, [name]: null })).toMatch(new RegExp(`^metadata_invalid: .*${name}`))
    }
  })

  test.each<[words: string, change: object]>([
    ['response_type code', { response_types_supported: ['token'] }],
    ['codes back in the query', { response_modes_supported: ['form_post', 'fragment'] }],
    ['the authorization code grant', { grant_types_supported: ['client_credentials'] }],
    ['signed authorization requests only', { require_signed_request_object: true }],
    ['over 32768 characters', { scopes_supported: Array(4_000).fill('a-scope-name') }],
    ['lack or misspell scopes_supported', { scopes_supported: 'openid' }],
    ['lack or misspell scopes_supported.0', { scopes_supported: [[[]]] }],
  ])('are refused in words: %s', (words, change) => {
    expect(verdict({ ...good, ...change })).toMatch(new RegExp(`^metadata_invalid: .*${words}`))
  })

  test.each(endpoints)('have an %s only where it may be', (name) => {
    const at = (url: unknown, origins?: string[]) => verdict({ ...good, [name]: url }, origins)
    expect(at(`${issuer}/x?tenant=1`)).toBe('good')
    for (const wrong of [
      'http://as.example.com/x',
      'https://user@as.example.com/x',
      'https://as.example.com/x#y',
      'https://as.example.com/x#',
      'https://as.example.com/x\r\ny',
      ' https://as.example.com/x',
      'https://as.example.com/\u0000',
      `https://as.example.com/${'x'.repeat(2_048)}`,
      '/x',
      '',
      'x',
      'javascript:alert(1)',
      1,
      [`${issuer}/x`],
    ]) {
      expect(at(wrong)).toMatch(new RegExp(`^metadata_invalid: .*${name}`))
    }
    expect(at('https://api.example.com/x')).toBe(
      `metadata_invalid: ${name} is on another origin, https://api.example.com; list it in endpoint_origins if that is right`,
    )
    expect(at('https://api.example.com/x', ['https://api.example.com'])).toBe('good')
  })

  test.each(vectors.issuer_or_endpoint_url.map(({ value }) => value))(
    'with an endpoint at %s are refused, unless that is the issuer’s own',
    (value) => {
      const own =
        URL.canParse(value) && new URL(value).origin === issuer && !value.includes('@') && !value.includes('#')
      const known = verdict({ ...good, jwks_uri: value })
      expect(known).toMatch(own ? /^good$/ : /^metadata_invalid: jwks_uri /)
    },
  )

  test('are judged whatever they are', () => {
    const anything = fc.oneof(
      fc.jsonValue(),
      fc.record(
        Object.fromEntries(
          Object.keys(good).map((name) => [name, fc.oneof(fc.constant(Reflect.get(good, name)), fc.jsonValue())]),
        ),
      ),
    )
    fc.assert(
      fc.property(anything, (value) => /^(good$|metadata_invalid: )/.test(verdict(value))),
      { numRuns: 2_000 },
    )
  })
})

describe('a reply', () => {
  const reply = (type: string | undefined, body: string | Uint8Array): IncomingReply => ({
    status: 200,
    headers: type === undefined ? [] : [['Content-Type', type]],
    body: typeof body === 'string' ? Buffer.from(body) : body,
  })

  test.each([
    'application/json',
    'APPLICATION/JSON',
    'application/json; charset=utf-8',
    ' application/json;charset="UTF-8"',
  ])('of type %j is read', (type) => {
    expect(jsonObject(reply(type, '{"a": 1}'))).toEqual({ a: 1 })
  })

  test.each<[string | undefined, string | Uint8Array]>([
    [undefined, '{}'],
    ['text/html', '{}'],
    ['application/jwt', '{}'],
    ['application/jsonx', '{}'],
    ['application/json; charset=utf-16', '{}'],
    ['application/json; charset="UTF-16LE"', '{}'],
    ['application/json', Buffer.from('{}', 'utf16le')],
    ['application/json', gzipSync('{}')],
    ['application/json', ''],
    ['application/json', '[]'],
    ['application/json', 'null'],
    ['application/json', '"text"'],
    ['application/json', '{'],
    ['application/json', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)],
  ])('of type %j with %j is none', (type, body) => {
    expect(jsonObject(reply(type, body))).toBeUndefined()
  })

  test('cannot change what objects are', () => {
    jsonObject(
      reply('application/json', '{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}'),
    )
    expect({}).not.toHaveProperty('polluted')
  })
})

describe('discovery', () => {
  const asked = async (of: string, answer: (path: string) => Partial<IncomingReply>) => {
    const paths: string[] = []
    const send: Send = async ({ url }) => {
      paths.push(url.pathname)
      return {
        status: 404,
        headers: [['content-type', 'application/json']],
        body: Buffer.from('{}'),
        ...answer(url.pathname),
      }
    }
    const outcome = await discover(send, of, []).then(
      () => 'good',
      (error: unknown) => (error instanceof Failure ? `${error.reason}: ${error.detail}` : String(error)),
    )
    return { paths, outcome }
  }

  test.each([
    ['https://as.example.com', '/.well-known/oauth-authorization-server', '/.well-known/openid-configuration'],
    [
      'https://as.example.com/tenant',
      '/.well-known/oauth-authorization-server/tenant',
      '/tenant/.well-known/openid-configuration',
    ],
    [
      'https://as.example.com/a/b/',
      '/.well-known/oauth-authorization-server/a/b',
      '/a/b/.well-known/openid-configuration',
    ],
  ])('of %s asks where RFC 8414 says, then where OpenID Connect does', async (of, first, second) => {
    const { paths, outcome } = await asked(of, () => ({}))
    expect(paths).toEqual([first, second])
    expect(outcome).toBe(
      `metadata_invalid: no authorization server metadata: ${first} answered 404; ${second} answered 404`,
    )
  })

  test('takes the first that has metadata, and never another’s for want of better', async () => {
    const body = Buffer.from(JSON.stringify(good))
    expect(await asked(issuer, () => ({ status: 200, body }))).toEqual({
      paths: ['/.well-known/oauth-authorization-server'],
      outcome: 'good',
    })
    const others = Buffer.from(JSON.stringify({ ...good, issuer: 'https://evil.example' }))
    const { paths, outcome } = await asked(issuer, (path) => ({
      status: 200,
      body: path.includes('oauth') ? others : body,
    }))
    expect([paths.length, outcome]).toEqual([
      1,
      'metadata_invalid: the metadata are of another issuer, https://evil.example',
    ])
  })

  test.each([301, 302, 307, 308])('does not follow a redirect with %i', async (status) => {
    const headers: [string, string][] = [['location', 'https://evil.example/x']]
    const { paths, outcome } = await asked(issuer, () => ({ status, headers }))
    expect([paths.length, outcome]).toEqual([2, expect.stringContaining(`answered ${status}`)])
  })

  test.each([500, 503, 429])('says of %i that the server is unwell, if the other place has nothing', async (status) => {
    const unwell = await asked(issuer, (path) => (path.includes('oauth') ? { status } : {}))
    expect(unwell.outcome).toMatch(new RegExp(`^server_failed: .* answered ${status}; .* answered 404$`))
    const body = Buffer.from(JSON.stringify(good))
    const well = await asked(issuer, (path) => (path.includes('oauth') ? { status } : { status: 200, body }))
    expect(well.outcome).toBe('good')
  })

  test.each([
    ['{"issuer": "https://evil.example", %}', 'issuer'],
    ['{%, "x": {"a": [{"b": 1, "c": {"b": 2}, "b": 3}]}}', 'b'],
    ['{%, "token_endpoin\\u0074": "https://as.example.com/other"}', 'token_endpoint'],
    ['{%, "": 1, "": 2}', ''],
  ])('refuses a document with a member that stands twice: %s', async (text, member) => {
    const body = Buffer.from(text.replace('%', JSON.stringify(good).slice(1, -1)))
    const { outcome } = await asked(issuer, () => ({ status: 200, body }))
    expect(outcome).toBe(
      `metadata_invalid: the member "${member}" stands twice in the metadata at /.well-known/oauth-authorization-server`,
    )
  })

  test('reads a document in which names come again in other objects or as text', async () => {
    const more = {
      x: [{ a: 1 }, { a: 1, b: { a: '"a": 1, {"a": 2' } }],
      y: { a: 'a', '\\"a': 'a' },
      z: ['a', 'a', 'z'],
    }
    const body = Buffer.from(JSON.stringify({ ...good, ...more }, null, 1))
    expect((await asked(issuer, () => ({ status: 200, body }))).outcome).toBe('good')
  })

  test('survives depth and prototypes', async () => {
    const inner = JSON.stringify(good).slice(1, -1)
    for (const text of [
      `{${inner}, "deep": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
      `{${inner}, "__proto__": {"token_endpoint": "https://evil.example"}, "constructor": {"prototype": {"issuer": 1}}}`,
    ]) {
      expect((await asked(issuer, () => ({ status: 200, body: Buffer.from(text) }))).outcome).toBe('good')
    }
    const hollow = Buffer.from(`{"__proto__": ${JSON.stringify(good)}}`)
    expect((await asked(issuer, () => ({ status: 200, body: hollow }))).outcome).toMatch(/lack or misspell issuer/)
    expect({}).not.toHaveProperty('issuer')
  })

  test.each([
    ['https://login.example.com/x', ' to https://login.example.com'],
    ['/elsewhere', ' on the same origin'],
    ['http://', ''],
    [undefined, ''],
  ])('says where a redirect to %s leads', async (location, words) => {
    const headers: [string, string][] = location === undefined ? [] : [['Location', location]]
    const { outcome } = await asked(issuer, () => ({ status: 301, headers }))
    expect(outcome).toContain(`answered 301, a redirect${words}, and none is followed`)
  })

  test('says that a page is a page', async () => {
    const { outcome } = await asked(issuer, () => ({
      status: 200,
      headers: [['content-type', 'text/html']],
      body: Buffer.from('<html>'),
    }))
    expect(outcome).toContain('holds no JSON object (content type: text/html)')
  })
})
