import http from 'node:http'
import https from 'node:https'
import { AddressRefused, judgedLookup, judgeLiteral } from './addresses.ts'
import type { MayConnect } from './addresses.ts'

/**
 * The one way out: a request over node's HTTP client, to addresses that may be called, with a deadline over all of it and a limit on what
 * comes back. Redirects are never followed, nothing is decompressed, and bytes stay bytes. `fetch` is avoided on purpose: loading it
 * costs a cold start 30 to 45 ms, and it decodes bodies that a proxy must pass on as they are.
 */

/** What we show a server that asks who connects (mutual TLS): PEM, our own certificate first. */
export interface Certificate {
  chain: string
  key: string
}

export interface OutgoingRequest {
  method: string
  url: URL
  headers: Record<string, string>
  body?: Uint8Array | undefined
  /** Deadline for connecting, sending and the whole reply, in milliseconds. */
  timeoutMs: number
  /** Most bytes of body that are read. */
  maxBytes: number
  /** Connections are shared only by calls that show the same one. */
  certificate?: Certificate | undefined
}

export interface IncomingReply {
  status: number
  /** In the order and spelling received, repeated ones kept. */
  headers: [name: string, value: string][]
  body: Uint8Array
}

/**
 * No usable reply came. `unreachable`: the request was surely not processed (no address, refused, TLS), nor was it with
 * `address_refused`, where the socket was never opened and `detail` says why in words; `timeout` and `broken`: it may have been; `too_large`: it was, and the reply is over the limit.
 */
export class HttpFault extends Error {
  readonly kind: 'unreachable' | 'address_refused' | 'timeout' | 'broken' | 'too_large'

  constructor(kind: HttpFault['kind'], cause?: unknown) {
    super(`outgoing request: ${kind}`, { cause })
    this.name = 'HttpFault'
    this.kind = kind
  }

  /** Whose address may not be called, and what to do about it. */
  get detail(): string | undefined {
    return this.kind === 'address_refused' && this.cause instanceof Error ? this.cause.message : undefined
  }
}

export type Send = (request: OutgoingRequest) => Promise<IncomingReply>

/** The first value of a header, whatever its spelling. */
export const header = (reply: IncomingReply, name: string): string | undefined =>
  reply.headers.find(([key]) => key.toLowerCase() === name)?.[1]

const MAX_HEADER_BYTES = 32 * 1024

const pairs = (raw: string[]): [string, string][] => {
  const headers: [string, string][] = []
  for (let index = 0; index + 1 < raw.length; index += 2) headers.push([raw[index] ?? '', raw[index + 1] ?? ''])
  return headers
}

/** Servers judge a certificate after we hold the connection for made (TLS 1.3); what they refuse so they have not read. */
const TURNED_AWAY =
  /^ERR_SSL_\w*ALERT_(CERTIFICATE|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)/

const isTurnedAway = (error: Error): boolean => 'code' in error && TURNED_AWAY.test(String(error.code))

/**
 * A connection idle for longer is not used again: servers close them, and a Lambda instance that was frozen in between
 * would only find out after it has sent something that must not be sent twice.
 */
const IDLE_LIMIT_MS = 4_000

/** The header that carries an access token: the one of that name holds it alone, else it is a bearer token (RFC 6750 section 2.1). */
export const tokenHeaders = (accessToken: string, name = 'authorization'): Record<string, string> =>
  name.toLowerCase() === 'authorization'
    ? { authorization: `Bearer ${accessToken}` }
    : { [name.toLowerCase()]: accessToken }

/**
 * Requests are sent, to addresses that may be called: over a fresh connection each, or with `keepAlive` over recent ones, which are this
 * sender's own and so went where it may.
 * @throws HttpFault
 */
export const createSend = ({
  keepAlive,
  mayConnect,
  resolve: resolveName,
}: {
  keepAlive: boolean
  mayConnect: MayConnect
  /** Resolves names in place of the system's resolver. */
  resolve?: Parameters<typeof judgedLookup>[1]
}): Send => {
  const lookup = judgedLookup(mayConnect, resolveName)
  const plain = new http.Agent({ keepAlive, lookup })
  const secure = new https.Agent({ keepAlive, lookup })
  let lastUsedMs = 0

  const dropIdleConnections = (agent: http.Agent): void => {
    if (Date.now() - lastUsedMs > IDLE_LIMIT_MS) {
      for (const sockets of Object.values(agent.freeSockets)) sockets?.forEach((socket) => socket.destroy())
    }
    lastUsedMs = Date.now()
  }

  return (outgoing) =>
    new Promise((resolve, reject) => {
      try {
        judgeLiteral(outgoing.url.hostname, mayConnect)
      } catch (error) {
        return reject(new HttpFault('address_refused', error))
      }
      const tls = outgoing.url.protocol === 'https:'
      const agent = tls ? secure : plain
      dropIdleConnections(agent)
      let connected = false
      const request = (tls ? https : http).request(outgoing.url, {
        method: outgoing.method,
        headers:
          outgoing.body === undefined
            ? outgoing.headers
            : { ...outgoing.headers, 'content-length': String(outgoing.body.length) },
        agent,
        ...(outgoing.certificate && { cert: outgoing.certificate.chain, key: outgoing.certificate.key }),
        maxHeaderSize: MAX_HEADER_BYTES,
      })
      const fail = (fault: HttpFault): void => {
        clearTimeout(timer)
        reject(fault)
        request.destroy()
      }
      const timer = setTimeout(() => fail(new HttpFault(connected ? 'timeout' : 'unreachable')), outgoing.timeoutMs)

      request.on('socket', (socket) => {
        if (request.reusedSocket) connected = true
        else socket.once(tls ? 'secureConnect' : 'connect', () => (connected = true))
      })
      request.on('error', (error) => {
        if (error instanceof AddressRefused) fail(new HttpFault('address_refused', error))
        else fail(new HttpFault(connected && !isTurnedAway(error) ? 'broken' : 'unreachable', error))
      })
      // Nobody asked for another protocol, and without this the call would wait for its deadline.
      request.on('upgrade', () => fail(new HttpFault('broken')))
      request.on('response', (response) => {
        const chunks: Uint8Array[] = []
        let size = 0
        response.on('data', (chunk: Uint8Array) => {
          size += chunk.length
          if (size > outgoing.maxBytes) fail(new HttpFault('too_large'))
          else chunks.push(chunk)
        })
        response.on('error', (error) => fail(new HttpFault('broken', error)))
        response.on('end', () => {
          clearTimeout(timer)
          lastUsedMs = Date.now()
          resolve({
            status: response.statusCode ?? 0,
            headers: pairs(response.rawHeaders),
            body: Buffer.concat(chunks),
          })
        })
      })
      request.end(outgoing.body)
    })
}
