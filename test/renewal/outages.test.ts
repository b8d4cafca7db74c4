import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Gate } from '../../infra/local/aws-call.ts'
import { createAwsFaults, failing, throttled } from '../support/aws-faults.ts'
import { gate, hung, insteadJson, lost, nothing, refused, reset, truncated, webPage } from '../support/faults.ts'
import type { Reply } from '../support/http.ts'
import { startRenewalStack } from '../support/renewal.ts'
import type { Fault } from '../support/server.ts'
import type { Browser } from '../support/user-agent.ts'

/** Whatever is down, no session is lost for it: callers hear when to come again, the server is asked now and then, and it goes on at once. */

const callers = 200
const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 8, gate: aws.gate })
  await stack.stack.function('Api').warm(8)
})
beforeEach(async () => {
  stack.authorizationServer.settings.rotation = true
  tab = await stack.signedIn()
  await stack.stack.backgroundIsIdle()
})
afterAll(() => stack.close())

const call = () => tab.fetch('/api/demo/x')
const calls = (count: number) => Promise.all(Array.from({ length: count }, call))
const statuses = (replies: readonly Reply[]) => [...new Set(replies.map(({ status }) => status))]

/** Every reply says when to come again, and none takes the cookie away. */
const expectLater = (replies: readonly Reply[]): void => {
  expect(statuses(replies)).toEqual([503])
  for (const { headers, setCookies } of replies) {
    expect(Number(headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(setCookies).toEqual([])
  }
}

const refreshesDuring = async (run: () => Promise<unknown>): Promise<number> => {
  const before = stack.refreshes()
  await run()
  return stack.refreshes() - before
}

describe('an authorization server', () => {
  /** Where it has done what it was asked, only a server that gives grace can be asked again: the one loss is in `docs/crash-points.md`. */
  const faults: [how: string, fault: Fault, rotation: true | 'grace'][] = [
    ['that answers 500', insteadJson(500, { error: 'server_error' }), true],
    ['that is overloaded', insteadJson(429, { error: 'slow_down' }), true],
    ['that shows a page', webPage(200), true],
    ['that answers nothing', nothing, true],
    ['that says temporarily_unavailable', refused('temporarily_unavailable'), true],
    ['that resets the connection', reset, true],
    ['that never answers', hung, true],
    ['whose answer is cut short', truncated, 'grace'],
    ['whose answer is lost', lost, 'grace'],
  ]

  test.each(faults)('%s is asked once by many callers, and once more when it is back', async (_, fault, rotation) => {
    stack.authorizationServer.settings.rotation = rotation
    await stack.records.expireTokens()
    stack.authorizationServer.always('token', fault)
    const startedMs = Date.now()
    const down = await refreshesDuring(async () => expectLater(await calls(callers)))
    stack.authorizationServer.always('token', undefined)
    // Where it surely did nothing it is asked again after a second, which this may have lasted.
    expect(down).toBeGreaterThanOrEqual(1)
    expect(down).toBeLessThanOrEqual(1 + Math.floor((Date.now() - startedMs) / 1_000))
    await stack.records.endLeases()
    expect(await refreshesDuring(async () => expect(statuses(await calls(10))).toEqual([200]))).toBe(1)
    expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: true })
  })

  test('that is back answers the first call after Retry-After', async () => {
    await stack.records.expireTokens()
    stack.authorizationServer.plan('token', refused('temporarily_unavailable'))
    const reply = await call()
    expectLater([reply])
    await delay(Number(reply.headers['retry-after']) * 1_000)
    expect((await call()).status).toBe(200)
  })
})

