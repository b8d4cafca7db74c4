import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { createEdge, listen, type Listening } from '../../infra/local/edge.ts'
import { createHttpApi, type HttpApiRoute } from '../../infra/local/gateway.ts'
import type { HttpApiEvent } from '../../infra/local/gateway-payload.ts'

const routeKeys = [
  'ANY /api/{api}/{path+}',
  'GET /api/{api}/{path+}',
  'GET /bff/callback/{provider}',
  'GET /bff/callback/fixed',
  'ANY /bff/{rest+}',
  'POST /bff/echo',
]

const errors: string[] = []
let server: Listening
let result: (event: HttpApiEvent) => unknown = (event) => event

beforeAll(async () => {
  const functionName = 'web'
  const invoke = async (event: HttpApiEvent) => result(event)
  const routes: HttpApiRoute[] = routeKeys.map((routeKey) => ({ routeKey, functionName, invoke }))
  routes.push({ functionName, routeKey: 'GET /bff/forbidden', invoke, forbidden: true })
  const slow: HttpApiRoute['invoke'] = (_, signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('nobody waits')))
    })
  routes.push({ functionName, routeKey: 'GET /bff/slow', invoke: slow, timeoutMs: 20 })
  routes.push({ functionName, routeKey: 'GET /bff/throws', invoke: () => Promise.reject(new Error('boom')) })
  routes.push({
    functionName,
    routeKey: 'GET /bff/result/{which}',
    invoke: async (event) => results[Number(event.pathParameters?.['which'])],
  })
  const api = createHttpApi({ apiId: 'abc123', routes, onError: (message) => errors.push(message) })
  server = await listen(createEdge(api), 0)
})
afterAll(() => server.close())

const results: unknown[] = []
const resultPath = (value: unknown) => `/bff/result/${results.push(value) - 1}`

interface Sent {
  method?: string
  headers?: Record<string, string | string[]>
  body?: string | Buffer
}

async function send(path: string, { method = 'GET', headers = {}, body }: Sent = {}) {
  const { promise, resolve, reject } = Promise.withResolvers<{
    status: number
    headers: NodeJS.Dict<string | string[]>
    text: string
  }>()
  const request = httpRequest({ host: '127.0.0.1', port: server.port, path, method, headers }, (response) => {
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    response.on('end', () =>
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        text: Buffer.concat(chunks).toString('latin1'),
      }),
    )
  })
  request.on('error', reject)
  request.end(body)
  return promise
}

async function eventOf(path: string, sent?: Sent): Promise<HttpApiEvent> {
  const { text } = await send(path, sent)
  return JSON.parse(Buffer.from(text, 'latin1').toString('utf8')) as HttpApiEvent
}

describe('the route that answers', () => {
  test.each([
    ['GET', '/bff/callback/fixed', 'GET /bff/callback/fixed'],
    ['GET', '/bff/callback/demo', 'GET /bff/callback/{provider}'],
    ['POST', '/bff/callback/demo', 'ANY /bff/{rest+}'],
    ['GET', '/bff/callback/demo/more', 'ANY /bff/{rest+}'],
    ['GET', '/api/demo/a/b', 'GET /api/{api}/{path+}'],
    ['DELETE', '/api/demo/a/b', 'ANY /api/{api}/{path+}'],
    ['POST', '/bff/echo', 'POST /bff/echo'],
  ])('%s %s is %s', async (method, path, routeKey) => {
    expect(await eventOf(path, { method })).toMatchObject({
      routeKey,
      requestContext: { routeKey, http: { method, path } },
    })
  })

  it.each(['/api/demo', '/api/demo/', '/bff/', '/api//x'])('is none for %s', async (path) => {
    expect(await send(path)).toMatchObject({ status: 404, text: '{"message":"Not Found"}' })
  })

  it('belongs to the frontend outside /bff and /api', async () => {
    expect(await send('/bffx')).toMatchObject({ status: 404, text: 'There is no frontend here.\n' })
  })
})

