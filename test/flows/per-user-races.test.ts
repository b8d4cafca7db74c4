import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dropConnection } from '../../infra/local/aws-call.ts'
import { expectProblem, sessionCookie, signedInRecords } from '../support/answers.ts'
import { createAwsFaults } from '../support/aws-faults.ts'
import * as faults from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import type { Fault } from '../support/server.ts'
import { finishLogin, signIn, startLogin } from '../support/sign-in.ts'
import { startCoderStack } from '../support/stacks.ts'
import type { Browser, Page } from '../support/user-agent.ts'

/**
 * The sessions of a user share one grant, and the server kills the old tokens when it issues new ones: a sign-in meets calls, renewals,
 * sign-outs and other sign-ins of the same user at every point of their way.
 */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startCoderStack>>
let records: ReturnType<typeof openRecords>
let one: Browser
let other: Browser

beforeAll(async () => {
  stack = await startCoderStack({
    gate: aws.gate,
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 5 } }),
  })
  records = openRecords(stack.stack)
  await Promise.all([stack.stack.function('Api').warm(2), stack.stack.function('Callback').warm(2)])
})

beforeEach(async () => {
  one = stack.newBrowser()
  other = stack.newBrowser()
  await signIn(one, { user: 'Ada' })
  // Long ago, so that no sign-in of a test runs beside this one.
  await records.age('grant', { placed_ms: 0 })
  if ((await whoami(one)) !== 'ada') throw new Error('the first browser is not signed in')
})

afterEach(async () => {
  coder().settings.beforeWrite = undefined
  await Promise.all([signOut(one), signOut(other)])
  await stack.stack.backgroundIsIdle()
  const left = [...coder().unmet(), ...aws.unmet(), ...signedInRecords(await stack.items())]
  if (left.length > 0) throw new Error(`the test has left behind: ${left.join(', ')}`)
})

afterAll(async () => {
  records.close()
  await stack.close()
})

const coder = () => stack.authorizationServer
const signOut = (tab: Browser) => tab.fetch('/bff/logout', { method: 'POST' })
const call = (tab: Browser) => tab.fetch('/api/demo/users/me')
const whoami = async (tab: Browser) => {
  const reply = await call(tab)
  return reply.status === 200 ? reply.json()['username'] : reply.status
}
const refreshes = () => coder().tokenRequests('refresh_token').length
const live = () =>
  coder()
    .pairs()
    .filter((pair) => pair.live)
/** The latest token requests of a kind, by how the server answered. */
const answers = (type: 'authorization_code' | 'refresh_token', since: number) =>
  coder()
    .tokenRequests(type)
    .slice(since)
    .map(({ status }) => status)

/** A point that something reaches and is held at until it is let go. */
const checkpoint = () => {
  const arrived = Promise.withResolvers<void>()
  const letGo = Promise.withResolvers<void>()
  const hold = async (): Promise<void> => {
    arrived.resolve()
    await letGo.promise
  }
  return { arrived: arrived.promise, letGo: letGo.resolve, hold }
}
const heldBefore =
  (hold: () => Promise<void>): Fault =>
  async (proceed) => {
    await hold()
    return proceed()
  }
const heldAfter =
  (hold: () => Promise<void>): Fault =>
  async (proceed) => {
    const answer = await proceed()
    await hold()
    return answer
  }

const consentOf = (tab: Browser) =>
  startLogin(tab).then((page) => (page.visible.includes('Sign in to Coder') ? tab.submit(page, 'Ada') : page))
const allow = (tab: Browser, page: Page) => finishLogin(tab, page)
/** The second browser is stopped in its callback: after the code was redeemed, before the session and its grant are saved. */
const signInUpToItsSave = async (tab: Browser, then: 'saves' | 'is lost' = 'saves') => {
  const point = checkpoint()
  const consent = await consentOf(tab)
  const announcement = (): undefined => undefined
  aws.next('dynamodb:TransactWriteItems', announcement, async () => {
    await point.hold()
    if (then === 'is lost') throw dropConnection
    return undefined
  })
  const done = allow(tab, consent)
  await point.arrived
  return { letGo: point.letGo, done }
}
/** The same, stopped where the server tells whose the new tokens are. */
const signInUpToItsAccount = async (tab: Browser) => {
  const point = checkpoint()
  const consent = await consentOf(tab)
  coder().plan('account', heldAfter(point.hold))
  const done = allow(tab, consent)
  await point.arrived
  return { letGo: point.letGo, done }
}

