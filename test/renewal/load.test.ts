import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { apiCallEvent } from '../support/events.ts'
import { gate } from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import { startRecordingResourceServer, subjectOf, tokenOf } from '../support/resource-server.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startDemoStack, type StageFile } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Many calls, many sessions, many processes: each grant is renewed once, at servers that end a grant whose refresh token comes twice. */

const instances = 32
const calls = 1_000
const sessions = 500
const signInsAtOnce = 6
const limitMs = 240_000

type Provider = 'demo' | 'strict'
/** Somebody who is signed in: who it is, and the cookie. */
type Caller = { provider: Provider; user: string; cookie: string }

const names = ['ada', 'grace', 'alan']
const events: string[] = []
let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let strict: Awaited<ReturnType<typeof startStrictAuthorizationServer>>
let stack: Awaited<ReturnType<typeof startDemoStack>>
let records: ReturnType<typeof openRecords>

const stageWithBoth = (stage: StageFile): StageFile => {
  const { demo = {} } = stage.providers
  const apiOf = (provider: Provider) => ({ provider, target: `${resourceServer.url}/${provider}` })
  return {
    ...stage,
    providers: { demo, strict: { ...demo, issuer: strict.issuer } },
    apis: { demo: apiOf('demo'), strict: apiOf('strict') },
    session: { max_parallel: 1_000 },
    renewal: { authorization_server_timeout_seconds: 8 },
  }
}

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  const users = Object.fromEntries(Array.from({ length: sessions }, (_, index) => [`user-${index}`, {}]))
  strict = await startStrictAuthorizationServer({ resources: ['https://resource.example'], users })
  stack = await startDemoStack({
    maxInstances: instances,
    stage: stageWithBoth,
    demo: { refreshTokens: 'strict', onEvent: ({ name }) => void events.push(name) },
  })
  records = openRecords(stack.stack)
  const warm = (name: string, count: number) => stack.stack.function(name).warm(count)
  await Promise.all([warm('Api', instances), warm('Login', 2), warm('Callback', 4)])
}, limitMs)

afterAll(async () => {
  records?.close()
  await stack?.close()
  await strict?.close()
  await resourceServer?.close()
})

/** Runs for each number below `count`, a few at a time. */
const each = async <T>(count: number, run: (index: number) => Promise<T>): Promise<T[]> => {
  const results: T[] = []
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) results.push(await run(next++))
  }
  await Promise.all(Array.from({ length: signInsAtOnce }, worker))
  return results
}

const callerOf = (provider: Provider, user: string, tab: Browser): Caller => ({
  provider,
  user,
  cookie: tab.cookies.header(stack.origin, 'strict'),
})

const signInAtStrict = (count: number): Promise<Caller[]> =>
  each(count, async (index) => {
    const [user, tab] = [`user-${index}`, stack.newBrowser()]
    await comeBack(tab, await authorize(tab, { provider: 'strict', login_hint: user }))
    return callerOf('strict', user, tab)
  })

/** In turn as each of the three users, who sign in at the server's pages once and are known there from then on. */
const signInAtDemo = async (count: number): Promise<Caller[]> => {
  const { issuer } = stack.authorizationServer
  const known = await Promise.all(
    ['Ada', 'Grace', 'Alan'].slice(0, count).map(async (user) => {
      const tab = stack.newBrowser()
      await signIn(tab, { user, provider: 'demo' })
      return tab
    }),
  )
  return each(count, async (index) => {
    const [user = '', tab] = [names[index % 3], stack.newBrowser()]
    const { cookies } = known[index % 3] ?? tab
    for (const name of cookies.names(issuer)) tab.cookies.set(`${name}=${cookies.get(issuer, name)}; Path=/`, issuer)
    await signIn(tab, { provider: 'demo' })
    return callerOf('demo', user, tab)
  })
}

const ownerOf = async (provider: Provider, token: string): Promise<unknown> => {
  if (provider === 'strict') return await subjectOf(strict, token)
  const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
  return typeof claims === 'object' && claims !== null && 'sub' in claims ? claims.sub : undefined
}

