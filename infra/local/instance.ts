/**
 * One instance of a Lambda function: a child process that imports the bundle, then handles one event at a time.
 *
 * It plays the part of Lambda's runtime interface client for Node.js, and reports the function's own HTTP calls.
 * It imports nothing but Node, because `functions.ts` runs it as one stripped file: a cold start costs no type stripping.
 */
import { subscribe } from 'node:diagnostics_channel'
import { existsSync } from 'node:fs'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { HttpObservation } from './trace.ts'

/** What the parent sends: one event as JSON, and the time (ms since epoch) at which the function's time is up. */
export interface InvokeMessage {
  type: 'invoke'
  requestId: string
  event: string
  deadlineMs: number
  invokedFunctionArn: string
}

/** An error as Lambda reports it to whoever invoked the function. */
export interface FunctionErrorBody {
  errorType: string
  errorMessage: string
  trace: string[]
}

/** What an instance sends: ready once, then a result or an error for each event; HTTP observations in between. */
export type InstanceMessage =
  | { type: 'ready' }
  | { type: 'init-error'; error: FunctionErrorBody }
  | { type: 'result'; payload: string }
  | { type: 'error'; error: FunctionErrorBody }
  | { type: 'http'; observation: HttpObservation }

type Handler = (event: unknown, context: unknown) => unknown

const env = process.env
const functionName = env['AWS_LAMBDA_FUNCTION_NAME'] ?? ''
const keptBodyBytes = 16 * 1024
let responseUrl: string | undefined

const send = (message: InstanceMessage): void => {
  process.send?.(message)
}

const asError = (thrown: unknown): FunctionErrorBody =>
  thrown instanceof Error
    ? { errorType: thrown.name, errorMessage: thrown.message, trace: (thrown.stack ?? '').split('\n') }
    : { errorType: typeof thrown, errorMessage: String(thrown), trace: [] }

// Ctrl-C reaches the whole process group; the runner still needs this process for the custom resources' Delete.
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(0))
process.on('message', (message: InvokeMessage) => void handle(message))
observeHttp()
const handler = await importHandler()
if (handler) send({ type: 'ready' })

async function importHandler(): Promise<Handler | undefined> {
  try {
    const [file = '', name = ''] = (env['_HANDLER'] ?? '').split('.')
    const root = env['LAMBDA_TASK_ROOT'] ?? ''
    const path = ['.js', '.mjs', '.cjs'].map((end) => join(root, file + end)).find((candidate) => existsSync(candidate))
    if (!path) throw Object.assign(new Error(`Cannot find module '${file}'`), { name: 'Runtime.ImportModuleError' })
    const found: unknown = Reflect.get(await import(pathToFileURL(path).href), name)
    if (typeof found === 'function') return found as Handler
    throw Object.assign(new Error(`${env['_HANDLER']} is undefined or not exported`), {
      name: 'Runtime.HandlerNotFound',
    })
  } catch (error) {
    console.error(error)
    send({ type: 'init-error', error: asError(error) })
    return undefined
  }
}

async function handle({ requestId, event, deadlineMs, invokedFunctionArn }: InvokeMessage): Promise<void> {
  try {
    const parsed: unknown = JSON.parse(event)
    responseUrl = responseUrlOf(parsed)
    const result = await handler?.(parsed, {
      awsRequestId: requestId,
      callbackWaitsForEmptyEventLoop: true,
      functionName,
      functionVersion: '$LATEST',
      getRemainingTimeInMillis: () => Math.max(0, deadlineMs - Date.now()),
      invokedFunctionArn,
      logGroupName: env['AWS_LAMBDA_LOG_GROUP_NAME'],
      logStreamName: env['AWS_LAMBDA_LOG_STREAM_NAME'],
      memoryLimitInMB: env['AWS_LAMBDA_FUNCTION_MEMORY_SIZE'],
    })
    send({ type: 'result', payload: JSON.stringify(result) ?? 'null' })
  } catch (error) {
    console.error(error)
    send({ type: 'error', error: asError(error) })
  }
}

function responseUrlOf(event: unknown): string | undefined {
  const url: unknown = typeof event === 'object' && event !== null ? Reflect.get(event, 'ResponseURL') : undefined
  return typeof url === 'string' ? url : undefined
}

