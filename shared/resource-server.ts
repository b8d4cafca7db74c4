import type { Api, Stage } from './config.ts'
import { Failure } from './errors.ts'
import { HttpFault, tokenHeaders } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import type { Reply, Request } from './message.ts'

/** A call at a resource server: which route, which path, which headers in and out. The token is the caller's business. */

/** A call that may go out. */
export interface Call {
  api: Api
  url: URL
}

/** What Lambda can still hand back as base64 within its 6 MB, with room for headers. */
const MAX_REPLY_BYTES = 4_400_000
const SEGMENT_LIMIT_CHARACTERS = 1_024

/**
 * Names under which resource servers take a token from elsewhere than the bearer header, and some believe it sooner: `access_token`
 * (RFC 6750 section 2.3), `coder_session_token`, `Coder-Session-Token`, `private_token` and their kind. Tokens that speak for nobody,
 * such as `page_token` or `X-CSRF-Token`, are not among them.
 */
const CREDENTIAL = /(^|[-_. ])(access|auth|bearer|private|session)[-_. ]?token$/i

/** Whether a parameter of the query is called like a credential, in any of the ways in which servers take queries apart. */
const hasCredential = (rawQuery: string): boolean =>
  [...new URLSearchParams(rawQuery.replaceAll(';', '&')).keys()].some((name) =>
    CREDENTIAL.test(name.replace(/\[.*$/s, '').trim()),
  )

/**
 * The URL of a call: the route's target and the path's segments behind it, each encoded again from its decoded form, so that what was
 * checked is what is sent. The query goes as it is, or not at all: one that brings a credential is refused.
 * @throws api_unknown, method_not_allowed, path_invalid, request_invalid
 * @see RFC 10017 section 6.1.3.6
 */
export const resolveCall = (stage: Stage, request: Request): Call => {
  const name = request.pathParameters['api'] ?? ''
  const api = Object.hasOwn(stage.apis, name) ? stage.apis[name] : undefined
  if (api === undefined) throw new Failure('api_unknown', { detail: name.slice(0, 64) })
  if (!api.methods.some((method) => method === request.method))
    throw new Failure('method_not_allowed', { allow: api.methods })

  const prefix = `/api/${name}/`
  if (!request.path.startsWith(prefix)) throw new Failure('path_invalid')
  const segments = request.path.slice(prefix.length).split('/')
  for (const [index, segment] of segments.entries()) {
    const last = index === segments.length - 1
    // A percent sign left after decoding is an encoding within an encoding; ? and # would move what follows out of the path.
    if (
      (segment === '' && !last) ||
      segment.length > SEGMENT_LIMIT_CHARACTERS ||
      /^\.{1,2}(;|$)/.test(segment) ||
      // oxlint-disable-next-line no-control-regex -- control characters are what is refused
      /[\u0000-\u001f\u007f-\u009f\\%?#\ufffd]/.test(segment) ||
      !segment.isWellFormed()
    ) {
      throw new Failure('path_invalid')
    }
  }
  const base = api.target.replace(/\/$/, '')
  const url = new URL(`${base}/${segments.map(encodeURIComponent).join('/')}`)
  const target = new URL(`${base}/`)
  if (url.origin !== target.origin || !url.pathname.startsWith(target.pathname)) throw new Failure('path_invalid')
  // Only characters that no parser of a request line splits at.
  if (!/^[\x21-\x7e]*$/.test(request.rawQuery) || request.rawQuery.includes('#')) throw new Failure('request_invalid')
  if (hasCredential(request.rawQuery)) throw new Failure('request_invalid', { detail: 'a credential in the query' })
  if (request.rawQuery !== '') url.search = `?${request.rawQuery}`
  return { api, url }
}

const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]

/** What only the connection, our own protocol or a proxy in front may say; a resource server that trusts it must not hear it from a browser. */
const KEPT_FROM_RESOURCE_SERVER = new Set([
  ...HOP_BY_HOP,
  'host',
  'content-length',
  'expect',
  'cookie',
  'authorization',
  'x-csrf',
  'origin',
  'referer',
  'forwarded',
  'via',
  'front-end-https',
  'true-client-ip',
  'client-ip',
  'fastly-client-ip',
  'x-forwarded',
  'x-host',
  'remote-user',
  'from',
])
const KEPT_PREFIXES = [
  'x-forwarded-',
  'x-original-',
  'x-rewrite-',
  'x-real-',
  'x-client-',
  'x-cluster-client-',
  'x-remote-',
  'x-user',
  'x-auth',
  'x-webauth-',
  'x-consumer-',
  'x-credential-',
  'x-pomerium-',
  'x-vouch-',
  'x-goog-authenticated-user-',
  'x-goog-iap-',
  'x-ms-client-principal',
  'x-appengine-',
  'tailscale-',
  'x-amz',
  'x-apigateway-',
  'x-envoy-',
  'x-http-method',
  'x-method-override',
  'x-middleware-',
  'x-ssl-',
  'ssl-',
  'cf-',
  'cloudfront-',
  'sec-',
  'proxy-',
]

/** What the resource server hears: nothing of the browser's that speaks for somebody, and exactly one token. @throws header_invalid */
const outgoingHeaders = (
  request: Request,
  accessToken: string,
  tokenHeader: string | undefined,
): Record<string, string> => {
  const listed = new Set((request.headers['connection'] ?? '').split(',').map((name) => name.trim().toLowerCase()))
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(request.headers)) {
    if (KEPT_FROM_RESOURCE_SERVER.has(name) || CREDENTIAL.test(name) || listed.has(name)) continue
    if (KEPT_PREFIXES.some((prefix) => name.startsWith(prefix))) continue
    if (!/^[a-z0-9-]{1,64}$/.test(name)) continue
    // oxlint-disable-next-line no-control-regex -- control characters are what is refused
    if (/[\u0000-\u0008\u000a-\u001f\u007f]|[^\u0000-\u00ff]/.test(value))
      throw new Failure('header_invalid', { detail: name })
    headers[name] = value
  }
  return { ...headers, ...tokenHeaders(accessToken, tokenHeader) }
}

