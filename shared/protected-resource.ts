import * as z from 'zod/mini'
import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { fetchWellKnown, wellKnownUrl } from './well-known.ts'

/** Which authorization servers a resource server trusts and what it calls itself, found from its URL (RFC 9728). */

const NAME = 'oauth-protected-resource'
const PROBE_TIMEOUT_MS = 5_000
const PROBE_LIMIT_BYTES = 256 * 1024
const MAX_SERVERS = 8
const CHALLENGE_LIMIT_CHARACTERS = 4_096

/** What a resource server says of itself; members that Coatcheck does not read are dropped. */
export interface ProtectedResource {
  /** What to send as `resource` (RFC 8707), as the server writes it. */
  resource: string
  /** Issuers, at most eight, each https or on the loopback that the resource server is on. */
  authorizationServers: string[]
  scopes: string[]
}

/** The metadata of a resource server, or in words why there are none. */
export type ResourceDiscovery = { kind: 'found'; metadata: ProtectedResource } | { kind: 'missing'; complaint: string }

const invalid = (detail: string): Failure => new Failure('metadata_invalid', { detail })

const documentSchema = () => {
  const strings = z.optional(z.array(z.string()))
  return z.object({
    resource: z.string(),
    authorization_servers: strings,
    scopes_supported: strings,
    bearer_methods_supported: strings,
    dpop_bound_access_tokens_required: z.optional(z.boolean()),
  })
}

const shown = (text: string): string => (/^https?:\/\/[\x21-\x7e]{1,200}$/.test(text) ? text : 'something else')

/** Identical, character by character; but the path `/` may be left out, which URLs cannot express. */
const isSame = (resource: string, asked: URL): boolean =>
  resource === asked.href || (asked.pathname === '/' && asked.search === '' && resource === asked.origin)

const isIssuer = (text: string, asked: URL): boolean => {
  if (!URL.canParse(text) || !/^[\x21-\x7e]{1,2048}$/.test(text) || /[?#]/.test(text)) return false
  const url = new URL(text)
  if (url.username !== '' || url.password !== '') return false
  return url.protocol === 'https:' || (url.protocol === 'http:' && asked.protocol === 'http:')
}

/**
 * The document is that of the resource, which takes bearer tokens in a header.
 * @throws metadata_invalid
 * @see RFC 9728 sections 2, 3.3 and 7.6
 */
export const judgeResource = (value: unknown, asked: URL): ProtectedResource => {
  const parsed = documentSchema().safeParse(value)
  if (!parsed.success) {
    const members = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.')))].join(', ')
    throw invalid(`the resource's metadata lack or misspell ${members}`)
  }
  const { resource, authorization_servers: servers = [], ...rest } = parsed.data
  if (!isSame(resource, asked)) {
    throw invalid(`the resource's metadata are of another resource, ${shown(resource)}; ask about that one`)
  }
  const wrong = servers.find((server) => !isIssuer(server, asked))
  if (wrong !== undefined) throw invalid("the resource's metadata name an authorization server that is no https URL")
  if (rest.bearer_methods_supported?.includes('header') === false) {
    throw invalid('the resource takes no token in the Authorization header (bearer_methods_supported)')
  }
  if (rest.dpop_bound_access_tokens_required === true) {
    throw invalid('the resource takes tokens with DPoP only (dpop_bound_access_tokens_required)')
  }
  return {
    resource,
    authorizationServers: [...new Set(servers)].slice(0, MAX_SERVERS),
    scopes: rest.scopes_supported ?? [],
  }
}

/**
 * The `resource_metadata` of the Bearer challenges among `WWW-Authenticate` values, if all say the same.
 * @see RFC 9728 section 5.1, RFC 9110 section 11.6.1
 */
export const challengedMetadata = (values: readonly string[]): string | undefined => {
  const found = new Set<string>()
  for (const value of values) {
    let scheme = ''
    const token = "[!#$%&'*+.^_`|~\\w-]+"
    const part = new RegExp(`(${token})(?:\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))|(?==|[\\s,]|$))`, 'g')
    for (const [whole, name = '', quoted, plain] of value.slice(0, CHALLENGE_LIMIT_CHARACTERS).matchAll(part)) {
      if (!whole.includes('=')) scheme = name.toLowerCase()
      else if (scheme === 'bearer' && name.toLowerCase() === 'resource_metadata')
        found.add(quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '')
    }
  }
  return found.size === 1 ? [...found][0] : undefined
}

/** Where the resource server says that its metadata are when it is called without a token; only its own origin is believed. */
const probe = async (send: Send, url: URL): Promise<URL | string> => {
  let reply: IncomingReply
  try {
    reply = await send({
      method: 'GET',
      url,
      headers: { accept: 'application/json', 'accept-encoding': 'identity' },
      timeoutMs: PROBE_TIMEOUT_MS,
      maxBytes: PROBE_LIMIT_BYTES,
    })
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error
    return `gave no usable answer (${error.detail ?? error.kind})`
  }
  if (reply.status !== 401) return `answered ${reply.status}, not 401, to a call without a token`
  const values = reply.headers.flatMap(([name, value]) => (name.toLowerCase() === 'www-authenticate' ? [value] : []))
  const metadata = challengedMetadata(values)
  if (metadata === undefined) return 'names no resource_metadata in its WWW-Authenticate'
  if (!URL.canParse(metadata) || new URL(metadata).origin !== url.origin)
    return 'names a resource_metadata that is not on its origin'
  return new URL(metadata)
}

/**
 * The metadata of the resource at a URL: at its well-known URL, else where a 401 to a call without a token says.
 * @throws metadata_invalid, server_unreachable, server_address_refused, server_timeout
 * @see RFC 9728 sections 3 and 5
 */
export const discoverResource = async (
  send: Send,
  resource: URL,
  { challenge }: { challenge: boolean },
): Promise<ResourceDiscovery> => {
  const first = await fetchWellKnown(send, wellKnownUrl(NAME, resource))
  if (first.kind === 'found') return { kind: 'found', metadata: judgeResource(first.value, resource) }
  if (!challenge) return { kind: 'missing', complaint: first.complaint }
  const place = await probe(send, resource)
  if (typeof place === 'string')
    return { kind: 'missing', complaint: `${first.complaint}; ${resource.pathname} ${place}` }
  const second = await fetchWellKnown(send, place)
  if (second.kind === 'missing') return { kind: 'missing', complaint: `${first.complaint}; ${second.complaint}` }
  return { kind: 'found', metadata: judgeResource(second.value, resource) }
}
