import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createSealer, parseSealingKeys } from '../../shared/seal.ts'
import { expectErrorPage, expectOurHeaders, loginCookies } from '../support/answers.ts'
import { navigation, signIn, startLogin } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** Signing out here and at the authorization server, from either end, with the demo authorization server's own pages and tokens. */

let stack: Awaited<ReturnType<typeof startDemoStack>>
const events: string[] = []
let tab: Browser

beforeAll(async () => {
  stack = await startDemoStack({
    demo: { onEvent: ({ name }) => events.push(name) },
    stage: (stage) => ({ ...stage, return_to_origins: ['https://other.example'] }),
  })
})

afterAll(() => stack.close())

beforeEach(async () => {
  tab = stack.newBrowser()
  await signIn(tab)
})

const isSignedIn = async (browser: Browser) => (await browser.fetch('/bff/session')).json()['authenticated']
const endServerSession = async (browser: Browser) =>
  browser.submit(await browser.navigate(`${stack.authorizationServer.issuer}/session/end`), 'Sign out')

describe('signing out at the authorization server', () => {
  test('ends the session here of the same browser, everywhere and at once, and no other', async () => {
    const elsewhere = stack.newBrowser()
    await signIn(elsewhere)
    const before = events.length
    await endServerSession(tab)
    expect(events.slice(before)).toContain('backchannel.success')
    expect(await isSignedIn(tab)).toBe(false)
    const calls = await Promise.all(Array.from({ length: 6 }, () => tab.newTab().fetch('/api/demo/whoami')))
    expect(calls.map(({ status }) => status)).toEqual(calls.map(() => 401))
    expect(await isSignedIn(elsewhere)).toBe(true)
    expect((await elsewhere.fetch('/api/demo/whoami')).status).toBe(200)
    expect((await signIn(tab)).url, 'and one may sign in again').toBe(`${stack.origin}/`)
    expect(await isSignedIn(tab)).toBe(true)
  })

  test('ends every session here that came of that one there', async () => {
    tab.cookies.forget(stack.origin)
    await signIn(tab)
    const before = await stack.items()
    await endServerSession(tab)
    const sessions = (items: typeof before) => items.filter(({ sk }) => sk?.S?.startsWith('S#')).length
    expect(sessions(await stack.items())).toBe(sessions(before) - 2)
  })
})

describe('signing out here', () => {
  const signOut = async (path: string) => tab.submit(await tab.navigate(path, { from: await tab.navigate('/') }))

  test('asks there too, tells it to sign out, and goes on to where the frontend wanted', async () => {
    const there = await signOut('/bff/logout?return_to=/goodbye')
    expect(await isSignedIn(tab), 'before anything is decided there').toBe(false)
    expect(there.visible).toContain('has signed you out. Sign out here too?')
    const back = await tab.submit(there, 'Sign out')
    expect(back.url).toBe(`${stack.origin}/goodbye`)
    expect((await startLogin(tab)).visible).toContain('Who are you?')
  })

  test('keeps the session there when the user wants that', async () => {
    const back = await tab.submit(await signOut('/bff/logout?return_to=/goodbye'), 'Stay signed in')
    expect(back.url).toBe(`${stack.origin}/goodbye`)
    expect((await startLogin(tab)).visible, 'it knows who it is').toContain('You are Ada Lovelace')
  })

  test('says so on a page of ours where the frontend wanted nothing', async () => {
    const back = await tab.submit(await signOut('/bff/logout'), 'Sign out')
    expect([back.status, back.url.startsWith(`${stack.origin}/bff/logout?`)]).toEqual([200, true])
    expect(back.visible).toContain('signed out')
    expectOurHeaders(back)
  })

  test('may end on another origin of the stage', async () => {
    const there = await signOut(`/bff/logout?return_to=${encodeURIComponent('https://other.example/bye')}`)
    const state = new URL(there.url).searchParams.get('state')
    const reply = await tab.raw({ path: `/bff/logout?state=${state}`, headers: navigation })
    expect([reply.status, reply.headers['location']]).toEqual([303, 'https://other.example/bye'])
  })
})

