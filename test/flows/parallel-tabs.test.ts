import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createSealer, parseSealingKeys } from '../../shared/seal.ts'
import { expectErrorPage, loginCookies, sessionCookie, signedInRecords } from '../support/answers.ts'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import * as faults from '../support/faults.ts'
import { authorize, comeBack, finishLogin, signIn, startLogin } from '../support/sign-in.ts'
import type { Pending } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Logins beside each other, after each other, twice, late, and mixed up. */

let second: Awaited<ReturnType<typeof startStrictAuthorizationServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  second = await startStrictAuthorizationServer({ resources: ['https://resource.example'] })
  stack = await startStrictStack({
    stage: (stage) => ({
      ...stage,
      default_provider: 'demo',
      providers: { ...stage.providers, second: { ...stage.providers['demo'], issuer: second.issuer } },
    }),
  })
})

beforeEach(() => {
  tab = stack.newBrowser()
})

afterAll(async () => {
  await stack.close()
  await second.close()
})

const tokenRequests = () => [stack.authorizationServer, second].map((server) => server.count('token'))
const session = async (browser = tab) => (await browser.fetch('/bff/session')).json()
const at = (pending: Pending, change: (callback: URL) => void): Pending => {
  const callback = new URL(pending.callback)
  change(callback)
  return { ...pending, callback }
}

