import * as z from 'zod/mini'
import { newSigningKey, random, signWith } from './seal.ts'

/** The keys of our client where it has no secret: it proves with a signature who it is (RFC 7523, private_key_jwt). ES256, nothing else. */

/** The one algorithm of our keys. */
export const CLIENT_KEY_ALGORITHM = 'ES256'
const ASSERTION_SECONDS = 60

/** 32 bytes in base64url. */
const coordinate = () => z.string().check(z.regex(/^[A-Za-z0-9_-]{43}$/))

/** A key as it is kept. Built when used, since a schema takes its time. */
export const clientKeySchema = () =>
  z.object({
    /** Its RFC 7638 thumbprint. */
    kid: z.string().check(z.regex(/^[A-Za-z0-9_-]{1,128}$/)),
    private_jwk: z.object({
      kty: z.literal('EC'),
      crv: z.literal('P-256'),
      x: coordinate(),
      y: coordinate(),
      d: coordinate(),
    }),
    /** Seconds since the epoch. */
    created_at: z.number(),
  })

export type ClientKey = z.infer<ReturnType<typeof clientKeySchema>>

/** A new key, made at that time (seconds since the epoch). */
export const newClientKey = (nowSeconds: number): ClientKey => {
  const { kid, x, y, d } = newSigningKey()
  return { kid, private_jwk: { kty: 'EC', crv: 'P-256', x, y, d }, created_at: nowSeconds }
}

/** What others may know of a key, as a JSON Web Key (RFC 7517 section 4). */
export const publicJwk = ({ kid, private_jwk: { kty, crv, x, y } }: ClientKey) => ({
  kty,
  crv,
  x,
  y,
  kid,
  alg: CLIENT_KEY_ALGORITHM,
  use: 'sig',
})

const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/**
 * An assertion that its bearer is this client, good for a minute and once: the issuer alone is its audience, so that no other server can
 * use it.
 * @see RFC 7523 section 3, RFC 7515 section 3.1; draft-ietf-oauth-rfc7523bis for the audience
 */
export const signAssertion = (
  key: ClientKey,
  { issuer, clientId, nowSeconds }: { issuer: string; clientId: string; nowSeconds: number },
): string => {
  const header = { alg: CLIENT_KEY_ALGORITHM, kid: key.kid }
  const claims = {
    iss: clientId,
    sub: clientId,
    aud: issuer,
    iat: nowSeconds,
    exp: nowSeconds + ASSERTION_SECONDS,
    jti: random(16),
  }
  const input = `${encoded(header)}.${encoded(claims)}`
  return `${input}.${signWith(key.private_jwk, input)}`
}
