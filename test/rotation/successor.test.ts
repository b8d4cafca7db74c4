import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { leaksOf } from '../support/canaries.ts'
import { runCommand } from '../support/commands.ts'
import { openRecords } from '../support/records.ts'
import { openRotations } from '../support/rotation.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

/** A second client takes the place of the first, and nobody notices. The tests build on each other. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>
let rotations: ReturnType<typeof openRotations>

beforeAll(async () => {
  stack = await startStrictStack()
  records = openRecords(stack.stack)
  rotations = openRotations(stack)
})
afterAll(async () => {
  records.close()
  rotations.close()
  await stack.close()
})

const call = (tab: ReturnType<typeof stack.newBrowser>) => tab.fetch('/api/demo/whoami')
const registered = () => stack.authorizationServer.clients().map(({ client_id: id }) => id)

/** Runs the command as an operator does. */
const command = (...args: string[]) =>
  runCommand('rotate', [...args, '--endpoint', stack.stack.endpoints.secretsManager])

describe('a rotation', () => {
  test('has happened after a deploy at no provider, and its schedule is tried without harm', async () => {
    await stack.stack.rotationIsIdle()
    expect(await rotations.holderOf('AWSPENDING')).toBeUndefined()
    expect((await rotations.stored()).retiring).toEqual([])
    expect(registered()).toHaveLength(1)
    expect(stack.logs.filter(({ line }) => line.includes('rotation'))).toEqual([])
  })

  test('registers a second client, which logins begin with, and keeps the first for what began under it', async () => {
    const old = stack.newBrowser()
    await signIn(old, { user: 'ada' })
    const late = stack.newBrowser()
    const pending = await authorize(late, { login_hint: 'ada' })
    await stack.stack.function('Api').warm(3)
    const before = await rotations.stored()

    const token = await rotations.rotate()
    expect(await rotations.holderOf('AWSCURRENT')).toBe(token)
    const after = await rotations.stored()
    expect(after.current.client_id).not.toBe(before.current.client_id)
    expect(after.retiring.map(({ client_id: id }) => id)).toEqual([before.current.client_id])
    expect(registered().toSorted()).toEqual([after.current.client_id, before.current.client_id].toSorted())
    expect(await rotations.attempts()).toEqual([])

    await comeBack(late, pending)
    expect((await call(late)).status, 'a login that began under the old client').toBe(200)
    stack.stack.functions.forEach((pool) => pool.kill())
    const fresh = stack.newBrowser()
    await signIn(fresh, { user: 'ada' })
    await records.expireTokens()
    const calls = await Promise.all([old, late, fresh].map(call))
    expect(calls.map(({ status }) => status)).toEqual([200, 200, 200])
    const users = stack.authorizationServer.grants.map(({ clientId }) => clientId)
    expect(new Set(users)).toEqual(new Set([before.current.client_id, after.current.client_id]))
  })

  test('is tested without anything coming of it', () => {
    const probes = stack.authorizationServer.tokenRequests('authorization_code').length
    expect(stack.authorizationServer.grants).toHaveLength(3)
    expect(probes).toBe(4)
  })
})

describe('npm run rotate', () => {
  test('rotates, and says what there is without showing a credential', async () => {
    const before = await rotations.stored()
    expect(await command('demo')).toEqual({ code: 0, stdout: expect.stringMatching(/^Rotated\. /), stderr: '' })
    const after = await rotations.stored()
    expect(after.retiring.map(({ client_id: id }) => id)).toEqual(
      [before.current, ...before.retiring].map(({ client_id: id }) => id),
    )
    const { code, stdout } = await command('demo', '--list')
    expect([code, stdout.trim().split('\n').length]).toEqual([0, 3])
    expect(stdout).toContain(`${after.current.client_id}  current, registered 20`)
    expect(leaksOf(stack.authorizationServer.secrets, { stdout, logs: stack.logs })).toEqual([])
  })

  test.each([
    [[], /^Say which provider, /],
    [['demo', 'other'], /^Say which provider, /],
    [['other'], /^There is no provider other in this account and region\.$/m],
    [['demo', '--forget', 'x'], /^There is no attempt x; /],
    [['demo', '--colour'], /Unknown option '--colour'/],
    [['demo', '--secret', 'nobody'], /^ResourceNotFoundException: /],
  ])('a mistake is a sentence and exit code 1: %j', async (args, sentence) => {
    const { code, stdout, stderr } = await command(...args)
    expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1])
    expect(stderr).toMatch(sentence)
  })

  test('explains itself', async () => {
    const { code, stdout } = await command('--help')
    expect(code).toBe(0)
    for (const word of ['--list', '--forget', '--secret', '--endpoint']) expect(stdout).toContain(word)
  })
})
