import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { REGION } from '../../infra/local/aws-call.ts'
import { operatorAccessKeyId } from '../../infra/local/stack.ts'
import { createAwsFaults } from '../support/aws-faults.ts'
import { leaksOf } from '../support/canaries.ts'
import { runCommand } from '../support/commands.ts'
import { openRecords } from '../support/records.ts'
import { authorize, comeBack, navigation, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Sealing keys change under a running stack, by the operator's command. The tests build on each other. */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>
let secret: string
const said: string[] = []

beforeAll(async () => {
  stack = await startStrictStack({ gate: aws.gate })
  records = openRecords(stack.stack)
  secret = stack.stack.physicalId('SealingKeys')
})

afterAll(async () => {
  records.close()
  await stack.close()
})

/** Runs the command as an operator does; only the endpoint and the credentials are the emulator's. */
const keys = async (...args: string[]) => {
  const env = {
    ...process.env,
    AWS_REGION: REGION,
    AWS_ACCESS_KEY_ID: operatorAccessKeyId,
    AWS_SECRET_ACCESS_KEY: 'operator',
    AWS_ENDPOINT_URL_SECRETS_MANAGER: stack.stack.endpoints.secretsManager,
  }
  const ran = await runCommand('keys', args, { env })
  said.push(ran.stdout, ran.stderr)
  return ran
}
const ofSecret = (...args: string[]) => keys(...args, '--secret', secret)
const stored = async (): Promise<Record<string, string>> => JSON.parse(await stack.secretValue('SealingKeys'))

/** Every function starts anew, as after a deploy. */
const restart = () => stack.stack.functions.forEach((pool) => pool.kill())

/** The ids of the keys that sealed the records of a kind. */
const sealedUnder = async (kind: 'session' | 'grant'): Promise<string[]> => {
  const sealed = (await records.all(kind)).map((item) => Buffer.from(item['sealed']?.B ?? []))
  return sealed.map((bytes) => bytes.toString('utf8', 2, 2 + (bytes[1] ?? 0))).toSorted()
}

const isSignedIn = async (tab: Browser): Promise<boolean> => {
  const shown = (await tab.fetch('/bff/session')).json()['authenticated'] === true
  expect((await tab.fetch('/api/demo/whoami')).status).toBe(shown ? 200 : 401)
  return shown
}
const signedIn = async (): Promise<Browser> => {
  const tab = stack.newBrowser()
  await signIn(tab, { user: 'Ada' })
  return tab
}

test('the command explains itself', async () => {
  const { code, stdout } = await keys('--help')
  expect(code).toBe(0)
  for (const word of ['list', 'rotate', 'forget', '--secret', '--yes']) expect(stdout).toContain(word)
})

test.each([
  [[], /^Say list, rotate or forget <id>\. See npm run keys -- --help\.\n$/],
  [['turn'], /^Say list, rotate or forget/],
  [['list'], /^Say which secret: --secret <name or ARN>\./],
  [['forget', '--secret', 'x'], /^Say list, rotate or forget <id>/],
  [['rotate', 'k7', '--secret', 'x'], /^Say list, rotate or forget/],
  [['list', '--secret', 'no-such-secret'], /^ResourceNotFoundException: /],
  [['list', '--colour'], /Unknown option '--colour'/],
])('a mistake is a sentence and exit code 1: %j', async (args, sentence) => {
  const { code, stdout, stderr } = await keys(...args)
  expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1])
  expect(stderr).toMatch(sentence)
})

test('another secret is left as it is', async () => {
  const before = await stack.secretValue('Providerdemo')
  const { code, stderr } = await keys('rotate', '--secret', stack.stack.physicalId('Providerdemo'))
  expect([code, stderr]).toEqual([1, expect.stringContaining('does not hold sealing keys')])
  expect(await stack.secretValue('Providerdemo')).toBe(before)
})

test('ids are listed, values are not', async () => {
  expect(await ofSecret('list')).toEqual({ code: 0, stdout: 'k1  seals and opens\n', stderr: '' })
})

