import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { expectOurHeaders, expectProblem, sessionCookie, signedInRecords } from '../support/answers.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser, ScriptRequest } from '../support/user-agent.ts'

/** What users can see and do about their own sessions, and how many of them there may be. */

const most = 4
let stack: Awaited<ReturnType<typeof startStrictStack>>
let ada: Browser

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({ ...stage, session: { max_parallel: most, idle_seconds: 3_000, absolute_seconds: 9_000 } }),
  })
})

afterAll(() => stack.close())

const signedIn = async (user: string): Promise<Browser> => {
  const tab = stack.newBrowser()
  await signIn(tab, { user })
  return tab
}

beforeEach(async () => {
  ada = await signedIn('Ada')
})

afterEach(async () => {
  for (const user of ['Ada', 'Grace']) await end(await signedIn(user), '/bff/sessions?all=true')
  // The limit of parallel sessions is kept in the background, which may still be at work.
  await vi.waitFor(
    async () => {
      if (signedInRecords(await stack.items()).length > 0) throw new Error('the test left sessions or grants behind')
    },
    { timeout: 10_000 },
  )
})

interface Listed {
  id: string
  current: boolean
  [field: string]: unknown
}

const list = async (tab: Browser): Promise<Listed[]> => JSON.parse((await tab.fetch('/bff/sessions')).text).sessions
const currentId = async (tab: Browser): Promise<string> => (await list(tab)).find(({ current }) => current)?.id ?? ''
const end = (tab: Browser, path: string, more: ScriptRequest = {}) => tab.fetch(path, { method: 'DELETE', ...more })
const isSignedIn = async (tab: Browser): Promise<boolean> => {
  const shown = (await tab.fetch('/bff/session')).json()['authenticated'] === true
  expect((await tab.fetch('/api/demo/whoami')).status).toBe(shown ? 200 : 401)
  return shown
}
const areSignedIn = (...tabs: Browser[]) => Promise.all(tabs.map(isSignedIn))

/** The record of a browser's session is as it was but for these attributes. */
const change = async (tab: Browser, attributes: Record<string, number>): Promise<void> => {
  const id = await currentId(tab)
  const item = (await stack.items()).find(({ sk }) => sk?.S === `S#${id}`)
  const values = Object.entries(attributes).map(([name, value]): [string, AttributeValue] => [name, { N: `${value}` }])
  await stack.putItem({ ...item, ...Object.fromEntries(values) })
}
const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset

describe('the list', () => {
  test('tells of each session what its user can recognise, and nothing that opens it', async () => {
    const phone = stack.newBrowser()
    await signIn(phone)
    const reply = await ada.fetch('/bff/sessions')
    expectOurHeaders(reply)
    expect(reply.status).toBe(200)
    const { sessions, now } = JSON.parse(reply.text)
    expect(sessions).toHaveLength(2)
    for (const session of sessions) {
      expect(session).toEqual({
        id: expect.stringMatching(/^[\w-]{43}$/),
        current: expect.any(Boolean),
        provider: 'demo',
        user_agent: expect.stringContaining('Chrome/147'),
        created_at: expect.any(Number),
        last_seen_at: session.created_at,
        expires_in: 9_000 - (now - session.created_at),
        idle_expires_in: 3_000 - (now - session.created_at),
      })
    }
    const handles = [ada, phone].map((tab) => tab.cookies.get(stack.origin, sessionCookie) ?? '')
    for (const handle of handles) expect(reply.text).not.toContain(handle.split('.')[1])
  })

  test('marks the own session, and has the newest first', async () => {
    const second = await signedIn('Ada')
    await change(ada, { created: seconds(-500) })
    expect((await list(ada)).map(({ current }) => current)).toEqual([false, true])
    expect((await list(second)).map(({ current }) => current)).toEqual([true, false])
  })

  test('has the user agent of the sign-in, cut to a sensible length, not that of the caller', async () => {
    await signIn(ada)
    const headers: [string, string][] = [['User-Agent', 'somebody else']]
    const [session] = JSON.parse((await ada.raw({ path: '/bff/sessions', headers })).text).sessions
    expect(session.user_agent).toContain('Chrome/147')
  })

  test('shows nobody else’s', async () => {
    const grace = await signedIn('Grace')
    expect((await list(ada)).map(({ id }) => id)).toEqual([await currentId(ada)])
    expect((await list(grace)).map(({ id }) => id)).toEqual([await currentId(grace)])
  })

  test('shows none that are over, whether or not their records are still there', async () => {
    const [idle, old] = [await signedIn('Ada'), await signedIn('Ada')]
    await change(idle, { idle_end: seconds(-1) })
    await change(old, { absolute_end: seconds(-1) })
    expect(await list(ada)).toHaveLength(1)
  })

  test('is for those who are signed in, by GET', async () => {
    expectProblem(await stack.newBrowser().fetch('/bff/sessions'), 401, 'session_required')
    for (const [path, method, allowed] of [
      ['/bff/sessions', 'POST', 'GET, DELETE'],
      [`/bff/sessions/${await currentId(ada)}`, 'GET', 'DELETE'],
      [`/bff/sessions/${await currentId(ada)}`, 'PUT', 'DELETE'],
    ] as const) {
      const reply = await ada.fetch(path, { method })
      expectProblem(reply, 405, 'method_not_allowed')
      expect(reply.headers['allow']).toBe(allowed)
    }
  })
})

