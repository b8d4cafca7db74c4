import { fromJSONSchema } from 'zod'
import type { Reply } from '../support/http.ts'
import { textOf } from './documents.ts'

/** `docs/openapi.json`, as far as the tests read it. */

type Schema = Parameters<typeof fromJSONSchema>[0]

export interface Response {
  content?: Record<string, { schema?: Schema }>
}

export interface Operation {
  operationId: string
  responses: Record<string, Response>
}

/** Every operation by method and path, such as `GET /bff/session`, with references replaced by what they name. */
export const operations = (): ReadonlyMap<string, Operation> => {
  const contract: Record<string, unknown> = JSON.parse(textOf('docs/openapi.json'))
  const resolve = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(resolve)
    if (typeof value !== 'object' || value === null) return value
    if ('$ref' in value) return resolve(lookUp(contract, String(value.$ref)))
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, resolve(member)]))
  }
  const paths = resolve(contract['paths']) as Record<string, Record<string, Operation>>
  return new Map(
    Object.entries(paths).flatMap(([path, item]) =>
      Object.entries(item)
        .filter(([method]) => method !== 'parameters')
        .map(([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const),
    ),
  )
}

const lookUp = (contract: object, reference: string): unknown =>
  reference
    .replace('#/', '')
    .split('/')
    .reduce<unknown>((value, name) => (value as Record<string, unknown>)[name], contract)

/** The codes that an operation may answer, by status. */
export const codesOf = ({ responses }: Operation): [status: number, code: string][] =>
  Object.entries(responses).flatMap(([status, { content }]) => {
    const problem = JSON.stringify(content?.['application/problem+json']?.schema ?? {})
    const codes: string[] = JSON.parse(/"code":\{"enum":(\[[^\]]*\])/.exec(problem)?.[1] ?? '[]')
    return codes.map((code): [number, string] => [Number(status), code])
  })

/** How a reply departs from what the contract says of an operation; empty is good. */
export const departures = (operation: Operation, reply: Reply): string[] => {
  const response = operation.responses[reply.status] ?? operation.responses['default']
  if (response === undefined) return [`${operation.operationId}: no response with status ${reply.status}`]
  if (response.content === undefined) return reply.text === '' ? [] : [`${operation.operationId}: a body`]
  if (response.content['*/*'] !== undefined) return []
  const type = reply.headers['content-type']?.split(';')[0] ?? ''
  const body = response.content[type]
  if (body === undefined) return [`${operation.operationId}: no ${type} with status ${reply.status}`]
  if (!type.endsWith('json') || body.schema === undefined) return []
  const result = fromJSONSchema(body.schema).safeParse(JSON.parse(reply.text))
  return (result.error?.issues ?? []).map(
    ({ path, message }) => `${operation.operationId} ${reply.status} ${path.join('.')}: ${message}`,
  )
}
