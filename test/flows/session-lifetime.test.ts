import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { createAwsFaults, failing } from '../support/aws-faults.ts'
import { expectProblem, sessionCookie, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** When a session ends by itself, what extends it, and that once ended it stays so, whatever was under way. */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack({
    gate: aws.gate,
    stage: (stage) => ({
      ...stage,
      session: { idle_seconds: 3_000, absolute_seconds: 9_000 },
      renewal: { authorization_server_timeout_seconds: 1 },
    }),
  })
  records = openRecords(stack.stack)
})

afterAll(async () => {
  records.close()
  await stack.close()
})

beforeEach(async () => {
  tab = stack.newBrowser()
  await signIn(tab, { user: 'Ada' })
})

afterEach(async () => {
  const other = stack.newBrowser()
  await signIn(other, { user: 'Ada' })
  await other.fetch('/bff/sessions?all=true', { method: 'DELETE' })
  // The limit of parallel sessions is kept in the background, which may still be at work.
  await vi.waitFor(
    async () => {
      if (signedInRecords(await stack.items()).length > 0) throw new Error('the test left sessions or grants behind')
    },
    { timeout: 10_000 },
  )
})

const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset
const newestGrant = () => stack.authorizationServer.grants.at(-1)
const logOut = (browser: Browser) => browser.fetch('/bff/logout', { method: 'POST' })

const timesOf = async () => {
  const [item] = await records.all('session')
  return { seen: Number(item?.['seen']?.N), idleEnd: Number(item?.['idle_end']?.N) }
}

describe('a session', () => {
  const isOver = async (): Promise<void> => {
    const shown = await tab.fetch('/bff/session')
    expect([shown.status, shown.json()['authenticated']]).toEqual([200, false])
    expect(tab.cookies.names(stack.origin), 'its cookie goes').not.toContain(sessionCookie)
  }

  test.each(['idle_end', 'absolute_end'])('is over at its %s, for every endpoint', async (attribute) => {
    const cookie = tab.cookies.get(stack.origin, sessionCookie) ?? ''
    await records.age('session', { [attribute]: seconds(0) })
    for (const [path, method] of [
      ['/api/demo/whoami', 'GET'],
      ['/bff/refresh', 'POST'],
      ['/bff/sessions', 'GET'],
      ['/bff/sessions', 'DELETE'],
    ] as const) {
      tab.cookies.set(`${sessionCookie}=${cookie}; Secure; HttpOnly; Path=/; SameSite=Strict`, stack.origin)
      expectProblem(await tab.fetch(path, { method }), 401, 'session_required')
    }
    tab.cookies.set(`${sessionCookie}=${cookie}; Secure; HttpOnly; Path=/; SameSite=Strict`, stack.origin)
    await isOver()
  })

  test('is not extended by being looked at', async () => {
    await records.age('session', { seen: seconds(-500), idle_end: seconds(100) })
    const before = await timesOf()
    for (const path of ['/bff/session', '/bff/sessions', '/bff/session', '/bff/logout']) await tab.fetch(path)
    expect(await timesOf()).toEqual(before)
    expect((await tab.fetch('/bff/session')).json()['idle_expires_in']).toBeLessThanOrEqual(100)
  })

  test.each([
    ['POST /bff/refresh', () => tab.fetch('/bff/refresh', { method: 'POST' })],
    ['an API call', () => tab.fetch('/api/demo/whoami')],
    ['an API call that fails over there', () => tab.fetch('/api/demo/status/500')],
  ])('is extended by %s, and written at most once a minute', async (_, call) => {
    await records.age('session', { seen: seconds(-61), idle_end: seconds(100) })
    const touches = () => stack.stack.awsCalls.filter(({ action }) => action === 'dynamodb:UpdateItem').length
    const before = touches()
    await call()
    const { seen, idleEnd } = await timesOf()
    expect(seen).toBeGreaterThan(seconds(-20))
    expect(idleEnd).toBe(seen + 3_000)
    for (let repeat = 0; repeat < 4; repeat += 1) await call()
    expect(touches() - before).toBe(1)
    await records.age('session', { seen: seconds(-50), idle_end: seconds(100) })
    await call()
    expect(touches() - before, 'not within the minute').toBe(1)
  })

  test('is never extended beyond its absolute end', async () => {
    const end = seconds(200)
    await records.age('session', { seen: seconds(-500), idle_end: seconds(100), absolute_end: end })
    const refreshed = (await tab.fetch('/bff/refresh', { method: 'POST' })).json()
    expect((await timesOf()).idleEnd).toBe(end)
    expect([refreshed['idle_expires_in'], refreshed['expires_in']]).toEqual([
      end - Number(refreshed['now']),
      end - Number(refreshed['now']),
    ])
  })

  test('does not end, and its call succeeds, when its times cannot be written', async () => {
    await records.age('session', { seen: seconds(-500) })
    aws.always('dynamodb:UpdateItem', failing)
    const reply = await tab.fetch('/api/demo/whoami')
    aws.always('dynamodb:UpdateItem', undefined)
    expect(reply.status).toBe(200)
  })
})

