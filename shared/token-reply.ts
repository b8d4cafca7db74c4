import { Failure } from './errors.ts'

/** What a token endpoint answered, before the OAuth library reads it: the library is more lenient than a header or a clock can be. */

/** Assumed where the server does not tell a lifetime. */
export const DEFAULT_LIFETIME_SECONDS = 300

/** RFC 6749 appendix A.12: visible characters; a header cannot carry others. */
const TOKEN = /^[\x21-\x7e]{1,16384}$/

const lifetime = (value: unknown): number | undefined => {
  if (value === undefined || value === null) return undefined
  const number = typeof value === 'string' && /^\d{1,10}$/.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isFinite(number) || number < 0 || number > 9_999_999_999) {
    throw new Failure('token_reply_invalid', { detail: 'expires_in is not a number of seconds' })
  }
  return Math.floor(number)
}

const ID_TOKEN_MAX_AGE_SECONDS = 3_600
/** The year 9999: what is later is no time. */
const LAST_SECOND = 253_402_300_799

/** Whether that can name a user: at most 255 characters, each of which can be seen (OpenID Connect Core section 2). */
export const isSubject = (value: unknown): value is string =>
  typeof value === 'string' && /^[^\p{C}]{1,255}$/u.test(value) && value.trim() !== ''

/** What the OAuth library lets pass of an ID token's claims: nobody named, another time than that of this login; undefined where all is right. */
export const faultOfClaims = (
  claims: Readonly<Record<string, unknown>> | undefined,
  nowSeconds: number,
  toleranceSeconds: number,
): string | undefined => {
  if (!isSubject(claims?.['sub'])) return 'sub names nobody'
  if (!(Number(claims['exp']) <= LAST_SECOND)) return 'exp is no time'
  const ageSeconds = nowSeconds - Number(claims['iat'])
  const isRecent = ageSeconds > -toleranceSeconds && ageSeconds < ID_TOKEN_MAX_AGE_SECONDS
  return isRecent ? undefined : 'iat is not recent'
}

/** The members of a token reply that Coatcheck reads. */
export type CheckedTokenReply = {
  access_token: string
  refresh_token: string | undefined
  scope: string | undefined
  expires_in: number
  /** `token_type` and, where it came, `id_token`, which the OAuth library checks. */
  [member: string]: unknown
}

const token = (body: Record<string, unknown>, name: string): string => {
  const value = body[name]
  if (typeof value === 'string' && TOKEN.test(value)) return value
  throw new Failure('token_reply_invalid', { detail: `${name} is missing or malformed` })
}

/**
 * The members of a token reply that Coatcheck reads, with nothing in them that could be misread: tokens that a header can carry, type Bearer,
 * a lifetime in whole seconds.
 * @throws token_reply_invalid
 * @see RFC 6749 section 5.1
 */
export const checkTokenReply = (body: Record<string, unknown>): CheckedTokenReply => {
  const access = token(body, 'access_token')
  // Some servers write null for what there is none of.
  const hasRefresh = body['refresh_token'] !== undefined && body['refresh_token'] !== null
  const refresh = hasRefresh ? token(body, 'refresh_token') : undefined
  if (typeof body['token_type'] !== 'string' || body['token_type'].toLowerCase() !== 'bearer') {
    throw new Failure('token_reply_invalid', { detail: 'token_type is not Bearer' })
  }
  const scope = body['scope'] ?? undefined
  if (scope !== undefined && typeof scope !== 'string') {
    throw new Failure('token_reply_invalid', { detail: 'scope is not a string' })
  }
  const others = ['token_type', 'id_token'].flatMap((name) =>
    body[name] === undefined || body[name] === null ? [] : [[name, body[name]] as const],
  )
  const expires_in = lifetime(body['expires_in']) ?? DEFAULT_LIFETIME_SECONDS
  return { access_token: access, refresh_token: refresh, scope, ...Object.fromEntries(others), expires_in }
}

/** What an exchange may lead to: tokens that a call can carry (RFC 8693 section 3). */
const USABLE_TYPES = ['urn:ietf:params:oauth:token-type:access_token', 'urn:ietf:params:oauth:token-type:jwt']

/**
 * The same of the reply to an exchange, which says besides what kind of token it issued.
 * @throws token_reply_invalid
 * @see RFC 8693 section 2.2.1
 */
export const checkExchangeReply = (body: Record<string, unknown>): CheckedTokenReply => {
  if (!USABLE_TYPES.some((type) => type === body['issued_token_type']))
    throw new Failure('token_reply_invalid', { detail: 'issued_token_type is not one of an access token' })
  const { id_token: _, ...reply } = checkTokenReply(body)
  return reply
}
