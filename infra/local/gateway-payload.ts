import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { ACCOUNT_ID, REGION } from './aws-call.ts'

/**
 * An event of payload format 2.0.
 * Source: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
 */
export interface HttpApiEvent {
  version: '2.0'
  routeKey: string
  rawPath: string
  rawQueryString: string
  cookies?: string[]
  headers: Record<string, string>
  queryStringParameters?: Record<string, string>
  requestContext: {
    accountId: string
    apiId: string
    domainName: string
    domainPrefix: string
    http: { method: string; path: string; protocol: string; sourceIp: string; userAgent: string }
    requestId: string
    routeKey: string
    stage: '$default'
    time: string
    timeEpoch: number
  }
  pathParameters?: Record<string, string>
  body?: string
  isBase64Encoded: boolean
}

/** A response of the API, before Node writes it. */
export interface Reply {
  status: number
  headers: [string, string][]
  body: Uint8Array
  /** The function that was asked, where one was. */
  functionName?: string
}

/** The path of a request decoded once, and its query as sent. */
export interface Target {
  path: string
  query: string
}

/** What an event is made from. */
export interface EventParts {
  request: IncomingMessage
  requestId: string
  apiId: string
  routeKey: string
  target: Target
  parameters: Record<string, string>
  body: Buffer
}

const textTypes = /^(text\/[^;]*|application\/(json|xml|javascript))\s*(;|$)/i
const hopByHop = /^(connection|keep-alive|proxy-.*|te|trailers?|transfer-encoding|upgrade)$/i

/** The host name under which AWS would serve the API, which is also what its functions see as `host` behind CloudFront. */
export function apiHost(apiId: string): string {
  return `${apiId}.execute-api.${REGION}.amazonaws.com`
}

/**
 * The path decoded once, as an HTTP API hands it on, and the query as sent; undefined where the encoding is not valid UTF-8.
 * Seen on AWS: a decoded `?` ends the path. Not documented, so left encoded here for the function to refuse: `%2F`, `%5C`, `%25`.
 */
export function parseTarget(url: string): Target | undefined {
  if (!/^\/[\x21-\x7e]*$/.test(url)) return undefined
  const [path = '', ...query] = url.split('?')
  try {
    const decoded = path.split(/(%2f|%5c|%25)/i).map((part, i) => (i % 2 === 1 ? part : decodeURIComponent(part)))
    return { path: decoded.join('').split('?')[0] ?? '', query: query.join('?') }
  } catch {
    return undefined
  }
}

/** The event of payload format 2.0 for a request. */
export function toEvent({ request, requestId, apiId, routeKey, target, parameters, body }: EventParts): HttpApiEvent {
  const sourceIp = (request.socket.remoteAddress ?? '').replace('::ffff:', '')
  const { cookie = '', ...rest } = joinedHeaders(request)
  const forwardedFor = rest['x-forwarded-for'] ? `${rest['x-forwarded-for']}, ${sourceIp}` : sourceIp
  const now = new Date()
  const host = apiHost(apiId)
  const headers: Record<string, string> = {
    'content-length': String(body.length),
    ...rest,
    // CloudFront in front of the API names the API here; the origin that the browser sees is gone.
    host,
    'x-amzn-trace-id': traceId(rest['x-amzn-trace-id'], now),
    'x-forwarded-for': forwardedFor,
    'x-forwarded-port': String(request.socket.localPort ?? 0),
    'x-forwarded-proto': 'http',
  }
  const cookies = cookie
    .split(';')
    .map((pair) => pair.trim())
    .filter(Boolean)
  const query = joinedQuery(target.query)
  const isText = textTypes.test(headers['content-type'] ?? '')
  return {
    version: '2.0',
    routeKey,
    rawPath: target.path,
    rawQueryString: target.query,
    ...(cookies.length > 0 ? { cookies } : {}),
    headers,
    ...(Object.keys(query).length > 0 ? { queryStringParameters: query } : {}),
    requestContext: {
      accountId: ACCOUNT_ID,
      apiId,
      domainName: host,
      domainPrefix: apiId,
      http: {
        method: request.method ?? '',
        path: target.path,
        protocol: `HTTP/${request.httpVersion}`,
        sourceIp,
        userAgent: headers['user-agent'] ?? '',
      },
      requestId,
      routeKey,
      stage: '$default',
      time: clfTime(now),
      timeEpoch: now.getTime(),
    },
    ...(Object.keys(parameters).length > 0 ? { pathParameters: parameters } : {}),
    ...(body.length > 0 ? { body: body.toString(isText ? 'utf8' : 'base64') } : {}),
    isBase64Encoded: body.length > 0 && !isText,
  }
}

