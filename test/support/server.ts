import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'

/** What a test server answers; `send` writes in its place where a fault lives on the wire. */
export type Answer = {
  status: number
  headers?: Record<string, string | string[]>
  body?: string | Buffer
  send?: (response: ServerResponse) => void
}

/** One request that reached a test server, in order of arrival, with the status that it got. */
export type Received = {
  endpoint: string
  method: string
  /** As on the request line, query included. */
  path: string
  query: URLSearchParams
  headers: IncomingHttpHeaders
  rawHeaders: string[]
  body: Buffer
  /** 0 while it is being answered, and for good where the answer was never finished. */
  status: number
}

/** Stands before an endpoint: answers in its place, or proceeds and changes what comes out. */
export type Fault = (proceed: () => Promise<Answer>, request: Received) => Answer | Promise<Answer>

/** Answers with JSON that no cache keeps. */
export const json = (status: number, members: object, headers: Record<string, string> = {}): Answer => ({
  status,
  headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers },
  body: JSON.stringify(members),
})

/**
 * Starts a server on a free port of `127.0.0.1` that records what reaches it and lets tests put faults before its
 * endpoints. `endpointOf` names the endpoint of a request; `answer` is what the server does when it is well;
 * `publicUrl` is where others find it, if something stands in front of it.
 */
export const startRecordingServer = async <Endpoint extends string>(
  endpointOf: (method: string, path: string) => Endpoint,
  answer: (request: Received & { endpoint: Endpoint }, url: string) => Answer | Promise<Answer>,
  publicUrl?: string,
) => {
  const requests: (Received & { endpoint: Endpoint })[] = []
  const planned: { endpoint: Endpoint; fault: Fault }[] = []
  const standing = new Map<Endpoint, Fault>()
  const waiting: { endpoint: Endpoint; count: number; resolve: () => void }[] = []

  const count = (endpoint: Endpoint): number => requests.filter((request) => request.endpoint === endpoint).length

  const respond = async (incoming: IncomingMessage, response: ServerResponse, url: string): Promise<void> => {
    const { method = 'GET', url: path = '/', headers, rawHeaders } = incoming
    const endpoint = endpointOf(method, path.split('?')[0] ?? '/')
    const query = new URLSearchParams(path.split(/\?(.*)/s)[1] ?? '')
    const body = await buffer(incoming)
    const request = { endpoint, method, path, query, headers, rawHeaders, body, status: 0 }
    requests.push(request)
    for (const wait of waiting) if (wait.endpoint === endpoint && count(endpoint) >= wait.count) wait.resolve()
    const next = planned.findIndex((plan) => plan.endpoint === endpoint)
    const fault = next === -1 ? standing.get(endpoint) : planned.splice(next, 1)[0]?.fault
    const proceed = async () => answer(request, url)
    const result = await (fault ? fault(proceed, request) : proceed())
    request.status = result.status
    if (result.send) return result.send(response)
    response.writeHead(result.status, result.headers).end(result.body)
  }

  const server = createServer((incoming, response) => {
    respond(incoming, response, url).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      else response.writeHead(500, { 'Content-Type': 'text/plain' }).end(`test server: ${String(error)}`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const own = `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
  const url = publicUrl ?? own

  return {
    url,
    /** Where it listens, whatever stands in front of it. */
    own,
    /** Everything that arrived, oldest first. */
    requests: requests as readonly (Received & { endpoint: Endpoint })[],
    count,
    /** Resolves once this many requests have reached the endpoint. */
    reached: (endpoint: Endpoint, least = 1): Promise<void> => {
      const { promise, resolve } = Promise.withResolvers<void>()
      if (count(endpoint) >= least) resolve()
      else waiting.push({ endpoint, count: least, resolve })
      return promise
    },
    /** Puts one fault before each of the next requests of an endpoint. */
    plan: (endpoint: Endpoint, ...faults: Fault[]): void => {
      planned.push(...faults.map((fault) => ({ endpoint, fault })))
    },
    /** Puts a fault before every request of an endpoint from now on, or takes it away. */
    always: (endpoint: Endpoint, fault: Fault | undefined): void => {
      if (fault) standing.set(endpoint, fault)
      else standing.delete(endpoint)
    },
    /** The endpoints with planned faults that no request met; a test that plans one checks that this is empty. */
    unmet: (): Endpoint[] => planned.map(({ endpoint }) => endpoint),
    close: async (): Promise<void> => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
