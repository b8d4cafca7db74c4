import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loginCookies, sessionCookie, signedInRecords } from '../support/answers.ts'
import { fc } from '../support/seeded.ts'
import { authorize, comeBack, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** The two cookies: how they are set, found, refused and taken away (RFC 6265bis, RFC 10017 section 6.1.3.2). */

const vectors: { cookie_header: { value: string }[] } = JSON.parse(
  await readFile(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'),
)

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser
let ticket: string

beforeAll(async () => {
  stack = await startStrictStack()
  tab = stack.newBrowser()
  await signIn(tab)
  ticket = tab.cookies.get(stack.origin, sessionCookie) ?? ''
})

afterAll(() => stack.close())

/** What a request with exactly this `Cookie` header is told. */
const asked = (cookie: string | undefined, path = '/bff/session') =>
  tab.raw({
    path,
    cookies: false,
    headers:
      cookie === undefined
        ? [['X-CSRF', '1']]
        : [
            ['X-CSRF', '1'],
            ['Cookie', cookie],
          ],
  })

const isIn = async (cookie: string): Promise<unknown> => (await asked(cookie)).json()['authenticated']

describe('as they are set', () => {
  test('the session cookie goes to this origin alone, never from another site, and is a ticket only', async () => {
    const browser = stack.newBrowser()
    const { hops } = await signIn(browser)
    const lines = hops.flatMap(({ setCookies }) => setCookies).filter((line) => line.startsWith(sessionCookie))
    expect(lines).toEqual([
      expect.stringMatching(
        /^__Host-Http-session=[\w-]{43}\.[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200$/,
      ),
    ])
    expect(lines.join().length).toBeLessThan(200)
    expect(browser.cookies.received.every(({ stored }) => stored)).toBe(true)
  })

  test('a login cookie comes back from another site, for ten minutes, sealed, and goes with its login', async () => {
    const browser = stack.newBrowser()
    const pending = await authorize(browser)
    const [login] = browser.cookies.received
    expect(login?.line).toMatch(
      /^__Host-Http-login\.[\w-]+=[\w-]+; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=600$/,
    )
    const { setCookies } = (await comeBack(browser, pending)).hops[0] ?? { setCookies: [] }
    expect(setCookies).toContain(`${login?.name}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0`)
    expect(browser.cookies.names(stack.origin)).toEqual([sessionCookie])
  })

  test('the session cookie is taken away with the attributes it was set with, and only where there was one', async () => {
    const browser = stack.newBrowser()
    await signIn(browser)
    const { setCookies } = await browser.fetch('/bff/logout', { method: 'POST' })
    const removal = `${sessionCookie}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0`
    expect(setCookies).toEqual([removal])
    expect(browser.cookies.names(stack.origin)).toEqual([])
    const dead = await asked(`${sessionCookie}=${'A'.repeat(43)}.${'B'.repeat(43)}`)
    expect(dead.setCookies).toEqual([removal])
    expect((await asked(undefined)).setCookies).toEqual([])
    expect((await asked('theme=dark')).setCookies).toEqual([])
    expect((await asked(undefined, '/api/demo/whoami')).setCookies).toEqual([])
  })
})

describe('a Cookie header that is not ours', () => {
  const adapted = (value: string, name: string): string =>
    value.replaceAll(/__Host-Http-s\b/g, name).replaceAll('__host-http-s', name.toLowerCase())
  const spoiled = (value: string): string =>
    adapted(value, sessionCookie)
      .replaceAll('%41', `%${ticket.charCodeAt(0).toString(16)}${ticket.slice(1)}`)
      .replaceAll(/(?<==|")(A|B|evil)(?="|;|$)/g, ticket)

  test.each(vectors.cookie_header.map(({ value }) => [JSON.stringify(value), value]))('%s', async (_, value) => {
    expect(await isIn(adapted(value, sessionCookie))).toBe(false)
    // RFC 6265 knows no $Version: it is a cookie like any other, and does no harm to ours beside it.
    expect(await isIn(spoiled(value))).toBe(value.startsWith('$Version'))
  })

  test.each<[string, (name: string, live: string) => string]>([
    ['without prefix', (_, live) => `session=${live}; Http-session=${live}; s=${live}`],
    ['with another prefix', (_, live) => `__Secure-session=${live}; __Host-session=${live}; __Http-session=${live}`],
    ['in another case', (name, live) => `${name.toLowerCase()}=${live}; ${name.toUpperCase()}=${live}`],
    ['with something behind the name', (name, live) => `${name}2=${live}; ${name}.=${live}`],
    ['with something before the name', (name, live) => `x${name}=${live}; -${name}=${live}`],
    ['twice, with the same value', (name, live) => `${name}=${live}; ${name}=${live}`],
    ['twice, once empty', (name, live) => `${name}=; ${name}=${live}`],
    ['as a value without a name', (name, live) => `=${name}=${live}`],
    ['as a name without a value', (name) => name],
    ['quoted', (name, live) => `${name}="${live}"`],
    ['in a quoted value of another', (name, live) => `a="b; ${name}=${live}"x; c="; ${name}=${live}"`],
    ['encoded', (name, live) => `${name}=${encodeURIComponent(live).replace('.', '%2E')}`],
    ['with more behind it', (name, live) => `${name}=${live}.x`],
    ['with a character more', (name, live) => `${name}=${live}A`],
    ['with a character less', (name, live) => `${name}=${live.slice(0, -1)}`],
    ['of another handle', (name, live) => `${name}=${live.split('.')[0]}.${'A'.repeat(43)}`],
    ['of another account', (name, live) => `${name}=${'A'.repeat(43)}.${live.split('.')[1]}`],
    ['turned around', (name, live) => `${name}=${live.split('.').toReversed().join('.')}`],
    ['with its last bits changed', (name, live) => `${name}=${live.slice(0, -1)}${live.endsWith('A') ? 'B' : 'A'}`],
    ['with the key of its record', (name, live) => `${name}=S#${live}`],
  ])('%s', async (_, write) => {
    expect(await isIn(write(sessionCookie, ticket))).toBe(false)
    expect(await isIn(`a=b; ${sessionCookie}=${ticket}; c="d e"`), 'the session is still there').toBe(true)
  })

  test('white space of Unicode before the name, as API Gateway may hand it on', async () => {
    for (const space of ['\u2000', '\u3000', '\u00a0', '\ufeff', '\u2028', '\u0085', '\v', '\f']) {
      const reply = await stack.stack.invoke('SessionFunction', {
        version: '2.0',
        rawPath: '/bff/session',
        rawQueryString: '',
        headers: {},
        cookies: [`a=b`, `${space}${sessionCookie}=${ticket}`],
        requestContext: { requestId: 'a-request', http: { method: 'GET', path: '/bff/session' } },
        isBase64Encoded: false,
      })
      expect(reply).toMatchObject({ statusCode: 200, body: expect.stringContaining('"authenticated":false') })
    }
  })

  test('a ticket in a query, another header or a body opens nothing', async () => {
    const named = `${sessionCookie}=${ticket}`
    for (const path of [`/bff/session?${named}`, `/bff/session?session=${ticket}`]) {
      expect((await asked(undefined, path)).json()).toMatchObject({ authenticated: false })
    }
    for (const name of ['Authorization', 'X-Session', 'Cookie2', 'X-Cookie', 'X-Forwarded-Cookie']) {
      const reply = await tab.raw({ path: '/bff/session', cookies: false, headers: [[name, named]] })
      expect(reply.json()).toMatchObject({ authenticated: false })
    }
  })

  test.each([
    ['one of 9 KB', () => `a=${'b'.repeat(9_000)}`],
    ['180 of them', () => Array.from({ length: 180 }, (_, index) => `cookie-${index}=${'v'.repeat(40)}`).join('; ')],
    ['16 KB', () => `a=${'b'.repeat(16_000)}`],
  ])('%s is too much, and does no harm', async (_, more) => {
    expect((await asked(`${sessionCookie}=${ticket}; ${more()}`)).status).toBe(431)
    expect(await isIn(`${sessionCookie}=${ticket}`)).toBe(true)
  })

  test('whatever it is, it is read without a fault', async () => {
    const piece = fc.oneof(
      fc.constantFrom(
        sessionCookie,
        '=',
        ';',
        '; ',
        ' ',
        '"',
        ',',
        '.',
        '$Path',
        '%00',
        loginCookies,
        '\t',
        'a',
        'ü',
        '\u2000',
      ),
      fc.string({ unit: 'binary', maxLength: 6 }).map((text) => text.replaceAll(/\p{Cc}/gu, '').toWellFormed()),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 20 }), async (pieces) => {
        const reply = await asked(pieces.join(''))
        expect([reply.status, reply.json()['authenticated']]).toEqual([200, false])
      }),
      { numRuns: 150 },
    )
  })
})

