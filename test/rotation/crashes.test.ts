import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { rowsOf } from '../renewal/crash-points.ts'
import { leaksOf } from '../support/canaries.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import type { Browser } from '../support/user-agent.ts'
import { startRotatingStack, type Kill } from './rotating-stack.ts'

/** The process of a rotation ends before or after each of its exchanges with the outside, and AWS repeats the rotation. */

let stack: Awaited<ReturnType<typeof startRotatingStack>>
let rotations: typeof stack.rotations
let records: ReturnType<typeof openRecords>
let tab: Browser
/** How many clients kills have left at the server. */
let orphans = 0

beforeAll(async () => {
  stack = await startRotatingStack({ mode: 'successor' })
  rotations = stack.rotations
  records = openRecords(stack.stack)
  tab = stack.newBrowser()
  await signIn(tab, { user: 'ada' })
})
afterAll(async () => {
  records.close()
  await stack.close()
})

const rotate = (dies?: Kill): Promise<string> => stack.rotate({ dies, isAlone: true })

/** There is one current client, nothing is lost, and what a kill has left behind is known to be there. */
const isWhole = async (token: string, leaves = 0): Promise<void> => {
  expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
  const { current, retiring } = await rotations.stored()
  const stored = [current, ...retiring]
  expect(new Set(stored.map(({ client_id: id }) => id)).size).toBe(stored.length)
  const clients = stack.authorizationServer.clients()
  for (const { client_id: id, client_secret: secret } of stored) {
    expect(clients.find((client) => client.client_id === id)?.client_secret).toBe(secret)
  }
  const left = clients.length - stored.length - orphans
  orphans += left
  expect(left, 'clients that this kill has left').toBe(leaves)
  const noted = new Set((await rotations.attempts()).map((label) => label.replace('COATCHECK_ATTEMPT_', 'attempt ')))
  const unknown = clients.filter(({ client_id: id }) => !stored.some((client) => client.client_id === id))
  expect(unknown.filter(({ software_version: version }) => !noted.has(String(version)))).toEqual([])
}

/** The session that began under the first client goes on, and a new one begins under the current one. */
const nobodyNotices = async (): Promise<void> => {
  await records.expireTokens()
  expect((await tab.fetch('/api/demo/whoami')).status).toBe(200)
  const fresh = stack.newBrowser()
  await signIn(fresh, { user: 'bob' })
  expect((await fresh.fetch('/api/demo/whoami')).status).toBe(200)
}

/** The exchanges as the documentation has them, each with the step that makes it. */
const rows = rowsOf('rotation')

test('a rotation makes these exchanges', async () => {
  const token = await rotate()
  expect(stack.exchanges()).toEqual(rows.map(({ name }) => name.replace(/^\w+: /, '')))
  await isWhole(token)
})

/** How many clients are left behind that a note knows, by the words of the documentation. */
const leftBehind: Record<string, number> = { 'done later': 0, 'done later, a client left': 1 }

const cells = rows.flatMap(({ name, before, after }, index) => [
  { index, name, when: 'before' as const, outcome: before },
  { index, name, when: 'after' as const, outcome: after },
])

test.each(cells)('killed $when exchange $index, $name: $outcome', async ({ index, when, outcome }) => {
  const before = stack.kills()
  const token = await rotate({ index, when })
  expect(stack.kills(), 'the exchange is met').toBe(before + 1)
  await isWhole(token, leftBehind[outcome])
  if (when === 'after') await nobodyNotices()
})

test('no log shows a credential', () => {
  expect(leaksOf(stack.authorizationServer.secrets.slice(-60), { logs: stack.logs })).toEqual([])
})

test('every step may come again after the end, under either of its names, and changes nothing', async () => {
  const token = await rotate()
  const before = await rotations.labels()
  for (const Step of [
    'create_secret',
    'createSecret',
    'set_secret',
    'setSecret',
    'testSecret',
    'finish_secret',
    'finishSecret',
  ]) {
    await stack.stack.invoke('Rotate', { Step, SecretId: rotations.secret, ClientRequestToken: token })
  }
  expect(await rotations.labels()).toEqual(before)
  await isWhole(token)
})

test.each([
  ['another token', { ClientRequestToken: 'another-token-of-thirty-two-letters' }, /no rotation of that token/],
  ['another secret', { SecretId: 'arn:aws:secretsmanager:us-east-1:000000000000:secret:o-AbCdEf' }, /of no provider/],
])('a step of %s is refused', async (_, change, words) => {
  const event = { Step: 'createSecret', SecretId: rotations.secret, ClientRequestToken: 'x'.repeat(32), ...change }
  await expect(stack.stack.invoke('Rotate', event)).rejects.toThrow(words)
})

test.each(['{}', 'not JSON', '{"format":1}', '[]', 'x'.repeat(60_000)])(
  'a pending value that is not of ours (%.20s) is tried without harm and never promoted',
  async (value) => {
    const before = await rotations.holderOf('AWSCURRENT')
    const token = await rotations.putPending(value)
    const step = (Step: string) =>
      stack.stack.invoke('Rotate', { Step, SecretId: rotations.secret, ClientRequestToken: token })
    await step('testSecret')
    await expect(step('setSecret')).rejects.toThrow('what is pending is not of ours')
    await expect(step('finishSecret')).rejects.toThrow('what is pending is not of ours')
    await rotations.removePending(token)
    await step('testSecret')
    expect(await rotations.holderOf('AWSCURRENT')).toBe(before)
  },
)

describe('a deploy during a rotation', () => {
  test('wins: what was pending is given back, and the next rotation goes through', async () => {
    const clients = stack.authorizationServer.clients().length
    const stored = await rotations.stored()
    stack.authorizationServer.always('token', async (proceed) => {
      stack.authorizationServer.always('token', undefined)
      const changed = { ...stored, current: { ...stored.current, requested: 'something else' } }
      await stack.putSecretValue('Providerdemo', JSON.stringify(changed))
      return await proceed()
    })
    await rotations.rotate()
    const after = await rotations.stored()
    expect([after.current.client_id, after.current['requested']]).toEqual([stored.current.client_id, 'something else'])
    expect(await rotations.holderOf('AWSPENDING')).toBeUndefined()
    expect(stack.authorizationServer.clients()).toHaveLength(clients)
    await isWhole(await rotate())
    await nobodyNotices()
  })
})