function joinedHeaders(request: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, values = []] of Object.entries(request.headersDistinct)) {
    if (!hopByHop.test(name)) headers[name] = values.join(name === 'cookie' ? ';' : ',')
  }
  return headers
}

function joinedQuery(query: string): Record<string, string> {
  const joined: Record<string, string> = {}
  for (const [name, value] of new URLSearchParams(query)) {
    joined[name] = Object.hasOwn(joined, name) ? `${joined[name]},${value}` : value
  }
  return joined
}

function traceId(given: string | undefined, now: Date): string {
  if (given && /Root=1-[0-9a-f]{8}-[0-9a-f]{24}/.test(given)) return given
  return `Root=1-${Math.floor(now.getTime() / 1000).toString(16)}-${randomBytes(12).toString('hex')}`
}

/** Common Log Format, as `requestContext.time` has it: `12/Mar/2026:19:03:58 +0000`. */
function clfTime(now: Date): string {
  const [, day, month, year, time] = now.toUTCString().split(' ')
  return `${day}/${month}/${year}:${time} +0000`
}

/** The response that a function's result stands for; throws where API Gateway calls the result malformed. */
export function toReply(result: unknown): Reply {
  if (result === null || result === undefined) throw new Error('the function returned nothing')
  if (typeof result !== 'object' || !('statusCode' in result)) {
    const body = typeof result === 'string' ? result : JSON.stringify(result)
    return { status: 200, headers: [['content-type', 'application/json']], body: Buffer.from(body) }
  }
  const {
    statusCode,
    headers = {},
    cookies = [],
    body = '',
    isBase64Encoded = false,
  } = result as Record<string, unknown>
  const status = Number(statusCode)
  if (!Number.isInteger(status) || status < 200 || status > 599) throw new Error(`statusCode is ${String(statusCode)}`)
  if (typeof body !== 'string') throw new Error('body is not a string')
  if (typeof headers !== 'object' || headers === null) throw new Error('headers is not an object')
  if (!Array.isArray(cookies)) throw new Error('cookies is not a list')
  const list = Object.entries(headers).map(([name, value]: [string, unknown]): [string, string] => {
    if (!['string', 'number', 'boolean'].includes(typeof value)) throw new Error(`header ${name} is not a string`)
    return [name.toLowerCase(), String(value)]
  })
  if (body !== '' && !list.some(([name]) => name === 'content-type')) {
    list.push(['content-type', 'text/plain;charset=UTF-8'])
  }
  for (const cookie of cookies as unknown[]) {
    if (typeof cookie !== 'string') throw new Error('a cookie is not a string')
    list.push(['set-cookie', cookie])
  }
  return { status, headers: list, body: Buffer.from(body, isBase64Encoded === true ? 'base64' : 'utf8') }
}

/** A reply in API Gateway's own words. */
export function message(status: number, text: string): Reply {
  const body = Buffer.from(JSON.stringify({ message: text }))
  return { status, headers: [['content-type', 'application/json']], body }
}

/** The reply is written to the client, without the headers that an HTTP API does not let through; throws where a header is invalid. */
export function writeReply(response: ServerResponse, { status, headers, body }: Reply, requestId: string): void {
  const sent = headers.filter(([name]) => !hopByHop.test(name) && name !== 'content-length')
  const hasBody = status !== 204 && status !== 304
  if (hasBody) sent.push(['content-length', String(body.length)])
  response.writeHead(status, [...sent, ['apigw-requestid', requestId]].flat())
  response.end(hasBody ? body : undefined)
}
