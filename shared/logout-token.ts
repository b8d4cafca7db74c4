import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose'
import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { Send } from './http.ts'
import type { Registration } from './registration-record.ts'

/** Logout tokens of OpenID Connect Back-Channel Logout 1.0: an authorization server's word, signed, that somebody signed out. */

/** Whom a logout token is about; one of `sid` and `sub` is there. */
export interface LogoutToken {
  issuer: string
  jti: string
  sid: string | undefined
  sub: string | undefined
}

const EVENT = 'http://schemas.openid.net/event/backchannel-logout'
const MAX_AGE_SECONDS = 300
const TOLERANCE_SECONDS = 60
const LIMIT_BYTES = 256 * 1024
const ASYMMETRIC = /^(?:RS|PS|ES)(?:256|384|512)$|^EdDSA$|^Ed25519$/

const invalid = (detail: string): Failure => new Failure('logout_token_invalid', { detail })

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' && value.length <= 512 ? value : undefined

/**
 * Verifies logout tokens: signature by the issuer's keys, `iss`, `aud` one of our clients, `iat` recent, `exp` where there is one, `jti`,
 * the event, no `nonce`, and `sid` or `sub`.
 * @throws logout_token_invalid, server_unreachable when the keys cannot be had
 * @see OpenID Connect Back-Channel Logout 1.0 section 2.6
 */
export const createLogoutTokens = ({ send, timeoutMs }: { send: Send; timeoutMs: number }) => {
  const keySets = new Map<string, ReturnType<typeof createRemoteJWKSet>>()

  const keysOf = (jwksUri: string): ReturnType<typeof createRemoteJWKSet> => {
    const known = keySets.get(jwksUri)
    if (known !== undefined) return known
    const keys = createRemoteJWKSet(new URL(jwksUri), {
      [customFetch]: async (url) => {
        const reply = await send({
          method: 'GET',
          url: new URL(url),
          headers: { accept: 'application/json', 'accept-encoding': 'identity' },
          timeoutMs,
          maxBytes: LIMIT_BYTES,
        })
        return new Response(Buffer.from(reply.body), {
          status: reply.status >= 200 && reply.status <= 599 ? reply.status : 502,
        })
      },
    })
    keySets.set(jwksUri, keys)
    return keys
  }

  return async (token: string, registration: Registration): Promise<LogoutToken> => {
    const { metadata, current, retiring } = registration
    if (metadata.jwks_uri === undefined) throw invalid('the server has no jwks_uri')
    const algorithms = (metadata.id_token_signing_alg_values_supported ?? ['RS256']).filter((name) =>
      ASYMMETRIC.test(name),
    )
    let verified: Awaited<ReturnType<typeof jwtVerify>>
    try {
      verified = await jwtVerify(token, keysOf(metadata.jwks_uri), {
        issuer: metadata.issuer,
        audience: [current, ...retiring].map((client) => client.client_id),
        algorithms,
        clockTolerance: TOLERANCE_SECONDS,
        maxTokenAge: MAX_AGE_SECONDS,
        requiredClaims: ['iat', 'jti', 'events'],
      })
    } catch (error) {
      if (error instanceof HttpFault && error.kind === 'address_refused')
        throw new Failure('server_address_refused', { detail: error.detail, cause: error })
      if (error instanceof HttpFault || error instanceof errors.JWKSTimeout) {
        throw new Failure('server_unreachable', { cause: error })
      }
      throw invalid(error instanceof errors.JOSEError ? error.code : 'not a signed token')
    }
    const { payload, protectedHeader } = verified
    // Tokens of another kind name it; a logout token may leave it out (section 2.4 only recommends it).
    const type = (protectedHeader.typ ?? 'logout+jwt').toLowerCase().replace(/^application\//, '')
    if (type !== 'logout+jwt' && type !== 'jwt') throw invalid('typ is of another kind of token')
    if ('nonce' in payload) throw invalid('it has a nonce')
    const events = payload['events']
    const event = typeof events === 'object' && events !== null ? (events as Record<string, unknown>)[EVENT] : undefined
    if (typeof event !== 'object' || event === null || Array.isArray(event))
      throw invalid('the logout event is missing')
    const jti = text(payload.jti)
    const sid = text(payload['sid'])
    const sub = text(payload.sub)
    if (jti === undefined) throw invalid('jti is missing')
    if ((payload['sid'] !== undefined && sid === undefined) || (payload.sub !== undefined && sub === undefined))
      throw invalid('sid or sub is malformed')
    if (sid === undefined && sub === undefined) throw invalid('neither sid nor sub')
    return { issuer: metadata.issuer, jti, sid, sub }
  }
}

export type LogoutTokens = ReturnType<typeof createLogoutTokens>
