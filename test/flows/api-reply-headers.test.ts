import { afterAll, beforeAll, expect, test } from 'vitest'
import { instead } from '../support/faults.ts'
import { startRecordingResourceServer, tokenOf } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let elsewhere: Awaited<ReturnType<typeof startRecordingResourceServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  elsewhere = await startRecordingResourceServer()
  stack = await startStrictStack({ target: `${resourceServer.url}/base` })
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(async () => {
  await stack.close()
  await elsewhere.close()
  await resourceServer.close()
})

const answered = async (headers: Record<string, string | string[]>, status = 200) => {
  resourceServer.plan('call', instead({ status, headers, body: status === 204 ? '' : 'body' }))
  return tab.fetch('/api/demo/things/7')
}

test('cookies of the resource server never reach the browser', async () => {
  const names = tab.cookies.names(stack.origin)
  const reply = await answered({
    'Set-Cookie': [
      'a=1',
      '__Host-Http-session=planted; Path=/; Secure; HttpOnly',
      '__Host-Http-login.x=y; Path=/; Secure',
    ],
    'Set-Cookie2': 'b=2',
  })
  expect(reply).toMatchObject({ status: 200, setCookies: [] })
  expect(reply.headers).not.toHaveProperty('set-cookie2')
  expect(tab.cookies.names(stack.origin)).toEqual(names)
})

test('what would change this origin is dropped', async () => {
  const dropped = {
    'Clear-Site-Data': '"*"',
    Refresh: '0; url=https://evil.example',
    'Alt-Svc': 'h2="evil.example:443"',
    'Strict-Transport-Security': 'max-age=0',
    'Content-Security-Policy-Report-Only': 'report-uri https://evil.example',
    NEL: '{}',
    'Report-To': '{}',
    'Reporting-Endpoints': 'a="https://evil.example"',
    'Service-Worker-Allowed': '/',
    SourceMap: '/x.map',
    'Access-Control-Allow-Origin': '*',
    'Access-Control-Allow-Credentials': 'true',
    'WWW-Authenticate': 'Basic realm="password?"',
    Authorization: 'Bearer x',
    'Proxy-Authenticate': 'Basic',
    'Content-Location': 'https://evil.example/x',
  }
  const reply = await answered(dropped)
  for (const name of Object.keys(dropped)) expect(reply.headers).not.toHaveProperty(name.toLowerCase())
})

test('ours are there, whatever the resource server says', async () => {
  const reply = await answered({
    'Cache-Control': 'public, max-age=31536000',
    'Content-Security-Policy': "default-src *; script-src 'unsafe-inline'",
    'X-Content-Type-Options': 'no',
    'X-Frame-Options': 'ALLOWALL',
    'Referrer-Policy': 'unsafe-url',
    'Cross-Origin-Resource-Policy': 'cross-origin',
    'Content-Type': 'text/html',
  })
  expect(reply.headers).toMatchObject({
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'; sandbox",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'content-type': 'text/html',
  })
})

test('hop-by-hop headers and what Connection lists end here', async () => {
  const reply = await answered({
    Connection: 'X-Hop, keep-alive',
    'X-Hop': 'a',
    'Keep-Alive': 'timeout=9',
    Upgrade: 'h2c',
    Trailer: 'X-Sum',
  })
  for (const name of ['x-hop', 'upgrade', 'trailer']) expect(reply.headers).not.toHaveProperty(name)
})

test('a header that echoes the token is dropped', async () => {
  await tab.fetch('/api/demo/x')
  const token = tokenOf(resourceServer.lastCall())
  const reply = await answered({
    'X-Debug': `authorization=Bearer ${token}`,
    Location: `/base/x?token=${token}`,
    'X-Fine': 'yes',
  })
  expect(reply.headers).toMatchObject({ 'x-fine': 'yes' })
  expect(JSON.stringify(reply.headers)).not.toContain(token)
})

test('a Bearer challenge, names of files and repeated headers stay', async () => {
  const reply = await answered(
    {
      'WWW-Authenticate': 'Bearer error="insufficient_scope"',
      'Content-Disposition': 'attachment; filename="a.txt"',
      Link: ['</2>; rel=next', '</9>; rel=last'],
      'Retry-After': '3',
    },
    403,
  )
  expect(reply).toMatchObject({ status: 403, text: 'body' })
  expect(reply.headers).toMatchObject({
    'www-authenticate': 'Bearer error="insufficient_scope"',
    'content-disposition': 'attachment; filename="a.txt"',
    link: '</2>; rel=next, </9>; rel=last',
    'retry-after': '3',
  })
})

test.each([301, 302, 303, 307, 308])('a redirect with %i is passed on, not followed', async (status) => {
  const before = resourceServer.requests.length
  const reply = await answered({ Location: `${elsewhere.url}/steal` }, status)
  expect(reply.status).toBe(status)
  expect(reply.headers).not.toHaveProperty('location')
  expect(resourceServer.requests).toHaveLength(before + 1)
  expect(elsewhere.requests).toEqual([])
})

test.each([
  ['/base/other?x=1#y', '/api/demo/other?x=1#y'],
  ['8', '/api/demo/things/8'],
  ['../up', '/api/demo/up'],
  ['?page=2', '/api/demo/things/7?page=2'],
])('a redirect to %s within the target leads to %s', async (location, leadsTo) => {
  expect((await answered({ Location: location }, 303)).headers['location']).toBe(leadsTo)
  expect(
    (await answered({ Location: new URL(location, `${resourceServer.url}/base/things/7`).href }, 303)).headers[
      'location'
    ],
  ).toBe(leadsTo)
})

test.each([
  '/',
  '/admin',
  '/base',
  '/based/x',
  '/base/../admin',
  '../../admin',
  '//evil.example/base/x',
  '/\\evil.example',
  'https://evil.example/base/x',
  'javascript:alert(1)',
  'data:text/html,x',
  'http://',
  '%',
  'http://user@127.0.0.1/base/x',
])('a redirect to %s leads nowhere', async (location) => {
  const { headers, status } = await answered({ Location: location }, 302)
  expect(status).toBe(302)
  expect([undefined, '/api/demo/things/%']).toContain(headers['location'])
})
