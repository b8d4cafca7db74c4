import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectErrorPage, expectProblem } from '../support/answers.ts'
import type { HeaderLines } from '../support/http.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** What changes state needs a request that only a page of this origin can make; what starts a login needs a person. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let tab: Browser
let here: URL

beforeAll(async () => {
  stack = await startStrictStack()
  tab = stack.newBrowser()
  here = new URL(stack.origin)
  await signIn(tab)
})

afterAll(() => stack.close())

const proof: HeaderLines = [['X-CSRF', '1']]
const form: HeaderLines = [['Content-Type', 'application/x-www-form-urlencoded']]

/** Sent with the session's cookie, as the worst browser would; and the session must be there afterwards. */
const refused = async (method: string, path: string, headers: HeaderLines, body?: string): Promise<void> => {
  const before = stack.authorizationServer.requests.length
  const reply = await tab.raw({ method, path, headers, ...(body === undefined ? {} : { body }) })
  expectProblem(reply, 403, 'csrf_rejected')
  expect(reply.setCookies).toEqual([])
  expect(reply.headers).not.toHaveProperty('clear-site-data')
  expect(stack.authorizationServer.requests.length).toBe(before)
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
}

describe.each([
  ['POST', '/bff/refresh'],
  ['POST', '/bff/logout'],
  ['GET', '/api/demo/whoami'],
  ['POST', '/api/demo/echo'],
])('%s %s', (method, path) => {
  test.each<[string, HeaderLines]>([
    ['without the header', []],
    ['with the header empty', [['X-CSRF', '']]],
    ['with the header 0', [['X-CSRF', '0']]],
    ['with the header true', [['X-CSRF', 'true']]],
    ['with the header 1.0', [['X-CSRF', '1.0']]],
    ['with the header twice', [...proof, ...proof]],
    [
      'with a header of a similar name',
      [
        ['X_CSRF', '1'],
        ['XCSRF', '1'],
        ['X-XSRF-TOKEN', '1'],
        ['X-Requested-With', 'XMLHttpRequest'],
      ],
    ],
    ['with the proof in another place', [['Cookie', 'X-CSRF=1']]],
  ])('%s', async (_, headers) => {
    await refused(method, `${path}?x-csrf=1`, headers)
  })

  test.each(['cross-site', 'same-site', 'none', 'Same-Origin', '', 'same-origin, same-origin'])(
    'with the header, from Sec-Fetch-Site "%s"',
    async (site) => {
      await refused(method, path, [...proof, ['Sec-Fetch-Site', site]])
    },
  )

  test.each([
    ['null', () => 'null'],
    ['nothing', () => ''],
    ['a stranger', () => 'https://evil.example'],
    ['a stranger whose name begins like ours', () => `${here.origin}.evil.example`],
    ['a stranger whose port begins like ours', () => `${here.origin}0`],
    ['a stranger whose name ends like ours', () => `http://evil${here.host}`],
    ['us over https', () => `https://${here.host}`],
    ['us on another port', () => 'http://localhost:1'],
    ['us by address', () => `http://127.0.0.1:${here.port}`],
    ['us in capitals', () => here.origin.toUpperCase()],
    ['us with a dot', () => `http://localhost.:${here.port}`],
    ['us with a slash', () => `${here.origin}/`],
    ['us as a user name', () => `http://${here.host}@evil.example`],
    ['us and a stranger', () => `${here.origin}, https://evil.example`],
  ])('with the header, from the origin of %s', async (_, origin) => {
    await refused(method, path, [...proof, ['Origin', origin()]])
    await refused(method, path, [...proof, ['Origin', origin()], ['Sec-Fetch-Site', 'same-origin']])
  })

  test('with the header twice, or from two origins', async () => {
    await refused(method, path, [...proof, ['Origin', here.origin], ['Origin', here.origin]])
  })

  test('of a form that another site posts', async () => {
    for (const type of [
      'text/plain',
      'multipart/form-data; boundary=x',
      'application/x-www-form-urlencoded',
      'application/json',
    ]) {
      const headers: HeaderLines = [
        ['Content-Type', type],
        ['Origin', 'https://evil.example'],
        ['Sec-Fetch-Site', 'cross-site'],
      ]
      await refused('POST', path, headers, 'x-csrf=1')
      await refused('POST', path, headers.slice(0, 1), 'x-csrf=1')
    }
  })

  test('never tells another origin what it may do', async () => {
    const headers: HeaderLines = [
      ['Origin', 'https://evil.example'],
      ['Access-Control-Request-Method', method],
      ['Access-Control-Request-Headers', 'x-csrf'],
    ]
    const reply = await tab.raw({ method: 'OPTIONS', path, headers })
    expect(reply.status).toBeGreaterThanOrEqual(400)
    expect(Object.keys(reply.headers).filter((name) => name.startsWith('access-control-'))).toEqual([])
  })
})

