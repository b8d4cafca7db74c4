import { createRemoteJWKSet, decodeProtectedHeader, errors, jwtVerify } from 'jose'

/** What a resource server knows of an access token; null where the authorization server does not say. */
export interface TokenFacts {
  kind: 'jwt' | 'opaque'
  issuer: string
  subject: string | null
  scopes: string[] | null
  expiresAtSeconds: number | null
}

/** The token is not one to accept; the message is for RFC 6750's `error_description`. */
export class InvalidToken extends Error {}

const askedTimeoutMs = 5_000

const ask = async (url: string, headers: Record<string, string> = {}): Promise<Response> =>
  await fetch(url, { headers, redirect: 'error', signal: AbortSignal.timeout(askedTimeoutMs) })

const members = async (response: Response): Promise<Record<string, unknown>> => {
  const body: unknown = await response.json()
  return typeof body === 'object' && body !== null ? Object.fromEntries(Object.entries(body)) : {}
}

const textOf = (value: unknown): string | null => (typeof value === 'string' ? value : null)

/** The metadata of an issuer, where OpenID Connect Discovery 1.0 or else RFC 8414 puts it. */
const metadataOf = async (issuer: string): Promise<Record<string, unknown>> => {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/$/, '')
  const places = [
    `${origin}${path}/.well-known/openid-configuration`,
    `${origin}/.well-known/oauth-authorization-server${path}`,
  ]
  for (const place of places) {
    const response = await ask(place)
    if (!response.ok) continue
    const metadata = await members(response)
    if (metadata['issuer'] === issuer) return metadata
  }
  throw new Error(`no metadata of ${issuer}`)
}

const isProfiledJwt = (token: string): boolean => {
  try {
    const type = decodeProtectedHeader(token).typ?.toLowerCase()
    return type === 'at+jwt' || type === 'application/at+jwt'
  } catch {
    return false
  }
}

/**
 * Makes the check of access tokens of one issuer. A JWT access token (RFC 9068) must be signed by the issuer, be for
 * `audience` where one is told, and be alive; any other token means nothing to a resource server, so the issuer's UserInfo endpoint is asked.
 *
 * The check throws InvalidToken for a token to refuse, and other errors where the issuer could not be asked.
 */
export const createTokenCheck = (
  issuer: string,
  audience: string | undefined,
): ((token: string) => Promise<TokenFacts>) => {
  let known: Promise<{ keys: ReturnType<typeof createRemoteJWKSet>; userinfo: string | null }> | undefined

  const discover = async () => {
    const metadata = await metadataOf(issuer)
    const keys = createRemoteJWKSet(new URL(String(metadata['jwks_uri'])), { timeoutDuration: askedTimeoutMs })
    return { keys, userinfo: textOf(metadata['userinfo_endpoint']) }
  }

  const discovered = async () => {
    known ??= discover()
    try {
      return await known
    } catch (error) {
      known = undefined
      throw error
    }
  }

  const isFor = audience === undefined ? {} : { audience }
  const readJwt = async (token: string): Promise<TokenFacts> => {
    const { keys } = await discovered()
    try {
      const { payload } = await jwtVerify(token, keys, { issuer, ...isFor, requiredClaims: ['exp', 'sub'] })
      const scopes = (textOf(payload['scope']) ?? '').split(' ').filter(Boolean)
      const { sub: subject = null, exp: expiresAtSeconds = null } = payload
      return { kind: 'jwt', issuer, subject, scopes, expiresAtSeconds }
    } catch (error) {
      if (error instanceof errors.JWTExpired) throw new InvalidToken('The access token has expired', { cause: error })
      if (error instanceof errors.JWKSTimeout || !(error instanceof errors.JOSEError)) throw error
      throw new InvalidToken('The access token is not valid here', { cause: error })
    }
  }

  const askUserInfo = async (token: string): Promise<TokenFacts> => {
    const { userinfo } = await discovered()
    if (userinfo === null) throw new InvalidToken('The access token is of an unknown kind')
    const response = await ask(userinfo, { authorization: `Bearer ${token}` })
    if (response.status >= 500) throw new Error(`UserInfo answered ${response.status}`)
    if (!response.ok) throw new InvalidToken('The authorization server does not accept the access token')
    const subject = textOf((await members(response))['sub'])
    return { kind: 'opaque', issuer, subject, scopes: null, expiresAtSeconds: null }
  }

  return async (token) => await (isProfiledJwt(token) ? readJwt(token) : askUserInfo(token))
}
