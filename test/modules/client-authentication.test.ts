import { calculateJwkThumbprint, createLocalJWKSet, jwtVerify } from 'jose'
import { describe, expect, test } from 'vitest'
import { authenticationOf } from '../../shared/client-authentication.ts'
import { newClientKey, publicJwk } from '../../shared/client-keys.ts'
import type { ClientKey } from '../../shared/client-keys.ts'
import type { AuthenticationMethod, Client } from '../../shared/client.ts'
import { newRegistration, parseRegistration } from '../../shared/registration-record.ts'

const nowMs = 1_795_282_800_123
const server = { issuer: 'https://as.example.com/tenant' }
const clientWith = (method: AuthenticationMethod, secret?: string, id = 'c1'): Client => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  redirect_uri: 'https://app.example.com/bff/callback/main',
})

/** What a client puts into a request: the form, and the Authorization header. */
const proofOf = (client: Client, keys: readonly ClientKey[] = []) => {
  const body = new URLSearchParams()
  const headers = new Headers()
  authenticationOf({ client, keys }, () => nowMs)(server, client, body, headers)
  return { form: Object.fromEntries(body), authorization: headers.get('authorization') }
}

describe('client_secret_basic', () => {
  test.each([
    ['c1', 's3cret-with_underscore', 'c1:s3cret-with_underscore'],
    ['urn:client', 'a:b', 'urn%3Aclient:a%3Ab'],
    ['c 1', '+/=%&', 'c+1:%2B%2F%3D%25%26'],
    ['c1', '~!*()', 'c1:%7E%21*%28%29'],
    ['c1', 'x'.repeat(4_096), `c1:${'x'.repeat(4_096)}`],
  ])('form-encodes %s and its secret', (id, secret, pair) => {
    const { form, authorization } = proofOf(clientWith('client_secret_basic', secret, id))
    expect(form).toEqual({})
    expect(Buffer.from(authorization?.slice('Basic '.length) ?? '', 'base64').toString()).toBe(pair)
  })
})

test('client_secret_post has both in the form, none only the client', () => {
  expect(proofOf(clientWith('client_secret_post', 'a:b+c'))).toEqual({
    form: { client_id: 'c1', client_secret: 'a:b+c' },
    authorization: null,
  })
  expect(proofOf(clientWith('none'))).toEqual({ form: { client_id: 'c1' }, authorization: null })
})

describe('private_key_jwt', () => {
  test('signs with the first key, for this issuer alone, for a minute', async () => {
    const keys = [newClientKey(1), newClientKey(2)]
    const { form, authorization } = proofOf(clientWith('private_key_jwt'), keys)
    expect(authorization).toBeNull()
    const published = createLocalJWKSet({ keys: keys.map(publicJwk) })
    const { payload, protectedHeader } = await jwtVerify(form['client_assertion'] ?? '', published, {
      currentDate: new Date(nowMs),
    })
    expect(protectedHeader).toEqual({ alg: 'ES256', kid: keys[0]?.kid })
    const iat = Math.floor(nowMs / 1_000)
    expect(payload).toEqual({
      iss: 'c1',
      sub: 'c1',
      aud: server.issuer,
      iat,
      exp: iat + 60,
      jti: expect.stringMatching(/^[\w-]{22}$/),
    })
  })

  test('without a key is not ready', () => {
    expect(() => proofOf(clientWith('private_key_jwt'))).toThrow(/not_registered/)
  })

  test('publishes nothing private, whatever is kept beside it', async () => {
    const key = newClientKey(1)
    const kept = { ...key.private_jwk, p: 'secret' }
    const jwk = publicJwk({ ...key, private_jwk: kept })
    expect(jwk.kid).toBe(await calculateJwkThumbprint(jwk))
    expect(Object.keys(jwk).toSorted()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'])
  })
})

describe('keys in a secret', () => {
  const metadata = { issuer: 'https://as', authorization_endpoint: 'https://as/a', token_endpoint: 'https://as/t' }
  const stored = (keys: unknown) =>
    parseRegistration(JSON.stringify({ ...newRegistration(metadata, clientWith('private_key_jwt')), keys }))

  test('are as they were written, and may be missing', () => {
    const keys = [newClientKey(1)]
    expect(stored(keys)?.keys).toEqual(keys)
    expect(stored(undefined)?.current.client_id).toBe('c1')
  })

  test.each([
    ['an RSA key', { kty: 'RSA' }],
    ['another curve', { crv: 'P-384' }],
    ['a public key', { d: undefined }],
    ['a coordinate that is too long', { x: 'A'.repeat(44) }],
    ['a coordinate in another alphabet', { y: `${'A'.repeat(42)}+` }],
  ])('that hold %s are none of ours', (_, change) => {
    const key = newClientKey(1)
    expect(stored([{ ...key, private_jwk: { ...key.private_jwk, ...change } }])).toBeUndefined()
  })
})
