import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createFunctionPool, FunctionError, type FunctionPoolOptions } from '../../infra/local/functions.ts'
import type { HttpObservation } from '../../infra/local/trace.ts'

const cleanups: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup()
})

interface Settings extends Partial<Omit<FunctionPoolOptions, 'definition'>> {
  environment?: Record<string, string>
  timeoutSeconds?: number
  runtime?: string
  handler?: string
}

function poolOf(source: string, { environment = {}, timeoutSeconds = 5, runtime, handler, ...rest }: Settings = {}) {
  const taskRoot = mkdtempSync(join(tmpdir(), 'coatcheck-function-'))
  cleanups.push(() => rmSync(taskRoot, { recursive: true }))
  writeFileSync(join(taskRoot, 'index.mjs'), source)
  const pool = createFunctionPool({
    definition: {
      logicalId: 'Login-1a',
      functionName: 'test-login',
      description: 'Test',
      arn: 'arn:aws:lambda:us-east-1:000000000000:function:test-login',
      logGroupName: '/aws/lambda/test-login',
      runtime: runtime ?? 'nodejs24.x',
      handler: handler ?? 'index.handler',
      taskRoot,
      memoryMegabytes: 256,
      timeoutSeconds,
      environment,
    },
    endpoints: { dynamodb: 'http://127.0.0.1:1', secretsManager: 'http://127.0.0.1:2', lambda: 'http://127.0.0.1:3' },
    maxInstances: 4,
    ...rest,
  })
  cleanups.push(() => pool.close())
  return pool
}

