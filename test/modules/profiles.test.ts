import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parseStage } from '../../shared/config.ts'
import { Failure } from '../../shared/errors.ts'
import { withAdvice } from '../../shared/profiles.ts'

/** What the profile of a provider makes of a stage, and what it says of one that cannot be right. */

const issuer = 'https://coder.example.com'
const target = `${issuer}/api/v2`
const file = (provider: object = {}, apis: object = { coder: { provider: 'coder', target } }): object => ({
  origin: 'https://app.example.com',
  providers: { coder: { profile: 'coder', issuer, ...provider } },
  apis,
})
const parsed = (content: unknown) => {
  const result = parseStage(content)
  if (!result.ok) throw new Error(result.faults.join('\n'))
  return result.stage
}
const faultsOf = (content: unknown): string[] => {
  const result = parseStage(content)
  return result.ok ? [] : result.faults
}
const account = {
  url: `${issuer}/api/v2/users/me`,
  subject: 'id',
  claims: { preferred_username: 'username', picture: 'avatar_url' },
  token_header: 'Coder-Session-Token',
}

describe('the profile coder', () => {
  test('fills in what is right for Coder, and no more', () => {
    const { providers, apis } = parsed(file())
    const { providers: plain } = parsed({ ...file({}), providers: { coder: { issuer } } })
    expect(providers['coder']).toEqual({ ...plain['coder'], profile: 'coder', grants: 'per-user', account })
    expect(apis['coder']?.token_header).toBe('Coder-Session-Token')
  })

  test('is found in the example of a stage file', () => {
    const example = readFileSync(join(import.meta.dirname, '../../infra/stages/coder.example.json'), 'utf8')
    const { providers, apis } = parsed(JSON.parse(example))
    expect([providers['coder']?.grants, providers['coder']?.account]).toEqual(['per-user', account])
    expect(apis['coder']?.token_header).toBe('Coder-Session-Token')
  })

  test('gives way to what the stage says', () => {
    const own = { claims: { nick: 'username' }, token_header: 'Authorization' }
    const { providers } = parsed(file({ account: own, resource: `${issuer}/`, scopes: ['coder:all'] }))
    expect(providers['coder']?.account).toEqual({ ...account, ...own })
    const header = parsed(file({}, { coder: { provider: 'coder', target, token_header: 'Authorization' } }))
    expect(header.apis['coder']?.token_header).toBe('Authorization')
  })

  test('has its say on calls of Coder only', () => {
    const other = { provider: 'coder', target: 'https://other.example.com' }
    const { apis } = parsed(file({}, { other }))
    expect(apis['other']?.token_header).toBeUndefined()
  })

  test.each([
    [{ grants: 'per-session' }, 'providers.coder.grants: must be per-user, or left out: Coder keeps one live grant'],
    [{ resource: 'https://api.example.com' }, 'providers.coder.resource: must be the issuer, or left out'],
    [{ resource: `${issuer}/api/experimental/mcp/http` }, 'providers.coder.resource: must be the issuer'],
    [{ scopes: ['openid', 'coder:all', 'offline_access'] }, 'must not hold openid, offline_access: Coder does not'],
    [{ rotation: { mode: 'in-place' } }, 'providers.coder.rotation: must be of mode successor or off: Coder knows no'],
    [{ rotation: { mode: 'keys' } }, 'providers.coder.rotation: must be of mode successor or off: Coder knows no'],
    [{ profile: 'koder' }, 'providers.coder.profile: must be one of coder'],
    [{ profile: 1 }, 'providers.coder.profile: must be one of coder'],
    [{ issuer: undefined }, 'providers.coder.issuer: '],
    [{ issuer: 'coder.example.com' }, 'providers.coder.issuer: must be an absolute URL'],
    [{ account: 'me' }, 'providers.coder.account: must be an object'],
    [{ account: null }, 'providers.coder.account: must be an object'],
    [{ account: { url: 'https://elsewhere.example.com/me' } }, "account.url: must be on the issuer's origin"],
    [{ account: { token_header: 'Cookie' } }, 'account.token_header: must be a header that can carry a token'],
  ])('%j is refused in words', (provider, words) => {
    expect(faultsOf(file(provider)).join('\n')).toContain(words)
    expect(faultsOf(file(provider))).toHaveLength(1)
  })

  test.each(['host', 'Content-Length', 'X-CSRF', 'proxy-authorization', 'sec-token', 'a b', 'a\r\nb', '', '-a'])(
    'a token header %j is refused',
    (name) => {
      const [fault] = faultsOf(file({}, { coder: { provider: 'coder', target, token_header: name } }))
      expect(fault).toMatch(/^apis\.coder\.token_header: must be/)
    },
  )

  test.each([
    [null],
    [[]],
    ['stage'],
    [{ providers: [] }],
    [{ providers: { a: null, b: [], c: 1 }, apis: null }],
    [{ ...file(), apis: { a: null, b: { provider: 'toString', target: 1 }, c: { provider: {} } } }],
    [JSON.parse(`{"providers":{"__proto__":{"profile":"coder"}},"apis":{"x":{"provider":"__proto__"}}}`)],
  ])('a stage that is none is refused as without it: %j', (content) => {
    expect(faultsOf(content).length).toBeGreaterThan(0)
    expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('profile')
  })
})

describe('the advice of a profile', () => {
  const failure = new Failure('metadata_invalid', { detail: 'no metadata' })

  test('follows what went wrong', () => {
    expect(withAdvice(failure, 'coder')).toMatchObject({
      reason: 'metadata_invalid',
      detail: expect.stringMatching(/^no metadata\. .*CODER_OAUTH2_PROVIDER_ENABLE=true.*CODER_EXPERIMENTS=oauth2/),
    })
  })

  test.each([
    [failure, undefined],
    [new Failure('server_timeout'), 'coder'],
    [
      new Failure('metadata_invalid', { detail: 'answered 404; this is Coder 2.38.1, and its provider is off' }),
      'coder',
    ],
    [new Error('other'), 'coder'],
    ['text', 'coder'],
  ] as const)('is left out where there is none: %s, %s', (error, profile) => {
    expect(withAdvice(error, profile)).toBe(error)
  })
})
