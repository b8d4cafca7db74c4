import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseStage } from '../../shared/config.ts'
import { resolveReturnTo } from '../../shared/user-agent.ts'
import { expectErrorPage, expectProblem } from '../support/answers.ts'
import { fc } from '../support/seeded.ts'
import { navigation, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** `return_to` leads nowhere but to this origin, wherever it is given (RFC 9700 section 4.11). */

type Vector = { value: string; expect: 'accept' | 'reject' | 'reject-auth-endpoint' }
const vectors: { return_to: Vector[] } = JSON.parse(
  await readFile(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'),
)

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startStrictStack()
  tab = stack.newBrowser()
})

afterAll(() => stack.close())

/** What the vectors say of https://app.example.com, said of this stack, whose scheme is the other one. */
const ours = (value: string): string =>
  value
    .replaceAll('app.example.com', new URL(stack.origin).host)
    .replaceAll('APP.EXAMPLE.COM', new URL(stack.origin).host.toUpperCase())
    .replace(/^(h\s?t\s?t\s?p)(s?):/i, (_, http: string, s: string) => `${http}${s === '' ? 's' : ''}:`)

/** Percent-encoded as the bytes that it is; a lone surrogate as the three bytes that some would write. */
const encoded = (value: string): string =>
  value.isWellFormed()
    ? encodeURIComponent(value)
    : value
        .split(/[\ud800-\udfff]/)
        .map(encodeURIComponent)
        .join('%ED%A0%80')

const rejected = [
  ...vectors.return_to.filter(({ expect: outcome }) => outcome === 'reject').map(({ value }) => value),
  '/bff',
  '/bff/',
  '/bff/login',
  '/bff/callback/demo?code=x&state=y',
  '/bff/logout',
  '/BFF/login',
  '/%62ff/login',
  '/bff/../x',
  '/./x',
  '/a/../b',
  '/a//b',
  '/a%00',
  '/%7f',
  '/a\\b',
  '/a"b',
  '/a<b',
  '/a b',
  '/a^b',
  '/a{b',
  '/a|b',
  '/a`b',
  '/..;/x',
  `/${'a'.repeat(2_048)}`,
]
const accepted = [
  // The frontend's own /login is a page like any other; what would loop is /bff.
  ...vectors.return_to.filter(({ expect: outcome }) => outcome !== 'reject').map(({ value }) => value),
  '/bffs',
  '/a/bff/login',
  '/?q=%20',
  '/a%20b',
  '/#/route?x=1',
  '/a;b=c/d',
  "/~a_b-c.d/!$&'()*+,;=:@",
  '/a.b/..c',
  `/${'a'.repeat(2_000)}`,
]

describe('refused', () => {
  test.each(rejected.map((value) => [JSON.stringify(value).slice(0, 60), value]))('%s', async (_, value) => {
    for (const text of new Set([value, ours(value)])) {
      const before = stack.authorizationServer.requests.length
      const query = `return_to=${encoded(text)}`
      const login = await tab.raw({ path: `/bff/login?${query}`, headers: navigation })
      expectErrorPage(login, 400, 'invalid_return_to')
      expectErrorPage(await tab.raw({ path: `/bff/logout?${query}`, headers: navigation }), 400, 'invalid_return_to')
      const logout = await tab.fetch(`/bff/logout?${query}`, { method: 'POST' })
      expectProblem(logout, 400, 'invalid_return_to')
      expect([...login.setCookies, ...logout.setCookies]).toEqual([])
      expect(login.text).not.toMatch(/evil|javascript|data:/)
      expect(stack.authorizationServer.requests.length).toBe(before)
    }
  })

  test.each(['return_to=/a&return_to=/b', 'return_to=/a&return_to=//evil.example', 'return_to=', 'return_to'])(
    '?%s',
    async (query) => {
      expectErrorPage(await tab.raw({ path: `/bff/login?${query}`, headers: navigation }), 400, 'invalid_return_to')
    },
  )
})

describe('accepted', () => {
  test.each(accepted.map((value) => [JSON.stringify(value).slice(0, 60), value]))('%s', async (_, value) => {
    const target = stack.origin + value
    const browser = stack.newBrowser()
    for (const text of [value, target]) {
      const page = await signIn(browser, { returnTo: text })
      expect([page.status, page.hops.at(-2)?.status, page.hops.at(-2)?.location]).toEqual([200, 303, target])
    }
    const question = await browser.navigate(`/bff/logout?return_to=${encoded(value)}`, { from: `${stack.origin}/` })
    const back = await browser.submit(question, 'Sign out')
    expect(back.hops.at(-2)?.location).toBe(target)
    expect((await browser.fetch('/bff/session')).json()).toMatchObject({ authenticated: false })
  })

  test.each(['', '?return_to[]=//evil.example', '?Return_To=//evil.example', '?next=//evil.example'])(
    'nothing: /bff/login%s leads to the front page',
    async (query) => {
      const page = await stack.newBrowser().navigate(`/bff/login${query}`)
      expect(page.url).toBe(`${stack.origin}/`)
    },
  )
})

