import { describe, expect, test } from 'vitest'
import { checkStage } from '../../infra/stage-file.ts'
import { Failure } from '../../shared/errors.ts'
import { resolveCall } from '../../shared/resource-server.ts'
import type { Request } from '../../shared/message.ts'
import { fc } from '../support/seeded.ts'

const target = 'https://orders.example.com/base'
const stage = checkStage('test', {
  origin: 'https://app.example.com',
  providers: { main: { issuer: 'https://as.example.com' } },
  apis: { orders: { provider: 'main', target }, bare: { provider: 'main', target: 'https://orders.example.com' } },
})
const request = (path: string, rawQuery = '', api = 'orders'): Request => ({
  method: 'GET',
  path,
  pathParameters: { api },
  rawQuery,
  headers: {},
  cookies: '',
  body: new Uint8Array(),
  id: 'r',
})
/** The URL of a call, or the reason why there is none. */
const resolved = (path: string, rawQuery?: string, api?: string): URL | string => {
  try {
    return resolveCall(stage, request(path, rawQuery, api)).url
  } catch (error) {
    if (error instanceof Failure) return error.reason
    throw error
  }
}

const nasty = fc.constantFrom(
  '.',
  '..',
  '/',
  '//',
  '%',
  '%2e',
  '%2f',
  '%25',
  '\\',
  '?',
  '#',
  ';',
  '@',
  ':',
  '*',
  '\u0000',
  '\n',
  '\u0085',
  '\ufeff',
  '\u2024',
  '\uff0e',
  '\uff0f',
  '\ud800',
  '\ufffd',
  'ü',
  ' ',
)
const text = fc.array(
  fc.oneof(nasty, fc.string({ unit: 'binary', maxLength: 6 }), fc.stringMatching(/^[a-z0-9]{0,5}$/)),
  { maxLength: 9 },
)

describe.each(['orders', 'bare'])('a path of %s', (api) => {
  test('that is accepted is below the target, in exactly its own segments, for every parser that reads it again', () => {
    const prefix = api === 'orders' ? '/base/' : '/'
    const holds = fc.property(text, (parts) => {
      const path = parts.join('')
      const url = resolved(`/api/${api}/${path}`, '', api)
      if (typeof url === 'string') return url === 'path_invalid'
      const again = new URL(url.href)
      return (
        again.href === url.href &&
        url.origin === 'https://orders.example.com' &&
        url.pathname.startsWith(prefix) &&
        url.search === '' &&
        url.hash === '' &&
        /^[\x21-\x7e]+$/.test(url.pathname) &&
        url.pathname.slice(prefix.length).split('/').map(decodeURIComponent).join('/') === path
      )
    })
    fc.assert(holds, { numRuns: 20_000 })
  })

  test('that is plain is accepted', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9_~!$&'()*+,=:@ äß世-]{1,20}$/)
    const holds = fc.property(fc.array(segment, { minLength: 1, maxLength: 6 }), (segments) => {
      return typeof resolved(`/api/${api}/${segments.join('/')}`, '', api) !== 'string'
    })
    fc.assert(holds, { numRuns: 2_000 })
  })
})

test('a query is kept as it is, or refused', () => {
  const query = fc.array(
    fc.oneof(
      fc.constantFrom('?', '#', '&', '=', '%', '%00', '+', "'", '"', '<', ' ', '\n', 'é', '/../', '//'),
      fc.string({ maxLength: 5 }),
    ),
    { maxLength: 8 },
  )
  const holds = fc.property(query, (parts) => {
    const raw = parts.join('')
    const url = resolved('/api/orders/x', raw)
    if (typeof url === 'string') return url === 'request_invalid' && /[^\x21-\x7e]|#/.test(raw)
    // The URL standard encodes these four where they stand bare; they mean the same.
    const written = raw.replace(/["'<>]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`)
    return url.search === (raw === '' ? '' : `?${written}`) && url.hash === '' && url.pathname === '/base/x'
  })
  fc.assert(holds, { numRuns: 10_000 })
})

test.each(['/api/orders', '/api/ordersx/y', '/x/api/orders/y', '/api/bare/y', ''])(
  'the path %j is not one of this route',
  (path) => {
    expect(resolved(path)).toBe('path_invalid')
  },
)

test('a segment has at most 1,024 characters', () => {
  expect(resolved(`/api/orders/${'x'.repeat(1_024)}`)).toBeInstanceOf(URL)
  expect(resolved(`/api/orders/${'x'.repeat(1_025)}`)).toBe('path_invalid')
})
