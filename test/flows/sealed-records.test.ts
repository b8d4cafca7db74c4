import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startRenewalStack } from '../support/renewal.ts'

let stack: Awaited<ReturnType<typeof startRenewalStack>>

beforeAll(async () => {
  stack = await startRenewalStack()
})
afterAll(() => stack?.close())

const changed = ({ sealed }: Record<string, AttributeValue>): Record<string, AttributeValue> => ({
  sealed: { B: Uint8Array.from(sealed?.B ?? [], (byte, index) => (index === 60 ? byte ^ 1 : byte)) },
})
const takenAway = [expect.stringMatching(/^__Host-Http-session=;.*Max-Age=0/)]

test('a session whose claims were changed counts as none, and the cookie goes', async () => {
  const tab = await stack.signedIn()
  for (const session of await stack.records.all('session')) await stack.records.set(session, changed(session))
  const reply = await tab.fetch('/bff/session')
  expect([reply.status, reply.json()]).toEqual([200, { authenticated: false, login_url: '/bff/login' }])
  expect(reply.setCookies).toEqual(takenAway)
})

test('a grant whose tokens were changed ends with its session', async () => {
  const tab = await stack.signedIn()
  for (const grant of await stack.records.all('grant')) await stack.records.set(grant, changed(grant))
  const calls = stack.resourceServer.requests.length
  const reply = await tab.fetch('/api/demo/x')
  expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([401, 'session_required', takenAway])
  expect(stack.resourceServer.requests).toHaveLength(calls)
})

test('tokens that were copied from another grant do not open', async () => {
  const before = await stack.records.all('grant')
  const keys = new Set(before.map(({ sk }) => sk?.S))
  await stack.signedIn()
  const source = (await stack.records.all('grant')).find(({ sk }) => !keys.has(sk?.S))
  const tab = await stack.signedIn()
  for (const grant of await stack.records.all('grant')) {
    await stack.records.set(grant, { sealed: source?.['sealed'] ?? { NULL: true } })
  }
  expect((await tab.fetch('/api/demo/x')).json()).toMatchObject({ code: 'session_required' })
})

test('a renewal that brings a wrong ID token ends nothing: 503', async () => {
  const tab = await stack.signedIn()
  await stack.records.expireTokens()
  stack.authorizationServer.settings.idToken = { claims: { iss: 'https://other.example' } }
  const reply = await tab.fetch('/api/demo/x')
  stack.authorizationServer.settings.idToken = {}
  expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([503, 'authorization_server_unavailable', []])
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
})
