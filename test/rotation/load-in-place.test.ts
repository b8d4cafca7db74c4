import { afterAll, beforeAll, expect, test } from 'vitest'
import { rowsOf } from '../renewal/crash-points.ts'
import { rotateUnderLoad, WANTED } from './load.ts'
import { startRotatingStack, type Kill } from './rotating-stack.ts'

/** The one client gets another secret again and again, with kills, while people sign in, call and renew. Nobody notices. */

/** Longer than a request waits: nobody is helped by AWS that repeats the rotation. */
const retryDelaysMs = [3_000]

/** Kills of which nobody hears: before and after each exchange up to the promotion, but at the one point that cannot be covered. */
const kills = rowsOf('rotation in place').flatMap(({ name, before, after }, index) => {
  const cells: (Kill & { outcome: string })[] = [
    { index, when: 'before', outcome: before },
    { index, when: 'after', outcome: after },
  ]
  return name.startsWith('create') ? cells.filter(({ outcome }) => outcome === 'done later') : []
})

let stack: Awaited<ReturnType<typeof startRotatingStack>>

beforeAll(async () => {
  stack = await startRotatingStack({
    mode: 'in-place',
    maxInstances: 4,
    retryDelaysMs,
    strict: { accessTokenSeconds: 4, updateRenewsSecret: true },
  })
})
afterAll(() => stack.close())

test(`${WANTED} rotations in place, half of them killed: no request fails and no session is lost`, async () => {
  const used = new Set<string | undefined>()
  await rotateUnderLoad(stack, async (rotation) => {
    // From the last ones on: those are between the update and the promotion.
    const dies = rotation % 2 === 1 ? kills.at(-(rotation + 1) / 2) : undefined
    const token = await stack.rotate({ dies })
    expect(await stack.rotations.holderOf('AWSCURRENT')).toBe(token)
    used.add((await stack.rotations.stored()).current.client_secret)
  })

  expect([used.size, stack.kills()]).toEqual([WANTED, WANTED / 2])
  const { current, retiring } = await stack.rotations.stored()
  expect(retiring).toEqual([])
  const [client, ...others] = stack.authorizationServer.clients()
  expect([client?.client_secret, others]).toEqual([current.client_secret, []])
  expect(await stack.rotations.attempts()).toEqual([])
}, 120_000)
