import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rotateUnderLoad, WANTED } from './load.ts'
import { startRotatingStack } from './rotating-stack.ts'

/** Credentials rotate again and again, with kills, while people sign in, call and renew. Nobody notices. */

let stack: Awaited<ReturnType<typeof startRotatingStack>>

beforeAll(async () => {
  stack = await startRotatingStack({ mode: 'successor', maxInstances: 4, strict: { accessTokenSeconds: 4 } })
})
afterAll(() => stack.close())

test(`${WANTED} rotations, half of them killed: no request fails and no session is lost`, async () => {
  const { rotations } = stack
  const used = new Set<string>()
  await rotateUnderLoad(stack, async (rotation) => {
    const token = await rotations.begin()
    if (rotation % 2 === 1) {
      await delay(20 * rotation)
      stack.stack.function('Rotate').kill()
    }
    await stack.stack.rotationIsIdle()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    used.add((await rotations.stored()).current.client_id)
  })

  expect(used.size).toBe(WANTED)
  const { current, retiring } = await rotations.stored()
  const kept = new Set([current, ...retiring].map(({ client_id: id }) => id))
  const orphans = stack.authorizationServer.clients().filter(({ client_id: id }) => !kept.has(id))
  expect(orphans.length, 'at most one a kill').toBeLessThanOrEqual(WANTED / 2)
  const noted = new Set((await rotations.attempts()).map((label) => label.replace('COATCHECK_ATTEMPT_', 'attempt ')))
  expect(orphans.filter(({ software_version: name }) => !noted.has(String(name)))).toEqual([])
}, 120_000)
