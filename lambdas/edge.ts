import middy from '@middy/core'
import type { MiddlewareObj } from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { Failure, reasons } from '../shared/errors.ts'
import { isNavigation, json } from '../shared/message.ts'
import type { Reply, Request } from '../shared/message.ts'
import type { Task } from '../shared/tasks.ts'
import { errorPage } from './pages.ts'
import { asFailure, reportFailure } from './report.ts'
import { stage } from './runtime.ts'

/**
 * Between API Gateway (HTTP API, payload 2.0) and the flows: an event becomes a plain request, a reply becomes a result, whatever is
 * thrown becomes a page or a problem from the table of reasons, and every answer carries the same security headers.
 */

export type Endpoint = (request: Request) => Promise<Reply>

type Event = APIGatewayProxyEventV2
type Result = APIGatewayProxyStructuredResultV2

const asRequest = (event: Event): Request => ({
  method: event.requestContext.http.method,
  path: event.rawPath,
  pathParameters: Object.fromEntries(
    Object.entries(event.pathParameters ?? {}).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  ),
  rawQuery: event.rawQueryString,
  headers: Object.fromEntries(
    Object.entries(event.headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name.toLowerCase(), value]],
    ),
  ),
  cookies: (event.cookies ?? []).join('; '),
  body: event.body === undefined ? Buffer.alloc(0) : Buffer.from(event.body, event.isBase64Encoded ? 'base64' : 'utf8'),
  id: event.requestContext.requestId,
})

const SECURITY_HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'x-frame-options': 'DENY',
}
/** For all but our own pages: what an API answers must never run as a page of this origin. */
const INERT = "default-src 'none'; frame-ancestors 'none'; sandbox"

const asResult = (reply: Reply, requestId: string): Result => {
  const binary = reply.body instanceof Uint8Array
  return {
    statusCode: reply.status,
    headers: {
      'content-security-policy': INERT,
      ...reply.headers,
      ...SECURITY_HEADERS,
      ...(reply.cacheSeconds !== undefined && { 'cache-control': `public, max-age=${reply.cacheSeconds}` }),
      ...(stage().origin.startsWith('https:')
        ? { 'strict-transport-security': 'max-age=63072000; includeSubDomains' }
        : {}),
      'x-request-id': requestId,
    },
    cookies: reply.cookies ?? [],
    ...(reply.body === undefined || reply.body.length === 0
      ? {}
      : {
          body: typeof reply.body === 'string' ? reply.body : Buffer.from(reply.body).toString('base64'),
          isBase64Encoded: binary,
        }),
  }
}

/** The answer to a failure: a page for a person, `application/problem+json` (RFC 9457) for a script, both from one row of the table. */
const asReply = (failure: Failure, request: Request): Reply => {
  const { status, code, sentence } = reasons[failure.reason]
  const more = {
    ...(failure.retryAfterSeconds === undefined ? {} : { 'retry-after': String(failure.retryAfterSeconds) }),
    ...(failure.allow === undefined ? {} : { allow: failure.allow.join(', ') }),
  }
  const cookies = [...failure.cookies]
  if (isNavigation(request)) {
    const reply = errorPage({ status, code, sentence, requestId: request.id, tryAgain: failure.tryAgain })
    return { ...reply, cookies, headers: { ...reply.headers, ...more } }
  }
  const problem = { title: sentence, status, code, request_id: request.id }
  return json(status, problem, { cookies, headers: { 'content-type': 'application/problem+json', ...more } })
}

const answerFailures = (flow: string): MiddlewareObj<Event, Result> => ({
  onError: (handling) => {
    const request = asRequest(handling.event)
    const failure = asFailure(handling.error)
    reportFailure(flow, failure, request)
    handling.response = asResult(asReply(failure, request), request.id)
  },
})

/**
 * A Lambda handler for a flow, by method; `ANY` takes all. Other methods are answered 405.
 * @see API Gateway, "Working with AWS Lambda proxy integrations for HTTP APIs", payload format 2.0
 */
export const edge = (flow: string, endpoints: Readonly<Record<string, Endpoint>>) =>
  middy<Event, Result>()
    .use(answerFailures(flow))
    .handler(async (event) => {
      const request = asRequest(event)
      const endpoint = endpoints[request.method] ?? endpoints['ANY']
      if (endpoint === undefined) throw new Failure('method_not_allowed', { allow: Object.keys(endpoints) })
      return asResult(await endpoint(request), request.id)
    })

const reportFailures = (flow: string): MiddlewareObj<unknown, void> => ({
  onError: ({ error, context }) => reportFailure(flow, asFailure(error), context.awsRequestId),
})

/** A Lambda handler for tasks that arrive by asynchronous invocation; what it throws makes Lambda repeat the task. */
export const taskEdge = (flow: string, run: (task: Task, requestId: string) => Promise<void>) =>
  middy<Task, void>()
    .use(reportFailures(flow))
    .handler((task, context) => run(task, context.awsRequestId))

/**
 * A Lambda handler for what an operator orders by a synchronous invocation: whoever sent the order reads the outcome, or why there is none
 * in our own words.
 */
export const orderEdge = (flow: string, run: (order: unknown, requestId: string) => Promise<object>) =>
  middy<unknown, object>().handler(async (order, { awsRequestId: requestId }) => {
    try {
      return await run(order, requestId)
    } catch (error) {
      const failure = asFailure(error)
      reportFailure(flow, failure, requestId)
      throw new Error([failure.reason, failure.detail].filter((part) => part !== undefined).join(': '), {
        cause: error,
      })
    }
  })

/** What Secrets Manager sends to a rotation function, once a step. Its guide names the steps in two ways. */
export interface RotationEvent {
  Step: string
  SecretId: string
  ClientRequestToken: string
}

/** A Lambda handler for the steps of rotations; what it throws makes Secrets Manager repeat the rotation. */
export const rotationEdge = (flow: string, run: (event: RotationEvent) => Promise<void>) =>
  middy<RotationEvent, void>()
    .use(reportFailures(flow))
    .handler((event) => run(event))

/** A Lambda handler for a rule that fires by the clock; what it throws makes Lambda repeat it, twice. */
export const scheduleEdge = (flow: string, run: (requestId: string) => Promise<void>) =>
  middy<unknown, void>()
    .use(reportFailures(flow))
    .handler((_, context) => run(context.awsRequestId))
