import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isRecord } from './aws-call.ts'
import { listen } from './edge.ts'
import type { ResourceValues } from './template.ts'

/** A custom resource of the template, its properties resolved, and the function that its ServiceToken names. */
export interface CustomResource {
  logicalId: string
  type: string
  properties: Record<string, unknown>
  invoke: (event: unknown) => Promise<unknown>
}

/** Runs custom resources as CloudFormation does. */
export interface CustomResources {
  /** The resource's values after its Create; rejects with the function's Reason. */
  create: (resource: CustomResource) => Promise<ResourceValues>
  /** Every created resource has had its Delete, last created first; failures are left behind. */
  deleteAll: () => Promise<void>
  close: () => Promise<void>
}

interface Answer {
  status: string
  reason: string
  physicalResourceId: string
  data: Record<string, unknown>
}

const answerLimitBytes = 4096

/**
 * Custom resources can be created: their functions get CloudFormation's events and put their answer to a URL on 127.0.0.1,
 * which refuses what the pre-signed S3 URL of the real service refuses.
 * Source: docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
 */
export async function startCustomResources(stackId: string): Promise<CustomResources> {
  const waiting = new Map<string, (answer: Answer | Error) => void>()
  const created: { resource: CustomResource; physicalResourceId: string }[] = []

  const take = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const settle = waiting.get(request.url ?? '')
    const chunks: Uint8Array[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const refused = refusalOf(request)
    if (!settle || refused) {
      settle?.(new Error(`put an answer that S3 would refuse: ${refused}`))
      response.writeHead(403).end(refused)
      return
    }
    response.writeHead(200).end()
    settle(answerOf(Buffer.concat(chunks)))
  }
  const server = await listen((request, response) => void take(request, response), 0, '127.0.0.1')

  const run = async (requestType: string, resource: CustomResource, physicalResourceId?: string): Promise<Answer> => {
    const { logicalId, type, properties, invoke } = resource
    const path = `/${randomUUID()}`
    const { promise, resolve } = Promise.withResolvers<Answer | Error>()
    waiting.set(path, resolve)
    const event = {
      RequestType: requestType,
      ServiceToken: properties['ServiceToken'],
      ResponseURL: `http://127.0.0.1:${server.port}${path}`,
      StackId: stackId,
      RequestId: randomUUID(),
      LogicalResourceId: logicalId,
      ...(physicalResourceId === undefined ? {} : { PhysicalResourceId: physicalResourceId }),
      ResourceType: type,
      ResourceProperties: stringified(properties),
    }
    // CloudFormation would wait an hour for an answer that cannot come any more.
    const ended = invoke(event).then(
      () => new Error('ended without an answer'),
      (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
    )
    const answer = await Promise.race([promise, ended])
    waiting.delete(path)
    if (answer instanceof Error) throw new Error(`${logicalId} (${requestType}): its function ${answer.message}`)
    if (answer.status !== 'SUCCESS') throw new Error(answer.reason || `${logicalId} (${requestType}) failed`)
    return answer
  }

  return {
    create: async (resource) => {
      const { physicalResourceId, data } = await run('Create', resource)
      created.push({ resource, physicalResourceId })
      return { ref: physicalResourceId, attributes: data }
    },
    deleteAll: async () => {
      for (const { resource, physicalResourceId } of created.splice(0).toReversed()) {
        await run('Delete', resource, physicalResourceId).catch(() => {})
      }
    },
    close: server.close,
  }
}

function refusalOf(request: IncomingMessage): string | undefined {
  if (request.method !== 'PUT') return 'MethodNotAllowed: only PUT is signed'
  if (request.headers['content-type']) return 'SignatureDoesNotMatch: the URL is signed for an empty Content-Type'
  if (request.headers['content-length'] === undefined) return 'MissingContentLength: chunked bodies are not accepted'
  return undefined
}

function answerOf(body: Buffer): Answer | Error {
  if (body.length > answerLimitBytes) return new Error('put an answer over 4096 bytes')
  let parsed: unknown
  try {
    parsed = JSON.parse(body.toString())
  } catch {
    parsed = undefined
  }
  if (!isRecord(parsed)) return new Error('put an answer that is no JSON object')
  const { Status: status, Reason: reason, PhysicalResourceId: physicalResourceId, Data: data } = parsed
  if (typeof physicalResourceId !== 'string' || physicalResourceId === '') {
    return new Error('put an answer without PhysicalResourceId')
  }
  return {
    status: String(status),
    reason: typeof reason === 'string' ? reason : '',
    physicalResourceId,
    data: isRecord(data) ? data : {},
  }
}

/** CloudFormation hands every scalar to the function as a string. */
function stringified(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(stringified)
  if (isRecord(value)) return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, stringified(item)]))
  return String(value)
}
