import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { gate } from '../support/faults.ts'
import { startRenewalStack } from '../support/renewal.ts'
import { signIn } from '../support/sign-in.ts'
import type { Browser } from '../support/user-agent.ts'

let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 4, serverSeconds: 8 })
})
beforeEach(async () => {
  tab = await stack.signedIn()
  await stack.records.expireTokens()
})
afterAll(() => stack.close())

const call = () => tab.fetch('/api/demo/x')
const logout = () => tab.fetch('/bff/logout', { method: 'POST' })
const newestRefreshToken = () => stack.authorizationServer.secrets.findLast((secret) => secret.startsWith('rt-'))
const revokedTokens = () =>
  stack.authorizationServer.requests
    .filter(({ endpoint }) => endpoint === 'revoke')
    .map(({ body }) => new URLSearchParams(body.toString()).get('token'))

test('an instance is killed after the answer and before the save: with strict rotation a clean end, then a clean start', async () => {
  const held = gate({ after: true })
  stack.authorizationServer.plan('token', held.fault)
  const [refreshes, doomed] = [stack.refreshes(), call()]
  await held.reached
  stack.stack.function('Api').kill()
  held.release()
  expect((await doomed).status).toBe(500)
  await stack.records.endLeases()
  const reply = await call()
  expect([reply.status, reply.json()['code'], reply.setCookies.length]).toEqual([401, 'session_required', 1])
  expect((await call()).status).toBe(401)
  expect(stack.refreshes()).toBe(refreshes + 2)
  await signIn(tab)
  expect((await call()).status).toBe(200)
})

test('a session that ends during a renewal has ended, and the new tokens are revoked', async () => {
  const held = gate({ after: true })
  stack.authorizationServer.plan('token', held.fault)
  const [calls, renewing] = [stack.resourceServer.requests.length, call()]
  await held.reached
  expect((await logout()).status).toBe(200)
  expect(revokedTokens()).not.toContain(newestRefreshToken())
  held.release()
  const reply = await renewing
  expect([reply.status, reply.json()['code']]).toEqual([401, 'session_required'])
  expect(revokedTokens()).toContain(newestRefreshToken())
  expect(stack.resourceServer.requests).toHaveLength(calls)
  expect((await call()).status).toBe(401)
})

test('a session that ends during an early renewal has ended too, after the call that was under way', async () => {
  await stack.records.age('grant', { expires: Math.floor(Date.now() / 1_000) + 60 })
  const held = gate({ after: true })
  stack.authorizationServer.plan('token', held.fault)
  const renewing = call()
  await held.reached
  expect((await logout()).status).toBe(200)
  held.release()
  expect((await renewing).status).toBe(200)
  await stack.stack.backgroundIsIdle()
  expect(revokedTokens()).toContain(newestRefreshToken())
  expect(await stack.records.all('grant')).toSatisfy(
    (items: unknown[]) => items.length < stack.authorizationServer.grants.length,
  )
  expect((await call()).status).toBe(401)
})

test('a login in the same browser during a renewal wins, and the late answer leaves its cookie alone', async () => {
  const held = gate({ after: true })
  stack.authorizationServer.plan('token', held.fault)
  const renewing = call()
  await held.reached
  await signIn(tab, { user: 'Grace' })
  held.release()
  expect((await renewing).status).toBe(401)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'grace' } })
})