describe('the state that comes back', () => {
  const freshState = async (query = '?return_to=/goodbye'): Promise<string> => {
    const { logout_url: url } = (await tab.fetch(`/bff/logout${query}`, { method: 'POST' })).json()
    return new URL(String(url)).searchParams.get('state') ?? ''
  }
  const comeBackWith = (state: string) =>
    tab.raw({ path: `/bff/logout?${new URLSearchParams({ state }).toString()}`, headers: navigation })

  test('says nothing to whoever reads it', async () => {
    const text = Buffer.from(await freshState('?return_to=/secret-place'), 'base64url').toString('latin1')
    expect(text).not.toContain('secret-place')
  })

  test('may come again, from anywhere, and changes nothing: a session that began since stays', async () => {
    const state = await freshState()
    await signIn(tab)
    for (const browser of [tab, tab, stack.newBrowser()]) {
      const reply = await browser.raw({ path: `/bff/logout?state=${state}`, headers: navigation })
      expect([reply.status, reply.headers['location']]).toEqual([303, `${stack.origin}/goodbye`])
      expect(reply.setCookies).toEqual([])
    }
    expect(await isSignedIn(tab)).toBe(true)
  })

  const changed = (state: string, at: number): string => {
    const bytes = Buffer.from(state, 'base64url')
    bytes[at < 0 ? bytes.length + at : at] = (bytes.at(at) ?? 0) ^ 1
    return bytes.toString('base64url')
  }

  test.each<[string, (good: string) => string | Promise<string>]>([
    ['missing', () => ''],
    ['garbage', () => 'A'.repeat(80)],
    ['an URL', () => 'https://evil.example/'],
    ['changed in its first byte', (good) => changed(good, 0)],
    ['changed in its key id', (good) => changed(good, 3)],
    ['changed in its text', (good) => changed(good, 50)],
    ['changed in its last byte', (good) => changed(good, -1)],
    ['cut short', (good) => good.slice(0, -2)],
    ['made longer', (good) => `${good}AA`],
    [
      'a login of the same browser',
      async () => loginCookieOf(await tab.raw({ path: '/bff/login', headers: navigation })),
    ],
    ['sealed under another key', () => sealedUnder({ current: 'k1', keys: { k1: 'x'.repeat(64) } }, '/goodbye')],
  ])('is no way anywhere when it is %s', async (_, change) => {
    const reply = await comeBackWith(await change(await freshState()))
    expect(reply.status).toBe(200)
    expect(reply.headers).not.toHaveProperty('location')
    expect(reply.text).not.toContain('evil')
    expectOurHeaders(reply)
    expect(await isSignedIn(tab), 'signed out as before').toBe(false)
  })

  test('of another installation is no way anywhere', async () => {
    const other = await startStrictStack()
    const browser = other.newBrowser()
    await signIn(browser)
    const { logout_url: url } = (await browser.fetch('/bff/logout?return_to=/x', { method: 'POST' })).json()
    const reply = await comeBackWith(new URL(String(url)).searchParams.get('state') ?? '')
    expect([reply.status, reply.headers['location']]).toEqual([200, undefined])
    await other.close()
  })

  test('is a malformed request when there are two, or too much of it', async () => {
    const state = await freshState()
    for (const query of [`state=${state}&state=${state}`, `state=${'A'.repeat(4_100)}`]) {
      const reply = await tab.raw({ path: `/bff/logout?${query}`, headers: navigation })
      expectErrorPage(reply, 400, 'request_invalid')
    }
  })

  test('leads only to where one may return, even when it is sealed by us', async () => {
    const keys = parseSealingKeys(await stack.secretValue('SealingKeys'))
    expect((await comeBackWith(await sealedUnder(keys, '/fine'))).headers['location']).toBe(`${stack.origin}/fine`)
    for (const target of ['https://evil.example/', '//evil.example', '/\\evil.example', '/bff/login']) {
      expectErrorPage(await comeBackWith(await sealedUnder(keys, target)), 400, 'invalid_return_to')
    }
  })
})

const sealedUnder = async (keys: ReturnType<typeof parseSealingKeys>, target: string): Promise<string> => {
  const sealer = createSealer(() => Promise.resolve(keys))
  return Buffer.from(await sealer.seal('logout', [], JSON.stringify({ return_to: target }))).toString('base64url')
}

const loginCookieOf = ({ setCookies }: { setCookies: string[] }): string =>
  setCookies.find((line) => line.startsWith(loginCookies))?.split(/[=;]/)[1] ?? ''
