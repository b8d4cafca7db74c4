import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { headerLinesOf, startRecordingResourceServer, subjectOf, tokenOf } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  stack = await startStrictStack({ target: `${resourceServer.url}/base` })
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(async () => {
  await stack.close()
  await resourceServer.close()
})

const lastCall = () => resourceServer.lastCall()
const proof: [string, string] = ['X-CSRF', '1']

/** Calls with these header lines beside the proof; what reached the resource server, names in lower case. */
const arriving = async (headers: [string, string][]) => {
  const reply = await tab.raw({ path: '/api/demo/x', headers: [proof, ...headers] })
  expect(reply.status).toBe(200)
  return headerLinesOf(lastCall())
}
/** The event of a call as API Gateway would send it, with header values that no HTTP parser lets through. */
const event = (headers: Record<string, string>) => ({
  version: '2.0',
  routeKey: 'ANY /api/{api}/{path+}',
  rawPath: '/api/demo/x',
  rawQueryString: '',
  cookies: tab.cookies.header(stack.origin, 'strict').split('; '),
  headers: { 'x-csrf': '1', ...headers },
  requestContext: { requestId: 'request-1', http: { method: 'GET', path: '/api/demo/x' } },
  pathParameters: { api: 'demo', path: 'x' },
  isBase64Encoded: false,
})

test.each([
  [['Authorization', 'Bearer attacker']],
  [
    ['authorization', 'Basic YTpi'],
    ['AUTHORIZATION', 'Bearer attacker'],
  ],
  [
    ['Authorization_', 'Bearer attacker'],
    ['X-Authorization', 'Bearer attacker'],
    ['Proxy-Authorization', 'Basic YTpi'],
  ],
] as [string, string][][])('the token is the only credential, whatever the browser says: %j', async (...lines) => {
  const arrived = await arriving(lines)
  expect(arrived.filter(([name]) => name.includes('authorization'))).toHaveLength(1)
  expect(JSON.stringify(arrived)).not.toMatch(/attacker|YTpi/)
  expect(await subjectOf(stack.authorizationServer, tokenOf(lastCall()))).toBe('ada')
})

test('what is only for us stays here', async () => {
  const names = (
    await arriving([
      ['Origin', stack.origin],
      ['Referer', `${stack.origin}/`],
      ['Sec-Fetch-Site', 'same-origin'],
    ])
  ).map(([name]) => name)
  for (const name of ['cookie', 'x-csrf', 'origin', 'referer']) expect(names).not.toContain(name)
  expect(names.filter((name) => name.startsWith('sec-'))).toEqual([])
})

test.each([
  [
    'of a proxy in front',
    [
      'Forwarded',
      'X-Forwarded-For',
      'X-Forwarded-Host',
      'X-Forwarded-Proto',
      'X-Forwarded-Uri',
      'X-Forwarded-Prefix',
      'X-Forwarded-User',
      'X-Original-URL',
      'X-Rewrite-URL',
      'X-Real-IP',
      'X-Client-IP',
      'Client-IP',
      'Fastly-Client-IP',
      'X-Forwarded',
      'X-Host',
      'True-Client-IP',
      'CF-Connecting-IP',
      'Via',
      'Front-End-Https',
      'X-Amzn-Trace-Id',
      'X-Amz-Security-Token',
      'CloudFront-Viewer-Address',
    ],
  ],
  [
    'that name a user',
    [
      'Remote-User',
      'X-Remote-User',
      'X-User',
      'X-User-Id',
      'X-Auth-Request-Email',
      'X-Authenticated-User',
      'X-WebAuth-User',
      'X-Consumer-Username',
      'X-Credential-Identifier',
      'X-Pomerium-Claim-Email',
      'X-Vouch-User',
      'X-Goog-Authenticated-User-Email',
      'X-Goog-IAP-JWT-Assertion',
      'X-MS-Client-Principal-Name',
      'X-Appengine-User-Id',
      'Tailscale-User-Login',
      'X-SSL-Client-CN',
      'SSL-Client-Verify',
      'From',
    ],
  ],
  [
    'that change the method or the framework',
    ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'X-Middleware-Subrequest'],
  ],
  ['with odd names', ['X_Forwarded_User', 'X.Forwarded.User', 'Remote_User', 'Cookie_', 'X-CSRF_', '~x', "x'y", 'x!']],
])('headers %s do not reach the resource server', async (_, names) => {
  const arrived = await arriving(names.map((name) => [name, 'planted']))
  expect(arrived.filter(([, value]) => value.includes('planted'))).toEqual([])
})

