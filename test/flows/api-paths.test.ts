import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startRecordingResourceServer } from '../support/resource-server.ts'
import { fc } from '../support/seeded.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

const vectors: { proxy_path: { value: string }[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'),
)

let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let elsewhere: Awaited<ReturnType<typeof startRecordingResourceServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  elsewhere = await startRecordingResourceServer()
  const frontend: RequestListener = ({ url }, response) => response.writeHead(url === '/' ? 200 : 404).end('{}')
  stack = await startStrictStack({ target: `${resourceServer.url}/base/v1`, frontend })
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(async () => {
  await stack.close()
  await elsewhere.close()
  await resourceServer.close()
})

/** Sends a path as it stands; what was answered, and the path of the call that reached the resource server, if one did. */
const call = async (path: string) => {
  const before = resourceServer.requests.length
  const reply = await tab.raw({
    path,
    headers: [
      ['X-CSRF', '1'],
      ['Accept', '*/*'],
    ],
  })
  const reached = resourceServer.requests.slice(before).map((request) => request.path)
  expect(reached.length).toBeLessThanOrEqual(1)
  return { reply, reached: reached[0] }
}

/** Whether parsers of URLs leave the path as it is, below the target, with nothing in its segments that anyone could read otherwise. */
const isInside = (path: string): boolean =>
  new URL(path, resourceServer.url).href === resourceServer.url + path &&
  /^\/base\/v1\/[^/]/.test(path) &&
  path.split('/').every((segment) => !/^\.{1,2}(;|$)|[/\\%\p{Cc}]/u.test(decodeURIComponent(segment)))

const refused = async (path: string): Promise<void> => {
  const { reply, reached } = await call(path)
  expect(reached).toBeUndefined()
  expect([400, 404]).toContain(reply.status)
  // Either our own words or the gateway's.
  const { code } = reply.json()
  expect(['path_invalid', 'route_not_allowed', undefined]).toContain(code)
}

const harmless = new Set(['/api/x;jsessionid=1', '/api/demo/x;jsessionid=1'])

describe('paths that were made to escape', () => {
  const paths = vectors.proxy_path.flatMap(({ value }) => [
    value,
    value.replace(/^\/api\b/i, (prefix) => `${prefix}/demo`),
  ])
  test.each(paths)('%s', async (path) => {
    if (!harmless.has(path)) return refused(path)
    const { reached = '/base/v1/nowhere' } = await call(path)
    expect(isInside(reached)).toBe(true)
  })
})

describe('a path that is not plain is refused', () => {
  test.each([
    '/api/demo/../admin',
    '/api/demo/x/../../../admin',
    '/api/demo/./x',
    '/api/demo/x/.',
    '/api/demo/x/..',
    '/api/demo/%2e%2e/admin',
    '/api/demo/.%2e/admin',
    '/api/demo/%2E%2E%2Fadmin',
    '/api/demo/%2e/x',
    '/api/demo/..;/admin',
    '/api/demo/..;a=b/admin',
    '/api/demo/.;/x',
    '/api/demo/%252e%252e/admin',
    '/api/demo/%25%32%65%25%32%65/admin',
    '/api/demo/x%252fy',
    '/api/demo/x%2fy',
    '/api/demo/x%5cy',
    '/api/demo/\\..\\admin',
    '/api/demo\\x',
    '/api/demo//x',
    '/api/demo/x//y',
    '/api/demo///',
    '//api/demo/x',
    '/api//demo/x',
    '/api/demo/x%00y',
    '/api/demo/%0a',
    '/api/demo/x%0d%0aHost:%20evil',
    '/api/demo/%09',
    '/api/demo/%7f',
    '/api/demo/%c2%85',
    '/api/demo/%ff',
    '/api/demo/%c0%ae%c0%ae/x',
    '/api/demo/%ed%a0%80',
    '/api/demo/%ef%bf%bd',
    '/api/demo/%',
    '/api/demo/%zz',
    '/api/demo/x%23/../y',
    '/api/demo/x%23y',
    '/api/demo/x#/y',
    `/api/demo/${'x'.repeat(1_025)}`,
    '/api/demo',
    '/api/demo/',
    '/api/demox/y',
    '/api/@evil.example/x',
    '/api/.evil.example/x',
    '/api/:80@evil.example/',
    '/api/demo@evil.example/x',
    '/API/demo/x',
    '/Api/demo/x',
  ])('%s', refused)

  test('an encoded question mark carries nothing over into the query', async () => {
    const { reached } = await call('/api/demo/x%3fa=b/../y')
    expect([undefined, '/base/v1/x']).toContain(reached)
  })

  test('a whole URL, a host or a star in place of a path', async () => {
    const host = new URL(elsewhere.url).host
    for (const path of [`${elsewhere.url}/api/demo/x`, `//${host}/api/demo/x`, `/api/demo/${elsewhere.url}/x`, '*']) {
      const { reply, reached } = await call(path)
      expect([400, 404]).toContain(reply.status)
      expect(reached).toBeUndefined()
    }
    expect(elsewhere.requests).toEqual([])
  })
})

describe('a plain path arrives as the segments that it had', () => {
  test.each([
    ['/api/demo/x', '/base/v1/x'],
    ['/api/demo/x/', '/base/v1/x/'],
    ['/api/demo/a/b/c.js', '/base/v1/a/b/c.js'],
    ['/api/demo/...', '/base/v1/...'],
    ['/api/demo/.well-known', '/base/v1/.well-known'],
    ['/api/demo/a%20b', '/base/v1/a%20b'],
    ['/api/demo/%61', '/base/v1/a'],
    ['/api/demo/gr%C3%BC%C3%9Fe', '/base/v1/gr%C3%BC%C3%9Fe'],
    ["/api/demo/a:b@c,d=e+f&g!$*'()~", "/base/v1/a%3Ab%40c%2Cd%3De%2Bf%26g!%24*'()~"],
    ['/api/demo/@evil.example/x', '/base/v1/%40evil.example/x'],
    ['/api/demo/https:', '/base/v1/https%3A'],
    [`/api/demo/${'x'.repeat(1_024)}`, `/base/v1/${'x'.repeat(1_024)}`],
  ])('%s', async (path, arrives) => {
    const { reply, reached } = await call(path)
    expect(reply.status).toBe(200)
    expect(reached).toBe(arrives)
    expect(isInside(arrives)).toBe(true)
  })

  test('whatever the path is made of', async () => {
    const pieces = ['a', '.', '..', ';', '%2e', '%2f', '%5c', '%25', '%2', '%', '\\', '?', '#', '@', ':', '~', '*', '+']
    const more = ['%3b', '%3f', '%23', '%00', '%0a', '%20', '%c3%bc', '%c3', '%f0%9f%98%80', '\u00ff', '//', '/', '/']
    const path = fc.array(fc.constantFrom(...pieces, ...more), { minLength: 1, maxLength: 8 })
    const checked = fc.asyncProperty(path, async (parts) => {
      const text = parts.join('')
      const { reply, reached } = await call(`/api/demo/${text}`)
      if (reached === undefined) return [400, 404].includes(reply.status)
      const [sent = ''] = text.split('?')
      const [arrived = ''] = reached.split('?')
      // An encoded question mark ends the path at the gateway, which is why the rest may be missing.
      const [decoded] = sent.split('/').map(decodeURIComponent).join('/').split('?')
      const same = arrived.slice('/base/v1/'.length).split('/').map(decodeURIComponent).join('/') === decoded
      return reply.status === 200 && same && isInside(arrived)
    })
    await fc.assert(checked, { numRuns: 250 })
  })
})