describe('login cookies', () => {
  const names = (browser: Browser) =>
    browser.cookies.names(stack.origin).filter((name) => name.startsWith(loginCookies))

  test('five are kept; a sixth login takes the place of the oldest', async () => {
    const browser = stack.newBrowser()
    const first = await authorize(browser)
    const rest = []
    for (let count = 2; count <= 5; count += 1) rest.push(await authorize(browser))
    expect(names(browser)).toHaveLength(5)
    await authorize(browser)
    expect(names(browser)).toHaveLength(5)
    for (const pending of rest.slice(-2)) expect((await comeBack(browser, pending)).url).toBe(`${stack.origin}/`)
    expect((await comeBack(browser, first)).visible).toContain('login_invalid')
  })

  test('however long the way back is, they never fill the header', async () => {
    const browser = stack.newBrowser()
    await signIn(browser)
    const longest = `/${'a'.repeat(2_000)}`
    for (let count = 1; count <= 4; count += 1) {
      await authorize(browser, { return_to: longest })
      expect(browser.cookies.received.at(-1)).toMatchObject({ stored: true })
      expect((await browser.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
    }
    const last = await authorize(browser, { return_to: longest })
    expect((await comeBack(browser, last)).url).toBe(stack.origin + longest)
  })

  test('one that was changed, emptied or doubled belongs to no login', async () => {
    for (const spoil of [
      // Not the last character, some of whose bits may say nothing.
      (value: string) => `${value.slice(0, -4)}${value.at(-4) === 'A' ? 'B' : 'A'}${value.slice(-3)}`,
      (value: string) => `B${value.slice(1)}`,
      (value: string) => value.slice(0, 40),
      () => '',
      () => 'not base64url!',
      (value: string, name: string) => `${value}; ${name}=${value}`,
    ]) {
      const browser = stack.newBrowser()
      const { callback } = await authorize(browser)
      const [login] = browser.cookies.received
      const before = stack.authorizationServer.count('token')
      const cookie = `${login?.name}=${spoil(login?.value ?? '', login?.name ?? '')}`
      const reply = await asked(cookie, callback.pathname + callback.search)
      expect([reply.status, reply.json()['code']]).toEqual([400, 'login_invalid'])
      expect(stack.authorizationServer.count('token')).toBe(before)
    }
  })

  test('one of another login, under the right name, opens nothing', async () => {
    const browser = stack.newBrowser()
    const one = await authorize(browser)
    await authorize(browser)
    const [mine, other] = browser.cookies.received
    const reply = await asked(`${mine?.name}=${other?.value}`, one.callback.pathname + one.callback.search)
    expect([reply.status, reply.json()['code']]).toEqual([400, 'login_invalid'])
    expect(signedInRecords(await stack.items()).length % 2).toBe(0)
  })
})