/** Every caller calls so often, all at once: every call succeeds, with one token a session, which is its user's. */
const callAtOnce = async (callers: readonly Caller[], times: number): Promise<void> => {
  const before = resourceServer.requests.length
  const pool = stack.stack.function('Api')
  const replies = await Promise.all(
    callers.flatMap(({ provider, user, cookie }, index) =>
      Array.from({ length: times }, () => pool.invoke(apiCallEvent(provider, `${user}/${index}`, cookie))),
    ),
  )
  const statuses = Object.groupBy(replies, (reply) =>
    typeof reply === 'object' && reply !== null && 'statusCode' in reply ? String(reply.statusCode) : 'none',
  )
  expect(Object.entries(statuses).map(([status, all = []]) => [status, all.length])).toEqual([
    ['200', callers.length * times],
  ])
  const received = resourceServer.requests.slice(before)
  expect(received).toHaveLength(callers.length * times)
  const tokensOf = new Map<string, Set<string>>()
  for (const call of received) tokensOf.set(call.path, (tokensOf.get(call.path) ?? new Set()).add(tokenOf(call)))
  expect(tokensOf.size).toBe(callers.length)
  expect(new Set([...tokensOf.values()].flatMap((tokens) => Array.from(tokens))).size).toBe(callers.length)
  await each(callers.length, async (index) => {
    const { provider, user } = callers[index] ?? { provider: 'demo', user: '' }
    const [token = ''] = tokensOf.get(`/${provider}/${user}/${index}`) ?? []
    expect(await ownerOf(provider, token)).toBe(user)
  })
  expect(pool.stats()).toMatchObject({ started: instances, waiting: 0 })
}

describe('a strict authorization server', () => {
  const refreshes = () => strict.tokenRequests('refresh_token').length

  test(
    `${calls} calls of one session meet its ended token in ${instances} processes: one refresh`,
    async () => {
      const callers = await signInAtStrict(1)
      await records.expireTokens()
      const held = gate()
      strict.plan('token', held.fault)
      const all = callAtOnce(callers, calls)
      await held.reached
      expect(stack.stack.function('Api').stats().busyPids).toHaveLength(instances)
      held.release()
      await all
      expect(refreshes()).toBe(1)
      expect(strict.grants).toMatchObject([{ live: true, renewals: 1 }])
    },
    limitMs,
  )

  test(
    `${sessions} sessions meet their ended tokens at once: ${sessions} refreshes`,
    async () => {
      const callers = await signInAtStrict(sessions)
      await records.expireTokens()
      const before = refreshes()
      await callAtOnce(callers, 2)
      expect(refreshes() - before).toBe(sessions)
      const states = strict.grants.slice(-sessions).map(({ live, renewals }) => `${live} ${renewals}`)
      expect([...new Set(states)]).toEqual(['true 1'])
    },
    limitMs,
  )
})

describe('the demo authorization server with strict rotation', () => {
  const during = async (run: () => Promise<void>) => {
    const before = events.length
    await run()
    return Object.fromEntries(
      Object.entries(Object.groupBy(events.slice(before), (name) => name)).map(([name, all = []]) => [
        name,
        all.length,
      ]),
    )
  }

  test(
    `${calls} calls of one session meet its ended token in ${instances} processes: one refresh`,
    async () => {
      const callers = await signInAtDemo(1)
      await records.expireTokens()
      expect(await during(() => callAtOnce(callers, calls))).toEqual({ 'grant.success': 1 })
    },
    limitMs,
  )

  test(
    `${sessions} sessions meet their ended tokens at once: ${sessions} refreshes`,
    async () => {
      const callers = await signInAtDemo(sessions)
      await records.expireTokens()
      expect(await during(() => callAtOnce(callers, 2))).toEqual({ 'grant.success': sessions })
    },
    limitMs,
  )
})
