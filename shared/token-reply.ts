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

/**
 * The members of a token reply that Coatcheck reads, with nothing in them that could be misread: tokens that a header can carry, type Bearer,
 * a lifetime in whole seconds.
 * @throws token_reply_invalid
 * @see RFC 6749 section 5.1
 */
export const checkTokenReply = (body: Record<string, unknown>): Record<string, unknown> => {
  for (const name of ['access_token', 'refresh_token']) {
    const token = body[name]
    if ((name === 'refresh_token' && token === undefined) || (typeof token === 'string' && TOKEN.test(token))) continue
    throw new Failure('token_reply_invalid', { detail: `${name} is missing or malformed` })
  }
  if (typeof body['token_type'] !== 'string' || body['token_type'].toLowerCase() !== 'bearer') {
    throw new Failure('token_reply_invalid', { detail: 'token_type is not Bearer' })
  }
  const members = ['access_token', 'token_type', 'refresh_token', 'id_token', 'scope'].flatMap((name) =>
    body[name] === undefined || body[name] === null ? [] : [[name, body[name]] as const],
  )
  return { ...Object.fromEntries(members), expires_in: lifetime(body['expires_in']) ?? DEFAULT_LIFETIME_SECONDS }
}
