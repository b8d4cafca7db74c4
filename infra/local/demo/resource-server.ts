import { createHash } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { listen } from '../edge.ts'
import { createTokenCheck, InvalidToken, type TokenFacts } from './access-token.ts'

export interface ResourceServerOptions {
  /** 0 takes a free port. */
  port: number
  /** The authorization server whose tokens are accepted. */
  issuer: string
  /**
   * The `aud` that a JWT access token must have; its own URL where left out. `any` is for an authorization server that
   * cannot be asked for tokens of this resource; no resource server but a demo's may be so trusting (RFC 9068 section 4).
   */
  audience?: string
}

export interface ResourceServer {
  url: string
  close(): Promise<void>
}

interface Call {
  method: string
  path: string
  query: URLSearchParams
  rawQuery: string
  headers: IncomingMessage['headers']
  body: Buffer
  token: string
  facts: TokenFacts
}

interface Answer {
  status: number
  headers?: Record<string, string | string[]>
  /** JSON, or bytes as they are. */
  body?: unknown
}

const bodyless = new Set([204, 205, 304])
const longestWaitMs = 60_000
const mostBytes = 10_000_000

/** A number of the query, between 0 and `most`. */
const amount = (query: URLSearchParams, name: string, most: number): number =>
  Math.min(Math.max(Math.trunc(Number(query.get(name)) || 0), 0), most)

const textOf = (bytes: Buffer): string | null => {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return null
  }
}

const whoami = ({ facts }: Call): Answer => {
  const { subject, scopes, expiresAtSeconds, issuer, kind } = facts
  return {
    status: 200,
    body: {
      subject,
      scopes,
      expires_at: expiresAtSeconds === null ? null : new Date(expiresAtSeconds * 1000).toISOString(),
      expires_in_seconds: expiresAtSeconds === null ? null : expiresAtSeconds - Math.floor(Date.now() / 1000),
      issuer,
      token: kind,
    },
  }
}

/** What reached the server; of the token only its length and the start of its hash, so that a change of token shows. */
const echo = ({ method, path, query, rawQuery, headers, body, token }: Call): Answer => {
  const hash = createHash('sha256').update(token).digest('hex').slice(0, 12)
  return {
    status: 200,
    body: {
      method,
      path,
      query: { raw: rawQuery, parsed: [...query] },
      headers: { ...headers, authorization: `Bearer [redacted ${token.length} characters, sha256 ${hash}]` },
      body: body.length === 0 ? null : textOf(body),
      body_base64: body.toString('base64'),
      body_bytes: body.length,
    },
  }
}

const status = ({ path }: Call): Answer => {
  const code = Number(path.slice('/status/'.length))
  if (!/^\/status\/\d{3}$/.test(path) || code < 200 || code > 599) {
    return { status: 400, body: { error: 'invalid_status', error_description: 'A status is between 200 and 599.' } }
  }
  const headers: Answer['headers'] = {}
  if (code >= 300 && code < 400 && code !== 304) headers['location'] = '/whoami'
  if (code === 401) headers['www-authenticate'] = 'Bearer error="invalid_token"'
  if (code === 429 || code === 503) headers['retry-after'] = '1'
  return { status: code, headers, body: { status: code } }
}

const cookies = (): Answer => ({
  status: 200,
  headers: { 'set-cookie': ['resource=1; Path=/', '__Host-Http-session=planted; Path=/; Secure; HttpOnly'] },
  body: { cookies: 2 },
})

const bytes = ({ query }: Call): Answer => ({
  status: 200,
  headers: { 'content-type': 'application/octet-stream' },
  body: Buffer.from(Uint8Array.from({ length: amount(query, 'n', mostBytes) }, (_, index) => index % 256)),
})

const slow = async ({ query }: Call): Promise<Answer> => {
  const waitedMs = amount(query, 'ms', longestWaitMs)
  await delay(waitedMs)
  return { status: 200, body: { waited_ms: waitedMs } }
}

