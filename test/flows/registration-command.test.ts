import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { leaksOf } from '../support/canaries.ts'
import { runCommand } from '../support/commands.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

/** An operator looks at the registration of a running stack and repairs it, by `npm run registration`. The tests build on each other. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
const said: string[] = []

beforeAll(async () => {
  stack = await startStrictStack()
})
afterAll(() => stack.close())

const registration = async (...args: string[]) => {
  const ran = await runCommand('registration-command', [...args, '--endpoint', stack.stack.endpoints.lambda])
  said.push(ran.stdout, ran.stderr)
  return ran
}
const clients = () => stack.authorizationServer.clients().map(({ client_id: id }) => id)
const plan = (fault: Fault) => stack.authorizationServer.plan('client', fault)
const canSignIn = async (): Promise<boolean> => {
  const tab = stack.newBrowser()
  await signIn(tab, { user: 'ada' })
  return (await tab.fetch('/api/demo/whoami')).status === 200
}

test('the command explains itself', async () => {
  const { code, stdout } = await registration('--help')
  expect(code).toBe(0)
  for (const word of ['--repair', '--anew', '--function', '--endpoint']) expect(stdout).toContain(word)
})

test('shows a registration that is well', async () => {
  const { code, stdout, stderr } = await registration('demo')
  expect([code, stderr]).toEqual([0, ''])
  const [client = ''] = clients()
  const lines = stdout.split('\n')
  expect(lines[0]).toBe(`demo at ${stack.authorizationServer.issuer}: known there, and as the stage asks`)
  expect(lines[1]?.replace(client, '<id>')).toMatch(
    /^  client <id>, registered 20\d\d-.*Z, client_secret_basic, with a secret which does not end$/,
  )
  expect(lines.slice(2)).toEqual([''])
})

test('tells a server that does not answer from one that no longer knows the client, by exit code 1', async () => {
  plan(faults.reset)
  expect(await registration('demo')).toMatchObject({ code: 1, stdout: expect.stringContaining('did not answer') })
  plan(faults.refused('invalid_token', 401))
  expect(await registration('demo')).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('no longer taken there'),
  })
})

test('repairs what somebody has changed at the server', async () => {
  const [client] = stack.authorizationServer.clients()
  if (client === undefined) throw new Error('nothing is registered')
  client.redirect_uris = ['https://evil.example/callback']
  const looked = await registration('demo')
  expect([looked.code, looked.stdout]).toEqual([1, expect.stringContaining('not shown there as the stage asks')])
  expect(await registration('demo', '--repair')).toEqual({
    code: 0,
    stdout: `The registration of client ${client.client_id} is what the stage asks for.\n`,
    stderr: '',
  })
  expect((await registration('demo')).code).toBe(0)
  expect(await canSignIn()).toBe(true)
})

test('registers another client where the server no longer takes the one there is, and sign-ins begin with it', async () => {
  plan(faults.refused('invalid_token', 401))
  const { code, stdout } = await registration('demo', '--repair')
  const [, id = ''] = /^A new client is registered: (.+)\. Sign-ins begin with it\.\n$/.exec(stdout) ?? []
  expect([code, clients().at(-1)]).toEqual([0, id])
  stack.stack.functions.forEach((pool) => pool.kill())
  expect(await canSignIn()).toBe(true)
  expect(stack.authorizationServer.grants.at(-1)?.clientId).toBe(id)
  expect((await registration('demo')).stdout).toContain('clients that stay for sessions that began under them: 1')
})

describe('a server that cannot be asked', () => {
  test('is no fault, and is not repaired unless a new client is wanted', async () => {
    const before = clients().length
    plan(faults.insteadJson(404, {}))
    expect(await registration('demo')).toMatchObject({ code: 0, stdout: expect.stringContaining('cannot be asked') })
    plan(faults.insteadJson(404, {}))
    expect(await registration('demo', '--repair')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'The server cannot be asked (RFC 7592), and nothing was done; --anew registers a new client.\n',
    })
    expect(clients()).toHaveLength(before)
    expect((await registration('demo', '--repair', '--anew')).stdout).toMatch(/^A new client is registered: /)
    expect(clients()).toHaveLength(before + 1)
  })
})

test('a repair that fails says why, in the words of the registration', async () => {
  stack.authorizationServer.plan('register', faults.refused('access_denied', 403, 'not today'))
  const { code, stdout, stderr } = await registration('demo', '--repair', '--anew')
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr).toMatch(
    /^\S+ failed: the server refused the registration: status 403, access_denied: not today; .*\n$/,
  )
})

test.each([
  [[], /^Say which provider, as the stage file names it\. See npm run registration -- --help\.$/],
  [['demo', 'second'], /^Say which provider/],
  [['demo', '--anew'], /^--anew goes with --repair\./],
  [['nobody'], /^There is no provider nobody in this account and region; there is only demo\.$/],
  [['demo', '--repair', '--function', 'no-such-function'], /^ResourceNotFoundException: Function not found/],
  [['demo', '--colour'], /^Unknown option '--colour'/],
])('a mistake is a sentence and exit code 1: %j', async (args, sentence) => {
  const { code, stdout, stderr } = await registration(...args)
  expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1])
  expect(stderr.trim()).toMatch(sentence)
})

test('no credential was ever shown', async () => {
  expect(leaksOf(stack.authorizationServer.secrets, { said })).toEqual([])
})
