import { randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { instead, insteadJson } from '../support/faults.ts'
import { startRecordingResourceServer, subjectOf, tokenOf } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let second: Awaited<ReturnType<typeof startStrictAuthorizationServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  second = await startStrictAuthorizationServer()
  const target = `${resourceServer.url}/base`
  stack = await startStrictStack({
    target,
    stage: (stage) => ({
      ...stage,
      providers: { ...stage.providers, second: { issuer: second.issuer } },
      apis: {
        ...stage.apis,
        readonly: { provider: 'demo', target, methods: ['GET', 'HEAD'] },
        second: { provider: 'second', target },
      },
    }),
  })
})
afterAll(async () => {
  await stack.close()
  await second.close()
  await resourceServer.close()
})

const signedIn = async (user = 'Ada') => {
  const tab = stack.newBrowser()
  await signIn(tab, { user })
  return tab
}
const lastCall = () => resourceServer.lastCall()
const problem = (status: number, code: string) =>
  expect.objectContaining({ status, code, title: expect.any(String), request_id: expect.any(String) })

describe('a call arrives at the resource server', () => {
  test('GET goes to the path behind the target, with the token of who is signed in', async () => {
    const tab = await signedIn('Grace')
    const reply = await tab.fetch('/api/demo/things/7')
    expect(reply).toMatchObject({ status: 200, text: '{"ok":true}' })
    expect(lastCall()).toMatchObject({ method: 'GET', path: '/base/things/7' })
    expect(lastCall().headers).not.toHaveProperty('content-length')
    expect(await subjectOf(stack.authorizationServer, tokenOf(lastCall()))).toBe('grace')
  })

  test.each(['POST', 'PUT', 'PATCH', 'DELETE'])('%s brings its JSON body along', async (method) => {
    const tab = await signedIn()
    const json = { text: 'Grüße, 世界 🙂', nested: [1, null] }
    const reply = await tab.fetch('/api/demo/things', { method, json })
    expect(reply.status).toBe(200)
    expect(lastCall()).toMatchObject({ method, path: '/base/things' })
    expect(lastCall().headers['content-type']).toBe('application/json')
    expect(lastCall().body.toString('utf8')).toBe(JSON.stringify(json))
  })

  test('POST without a body says that its body is empty', async () => {
    const tab = await signedIn()
    expect((await tab.fetch('/api/demo/things', { method: 'POST' })).status).toBe(200)
    expect(lastCall().headers['content-length']).toBe('0')
  })

  test('bytes stay the same bytes both ways', async () => {
    const tab = await signedIn()
    const sent = Buffer.concat([Buffer.from(Uint8Array.from({ length: 256 }, (_, index) => index)), randomBytes(5_000)])
    const answered = gzipSync(randomBytes(3_000))
    const headers = { 'Content-Type': 'text/css', 'Content-Encoding': 'gzip' }
    resourceServer.plan('call', instead({ status: 200, headers, body: answered }))
    const reply = await tab.fetch('/api/demo/upload', {
      method: 'PUT',
      body: sent,
      headers: { 'Content-Type': 'application/octet-stream' },
    })
    expect(lastCall().body.equals(sent)).toBe(true)
    expect(reply.bytes.equals(answered)).toBe(true)
    expect(reply.headers).toMatchObject({ 'content-type': 'text/css', 'content-encoding': 'gzip' })
  })

  test('HEAD is asked as HEAD and answered without a body', async () => {
    const tab = await signedIn()
    resourceServer.plan('call', instead({ status: 200, headers: { ETag: '"v1"' } }))
    const reply = await tab.fetch('/api/demo/things', { method: 'HEAD' })
    expect(reply).toMatchObject({ status: 200, text: '', headers: { etag: '"v1"' } })
    expect(lastCall().method).toBe('HEAD')
  })

  test.each([
    'a=1&a=2&b=',
    'q=%20+%2F%2e%2e%2f&x=%C3%BC%00',
    '?&&=;a[]=1',
    'next=https://evil.example/../%2e%2e',
    '%ff%zz%',
  ])('the query %j is not touched', async (query) => {
    const tab = await signedIn()
    const reply = await tab.raw({ path: `/api/demo/search?${query}`, headers: [['X-CSRF', '1']] })
    expect(reply.status).toBe(200)
    expect(lastCall().path).toBe(`/base/search?${query}`)
  })
})

