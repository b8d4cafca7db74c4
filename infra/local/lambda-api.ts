import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import {
  accessKeyOf,
  ACCOUNT_ID,
  AwsRefusal,
  dropConnection,
  type Gate,
  isRecord,
  loseReply,
  refusal,
  REGION,
} from './aws-call.ts'
import { FunctionError, type FunctionPool } from './functions.ts'

/** Lambda's own API, as far as functions use it on each other and operators on them: invocation, and a list of what there is. */
export interface LambdaApi {
  endpoint: string
  /** Resolves when no invocation is queued or running any more. */
  idle: () => Promise<void>
  close: () => Promise<void>
}

/** AWS waits one and two minutes before it repeats a failed asynchronous invocation; here a developer is waiting. */
const retryDelaysMs = [1_000, 2_000]
const payloadLimitsBytes: Record<string, number> = { Event: 256 * 1024, RequestResponse: 6 * 1024 * 1024 }
/** Lambda gives up to 50; the SDK asks for the next page as long as there is one. */
const functionsAPage = 10

/** An answer of the API: JSON, or nothing. */
interface Answer {
  status: number
  headers?: Record<string, string>
  body?: unknown
}

/** The JSON in a request's body, of whatever kind; an empty body is an empty event. Throws `AwsRefusal`. */
async function readPayload(request: IncomingMessage, invocationType: string): Promise<unknown> {
  const limit = payloadLimitsBytes[invocationType] ?? 0
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes <= limit) chunks.push(chunk)
  }
  if (bytes > limit) {
    const message = `${bytes} byte payload is too large for the ${invocationType} invocation type (limit ${limit} bytes)`
    throw new AwsRefusal({ status: 413, type: 'RequestEntityTooLargeException', message })
  }
  if (bytes === 0) return {}
  try {
    return JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    throw refusal('InvalidRequestContentException', 'Could not parse request body into json')
  }
}

/**
 * Events for functions are queued at the endpoint and repeated twice where the function fails; whoever wants the response waits for it,
 * and a failed one is marked as that.
 * @see AWS Lambda, "How Lambda handles errors and retries with asynchronous invocation", and its API's "Invoke" and "ListFunctions"
 */
