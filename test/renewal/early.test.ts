import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { sessionCookie } from '../support/answers.ts'
import { createAwsFaults, failing } from '../support/aws-faults.ts'
import { gate, refused, webPage } from '../support/faults.ts'
import { startRenewalStack } from '../support/renewal.ts'
import type { Browser } from '../support/user-agent.ts'

/** A token that ends soon is renewed behind the calls: none of them waits for it, and none of them suffers from what becomes of it. */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 4, gate: aws.gate, serverSeconds: 8 })
  await stack.stack.function('Api').warm(4)
})
beforeEach(async () => {
  tab = await stack.signedIn()
  await stack.stack.backgroundIsIdle()
})
afterAll(() => stack.close())

const call = () => tab.fetch('/api/demo/x')
const keepAlive = () => tab.fetch('/bff/refresh', { method: 'POST' })
const calls = (count: number) => Promise.all(Array.from({ length: count }, call))
const statuses = (replies: readonly { status: number }[]) => [...new Set(replies.map(({ status }) => status))]

/** The tokens of the calls that `run` makes, and how many refreshes there were. */
const during = async (run: () => Promise<unknown>) => {
  const [refreshes, before] = [stack.refreshes(), stack.resourceServer.requests.length]
  await run()
  return { refreshes: stack.refreshes() - refreshes, tokens: [...new Set(stack.tokensSince(before))] }
}

test('callers have their answers while the authorization server still thinks; one of them has started one renewal', async () => {
  const [old] = (await during(call)).tokens
  await stack.records.makeTokensDue()
  const held = gate()
  stack.authorizationServer.plan('token', held.fault)
  const early = await during(async () => {
    expect(statuses(await calls(20))).toEqual([200])
    expect((await keepAlive()).status).toBe(200)
    await held.reached
    expect(statuses(await calls(20))).toEqual([200])
  })
  expect(early).toEqual({ refreshes: 1, tokens: [old] })
  held.release()
  await stack.stack.backgroundIsIdle()
  const after = await during(call)
  expect(after).toEqual({ refreshes: 0, tokens: [expect.not.stringMatching(`^${old}$`)] })
})

test('without a valid token the same call waits for the same answer', async () => {
  await stack.records.expireTokens()
  const held = gate()
  stack.authorizationServer.plan('token', held.fault)
  const order: string[] = []
  const waiting = calls(3).then((replies) => {
    order.push('answered')
    return replies
  })
  await held.reached
  // Others are answered in the meantime, so that these had the time to be.
  const other = await stack.signedIn()
  expect((await other.fetch('/api/demo/other')).status).toBe(200)
  order.push('released')
  held.release()
  expect(statuses(await waiting)).toEqual([200])
  expect(order).toEqual(['released', 'answered'])
})

test('an early renewal that is refused ends the session, and the call that started it had its answer', async () => {
  await stack.records.makeTokensDue()
  stack.authorizationServer.plan('token', refused('invalid_grant'))
  expect((await call()).status).toBe(200)
  await stack.stack.backgroundIsIdle()
  const reply = await call()
  expect([reply.status, reply.json()['code']]).toEqual([401, 'session_required'])
  expect(tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
  expect(stack.authorizationServer.unmet()).toEqual([])
})

test('a server that is down costs nobody anything while the token is valid, and is asked once', async () => {
  await stack.records.makeTokensDue()
  stack.authorizationServer.always('token', webPage(503))
  const down = await during(async () => {
    for (let round = 0; round < 5; round += 1) {
      expect(statuses(await calls(10))).toEqual([200])
      await stack.stack.backgroundIsIdle()
    }
  })
  expect(down.refreshes).toBe(1)
  stack.authorizationServer.always('token', undefined)
  await stack.records.endLeases()
  const up = await during(async () => {
    expect((await call()).status).toBe(200)
    await stack.stack.backgroundIsIdle()
    expect((await call()).status).toBe(200)
  })
  expect(up.refreshes).toBe(1)
  expect(up.tokens).toHaveLength(2)
})

test('a task that cannot be queued costs nobody anything either, and leaves no lease behind', async () => {
  await stack.records.makeTokensDue()
  aws.always('lambda:InvokeFunction', failing)
  const { refreshes } = await during(async () => expect(statuses(await calls(5))).toEqual([200]))
  aws.always('lambda:InvokeFunction', undefined)
  expect(refreshes).toBe(0)
  await stack.records.expireTokens()
  await stack.records.age('grant', { retry_at_ms: 0 })
  expect(await during(async () => expect((await call()).status).toBe(200))).toMatchObject({ refreshes: 1 })
})

test('a task that is delivered twice renews once', async () => {
  await stack.records.makeTokensDue()
  let task: Record<string, unknown> | undefined
  aws.next('lambda:InvokeFunction', ({ input }) => {
    task = input
    return undefined
  })
  const { refreshes } = await during(async () => {
    expect((await call()).status).toBe(200)
    await Promise.all([stack.stack.invoke('Background', task), stack.stack.invoke('Background', task)])
    await stack.stack.backgroundIsIdle()
  })
  expect(refreshes).toBe(1)
  expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: true, renewals: 1 })
})
