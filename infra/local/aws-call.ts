import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'

/** The region that everything in the local run pretends to be in. */
export const REGION = 'us-east-1'

/** The account that everything in the local run pretends to belong to. */
export const ACCOUNT_ID = '000000000000'

/** One call of an AWS API as an emulator saw it; `action` is the IAM action, `resources` are ARNs (`*` where the API names none). */
export interface AwsCall {
  accessKeyId: string
  service: 'dynamodb' | 'secretsmanager' | 'lambda'
  action: string
  resources: string[]
  input: Record<string, unknown>
  /** What else the caller must be allowed to do. */
  also?: { action: string; resource: string }[]
}

/** A refusal as an AWS JSON API words it; `members` are further members of the error body, such as `Item`. */
export interface AwsFault {
  status: number
  type: string
  message: string
  members?: Record<string, unknown>
}

/**
 * Decides before a call runs: undefined lets it through, a fault is answered instead. It may take its time, and may throw
 * `dropConnection` or `loseReply`.
 */
export type Gate = (call: AwsCall) => Promise<AwsFault | undefined> | AwsFault | undefined

/** Thrown by a gate: the call does not run and its connection is reset. */
export const dropConnection = new Error('the connection is dropped before the call runs')

/** Thrown by a gate: the call runs, but its connection is reset instead of answered. */
export const loseReply = new Error('the connection is dropped after the call has run')

/** An operation's refusal, answered to the caller as its fault. */
export class AwsRefusal extends Error {
  readonly fault: AwsFault

  constructor(fault: AwsFault) {
    super(fault.message)
    this.name = fault.type
    this.fault = fault
  }
}

/** A refusal with HTTP status 400, which is what nearly every AWS JSON error has. */
export function refusal(type: string, message: string, members: Record<string, unknown> = {}): AwsRefusal {
  return new AwsRefusal({ status: 400, type, message, members })
}

/** True for a JSON object, as opposed to a list, null or a scalar. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The ARN of a table by its name, and `*` where a request names none. */
export function tableArn(tableName: unknown): string {
  return typeof tableName === 'string' ? `arn:aws:dynamodb:${REGION}:${ACCOUNT_ID}:table/${tableName}` : '*'
}

/** One operation of an emulated API: its JSON input in, its JSON output out, or a thrown `AwsRefusal`. */
export type AwsOperation = (
  input: Record<string, unknown>,
) => Promise<Record<string, unknown>> | Record<string, unknown>

/** An emulated AWS JSON API; `target` and `json` are its `X-Amz-Target` prefix and protocol version. */
interface AwsApi {
  service: AwsCall['service']
  target: string
  json: '1.0' | '1.1'
  operations: Record<string, AwsOperation>
  resources: (operation: string, input: Record<string, unknown>) => string[]
  also?: (operation: string, input: Record<string, unknown>) => NonNullable<AwsCall['also']>
}

/** A running emulator: where the SDK finds it, a way in past signature, gate and policy, and its end. */
export interface AwsServer {
  endpoint: string
  /** Runs an operation as the operator of the local run; throws `AwsRefusal`. */
  call: (operation: string, input: Record<string, unknown>) => Promise<Record<string, unknown>>
  close: () => Promise<void>
}

const maxBodyBytes = 16 * 1024 * 1024

/**
 * The API answers on a free port of 127.0.0.1. A signature must be there and be scoped to the service and the region; it is
 * not verified, the access key id alone says who calls.
 */
export async function serveAws(api: AwsApi, gate: Gate): Promise<AwsServer> {
  const call: AwsServer['call'] = async (operation, input) => {
    const run = Object.hasOwn(api.operations, operation) ? api.operations[operation] : undefined
    if (!run) throw refusal('UnknownOperationException', `The local ${api.service} has no operation ${operation}`)
    return run(input)
  }

  const answer = async (request: IncomingMessage) => {
    const operation = operationOf(request, api)
    const accessKeyId = accessKeyOf(request, api.service)
    const input = await readInput(request)
    const action = `${api.service}:${operation}`
    const resources = api.resources(operation, input)
    const also = api.also?.(operation, input) ?? []
    let replyIsLost = false
    try {
      const fault = await gate({ accessKeyId, service: api.service, action, resources, input, also })
      if (fault) throw new AwsRefusal(fault)
    } catch (error) {
      if (error !== loseReply) throw error
      replyIsLost = true
    }
    const output = await call(operation, input)
    if (replyIsLost) throw dropConnection
    return output
  }

  const server = createServer((request, response) => {
    const reply = (status: number, body: Record<string, unknown>) => {
      const bytes = Buffer.from(JSON.stringify(body))
      response.writeHead(status, {
        'content-type': `application/x-amz-json-${api.json}`,
        'content-length': bytes.length,
        'x-amzn-requestid': randomUUID(),
      })
      response.end(bytes)
    }
    answer(request).then(
      (output) => reply(200, output),
      (error: unknown) => {
        if (error === dropConnection) request.socket.resetAndDestroy()
        else if (error instanceof AwsRefusal) reply(error.fault.status, faultBody(error.fault))
        else reply(500, faultBody({ status: 500, type: 'InternalServerError', message: String(error) }))
      },
    )
  })
  // Lambda instances keep their connections over long pauses; a server that hangs up in between looks like a network fault.
  server.keepAliveTimeout = 0
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error(`${api.service} got no port`)

  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    call,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function faultBody(fault: AwsFault): Record<string, unknown> {
  return { __type: fault.type, message: fault.message, ...fault.members }
}

function operationOf(request: IncomingMessage, api: AwsApi): string {
  const target = request.headers['x-amz-target']
  const [prefix, operation] = typeof target === 'string' ? target.split('.') : []
  if (request.method !== 'POST' || prefix !== api.target || operation === undefined)
    throw refusal('UnknownOperationException', `${request.method} with X-Amz-Target ${String(target)} is no operation`)
  return operation
}

/** Whose request it is. Throws `AwsRefusal` where the signature is missing, incomplete or scoped to something else. */
export function accessKeyOf(request: IncomingMessage, expectedService: AwsCall['service']): string {
  const { authorization } = request.headers
  if (!authorization?.startsWith('AWS4-'))
    throw refusal('MissingAuthenticationTokenException', 'Request is missing Authentication Token')
  for (const name of ['Credential', 'SignedHeaders', 'Signature'])
    if (!new RegExp(`[ ,]${name}=[^,]+`).test(authorization))
      throw refusal('IncompleteSignatureException', `Authorization header requires '${name}' parameter.`)
  if (request.headers['x-amz-date'] === undefined && request.headers.date === undefined)
    throw refusal('IncompleteSignatureException', "Authorization header requires a 'X-Amz-Date' or a 'Date' header.")
  const [accessKeyId, , region, service] = /Credential=([^,]+)/.exec(authorization)?.[1]?.split('/') ?? []
  if (region !== REGION)
    throw refusal('InvalidSignatureException', `Credential should be scoped to a valid region, not '${region}'.`)
  if (accessKeyId === undefined || service !== expectedService)
    throw refusal('InvalidSignatureException', `Credential should be scoped to correct service: '${expectedService}'.`)
  return accessKeyId
}

/** The JSON object in a request's body. Throws `AwsRefusal` where it is too large or something else. */
async function readInput(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > maxBodyBytes)
      throw new AwsRefusal({ status: 413, type: 'RequestEntityTooLargeException', message: 'Request is too large' })
  }
  let input: unknown
  try {
    input = JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    input = undefined
  }
  if (!isRecord(input)) throw refusal('SerializationException', 'The body is not a JSON object')
  return input
}