const redirect = ({ query }: Call): Answer => ({
  status: 302,
  headers: { location: query.get('to') ?? '/whoami' },
  body: { redirects_to: query.get('to') ?? '/whoami' },
})

const routes: readonly [
  pattern: RegExp,
  methods: readonly string[] | 'any',
  answer: (call: Call) => Answer | Promise<Answer>,
][] = [
  [/^\/whoami$/, ['GET', 'HEAD'], whoami],
  [/^\/echo(\/|$)/, 'any', echo],
  [/^\/status\//, 'any', status],
  [/^\/slow$/, ['GET', 'HEAD'], slow],
  [/^\/cookies$/, ['GET', 'HEAD'], cookies],
  [/^\/bytes$/, ['GET', 'HEAD'], bytes],
  [/^\/redirect$/, ['GET', 'HEAD'], redirect],
]

const dispatch = async (call: Call): Promise<Answer> => {
  const found = routes.find(([pattern]) => pattern.test(call.path))
  if (!found) return { status: 404, body: { error: 'not_found', error_description: `There is no ${call.path} here.` } }
  const [, methods, answer] = found
  if (methods === 'any' || methods.includes(call.method)) return await answer(call)
  return { status: 405, headers: { allow: methods.join(', ') }, body: { error: 'method_not_allowed' } }
}

const send = (response: ServerResponse, { status: code, headers = {}, body }: Answer): void => {
  const content = body === undefined || body instanceof Buffer ? body : Buffer.from(JSON.stringify(body))
  const sent = bodyless.has(code) ? undefined : content
  response.writeHead(code, {
    'cache-control': 'no-store',
    ...(sent && { 'content-type': 'application/json', 'content-length': sent.length }),
    ...headers,
  })
  response.end(sent)
}

/**
 * Starts a resource server at `http://127.0.0.1:<port>` whose every route wants a valid access token (RFC 6750). It tells
 * what reached it (`/whoami`, `/echo`), and misbehaves on request (`/status/{code}`, `/slow`, `/cookies`, `/bytes`, `/redirect`).
 *
 * @throws an Error with the code EADDRINUSE where the port is taken
 */
export const startResourceServer = async (options: ResourceServerOptions): Promise<ResourceServer> => {
  let listener: RequestListener = (_request, response) => response.writeHead(503).end()
  const { port, close } = await listen((request, response) => listener(request, response), options.port, '127.0.0.1')
  const url = `http://127.0.0.1:${port}`
  const check = createTokenCheck(options.issuer, options.audience === 'any' ? undefined : (options.audience ?? url))

  const answer = async (request: IncomingMessage): Promise<Answer> => {
    const { method = 'GET', headers } = request
    const [path = '/', rawQuery = ''] = (request.url ?? '/').split(/\?(.*)/s)
    const body = await buffer(request)
    const token = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i.exec(headers.authorization ?? '')?.[1]
    if (token === undefined) {
      const challenge = { 'www-authenticate': `Bearer realm="${url}"` }
      return { status: 401, headers: challenge, body: { error: 'token_missing' } }
    }
    try {
      const facts = await check(token)
      return await dispatch({
        method,
        path,
        query: new URLSearchParams(rawQuery),
        rawQuery,
        headers,
        body,
        token,
        facts,
      })
    } catch (error) {
      if (!(error instanceof InvalidToken)) {
        const description = 'The authorization server could not be asked about the token.'
        return { status: 503, body: { error: 'temporarily_unavailable', error_description: description } }
      }
      const challenge = `Bearer realm="${url}", error="invalid_token", error_description="${error.message}"`
      const words = { error: 'invalid_token', error_description: error.message }
      return { status: 401, headers: { 'www-authenticate': challenge }, body: words }
    }
  }

  listener = (request, response) => {
    answer(request).then(
      (reply) => send(response, reply),
      () => response.destroy(),
    )
  }
  return { url, close }
}
