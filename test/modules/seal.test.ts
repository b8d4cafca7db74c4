import { describe, expect, test } from 'vitest'
import {
  accountOf,
  asHandle,
  codeChallenge,
  createSealer,
  hashHandle,
  newCodeVerifier,
  newHandle,
  parseSealingKeys,
  type Purpose,
  type SealingKeys,
} from '../../shared/seal.ts'
import { fc } from '../support/seeded.ts'

const keys: SealingKeys = {
  current: 'k2',
  keys: { k1: 'first key of at least thirty-two characters', k2: 'second key of at least thirty-two characters' },
}
const sealer = createSealer(async () => keys)
const purposes: Purpose[] = ['login', 'logout', 'session', 'grant']
const context = ['A#account', 'S#session']

describe('a sealed value', () => {
  test('opens to the same text, whatever it is', async () => {
    const same = fc.asyncProperty(fc.string({ unit: 'binary' }), async (text) => {
      expect(await sealer.open('session', context, await sealer.seal('session', context, text))).toBe(text)
    })
    await fc.assert(same, { numRuns: 200 })
  })

  test('is another one each time, and shows nothing of its text', async () => {
    const text = 'a secret that must not be seen'
    const values = await Promise.all(Array.from({ length: 20 }, () => sealer.seal('grant', context, text)))
    expect(new Set(values.map((value) => Buffer.from(value).toString('hex'))).size).toBe(20)
    for (const value of values) expect(Buffer.from(value).toString('latin1')).not.toContain(text.slice(0, 8))
  })

  test('opens for no other purpose, key or place', async () => {
    const sealed = await sealer.seal('session', context, 'text')
    for (const purpose of purposes.filter((one) => one !== 'session')) {
      expect(await sealer.open(purpose, context, sealed)).toBeUndefined()
    }
    const places = [
      [],
      ['A#account'],
      ['S#session', 'A#account'],
      [...context, ''],
      ['A#accountS#session'],
      ['A#other', 'S#session'],
    ]
    for (const place of places) expect(await sealer.open('session', place, sealed)).toBeUndefined()
  })

  test('does not open when any bit of it is another, when it is cut, or when it is longer', async () => {
    const sealed = Buffer.from(await sealer.seal('session', context, 'text'))
    for (let bit = 0; bit < sealed.length * 8; bit += 1) {
      const tampered = Buffer.from(sealed)
      tampered[bit >> 3] = (tampered[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(await sealer.open('session', context, tampered)).toBeUndefined()
    }
    for (let length = 0; length < sealed.length; length += 1) {
      expect(await sealer.open('session', context, sealed.subarray(0, length))).toBeUndefined()
    }
    expect(await sealer.open('session', context, Buffer.concat([sealed, Buffer.of(0)]))).toBeUndefined()
  })

  test('is judged whatever bytes come', async () => {
    const total = fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      expect(await sealer.open('login', context, bytes)).toBeUndefined()
    })
    await fc.assert(total, { numRuns: 500 })
    const wellBegun = fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (rest) => {
      const bytes = Buffer.concat([Buffer.of(1, 2), Buffer.from('k2'), rest])
      expect(await sealer.open('login', context, bytes)).toBeUndefined()
    })
    await fc.assert(wellBegun, { numRuns: 500 })
  })

  test('in a view of a larger buffer opens too', async () => {
    const sealed = await sealer.seal('session', context, 'text')
    const around = Buffer.concat([Buffer.alloc(7), sealed, Buffer.alloc(7)])
    expect(await sealer.open('session', context, around.subarray(7, 7 + sealed.length))).toBe('text')
  })
})

describe('keys that rotate', () => {
  const of = (current: string, ...ids: string[]) =>
    createSealer(async () => ({
      current,
      keys: Object.fromEntries(ids.map((id) => [id, keys.keys[id] ?? 'x'.repeat(40)])),
    }))

  test('what was sealed under the key before opens as long as that key is there', async () => {
    const old = await of('k1', 'k1').seal('grant', context, 'text')
    expect(await of('k2', 'k1', 'k2').open('grant', context, old)).toBe('text')
    expect(await of('k2', 'k2').open('grant', context, old)).toBeUndefined()
  })

  test('new values are sealed under the current key', async () => {
    const sealed = await of('k2', 'k1', 'k2').seal('grant', context, 'text')
    expect(await of('k1', 'k1').open('grant', context, sealed)).toBeUndefined()
    expect(await of('k2', 'k2').open('grant', context, sealed)).toBe('text')
  })

  test('the same id with another key opens nothing', async () => {
    const sealed = await sealer.seal('grant', context, 'text')
    const swapped = createSealer(async () => ({ current: 'k2', keys: { k2: 'y'.repeat(40) } }))
    expect(await swapped.open('grant', context, sealed)).toBeUndefined()
  })

  test.each(['constructor', '__proto__', 'toString', ''])('the key id %j is no key', async (id) => {
    const bytes = Buffer.concat([Buffer.of(1, Buffer.byteLength(id)), Buffer.from(id), Buffer.alloc(80)])
    expect(await sealer.open('grant', context, bytes)).toBeUndefined()
  })

  test.each([
    '',
    'null',
    '[]',
    '7',
    '"k1"',
    '{}',
    '{"current": "k1"}',
    '{"current": "k1", "k1": "short"}',
    '{"k1": "a key of at least thirty-two characters"}',
    '{"current": "constructor", "k1": "a key of at least thirty-two characters"}',
    '{"current": 1, "1": "a key of at least thirty-two characters"}',
    '{"current": "k1", "k1": {}}',
  ])('a secret that holds %s is told as one, without its value', (value) => {
    expect(() => parseSealingKeys(value)).toThrow(
      expect.objectContaining({ reason: 'secrets_unavailable', detail: expect.not.stringContaining('thirty') }),
    )
  })

  test('a secret as Secrets Manager makes it up is read', () => {
    const key = 'k'.repeat(64)
    expect(parseSealingKeys(JSON.stringify({ current: 'k1', k1: key, note: 'short' }))).toEqual({
      current: 'k1',
      keys: { k1: key },
    })
  })
})

describe('values that are ours', () => {
  test('handles are 256 random bits, and what the table knows of one is not the handle', () => {
    const handles = new Set(Array.from({ length: 1_000 }, newHandle))
    expect(handles.size).toBe(1_000)
    for (const handle of handles) {
      expect(Buffer.from(handle, 'base64url')).toHaveLength(32)
      expect(asHandle(handle)).toBe(handle)
      expect(hashHandle(handle)).not.toBe(handle)
    }
  })

  test.each(['', 'x'.repeat(42), 'x'.repeat(44), `${'x'.repeat(42)}=`, `${'x'.repeat(42)}+`, `${'x'.repeat(43)}\n`])(
    '%j is no handle',
    (text) => {
      expect(asHandle(text)).toBeUndefined()
    },
  )

  test('an account is one issuer and one subject, and nobody where there is no subject', () => {
    expect(accountOf('https://a', 'b')).toBe(accountOf('https://a', 'b'))
    expect(accountOf('https://a', 'b')).not.toBe(accountOf('https://ab', ''))
    expect(accountOf('https://a', 'b')).not.toBe(accountOf('https://a"', '"b'))
    expect(accountOf('https://a', undefined)).not.toBe(accountOf('https://a', undefined))
  })

  test('a verifier has the longest form of RFC 7636, and its challenge is S256', () => {
    expect(newCodeVerifier()).toMatch(/^[A-Za-z0-9_-]{128}$/)
    // The example of RFC 7636 appendix B.
    expect(codeChallenge('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk')).toBe(
      'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
    )
  })
})
