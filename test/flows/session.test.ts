import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AwsFault } from '../../infra/local/aws-call.ts'
import { asHandle, hashHandle } from '../../shared/seal.ts'
import { expectOurHeaders, expectProblem, sessionCookie } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** `GET /bff/session` says who is signed in and for how long, and changes nothing. */

const idleSeconds = 120
const absoluteSeconds = 600

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser
let storeFault: (() => AwsFault | undefined) | undefined

beforeAll(async () => {
  stack = await startStrictStack({
    strict: {
      accessTokenSeconds: 300,
      users: {
        ada: { name: 'Ada', email: 'ada@example.com', groups: ['a', 'b'], address: { country: 'GB' }, phone: '1' },
      },
    },
    stage: (stage) => ({
      ...stage,
      session: { idle_seconds: idleSeconds, absolute_seconds: absoluteSeconds },
      providers: { demo: { ...stage.providers['demo'], claims: ['sub', 'name', 'groups', 'address', 'nickname'] } },
    }),
    gate: () => storeFault?.(),
  })
})

beforeEach(async () => {
  tab = stack.newBrowser()
  await signIn(tab)
  await stack.stack.backgroundIsIdle()
})

afterEach(() => tab.fetch('/bff/logout', { method: 'POST' }))
afterAll(() => stack.close())

const ask = () => tab.fetch('/bff/session')

type Item = Record<string, AttributeValue>
const record = async (kind: 'S#' | 'G#'): Promise<Item> => {
  const handle = asHandle(tab.cookies.get(stack.origin, sessionCookie)?.split('.')[1] ?? '')
  const own = handle === undefined ? undefined : `${kind}${hashHandle(handle)}`
  const found = (await stack.items()).find(({ sk }) => sk?.S === own)
  if (found === undefined) throw new Error(`no ${kind} item`)
  return found
}
const change = async (kind: 'S#' | 'G#', attributes: Record<string, number | string>): Promise<void> => {
  const written = Object.entries(attributes).map(([name, value]): [string, AttributeValue] => [
    name,
    typeof value === 'number' ? { N: String(value) } : { S: value },
  ])
  await stack.putItem({ ...(await record(kind)), ...Object.fromEntries(written) })
}
const nowSeconds = () => Math.floor(Date.now() / 1_000)

describe('of somebody who is signed in', () => {
  test('it tells the claims that the stage lists, the provider and the times, and nothing else', async () => {
    const reply = await ask()
    expectOurHeaders(reply)
    expect([reply.status, reply.headers['content-type']]).toEqual([200, 'application/json'])
    const { created_at: created, now } = reply.json()
    // By the server's clock, so that a slow machine changes nothing.
    expect(Math.abs(Number(now) - nowSeconds())).toBeLessThanOrEqual(30)
    expect(Number(now) - Number(created)).toBeGreaterThanOrEqual(0)
    const left = (seconds: number) => Number(created) + seconds - Number(now)
    const tokenLeft = expect.toSatisfy((value: number) => value <= 300 && value >= left(300) - 5)
    expect(reply.json()).toEqual({
      authenticated: true,
      provider: 'demo',
      claims: { sub: 'ada', name: 'Ada', groups: ['a', 'b'], address: { country: 'GB' } },
      created_at: created,
      expires_in: left(absoluteSeconds),
      idle_expires_in: left(idleSeconds),
      access_token_expires_in: tokenLeft,
      now,
    })
    expect(reply.setCookies).toEqual([])
  })

  test('it never extends anything, however often it is asked', async () => {
    const past = nowSeconds() - 100
    await change('S#', { seen: past, idle_end: past + idleSeconds })
    const before = await stack.items()
    const answers = await Promise.all(Array.from({ length: 5 }, async () => (await ask()).json()['idle_expires_in']))
    expect(Math.max(...answers.map(Number))).toBeLessThanOrEqual(20)
    expect(await stack.items()).toEqual(before)
    const { functionName } = stack.stack.function('SessionFunction').definition
    const used = stack.stack.awsCalls.filter(
      (call) => call.functionName === functionName && call.action.startsWith('dynamodb'),
    )
    expect(new Set(used.map(({ action }) => action))).toEqual(new Set(['dynamodb:BatchGetItem']))
  })

  test('it takes one read of the table and no call of the authorization server', async () => {
    const requests = stack.authorizationServer.requests.length
    const before = stack.stack.awsCalls.length
    await ask()
    const actions = stack.stack.awsCalls.slice(before).map(({ action }) => action)
    expect(actions.filter((action) => action.startsWith('dynamodb'))).toEqual(['dynamodb:BatchGetItem'])
    expect(stack.authorizationServer.requests.length).toBe(requests)
  })

  test('it never shows a token, a secret or a handle', async () => {
    const reply = await ask()
    const ticket = tab.cookies.get(stack.origin, sessionCookie) ?? ''
    const secrets = [...stack.authorizationServer.secrets, ...ticket.split('.')]
    expect(leaksOf(secrets, { headers: reply.headers, body: reply.text })).toEqual([])
  })

  test('it needs no request proof, and tells no other origin', async () => {
    expect((await tab.fetch('/bff/session', { csrf: false })).json()).toMatchObject({ authenticated: true })
    const elsewhere = await tab.fetch('/bff/session', { csrf: false, from: 'https://evil.example' })
    expect(elsewhere.json()).toEqual({ authenticated: false, login_url: '/bff/login' })
    expectOurHeaders(elsewhere)
  })

  test('an access token that has ended does not end the session', async () => {
    await change('G#', { expires: nowSeconds() - 10, fresh_until: nowSeconds() - 20 })
    expect((await ask()).json()).toMatchObject({ authenticated: true, access_token_expires_in: 0 })
  })
})

