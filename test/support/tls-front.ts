import { once } from 'node:events'
import { request } from 'node:http'
import { createServer } from 'node:https'
import type { TLSSocket } from 'node:tls'
import type { Identity } from './certificates.ts'

/**
 * Starts a TLS server on `https://localhost` that passes requests on to a plain one. With `clients` it takes only those whose certificate
 * that authority issued.
 */
export const startTlsFront = async (identity: Identity, clients?: string) => {
  const callers: { path: string; name: string | undefined; connection: number }[] = []
  const connections: TLSSocket[] = []
  let target = ''
  const server = createServer(
    {
      key: identity.key,
      cert: identity.certificate,
      ca: clients,
      requestCert: true,
      rejectUnauthorized: clients !== undefined,
    },
    (incoming, outgoing) => {
      const socket = incoming.socket as TLSSocket
      const { subject } = socket.getPeerCertificate()
      if (!connections.includes(socket)) connections.push(socket)
      callers.push({
        path: incoming.url ?? '',
        name: String(subject?.CN ?? ''),
        connection: connections.indexOf(socket),
      })
      const { method, headers } = incoming
      const onward = request(`${target}${incoming.url}`, { method, headers }, (reply) => {
        outgoing.writeHead(reply.statusCode ?? 502, reply.headers)
        reply.pipe(outgoing)
      })
      onward.on('error', () => outgoing.destroy())
      incoming.pipe(onward)
    },
  ).listen(0, 'localhost')
  await once(server, 'listening')
  const address = server.address()
  return {
    url: `https://localhost:${typeof address === 'object' && address ? address.port : 0}`,
    /** Where requests go. */
    forwardTo: (url: string): void => void (target = url),
    /** Who called what, over which connection, oldest first; a name is empty where no certificate was shown. */
    callers: callers as readonly (typeof callers)[number][],
    close: async (): Promise<void> => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
