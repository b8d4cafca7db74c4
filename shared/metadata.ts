import * as z from 'zod/mini'
import { Failure } from './errors.ts'
import type { Send } from './http.ts'
import { fetchWellKnown, wellKnownUrl } from './well-known.ts'

/** Authorization server metadata: fetched, judged and cut to what Coatcheck uses. RFC 8414 first, OpenID Connect Discovery second. */

/** Metadata are kept beside the client's credentials, in a secret of at most 64 KB. */
const KEPT_LIMIT_CHARACTERS = 32 * 1024
const ENDPOINT_LIMIT_CHARACTERS = 2_048

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
    response_modes_supported: strings,
    grant_types_supported: strings,
    code_challenge_methods_supported: strings,
    token_endpoint_auth_methods_supported: strings,
    token_endpoint_auth_signing_alg_values_supported: strings,
    id_token_signing_alg_values_supported: strings,
    authorization_response_iss_parameter_supported: z.optional(z.boolean()),
    backchannel_logout_supported: z.optional(z.boolean()),
    require_signed_request_object: z.optional(z.boolean()),
  })
}

export type Metadata = z.infer<ReturnType<typeof metadataSchema>>

/** The members of metadata that are URLs of endpoints. */
export const ENDPOINTS = [
  'authorization_endpoint',
  'token_endpoint',
  'registration_endpoint',
  'revocation_endpoint',
  'userinfo_endpoint',
  'jwks_uri',
  'end_session_endpoint',
  'pushed_authorization_request_endpoint',
] as const

/** The well-known URL of OpenID Connect Discovery section 4: appended to the path. */
const openidUrl = (issuer: URL): URL =>
  new URL(`${issuer.pathname.replace(/\/$/, '')}/.well-known/openid-configuration`, issuer)

const invalid = (detail: string): Failure => new Failure('metadata_invalid', { detail })

/** What a client calls directly may be elsewhere for those with a certificate (RFC 8705 section 5). */
const ALIASED: ReadonlySet<string> = new Set([
  'token_endpoint',
  'registration_endpoint',
  'revocation_endpoint',
  'userinfo_endpoint',
  'pushed_authorization_request_endpoint',
])

const withAliases = (value: unknown): unknown => {
  if (typeof value !== 'object' || value === null || !('mtls_endpoint_aliases' in value)) return value
  const { mtls_endpoint_aliases: aliases } = value
  if (typeof aliases !== 'object' || aliases === null) throw invalid('mtls_endpoint_aliases is not an object')
  return { ...value, ...Object.fromEntries(Object.entries(aliases).filter(([name]) => ALIASED.has(name))) }
}

/** Some servers write null for what they do not have, which RFC 8414 section 3.2 would have them leave out. */
const withoutNulls = (value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).filter(([, member]) => member !== null))
    : value

/** Another issuer as its metadata write it, where that can be shown. */
const shownIssuer = (issuer: string): string => (/^https?:\/\/[\x21-\x7e]{1,200}$/.test(issuer) ? `, ${issuer}` : '')

const judgeEndpoints = (metadata: Metadata, issuer: string, endpointOrigins: readonly string[]): void => {
  const { origin, protocol } = new URL(issuer)
  const allowed = new Set([origin, ...endpointOrigins])
  for (const name of ENDPOINTS) {
    const endpoint = metadata[name]
    if (endpoint === undefined) continue
    // Parsers drop line ends and blanks of their own accord.
    if (!URL.canParse(endpoint) || !/^[\x21-\x7e]+$/.test(endpoint)) throw invalid(`${name} is not a URL`)
    if (endpoint.length > ENDPOINT_LIMIT_CHARACTERS) throw invalid(`${name} is too long`)
    const url = new URL(endpoint)
    if (url.protocol !== protocol) throw invalid(`${name} is not ${protocol.slice(0, -1)}`)
    if (url.username !== '' || url.password !== '' || endpoint.includes('#')) {
      throw invalid(`${name} has user information or a fragment`)
    }
    if (!allowed.has(url.origin)) {
      throw invalid(`${name} is on another origin, ${url.origin}; list it in endpoint_origins if that is right`)
    }
  }
}