describe('the event', () => {
  it('has the fields of payload format 2.0', async () => {
    const event = await eventOf('/bff/callback/demo?code=a%20b&x=1&x=2&e', {
      headers: {
        Accept: ['text/html', 'a/b'],
        Cookie: 'a=1; b=2',
        'User-Agent': 'test',
        'X-Forwarded-For': '203.0.113.9',
      },
    })
    expect(event).toEqual({
      version: '2.0',
      routeKey: 'GET /bff/callback/{provider}',
      rawPath: '/bff/callback/demo',
      rawQueryString: 'code=a%20b&x=1&x=2&e',
      cookies: ['a=1', 'b=2'],
      headers: {
        accept: 'text/html,a/b',
        'content-length': '0',
        host: 'abc123.execute-api.us-east-1.amazonaws.com',
        'user-agent': 'test',
        'x-amzn-trace-id': expect.stringMatching(/^Root=1-[0-9a-f]{8}-[0-9a-f]{24}$/),
        'x-forwarded-for': '203.0.113.9, 127.0.0.1',
        'x-forwarded-port': String(server.port),
        'x-forwarded-proto': 'http',
      },
      queryStringParameters: { code: 'a b', x: '1,2', e: '' },
      requestContext: {
        accountId: '000000000000',
        apiId: 'abc123',
        domainName: 'abc123.execute-api.us-east-1.amazonaws.com',
        domainPrefix: 'abc123',
        http: {
          method: 'GET',
          path: '/bff/callback/demo',
          protocol: 'HTTP/1.1',
          sourceIp: '127.0.0.1',
          userAgent: 'test',
        },
        requestId: expect.stringMatching(/^[\w+/]{15}=$/),
        routeKey: 'GET /bff/callback/{provider}',
        stage: '$default',
        time: expect.stringMatching(/^\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000$/),
        timeEpoch: expect.any(Number),
      },
      pathParameters: { provider: 'demo' },
      isBase64Encoded: false,
    })
  })

  it.each([
    ['/api/demo/a%20b/%C3%A9', '/api/demo/a b/é', 'a b/é'],
    ['/api/demo/a%2Fb%2f%5C%5c%252F', '/api/demo/a%2Fb%2f%5C%5c%252F', 'a%2Fb%2f%5C%5c%252F'],
    ['/api/demo/a%3Fb/c', '/api/demo/a', 'a'],
    ['/api/demo/../%2e%2e/./x', '/api/demo/../.././x', '../.././x'],
    ['/api/demo//x', '/api/demo//x', '/x'],
  ])('has the path decoded once: %s', async (sent, rawPath, path) => {
    expect(await eventOf(sent)).toMatchObject({
      rawPath,
      pathParameters: { api: 'demo', path },
      requestContext: { http: { path: rawPath } },
    })
  })

  it.each(['/api/demo/%', '/api/demo/%zz', '/api/demo/%ff', '/api/demo/%c0%af'])(
    'is never made for %s',
    async (path) => {
      expect(await send(path)).toMatchObject({ status: 400, text: '{"message":"Bad Request"}' })
    },
  )

  it.each([
    ['application/json', false],
    ['application/json; charset=utf-8', false],
    ['text/plain', false],
    ['TEXT/html;x=y', false],
    ['application/xml', false],
    ['application/javascript', false],
    ['application/x-www-form-urlencoded', true],
    ['application/problem+json', true],
    ['application/jsonx', true],
    ['application/octet-stream', true],
    [undefined, true],
  ])('has a body of type %s in base64: %s', async (type, isBase64Encoded) => {
    const event = await eventOf('/bff/echo', {
      method: 'POST',
      body: '{"é":1}',
      headers: type ? { 'content-type': type } : {},
    })
    const body = isBase64Encoded ? Buffer.from('{"é":1}').toString('base64') : '{"é":1}'
    expect(event.isBase64Encoded).toBe(isBase64Encoded)
    expect(event.body).toBe(body)
  })

  it('keeps Expect, Range and the like, but no hop-by-hop header', async () => {
    const { headers } = await eventOf('/bff/echo', {
      method: 'POST',
      headers: { TE: 'trailers', 'Transfer-Encoding': 'chunked', Range: 'bytes=0-1' },
      body: 'x',
    })
    expect(headers).toMatchObject({ range: 'bytes=0-1', 'content-length': '1' })
    expect(Object.keys(headers)).not.toEqual(expect.arrayContaining(['te']))
    expect(headers).not.toHaveProperty('connection')
    expect(headers).not.toHaveProperty('transfer-encoding')
  })
})