describe('bodies at the limits', () => {
  const octets = { 'Content-Type': 'application/octet-stream' }

  test('4.3 MB of bytes go through, both ways', async () => {
    const tab = await signedIn()
    const body = randomBytes(4_300_000)
    resourceServer.plan('call', instead({ status: 200, headers: octets, body }))
    const reply = await tab.fetch('/api/demo/upload', { method: 'POST', body, headers: octets })
    expect(lastCall().body.equals(body)).toBe(true)
    expect(reply.bytes.equals(body)).toBe(true)
  })

  test('5.5 MB of JSON go through', async () => {
    const tab = await signedIn()
    const reply = await tab.fetch('/api/demo/upload', { method: 'POST', json: 'x'.repeat(5_500_000) })
    expect(reply.status).toBe(200)
    expect(lastCall().body).toHaveLength(5_500_002)
  })

  test('what Lambda cannot take is 413 and reaches nobody', async () => {
    const tab = await signedIn()
    const before = resourceServer.requests.length
    const reply = await tab.fetch('/api/demo/upload', { method: 'POST', body: randomBytes(4_730_000), headers: octets })
    expect(reply.status).toBe(413)
    expect(resourceServer.requests).toHaveLength(before)
  })
})

describe('what the resource server answers is the answer', () => {
  test.each([200, 201, 202, 206, 400, 403, 404, 409, 410, 418, 422, 429, 500, 503])('%i', async (status) => {
    const tab = await signedIn()
    resourceServer.plan('call', insteadJson(status, { said: status }, { 'Retry-After': '7', ETag: 'W/"x"' }))
    const reply = await tab.fetch('/api/demo/status')
    expect(reply.status).toBe(status)
    expect(reply.json()).toEqual({ said: status })
    expect(reply.headers).toMatchObject({ 'content-type': 'application/json', 'retry-after': '7', etag: 'W/"x"' })
    expect(reply.setCookies).toEqual([])
  })

  test.each([204, 304])('%i without a body', async (status) => {
    const tab = await signedIn()
    resourceServer.plan('call', instead({ status, headers: { ETag: '"v2"' } }))
    const reply = await tab.fetch('/api/demo/status', { headers: { 'If-None-Match': '"v2"' } })
    expect(reply).toMatchObject({ status, text: '', headers: { etag: '"v2"' } })
    expect(lastCall().headers['if-none-match']).toBe('"v2"')
  })
})

