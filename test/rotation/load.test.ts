import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startPeople } from '../support/people.ts'
import { openRotations } from '../support/rotation.ts'
import { startStrictStack } from '../support/stacks.ts'

/** Credentials rotate again and again, with kills, while people sign in, call and renew. Nobody notices. */

const wanted = 20

let stack: Awaited<ReturnType<typeof startStrictStack>>
let rotations: ReturnType<typeof openRotations>

beforeAll(async () => {
  stack = await startStrictStack({
    maxInstances: 4,
    strict: { accessTokenSeconds: 4 },
    stage: (stage) => ({ ...stage, session: { max_parallel: 1_000 } }),
  })
  rotations = openRotations(stack)
  await stack.stack.rotationIsIdle()
})
afterAll(async () => {
  rotations.close()
  await stack.close()
})

test(`${wanted} rotations, half of them killed: no request fails and no session is lost`, async () => {
  const people = startPeople(stack)
  const used = new Set<string>()
  for (let rotation = 0; rotation < wanted; rotation += 1) {
    const token = await rotations.begin()
    if (rotation % 2 === 1) {
      await delay(20 * rotation)
      stack.stack.function('Rotate').kill()
    }
    await stack.stack.rotationIsIdle()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    used.add((await rotations.stored()).current.client_id)
  }
  await people.stop()
  expect(people.failed).toEqual([])
  for (const tab of people.tabs) await people.call(tab)
  expect(people.failed, 'every session that ever began').toEqual([])

  expect(used.size).toBe(wanted)
  expect(people.tabs.length).toBeGreaterThan(wanted / 2)
  expect(stack.authorizationServer.tokenRequests('refresh_token').length).toBeGreaterThan(wanted / 2)
  const { current, retiring } = await rotations.stored()
  const kept = new Set([current, ...retiring].map(({ client_id: id }) => id))
  const orphans = stack.authorizationServer.clients().filter(({ client_id: id }) => !kept.has(id))
  expect(orphans.length, 'at most one a kill').toBeLessThanOrEqual(wanted / 2)
  const noted = new Set((await rotations.attempts()).map((label) => label.replace('COATCHECK_ATTEMPT_', 'attempt ')))
  expect(orphans.filter(({ software_version: name }) => !noted.has(String(name)))).toEqual([])
}, 120_000)
