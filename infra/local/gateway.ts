import { randomBytes } from 'node:crypto'
import type { IncomingMessage, RequestListener } from 'node:http'
import type { BrowserObservation } from './trace.ts'
import { message, parseTarget, toEvent, toReply, writeReply, type HttpApiEvent, type Reply } from './gateway-payload.ts'

/** One route of the API: its key, such as `GET /bff/login`, and the function behind it, which resolves with its result. */
export interface HttpApiRoute {
  routeKey: string
  functionName: string
  invoke: (event: HttpApiEvent, signal: AbortSignal) => Promise<unknown>
  /** Lambda would refuse the invocation, because no permission in the template lets this API make it. */
  forbidden?: boolean
  timeoutMs?: number
}

/** What an API is made of; `apiId` also makes its host name. */
export interface HttpApiOptions {
  apiId: string
  routes: HttpApiRoute[]
  onError?: (message: string) => void
  onAnswer?: (observation: BrowserObservation) => void
}

const headerLimitBytes = 10_240
const bodyLimitBytes = 10 * 1024 * 1024
const eventLimitBytes = 6 * 1024 * 1024
const integrationLimitMs = 30_000

/**
 * Requests are answered as an HTTP API with the `$default` stage answers them: the most specific route, an event of payload
 * format 2.0, the function's result as the response, and API Gateway's own words where it refuses or the function fails.
 */
export function createHttpApi({ apiId, routes, onError, onAnswer }: HttpApiOptions): RequestListener {
  const compiled = routes.map(compileRoute).toSorted((a, b) => compare(a.rank, b.rank))

  const find = (method: string, path: string) =>
    compiled
      .filter((route) => route.method === method || route.method === 'ANY')
      .map(({ route, match }) => ({ route, parameters: match(path) }))
      .find(({ parameters }) => parameters !== undefined)

  const answer = async (request: IncomingMessage, requestId: string): Promise<Reply> => {
    if (headerBytes(request) > headerLimitBytes) return message(431, 'Request Header Fields Too Large')
    const target = parseTarget(request.url ?? '')
    if (!target) return message(400, 'Bad Request')
    const match = find(request.method ?? '', target.path)
    if (!match) return message(404, 'Not Found')
    const body = await readBody(request)
    if (!body) return message(413, 'Request Entity Too Large')
    const { route, parameters = {} } = match
    const event = toEvent({ request, requestId, apiId, routeKey: route.routeKey, target, parameters, body })
    if (Buffer.byteLength(JSON.stringify(event)) > eventLimitBytes) return message(413, 'Request Entity Too Large')
    if (route.forbidden) {
      onError?.(`${route.routeKey}: no AWS::Lambda::Permission lets API Gateway invoke its function`)
      return message(500, 'Internal Server Error')
    }
    const reply = await within(route.timeoutMs ?? integrationLimitMs, async (signal) => {
      try {
        return toReply(await route.invoke(event, signal))
      } catch (error) {
        onError?.(`${route.routeKey}: ${error instanceof Error ? error.message : String(error)}`)
        return message(500, 'Internal Server Error')
      }
    })
    return { ...reply, functionName: route.functionName }
  }

  return (request, response) => {
    const requestId = randomBytes(11).toString('base64')
    const startedAtMs = Date.now()
    const send = (reply: Reply) => {
      observe(reply)
      try {
        writeReply(response, reply, requestId)
      } catch (error) {
        onError?.(`${request.method} ${request.url}: ${String(error)}`)
        writeReply(response, message(500, 'Internal Server Error'), requestId)
      }
    }
    const observe = ({ status, headers, functionName }: Reply): void => {
      const [path = '', ...query] = (request.url ?? '').split('?')
      const location = headers.find(([name]) => name === 'location')?.[1]
      onAnswer?.({
        method: request.method ?? '',
        path,
        query: query.join('?'),
        status,
        ...(location === undefined ? {} : { location }),
        startedAtMs,
        durationMs: Date.now() - startedAtMs,
        ...(functionName === undefined ? {} : { functionName }),
      })
    }
    // What rejects here is a client that went away before its body had arrived.
    answer(request, requestId).then(send, () => response.destroy())
  }
}

interface CompiledRoute {
  route: HttpApiRoute
  method: string
  rank: number[]
  match: (path: string) => Record<string, string> | undefined
}

/** Ranks sort the most specific first: a literal segment before `{name}` before `{name+}` before `$default`; then ANY last. */
function compileRoute(route: HttpApiRoute): CompiledRoute {
  if (route.routeKey === '$default') return { route, method: 'ANY', rank: [3], match: () => ({}) }
  const [method = '', pattern = ''] = route.routeKey.split(' ')
  const segments = pattern.slice(1).split('/')
  const variables = segments.map((segment) => /^\{([^}+]+)(\+?)\}$/.exec(segment))
  const rank = variables.map((variable) => (variable ? (variable[2] ? 2 : 1) : 0))
  const match = (path: string) => {
    const parts = path.slice(1).split('/')
    const parameters: Record<string, string> = {}
    for (const [i, segment] of segments.entries()) {
      const [, name, greedy] = variables[i] ?? []
      const part = greedy ? parts.slice(i).join('/') : parts[i]
      if (part === undefined || (name ? part === '' : part !== segment)) return undefined
      if (name) parameters[name] = part
      if (greedy) return parameters
    }
    return parts.length === segments.length ? parameters : undefined
  }
  return { route, method, rank: [...rank, method === 'ANY' ? 1 : 0], match }
}

function compare(a: number[], b: number[]): number {
  for (const [i, rank] of a.entries()) {
    if (rank !== (b[i] ?? 0)) return rank - (b[i] ?? 0)
  }
  return 0
}

function headerBytes(request: IncomingMessage): number {
  const line = `${request.method} ${request.url} HTTP/1.1`.length
  return request.rawHeaders.reduce((sum, text) => sum + text.length, line)
}

/** The whole body, or undefined where it is over the limit; it is read to its end in any case, so that the client hears of it. */
async function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size <= bodyLimitBytes) chunks.push(chunk)
  }
  return size > bodyLimitBytes ? undefined : Buffer.concat(chunks)
}

async function within(limitMs: number, work: (signal: AbortSignal) => Promise<Reply>): Promise<Reply> {
  const late = Promise.withResolvers<Reply>()
  const waiting = new AbortController()
  const timer = setTimeout(
    () => {
      late.resolve(message(503, 'Service Unavailable'))
      waiting.abort()
    },
    Math.min(limitMs, integrationLimitMs),
  )
  try {
    return await Promise.race([work(waiting.signal), late.promise])
  } finally {
    clearTimeout(timer)
  }
}