describe('of nobody', () => {
  test.each<[string, () => Promise<void>]>([
    ['whose idle end has passed', () => change('S#', { idle_end: nowSeconds() - 1 })],
    ['whose idle end is now', () => change('S#', { idle_end: nowSeconds() })],
    ['whose absolute end has passed', () => change('S#', { absolute_end: nowSeconds() - 1 })],
    [
      'whose absolute end has passed before the idle end',
      () => change('S#', { absolute_end: nowSeconds() - 1, idle_end: nowSeconds() + 99 }),
    ],
    ['whose record is of an unknown format', () => change('S#', { format: 99 })],
    ['whose record misses its end', () => change('S#', { absolute_end: 'never' })],
    ['whose grant is of an unknown format', () => change('G#', { format: 99 })],
    [
      'whose claims are those of another',
      async () => {
        const { sealed = { B: Buffer.alloc(0) } } = await record('G#')
        await stack.putItem({ ...(await record('S#')), sealed })
      },
    ],
  ])('%s: it says so, takes the ticket away, and no flow believes it', async (_, end) => {
    await end()
    const ticket = tab.cookies.get(stack.origin, sessionCookie) ?? ''
    const reply = await ask()
    expect([reply.status, reply.json()]).toEqual([200, { authenticated: false, login_url: '/bff/login' }])
    expectOurHeaders(reply)
    expect(reply.setCookies).toEqual([expect.stringMatching(/^__Host-Http-session=; .*Max-Age=0$/)])
    for (const [method, path] of [
      ['POST', '/bff/refresh'],
      ['GET', '/api/demo/whoami'],
    ] as const) {
      const headers: [string, string][] = [
        ['X-CSRF', '1'],
        ['Cookie', `${sessionCookie}=${ticket}`],
      ]
      const other = await tab.raw({ method, path, headers, cookies: false })
      expect([path, other.status, other.json()['code']]).toEqual([path, 401, 'session_required'])
    }
  })

  test('without a cookie: 200 and where to sign in', async () => {
    const reply = await stack.newBrowser().fetch('/bff/session')
    expect([reply.status, reply.json(), reply.setCookies]).toEqual([
      200,
      { authenticated: false, login_url: '/bff/login' },
      [],
    ])
    expectOurHeaders(reply)
  })
})

describe('when the table does not answer', () => {
  test.each<[string, () => AwsFault | undefined]>([
    ['it fails', () => ({ status: 500, type: 'InternalServerError', message: 'no' })],
    ['it is throttled', () => ({ status: 400, type: 'ProvisionedThroughputExceededException', message: 'no' })],
    ['it refuses', () => ({ status: 400, type: 'AccessDeniedException', message: 'no' })],
  ])('because %s: 503, and the cookie stays', async (_, fault) => {
    storeFault = fault
    const reply = await ask()
    storeFault = undefined
    expectProblem(reply, 503, 'store_unavailable')
    expect([reply.headers['retry-after'], reply.setCookies]).toEqual(['1', []])
    expect((await ask()).json()).toMatchObject({ authenticated: true })
  })
})

test.each(['POST', 'PUT', 'DELETE', 'PATCH'])('%s is not a way to ask', async (method) => {
  const reply = await tab.fetch('/bff/session', { method })
  expectProblem(reply, 405, 'method_not_allowed')
  expect(reply.headers['allow']).toBe('GET')
})
