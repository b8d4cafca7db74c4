import type { Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { sessionCookie } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import { type Demo, signedInAs, signedOut, signInByClicking, startDemo, type Visitor } from '../support/demo.ts'

/** Short enough to wait for its end, long enough for a few calls. */
const accessTokenSeconds = 4

let demo: Demo
beforeAll(async () => {
  demo = await startDemo({ accessTokenSeconds })
})
afterEach(() => demo.leave())
afterAll(() => demo?.close())

const send = async (page: Page, outcome: string) => {
  await page.getByRole('button', { name: 'Send' }).click()
  await page.locator('#call button:not([aria-disabled])').waitFor()
  expect(await page.locator('#reply-status').innerText()).toContain(outcome)
  return page.locator('#reply-body').innerText()
}

/** Everything that a script on the page can get at: its document, its stores, and what its requests were answered. */
const readable = async ({ page, answers }: Visitor): Promise<Record<string, unknown>> => {
  const seen = (await answers()).filter(({ url }) => url.startsWith(demo.origin))
  const answered = seen.map(({ url, body, headers }) => [url, { ...headers, 'set-cookie': '', body }])
  const stores = await page.evaluate(`(async () => ({
    document: document.documentElement.outerHTML,
    cookies: document.cookie,
    storage: JSON.stringify([localStorage, sessionStorage, history.state, window.name]),
    databases: JSON.stringify([await indexedDB.databases(), await caches.keys()]),
  }))()`)
  return { stores, ...Object.fromEntries(answered) }
}

describe('calling the API from the page', () => {
  test('with GET, with a JSON body and for a status', async () => {
    const { page } = await demo.visit()
    await signInByClicking(page)
    expect(JSON.parse(await send(page, '200 GET /api/demo/whoami'))).toMatchObject({ subject: 'ada' })

    await page.getByRole('radio', { name: 'Echo JSON' }).check()
    await page.getByLabel('JSON to send').fill('{"coat":"Pelz ✓"}')
    const echo = JSON.parse(await send(page, '200 POST /api/demo/echo'))
    expect(echo).toMatchObject({ method: 'POST', path: '/echo', body: '{"coat":"Pelz ✓"}' })
    expect(Object.keys(echo.headers)).not.toContain('cookie')

    await page.getByRole('radio', { name: 'A status' }).check()
    for (const status of ['404', '503', '204']) {
      await page.getByLabel('Status that the resource server shall answer').selectOption(status)
      await send(page, `${status} GET /api/demo/status/${status}`)
    }
    await page.getByLabel('Status that the resource server shall answer').selectOption('302')
    await send(page, 'a redirect, which was not followed')
  })

  test('without a session is a problem that says so', async () => {
    const { page } = await demo.visit()
    await page.goto('/')
    await send(page, '401 GET /api/demo/whoami')
    expect(await page.locator('#reply-status').innerText()).toMatch(/You are not signed in\.\s+Code session_required/)
  })

  test('goes on when the access token has expired: the next call renews it', async () => {
    const { page } = await demo.visit()
    await signInByClicking(page)
    const first = JSON.parse(await send(page, '200 GET'))
    const refreshed = demo.count('refresh')
    await page.locator('#token-clock', { hasText: 'at next call' }).waitFor()
    const second = JSON.parse(await send(page, '200 GET'))
    expect(demo.count('refresh')).toBe(refreshed + 1)
    expect(Date.parse(second.expires_at)).toBeGreaterThan(Date.parse(first.expires_at))
    await page.locator('#token-clock', { hasText: /0[0-4]$/ }).waitFor()
  })

  test('keeping alive renews what is due, and what is not due stays', async () => {
    const { page } = await demo.visit()
    await signInByClicking(page)
    await page.locator('#token-clock', { hasText: 'at next call' }).waitFor()
    const refreshed = demo.count('refresh')
    const keepAlive = page.getByRole('button', { name: 'Keep alive' })
    await keepAlive.click()
    await page.getByText(/^Kept alive in \d+ ms\.$/).waitFor()
    await page.locator('#token-clock', { hasText: /0[0-4]$/ }).waitFor()
    expect(demo.count('refresh')).toBe(refreshed + 1)
  })
})

test('no page can read a token or the session cookie: not in documents, stores, answers or their headers', async () => {
  const visitor = await demo.visit()
  const { page, cookies } = visitor
  const issued = demo.tokens.length
  await signInByClicking(page)
  await send(page, '200 GET')
  await page.getByRole('radio', { name: 'Echo JSON' }).check()
  await send(page, '200 POST')
  await page.locator('#token-clock', { hasText: 'at next call' }).waitFor()
  await send(page, '200 POST')
  const [cookie] = await cookies()
  const secrets = [...demo.tokens.slice(issued), { name: 'session cookie', value: cookie?.value.split('.')[1] ?? '' }]
  expect(new Set(secrets.map(({ name }) => name))).toEqual(
    new Set(['access_token', 'refresh_token', 'id_token', 'session cookie']),
  )
  expect(secrets.length).toBeGreaterThanOrEqual(7)
  const places = await readable(visitor)
  expect(places[`${demo.origin}/api/demo/echo?from=demo`]).toBeDefined()
  expect(places[`${demo.origin}/__local/trace/events`]).toBeDefined()
  expect(leaksOf(secrets, { ...places, trace: await (await page.request.get('/__local/trace')).text() })).toEqual([])
})

describe('signing out', () => {
  test('by the button ends the session here and at the authorization server, and comes back', async () => {
    const { page, cookies, context } = await demo.visit()
    await signInByClicking(page)
    const before = await cookies()
    const revoked = demo.count('revocation')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByText('Coatcheck demo has signed you out. Sign out here too?').waitFor()
    expect(await cookies()).toEqual([])
    expect(demo.count('revocation')).toBeGreaterThan(revoked)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await signedOut(page).waitFor()
    expect(page.url()).toBe(`${demo.origin}/`)

    await context.addCookies(before)
    await page.reload()
    await signedOut(page).waitFor()
    expect(await cookies()).toEqual([])
    await context.addCookies(before)
    await send(page, '401 GET /api/demo/whoami')
    expect(await cookies()).toEqual([])
    await page.getByRole('link', { name: 'Sign in', exact: true }).click()
    await page.getByRole('button', { name: 'Ada Lovelace' }).waitFor()
  })

  test('by the button tells the other tabs', async () => {
    const { page, context } = await demo.visit()
    await signInByClicking(page)
    const other = await context.newPage()
    await other.goto('/')
    await signedInAs(other).waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await signedOut(other).waitFor()
  })

  test.each([
    ['with', true],
    ['without', false],
  ])(
    'by the confirmation page, %s script: the form leads through the authorization server',
    async (_, javaScriptEnabled) => {
      const { page, cookies } = await demo.visit({ javaScriptEnabled })
      await page.goto('/bff/login')
      await page.getByRole('button', { name: 'Ada Lovelace' }).click()
      await page.getByRole('button', { name: 'Allow' }).click()
      await page.waitForURL(`${demo.origin}/`)
      expect((await cookies()).map(({ name }) => name)).toEqual([sessionCookie])
      await page.goto('/bff/logout?return_to=/?left')
      await page.getByRole('heading', { name: 'Sign out?' }).waitFor()
      expect((await cookies()).map(({ name }) => name)).toEqual([sessionCookie])
      await page.getByRole('button', { name: 'Sign out' }).click()
      await page.getByText('Sign out here too?').waitFor()
      expect(new URL(page.url()).origin).toBe(demo.issuer)
      expect(await cookies()).toEqual([])
      await page.getByRole('button', { name: 'Sign out' }).click()
      await page.waitForURL(`${demo.origin}/?left`)
    },
  )

  test('without a place to return to ends on a page that says so', async () => {
    const { page } = await demo.visit()
    await signInByClicking(page)
    await page.goto('/bff/logout')
    await page.getByRole('link', { name: 'Stay signed in' }).click()
    await signedInAs(page).waitFor()
    await page.goto('/bff/logout')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('button', { name: 'Stay signed in' }).click()
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor()
    await page.reload()
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor()
    await page.getByRole('link', { name: 'Sign in again' }).click()
    await page.getByRole('button', { name: 'Allow' }).click()
    await signedInAs(page).waitFor()
  })

  test('does not happen because another site posts a form or shows a link', async () => {
    const { page, cookies } = await demo.visit()
    await signInByClicking(page)
    await page.goto(demo.issuer)
    await page.evaluate(`{
      const action = '${demo.origin}/bff/logout'
      const form = Object.assign(document.createElement('form'), { method: 'post', action })
      document.body.append(form)
      form.submit()
    }`)
    await page.getByRole('heading', { name: 'That did not go through' }).waitFor()
    await page.goto('/')
    await signedInAs(page).waitFor()
    expect(await cookies()).toHaveLength(1)
  })
})