/** Reports each HTTP call that the function makes, through `node:http` or `fetch`, without changing what it sees. */
function observeHttp(): void {
  const calls = new WeakMap<object, ReturnType<typeof startCall>>()

  subscribe('undici:request:create', (message) => {
    const { request } = message as { request: { origin: string; path: string; method: string; headers: string[] } }
    if (isOwn(new URL(request.path, request.origin).href)) return
    calls.set(
      request,
      startCall(() => ({
        method: request.method,
        url: new URL(request.path, request.origin).href,
        headers: pairs(request.headers),
      })),
    )
  })
  const call = (message: unknown) => calls.get((message as { request: object }).request)
  const chunk = (message: unknown) => (message as { chunk: Uint8Array }).chunk
  subscribe('undici:request:bodyChunkSent', (message) => call(message)?.sent(chunk(message)))
  subscribe('undici:request:headers', (message) => {
    const { response } = message as { response: { statusCode: number; headers: Buffer[] } }
    call(message)?.answered(response.statusCode, pairs(response.headers.map(String)))
  })
  subscribe('undici:request:bodyChunkReceived', (message) => call(message)?.received(chunk(message)))
  subscribe('undici:request:trailers', (message) => call(message)?.done())
  subscribe('undici:request:error', (message) => call(message)?.done((message as { error: Error }).error))

  subscribe('http.client.request.created', (message) => {
    const { request } = message as { request: ClientRequest }
    const url = () => new URL(request.path, `${request.protocol}//${String(request.getHeader('host'))}`).href
    const started = startCall(() => ({ method: request.method, url: url(), headers: flat(request.getHeaders()) }))
    calls.set(request, started)
    for (const method of ['write', 'end'] as const) {
      const original = request[method].bind(request) as (...all: unknown[]) => never
      request[method] = (...all: unknown[]) => {
        if (typeof all[0] === 'string') started.sent(Buffer.from(all[0]))
        else if (all[0] instanceof Uint8Array) started.sent(all[0])
        return original(...all)
      }
    }
  })
  subscribe('http.client.response.finish', (message) => {
    const { request, response } = message as { request: ClientRequest; response: IncomingMessage }
    const started = calls.get(request)
    if (!started) return
    started.answered(response.statusCode ?? 0, flat(response.headers))
    const push = response.push.bind(response)
    response.push = (data: unknown, encoding?: BufferEncoding) => {
      if (data instanceof Uint8Array) started.received(data)
      else if (data === null) started.done()
      return push(data, encoding)
    }
    response.once('close', () => started.done())
  })
  subscribe('http.client.request.error', (message) => call(message)?.done((message as { error: Error }).error))
}

/** Calls to the runner's own parts are not the function's business with the world. */
function isOwn(url: string): boolean {
  const { origin } = new URL(url)
  const own = [env['AWS_ENDPOINT_URL_DYNAMODB'], env['AWS_ENDPOINT_URL_SECRETS_MANAGER']]
  return url === responseUrl || own.some((endpoint) => endpoint !== undefined && new URL(endpoint).origin === origin)
}

function startCall(describe: () => { method: string; url: string; headers: Record<string, string> }) {
  const startedAtMs = Date.now()
  const requestBody = collectBytes()
  const responseBody = collectBytes()
  let answer: { status: number; headers: Record<string, string> } | undefined
  let finished = false
  return {
    sent: requestBody.add,
    received: responseBody.add,
    answered: (status: number, headers: Record<string, string>) => {
      answer = { status, headers }
    },
    done: (error?: Error) => {
      if (finished) return
      finished = true
      const { method, url, headers } = describe()
      if (isOwn(url) || !process.connected) return
      const observation: HttpObservation = {
        functionName,
        method,
        url,
        requestHeaders: headers,
        requestBody: requestBody.text(headers),
        ...(answer ? { status: answer.status } : {}),
        responseHeaders: answer?.headers ?? {},
        responseBody: responseBody.text(answer?.headers ?? {}),
        startedAtMs,
        durationMs: Date.now() - startedAtMs,
        ...(error ? { error: error.message } : {}),
      }
      send({ type: 'http', observation })
    },
  }
}

function collectBytes() {
  const kept: Uint8Array[] = []
  let total = 0
  return {
    add: (chunk: Uint8Array): void => {
      if (total < keptBodyBytes) kept.push(Uint8Array.from(chunk))
      total += chunk.length
    },
    text: (headers: Record<string, string>): string => {
      const encoding = headers['content-encoding'] ?? 'identity'
      return encoding === 'identity'
        ? Buffer.concat(kept).subarray(0, keptBodyBytes).toString('utf8')
        : `(${encoding}, ${total} bytes)`
    },
  }
}

function pairs(list: string[]): Record<string, string> {
  const headers: Record<string, string> = {}
  for (let i = 0; i + 1 < list.length; i += 2) {
    const name = String(list[i]).toLowerCase()
    headers[name] = name in headers ? `${headers[name]}, ${list[i + 1]}` : String(list[i + 1])
  }
  return headers
}

function flat(headers: NodeJS.Dict<number | string | string[]>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value)]))
}