describe('rotation', () => {
  test('signs nobody out, and new records are under the new key, wherever the calls land', async () => {
    const [ada, idle, leaving] = [await signedIn(), await signedIn(), await signedIn()]
    const { logout_url: url } = (await leaving.fetch('/bff/logout?return_to=/bye', { method: 'POST' })).json()
    const state = new URL(String(url)).searchParams.get('state')
    const late = stack.newBrowser()
    const pending = await authorize(late, { login_hint: 'ada', return_to: '/late' })
    await stack.stack.function('SessionFunction').warm(4)
    await stack.stack.function('Api').warm(4)

    const { code, stdout } = await ofSecret('rotate')
    expect([code, stdout]).toEqual([0, 'k1  opens\nk2  seals and opens\n'])
    expect(await isSignedIn(ada), 'instances that know only the old key').toBe(true)

    stack.stack.function('CallbackFunction').kill()
    const fresh = await signedIn()
    expect(await sealedUnder('session')).toEqual(['k1', 'k1', 'k2'])
    expect(await sealedUnder('grant')).toEqual(['k1', 'k1', 'k2'])
    const calls = await Promise.all(Array.from({ length: 8 }, () => isSignedIn(fresh.newTab())))
    expect(calls, 'each instance learns the new key when it meets it').toEqual(calls.map(() => true))
    expect((await fresh.fetch('/bff/sessions')).json()['sessions']).toHaveLength(3)

    expect((await comeBack(late, pending)).url, 'a login that began under the old key').toBe(`${stack.origin}/late`)
    const back = await leaving.raw({ path: `/bff/logout?state=${state}`, headers: navigation })
    expect(back.headers['location'], 'a logout that began under the old key').toBe(`${stack.origin}/bye`)

    restart()
    expect(await Promise.all([ada, idle, fresh, late].map(isSignedIn))).toEqual([true, true, true, true])
    await records.expireTokens()
    expect((await ada.fetch('/api/demo/whoami')).status).toBe(200)
    expect(await sealedUnder('grant'), 'a renewal moves a grant to the new key').toEqual(['k1', 'k2', 'k2', 'k2'])
  })

  test('by two operators at once loses no key', async () => {
    const [reached, opened] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    aws.next('secretsmanager:UpdateSecretVersionStage', async () => {
      reached.resolve()
      await opened.promise
      return undefined
    })
    const slow = ofSecret('rotate')
    await reached.promise
    expect((await ofSecret('rotate')).code).toBe(0)
    const afterFirst = await stored()
    opened.resolve()
    const { code, stderr } = await slow
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^Somebody else changed the keys at the same time; /)])
    expect(await stored()).toEqual(afterFirst)
    expect(Object.keys(afterFirst).toSorted()).toEqual(['current', 'k1', 'k2', 'k3'])
    expect((await ofSecret('rotate')).stdout).toBe('k1  opens\nk2  opens\nk3  opens\nk4  seals and opens\n')
  })

  test('that is interrupted before the new key is current changes nothing', async () => {
    const before = await stored()
    aws.next('secretsmanager:UpdateSecretVersionStage', () => ({
      status: 400,
      type: 'AccessDeniedException',
      message: 'no',
    }))
    expect(await ofSecret('rotate')).toMatchObject({ code: 1, stderr: 'AccessDeniedException: no\n' })
    expect(await stored()).toEqual(before)
  })
})

describe('forgetting', () => {
  test('says what ends and does nothing until it is meant', async () => {
    const before = await stored()
    const { code, stderr } = await ofSecret('forget', 'k1')
    expect([code, stderr]).toEqual([1, expect.stringContaining('every session that began while k1 sealed')])
    expect(await ofSecret('forget', 'k4', '--yes')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('rotate first'),
    })
    expect(await ofSecret('forget', 'k9', '--yes')).toMatchObject({
      code: 1,
      stderr: 'There is no key k9; there are k1, k2, k3, k4.\n',
    })
    expect(await stored()).toEqual(before)
  })

  test('ends what only that key opens, cleanly, and nothing else', async () => {
    restart()
    const fresh = await signedIn()
    const olds = (await sealedUnder('session')).filter((id) => id === 'k1').length
    expect(olds).toBeGreaterThanOrEqual(2)
    expect((await ofSecret('forget', 'k1', '--yes')).stdout).toBe('k2  opens\nk3  opens\nk4  seals and opens\n')
    restart()
    const listed = (await fresh.fetch('/bff/sessions')).json()['sessions']
    expect(listed).toHaveLength((await sealedUnder('session')).length - olds)
    expect(await isSignedIn(fresh)).toBe(true)
    expect((await fresh.fetch('/bff/sessions?all=true', { method: 'DELETE' })).status).toBe(200)
    expect(await records.all('session')).toEqual([])
  })

  test('a browser whose session is sealed under a forgotten key is signed out, and may sign in again', async () => {
    const tab = await signedIn()
    expect((await ofSecret('rotate')).code).toBe(0)
    expect((await ofSecret('forget', 'k4', '--yes')).code).toBe(0)
    restart()
    expect(await isSignedIn(tab)).toBe(false)
    await signIn(tab, { user: 'Ada' })
    expect(await isSignedIn(tab)).toBe(true)
  })
})

test('no key was ever shown by the command or a function', async () => {
  const values = Object.entries(await stored()).flatMap(([id, value]) => (id === 'current' ? [] : [value]))
  const places = { said, logs: stack.logs, items: await stack.items() }
  expect(leaksOf(values, places)).toEqual([])
})