describe('several tabs', () => {
  test('each end where they were to go, in whatever order they come back', async () => {
    const users = ['ada', 'grace', 'ada', 'grace', 'ada']
    const logins: (Pending & { user: string; path: string })[] = []
    for (const [index, user] of users.entries()) {
      const path = `/tab/${index}`
      logins.push({ ...(await authorize(tab, { return_to: path, login_hint: user })), user, path })
    }
    const order = logins.map((login) => ({ login, at: Math.random() })).toSorted((a, b) => a.at - b.at)
    for (const { login } of order) {
      expect((await comeBack(tab.newTab(), login)).url).toBe(stack.origin + login.path)
      expect(await session()).toMatchObject({ authenticated: true, claims: { sub: login.user } })
    }
    expect(tab.cookies.names(stack.origin)).toEqual([sessionCookie])
  })

  test('start and come back at the same moment', async () => {
    const tabs = [tab, tab.newTab(), tab.newTab(), tab.newTab()]
    const pages = await Promise.all(tabs.map((one, index) => signIn(one, { returnTo: `/tab/${index}` })))
    expect(pages.map(({ url }) => url)).toEqual(tabs.map((_, index) => `${stack.origin}/tab/${index}`))
    expect(await session()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    expect((await tab.fetch('/api/demo/whoami')).status).toBe(200)
  })

  test('go through the pages of the demo server side by side, one denied, one allowed', async () => {
    const demo = await startDemoStack()
    const one = demo.newBrowser()
    const other = one.newTab()
    const [first, late] = [await startLogin(one, { returnTo: '/one' }), await startLogin(other, { returnTo: '/other' })]
    expectErrorPage(await finishLogin(other, late, { consent: 'Deny' }), 403, 'login_denied')
    expect((await finishLogin(one, first, { user: 'Ada' })).url).toBe(`${demo.origin}/one`)
    expect(await session(one)).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    await demo.close()
  })
})

describe('a callback that comes again', () => {
  test('at the same moment redeems its code once, and one of them signs in', async () => {
    const pending = await authorize(tab, { return_to: '/here' })
    const before = stack.authorizationServer.count('token')
    const gate = faults.gate()
    stack.authorizationServer.always('token', gate.fault)
    const tabs = Array.from({ length: 6 }, () => tab.newTab())
    const coming = Promise.all(tabs.map((one) => comeBack(one, pending)))
    await gate.reached
    gate.release()
    const pages = await coming
    stack.authorizationServer.always('token', undefined)
    expect(stack.authorizationServer.count('token')).toBe(before + 1)
    const [signedIn, ...more] = pages.filter(({ url }) => url === `${stack.origin}/here`)
    expect([signedIn?.status, more]).toEqual([200, []])
    for (const page of pages) if (page !== signedIn) expectErrorPage(page, 400, 'login_invalid')
    expect(await session()).toMatchObject({ authenticated: true })
    expect((await tab.fetch('/api/demo/whoami')).status, 'its tokens live').toBe(200)
  })

  test('by going back, or by a reload, changes nothing', async () => {
    const pending = await authorize(tab, { return_to: '/here' })
    await comeBack(tab, pending)
    const ticket = tab.cookies.get(stack.origin, sessionCookie)
    const before = tokenRequests()
    for (const from of [pending.authorization.href, pending.callback.href, undefined]) {
      const page = await tab.navigate(pending.callback.href, { ...(from !== undefined && { from }) })
      expectErrorPage(page, 400, 'login_invalid')
      expect(page.setCookies).toEqual([])
    }
    expect(tokenRequests()).toEqual(before)
    expect(tab.cookies.get(stack.origin, sessionCookie)).toBe(ticket)
    expect(await session()).toMatchObject({ authenticated: true })
  })

  test('with its login cookie restored is over all the same', async () => {
    const pending = await authorize(tab)
    const [kept] = tab.cookies.received
    await comeBack(tab, pending)
    tab.cookies.set(kept?.line ?? '', stack.origin)
    const before = tokenRequests()
    expectErrorPage(await comeBack(tab, pending), 400, 'login_invalid')
    expect(tokenRequests()).toEqual(before)
  })
})

describe('a login that took too long', () => {
  test('is over when the browser has forgotten it', async () => {
    const pending = await authorize(tab, { return_to: '/here' })
    tab.cookies.forget(stack.origin)
    const page = await comeBack(tab, pending)
    expectErrorPage(page, 400, 'login_invalid')
    expect((await tab.click(page, 'Sign in again')).url).toBe(`${stack.origin}/`)
  })

  test('is over when its time is, also where the browser keeps it', async () => {
    const sealer = createSealer(async () => parseSealingKeys(await stack.secretValue('SealingKeys')))
    const pending = await authorize(tab)
    const state = pending.callback.searchParams.get('state') ?? ''
    const [kept] = tab.cookies.received
    const before = tokenRequests()
    const meets = async (secondsFromNow: number): Promise<void> => {
      const text = await sealer.open('login', [state], Buffer.from(kept?.value ?? '', 'base64url'))
      const login = { ...JSON.parse(text ?? '{}'), expires: Math.floor(Date.now() / 1_000) + secondsFromNow }
      const sealed = Buffer.from(await sealer.seal('login', [state], JSON.stringify(login))).toString('base64url')
      tab.cookies.set(`${kept?.name}=${sealed}; Path=/; Secure; HttpOnly; SameSite=Lax`, stack.origin)
    }
    await meets(0)
    expectErrorPage(await comeBack(tab, pending), 400, 'login_invalid')
    expect(tokenRequests()).toEqual(before)
    await meets(60)
    expect((await comeBack(tab, pending)).url).toBe(`${stack.origin}/`)
  })
})

describe('a login of somebody else', () => {
  test('cannot be finished in a browser that did not start it', async () => {
    const attacker = stack.newBrowser()
    const pending = await authorize(attacker)
    const before = tokenRequests()
    expectErrorPage(await comeBack(tab, pending), 400, 'login_invalid')
    await authorize(tab)
    expectErrorPage(await comeBack(tab, pending), 400, 'login_invalid')
    expect(tokenRequests()).toEqual(before)
    expect(await session()).toMatchObject({ authenticated: false })
    expect((await comeBack(attacker, pending)).status).toBe(200)
  })

  test('gives its code to no other login: the verifier is not its', async () => {
    const victim = stack.newBrowser()
    const stolen = (await authorize(victim, { login_hint: 'grace' })).callback.searchParams.get('code') ?? ''
    const mine = await authorize(tab)
    const records = signedInRecords(await stack.items())
    const page = await comeBack(
      tab,
      at(mine, ({ searchParams }) => searchParams.set('code', stolen)),
    )
    expectErrorPage(page, 400, 'login_invalid')
    expect(signedInRecords(await stack.items())).toEqual(records)
  })
})

describe('two providers of one stage', () => {
  test('sign in side by side, each at its own callback', async () => {
    const one = await authorize(tab, { provider: 'demo', return_to: '/one' })
    const two = await authorize(tab, { provider: 'second', return_to: '/two', login_hint: 'grace' })
    expect([one, two].map(({ callback }) => callback.pathname)).toEqual(['/bff/callback/demo', '/bff/callback/second'])
    expect((await comeBack(tab, two)).url).toBe(`${stack.origin}/two`)
    expect(await session()).toMatchObject({ provider: 'second', claims: { sub: 'grace' } })
    expect((await comeBack(tab, one)).url).toBe(`${stack.origin}/one`)
    expect(await session()).toMatchObject({ provider: 'demo', claims: { sub: 'ada' } })
  })

  test('have accounts of their own, though their users are called the same', async () => {
    const other = stack.newBrowser()
    await signIn(tab, { provider: 'demo' })
    await signIn(other, { provider: 'second' })
    const [mine, theirs] = [tab, other].map(({ cookies }) => cookies.get(stack.origin, sessionCookie)?.split('.')[0])
    expect(mine).not.toBe(theirs)
    const again = stack.newBrowser()
    await signIn(again, { provider: 'demo' })
    expect(again.cookies.get(stack.origin, sessionCookie)?.split('.')[0]).toBe(mine)
  })

  test.each<[string, (callback: URL) => void]>([
    ['the callback of the other one', (callback) => (callback.pathname = '/bff/callback/second')],
    ['the callback of nobody', (callback) => (callback.pathname = '/bff/callback/nobody')],
    [
      'the callback and the issuer of the other one',
      (callback) => {
        callback.pathname = '/bff/callback/second'
        callback.searchParams.set('iss', second.issuer)
      },
    ],
  ])('never send a code by %s, and the login stays what it was', async (_, change) => {
    const pending = await authorize(tab, { provider: 'demo', return_to: '/here' })
    const before = tokenRequests()
    expectErrorPage(await comeBack(tab, at(pending, change)), 400, 'login_invalid')
    expect(tokenRequests()).toEqual(before)
    expect(tab.cookies.names(stack.origin)).toEqual([expect.stringContaining(loginCookies)])
    expect((await comeBack(tab, pending)).url).toBe(`${stack.origin}/here`)
  })

  test('never send a code that the other one issued, nor to it', async () => {
    const one = await authorize(tab, { provider: 'demo' })
    const two = await authorize(tab, { provider: 'second' })
    const code = (pending: Pending) => pending.callback.searchParams.get('code') ?? ''
    const before = tokenRequests()
    const mixed = at(two, ({ searchParams }) => {
      searchParams.set('code', code(one))
      searchParams.set('iss', stack.authorizationServer.issuer)
    })
    expectErrorPage(await comeBack(tab, mixed), 400, 'login_invalid')
    expect(tokenRequests()).toEqual(before)
    expectErrorPage(await comeBack(tab, two), 400, 'login_invalid')
    const swapped = at(one, ({ searchParams }) => searchParams.set('code', code(two)))
    expectErrorPage(await comeBack(tab, swapped), 400, 'login_invalid')
    expect(second.count('token')).toBe(before[1])
    expect(await session()).toMatchObject({ authenticated: false })
  })
})
