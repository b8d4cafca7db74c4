import { request as requestPlain } from 'node:http'
import { request as requestSecure } from 'node:https'

/** One answer of a server, its body read whole. Header names are lower case; repeated ones are joined with `, `. */
export type Reply = {
  status: number
  headers: Record<string, string>
  setCookies: string[]
  bytes: Buffer
  text: string
  /** The body parsed as JSON, its members not checked. */
  json: () => Record<string, unknown>
}

/** Header lines in the order and spelling in which they go out; the same name may stand twice. */
export type HeaderLines = [name: string, value: string][]

/** What goes on the wire: `path` untouched, not even normalised, and header values as the bytes of their UTF-8. */
export type Exchange = {
  origin: string
  method: string
  path: string
  headers: HeaderLines
  body?: string | Uint8Array | undefined
  signal?: AbortSignal | undefined
  /** How long the whole answer may take. */
  deadlineMs?: number
}

/** Sends one request on a connection of its own and resolves with the whole answer; redirects are not followed. */
export const exchange = ({
  origin,
  method,
  path,
  headers,
  body,
  signal,
  deadlineMs = 25_000,
}: Exchange): Promise<Reply> => {
  const { promise, resolve, reject } = Promise.withResolvers<Reply>()
  const target = new URL(origin)
  const named = new Set(headers.map(([name]) => name.toLowerCase()))
  const payload = body === undefined ? undefined : Buffer.from(body)
  const lines: HeaderLines = [...(named.has('host') ? [] : ([['Host', target.host]] as HeaderLines)), ...headers]
  const sendsBody = payload !== undefined || !['GET', 'HEAD', 'DELETE', 'OPTIONS'].includes(method)
  if (sendsBody && !named.has('content-length') && !named.has('transfer-encoding')) {
    lines.push(['Content-Length', String(payload?.length ?? 0)])
  }
  if (!named.has('connection')) lines.push(['Connection', 'close'])
  const secure = target.protocol === 'https:'
  const outgoing = (secure ? requestSecure : requestPlain)({
    host: target.hostname.replace(/^\[|\]$/g, ''),
    port: target.port === '' ? (secure ? 443 : 80) : target.port,
    method,
    path,
    headers: lines.flatMap(([name, value]) => [name, Buffer.from(value, 'utf8').toString('latin1')]),
    agent: false,
    signal: AbortSignal.any([AbortSignal.timeout(deadlineMs), ...(signal ? [signal] : [])]),
  })
  outgoing.on('error', reject)
  outgoing.on('response', (incoming) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('error', reject)
    incoming.on('end', () => {
      const bytes = Buffer.concat(chunks)
      const flat = Object.entries(incoming.headersDistinct).map(([name, values]) => [name, (values ?? []).join(', ')])
      resolve({
        status: incoming.statusCode ?? 0,
        headers: Object.fromEntries(flat),
        setCookies: incoming.headers['set-cookie'] ?? [],
        bytes,
        text: bytes.toString('utf8'),
        json: () => JSON.parse(bytes.toString('utf8')),
      })
    })
  })
  outgoing.end(payload)
  return promise
}
