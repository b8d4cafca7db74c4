import { afterAll, beforeAll, expect, test } from 'vitest'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Where calls may go: what the stage does not list is not called, and the outside learns no more than of a server that is down. */

const targets = {
  private: 'https://10.1.2.3/v1',
  listed: 'https://192.168.255.254',
  metadata: 'https://169.254.169.254',
  mapped: 'https://[::ffff:a9fe:a9fe]',
}

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({
      ...stage,
      private_networks: ['192.168.0.0/16'],
      apis: Object.fromEntries(
        Object.entries(targets).map(([name, target]) => [name, { provider: 'demo', target, timeout_seconds: 1 }]),
      ),
    }),
  })
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(() => stack.close())

const told = (flow: string) =>
  stack.logs.flatMap(({ line }) => {
    if (!line.startsWith('{')) return []
    const { message, reason, detail, flow: name }: Record<string, unknown> = JSON.parse(line)
    return message === 'request failed' && name === flow ? [{ reason, detail }] : []
  })

test.each([
  ['private', '10.1.2.3 is not a public address; list its network in private_networks if that is right'],
  ['metadata', '169.254.169.254 is an address that no deployed stage may call'],
  ['mapped', '::ffff:a9fe:a9fe is an address that no deployed stage may call'],
] as const)('a resource server at a %s address is not called, and the log says why', async (name, detail) => {
  const reply = await tab.fetch(`/api/${name}/x`, { method: 'POST' })
  expect([reply.status, reply.json()['code']]).toEqual([502, 'resource_server_unavailable'])
  expect(reply.text).not.toMatch(/\d+\.\d+\.\d+\.\d+|a9fe|private_networks/)
  expect(told('api').at(-1)).toEqual({ reason: 'resource_server_address_refused', detail })
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
})

test('a listed one is called', async () => {
  const { status } = await tab.fetch('/api/listed/x')
  expect([502, 504]).toContain(status)
  expect(told('api').at(-1)?.reason).toMatch(/^resource_server_(timeout|unreachable)$/)
})

test('a deploy for an authorization server at a private address fails in words', async () => {
  const started = startStrictStack({
    stage: (stage) => ({ ...stage, providers: { demo: { ...stage.providers['demo'], issuer: 'https://10.1.2.3' } } }),
  })
  await expect(started).rejects.toThrow(/10\.1\.2\.3 is not a public address; list its network in private_networks/)
})
