import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAwsFaults, failing, throttled } from '../support/aws-faults.ts'
import { expectErrorPage, expectProblem, signedInRecords } from '../support/answers.ts'
import * as faults from '../support/faults.ts'
import { logoutToken, sendLogoutToken } from '../support/logout-tokens.ts'
import { openRecords } from '../support/records.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Logout tokens that meet a login, a renewal, an outage, or come in numbers. */

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>

beforeAll(async () => {
  stack = await startStrictStack({ strict: { backchannelLogout: true }, maxInstances: 4, gate: aws.gate })
  records = openRecords(stack.stack)
})

afterAll(async () => {
  records.close()
  await stack.close()
})

const newestGrant = () => stack.authorizationServer.grants.at(-1)
const isSignedIn = async (tab: Browser) => (await tab.fetch('/bff/session')).json()['authenticated']
const sendFor = async (claims: Record<string, unknown>) =>
  (await sendLogoutToken(stack.origin, await logoutToken(stack.authorizationServer, claims))).status
const reasons = () => stack.logs.flatMap(({ line }) => /"reason":"(\w+)"/.exec(line)?.[1] ?? [])

test('keys that cannot be had are told to the server, and its repetition ends the session', async () => {
  const tab = stack.newBrowser()
  await signIn(tab, { user: 'Ada' })
  const token = await logoutToken(stack.authorizationServer, { sid: newestGrant()?.id })
  stack.authorizationServer.always('jwks', faults.reset)
  expectProblem(await sendLogoutToken(stack.origin, token), 503, 'authorization_server_unavailable')
  stack.authorizationServer.always('jwks', undefined)
  expect(await isSignedIn(tab)).toBe(true)
  expect((await sendLogoutToken(stack.origin, token)).status).toBe(200)
  expect(await isSignedIn(tab)).toBe(false)
})

describe('between authorization and callback', () => {
  const namings: [string, () => Record<string, unknown>][] = [
    ['sid', () => ({ sid: newestGrant()?.id })],
    ['sub', () => ({ sub: 'ada' })],
  ]

  test.each(namings)('a logout by %s wins: no session begins, and the tokens go back', async (_, claims) => {
    const tab = stack.newBrowser()
    const pending = await authorize(tab, { login_hint: 'ada' })
    expect(await sendFor(claims())).toBe(200)
    const before = stack.authorizationServer.count('revoke')
    const page = await comeBack(tab, pending)
    expectErrorPage(page, 400, 'login_invalid')
    expect(reasons()).toContain('login_overtaken')
    expect(signedInRecords(await stack.items())).toEqual([])
    expect(stack.authorizationServer.count('revoke')).toBe(before + 1)
    expect(newestGrant()?.live).toBe(false)
    await tab.click(page, 'Sign in again')
    expect(await isSignedIn(tab), 'a new login succeeds').toBe(true)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })

  test.each(namings)('a logout by %s wins while the code is being redeemed, too', async (_, claims) => {
    const tab = stack.newBrowser()
    const pending = await authorize(tab, { login_hint: 'ada' })
    const held = faults.gate({ after: true })
    stack.authorizationServer.plan('token', held.fault)
    const back = comeBack(tab, pending)
    await held.reached
    expect(await sendFor(claims())).toBe(200)
    held.release()
    expectErrorPage(await back, 400, 'login_invalid')
    expect(newestGrant()?.live).toBe(false)
    expect(signedInRecords(await stack.items())).toEqual([])
  })

  test('the logout of somebody else, or of another session of theirs, is no obstacle', async () => {
    const tab = stack.newBrowser()
    const pending = await authorize(tab, { login_hint: 'ada' })
    expect(await sendFor({ sub: 'grace' })).toBe(200)
    expect(await sendFor({ sid: 'another', sub: 'ada' })).toBe(200)
    await comeBack(tab, pending)
    expect(await isSignedIn(tab)).toBe(true)
    await tab.fetch('/bff/logout', { method: 'POST' })
  })
})

describe('during a renewal', () => {
  test.each([
    ['the server has not answered', false],
    ['the server has answered', true],
  ])('a logout wins while %s: new tokens go back, nothing revives', async (_, after) => {
    const tab = stack.newBrowser()
    await signIn(tab, { user: 'Ada' })
    const grant = newestGrant()
    await records.expireTokens()
    const held = faults.gate({ after })
    stack.authorizationServer.plan('token', held.fault)
    const call = tab.fetch('/api/demo/whoami')
    await held.reached
    expect(await sendFor({ sid: grant?.id })).toBe(200)
    held.release()
    expectProblem(await call, 401, 'session_required')
    await stack.stack.backgroundIsIdle()
    expect(grant?.live).toBe(false)
    expect(signedInRecords(await stack.items())).toEqual([])
    expect(await isSignedIn(tab)).toBe(false)
  })
})

describe('an outage', () => {
  test.each(['BatchGetItem', 'BatchWriteItem', 'Query', 'DeleteItem'])(
    'of DynamoDB at %s is told to the server, and its repetition ends the session',
    async (operation) => {
      for (const fault of [failing, throttled]) {
        const tab = stack.newBrowser()
        await signIn(tab, { user: 'Ada' })
        const token = await logoutToken(stack.authorizationServer, { sid: newestGrant()?.id })
        aws.always(`dynamodb:${operation}`, fault)
        const reply = await sendLogoutToken(stack.origin, token)
        aws.always(`dynamodb:${operation}`, undefined)
        expectProblem(reply, 503, 'store_unavailable')
        expect(reply.headers['retry-after']).toMatch(/^[1-9]$/)
        expect((await sendLogoutToken(stack.origin, token)).status).toBe(200)
        expect(await isSignedIn(tab)).toBe(false)
        await stack.stack.backgroundIsIdle()
        expect(newestGrant()?.live).toBe(false)
        expect(signedInRecords(await stack.items())).toEqual([])
      }
    },
  )

  test('of the revocation endpoint does not keep the session, and the revocation is made up for', async () => {
    const tab = stack.newBrowser()
    await signIn(tab, { user: 'Ada' })
    stack.authorizationServer.plan('revoke', faults.reset, faults.reset)
    expect(await sendFor({ sid: newestGrant()?.id })).toBe(200)
    expect(await isSignedIn(tab)).toBe(false)
    await stack.stack.backgroundIsIdle()
    expect([stack.authorizationServer.unmet(), newestGrant()?.live]).toEqual([[], false])
  })
})

test('a thousand keys that nobody knows lead to a few questions for the keys', async () => {
  const before = stack.authorizationServer.count('jwks')
  const forged = Array.from({ length: 1_000 }, () =>
    logoutToken(stack.authorizationServer, { sub: 'ada' }, { as: 'unknown kid' }),
  )
  const statuses = new Set<number>()
  const send = async (): Promise<void> => {
    for (let token = forged.pop(); token; token = forged.pop()) {
      statuses.add((await sendLogoutToken(stack.origin, await token)).status)
    }
  }
  await Promise.all(Array.from({ length: 8 }, send))
  expect([...statuses]).toEqual([400])
  expect(stack.authorizationServer.count('jwks') - before).toBeLessThanOrEqual(8)
}, 120_000)
