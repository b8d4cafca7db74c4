import { Failure } from './errors.ts'
import type { Metadata } from './metadata.ts'

/** The authorization response as the browser brings it, before the OAuth library reads it. */

/** The error code of an OAuth error reply, cut to the characters that RFC 6749 allows. */
export const errorCode = (value: unknown): string =>
  typeof value === 'string' ? value.replace(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, '').slice(0, 64) : ''

/**
 * The response has each parameter once, comes from the issuer of these metadata, and carries a code and no error.
 * @throws parameter_duplicated, issuer_mismatch, request_invalid, login_denied, authorization_error, code_missing
 * @see RFC 6749 section 4.1.2, RFC 9207 section 2.4
 */
export const checkAuthorizationResponse = (parameters: URLSearchParams, metadata: Metadata): void => {
  for (const name of ['code', 'state', 'iss', 'error']) {
    if (parameters.getAll(name).length > 1) throw new Failure('parameter_duplicated', { detail: name })
  }
  const iss = parameters.get('iss')
  const expected = metadata.authorization_response_iss_parameter_supported === true || iss !== null
  if (expected && iss !== metadata.issuer) throw new Failure('issuer_mismatch')
  const error = parameters.get('error')
  if (error !== null && parameters.has('code')) throw new Failure('request_invalid', { detail: 'both code and error' })
  if (error === 'access_denied') throw new Failure('login_denied')
  if (error !== null) throw new Failure('authorization_error', { detail: errorCode(error) })
  const code = parameters.get('code')
  if (code === null || !/^[\x20-\x7e]{1,4096}$/.test(code)) throw new Failure('code_missing')
}
