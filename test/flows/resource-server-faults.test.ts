import { createServer } from 'node:net'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dripping, hung, instead, reset, truncated } from '../support/faults.ts'
import { startRecordingResourceServer, tokenOf } from '../support/resource-server.ts'
import type { Answer, Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

/** The URL of a port of 127.0.0.1 on which nothing listens. */
const nowhere = async (): Promise<string> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
}

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  const down = await nowhere()
  stack = await startStrictStack({
    target: resourceServer.url,
    // One instance, so that its connection to the resource server is the one of the call before.
    maxInstances: 1,
    stage: (stage) => ({
      ...stage,
      apis: {
        demo: { ...stage.apis['demo'] },
        hasty: { ...stage.apis['demo'], timeout_seconds: 1 },
        down: { provider: 'demo', target: down },
        unknown: { provider: 'demo', target: 'https://resource-server.invalid' },
        plain: {
          provider: 'demo',
          target: resourceServer.url.replace('http:', 'https:').replace('127.0.0.1', 'localhost'),
        },
      },
    }),
  })
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(async () => {
  await stack.close()
  await resourceServer.close()
})

/** The call fails with that problem, and the session lives on. */
const expectFailure = async (path: string, status: number, code: string, method = 'GET'): Promise<void> => {
  const reply = await tab.fetch(path, { method })
  expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([status, code, []])
  expect(reply.headers['content-type']).toBe('application/problem+json')
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  expect((await tab.fetch('/api/demo/well')).status).toBe(200)
}

const onTheWire = (send: NonNullable<Answer['send']>): Fault => instead({ status: 0, send })
const raw = (bytes: string): Fault => onTheWire(({ socket }) => void socket?.end(bytes))

describe('a resource server that gives no usable answer', () => {
  test.each(['down', 'unknown', 'plain'])('%s', (api) =>
    expectFailure(`/api/${api}/x`, 502, 'resource_server_unavailable'),
  )

  test.each<[how: string, fault: Fault]>([
    ['never answers', hung],
    ['answers a byte at a time', dripping(200)],
    ['sends its head and no more', onTheWire((response) => response.writeHead(200).flushHeaders())],
  ])('%s within its time', async (_, fault) => {
    resourceServer.plan('call', fault)
    await expectFailure('/api/hasty/x', 504, 'resource_server_timeout', 'POST')
    expect(resourceServer.unmet()).toEqual([])
  })

  test.each<[how: string, fault: Fault]>([
    ['resets the connection', reset],
    ['breaks off in the middle of its reply', truncated],
    ['does not speak HTTP', raw('SSH-2.0-OpenSSH_9.9\r\n')],
    ['answers with two lengths', raw('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab')],
    ['switches protocols', raw('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n')],
    ['sends 64 KB of headers', instead({ status: 200, headers: { 'X-Many': Array(1_024).fill('y'.repeat(64)) } })],
  ])('%s: asked again only where that is safe', async (_, fault) => {
    for (const [method, times] of [
      ['GET', 2],
      ['PUT', 2],
      ['DELETE', 2],
      ['POST', 1],
      ['PATCH', 1],
    ] as const) {
      const before = resourceServer.requests.length
      resourceServer.plan('call', ...Array<Fault>(times).fill(fault))
      await expectFailure('/api/demo/x', 502, 'resource_server_unavailable', method)
      expect(resourceServer.unmet()).toEqual([])
      expect(resourceServer.requests).toHaveLength(before + times + 1)
    }
  })

  test.each([600, 999])('answers with status %i', async (status) => {
    resourceServer.plan('call', instead({ status }))
    await expectFailure('/api/demo/x', 502, 'resource_server_invalid')
  })

  test('answers with more than can be handed on', async () => {
    resourceServer.plan('call', instead({ status: 200, body: Buffer.alloc(4_400_001) }))
    await expectFailure('/api/demo/x', 502, 'resource_server_invalid')
    resourceServer.plan(
      'call',
      onTheWire((response) => {
        const more = () => void (response.destroyed || response.write(Buffer.alloc(64 * 1024), more))
        more()
      }),
    )
    await expectFailure('/api/demo/x', 502, 'resource_server_invalid')
  })
})

describe('a resource server that is a little unwell', () => {
  test('as much as can be handed on is handed on', async () => {
    resourceServer.plan('call', instead({ status: 200, body: Buffer.alloc(4_400_000, 'x') }))
    const reply = await tab.fetch('/api/demo/x')
    expect([reply.status, reply.bytes.length]).toEqual([200, 4_400_000])
  })

  test('a connection that is closed under a call is replaced, and the call comes again', async () => {
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE']) {
      expect((await tab.fetch('/api/demo/warm')).status).toBe(200)
      resourceServer.plan('call', reset)
      expect((await tab.fetch('/api/demo/again', { method })).status).toBe(200)
      const [first, second] = resourceServer.requests.slice(-2)
      expect([first?.path, second?.path, second?.method]).toEqual(['/again', '/again', method])
      expect(tokenOf(second ?? resourceServer.lastCall())).toBe(tokenOf(first ?? resourceServer.lastCall()))
    }
  })

  test('an idle connection that was closed in between does no harm, not even to a POST', async () => {
    const closed = Promise.withResolvers<void>()
    const fault: Fault = async (proceed) => {
      const { status, headers, body } = await proceed()
      return {
        status,
        send: (response) => {
          const { socket } = response
          response.writeHead(status, headers).end(body, () => setImmediate(() => socket?.end(() => closed.resolve())))
        },
      }
    }
    resourceServer.plan('call', fault)
    expect((await tab.fetch('/api/demo/first')).status).toBe(200)
    await closed.promise
    // The instance hears of the end before its next call, which goes through the gateway first.
    expect((await tab.fetch('/bff/session')).status).toBe(200)
    expect((await tab.fetch('/api/demo/second', { method: 'POST', body: 'once' })).status).toBe(200)
    expect(resourceServer.requests.filter(({ path }) => path === '/second')).toHaveLength(1)
  })

  test('early hints are no answer', async () => {
    resourceServer.plan(
      'call',
      onTheWire((response) => {
        response.writeEarlyHints({ link: '</x.css>; rel=preload' })
        response.writeHead(200, { 'content-type': 'text/plain' }).end('real')
      }),
    )
    const reply = await tab.fetch('/api/demo/x')
    expect([reply.status, reply.text, reply.headers['link']]).toEqual([200, 'real', undefined])
  })

  test('faults are logged by reason, without the token or the path', async () => {
    const token = tokenOf(resourceServer.lastCall())
    resourceServer.plan('call', reset, reset)
    await tab.fetch('/api/demo/private-path?secret=query')
    const lines = stack.logs.map(({ line }) => line).join('\n')
    expect(lines).toContain('"resource_server_unreachable"')
    for (const secret of [token, 'private-path', 'secret=query']) expect(lines).not.toContain(secret)
  })
})