describe('a second sign-in', () => {
  test('whose tokens are not saved yet: a call of the first browser waits for them', async () => {
    const login = await signInUpToItsSave(other)
    const before = refreshes()
    const reply = whoami(one)
    await coder().reached('token', coder().count('token') + 1)
    login.letGo()
    expect((await login.done).url).toBe(`${stack.origin}/`)
    expect(await reply).toBe('ada')
    expect(answers('refresh_token', before)).toEqual([400])
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })

  test('that takes its time: the first browser is told to come again, and is not signed out', async () => {
    const login = await signInUpToItsAccount(other)
    const reply = await call(one)
    expectProblem(reply, 503, 'refresh_pending')
    expect(Number(reply.headers['retry-after'])).toBeGreaterThan(0)
    expect(one.cookies.names(stack.origin)).toContain(sessionCookie)
    login.letGo()
    expect((await login.done).url).toBe(`${stack.origin}/`)
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })

  test('that is saved before a renewal under way is refused', async () => {
    await records.expireTokens()
    const point = checkpoint()
    coder().plan('token', heldBefore(point.hold))
    const before = refreshes()
    const reply = whoami(one)
    await point.arrived
    await signIn(other, { user: 'Ada' })
    point.letGo()
    expect(await reply).toBe('ada')
    expect(answers('refresh_token', before)).toEqual([400])
    expect([await whoami(other), live().length]).toEqual(['ada', 1])
  })

  test.each([
    ['before', 503],
    ['after', 'ada'],
  ])('that wins the race at the server and is saved %s the other is told so, with a 500', async (when, expected) => {
    await records.expireTokens()
    const point = checkpoint()
    coder().settings.beforeWrite = (type) => (type === 'refresh_token' ? point.hold() : undefined)
    const before = refreshes()
    const reply = whoami(one)
    await point.arrived
    coder().settings.beforeWrite = undefined
    const login = when === 'before' ? await signInUpToItsSave(other) : { letGo: () => undefined, done: signIn(other) }
    if (when === 'after') await login.done
    point.letGo()
    expect(await reply).toBe(expected)
    expect(answers('refresh_token', before)).toEqual([500])
    login.letGo()
    await login.done
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
    expect(one.cookies.names(stack.origin)).toContain(sessionCookie)
  })

  test('that kills what a renewal has just brought: its tokens stay, the others are forgotten', async () => {
    await records.expireTokens()
    const point = checkpoint()
    coder().plan('token', heldAfter(point.hold))
    const before = coder().count('revoke')
    const reply = whoami(one)
    await point.arrived
    await signIn(other, { user: 'Ada' })
    point.letGo()
    expect(await reply).toBe('ada')
    expect([live().length, live()[0]?.endedBy, coder().count('revoke')]).toEqual([1, undefined, before])
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })

  test('that is overtaken by a third one: the live tokens are kept, whichever is saved last', async () => {
    const third = stack.newBrowser()
    const consent = await consentOf(third)
    const login = await signInUpToItsSave(other)
    await allow(third, consent)
    login.letGo()
    expect((await login.done).url).toBe(`${stack.origin}/`)
    const before = refreshes()
    expect([await whoami(one), await whoami(other), await whoami(third)]).toEqual(['ada', 'ada', 'ada'])
    expect(refreshes()).toBe(before)
    await signOut(third)
  })

  test('that fails does not hold the first browser up: it is signed out at once, and signs in again', async () => {
    coder().plan('account', faults.insteadJson(500, {}))
    const consent = await consentOf(other)
    expect((await allow(other, consent)).status).toBe(502)
    expectProblem(await call(one), 401, 'session_required')
    expect(one.cookies.names(stack.origin)).not.toContain(sessionCookie)
    await signIn(one, { user: 'Ada' })
    expect(await whoami(one)).toBe('ada')
  })

  test('whose instance is killed before it saves: a clean sign-in at worst, nobody stuck', async () => {
    const login = await signInUpToItsSave(other, 'is lost')
    stack.stack.function('Callback').kill()
    login.letGo()
    expect((await login.done).status).toBe(500)
    const waiting = await call(one)
    expectProblem(waiting, 503, 'refresh_pending')
    expect(one.cookies.names(stack.origin)).toContain(sessionCookie)

    for (const item of await stack.items())
      if (item['pk']?.S?.startsWith('P#')) await stack.putItem({ ...item, until_ms: { N: '1' } })
    await records.endLeases()
    const again = await call(one)
    if (again.status === 503) expectProblem(await retried(one), 401, 'session_required')
    else expectProblem(again, 401, 'session_required')
    await signIn(one, { user: 'Ada' })
    await signIn(other, { user: 'Ada' })
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })

  test('whose instance is killed is forgotten with the next one', async () => {
    const login = await signInUpToItsSave(other, 'is lost')
    stack.stack.function('Callback').kill()
    login.letGo()
    await login.done
    await signIn(other, { user: 'Ada' })
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })
})