test('a request that a page of this origin made goes through, also where the browser tells nothing', async () => {
  const told: HeaderLines = [...proof, ['Origin', here.origin], ['Sec-Fetch-Site', 'same-origin']]
  for (const headers of [proof, told]) {
    expect((await tab.raw({ method: 'POST', path: '/bff/refresh', headers })).status).toBe(200)
    expect((await tab.raw({ path: '/api/demo/whoami', headers })).status).toBe(200)
  }
})

test('an override of the method is no method', async () => {
  const override: HeaderLines = [
    ['X-HTTP-Method-Override', 'POST'],
    ['X-Method-Override', 'POST'],
  ]
  for (const path of ['/bff/logout?_method=POST', '/bff/refresh?_method=POST']) {
    const reply = await tab.raw({ path, headers: [...proof, ...override] })
    expect(reply.setCookies).toEqual([])
  }
  expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
})

describe('a form that signs out', () => {
  test.each<[string, () => HeaderLines]>([
    ['of an old browser that tells nothing', () => form],
    ['of another site', () => [...form, ['Origin', 'https://evil.example'], ['Sec-Fetch-Site', 'cross-site']]],
    ['of a sandboxed frame', () => [...form, ['Origin', 'null'], ['Sec-Fetch-Site', 'cross-site']]],
    ['of nobody', () => [...form, ['Origin', 'null']]],
    ['of a neighbour', () => [...form, ['Origin', 'http://localhost:1'], ['Sec-Fetch-Site', 'same-site']]],
    ['typed into the address bar', () => [...form, ['Sec-Fetch-Site', 'none']]],
  ])('%s is refused', async (_, headers) => {
    await refused('POST', '/bff/logout', headers(), 'a=b')
  })

  test.each<[string, () => HeaderLines]>([
    ['whose origin the browser tells', () => [...form, ['Origin', here.origin]]],
    ['whose site the browser tells', () => [...form, ['Origin', 'null'], ['Sec-Fetch-Site', 'same-origin']]],
  ])('%s goes through', async (_, headers) => {
    const other = stack.newBrowser()
    await signIn(other)
    const reply = await other.raw({ method: 'POST', path: '/bff/logout', headers: headers(), body: 'a=b' })
    expect(reply.status).toBe(303)
    expect((await other.fetch('/bff/session')).json()).toMatchObject({ authenticated: false })
  })
})

describe('a login that no person started', () => {
  const html: HeaderLines = [['Accept', 'text/html']]
  test.each<[string, HeaderLines, number]>([
    [
      'a fetch',
      [
        ['Sec-Fetch-Mode', 'cors'],
        ['Sec-Fetch-Dest', 'empty'],
      ],
      403,
    ],
    [
      'a fetch without CORS',
      [
        ['Sec-Fetch-Mode', 'no-cors'],
        ['Sec-Fetch-Dest', 'empty'],
      ],
      403,
    ],
    [
      'an image',
      [
        ['Sec-Fetch-Mode', 'no-cors'],
        ['Sec-Fetch-Dest', 'image'],
      ],
      403,
    ],
    [
      'a script',
      [
        ['Sec-Fetch-Mode', 'no-cors'],
        ['Sec-Fetch-Dest', 'script'],
      ],
      403,
    ],
    ['a frame', [...html, ['Sec-Fetch-Mode', 'navigate'], ['Sec-Fetch-Dest', 'iframe']], 403],
    ['an object', [...html, ['Sec-Fetch-Mode', 'navigate'], ['Sec-Fetch-Dest', 'object']], 403],
    [
      'a web socket',
      [
        ['Sec-Fetch-Mode', 'websocket'],
        ['Sec-Fetch-Dest', 'empty'],
      ],
      403,
    ],
    [
      'a prefetch',
      [...html, ['Sec-Fetch-Mode', 'navigate'], ['Sec-Fetch-Dest', 'document'], ['Sec-Purpose', 'prefetch']],
      503,
    ],
    ['a prerender', [...html, ['Sec-Fetch-Mode', 'navigate'], ['Sec-Purpose', 'prefetch;prerender']], 503],
    ['an old prefetch', [...html, ['Purpose', 'prefetch']], 503],
  ])('%s starts none', async (_, headers, status) => {
    for (const site of ['same-origin', 'cross-site']) {
      const reply = await tab.raw({ path: '/bff/login?return_to=/a', headers: [...headers, ['Sec-Fetch-Site', site]] })
      const navigates = reply.headers['content-type']?.startsWith('text/html')
      if (navigates) expectErrorPage(reply, status, 'navigation_required')
      else expectProblem(reply, status, 'navigation_required')
      expect(reply.setCookies).toEqual([])
      expect(reply.headers).not.toHaveProperty('location')
    }
  })

  test('a person starts one, from anywhere', async () => {
    for (const site of ['none', 'same-origin', 'cross-site']) {
      const headers: HeaderLines = [
        ...html,
        ['Sec-Fetch-Mode', 'navigate'],
        ['Sec-Fetch-Dest', 'document'],
        ['Sec-Fetch-Site', site],
      ]
      expect((await tab.raw({ path: '/bff/login', headers })).status).toBe(302)
    }
    expect((await tab.raw({ path: '/bff/login', headers: [] })).status).toBe(302)
  })
})
