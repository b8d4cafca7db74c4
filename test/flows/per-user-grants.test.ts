import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sessionCookie, signedInRecords } from '../support/answers.ts'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { leaksOf } from '../support/canaries.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startCoderStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/**
 * A server with one live grant a user and client, as Coder is: the sessions of a user share it. What happens when they meet each other on
 * the way is in `per-user-races`.
 */

let stack: Awaited<ReturnType<typeof startCoderStack>>
let strict: Awaited<ReturnType<typeof startStrictAuthorizationServer>>
let records: ReturnType<typeof openRecords>
let one: Browser
let other: Browser

beforeAll(async () => {
  strict = await startStrictAuthorizationServer()
  stack = await startCoderStack({
    stage: (stage) => ({
      ...stage,
      providers: { ...stage.providers, strict: { issuer: strict.issuer } },
      apis: { ...stage.apis, strict: { provider: 'strict', target: strict.issuer } },
    }),
  })
  records = openRecords(stack.stack)
})

beforeEach(() => {
  one = stack.newBrowser()
  other = stack.newBrowser()
})

afterAll(async () => {
  records.close()
  await stack.close()
  await strict.close()
})

const coder = () => stack.authorizationServer
const revocations = () => coder().count('revoke')
const livePairs = (username: string) => {
  const id = coder().users.find((user) => user.username === username)?.id
  return coder()
    .pairs()
    .filter(({ live, userId }) => live && userId === id).length
}
const refreshes = () => coder().tokenRequests('refresh_token').length
/** Status and user of a call at Coder. */
const whoami = async (tab: Browser) => {
  const reply = await tab.fetch('/api/demo/users/me')
  return reply.status === 200 ? reply.json()['username'] : reply.status
}
const signOut = (tab: Browser) => tab.fetch('/bff/logout', { method: 'POST' })
const isSignedIn = async (tab: Browser) => (await tab.fetch('/bff/session')).json()['authenticated']

/** Signs in at Coder anew, as somebody else. */
const signInAs = (tab: Browser, user: string) => {
  tab.cookies.forget(coder().issuer)
  return signIn(tab, { user })
}

const bothSignIn = async (user = 'Ada') => {
  await signIn(one, { user })
  await signIn(other, { user })
}