describe('the table', () => {
  const slow: Gate = async () => {
    await delay(1_200)
    return undefined
  }
  const silent: Gate = async () => {
    await delay(1_800)
    return undefined
  }

  test.each<[how: string, action: string, fault: Gate]>([
    ['has no capacity to read', 'dynamodb:BatchGetItem', throttled],
    ['fails to read', 'dynamodb:BatchGetItem', failing],
    ['does not answer reads', 'dynamodb:BatchGetItem', silent],
    ['has no capacity to write', 'dynamodb:UpdateItem', throttled],
    ['fails to write', 'dynamodb:UpdateItem', failing],
  ])('that %s keeps the session, and the server is not asked', async (_, action, fault) => {
    await stack.records.expireTokens()
    aws.always(action, fault)
    const refreshes = await refreshesDuring(async () => expectLater(await calls(8)))
    aws.always(action, undefined)
    expect(refreshes).toBe(0)
    expect(await refreshesDuring(async () => expect(statuses(await calls(8))).toEqual([200]))).toBe(1)
  })

  test.each<[how: string, action: string]>([
    ['reads', 'dynamodb:BatchGetItem'],
    ['writes', 'dynamodb:UpdateItem'],
  ])('that is slow with %s only takes longer', async (_, action) => {
    await stack.records.expireTokens()
    aws.always(action, slow)
    expect(await refreshesDuring(async () => expect((await call()).status).toBe(200))).toBe(1)
    aws.always(action, undefined)
  })

  test('that fails to write does not matter while the token is valid', async () => {
    await stack.records.makeTokensDue()
    aws.always('dynamodb:UpdateItem', failing)
    expect(await refreshesDuring(async () => expect(statuses(await calls(8))).toEqual([200]))).toBe(0)
    aws.always('dynamodb:UpdateItem', undefined)
  })

  test('that fails for a while just when tokens are to be saved gets them in the end', async () => {
    await stack.records.expireTokens()
    const held = gate({ after: true })
    stack.authorizationServer.plan('token', held.fault)
    const renewing = call()
    await held.reached
    aws.always('dynamodb:UpdateItem', failing)
    held.release()
    await delay(2_500)
    aws.always('dynamodb:UpdateItem', undefined)
    expect((await renewing).status).toBe(200)
    expect(await refreshesDuring(async () => expect((await call()).status).toBe(200))).toBe(0)
  })

  test('that fails when a keep-alive is noted leaves no renewal behind its answer', async () => {
    await stack.records.expireTokens()
    await stack.records.age('session', { seen: 0 })
    const refreshes = await refreshesDuring(async () => {
      aws.always('dynamodb:UpdateItem', failing)
      expectLater([await tab.fetch('/bff/refresh', { method: 'POST' })])
      aws.always('dynamodb:UpdateItem', undefined)
      expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    })
    expect(refreshes).toBe(1)
  })
})

describe('Secrets Manager', () => {
  const read = 'secretsmanager:GetSecretValue'
  const coldStart = () => stack.stack.function('Api').kill()

  test('that fails does not matter to instances that know their secrets', async () => {
    expect(statuses(await calls(8))).toEqual([200])
    await stack.records.expireTokens()
    await call()
    await stack.records.expireTokens()
    aws.always(read, failing)
    expect((await call()).status).toBe(200)
    aws.always(read, undefined)
  })

  test('that fails keeps the session while instances start, and the server is not asked', async () => {
    await stack.records.expireTokens()
    coldStart()
    aws.always(read, failing)
    const refreshes = await refreshesDuring(async () => expectLater(await calls(3)))
    aws.always(read, undefined)
    expect(refreshes).toBe(0)
    await stack.records.endLeases()
    expect(await refreshesDuring(async () => expect(statuses(await calls(3))).toEqual([200]))).toBe(1)
  })

  test('that is so slow that the lease grows old makes the caller come again, and no refresh token is sent', async () => {
    await stack.records.expireTokens()
    coldStart()
    aws.always(read, async () => {
      await delay(2_700)
      return undefined
    })
    const refreshes = await refreshesDuring(async () => expectLater([await call()]))
    aws.always(read, undefined)
    expect(refreshes).toBe(0)
    await stack.records.endLeases()
    expect(await refreshesDuring(async () => expect((await call()).status).toBe(200))).toBe(1)
  })
})