test('another origin is accepted where the stage names it, and only that one', () => {
  const stage = parsed({ origin: 'https://app.example.com', return_to_origins: ['https://www.example.com'] })
  expect(resolveReturnTo('https://www.example.com/a?b#c', stage)).toBe('https://www.example.com/a?b#c')
  expect(resolveReturnTo('https://www.example.com', stage)).toBe('https://www.example.com/')
  expect(resolveReturnTo('https://www.example.com/bff/login', stage)).toBe('https://www.example.com/bff/login')
  for (const other of [
    'https://www.example.com.evil.example/',
    'https://www.example.com@evil.example/',
    'https://www.example.com:444/',
    'http://www.example.com/',
    'https://WWW.example.com/',
    'https://www.example.com//evil.example',
    '//www.example.com/',
    'https://www.example.com\\@evil.example',
    'https://www.example.comevil',
    'https://www.example.com?x',
    'https://example.com/',
  ]) {
    expect(() => resolveReturnTo(other, stage)).toThrow('return_to_invalid')
  }
})

const parsed = (settings: Record<string, unknown>) => {
  const result = parseStage({ providers: { demo: { issuer: 'https://as.example.com' } }, apis: {}, ...settings })
  if (!result.ok) throw new Error(result.faults.join('\n'))
  return result.stage
}

/** Pieces from which attacks are made, and attacks with a piece put in or taken out. */
const attack = fc.oneof(
  fc
    .array(
      fc.constantFrom(
        '/',
        '\\',
        '.',
        '..',
        '%2e',
        '%2f',
        '%5c',
        '%25',
        '%09',
        '@',
        ':',
        '?',
        '#',
        ';',
        '//',
        'http:',
        'https:',
        'evil.example',
        'app.example.com',
        'bff',
        'a',
        '\t',
        '\n',
        ' ',
        '\u3002',
        '\u2100',
        'ü',
        '[',
        ']',
        '&',
        '=',
      ),
      { maxLength: 12 },
    )
    .map((parts) => parts.join('')),
  fc
    .tuple(
      fc.constantFrom(...vectors.return_to.map(({ value }) => value)),
      fc.nat(60),
      fc.string({ unit: 'binary', maxLength: 3 }),
      fc.nat(3),
    )
    .map(([value, at, put, taken]) => value.slice(0, at) + put + value.slice(at + taken)),
  fc.webUrl({ withFragments: true, withQueryParameters: true }),
  fc.string({ unit: 'grapheme', maxLength: 40 }).map((text) => `/${text}`),
)

/** Ours for every parser: the origin, no user, a path that no second reading takes for a host. */
const expectHarmless = (target: string, origin: string): void => {
  expect(target.startsWith(`${origin}/`)).toBe(true)
  for (const read of [target, new URL(target).href, decodeURIComponent(target.split(/[?#]/, 1)[0] ?? '')]) {
    const url = new URL(read)
    expect([url.origin, url.username, url.password]).toEqual([origin, '', ''])
    expect(url.pathname).toMatch(/^\/(?![/\\])/)
    expect(url.pathname).not.toMatch(/^\/bff(\/|$)/i)
  }
}

test('whatever is accepted is ours, whoever reads it', () => {
  const stage = parsed({ origin: 'https://app.example.com' })
  let some = 0
  fc.assert(
    fc.property(attack, (text) => {
      let target: string
      try {
        target = resolveReturnTo(text, stage)
      } catch {
        return
      }
      some += 1
      expectHarmless(target, stage.origin)
    }),
    { numRuns: 20_000 },
  )
  expect(some).toBeGreaterThan(100)
})

test('whatever the stack accepts is ours', async () => {
  await fc.assert(
    fc.asyncProperty(attack, async (text) => {
      const query = `return_to=${encoded(ours(text))}`
      const question = await tab.raw({ path: `/bff/logout?${query}`, headers: navigation })
      const started = await tab.raw({ path: `/bff/login?${query}`, headers: navigation, cookies: false })
      expect(started.status).toBe(question.status === 200 ? 302 : 400)
      const [, action = ''] = /action="([^"]*)"/.exec(question.text) ?? []
      const target = new URL(action.replaceAll('&#38;', '&'), stack.origin).searchParams.get('return_to')
      if (question.status === 200) expectHarmless(target ?? '', stack.origin)
    }),
    { numRuns: 150 },
  )
})