describe('a call is refused before anything is asked of the resource server', () => {
  const refused = async (call: Promise<{ status: number; json: () => unknown; headers: Record<string, string> }>) => {
    const before = resourceServer.requests.length
    const reply = await call
    expect(resourceServer.requests).toHaveLength(before)
    expect(reply.headers['content-type']).toBe('application/problem+json')
    expect(reply.headers['cache-control']).toBe('no-store')
    return reply
  }

  test.each(['unknown', 'DEMO', '__proto__', 'constructor', 'demo.evil', '%64emo2'])('route %s', async (name) => {
    const tab = await signedIn()
    const reply = await refused(tab.raw({ path: `/api/${name}/x`, headers: [['X-CSRF', '1']] }))
    expect(reply.json()).toEqual(problem(404, 'route_not_allowed'))
  })

  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'])('method %s', async (method) => {
    const tab = await signedIn()
    const override: [string, string][] = [['X-HTTP-Method-Override', 'GET']]
    const reply = await refused(tab.raw({ path: '/api/readonly/x', method, headers: [['X-CSRF', '1'], ...override] }))
    expect(reply.json()).toEqual(problem(405, 'method_not_allowed'))
    expect(reply.headers['allow']).toBe('GET, HEAD')
  })

  test('no session', async () => {
    const tab = stack.newBrowser()
    const reply = await refused(tab.fetch('/api/demo/x', { headers: { Authorization: 'Bearer mine' } }))
    expect(reply.json()).toEqual(problem(401, 'session_required'))
    expect(reply).toMatchObject({ setCookies: [] })
  })

  test('a cookie that is the ticket of nothing, which goes', async () => {
    const tab = stack.newBrowser()
    const cookie = `__Host-Http-session=${randomBytes(32).toString('base64url')}.${randomBytes(32).toString('base64url')}`
    const reply = await refused(tab.fetch('/api/demo/x', { headers: { Cookie: cookie } }))
    expect(reply.json()).toEqual(problem(401, 'session_required'))
    expect(reply).toMatchObject({ setCookies: [expect.stringMatching(/^__Host-Http-session=;.*Max-Age=0/)] })
  })

  test('a session at another provider, which stays', async () => {
    const tab = await signedIn()
    const reply = await refused(tab.fetch('/api/second/x'))
    expect(reply.json()).toEqual(problem(401, 'session_required'))
    expect(reply).toMatchObject({ setCookies: [] })
    expect((await tab.fetch('/api/demo/x')).status).toBe(200)
  })

  test.each<[why: string, headers: [string, string][]]>([
    ['no proof', []],
    ['an empty proof', [['X-CSRF', '']]],
    ['another proof', [['X-CSRF', 'true']]],
    [
      'a proof that stands twice',
      [
        ['X-CSRF', '1'],
        ['X-CSRF', '1'],
      ],
    ],
    ...['cross-site', 'same-site', 'none', 'same-origin, same-origin', ''].map((site): [string, [string, string][]] => [
      `site ${site}`,
      [
        ['X-CSRF', '1'],
        ['Sec-Fetch-Site', site],
      ],
    ]),
    ...[
      'null',
      '',
      'http://localhost',
      'http://localhost.evil.example',
      'https://evil.example',
      'http://evil@localhost',
    ].map((origin): [string, [string, string][]] => [
      `origin ${origin}`,
      [
        ['X-CSRF', '1'],
        ['Origin', origin],
      ],
    ]),
  ])('%s', async (_, headers) => {
    const tab = await signedIn()
    for (const method of ['GET', 'POST']) {
      const reply = await refused(tab.raw({ path: '/api/demo/x', method, headers }))
      expect(reply.json()).toEqual(problem(403, 'csrf_rejected'))
      expect(reply.headers).not.toHaveProperty('access-control-allow-origin')
    }
    expect((await tab.fetch('/api/demo/x')).status).toBe(200)
  })
})

test('two sessions in many parallel calls never get the token of each other', async () => {
  const [ada, grace, again] = await Promise.all([signedIn('Ada'), signedIn('Grace'), signedIn('Ada')])
  const tabs = { ada, grace, again }
  const before = resourceServer.requests.length
  const calls = Object.entries(tabs).flatMap(([name, tab]) =>
    Array.from({ length: 20 }, (_, index) => tab.fetch(`/api/demo/${name}/${index}`)),
  )
  expect(new Set((await Promise.all(calls)).map(({ status }) => status))).toEqual(new Set([200]))
  const seen = new Map(Object.keys(tabs).map((name) => [name, new Set<string>()]))
  for (const call of resourceServer.requests.slice(before)) seen.get(call.path.split('/')[2] ?? '')?.add(tokenOf(call))
  const tokens = [...seen.values()].map((set) => Array.from(set))
  expect(tokens.map((list) => list.length)).toEqual([1, 1, 1])
  expect(new Set(tokens.flat()).size).toBe(3)
  const subjects = tokens.flat().map((token) => subjectOf(stack.authorizationServer, token))
  expect(await Promise.all(subjects)).toEqual(['ada', 'grace', 'ada'])
})
