import { expect, test } from 'vitest'
import { leaksOf } from './canaries.ts'
import { finishLogin, signIn, startLogin } from './sign-in.ts'
import { startDemoStack, startStrictStack } from './stacks.ts'

test('a stack with the strict server signs users in without a page and shows what it logged and stored', async () => {
  const stack = await startStrictStack()
  const tab = stack.newBrowser()
  const page = await signIn(tab, { user: 'Grace', returnTo: '/here' })
  expect(page.url).toBe(`${stack.origin}/here`)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'grace' } })
  expect((await tab.fetch('/api/demo/whoami')).json()).toMatchObject({ subject: 'grace' })
  const { clients, secrets } = stack.authorizationServer
  expect(await stack.secretValue('Provider')).toContain(clients()[0]?.client_id)
  const items = await stack.items()
  expect(items.length).toBeGreaterThan(1)
  expect(leaksOf(secrets, { logs: stack.logs, items })).toEqual([])
  await stack.close()
})

test('a stack with the demo server shows its pages, and consent may be denied', async () => {
  const stack = await startDemoStack()
  const tab = stack.newBrowser()
  const chooser = await startLogin(tab)
  expect(chooser.visible).toContain('Ada Lovelace')
  const denied = await finishLogin(tab, chooser, { consent: 'Deny' })
  expect(new URL(denied.url).origin).toBe(stack.origin)
  expect(tab.cookies.names(stack.origin)).not.toContain('__Host-Http-session')
  await signIn(tab)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
  await stack.close()
})
