import * as z from 'zod/mini'
import { Failure } from './errors.ts'
import { header, HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject } from './json-reply.ts'

/** Authorization server metadata: fetched, judged and cut to what Coatcheck uses. RFC 8414 first, OpenID Connect Discovery second. */

const LIMIT_BYTES = 256 * 1024
const TIMEOUT_MS = 5_000

/** The members that Coatcheck reads; all others are dropped. Built when used: a schema costs each cold start milliseconds. */
const metadataSchema = () => {
  const strings = z.optional(z.array(z.string()))
  return z.object({
    issuer: z.string(),
    authorization_endpoint: z.string(),
    token_endpoint: z.string(),
    registration_endpoint: z.optional(z.string()),
    revocation_endpoint: z.optional(z.string()),
    userinfo_endpoint: z.optional(z.string()),
    jwks_uri: z.optional(z.string()),
    end_session_endpoint: z.optional(z.string()),
    pushed_authorization_request_endpoint: z.optional(z.string()),
    scopes_supported: strings,
    response_types_supported: strings,
    grant_types_supported: strings,
    code_challenge_methods_supported: strings,
    token_endpoint_auth_methods_supported: strings,
    token_endpoint_auth_signing_alg_values_supported: strings,
    id_token_signing_alg_values_supported: strings,
    authorization_response_iss_parameter_supported: z.optional(z.boolean()),
    backchannel_logout_supported: z.optional(z.boolean()),
  })
}

export type Metadata = z.infer<ReturnType<typeof metadataSchema>>

const ENDPOINTS = [
  'authorization_endpoint',
  'token_endpoint',
  'registration_endpoint',
  'revocation_endpoint',
  'userinfo_endpoint',
  'jwks_uri',
  'end_session_endpoint',
  'pushed_authorization_request_endpoint',
] as const

/** The well-known URL of RFC 8414 section 3.1: inserted between host and path. */
const oauthUrl = (issuer: URL): URL => {
  const path = issuer.pathname === '/' ? '' : issuer.pathname.replace(/\/$/, '')
  return new URL(`/.well-known/oauth-authorization-server${path}`, issuer)
}

/** The well-known URL of OpenID Connect Discovery section 4: appended to the path. */
const openidUrl = (issuer: URL): URL =>
  new URL(`${issuer.pathname.replace(/\/$/, '')}/.well-known/openid-configuration`, issuer)

const invalid = (detail: string): Failure => new Failure('metadata_invalid', { detail })

/**
 * The metadata are those of this issuer and can be used: endpoints are https (or http on loopback when the issuer is) and on an
 * allowed origin, and S256 is announced.
 * @throws metadata_invalid
 * @see RFC 8414 sections 2 and 3.3, RFC 9700 section 2.1.1
 */
export const judgeMetadata = (value: unknown, issuer: string, endpointOrigins: readonly string[]): Metadata => {
  const parsed = metadataSchema().safeParse(value)
  if (!parsed.success) {
    const members = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.')))].join(', ')
    throw invalid(`the metadata lack or misspell ${members}`)
  }
  const metadata = parsed.data
  if (metadata.issuer !== issuer) throw invalid('the metadata are of another issuer')
  const allowed = new Set([new URL(issuer).origin, ...endpointOrigins])
  for (const name of ENDPOINTS) {
    const endpoint = metadata[name]
    if (endpoint === undefined) continue
    if (!URL.canParse(endpoint)) throw invalid(`${name} is not a URL`)
    const url = new URL(endpoint)
    if (url.protocol !== new URL(issuer).protocol)
      throw invalid(`${name} is not ${new URL(issuer).protocol.slice(0, -1)}`)
    if (url.username !== '' || url.password !== '' || url.hash !== '')
      throw invalid(`${name} has user information or a fragment`)
    if (!allowed.has(url.origin)) {
      throw invalid(`${name} is on another origin, ${url.origin}; list it in endpoint_origins if that is right`)
    }
  }
  if (!(metadata.code_challenge_methods_supported ?? []).includes('S256')) {
    throw invalid('the server does not announce PKCE with S256 (code_challenge_methods_supported)')
  }
  if (metadata.response_types_supported !== undefined && !metadata.response_types_supported.includes('code')) {
    throw invalid('the server does not support response_type code')
  }
  return metadata
}

/**
 * The metadata of an issuer, read from the server.
 * @throws metadata_invalid, server_unreachable, server_address_refused, server_timeout, server_failed; the detail says in words why a server cannot be used
 * @see RFC 8414 section 3, OpenID Connect Discovery 1.0 section 4
 */
export const discover = async (send: Send, issuer: string, endpointOrigins: readonly string[]): Promise<Metadata> => {
  const complaints: string[] = []
  for (const url of [oauthUrl(new URL(issuer)), openidUrl(new URL(issuer))]) {
    let reply: IncomingReply
    try {
      reply = await send({
        method: 'GET',
        url,
        headers: { accept: 'application/json', 'accept-encoding': 'identity' },
        timeoutMs: TIMEOUT_MS,
        maxBytes: LIMIT_BYTES,
      })
    } catch (error) {
      if (!(error instanceof HttpFault)) throw error
      if (error.kind === 'too_large') throw invalid(`the metadata at ${url.pathname} are over ${LIMIT_BYTES} bytes`)
      if (error.kind === 'address_refused')
        throw new Failure('server_address_refused', { detail: error.detail, cause: error })
      const reason = error.kind === 'timeout' ? 'server_timeout' : 'server_unreachable'
      throw new Failure(reason, { detail: `no answer from ${url.origin}`, cause: error })
    }
    if (reply.status >= 500) throw new Failure('server_failed', { detail: `${url.pathname} answered ${reply.status}` })
    if (reply.status !== 200) {
      complaints.push(`${url.pathname} answered ${reply.status}`)
      continue
    }
    const value = jsonObject(reply)
    if (value === undefined) {
      const type = header(reply, 'content-type') ?? 'no content type'
      complaints.push(`${url.pathname} holds no JSON object (content type: ${type.slice(0, 40)})`)
      continue
    }
    return judgeMetadata(value, issuer, endpointOrigins)
  }
  throw invalid(`no authorization server metadata: ${complaints.join('; ')}`)
}
