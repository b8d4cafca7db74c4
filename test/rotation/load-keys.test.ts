import { afterAll, beforeAll, expect, test } from 'vitest'
import { rotateUnderLoad, WANTED } from './load.ts'
import { startRotatingStack } from './rotating-stack.ts'

/** Keys rotate again and again, with kills, while people sign in, call and renew, at a server that keeps our key set. Nobody notices. */

/** Calls of AWS that a rotation of keys makes; an odd number, so that the kills of half of them are at different ones. */
const callsOfRotation = 13

let stack: Awaited<ReturnType<typeof startRotatingStack>>

beforeAll(async () => {
  const strict = { accessTokenSeconds: 4, authMethods: ['private_key_jwt'] }
  stack = await startRotatingStack({ mode: 'keys', maxInstances: 4, strict })
})
afterAll(() => stack.close())

/**
 * The time that a key is published before it signs goes by, for whom it matters: the stored keys are that much older, and the copies of
 * the key set have ended that the function which publishes it (60 seconds) and the server (300) keep. Whatever else knows the keys that
 * sign stays as it is.
 */
const timeGoesBy = async (): Promise<void> => {
  const stored = await stack.rotations.stored()
  const keys = (stored.keys ?? []).map((key) => Object.assign(key, { created_at: key.created_at - 600 }))
  await stack.putSecretValue('Providerdemo', JSON.stringify({ ...stored, keys }))
  stack.stack.function('JwksFunction').kill()
  stack.authorizationServer.keySets.forget()
}

const kids = async (): Promise<string[]> => ((await stack.rotations.stored()).keys ?? []).map(({ kid }) => kid)

test(`${WANTED} rotations, half of them killed: no request fails and no session is lost`, async () => {
  const { client_id: client } = (await stack.rotations.stored()).current
  const signed = new Set<string | undefined>()
  await rotateUnderLoad(stack, async (rotation) => {
    await timeGoesBy()
    const [signing, next] = await kids()
    const dies = { index: rotation % callsOfRotation, when: 'after' as const }
    const token = await stack.rotate(rotation % 2 === 1 ? { dies } : {})
    expect(await stack.rotations.holderOf('AWSCURRENT')).toBe(token)
    const [now, fresh, before] = await kids()
    expect([now, before]).toEqual([next, signing])
    expect([signing, next]).not.toContain(fresh)
    signed.add(now)
  })

  expect([signed.size, stack.kills()]).toEqual([WANTED, WANTED / 2])
  const { authorizationServer } = stack
  expect(authorizationServer.clients().map(({ client_id: id }) => id)).toEqual([client])
  const refused = authorizationServer.requests.filter(({ status }) => status === 401)
  expect(refused.length, 'instances that had slept through rotations, each of which tried again').toBeGreaterThan(0)
  expect(authorizationServer.keySets.fetched.length, 'the server met the keys as we published them').toBe(WANTED)
}, 120_000)