describe('a rolling write that is under way', () => {
  const held = () => {
    const [reached, opened] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    aws.next('dynamodb:UpdateItem', async () => {
      reached.resolve()
      await opened.promise
      return undefined
    })
    return { reached: reached.promise, release: () => opened.resolve() }
  }

  test.each<[string, (browser: Browser) => Promise<{ status: number }>]>([
    ['signs out', logOut],
    ['ends all its sessions', (browser) => browser.fetch('/bff/sessions?all=true', { method: 'DELETE' })],
  ])('does not bring back the session of a user who %s', async (_, ending) => {
    for (const [path, method] of [
      ['/api/demo/whoami', 'GET'],
      ['/bff/refresh', 'POST'],
    ] as const) {
      await records.age('session', { seen: seconds(-500) })
      const write = held()
      const call = tab.fetch(path, { method })
      await write.reached
      expect((await ending(tab.newTab())).status).toBe(200)
      write.release()
      await call
      expect(signedInRecords(await stack.items())).toEqual([])
      expect((await tab.fetch('/bff/session')).json()['authenticated']).toBe(false)
      await signIn(tab, { user: 'Ada' })
    }
    await logOut(tab)
  })
})

describe('signing out', () => {
  test('revokes the tokens at the authorization server', async () => {
    const grant = newestGrant()
    expect((await logOut(tab)).status).toBe(200)
    expect(grant?.live).toBe(false)
  })

  test.each<[string, Fault]>([
    ['refuses the connection', faults.reset],
    ['fails', faults.refused('server_error', 503)],
    ['does the work and loses its answer', faults.lost],
    ['never answers', faults.hung],
  ])('is done though revocation %s, and the background makes up for it', async (_, fault) => {
    const grant = newestGrant()
    stack.authorizationServer.plan('revoke', fault, fault)
    const startMs = Date.now()
    const reply = await logOut(tab)
    expect([reply.status, typeof reply.json()['logout_url']]).toEqual([200, 'string'])
    expect(Date.now() - startMs).toBeLessThan(10_000)
    expect((await tab.fetch('/bff/session')).json()['authenticated']).toBe(false)
    await stack.stack.backgroundIsIdle()
    expect([grant?.live, stack.authorizationServer.unmet()]).toEqual([false, []])
  })

  test('leaves it at three more attempts when revocation stays away', async () => {
    const before = stack.authorizationServer.count('revoke')
    stack.authorizationServer.always('revoke', faults.reset)
    expect((await logOut(tab)).status).toBe(200)
    await stack.stack.backgroundIsIdle()
    stack.authorizationServer.always('revoke', undefined)
    expect(stack.authorizationServer.count('revoke') - before).toBe(4)
  })

  test('is done though the grant cannot be found just now, and the background makes up for it', async () => {
    const grant = newestGrant()
    aws.always('dynamodb:Query', failing)
    const reply = await logOut(tab)
    aws.always('dynamodb:Query', undefined)
    expect(reply.status).toBe(200)
    await stack.stack.backgroundIsIdle()
    expect(grant?.live).toBe(false)
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('fails with 503 while the session cannot be ended, keeps it, and works again', async () => {
    aws.always('dynamodb:DeleteItem', failing)
    const reply = await logOut(tab)
    aws.always('dynamodb:DeleteItem', undefined)
    expectProblem(reply, 503, 'store_unavailable')
    expect(tab.cookies.names(stack.origin)).toContain(sessionCookie)
    expect((await logOut(tab)).status).toBe(200)
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('twice, without a session, or with a cookie of nonsense succeeds and asks nobody', async () => {
    await logOut(tab)
    const before = stack.authorizationServer.requests.length
    for (const cookie of ['', `${sessionCookie}=nonsense`, `${sessionCookie}=${'A'.repeat(43)}.${'B'.repeat(43)}`]) {
      const headers: [string, string][] = [
        ['X-CSRF', '1'],
        ...(cookie === '' ? [] : [['Cookie', cookie] as [string, string]]),
      ]
      const reply = await tab.raw({ path: '/bff/logout', method: 'POST', headers, cookies: false })
      expect([reply.status, reply.json()]).toEqual([200, { logout_url: null }])
    }
    expect(stack.authorizationServer.requests.length).toBe(before)
  })
})
