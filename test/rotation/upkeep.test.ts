import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createAwsFaults, failing } from '../support/aws-faults.ts'
import { insteadJson } from '../support/faults.ts'
import { openRotations } from '../support/rotation.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

/** What happens every hour to the clients of ours. */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startStrictStack>>
let rotations: ReturnType<typeof openRotations>
let logged: number

beforeAll(async () => {
  stack = await startStrictStack({
    gate: aws.gate,
    stage: (stage) => ({ ...stage, session: { absolute_seconds: 3_600 } }),
  })
  rotations = openRotations(stack)
})
beforeEach(() => {
  logged = stack.logs.length
})
afterEach(() => {
  const unmet = [...aws.unmet(), ...stack.authorizationServer.unmet()]
  if (unmet.length > 0) throw new Error(`planned and not met: ${unmet.join(', ')}`)
})
afterAll(async () => {
  rotations.close()
  await stack.close()
})

const anHourPasses = async (): Promise<void> => {
  await stack.stack.fire('EveryHour')
  await stack.stack.rotationIsIdle()
}
/** What functions have logged in this test. */
const said = (): string =>
  stack.logs
    .slice(logged)
    .map(({ line }) => line)
    .join('\n')
const registered = () => stack.authorizationServer.clients().map(({ client_id: id }) => id)
/** All clients that have retired did so that many seconds ago. */
const retire = async (secondsAgo: number): Promise<void> => {
  const stored = await rotations.stored()
  const since = Math.floor(Date.now() / 1_000) - secondsAgo
  const retiring = stored.retiring.map((client) => Object.assign(client, { retired_at: since }))
  await stack.putSecretValue('Providerdemo', JSON.stringify({ ...stored, retiring }))
}
const overSeconds = 3_600 + 2 * 3_600 + 60

describe('a client that has retired', () => {
  test('gets its date, and stays as long as a session of it can live', async () => {
    const tab = stack.newBrowser()
    await signIn(tab, { user: 'ada' })
    await rotations.rotate()
    await anHourPasses()
    const [old] = (await rotations.stored()).retiring
    expect(Math.abs((old?.retired_at ?? 0) - Date.now() / 1_000)).toBeLessThan(60)
    await retire(overSeconds - 120)
    const before = await rotations.holderOf('AWSCURRENT')
    await anHourPasses()
    expect(await rotations.holderOf('AWSCURRENT'), 'nothing is written where nothing changes').toBe(before)
    expect(registered()).toContain(old?.client_id)
    expect((await tab.fetch('/api/demo/whoami')).status).toBe(200)
  })

  test('stays where the server does not let us delete it, and goes later', async () => {
    await retire(overSeconds)
    stack.authorizationServer.plan('client', insteadJson(500, {}))
    await anHourPasses()
    expect((await rotations.stored()).retiring).toHaveLength(1)
    expect(registered()).toHaveLength(2)
    await anHourPasses()
    const { current, retiring } = await rotations.stored()
    expect([registered(), retiring]).toEqual([[current.client_id], []])
    expect(said()).toContain('clients_deleted')
  })

  test('is left to the operator after a week, by name', async () => {
    await rotations.rotate()
    await retire(overSeconds + 7 * 86_400)
    const [old] = (await rotations.stored()).retiring
    stack.authorizationServer.plan('client', insteadJson(500, {}))
    await anHourPasses()
    expect((await rotations.stored()).retiring).toEqual([])
    expect(said()).toMatch(/client_left_behind/)
    expect(said()).toContain(JSON.stringify(old?.client_id).slice(1, -1))
  })
})

describe('a rotation that did not get to its end', () => {
  test('is taken up again, and nothing else is changed meanwhile', async () => {
    stack.authorizationServer.always('token', insteadJson(500, {}))
    const token = await rotations.rotate()
    expect(await rotations.holderOf('AWSPENDING')).toBe(token)
    stack.authorizationServer.always('token', undefined)
    await anHourPasses()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    expect(await rotations.attempts()).toEqual([])
  })

  test('and whose client could not be given back is given back when the server answers', async () => {
    const before = registered().length
    stack.authorizationServer.always('token', insteadJson(401, { error: 'invalid_client' }))
    stack.authorizationServer.always('client', insteadJson(500, {}))
    await rotations.rotate()
    stack.authorizationServer.always('token', undefined)
    stack.authorizationServer.always('client', undefined)
    expect([await rotations.holderOf('AWSPENDING'), registered().length]).toEqual([undefined, before + 1])
    expect(await rotations.attempts()).toHaveLength(1)
    await anHourPasses()
    expect([await rotations.attempts(), registered().length]).toEqual([[], before])
    expect(said()).toContain('"orphaned_registrations":0')
  })
})

test('orphans that nobody knows the id of are counted until an operator has looked after them', async () => {
  stack.authorizationServer.plan('register', async (proceed) => {
    await proceed()
    return { status: 0, send: (response) => void response.destroy() }
  })
  await rotations.rotate()
  expect(await rotations.attempts()).toHaveLength(1)
  await anHourPasses()
  expect(said()).toContain('"orphaned_registrations":1')
  const [attempt = ''] = (await rotations.attempts()).map((label) => label.replace('COATCHECK_ATTEMPT_', ''))
  const names = stack.authorizationServer.clients().map(({ software_version: name }) => name)
  expect(names.filter((name) => name === `attempt ${attempt}`)).toHaveLength(1)
})

test('a failure is told and does not stay hidden', async () => {
  aws.next('secretsmanager:DescribeSecret', failing, failing, failing)
  await expect(stack.stack.fire('EveryHour')).rejects.toThrow('rotation_failed: upkeep failed for 1 providers')
  expect(said()).toContain('secrets_unavailable')
})

describe('a secret that expires', () => {
  test.each([
    ['in two hours, of two', 2 * 3_600, true],
    ['in five hours, of five', 5 * 3_600, false],
  ])('%s: is rotated now: %j', async (_, clientSecretSeconds, isRotated) => {
    const expiring = await startStrictStack({ strict: { clientSecretSeconds } })
    const own = openRotations(expiring)
    const before = await own.stored()
    await expiring.stack.rotationIsIdle()
    await expiring.stack.fire('EveryHour')
    await expiring.stack.rotationIsIdle()
    expect((await own.stored()).current.client_id === before.current.client_id).toBe(!isRotated)
    const days = expiring.logs.flatMap(({ line }) => /"secret_days_left":([\d.]+)/.exec(line)?.[1] ?? [])
    expect(days.map(Number)).toEqual([expect.closeTo(clientSecretSeconds / 86_400, 2)])
    const near = expiring.logs.flatMap(
      ({ line }) => /"provider":"demo","secret_near_expiry":(\d)/.exec(line)?.[1] ?? [],
    )
    expect(near, 'it has just been issued').toEqual(['0'])
    own.close()
    await expiring.close()
  })
})