/**
 * The metadata are those of this issuer and can be used: endpoints are https (or http on loopback when the issuer is) and on an
 * allowed origin, S256 is announced, and a code can be asked for and comes back in a query.
 * With `mutualTls` they are those for clients with a certificate.
 * @throws metadata_invalid
 * @see RFC 8414 sections 2 and 3.3, RFC 9700 section 2.1.1, RFC 8705 section 5
 */
export const judgeMetadata = (
  value: unknown,
  issuer: string,
  endpointOrigins: readonly string[],
  mutualTls = false,
): Metadata => {
  const parsed = metadataSchema().safeParse(withoutNulls(mutualTls ? withAliases(value) : value))
  if (!parsed.success) {
    const members = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.')))].join(', ')
    throw invalid(`the metadata lack or misspell ${members}`)
  }
  const metadata = parsed.data
  if (metadata.issuer !== issuer) throw invalid(`the metadata are of another issuer${shownIssuer(metadata.issuer)}`)
  judgeEndpoints(metadata, issuer, endpointOrigins)
  const lacks = (supported: readonly string[] | undefined, needed: string) =>
    supported !== undefined && !supported.includes(needed)
  if (!(metadata.code_challenge_methods_supported ?? []).includes('S256')) {
    throw invalid('the server does not announce PKCE with S256 (code_challenge_methods_supported)')
  }
  if (lacks(metadata.response_types_supported, 'code')) {
    throw invalid('the server does not support response_type code (response_types_supported)')
  }
  if (lacks(metadata.response_modes_supported, 'query')) {
    throw invalid('the server does not send codes back in the query (response_modes_supported)')
  }
  if (lacks(metadata.grant_types_supported, 'authorization_code')) {
    throw invalid('the server does not support the authorization code grant (grant_types_supported)')
  }
  if (metadata.require_signed_request_object === true) {
    throw invalid('the server takes signed authorization requests only (require_signed_request_object)')
  }
  if (JSON.stringify(metadata).length > KEPT_LIMIT_CHARACTERS) {
    throw invalid(`what is to be kept of the metadata is over ${KEPT_LIMIT_CHARACTERS} characters`)
  }
  return metadata
}

/** A document that an issuer has where its metadata belong, not yet judged, and where that was. */
export interface MetadataDocument {
  value: Record<string, unknown>
  url: URL
}

/**
 * The metadata document of an issuer, read from the server and not yet judged.
 * @throws metadata_invalid, server_unreachable, server_address_refused, server_timeout, server_failed; the detail says in words why there is none
 * @see RFC 8414 section 3, OpenID Connect Discovery 1.0 section 4
 */
export const findMetadata = async (send: Send, issuer: string): Promise<MetadataDocument> => {
  const urls = [wellKnownUrl('oauth-authorization-server', new URL(issuer)), openidUrl(new URL(issuer))]
  const complaints: string[] = []
  let passing = false
  let advice: string | undefined
  for (const url of urls) {
    const document = await fetchWellKnown(send, url)
    if (document.kind === 'found') return { value: document.value, url }
    complaints.push(document.complaint)
    passing ||= document.passing
    // Coder answers with its page at the other place, whatever is on or off.
    if (complaints.length === 1) advice = document.advice
  }
  const detail = `no authorization server metadata: ${complaints.join('; ')}`
  if (passing) throw new Failure('server_failed', { detail })
  throw invalid(advice === undefined ? detail : `${detail}; ${advice}`)
}

/**
 * The metadata of an issuer, which can be used.
 * @throws metadata_invalid, server_unreachable, server_address_refused, server_timeout, server_failed; the detail says in words why a server
 * cannot be used
 */
export const discover = async (
  send: Send,
  issuer: string,
  endpointOrigins: readonly string[],
  mutualTls = false,
): Promise<Metadata> => judgeMetadata((await findMetadata(send, issuer)).value, issuer, endpointOrigins, mutualTls)
