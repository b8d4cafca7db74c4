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
  loseReply,
  readInput,
  refusal,
  REGION,
} from './aws-call.ts'
import type { FunctionPool } from './functions.ts'

/** Lambda's own API, as far as functions use it on each other: asynchronous invocation. */
export interface LambdaApi {
  endpoint: string
  /** Resolves when no invocation is queued or running any more. */
  idle: () => Promise<void>
  close: () => Promise<void>
}

/** AWS waits one and two minutes before it repeats a failed asynchronous invocation; here a developer is waiting. */
const retryDelaysMs = [1_000, 2_000]
const eventLimitBytes = 256 * 1024

/**
 * Events for functions are queued at the endpoint and repeated twice where the function fails.
 * @see AWS Lambda, "How Lambda handles errors and retries with asynchronous invocation"
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

  const accept = async (request: IncomingMessage): Promise<void> => {
    const accessKeyId = accessKeyOf(request, 'lambda')
    const [, name = ''] = /^\/2015-03-31\/functions\/([^/]+)\/invocations$/.exec(request.url ?? '') ?? []
    if (request.method !== 'POST' || request.headers['x-amz-invocation-type'] !== 'Event') {
      throw refusal('UnknownOperationException', 'The local Lambda API only takes asynchronous invocations')
    }
    const input = await readInput(request, eventLimitBytes)
    const functionName = decodeURIComponent(name).split(':').at(-1)
    const arn = `arn:aws:lambda:${REGION}:${ACCOUNT_ID}:function:${functionName}`
    let replyIsLost = false
    try {
      const action = 'lambda:InvokeFunction'
      const fault = await gate({ accessKeyId, service: 'lambda', action, resources: [arn], input })
      if (fault) throw new AwsRefusal(fault)
    } catch (error) {
      if (error !== loseReply) throw error
      replyIsLost = true
    }
    const pool = functions().find(({ definition }) => definition.functionName === functionName)
    if (!pool)
      throw new AwsRefusal({ status: 404, type: 'ResourceNotFoundException', message: `Function not found: ${arn}` })
    const run = runQueued(pool, input).finally(() => running.delete(run))
    running.add(run)
    if (replyIsLost) throw dropConnection
  }

  const reply = (response: ServerResponse, status: number, type?: string, message?: string): void => {
    response.writeHead(status, { 'x-amzn-requestid': randomUUID(), ...(type && { 'x-amzn-errortype': type }) })
    response.end(message === undefined ? '' : JSON.stringify({ Message: message }))
  }

  const server = createServer((request, response) => {
    accept(request).then(
      () => reply(response, 202),
      (error: unknown) => {
        if (error === dropConnection) request.socket.resetAndDestroy()
        else if (error instanceof AwsRefusal) reply(response, error.fault.status, error.fault.type, error.fault.message)
        else reply(response, 500, 'ServiceException', String(error))
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
