import { afterAll, beforeAll, expect, test } from 'vitest'
import { leaksOf } from './canaries.ts'
import { finishLogin, signIn, startLogin } from './sign-in.ts'
import { startDemoStack, startStrictStack } from './stacks.ts'

let strict: Awaited<ReturnType<typeof startStrictStack>>
let demo: Awaited<ReturnType<typeof startDemoStack>>

beforeAll(async () => {
  strict = await startStrictStack()
  demo = await startDemoStack()
})

afterAll(async () => {
  await strict?.close()
  await demo?.close()
})

test('a stack with the strict server signs users in without a page and shows what it logged and stored', async () => {
  const tab = strict.newBrowser()
  const page = await signIn(tab, { user: 'Grace', returnTo: '/here' })
  expect(page.url).toBe(`${strict.origin}/here`)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'grace' } })
  expect((await tab.fetch('/api/demo/whoami')).json()).toMatchObject({ subject: 'grace' })
  const { clients, secrets } = strict.authorizationServer
  expect(await strict.secretValue('Provider')).toContain(clients()[0]?.client_id)
  const items = await strict.items()
  expect(items.length).toBeGreaterThan(1)
  expect(leaksOf(secrets, { logs: strict.logs, items })).toEqual([])
})

test('a stack with the demo server shows its pages, and consent may be denied', async () => {
  const tab = demo.newBrowser()
  const chooser = await startLogin(tab)
  expect(chooser.visible).toContain('Ada Lovelace')
  const denied = await finishLogin(tab, chooser, { consent: 'Deny' })
  expect(new URL(denied.url).origin).toBe(demo.origin)
  expect(tab.cookies.names(demo.origin)).not.toContain('__Host-Http-session')
  await signIn(tab)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
})