// API Gateway drops these itself, so the function is asked directly.
test('hop-by-hop headers and what Connection lists are dropped', async () => {
  const names = [
    'keep-alive',
    'te',
    'trailer',
    'transfer-encoding',
    'upgrade',
    'expect',
    'http2-settings',
    'proxy-connection',
    'x-listed',
  ]
  const headers = Object.fromEntries(names.map((name) => [name, 'planted']))
  await stack.stack.invoke('Api', event({ ...headers, connection: 'X-Listed, close', 'x-kept': 'yes' }))
  expect(JSON.stringify(lastCall().rawHeaders)).not.toContain('planted')
  expect(lastCall().headers).toHaveProperty('x-kept', 'yes')
})

test('the host is the target’s, and there is one length', async () => {
  const reply = await tab.raw({
    path: '/api/demo/x',
    method: 'POST',
    headers: [proof, ['Host', 'evil.example']],
    body: 'abc',
  })
  expect(reply.status).toBe(200)
  const lines = headerLinesOf(lastCall())
  expect(lines.filter(([name]) => name === 'host')).toEqual([['host', new URL(resourceServer.url).host]])
  expect(lines.filter(([name]) => name === 'content-length')).toEqual([['content-length', '3']])
})

test('what a script may say to its API arrives as it was', async () => {
  const lines: [string, string][] = [
    ['Accept', 'application/vnd.api+json;q=0.9, */*'],
    ['Accept-Language', 'de, en;q=0.5'],
    ['Content-Type', 'application/merge-patch+json'],
    ['Idempotency-Key', '"8e03978e-40d5"'],
    ['If-Match', '"v1"'],
    ['Range', 'bytes=0-99'],
    ['X-Request-Source', 'tab\tand ; = , signs'],
  ]
  const arrived = await arriving(lines)
  for (const [name, value] of lines) expect(arrived).toContainEqual([name.toLowerCase(), value])
})

test.each(['\r\nX-Injected: yes', 'a\nb', 'a\rb', 'a\u0000b', 'a\u007fb', 'a\u2028b', 'a\u0100b'])(
  'the value %j is refused, and reaches nobody',
  async (value) => {
    const before = resourceServer.requests.length
    const reply = await stack.stack.invoke('Api', event({ 'x-odd': value }))
    expect(reply).toMatchObject({ statusCode: 400, body: expect.stringContaining('"request_invalid"') })
    expect(resourceServer.requests).toHaveLength(before)
  },
)

test.each(['x-odd name', 'x-odd\r\nx', 'x-ödd', 'ｘ-forwarded-user', '', ':path', `x-${'o'.repeat(70)}`])(
  'a header of the name %j is dropped',
  async (name) => {
    expect(await stack.stack.invoke('Api', event({ [name]: 'planted' }))).toMatchObject({ statusCode: 200 })
    expect(JSON.stringify(lastCall().rawHeaders)).not.toContain('planted')
  },
)

test.each([
  'GET /api/demo/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n',
  'POST /api/demo/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc',
  'GET /api/demo/x HTTP/1.1\r\nHost: a\r\nX-Odd : b\r\n\r\n',
  'GET /api/demo/x HTTP/1.1\r\nHost: a\r\n X-Folded: b\r\n\r\n',
])('ambiguous framing ends at the gateway: %j', async (bytes) => {
  const before = resourceServer.requests.length
  const { hostname, port } = new URL(stack.origin)
  const socket = connect(Number(port), hostname)
  socket.end(bytes)
  expect(await text(socket)).toMatch(/^HTTP\/1\.1 400 /)
  expect(resourceServer.requests).toHaveLength(before)
})

test('more than 10 KB of headers is 431, and reaches nobody', async () => {
  const before = resourceServer.requests.length
  const many = Array.from({ length: 200 }, (_, index): [string, string] => [`X-Many-${index}`, 'y'.repeat(60)])
  expect((await tab.raw({ path: '/api/demo/x', headers: [proof, ...many] })).status).toBe(431)
  expect(resourceServer.requests).toHaveLength(before)
})
