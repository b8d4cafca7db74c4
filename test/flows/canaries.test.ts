import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTrace, type Trace } from '../../infra/local/trace.ts'
import { sessionCookie } from '../support/answers.ts'
import { leaksOf, type Canary } from '../support/canaries.ts'
import * as faults from '../support/faults.ts'
import type { Reply } from '../support/http.ts'
import type { Fault } from '../support/server.ts'
import { authorize, comeBack, navigation } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/**
 * Everything that must stay secret is planted as a canary and used in every flow, with every fault that could shake it loose;
 * then no log, no answer, no item and no trace may show one, in whatever form.
 */

const initialAccessToken = 'initial-access-token-canary-5f0c1d'

let stack: Awaited<ReturnType<typeof startStrictStack>>
let trace: Trace
const replies: unknown[] = []
const canaries: Canary[] = []
/** What functions handed to the background. */
const tasks: unknown[] = []

/** A reply as the browser has it, but for what is there on purpose: its cookies, and the state and nonce on the way to the server. */
const keep = <R extends Reply>(reply: R): R => {
  const { location = '', ...headers } = reply.headers
  delete headers['set-cookie']
  const onTheWay = location.startsWith(`${stack.authorizationServer.issuer}/authorize`)
  replies.push({ ...headers, ...(onTheWay ? {} : { location }), text: reply.text })
  return reply
}

const plant = (name: string, value: string | null | undefined): void => {
  if (value === null || value === undefined || value === '') throw new Error(`no ${name} to search for`)
  canaries.push({ name, value })
}

const login = async (tab: Browser): Promise<void> => {
  const start = keep(await tab.raw({ path: '/bff/login?return_to=/here', headers: navigation }))
  expect(start.status).toBe(302)
  const pending = await authorize(tab)
  for (const name of ['state', 'nonce']) plant(name, pending.authorization.searchParams.get(name))
  keep(await comeBack(tab, pending))
  const ticket = tab.cookies.get(stack.origin, sessionCookie)
  if (ticket !== undefined) plant('handle', ticket.split('.')[1])
}

const use = async (tab: Browser): Promise<void> => {
  for (const path of [
    '/bff/session',
    '/bff/sessions',
    '/api/demo/whoami',
    '/api/demo/echo?a=b',
    '/api/demo/status/500',
    '/api/nowhere/x',
  ]) {
    keep(await tab.fetch(path))
  }
  keep(await tab.fetch('/api/demo/echo', { method: 'POST', json: { a: 1 } }))
  keep(await tab.fetch('/bff/refresh', { method: 'POST' }))
  keep(await tab.fetch('/bff/refresh', { method: 'POST', csrf: false }))
}

/** What the server was sent, quoted in what it answers. */
const quoting: Fault = (_, { body, headers }) => {
  const description = `${body.toString()} ${headers.authorization ?? ''}`
  return {
    status: 400,
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ error: description, error_description: description, error_uri: description }),
  }
}
const shaking: Fault[] = [
  quoting,
  faults.rewritten((text) => text.slice(0, -30)),
  faults.rewritten((text) => text.replaceAll('"', "'")),
  faults.rewritten((text) => `<p>${text}</p>`),
  faults.truncated,
  faults.lost,
  faults.changed({ token_type: 'mac' }),
  faults.changed({ expires_in: 'soon' }),
  faults.changed({ id_token: undefined }),
  async (proceed) => {
    const answer = await proceed()
    return { ...answer, status: 500, headers: { ...answer.headers, 'X-Echo': String(answer.body) } }
  },
  async (proceed) => {
    const answer = await proceed()
    const { access_token: token } = JSON.parse(String(answer.body))
    return { ...answer, body: String(answer.body).replace(token, `${token}\\r\\nX: y`) }
  },
]