const KEPT_FROM_BROWSER = new Set([
  ...HOP_BY_HOP,
  'set-cookie',
  'set-cookie2',
  'authorization',
  'content-length',
  'content-security-policy',
  'content-security-policy-report-only',
  'strict-transport-security',
  'clear-site-data',
  'refresh',
  'alt-svc',
  'nel',
  'report-to',
  'reporting-endpoints',
  'service-worker-allowed',
  'sourcemap',
  'x-sourcemap',
  'location',
  'content-location',
])

/** A redirect of the resource server, as seen from the browser: within the route, or nowhere. */
const rewrittenLocation = (call: Call, location: string, prefix: string): string | undefined => {
  if (!URL.canParse(location, call.url.href)) return undefined
  const url = new URL(location, call.url)
  const target = new URL(`${call.api.target.replace(/\/$/, '')}/`)
  if (url.origin !== target.origin || !url.pathname.startsWith(target.pathname)) return undefined
  return `${prefix}${url.pathname.slice(target.pathname.length)}${url.search}${url.hash}`
}

const replyHeaders = (
  call: Call,
  reply: IncomingReply,
  prefix: string,
  accessToken: string,
): Record<string, string> => {
  const connection = reply.headers
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => value.split(','))
  const listed = new Set(connection.map((name) => name.trim().toLowerCase()))
  const headers: Record<string, string> = {}
  for (const [spelling, value] of reply.headers) {
    const name = spelling.toLowerCase()
    // Some servers echo what they got; tokens never reach the browser.
    if (value.includes(accessToken)) continue
    if (name === 'location') {
      const location = rewrittenLocation(call, value, prefix)
      if (location !== undefined) headers['location'] = location
    }
    if (KEPT_FROM_BROWSER.has(name) || listed.has(name) || name.startsWith('access-control-')) continue
    // Only a bearer challenge is for scripts; others would make the browser ask for a password.
    if (name === 'www-authenticate' && !/^bearer\b/i.test(value)) continue
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`
  }
  return headers
}

const REPEATABLE = new Set(['GET', 'HEAD', 'PUT', 'DELETE'])

/**
 * The resource server's reply to the call, fit for the browser. Redirects are not followed. All attempts end by `byMs` (milliseconds since
 * the epoch).
 * @throws resource_server_unreachable, resource_server_address_refused, resource_server_timeout, resource_server_invalid, header_invalid
 */
export const forward = async (
  send: Send,
  call: Call,
  request: Request,
  accessToken: string,
  byMs: number,
): Promise<Reply> => {
  const outgoing = () => ({
    method: request.method,
    url: call.url,
    headers: outgoingHeaders(request, accessToken, call.api.token_header),
    body: request.body.length === 0 && ['GET', 'HEAD', 'DELETE'].includes(request.method) ? undefined : request.body,
    timeoutMs: Math.max(1, Math.min(call.api.timeout_seconds * 1_000, byMs - Date.now())),
    maxBytes: MAX_REPLY_BYTES,
  })
  const attempt = async (mayRepeat: boolean): Promise<IncomingReply> => {
    try {
      return await send(outgoing())
    } catch (error) {
      if (!(error instanceof HttpFault)) throw error
      // RFC 9110 section 9.2.2: a connection that was closed under us may be tried again for methods that can be repeated.
      if (error.kind === 'broken' && mayRepeat && REPEATABLE.has(request.method)) return await attempt(false)
      switch (error.kind) {
        case 'timeout':
          throw new Failure('resource_server_timeout', { cause: error })
        case 'too_large':
          throw new Failure('resource_server_invalid', {
            detail: `the reply is over ${MAX_REPLY_BYTES} bytes`,
            cause: error,
          })
        case 'address_refused':
          throw new Failure('resource_server_address_refused', { detail: error.detail, cause: error })
        case 'unreachable':
        case 'broken':
          throw new Failure('resource_server_unreachable', { cause: error })
      }
    }
  }
  const reply = await attempt(true)
  if (reply.status < 200 || reply.status > 599)
    throw new Failure('resource_server_invalid', { detail: `status ${reply.status}` })
  return {
    status: reply.status,
    headers: replyHeaders(call, reply, `/api/${request.pathParameters['api'] ?? ''}/`, accessToken),
    body: reply.body,
  }
}