/** Comes again until the answer is another than 503. */
const retried = async (tab: Browser) => {
  for (;;) {
    const reply = await call(tab)
    if (reply.status !== 503) return reply
    await new Promise((resolve) => setTimeout(resolve, 1_000 * Number(reply.headers['retry-after'])))
  }
}

describe('a sign-in beside the last sign-out', () => {
  test('that is saved while the old tokens are being revoked keeps its own', async () => {
    const point = checkpoint()
    coder().plan('revoke', heldBefore(point.hold))
    const out = signOut(one)
    await point.arrived
    await signIn(other, { user: 'Ada' })
    point.letGo()
    expect((await out).status).toBe(200)
    expect([await whoami(other), live().length]).toEqual(['ada', 1])
    expect(await whoami(one)).toBe(401)
  })

  test('that is saved after everything else has ended goes on alone', async () => {
    const login = await signInUpToItsSave(other)
    expect((await signOut(one)).status).toBe(200)
    login.letGo()
    expect((await login.done).url).toBe(`${stack.origin}/`)
    expect([await whoami(other), live().length]).toEqual(['ada', 1])
  })

  test('is met at any other point too', async () => {
    for (let round = 0; round < 8; round += 1) {
      const consent = await consentOf(other)
      const [page, out] = await Promise.all([allow(other, consent), signOut(one)])
      expect([page.url, out.status]).toEqual([`${stack.origin}/`, 200])
      expect([await whoami(other), await whoami(one), live().length]).toEqual(['ada', 401, 1])
      ;[one, other] = [other, stack.newBrowser()]
    }
  })
})

describe('renewals of a shared grant', () => {
  test('are one, from whichever browser and instance the calls come', { timeout: 90_000 }, async () => {
    await signIn(other, { user: 'Ada' })
    await stack.stack.function('Api').warm(6)
    for (let round = 0; round < 2; round += 1) {
      await records.expireTokens()
      const before = refreshes()
      const replies = await Promise.all(Array.from({ length: 30 }, (_, index) => whoami(index % 2 === 0 ? one : other)))
      expect(replies).toEqual(Array.from({ length: 30 }, () => 'ada'))
      expect(answers('refresh_token', before)).toEqual([200])
    }
    expect(live().length).toBe(1)
  })

  test('that end in a 500 end no session', async () => {
    await signIn(other, { user: 'Ada' })
    await records.expireTokens()
    coder().plan('token', faults.insteadJson(500, { message: 'Failed to exchange token', detail: 'x' }))
    const replies = await Promise.all([call(one), call(other)])
    for (const reply of replies) expect([reply.status, Number(reply.headers['retry-after']) > 0]).toEqual([503, true])
    await records.age('grant', { retry_at_ms: 0, lease_until_ms: 0 })
    expect([await whoami(one), await whoami(other)]).toEqual(['ada', 'ada'])
  })

  test('and the last sign-out: what the renewal brings is revoked', async () => {
    await records.expireTokens()
    const point = checkpoint()
    coder().plan('token', heldAfter(point.hold))
    const reply = call(one)
    await point.arrived
    expect((await signOut(one)).status).toBe(200)
    point.letGo()
    expectProblem(await reply, 401, 'session_required')
    expect(live()).toEqual([])
  })
})