describe('the response', () => {
  it('has the status, headers and cookies of the result', async () => {
    const path = resultPath({
      statusCode: 303,
      headers: { Location: '/', 'X-N': 1 },
      cookies: ['a=1; Path=/', 'b=2'],
      body: '',
    })
    const { status, headers, text } = await send(path)
    expect({ status, text }).toEqual({ status: 303, text: '' })
    expect(headers).toMatchObject({
      location: '/',
      'x-n': '1',
      'set-cookie': ['a=1; Path=/', 'b=2'],
      'content-length': '0',
      'apigw-requestid': expect.any(String),
    })
  })

  it.each([
    [
      'bytes',
      { statusCode: 200, body: '//79', isBase64Encoded: true, headers: { 'content-type': 'image/png' } },
      'ÿþý',
      'image/png',
    ],
    ['text', { statusCode: 200, body: 'hi' }, 'hi', 'text/plain;charset=UTF-8'],
    ['JSON without a status', { hello: 1 }, '{"hello":1}', 'application/json'],
    ['a string without a status', 'hello', 'hello', 'application/json'],
  ])('is %s', async (_, value, text, type) => {
    const response = await send(resultPath(value))
    expect(response).toMatchObject({ status: 200, text, headers: { 'content-type': type } })
  })

  it('has no hop-by-hop header and no length of the function', async () => {
    const headers = {
      'Transfer-Encoding': 'chunked',
      Upgrade: 'h2c',
      'Keep-Alive': 'timeout=99',
      'Content-Length': '99',
      'X-Kept': 'yes',
    }
    const response = await send(resultPath({ statusCode: 200, headers, body: 'four' }))
    expect(response).toMatchObject({ text: 'four', headers: { 'x-kept': 'yes', 'content-length': '4' } })
    expect(response.headers['upgrade']).toBeUndefined()
    expect(response.headers['keep-alive']).not.toBe('timeout=99')
  })

  it.each([
    ['nothing', undefined],
    ['null', null],
    ['a status of text', { statusCode: 'OK' }],
    ['a status out of range', { statusCode: 99 }],
    ['a body that is an object', { statusCode: 200, body: {} }],
    ['a header that is a list', { statusCode: 200, headers: { a: ['b'] } }],
    ['a header with a line break', { statusCode: 200, headers: { a: 'b\r\nc: d' } }],
    ['cookies that are no list', { statusCode: 200, cookies: 'a=1' }],
  ])('is API Gateway’s own 500 for %s', async (_, value) => {
    expect(await send(resultPath(value))).toMatchObject({ status: 500, text: '{"message":"Internal Server Error"}' })
  })

  it.each([
    ['/bff/throws', 500, 'Internal Server Error', ['GET /bff/throws: boom']],
    [
      '/bff/forbidden',
      500,
      'Internal Server Error',
      ['GET /bff/forbidden: no AWS::Lambda::Permission lets API Gateway invoke its function'],
    ],
    ['/bff/slow', 503, 'Service Unavailable', ['GET /bff/slow: nobody waits']],
  ])('%s is %i %s', async (path, status, text, logged) => {
    expect(await send(path)).toMatchObject({ status, text: JSON.stringify({ message: text }) })
    expect(errors).toEqual(expect.arrayContaining(logged))
  })
})

describe('limits', () => {
  it('refuse request line and headers over 10,240 bytes', async () => {
    expect(await send('/bff/echo', { method: 'POST', headers: { a: 'x'.repeat(10_000) } })).toMatchObject({
      status: 200,
    })
    expect(await send('/bff/echo', { method: 'POST', headers: { a: 'x'.repeat(10_240) } })).toMatchObject({
      status: 431,
      text: '{"message":"Request Header Fields Too Large"}',
    })
  })

  it('refuse a body over 10 MB, or over 6 MB in the event', async () => {
    result = () => ({ statusCode: 200, body: 'taken' })
    const post = (megabytes: number, type: string) =>
      send('/bff/echo', {
        method: 'POST',
        headers: { 'content-type': type },
        body: Buffer.alloc(megabytes * 1024 * 1024, 'x'),
      })
    const refused = { status: 413, text: '{"message":"Request Entity Too Large"}' }
    expect(await post(11, 'text/plain')).toMatchObject(refused)
    expect(await post(5, 'text/plain')).toMatchObject({ status: 200 })
    expect(await post(5, 'image/png')).toMatchObject(refused)
    result = (event) => event
  })

  it('survive a client that goes away in the middle of its body', async () => {
    const socket = connect(server.port, '127.0.0.1')
    socket.write('POST /bff/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf')
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.destroy()
    expect(await send('/bff/x')).toMatchObject({ status: 200 })
  })
})

describe('listening', () => {
  it('answers on every loopback address and says in a sentence that a port is taken', async () => {
    const other = (await fetch(`http://localhost:${server.port}/`)).status
    expect(other).toBe(404)
    await expect(listen(() => {}, server.port)).rejects.toThrow(
      `Port ${server.port} is already in use; stop the program that uses it, or choose another port.`,
    )
  })
})
