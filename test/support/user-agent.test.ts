import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launchChromium } from './chromium.ts'
import { createBrowser } from './user-agent.ts'

type Seen = Record<string, string | string[] | undefined>

const servers: Server[] = []
let seen: Seen[] = []

const record = ({ method, url, headers }: IncomingMessage, host: string): void => {
  if (url === '/favicon.ico') return
  seen.push({
    request: `${method} ${host}${url}`,
    site: headers['sec-fetch-site'],
    mode: headers['sec-fetch-mode'],
    dest: headers['sec-fetch-dest'],
    user: headers['sec-fetch-user'],
    origin: headers.origin,
    referer: headers['sec-fetch-mode'] === 'cors' ? undefined : headers.referer,
    cookies: (headers.cookie ?? '').split('; ').toSorted().join('; '),
  })
}

const start = async (
  host: string,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> => {
  const server = createServer((request, response) => {
    record(request, host)
    answer(request, response)
  })
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return `http://${host}:${typeof address === 'object' && address ? address.port : 0}`
}

const cookieLines = [
  '__Host-Http-strict=1; Secure; HttpOnly; SameSite=Strict; Path=/',
  '__Host-Http-readable=1; Secure; SameSite=Strict; Path=/',
  '__Host-lax=1; Secure; SameSite=Lax; Path=/',
  '__Host-domain=1; Secure; Domain=localhost; Path=/',
  '__Host-path=1; Secure; Path=/pages',
  '__Host-pathless=1; Secure',
  '__host-insecure=1; Path=/',
  '__Secure-insecure=1; Path=/',
  '__Secure-none=1; Secure; SameSite=None; Path=/',
  'none-insecure=1; SameSite=None; Path=/',
  'elsewhere=1; Path=/elsewhere',
  'foreign=1; Domain=example.com; Path=/',
  `long=${'x'.repeat(4100)}; Path=/`,
  'gone=1; Path=/',
  'gone=; Path=/; Max-Age=0',
]

let ours = ''
let theirs = ''

beforeAll(async () => {
  theirs = await start('127.0.0.1', (request, response) => {
    const { pathname } = new URL(request.url ?? '/', theirs)
    if (pathname === '/consent') return response.writeHead(303, { Location: `${ours}/callback?code=1` }).end()
    if (pathname === '/silent') return response.writeHead(302, { Location: `${ours}/callback?code=2` }).end()
    const form = `<form method=post action=/consent><input name=c value="&amp;1"><button name=b value=y>Allow</button></form>`
    const post = `<form method=post action=${ours}/posted><button>Post</button></form>`
    return response.writeHead(200, { 'Content-Type': 'text/html' }).end(form + post)
  })
  ours = await start('localhost', (request, response) => {
    const { pathname } = new URL(request.url ?? '/', ours)
    if (pathname === '/login') return response.writeHead(302, { Location: `${theirs}/authorize` }).end()
    if (pathname === '/login-silent') return response.writeHead(302, { Location: `${theirs}/silent` }).end()
    if (pathname === '/callback') return response.writeHead(303, { Location: '/done' }).end()
    const links = '<a href="/login">Sign in</a><a href=/login-silent>Silently</a>'
    const form = '<form method=post action=/own><button>Own</button></form>'
    const unreferred = pathname === '/private' ? { 'Referrer-Policy': 'no-referrer' } : {}
    const leave = pathname === '/leave' ? { 'Clear-Site-Data': '"cookies"' } : {}
    const headers = { 'Content-Type': 'text/html', 'Set-Cookie': pathname === '/' ? cookieLines : [] }
    return response.writeHead(200, { ...headers, ...unreferred, ...leave }).end(links + form)
  })
})

afterAll(() => {
  for (const server of servers) server.close()
})

const browser = () => createBrowser({ origin: ours })

describe('the test browser sends what Chromium sends', () => {
  const inOurs = async (): Promise<Seen[]> => {
    seen = []
    const tab = browser()
    const home = await tab.navigate(`${ours}/`)
    const consent = await tab.click(home, 'Sign in')
    const done = await tab.submit(consent, 'Allow')
    await tab.submit(done, 'Own')
    await tab.submit(await tab.navigate('/private'), 'Own')
    await tab.submit(await tab.navigate(`${theirs}/page`), 'Post')
    await tab.navigate(`${ours}/again`)
    await tab.fetch('/call', { method: 'POST', json: {} })
    await tab.fetch('/call')
    await tab.navigate('/leave')
    await tab.navigate('/left')
    return seen
  }

  const inChromium = async (): Promise<Seen[]> => {
    seen = []
    const chromium = await launchChromium()
    const page = await chromium.newPage()
    const press = async (name: string) => {
      await page.getByText(name, { exact: true }).click()
      await page.waitForLoadState()
    }
    await page.goto(`${ours}/`)
    await press('Sign in')
    await press('Allow')
    await press('Own')
    await page.goto(`${ours}/private`)
    await press('Own')
    await page.goto(`${theirs}/page`)
    await press('Post')
    await page.goto(`${ours}/again`)
    const call = (init: object) => page.evaluate(`fetch('/call', ${JSON.stringify(init)}).then(() => 0)`)
    await call({ method: 'POST', headers: { 'X-CSRF': '1', 'Content-Type': 'application/json' }, body: '{}' })
    await call({ headers: { 'X-CSRF': '1' } })
    await page.goto(`${ours}/leave`)
    await page.goto(`${ours}/left`)
    await chromium.close()
    return seen
  }

  test('at every hop of a login, a form post, a call and a return from another site', async () => {
    const real = await inChromium()
    const mine = await inOurs()
    expect(mine).toEqual(real)
    const own = mine.filter(({ request }) => request === 'POST localhost/own')
    expect(own.map(({ site, origin }) => [site, origin])).toEqual([
      ['same-origin', ours],
      ['same-origin', 'null'],
    ])
  })
})

describe('the test browser', () => {
  test('sends no Strict cookie after a hop on another site, even if no page was shown there', async () => {
    const tab = browser()
    const home = await tab.navigate('/')
    const done = await tab.click(home, 'Silently')
    expect(done.hops.map(({ url }) => new URL(url).pathname)).toEqual([
      '/login-silent',
      '/silent',
      '/callback',
      '/done',
    ])
    const cookiesAt = (path: string) =>
      seen.findLast(({ request }) => String(request).startsWith(`GET localhost${path}`))?.['cookies']
    expect(cookiesAt('/login-silent')).toContain('__Host-Http-strict')
    expect(cookiesAt('/callback')).toContain('__Host-lax')
    expect(cookiesAt('/callback')).not.toContain('strict')
    expect(cookiesAt('/done')).not.toContain('strict')
    await tab.fetch('/call')
    expect(cookiesAt('/call')).toContain('__Host-Http-strict')
  })

  test('remembers every Set-Cookie line and whether a browser would keep it', async () => {
    const tab = browser()
    await tab.navigate('/')
    const kept = tab.cookies.received.filter(({ stored }) => stored).map(({ name }) => name)
    expect(kept).toEqual(['__Host-Http-strict', '__Host-lax', '__Secure-none', 'elsewhere', 'gone', 'gone'])
    expect(tab.cookies.names(ours)).toEqual(['__Host-Http-strict', '__Host-lax', '__Secure-none'])
    expect(tab.cookies.received[0]).toMatchObject({ secure: true, httpOnly: true, sameSite: 'strict', path: '/' })
  })

  test('shares its cookies with a new tab, and refuses to be set up against the rules', async () => {
    const tab = browser()
    expect(tab.cookies.set('__Host-Http-a=1; Secure; HttpOnly; Path=/', ours)).toBe(true)
    expect(tab.cookies.set('__Host-Http-b=1; Secure; Path=/', ours)).toBe(false)
    expect(tab.newTab().cookies.get(ours, '__Host-Http-a')).toBe('1')
    tab.cookies.forget(ours, (name) => name === '__Host-Http-a')
    expect(tab.cookies.names(ours)).toEqual([])
  })

  test('sends a raw path and odd header bytes as written, duplicates too', async () => {
    const reply = await browser().raw({
      path: '/a/..%2f//b\\;x',
      headers: [
        ['X-Twice', '1'],
        ['X-Twice', '2'],
        ['Cookie', '\u2000name=1'],
      ],
    })
    expect(reply.status).toBe(200)
    expect(seen.at(-1)).toMatchObject({
      request: 'GET localhost/a/..%2f//b\\;x',
      cookies: Buffer.from('\u2000name=1').toString('latin1'),
    })
  })

  test('calls of another site carry no SameSite cookie and say where they come from', async () => {
    const tab = browser()
    await tab.navigate('/')
    await tab.fetch('/call', { method: 'POST', from: theirs, csrf: false })
    expect(seen.at(-1)).toMatchObject({ site: 'cross-site', origin: theirs, cookies: '__Secure-none=1' })
  })
})