export async function startLambdaApi(options: {
  gate: Gate
  functions: () => readonly FunctionPool[]
  onLog?: (functionName: string, line: string) => void
}): Promise<LambdaApi> {
  const { gate, functions, onLog } = options
  const running = new Set<Promise<void>>()
  const closing = new AbortController()

  const runQueued = async (pool: FunctionPool, event: unknown): Promise<void> => {
    for (const retryDelayMs of [...retryDelaysMs, undefined]) {
      try {
        await pool.invoke(event)
        return
      } catch (error) {
        if (closing.signal.aborted) return
        const what = error instanceof Error ? error.message : String(error)
        const next = retryDelayMs === undefined ? 'given up' : `again in ${retryDelayMs} ms`
        onLog?.(pool.definition.functionName, `asynchronous invocation failed, ${next}: ${what}`)
        if (retryDelayMs !== undefined) await delay(retryDelayMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  /** Policy and the caller's gate are asked first; resolves with whether the reply is to be lost. */
  const admit = async (call: Omit<Parameters<Gate>[0], 'service'>): Promise<boolean> => {
    try {
      const fault = await gate({ ...call, service: 'lambda' })
      if (fault) throw new AwsRefusal(fault)
      return false
    } catch (error) {
      if (error !== loseReply) throw error
      return true
    }
  }

  /** A failed function is a success of the API. */
  const respond = async (pool: FunctionPool, event: unknown): Promise<Answer> => {
    const version = { 'x-amz-executed-version': '$LATEST' }
    try {
      return { status: 200, headers: version, body: (await pool.invoke(event)) ?? null }
    } catch (error) {
      if (!(error instanceof FunctionError)) throw error
      const { errorType, errorMessage } = error
      const headers = { ...version, 'x-amz-function-error': 'Unhandled' }
      return { status: 200, headers, body: { errorType, errorMessage, trace: [] } }
    }
  }

  const invoke = async (request: IncomingMessage, accessKeyId: string, name: string): Promise<Answer> => {
    const invocationType = String(request.headers['x-amz-invocation-type'] ?? 'RequestResponse')
    if (!Object.hasOwn(payloadLimitsBytes, invocationType))
      throw refusal('InvalidParameterValueException', `The local Lambda API has no invocation type ${invocationType}`)
    const event = await readPayload(request, invocationType)
    const functionName = decodeURIComponent(name).split(':').at(-1)
    const arn = `arn:aws:lambda:${REGION}:${ACCOUNT_ID}:function:${functionName}`
    const input = isRecord(event) ? event : {}
    const replyIsLost = await admit({ accessKeyId, action: 'lambda:InvokeFunction', resources: [arn], input })
    const pool = functions().find(({ definition }) => definition.functionName === functionName)
    if (!pool)
      throw new AwsRefusal({ status: 404, type: 'ResourceNotFoundException', message: `Function not found: ${arn}` })
    let answer: Answer = { status: 202 }
    if (invocationType === 'Event') {
      const run = runQueued(pool, event).finally(() => running.delete(run))
      running.add(run)
    } else answer = await respond(pool, event)
    if (replyIsLost) throw dropConnection
    return answer
  }

  const list = async (accessKeyId: string, query: URLSearchParams): Promise<Answer> => {
    const replyIsLost = await admit({ accessKeyId, action: 'lambda:ListFunctions', resources: ['*'], input: {} })
    const start = Number(query.get('Marker') ?? 0)
    const all = functions().map(({ definition }) => ({
      FunctionName: definition.functionName,
      FunctionArn: definition.arn,
      Description: definition.description,
      Runtime: definition.runtime,
      Environment: { Variables: definition.environment },
    }))
    const next = start + functionsAPage
    if (replyIsLost) throw dropConnection
    const NextMarker = next < all.length ? String(next) : null
    return { status: 200, body: { Functions: all.slice(start, next), NextMarker } }
  }

  const accept = async (request: IncomingMessage): Promise<Answer> => {
    const accessKeyId = accessKeyOf(request, 'lambda')
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://lambda')
    const [, name] = /^\/2015-03-31\/functions\/([^/]+)\/invocations$/.exec(pathname) ?? []
    if (request.method === 'POST' && name !== undefined) return await invoke(request, accessKeyId, name)
    if (request.method === 'GET' && /^\/2015-03-31\/functions\/?$/.test(pathname))
      return await list(accessKeyId, searchParams)
    throw refusal('UnknownOperationException', 'The local Lambda API invokes and lists functions, and no more')
  }

  const reply = (response: ServerResponse, { status, headers, body }: Answer): void => {
    const text = body === undefined ? '' : JSON.stringify(body)
    response.writeHead(status, { 'content-type': 'application/json', 'x-amzn-requestid': randomUUID(), ...headers })
    response.end(text)
  }
  const refuse = (response: ServerResponse, status: number, type: string, message: string): void =>
    reply(response, { status, headers: { 'x-amzn-errortype': type }, body: { Message: message } })

  const server = createServer((request, response) => {
    accept(request).then(
      (answer) => reply(response, answer),
      (error: unknown) => {
        if (error === dropConnection) request.socket.resetAndDestroy()
        else if (error instanceof AwsRefusal)
          refuse(response, error.fault.status, error.fault.type, error.fault.message)
        else refuse(response, 500, 'ServiceException', String(error))
      },
    )
  })
  server.keepAliveTimeout = 0
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the Lambda API got no port')

  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    idle: async () => {
      while (running.size > 0) await Promise.all(running)
    },
    close: () => {
      closing.abort()
      return new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
    },
  }
}