describe('ending', () => {
  test('one: that one is over on every instance at once, its tokens are revoked, all others stay', async () => {
    const [phone, grace] = [await signedIn('Ada'), await signedIn('Grace')]
    const grant = stack.authorizationServer.grants.at(-2)
    await Promise.all([stack.stack.function('SessionFunction').warm(3), stack.stack.function('Api').warm(3)])
    const reply = await end(ada, `/bff/sessions/${await currentId(phone)}`)
    expect([reply.status, reply.json(), reply.setCookies]).toEqual([200, { ended: 1 }, []])
    const tabs = Array.from({ length: 6 }, () => phone.newTab())
    expect(new Set(await areSignedIn(...tabs))).toEqual(new Set([false]))
    expect(grant?.live).toBe(false)
    expect(await areSignedIn(ada, grace)).toEqual([true, true])
  })

  test('the own one: its cookie goes too', async () => {
    const reply = await end(ada, `/bff/sessions/${await currentId(ada)}`)
    expect(reply.setCookies).toEqual([`${sessionCookie}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0`])
    expect(await isSignedIn(ada)).toBe(false)
  })

  test('the others: the own one stays', async () => {
    const [phone, tablet, grace] = [await signedIn('Ada'), await signedIn('Ada'), await signedIn('Grace')]
    const reply = await end(ada, '/bff/sessions')
    expect([reply.json(), reply.setCookies]).toEqual([{ ended: 2 }, []])
    expect(await areSignedIn(ada, phone, tablet, grace)).toEqual([true, false, false, true])
  })

  test('all', async () => {
    const [phone, grace] = [await signedIn('Ada'), await signedIn('Grace')]
    const reply = await end(ada, '/bff/sessions?all=true')
    expect(reply.json()).toEqual({ ended: 2 })
    expect(reply.setCookies).toHaveLength(1)
    expect(await areSignedIn(ada, phone, grace)).toEqual([false, false, true])
  })

  test('all=false means the others', async () => {
    await signedIn('Ada')
    expect((await end(ada, '/bff/sessions?all=false')).json()).toEqual({ ended: 1 })
    expect(await isSignedIn(ada)).toBe(true)
  })

  test.each(['?all=1', '?all=TRUE', '?all=', '?all=true&all=true'])(
    '%s is refused, and ends nothing',
    async (query) => {
      const phone = await signedIn('Ada')
      expectProblem(await end(ada, `/bff/sessions${query}`), 400, 'request_invalid')
      expect(await areSignedIn(ada, phone)).toEqual([true, true])
    },
  )

  test('of what the user does not have is 404, and ends nothing', async () => {
    const grace = await signedIn('Grace')
    const unknown = [await currentId(grace), 'A'.repeat(43), 'x', '..%2F..', encodeURIComponent('S#x'), 'y'.repeat(900)]
    for (const id of unknown) expectProblem(await end(ada, `/bff/sessions/${id}`), 404, 'session_unknown')
    const gone = await signedIn('Ada')
    const id = await currentId(gone)
    await gone.fetch('/bff/logout', { method: 'POST' })
    expectProblem(await end(ada, `/bff/sessions/${id}`), 404, 'session_unknown')
    expect(await areSignedIn(ada, grace)).toEqual([true, true])
  })

  test('needs a session and the proof that a page of ours asks', async () => {
    const id = await currentId(ada)
    for (const path of ['/bff/sessions', '/bff/sessions?all=true', `/bff/sessions/${id}`]) {
      expectProblem(await end(stack.newBrowser(), path), 401, 'session_required')
      const refusals: ScriptRequest[] = [
        { csrf: false },
        { headers: { 'X-CSRF': '0' } },
        { headers: { Origin: 'https://evil.example' } },
        { headers: { 'Sec-Fetch-Site': 'cross-site' } },
        { headers: { 'Sec-Fetch-Site': 'same-site' } },
      ]
      for (const more of refusals) expectProblem(await end(ada, path, more), 403, 'csrf_rejected')
    }
    expect(await isSignedIn(ada)).toBe(true)
  })
})

describe(`of more than ${most} sessions`, () => {
  test('the oldest ends, with its tokens, when another begins', async () => {
    const oldest = stack.authorizationServer.grants.at(-1)
    await change(ada, { created: seconds(-10) })
    const others = [await signedIn('Ada'), await signedIn('Ada'), await signedIn('Ada')]
    const grace = await signedIn('Grace')
    await stack.stack.backgroundIsIdle()
    expect(await areSignedIn(ada, ...others)).toEqual([true, true, true, true])
    const newest = await signedIn('Ada')
    await stack.stack.backgroundIsIdle()
    expect(await areSignedIn(ada, ...others, newest, grace)).toEqual([false, true, true, true, true, true])
    expect(oldest?.live).toBe(false)
  })

  test('none that is in use ends for the sake of one that is over', async () => {
    await change(ada, { created: seconds(-10) })
    const [idle, ...others] = [await signedIn('Ada'), await signedIn('Ada'), await signedIn('Ada')]
    await change(idle, { idle_end: seconds(-1) })
    const newest = await signedIn('Ada')
    await stack.stack.backgroundIsIdle()
    expect(await areSignedIn(ada, idle, ...others, newest)).toEqual([true, false, true, true, true])
    expect(signedInRecords(await stack.items())).toHaveLength(8)
  })
})
