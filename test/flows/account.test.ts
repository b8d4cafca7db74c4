import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectErrorPage, expectNoSession, signedInRecords } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startCoderStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Signing in where no ID token says who it is: the resource server does. */

let stack: Awaited<ReturnType<typeof startCoderStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startCoderStack({
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: 1 } }),
  })
})

beforeEach(() => {
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

const userNamed = (name: string) => stack.authorizationServer.users.find(({ username }) => username === name)

test('the account and its claims come from the endpoint, and nothing that Coder does not know is sent', async () => {
  const home = await tab.navigate('/')
  const start = await tab.navigate('/bff/login?prompt=login&login_hint=ada&return_to=/here', { from: home })
  const consent = await tab.submit(start, 'Ada')
  expect((await tab.submit(consent, 'Allow')).url).toBe(`${stack.origin}/here`)
  const ada = userNamed('ada')
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({
    authenticated: true,
    claims: { sub: ada?.id, name: 'Ada', preferred_username: 'ada', email: 'ada@example.com' },
  })
  expect((await tab.fetch('/api/demo/users/me')).json()).toMatchObject({ id: ada?.id })
})

test('a user who is another has a session of their own', async () => {
  await signIn(tab, { user: 'Grace' })
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ claims: { sub: userNamed('grace')?.id } })
})

describe('an account that cannot be told', () => {
  test.each<[string, Fault]>([
    ['is refused', faults.insteadJson(401, { message: 'You are signed out', detail: 'API key is invalid.' })],
    ['is not found, for want of a scope', faults.insteadJson(404, { message: 'Resource not found' })],
    ['has no id', faults.changed({ id: undefined })],
    ['is a web page', faults.webPage()],
    ['is elsewhere', faults.moved('/api/v2/buildinfo', 302)],
    ['is broken', faults.webPage(500)],
    ['comes too late', faults.hung],
  ])('since it %s is no session, and its tokens are given back', async (_, fault) => {
    const { authorizationServer } = stack
    const before = signedInRecords(await stack.items())
    authorizationServer.plan('account', fault)
    const page = await signIn(tab, { user: 'Lin', returnTo: '/here' })
    expectErrorPage(page, 502, 'account_unresolved')
    expectNoSession(page)
    expect(signedInRecords(await stack.items())).toEqual(before)
    const [last] = authorizationServer.pairs().slice(-1)
    expect([last?.userId, last?.live, last?.endedBy]).toEqual([userNamed('lin')?.id, false, 'revocation'])
    expect(authorizationServer.unmet()).toEqual([])
    expect(page.links.map(({ text }) => text)).toContain('Sign in again')
  })
})

test('no secret of the server shows in logs, records or pages', async () => {
  await signIn(tab, { user: 'Ada' })
  const pages = tab.history.map(({ url, location }) => ({ url, location })).filter(({ url }) => url.includes('/here'))
  expect(leaksOf(stack.authorizationServer.secrets, { logs: stack.logs, items: await stack.items(), pages })).toEqual(
    [],
  )
})
