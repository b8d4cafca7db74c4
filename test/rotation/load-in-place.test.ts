import { afterAll, beforeAll, expect, test } from 'vitest'
import { loseReply, type Gate } from '../../infra/local/aws-call.ts'
import { startPeople } from '../support/people.ts'
import { openRotations } from '../support/rotation.ts'
import { startStrictStack } from '../support/stacks.ts'

/** The one client gets another secret again and again, with kills, while people sign in, call and renew. Nobody notices. */

const wanted = 20
/**
 * The calls of AWS after which the process ends: four before the update, those from the promotion on. Between the two, calls fail until
 * AWS repeats the rotation (docs/operations.md), and other tests show that the repeated one ends well.
 */
const killsAfter = [1, 2, 3, 4, 7, 8, 9, 10, 11, 7]

let stack: Awaited<ReturnType<typeof startStrictStack>>
let rotations: ReturnType<typeof openRotations>

/** How many more calls of AWS the rotation makes before its process ends, and how often one has. */
let killIn: number | undefined
let kills = 0

const gate: Gate = (call) => {
  if (killIn === undefined || !call.accessKeyId.includes('ROTATE')) return undefined
  killIn -= 1
  if (killIn > 0) return undefined
  killIn = undefined
  kills += 1
  stack.stack.function('Rotate').kill()
  throw loseReply
}

beforeAll(async () => {
  stack = await startStrictStack({
    gate,
    maxInstances: 4,
    strict: { accessTokenSeconds: 4, updateRenewsSecret: true },
    stage: (stage) => ({
      ...stage,
      providers: { demo: { ...stage.providers['demo'], rotation: { mode: 'in-place' } } },
      session: { max_parallel: 1_000 },
    }),
  })
  rotations = openRotations(stack)
  await stack.stack.rotationIsIdle()
})
afterAll(async () => {
  rotations.close()
  await stack.close()
})

test(`${wanted} rotations in place, half of them killed: no request fails and no session is lost`, async () => {
  const people = startPeople(stack)
  const used = new Set<string | undefined>()
  for (let rotation = 0; rotation < wanted; rotation += 1) {
    if (rotation % 2 === 1) killIn = killsAfter[(rotation - 1) / 2]
    const token = await rotations.rotate()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    used.add((await rotations.stored()).current.client_secret)
  }
  await people.stop()
  expect(people.failed).toEqual([])
  for (const tab of people.tabs) await people.call(tab)
  expect(people.failed, 'every session that ever began').toEqual([])

  expect([killIn, kills]).toEqual([undefined, wanted / 2])
  expect(used.size).toBe(wanted)
  expect(people.tabs.length).toBeGreaterThan(wanted / 2)
  expect(stack.authorizationServer.tokenRequests('refresh_token').length).toBeGreaterThan(wanted / 2)
  const { current, retiring } = await rotations.stored()
  expect(retiring).toEqual([])
  const [client, ...others] = stack.authorizationServer.clients()
  expect([client?.client_secret, others]).toEqual([current.client_secret, []])
  expect(await rotations.attempts()).toEqual([])
}, 120_000)