/** Answers only when as many calls as were asked for are waiting, so that a test knows they ran at the same time. */
async function meetingPoint(size: number) {
  const waiting: (() => void)[] = []
  const server = createServer((_request, response) => {
    waiting.push(() => response.end('go'))
    if (waiting.length === size) for (const release of waiting.splice(0)) release()
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  cleanups.push(() => server.closeAllConnections())
  cleanups.push(() => void server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

describe('an instance', () => {
  it('gives the function the template environment and what Lambda gives, and nothing of the machine', async () => {
    const pool = poolOf(
      'export const handler = async (event, context) => ({ event, env: process.env, context, left: context.getRemainingTimeInMillis() })',
      {
        environment: { TABLE: 'sessions' },
      },
    )
    const result = await pool.invoke({ hello: 'world', nothing: undefined })
    expect(result).toMatchObject({
      event: { hello: 'world' },
      env: {
        TABLE: 'sessions',
        AWS_REGION: 'us-east-1',
        AWS_LAMBDA_FUNCTION_NAME: 'test-login',
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '256',
        AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
        AWS_ACCESS_KEY_ID: 'LOCALLOGIN1A',
        AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:1',
      },
      context: {
        functionName: 'test-login',
        logGroupName: '/aws/lambda/test-login',
        memoryLimitInMB: '256',
        invokedFunctionArn: 'arn:aws:lambda:us-east-1:000000000000:function:test-login',
      },
    })
    expect(result).not.toHaveProperty('env.PATH')
    expect(result).not.toHaveProperty('event.nothing')
  })

  it('is reused while it is idle, and keeps its module state', async () => {
    const pool = poolOf('let calls = 0; export const handler = async () => ++calls')
    expect([await pool.invoke({}), await pool.invoke({}), await pool.invoke({})]).toEqual([1, 2, 3])
    expect(pool.stats()).toMatchObject({ started: 1, busy: 0, idle: 1, invocations: 3 })
  })

  it('handles one event at a time: events that come together meet in as many instances', async () => {
    const url = await meetingPoint(3)
    const pool = poolOf(`export const handler = async () => (await (await fetch('${url}')).text()) + process.pid`)
    const answers = await Promise.all([pool.invoke({}), pool.invoke({}), pool.invoke({})])
    expect(new Set(answers).size).toBe(3)
    expect(pool.stats()).toMatchObject({ started: 3, idle: 3 })
  })

  it('is not started beyond the limit: further events wait in line', async () => {
    const pool = poolOf('let n = 0; export const handler = async (event) => [event, ++n]', { maxInstances: 1 })
    const answers = await Promise.all([1, 2, 3, 4].map((n) => pool.invoke(n)))
    expect(answers).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ])
    expect(pool.stats().started).toBe(1)
  })

  it('does not handle an event that nobody waits for any more when its turn comes', async () => {
    const pool = poolOf('let n = 0; export const handler = async (event) => [event, ++n]', { maxInstances: 1 })
    const [waiting, gone] = [new AbortController(), new AbortController()]
    const answers = [pool.invoke(1, waiting.signal), pool.invoke(2, gone.signal), pool.invoke(3, waiting.signal)]
    gone.abort()
    expect(await Promise.allSettled(answers)).toMatchObject([
      { value: [1, 1] },
      { reason: { errorType: 'TooManyRequestsException' } },
      { value: [3, 2] },
    ])
    waiting.abort()
    expect(pool.stats()).toMatchObject({ started: 1, idle: 1, waiting: 0 })
  })
})

it('warms as many instances as it is asked for, and no more than it may have', async () => {
  const pool = poolOf('export const handler = async () => process.pid', { maxInstances: 3 })
  await pool.warm(2)
  expect(pool.stats()).toMatchObject({ started: 2, starting: 0, idle: 2 })
  await pool.warm(9)
  expect(pool.stats()).toMatchObject({ started: 3, idle: 3 })
})

describe('a failed invocation', () => {
  it('carries the type and message of what was thrown', async () => {
    const pool = poolOf(`export const handler = async () => { throw new RangeError('too far') }`)
    await expect(pool.invoke({})).rejects.toMatchObject({ errorType: 'RangeError', message: 'RangeError: too far' })
    expect(pool.stats()).toMatchObject({ started: 1, idle: 1 })
  })

  it('names the time-out, and the instance is gone', async () => {
    const pool = poolOf('export const handler = () => new Promise(() => setInterval(() => {}, 1000))', {
      timeoutSeconds: 0.2,
    })
    await expect(pool.invoke({})).rejects.toThrow(/Task timed out after 0.20 seconds/)
    expect(pool.stats()).toMatchObject({ started: 1, idle: 0, busy: 0 })
  })

  it.each([
    ['exits', 'process.exit(3)', /exit status 3/],
    ['leaves a rejection unhandled', `Promise.reject(new Error('lost')); await new Promise(() => {})`, /exit status 1/],
  ])('when the function %s takes the instance with it; the next event starts another', async (_, body, message) => {
    const pool = poolOf(`export const handler = async (event) => { if (event.bad) { ${body} } return 'fine' }`)
    await expect(pool.invoke({ bad: true })).rejects.toThrow(message)
    expect(await pool.invoke({})).toBe('fine')
    expect(pool.stats()).toMatchObject({ started: 2, idle: 1 })
  })

  it('when its process is killed from outside is an exit error, and idle instances may be killed unseen', async () => {
    const url = await meetingPoint(2)
    const pool = poolOf(`export const handler = async (event) => event.wait ? (await fetch('${url}')).text() : 'fine'`)
    await pool.invoke({})
    const stuck = pool.invoke({ wait: true })
    const [pid] = pool.stats().busyPids
    process.kill(pid ?? 0, 'SIGKILL')
    await expect(stuck).rejects.toThrow(/signal: SIGKILL/)
    await pool.invoke({})
    process.kill(pool.stats().idlePids[0] ?? 0, 'SIGKILL')
    await expect(pool.invoke({}).catch(() => pool.invoke({}))).resolves.toBe('fine')
  })

  it.each([
    ['does not import', 'throw new Error("no table name")', 'index.handler', /no table name/],
    ['has no such export', 'export const other = 1', 'index.handler', /index.handler is undefined or not exported/],
    ['is not there', '', 'missing.handler', /Cannot find module 'missing'/],
  ])('says that the bundle %s', async (_, source, handler, message) => {
    await expect(poolOf(source, { handler }).invoke({})).rejects.toThrow(message)
  })

  it('refuses results over 6 MB', async () => {
    const pool = poolOf(`export const handler = async () => 'x'.repeat(6 * 1024 * 1024)`)
    await expect(pool.invoke({})).rejects.toMatchObject({ errorType: 'Function.ResponseSizeTooLarge' })
  })

  it('is what closing makes of every invocation that is under way', async () => {
    const pool = poolOf('export const handler = () => new Promise(() => {})')
    const pending = pool.invoke({}).catch((error: unknown) => error)
    await pool.close()
    expect(await pending).toBeInstanceOf(FunctionError)
  })
})

describe('a configuration that Lambda refuses', () => {
  it.each([
    ['over 4 KB of environment', { environment: { BIG: 'x'.repeat(4096) } }, /Lambda allows 4096/],
    ['a reserved variable', { environment: { AWS_REGION: 'eu-west-1' } }, /sets AWS_REGION, which Lambda reserves/],
    ['another runtime', { runtime: 'nodejs20.x' }, /wants the runtime nodejs20.x/],
  ])('is refused here: %s', (_, settings, message) => {
    expect(() => poolOf('', settings)).toThrow(message)
  })
})

describe('what an instance reports', () => {
  it('is every line that the function writes', async () => {
    const lines: string[] = []
    const pool = poolOf(`export const handler = async () => { console.log('one\\ntwo'); console.error('three') }`, {
      onLog: (name, line) => lines.push(`${name} ${line}`),
    })
    await pool.invoke({})
    await pool.close()
    expect(lines.toSorted()).toEqual(['test-login one', 'test-login three', 'test-login two'])
  })

  it.each([
    ['fetch', `await (await fetch(url, { method: 'POST', headers: { 'x-a': '1' }, body: 'code=abc' })).text()`],
    [
      'node:http',
      `await new Promise((resolve) => http.request(url, { method: 'POST', headers: { 'x-a': '1' } }, (r) => { r.resume(); r.on('end', resolve) }).end('code=abc'))`,
    ],
  ])('is each HTTP call made with %s, with headers, bodies and times', async (_, call) => {
    const server = createServer((request, response) => {
      request.resume()
      request.on('end', () => response.writeHead(201, { 'x-b': '2' }).end('{"access_token":"t"}'))
    }).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    cleanups.push(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token?x=1`
    const seen: HttpObservation[] = []
    const pool = poolOf(`import http from 'node:http'; export const handler = async ({ url }) => { ${call} }`, {
      onHttp: (observation) => seen.push(observation),
    })
    await pool.invoke({ url })
    expect(seen).toMatchObject([
      {
        functionName: 'test-login',
        method: 'POST',
        url,
        requestHeaders: { 'x-a': '1' },
        requestBody: 'code=abc',
        status: 201,
        responseHeaders: { 'x-b': '2' },
        responseBody: '{"access_token":"t"}',
      },
    ])
  })

  it('includes calls that fail, and leaves out the emulators and the ResponseURL', async () => {
    const seen: HttpObservation[] = []
    const pool = poolOf(
      `import http from 'node:http'
       const get = (url) => new Promise((resolve) => http.get(url, resolve).on('error', resolve))
       export const handler = async ({ ResponseURL }) => {
         await get(process.env.AWS_ENDPOINT_URL_DYNAMODB)
         await fetch(process.env.AWS_ENDPOINT_URL_SECRETS_MANAGER).catch(() => {})
         await fetch(ResponseURL).catch(() => {})
         await fetch('http://127.0.0.1:4/').catch(() => {})
       }`,
      { onHttp: (observation) => seen.push(observation) },
    )
    await pool.invoke({ ResponseURL: 'http://127.0.0.1:3/done' })
    expect(seen.map(({ url }) => url)).toEqual(['http://127.0.0.1:4/'])
    expect(seen[0]?.error).toMatch(/ECONNREFUSED/)
  })
})
