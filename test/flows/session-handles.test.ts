import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectProblem, sessionCookie, signedInRecords } from '../support/answers.ts'
import { authorize, comeBack, navigation, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser, Page } from '../support/user-agent.ts'

/** Whose session a browser has: never one that somebody planted, never two at once, never anything of the user before. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack()
})

afterAll(() => stack.close())

beforeEach(() => {
  tab = stack.newBrowser()
})

const ticketOf = (browser: Browser) => browser.cookies.get(stack.origin, sessionCookie) ?? ''
const plant = (browser: Browser, value: string) =>
  browser.cookies.set(`${sessionCookie}=${value}; Path=/; Secure; HttpOnly; SameSite=Strict`, stack.origin)
const shown = async (browser: Browser) => (await browser.fetch('/bff/session')).json()
const withCookie = (cookie: string, path = '/bff/session') =>
  tab.raw({
    path,
    headers: [['X-CSRF', '1'], ...(cookie === '' ? [] : [['Cookie', cookie] as [string, string]])],
    cookies: false,
  })
const signedInAs = async (user: string) => {
  const browser = stack.newBrowser()
  await signIn(browser, { user })
  return { browser, ticket: ticketOf(browser), grant: stack.authorizationServer.grants.at(-1) }
}

describe('a login', () => {
  test('never adopts a ticket that was planted, be it invented or of a real session', async () => {
    const mallory = await signedInAs('Grace')
    const invented = `${'A'.repeat(43)}.${'B'.repeat(43)}`
    for (const planted of [invented, mallory.ticket, 'nonsense']) {
      expect(plant(tab, planted)).toBe(true)
      await signIn(tab, { user: 'Ada' })
      const ticket = ticketOf(tab)
      for (const part of planted.split('.')) expect(ticket).not.toContain(part)
      expect(await shown(tab)).toMatchObject({ claims: { sub: 'ada' } })
    }
    expect((await withCookie(`${sessionCookie}=${invented}`)).json()['authenticated']).toBe(false)
    expect(await shown(mallory.browser), 'what was planted is over').toMatchObject({ authenticated: false })
    expect(mallory.grant?.live).toBe(false)
  })

  test('has a new handle every time, which the table does not know', async () => {
    const handles = new Set<string>()
    for (let login = 0; login < 5; login += 1) {
      await signIn(tab, { user: 'Ada' })
      const [account = '', handle = ''] = ticketOf(tab).split('.')
      expect([account, handle]).toEqual([expect.stringMatching(/^[\w-]{43}$/), expect.stringMatching(/^[\w-]{43}$/)])
      handles.add(handle)
    }
    expect(handles.size).toBe(5)
    const items = JSON.stringify(await stack.items())
    for (const handle of handles) expect(items).not.toContain(handle)
  })

  test('ends the session that the browser had, with its tokens, only when it succeeds', async () => {
    const { browser, ticket, grant } = await signedInAs('Ada')
    const pending = await authorize(browser, { login_hint: 'ada' })
    expect((await withCookie(`${sessionCookie}=${ticket}`)).json()['authenticated']).toBe(true)
    await comeBack(browser, pending)
    expect(ticketOf(browser)).not.toBe(ticket)
    expect((await withCookie(`${sessionCookie}=${ticket}`)).json()['authenticated']).toBe(false)
    expect(grant?.live).toBe(false)
  })

  test('as somebody else keeps nothing of the first user', async () => {
    const { browser, ticket, grant } = await signedInAs('Ada')
    const before = signedInRecords(await stack.items())
    await signIn(browser, { user: 'Grace' })
    const session = await shown(browser)
    expect(session['claims']).toEqual({ sub: 'grace', name: 'Grace' })
    expect((await browser.fetch('/api/demo/whoami')).json()).toMatchObject({ subject: 'grace' })
    expect((await browser.fetch('/bff/sessions')).json()['sessions']).toHaveLength(1)
    expect((await withCookie(`${sessionCookie}=${ticket}`)).json()['authenticated']).toBe(false)
    expect(grant?.live).toBe(false)
    expect(ticketOf(browser).split('.')[0]).not.toBe(ticket.split('.')[0])
    expect(signedInRecords(await stack.items())).toHaveLength(before.length)
  })

  test('in five tabs, finished in any order, leaves the last one finished and none of the others', async () => {
    const logins: (() => Promise<Page>)[] = []
    for (let login = 0; login < 5; login += 1) {
      const pending = await authorize(tab, { login_hint: 'ada' })
      logins.push(() => comeBack(tab, pending))
    }
    const first = stack.authorizationServer.grants.length - 5
    const order = [3, 0, 4, 1, 2]
    for (const index of order) expect((await logins[index]?.())?.status).toBe(200)
    expect((await shown(tab))['authenticated']).toBe(true)
    expect(stack.authorizationServer.grants[first + 2]?.live).toBe(true)
  })

  test('that comes back twice gives no second session', async () => {
    const pending = await authorize(tab, { login_hint: 'ada' })
    await comeBack(tab, pending)
    const ticket = ticketOf(tab)
    const tokens = stack.authorizationServer.tokenRequests('authorization_code').length
    expect((await comeBack(tab, pending)).status).toBe(400)
    expect([ticketOf(tab), stack.authorizationServer.tokenRequests('authorization_code').length]).toEqual([
      ticket,
      tokens,
    ])
    expect((await shown(tab))['authenticated']).toBe(true)
  })
})

describe('a ticket', () => {
  let ticket: string
  beforeEach(async () => {
    await signIn(tab, { user: 'Ada' })
    ticket = ticketOf(tab)
  })

  const goodAlone = async () => (await withCookie(`${sessionCookie}=${ticket}`)).json()['authenticated']

  test('counts alone, and among other cookies', async () => {
    for (const cookie of [
      `${sessionCookie}=${ticket}`,
      `a=b; ${sessionCookie}=${ticket}; c=d`,
      `a;${sessionCookie}=${ticket};`,
    ]) {
      expect((await withCookie(cookie)).json()['authenticated']).toBe(true)
    }
  })

  test.each<[string, (good: string) => string]>([
    ['beside another one', (good) => `${good}; ${sessionCookie}=${'A'.repeat(43)}.${'B'.repeat(43)}`],
    ['after another one', (good) => `${sessionCookie}=x; ${good}`],
    ['twice', (good) => `${good}; ${good}`],
    ['beside an empty one', (good) => `${good}; ${sessionCookie}=`],
    ['in quotes', (good) => good.replace('=', '="').concat('"')],
    ['percent-encoded', (good) => good.replace('.', '%2E')],
    ['with more behind it', (good) => `${good}.more`],
    ['with a space in it', (good) => good.replace('.', ' .')],
    ['under another case', (good) => good.replace('Http', 'http')],
    ['without its prefix', (good) => good.replace('__Host-Http-', '')],
    ['under __Secure-', (good) => good.replace('__Host-Http-', '__Secure-')],
    ['under __Host- alone', (good) => good.replace('__Host-Http-', '__Host-')],
    ['after a no-break space', (good) => `\u00A0${good}`],
    ['after an em space', (good) => `\u2003${good}`],
    ['after a byte order mark', (good) => `\uFEFF${good}`],
    ['nameless', (good) => `=${good}`],
    ['as a version', (good) => `$Version=1 ${good}`],
    ['joined by a comma', (good) => `a=b, ${good}`],
    ['in another order', (good) => good.replace(/=(.*)\.(.*)$/, '=$2.$1')],
    ['of another account', (good) => good.replace(/=.{43}/, `=${'A'.repeat(43)}`)],
    ['cut short', (good) => good.slice(0, -1)],
    [
      'with one character changed',
      (good) => good.slice(0, -2) + (good.at(-2) === 'A' ? 'B' : 'A') + (good.at(-1) ?? ''),
    ],
  ])('does not count %s, and stays good', async (_, change) => {
    const cookie = change(`${sessionCookie}=${ticket}`)
    const reply = await withCookie(cookie)
    expect([reply.status, reply.json()['authenticated']]).toEqual([200, false])
    expectProblem(await withCookie(cookie, '/api/demo/whoami'), 401, 'session_required')
    expect(await goodAlone()).toBe(true)
  })

  test('of many kilobytes, or beside many cookies, is refused before it is looked at', async () => {
    for (const cookie of [
      `${sessionCookie}=${'A'.repeat(8_400)}`,
      `${sessionCookie}=${ticket}; ${'a=b; '.repeat(1_800)}`,
    ]) {
      expect((await withCookie(cookie)).status).toBe(431)
    }
    expect(await goodAlone()).toBe(true)
  })

  test('counts nowhere but in its cookie', async () => {
    const [account = '', handle = ''] = ticket.split('.')
    const query = new URLSearchParams({ [sessionCookie]: ticket, session: ticket, sid: handle }).toString()
    const headers: [string, string][] = [
      ['Authorization', `Bearer ${handle}`],
      ['X-Session', ticket],
      [sessionCookie, ticket],
      ['X-Account', account],
    ]
    const reply = await tab.raw({ path: `/bff/session?${query}`, headers, cookies: false })
    expect(reply.json()['authenticated']).toBe(false)
    const posted = await tab.raw({
      path: '/bff/refresh',
      method: 'POST',
      headers: [['X-CSRF', '1'], ['Content-Type', 'application/x-www-form-urlencoded'], ...headers],
      body: query,
      cookies: false,
    })
    expectProblem(posted, 401, 'session_required')
  })

  test('that is dead is taken away, and none is taken away where there was none', async () => {
    await tab.fetch('/bff/logout', { method: 'POST' })
    const [dead, none] = [await withCookie(`${sessionCookie}=${ticket}`), await withCookie('a=b')]
    const cleared = `${sessionCookie}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0`
    expect([dead.setCookies, none.setCookies]).toEqual([[cleared], []])
  })

  test('is dead on every instance as soon as its user has signed out', async () => {
    await stack.stack.function('SessionFunction').warm(4)
    await tab.raw({ path: '/bff/session', headers: navigation })
    await tab.fetch('/bff/logout', { method: 'POST' })
    const replies = await Promise.all(Array.from({ length: 8 }, () => withCookie(`${sessionCookie}=${ticket}`)))
    expect(replies.map((reply) => reply.json()['authenticated'])).toEqual(replies.map(() => false))
  })
})
