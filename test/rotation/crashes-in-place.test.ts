import { afterAll, beforeAll, expect, test } from 'vitest'
import { rowsOf } from '../renewal/crash-points.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import type { Browser } from '../support/user-agent.ts'
import { startRotatingStack } from './rotating-stack.ts'

/** The process of a rotation in place ends before or after each of its exchanges, and nobody repeats it for a long time. */

let stack: Awaited<ReturnType<typeof startRotatingStack>>
let records: ReturnType<typeof openRecords>
let tab: Browser

beforeAll(async () => {
  stack = await startRotatingStack({ mode: 'in-place', strict: { updateRenewsSecret: true }, retryDelaysMs: [] })
  records = openRecords(stack.stack)
  tab = stack.newBrowser()
  await signIn(tab, { user: 'ada' })
})
afterAll(async () => {
  records.close()
  await stack.close()
})

/** What a session is answered whose access token has ended, and somebody else who has just come back from signing in. */
const service = async () => {
  await records.expireTokens()
  const before = await tab.fetch('/api/demo/whoami')
  const fresh = stack.newBrowser()
  await signIn(fresh, { user: 'grace' })
  const after = await fresh.fetch('/api/demo/whoami')
  await records.endLeases()
  return { before: before.status, after: after.status }
}
const goesOn = { before: 200, after: 200 }

const isWhole = async (token: string): Promise<void> => {
  expect(await stack.rotations.holderOf('AWSCURRENT')).toBe(token)
  const { current, retiring } = await stack.rotations.stored()
  const [client, ...others] = stack.authorizationServer.clients()
  expect([client?.client_secret, others, retiring]).toEqual([current.client_secret, [], []])
}

/** The exchanges as the documentation has them, each with the step that makes it. */
const rows = rowsOf('rotation in place')

test('a rotation makes these exchanges', async () => {
  const token = await stack.rotate({ isAlone: true })
  expect(stack.exchanges()).toEqual(rows.map(({ name }) => name.replace(/^\w+: /, '')))
  await isWhole(token)
  expect(await service()).toEqual(goesOn)
})

const outcomes: Record<string, unknown> = {
  'done later': goesOn,
  'done later, locked out until then': { before: 503, after: 401 },
}

const cells = rows.flatMap(({ name, before, after }, index) => [
  { index, name, when: 'before' as const, outcome: before },
  { index, name, when: 'after' as const, outcome: after },
])

test.each(cells)('killed $when exchange $index, $name: $outcome', async ({ index, when, outcome }) => {
  const before = stack.kills()
  const token = await stack.rotate({ dies: { index, when }, isAlone: true })
  expect(stack.kills(), 'the exchange is met').toBe(before + 1)
  expect(await service(), 'until somebody repeats the rotation').toEqual(outcomes[outcome])
  await stack.stack.fire('EveryHour')
  await stack.stack.rotationIsIdle()
  await isWhole(token)
  expect(await service()).toEqual(goesOn)
})
