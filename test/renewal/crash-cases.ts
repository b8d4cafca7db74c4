import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sessionCookie } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import { startRenewalStack } from '../support/renewal.ts'
import { signIn } from '../support/sign-in.ts'
import type { Browser } from '../support/user-agent.ts'
import { createCrashPoints, rowsOf, type When } from './crash-points.ts'

/** What all tests of crash points share: a stack with crash points in it, and the browser of a user. */
export type CrashStack = Awaited<ReturnType<typeof startRenewalStack>> & {
  points: ReturnType<typeof createCrashPoints>
  tab: Browser
}

/** A flow as the documentation has it under its heading. */
export type Flow = {
  /** The functions whose processes run it. */
  functions: readonly string[]
  /** The calls that belong to it; all unless told. */
  which?: (name: string) => boolean
  /** What was before; the result is the request. */
  arrange: (stack: CrashStack) => Promise<() => Promise<unknown>>
  /** Outcomes by the words of the documentation. */
  outcomes: Record<string, Outcome>
}

/** What is the case after a crash; the request can be made again. */
export type Outcome = (stack: CrashStack, request: () => Promise<unknown>) => Promise<void>

export const call = ({ tab }: CrashStack) => tab.fetch('/api/demo/x')

/** The session is there and works. */
export const works = async (stack: CrashStack): Promise<void> => {
  expect((await call(stack)).status).toBe(200)
}

/** Signing in works. */
export const signsIn = async (stack: CrashStack): Promise<void> => {
  await signIn(stack.tab)
  await works(stack)
}

/** A session that was thought to be there is not; the browser hears of it once. */
export const isSignedOut = async (stack: CrashStack): Promise<void> => {
  const reply = await call(stack)
  expect([reply.status, reply.json()['code']]).toEqual([401, 'session_required'])
  expect(stack.tab.cookies.names(stack.origin)).not.toContain(sessionCookie)
}

/** The session works, once the lease of a process that was killed has run out. */
export const goesOn = async (stack: CrashStack): Promise<void> => {
  await stack.records.endLeases()
  await works(stack)
}

/** The session has ended cleanly. */
export const cleanLogin = async (stack: CrashStack): Promise<void> => {
  await stack.records.endLeases()
  await isSignedOut(stack)
  await signsIn(stack)
}

/** The cases of a flow: one for each cell of its table, at a strict server, and again at others where they make a difference. */
export const describeFlow = (heading: string, flow: Flow, stackOf: () => CrashStack): void => {
  const rows = rowsOf(heading)
  const kill = (stack: CrashStack) => () => flow.functions.forEach((name) => stack.stack.function(name).kill())

  const arrangeCold = async (stack: CrashStack) => {
    const request = await flow.arrange(stack)
    await stack.stack.backgroundIsIdle()
    kill(stack)()
    return request
  }

  const crash = async (stack: CrashStack, name: string, when: When) => {
    const request = await arrangeCold(stack)
    stack.points.arm(name, when, kill(stack))
    await request().catch(() => undefined)
    await stack.stack.backgroundIsIdle()
    expect(stack.points.disarm(), `${name} is met`).toBe(true)
    return request
  }

  describe.each([heading])('%s', () => {
    test('makes these calls', async () => {
      const stack = stackOf()
      const request = await arrangeCold(stack)
      const names = await stack.points.during(async () => {
        await request()
        await stack.stack.backgroundIsIdle()
      })
      expect(names.filter(flow.which ?? (() => true)).toSorted()).toEqual(rows.map(({ name }) => name).toSorted())
    })

    const cells = rows.flatMap(({ name, before, after }) => [
      { name, when: 'before' as const, outcome: before },
      { name, when: 'after' as const, outcome: after },
    ])
    const cases = cells.flatMap((cell) =>
      cell.outcome === 'clean login, or goes on'
        ? [
            { ...cell, rotation: true as const, outcome: 'clean login' },
            { ...cell, rotation: 'grace' as const, outcome: 'goes on' },
            { ...cell, rotation: false as const, outcome: 'goes on' },
          ]
        : [{ ...cell, rotation: true as const }],
    )
    test.each(cases)(
      'killed $when it $name (rotation: $rotation): $outcome',
      async ({ name, when, outcome, rotation }) => {
        const stack = stackOf()
        stack.authorizationServer.settings.rotation = rotation
        const request = await crash(stack, name, when)
        const check = flow.outcomes[outcome]
        if (check === undefined) throw new Error(`the documentation has an outcome that is not known: ${outcome}`)
        await check(stack, request)
      },
    )
  })
}

/** A stack for the tests of a file, and a browser for each; in the end nothing that it stored or logged shows a secret. */
export const startCrashStack = (): (() => CrashStack) => {
  const points = createCrashPoints()
  let stack: Awaited<ReturnType<typeof startRenewalStack>>
  let tab: Browser

  beforeAll(async () => {
    stack = await startRenewalStack({ maxInstances: 2, gate: points.gate })
    const { authorizationServer, resourceServer } = stack
    authorizationServer.always('token', points.fault('token request'))
    authorizationServer.always('jwks', points.fault('key set'))
    authorizationServer.always('revoke', points.fault('revocation'))
    resourceServer.always('call', points.fault('resource server'))
  })
  beforeEach(() => {
    tab = stack.newBrowser()
  })
  afterAll(async () => {
    const items = await stack.items()
    expect(items.flatMap((item) => (item['ttl'] === undefined ? [Object.keys(item)] : []))).toEqual([])
    expect(leaksOf(stack.authorizationServer.secrets.slice(-50), { items, logs: stack.logs })).toEqual([])
    await stack.close()
  })
  return () => ({ ...stack, points, tab })
}
