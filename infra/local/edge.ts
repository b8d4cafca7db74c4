import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Stands where CloudFront stands in the cloud: `/bff/*` and `/api/*` go to the API, everything else to the frontend. */
export function createEdge(api: RequestListener, frontend?: RequestListener): RequestListener {
  return (request, response) => {
    if (/^\/(bff|api)\//.test(request.url ?? '')) api(request, response)
    else if (frontend) frontend(request, response)
    else response.writeHead(404, { 'content-type': 'text/plain' }).end('There is no frontend here.\n')
  }
}

/** A listener that answers on every loopback address of a port, until it is closed with all its connections. */
export interface Listening {
  port: number
  close: () => Promise<void>
}

/**
 * The listener answers on a port of a host; `localhost` means both 127.0.0.1 and ::1, where the machine has them, since
 * browsers try either. Port 0 is any free one. Rejects with a sentence, and
 * the code EADDRINUSE, where the port is taken.
 */
export async function listen(listener: RequestListener, port: number, host = 'localhost'): Promise<Listening> {
  const first = await bind(listener, port, host === 'localhost' ? '127.0.0.1' : host)
  const servers = [first]
  const bound = (first.address() as AddressInfo).port
  if (host === 'localhost') {
    try {
      servers.push(await bind(listener, bound, '::1'))
    } catch (error) {
      if (error instanceof PortTaken) {
        await closeAll(servers)
        if (port === 0) return listen(listener, port, host)
        throw error
      }
    }
  }
  return { port: bound, close: () => closeAll(servers) }
}

class PortTaken extends Error {
  readonly code = 'EADDRINUSE'
}

async function bind(listener: RequestListener, port: number, address: string): Promise<Server> {
  // Larger than what the API accepts, so that it is the API that refuses.
  const server = createServer({ maxHeaderSize: 64 * 1024, keepAliveTimeout: 60_000 }, listener)
  const { promise, resolve, reject } = Promise.withResolvers<Server>()
  server.once('error', (error: NodeJS.ErrnoException) => {
    const taken = `Port ${port} is already in use; stop the program that uses it, or choose another port.`
    reject(error.code === 'EADDRINUSE' ? new PortTaken(taken) : error)
  })
  server.listen(port, address, () => resolve(server))
  return promise
}

async function closeAll(servers: Server[]): Promise<void> {
  await Promise.all(
    servers.map((server) => {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      return closed
    }),
  )
}