describe('two browsers of one user', () => {
  test('share one grant: the second sign-in replaces the tokens for both, and neither notices', async () => {
    await signIn(one, { user: 'Ada' })
    const before = refreshes()
    expect(await whoami(one)).toBe('ada')
    await records.age('grant', { placed_ms: 0 })
    await signIn(other, { user: 'Ada' })
    expect(signedInRecords(await stack.items()).filter((key) => key.startsWith('G#'))).toEqual(['G#demo'])
    expect(livePairs('ada')).toBe(1)
    expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['ada', 'ada'])
    expect(refreshes(), 'no renewal was needed').toBe(before)
    await Promise.all([signOut(one), signOut(other)])
  })

  test('renew it once for both', async () => {
    await bothSignIn()
    const before = refreshes()
    await records.expireTokens()
    expect(await whoami(one)).toBe('ada')
    expect(await whoami(other)).toBe('ada')
    expect(refreshes()).toBe(before + 1)
    await Promise.all([signOut(one), signOut(other)])
  })

  test('sign out one by one: the first keeps the other signed in, the last one ends the grant', async () => {
    await bothSignIn()
    const before = revocations()
    expect((await signOut(one)).status).toBe(200)
    expect(revocations()).toBe(before)
    expect(await whoami(other)).toBe('ada')
    expect(await isSignedIn(one)).toBe(false)
    expect((await signOut(other)).status).toBe(200)
    expect(revocations()).toBe(before + 1)
    expect(coder().pairs().at(-1)).toMatchObject({ live: false, endedBy: 'revocation' })
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('sign out at the same moment, and the grant is revoked once', async () => {
    for (let round = 0; round < 6; round += 1) {
      await bothSignIn()
      const before = revocations()
      const replies = await Promise.all([signOut(one), signOut(other)])
      expect(replies.map(({ status }) => status)).toEqual([200, 200])
      await stack.stack.backgroundIsIdle()
      expect(revocations()).toBe(before + 1)
      expect(livePairs('ada')).toBe(0)
      expect(signedInRecords(await stack.items())).toEqual([])
    }
  })

  test('are both signed out where an operator ends them, and what an ending left behind is completed', async () => {
    const subject = String(coder().users.find((user) => user.username === 'ada')?.id)
    const order = { provider: 'demo', of: { subject }, end: true }
    await bothSignIn()
    const before = revocations()
    await stack.stack.invoke('OperatorSessions', order)
    expect([await whoami(one), await whoami(other), revocations() - before, livePairs('ada')]).toEqual([401, 401, 1, 0])
    await bothSignIn()
    for (const record of await records.all('session')) await records.remove(record)
    expect(livePairs('ada')).toBe(1)
    await stack.stack.invoke('OperatorSessions', order)
    expect([livePairs('ada'), signedInRecords(await stack.items())]).toEqual([0, []])
  })

  test('have left a grant behind, and a session of the same user that has one of its own ends: both are gone', async () => {
    const subject = String(coder().users.find((user) => user.username === 'ada')?.id)
    await bothSignIn()
    const [grant = {}] = await records.all('grant')
    const [session = {}, ...sessions] = await records.all('session')
    for (const record of [session, ...sessions]) await records.remove(record)
    // As of a client at the same server whose sessions share nothing.
    const name = 'x'.repeat(43)
    await stack.putItem({ ...grant, sk: { S: `G#${name}` } })
    await stack.putItem({ ...session, sk: { S: `S#${name}` }, grant: { S: `G#${name}` } })
    await stack.stack.invoke('OperatorSessions', { provider: 'demo', of: { subject }, end: true })
    expect([livePairs('ada'), signedInRecords(await stack.items())]).toEqual([0, []])
  })

  test('are both signed out where one ends every session', async () => {
    await bothSignIn()
    const before = revocations()
    const reply = await one.fetch('/bff/sessions?all=true', { method: 'DELETE' })
    expect(reply.json()).toEqual({ ended: 2 })
    expect(await Promise.all([isSignedIn(one), isSignedIn(other)])).toEqual([false, false])
    expect([revocations(), livePairs('ada')]).toEqual([before + 1, 0])
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('go on where one ends the others', async () => {
    await bothSignIn()
    const before = revocations()
    expect((await one.fetch('/bff/sessions', { method: 'DELETE' })).json()).toEqual({ ended: 1 })
    expect(await isSignedIn(other)).toBe(false)
    expect(await whoami(one)).toBe('ada')
    expect(revocations()).toBe(before)
    await signOut(one)
  })

  test('are both signed out once the server ends the grant', async () => {
    await bothSignIn()
    coder().endGrants({})
    const ended = await one.fetch('/api/demo/users/me')
    expect(ended.status).toBe(401)
    expect(one.cookies.names(stack.origin)).not.toContain(sessionCookie)
    expect(await isSignedIn(other)).toBe(false)
    expect(signedInRecords(await stack.items())).toEqual([])
  })
})

test('a session past its end no longer holds the grant', async () => {
  await bothSignIn()
  await records.age('session', { idle_end: 1 })
  const third = stack.newBrowser()
  await signIn(third, { user: 'Ada' })
  const before = revocations()
  await signOut(third)
  expect([revocations(), livePairs('ada')]).toEqual([before + 1, 0])
})

test('signing in again in the same browser keeps the other one and the grant', async () => {
  await bothSignIn()
  const before = revocations()
  await signIn(one, { user: 'Ada' })
  expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['ada', 'ada'])
  expect(revocations()).toBe(before)
  await signInAs(one, 'Grace')
  expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['grace', 'ada'])
  expect(revocations()).toBe(before)
  await signInAs(other, 'Grace')
  expect([revocations(), livePairs('ada'), livePairs('grace')], 'nobody is Ada any more').toEqual([before + 1, 0, 1])
  await Promise.all([signOut(one), signOut(other)])
})

test('users do not share anything', async () => {
  await signIn(one, { user: 'Ada' })
  await signIn(other, { user: 'Grace' })
  expect([livePairs('ada'), livePairs('grace')]).toEqual([1, 1])
  await signOut(one)
  expect(await whoami(other)).toBe('grace')
  await signOut(other)
})

test('a provider whose sessions have grants of their own goes on beside one whose sessions share', async () => {
  await bothSignIn()
  const third = stack.newBrowser()
  const fourth = stack.newBrowser()
  await signIn(third, { provider: 'strict' })
  await signIn(fourth, { provider: 'strict' })
  const keys = signedInRecords(await stack.items()).filter((key) => key.startsWith('G#'))
  expect([keys.length, keys.includes('G#demo'), keys.includes('G#strict')]).toEqual([3, true, false])
  const subject = async (tab: Browser) => (await tab.fetch('/api/strict/userinfo')).json()['sub']
  expect(await Promise.all([subject(third), subject(fourth)])).toEqual(['ada', 'ada'])
  await signOut(third)
  expect([strict.count('revoke'), strict.grants.filter(({ live }) => live).length]).toEqual([1, 1])
  expect(await Promise.all([subject(fourth), whoami(one), whoami(other)])).toEqual(['ada', 'ada', 'ada'])
  expect((await fourth.fetch('/api/demo/users/me')).status, 'signed in elsewhere').toBe(401)
  const before = revocations()
  await Promise.all([signOut(one), signOut(other)])
  expect([revocations(), await subject(fourth)]).toEqual([before + 1, 'ada'])
  await signOut(fourth)
})

test('no secret of the server shows in logs or records', async () => {
  await bothSignIn()
  const places = { logs: stack.logs, items: await stack.items() }
  expect(leaksOf([...coder().secrets, ...strict.secrets], places)).toEqual([])
})