beforeAll(async () => {
  trace = createTrace()
  stack = await startStrictStack({
    trace,
    gate: ({ service, input }) => {
      if (service === 'lambda') tasks.push(input)
      return undefined
    },
    strict: { initialAccessToken, accessTokenSeconds: 1, authMethods: ['client_secret_post'] },
    existingSecrets: { initial: initialAccessToken },
    stage: (stage) => ({
      ...stage,
      logs: { level: 'debug' },
      renewal: { authorization_server_timeout_seconds: 1 },
      providers: { demo: { ...stage.providers['demo'], initial_access_token_secret: 'initial' } },
    }),
  })
  const { authorizationServer } = stack
  const tab = stack.newBrowser()
  await login(tab)
  await use(tab)
  for (const fault of shaking) {
    const other = stack.newBrowser()
    await login(other)
    authorizationServer.plan('token', fault)
    keep(await other.fetch('/bff/refresh', { method: 'POST' }))
    await stack.stack.backgroundIsIdle()
  }
  for (const fault of shaking) {
    const other = stack.newBrowser()
    authorizationServer.plan('token', fault)
    await login(other)
  }
  for (const as of ['none', 'HS256', 'tampered', 'unknown kid'] as const) {
    authorizationServer.settings.idToken = { as }
    await login(stack.newBrowser())
  }
  authorizationServer.settings.idToken = {}
  for (const fault of [quoting, faults.reset]) {
    const other = stack.newBrowser()
    await login(other)
    authorizationServer.plan('revoke', fault)
    keep(await other.fetch('/bff/logout', { method: 'POST' }))
  }
  // The callback's own values, where a person or a script may try them again.
  const pending = await authorize(tab)
  pending.callback.searchParams.append('state', 'again')
  keep(await comeBack(tab, pending))
  keep(await tab.raw({ path: `${pending.callback.pathname}${pending.callback.search}`, headers: [] }))

  await stack.stack.backgroundIsIdle()
  for (const value of authorizationServer.secrets) plant(value.split('-')[0] ?? 'secret', value)
  for (const { body } of authorizationServer.tokenRequests('authorization_code')) {
    plant('code_verifier', new URLSearchParams(body.toString()).get('code_verifier'))
  }
  plant('initial access token', initialAccessToken)
  plant('sealing key', JSON.parse(await stack.secretValue('SealingKeys'))['k1'])
})

afterAll(() => stack.close())

test('the canaries are there to be found, and every fault was met', () => {
  expect(stack.authorizationServer.unmet()).toEqual([])
  const kinds = new Set(canaries.map(({ name }) => name))
  expect([...kinds]).toEqual(
    expect.arrayContaining([
      'state',
      'nonce',
      'handle',
      'code',
      'at',
      'rt',
      'rat',
      'code_verifier',
      'sealing key',
      'initial access token',
    ]),
  )
  expect(canaries.length).toBeGreaterThan(100)
  const sent = new Set(leaksOf(canaries, { wire: stack.authorizationServer.requests }).map(({ name }) => name))
  expect([...sent]).toEqual(
    expect.arrayContaining(['state', 'nonce', 'code', 'rt', 'code_verifier', 'initial access token']),
  )
})

test('no log shows one, and every line of it is one JSON object', () => {
  const lines = stack.logs.filter(({ functionName }) => functionName !== 'API Gateway').map(({ line }) => line)
  expect(lines.length).toBeGreaterThan(shaking.length)
  expect(leaksOf(canaries, { logs: stack.logs })).toEqual([])
  for (const line of lines) {
    const entry: Record<string, unknown> = JSON.parse(line)
    const words = '_aws' in entry ? ['flow', 'outcome'] : ['level', 'message']
    expect(entry).toMatchObject(Object.fromEntries(words.map((name) => [name, expect.any(String)])))
    for (const control of ['\r', '\n', '\u001b']) expect(line).not.toContain(control)
  }
})

test('no answer to the browser shows one but in its own cookies', () => {
  expect(replies.length).toBeGreaterThan(40)
  expect(leaksOf(canaries, { replies })).toEqual([])
})

test('no item shows one in plain text', async () => {
  const items = await stack.items()
  expect(items.length).toBeGreaterThan(5)
  expect(leaksOf(canaries, { items })).toEqual([])
})

test('no task shows one in plain text', () => {
  const kinds = new Set(tasks.map((task) => Object(task).kind))
  expect([...kinds]).toEqual(expect.arrayContaining(['renew', 'revoke', 'limit']))
  expect(leaksOf(canaries, { tasks })).toEqual([])
})

test('the trace shows none', () => {
  const entries = trace.list()
  const steps = new Set<string>(entries.map(({ step }) => step))
  expect([...steps]).toEqual(
    expect.arrayContaining(['discovery', 'registration', 'authorize', 'callback', 'token', 'refresh']),
  )
  expect(entries.length).toBeGreaterThan(50)
  expect(leaksOf(canaries, { entries })).toEqual([])
})
