import { describe, expect, test } from 'vitest'
import { parseStage } from '../../shared/config.ts'
import {
  exchangedTokens,
  resourcesOf,
  tokenOfRoute,
  withRouteToken,
  type RouteTokens,
} from '../../shared/route-tokens.ts'

/** What routes ask for, and how much of the answers a grant keeps. */

const nowMs = 1_900_000_000_000
const token = (name: string, endsInSeconds: number, exchanged = false) => ({
  access_token: name,
  expires: nowMs / 1_000 + endsInSeconds,
  fresh_until: nowMs / 1_000 + endsInSeconds - 10,
  exchanged,
})

describe('what is kept', () => {
  test('is the newest, beside those that have not ended', () => {
    const kept: RouteTokens = {
      good: token('good', 60),
      ended: token('ended', 0),
      refused: { reason: 'access_refused', detail: undefined, until_ms: nowMs + 1 },
      past: { reason: 'access_refused', detail: undefined, until_ms: nowMs },
      same: token('before', 30),
    }
    const tokens = withRouteToken(kept, 'same', token('new', 60), nowMs)
    expect(Object.keys(tokens).toSorted()).toEqual(['good', 'refused', 'same'])
    expect(tokens['same']).toMatchObject({ access_token: 'new' })
  })

  test('is no more than sixteen, the latest to end', () => {
    let tokens: RouteTokens = {}
    for (let index = 0; index < 40; index += 1)
      tokens = withRouteToken(tokens, `${index}`, token('t', 100 - index), nowMs)
    expect(Object.keys(tokens)).toHaveLength(16)
    expect(Object.keys(tokens)).toContain('39')
    expect(Object.keys(tokens)).toContain('0')
  })

  test('is no more than an item can hold, however large the tokens are', () => {
    let tokens: RouteTokens = {}
    for (let index = 0; index < 16; index += 1)
      tokens = withRouteToken(tokens, `${index}`, token(`${'x'.repeat(16_000)}${index}`, 60 + index), nowMs)
    const size = JSON.stringify(tokens).length
    expect([size < 98_000, size > 80_000, Object.keys(tokens).includes('15')]).toEqual([true, true, true])
  })

  test('is an exchanged token that was replaced ahead of its end, for it has to be revoked', () => {
    const first = withRouteToken({}, 'a', token('first', 60, true), nowMs)
    const second = withRouteToken(first, 'a', token('second', 90, true), nowMs)
    expect(exchangedTokens(second).toSorted()).toEqual(['first', 'second'])
    const later = withRouteToken(second, 'b', token('other', 120), nowMs + 70_000)
    expect(exchangedTokens(later)).toEqual(['second'])
  })
})

describe('a stage', () => {
  const providers = { main: { issuer: 'https://as.example.com', resource: 'https://api.example.com' } }
  const target = 'https://api.example.com'
  const stageOf = (apis: object, more: object = providers) =>
    parseStage({ origin: 'https://app.example.com', providers: more, apis })
  const api = (settings: object) => ({ provider: 'main', target, ...settings })

  test('asks for the resources of its provider and its routes, each once', () => {
    const result = stageOf({
      one: api({}),
      two: api({ resource: 'https://two.example.com' }),
      three: api({ resource: 'https://two.example.com' }),
      same: api({ resource: target }),
      reports: api({ exchange: { resource: 'https://reports.example.com' } }),
    })
    const stage = result.ok ? result.stage : undefined
    expect(stage && resourcesOf(stage, 'main')).toEqual([target, 'https://two.example.com'])
    expect(stage && resourcesOf(stage, 'other')).toEqual([])
  })

  test('has one token for routes that ask for the same, and others for others', () => {
    const name = (exchange: object) => {
      const result = stageOf({ one: api({ exchange }) })
      return result.ok && result.stage.apis['one'] && tokenOfRoute(result.stage.apis['one'])?.name
    }
    const names = [
      { audience: 'a' },
      { scope: 'a' },
      { audience: 'a', scope: 'a' },
      { resource: 'https://a.example.com' },
      { audience: 'a', requested_token_type: 'urn:ietf:params:oauth:token-type:jwt' },
    ].map(name)
    expect(new Set(names).size).toBe(names.length)
    expect(name({ scope: 'a', audience: 'a' })).toBe(names[2])
  })

  const resource = 'https://two.example.com'
  const many = Object.fromEntries(
    Array.from({ length: 17 }, (_, index) => [`api-${index}`, api({ exchange: { audience: `audience-${index}` } })]),
  )
  test.each<[string, object, object | undefined, string]>([
    ['both', { one: api({ resource, exchange: { audience: 'a' } }) }, undefined, 'apis.one.resource: must be left out'],
    ['an exchange for nothing', { one: api({ exchange: {} }) }, undefined, 'apis.one.exchange: must say what'],
    [
      'a resource beside none',
      { one: api({ resource }) },
      { main: { issuer: 'https://as.example.com' } },
      'apis.one.resource: must not stand alone: provider main needs a resource',
    ],
    ['too many tokens', many, undefined, 'apis: must not need more than 16 different tokens of provider main'],
    [
      'a token of Coder’s for others',
      { one: api({ exchange: { audience: 'a' } }) },
      { main: { profile: 'coder', issuer: 'https://coder.example.com' } },
      'apis.one: must not have resource or exchange: Coder',
    ],
  ])('with %s is refused in words', (_, apis, others, words) => {
    const result = stageOf(apis, others)
    expect(result.ok ? [] : result.faults).toEqual([expect.stringContaining(words)])
  })
})
