import { beforeEach, describe, expect, test } from 'vitest'
import { createSealer } from '../../shared/seal.ts'
import { createSealingKeys } from '../../shared/sealing-keys.ts'

/** How one instance keeps up with keys that change elsewhere. */

const key = (letter: string): string => letter.repeat(64)
const minutes = 60_000

let secret: Record<string, string>
let reads: number
let isDown: boolean
let nowMs: number

const instance = () =>
  createSealingKeys({
    now: () => nowMs,
    read: () => {
      reads += 1
      return isDown ? Promise.reject(new Error('down')) : Promise.resolve(JSON.stringify(secret))
    },
  })

beforeEach(() => {
  secret = { current: 'k1', k1: key('a') }
  reads = 0
  isDown = false
  nowMs = Date.now()
})

const rotate = (): void => {
  secret = { ...secret, current: 'k2', k2: key('b') }
}

test('keys are read once and again after a quarter of an hour', async () => {
  const keys = instance()
  await Promise.all([keys(), keys()])
  for (let call = 0; call < 5; call += 1) expect((await keys()).current).toBe('k1')
  expect(reads).toBeLessThanOrEqual(2)
  rotate()
  nowMs += 14 * minutes
  expect((await keys()).current).toBe('k1')
  nowMs += 2 * minutes
  expect((await keys()).current).toBe('k2')
})

test('a key that is met before it is known is looked for at once, and seals from then on', async () => {
  const keys = instance()
  await keys()
  rotate()
  expect((await keys('k2')).keys).toHaveProperty('k2')
  expect((await keys()).current).toBe('k2')
})

test('what another instance sealed under a new key opens here, also several at once, also right after the last read', async () => {
  const [here, there] = [createSealer(instance()), createSealer(instance())]
  const old = await here.seal('session', ['a'], 'old')
  rotate()
  const [one, two, three] = await Promise.all(['1', '2', '3'].map((text) => there.seal('session', ['a'], text)))
  nowMs += 1
  const opened = [one, two, three, old].map((sealed) => here.open('session', ['a'], sealed ?? old))
  expect(await Promise.all(opened)).toEqual(['1', '2', '3', 'old'])
})

test('made-up key ids lead to one read in five seconds', async () => {
  const keys = instance()
  await keys()
  for (let call = 0; call < 50; call += 1) await keys(`made-up-${call}`)
  expect(reads).toBe(2)
  nowMs += 5_001
  await keys('made-up')
  expect(reads).toBe(3)
})

describe('within these five seconds', () => {
  test('a key that may just have been added is no reason to end anything: try again', async () => {
    const keys = instance()
    await keys('made-up')
    rotate()
    await expect(keys('k2')).rejects.toMatchObject({ reason: 'secrets_unavailable', retryAfterSeconds: 1 })
    nowMs += 5_001
    expect((await keys('k2')).current).toBe('k2')
  })

  test('a key that was removed is known to be gone', async () => {
    secret = { current: 'k2', k2: key('b') }
    const sealer = createSealer(instance())
    const gone = await createSealer(() => Promise.resolve({ current: 'k1', keys: { k1: key('a') } })).seal(
      'grant',
      [],
      'x',
    )
    for (let call = 0; call < 3; call += 1) expect(await sealer.open('grant', [], gone)).toBeUndefined()
  })
})

describe('while the secret cannot be read', () => {
  test('keys that are known go on sealing and opening, however old', async () => {
    const keys = instance()
    await keys()
    isDown = true
    nowMs += 60 * minutes
    expect((await keys()).current).toBe('k1')
    isDown = false
    rotate()
    nowMs += 16 * minutes
    expect((await keys()).current).toBe('k2')
  })

  test('nothing is said of a key that is not known', async () => {
    const keys = instance()
    await keys()
    isDown = true
    await expect(keys('k2')).rejects.toThrow('down')
    expect((await keys()).current).toBe('k1')
  })

  test('an instance that never read it asks again at each call', async () => {
    const keys = instance()
    isDown = true
    await expect(keys()).rejects.toThrow('down')
    isDown = false
    expect((await keys()).current).toBe('k1')
  })
})
