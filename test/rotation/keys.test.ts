import { decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { HttpObservation } from '../../infra/local/trace.ts'
import { openRecords } from '../support/records.ts'
import { openRotations } from '../support/rotation.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack } from '../support/stacks.ts'

/** A client without a secret gets a further key, and signs with the one that was published before. The tests build on each other. */

const calls: HttpObservation[] = []
let stack: Awaited<ReturnType<typeof startDemoStack>>
let rotations: ReturnType<typeof openRotations>

beforeAll(async () => {
  stack = await startDemoStack({
    stage: (stage) => ({
      ...stage,
      providers: { demo: { ...stage.providers['demo'], rotation: { mode: 'keys' } } },
    }),
    trace: { observeBrowser: () => undefined, observeOutgoing: (call) => void calls.push(call) },
  })
  rotations = openRotations(stack)
})
afterAll(async () => {
  rotations.close()
  await stack.close()
})

const kids = async (): Promise<string[]> => ((await rotations.stored()).keys ?? []).map(({ kid }) => kid)
/** What signed each request to the token endpoint, oldest first. */
const signers = (): (string | undefined)[] =>
  calls
    .filter(({ url }) => new URL(url).pathname === '/token')
    .map(({ requestBody }) => new URLSearchParams(requestBody).get('client_assertion') ?? '')
    .map((assertion) => decodeProtectedHeader(assertion).kid)

/** The keys were made long ago. */
const age = async (): Promise<void> => {
  const stored = await rotations.stored()
  const keys = (stored.keys ?? []).map((key) => Object.assign(key, { created_at: 1 }))
  await stack.putSecretValue('Providerdemo', JSON.stringify({ ...stored, keys }))
}

test('a key that was just published does not sign yet', async () => {
  const before = await rotations.stored()
  await rotations.rotate()
  expect(await rotations.stored()).toEqual(before)
  expect(await rotations.holderOf('AWSPENDING')).toBeUndefined()
  expect(stack.logs.map(({ line }) => line).join('\n')).toContain('was published less than 600 seconds ago')
})

test('the next key signs, one is published ahead, and the one before goes on in instances that do not know', async () => {
  const records = openRecords(stack.stack)
  const tab = stack.newBrowser()
  await signIn(tab, { user: 'Ada' })
  const renew = async (): Promise<number> => {
    await records.expireTokens()
    return (await tab.fetch('/api/demo/whoami')).status
  }
  expect(await renew()).toBe(200)
  await age()
  const [first, second] = await kids()
  const { current } = await rotations.stored()

  const token = await rotations.rotate()
  expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
  const [signing, next, ...before] = await kids()
  expect([signing, before]).toEqual([second, [first]])
  expect([first, second]).not.toContain(next)
  expect((await rotations.stored()).current).toEqual(current)
  await expect.poll(() => signers().at(-1), { message: 'the probe' }).toBe(second)

  expect(await renew()).toBe(200)
  await expect.poll(() => signers().at(-1), { message: 'an instance that does not know' }).toBe(first)
  stack.stack.functions.forEach((pool) => pool.kill())
  expect(await renew()).toBe(200)
  await expect.poll(() => signers().at(-1), { message: 'one that does' }).toBe(second)
  records.close()
})

test('a server that has not fetched the key that is to sign refuses it, and nothing changes', async () => {
  await age()
  const before = await rotations.stored()
  await rotations.rotate()
  expect(await rotations.stored()).toEqual(before)
  expect(await rotations.holderOf('AWSPENDING')).toBeUndefined()
  expect(stack.logs.map(({ line }) => line).join('\n')).toContain('the server does not take')
})
