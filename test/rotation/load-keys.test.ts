import { afterAll, beforeAll, expect, test } from 'vitest'
import { loseReply, type Gate } from '../../infra/local/aws-call.ts'
import { startPeople } from '../support/people.ts'
import { openRotations } from '../support/rotation.ts'
import { startStrictStack } from '../support/stacks.ts'

/** Keys rotate again and again, with kills, while people sign in, call and renew, at a server that keeps our key set. Nobody notices. */

const wanted = 20
/** Calls of AWS that a rotation of keys makes; an odd number, so that the kills of half of them are at different ones. */
const callsOfRotation = 13

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
    strict: { accessTokenSeconds: 4, authMethods: ['private_key_jwt'] },
    stage: (stage) => ({
      ...stage,
      session: { max_parallel: 1_000 },
      providers: { demo: { ...stage.providers['demo'], rotation: { mode: 'keys' } } },
    }),
  })
  rotations = openRotations(stack)
  await stack.stack.rotationIsIdle()
})
afterAll(async () => {
  rotations.close()
  await stack.close()
})

/**
 * The time that a key is published before it signs goes by, for whom it matters: the stored keys are that much older, and the copies of
 * the key set have ended that the function which publishes it (60 seconds) and the server (300) keep. Whatever else knows the keys that
 * sign stays as it is.
 */
const timeGoesBy = async (): Promise<void> => {
  const stored = await rotations.stored()
  const keys = (stored.keys ?? []).map((key) => Object.assign(key, { created_at: key.created_at - 600 }))
  await stack.putSecretValue('Providerdemo', JSON.stringify({ ...stored, keys }))
  stack.stack.function('JwksFunction').kill()
  stack.authorizationServer.keySets.forget()
}

const kids = async (): Promise<string[]> => ((await rotations.stored()).keys ?? []).map(({ kid }) => kid)

test(`${wanted} rotations, half of them killed: no request fails and no session is lost`, async () => {
  const people = startPeople(stack)
  const { client_id: client } = (await rotations.stored()).current
  const signed = new Set<string | undefined>()
  for (let rotation = 0; rotation < wanted; rotation += 1) {
    await timeGoesBy()
    const [signing, next] = await kids()
    if (rotation % 2 === 1) killIn = 1 + (rotation % callsOfRotation)
    const token = await rotations.rotate()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    const [now, fresh, before] = await kids()
    expect([now, before]).toEqual([next, signing])
    expect([signing, next]).not.toContain(fresh)
    signed.add(now)
  }
  await people.stop()
  expect(people.failed).toEqual([])
  for (const tab of people.tabs) await people.call(tab)
  expect(people.failed, 'every session that ever began').toEqual([])

  expect([signed.size, kills]).toEqual([wanted, wanted / 2])
  const { authorizationServer } = stack
  expect(people.tabs.length).toBeGreaterThan(wanted / 2)
  expect(authorizationServer.tokenRequests('refresh_token').length).toBeGreaterThan(wanted / 2)
  expect(authorizationServer.clients().map(({ client_id: id }) => id)).toEqual([client])
  const refused = authorizationServer.requests.filter(({ status }) => status === 401)
  expect(refused.length, 'instances that had slept through rotations, each of which tried again').toBeGreaterThan(0)
  expect(authorizationServer.keySets.fetched.length, 'the server met the keys as we published them').toBe(wanted)
}, 120_000)
