import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { loginCookies, sessionCookie } from '../support/answers.ts'
import {
  type Demo,
  passAuthorizationServer,
  signedInAs,
  signedOut,
  signInByClicking,
  startDemo,
  type Visitor,
} from '../support/demo.ts'

let demo: Demo
beforeAll(async () => {
  demo = await startDemo()
})
afterEach(() => demo.leave())
afterAll(() => demo?.close())

const callbackOf = async ({ answers }: Visitor): Promise<string> =>
  (await answers()).map(({ url }) => url).findLast((url) => url.includes('/bff/callback/')) ?? ''

describe('signing in by clicking', () => {
  test('ends on the page that it began on, with the claims and the clocks of the session', async () => {
    const { page } = await demo.visit()
    await page.goto('/')
    await signedOut(page).waitFor()
    await page.getByRole('link', { name: 'Sign in', exact: true }).click()
    expect(new URL(page.url()).origin).toBe(demo.issuer)
    await passAuthorizationServer(page)
    await signedInAs(page).waitFor()

    expect(page.url()).toBe(`${demo.origin}/`)
    const rows = await page.locator('#claims tr').allInnerTexts()
    expect(rows.map((row) => row.split(/\s+/).slice(-2).join(' '))).toEqual(
      expect.arrayContaining(['sub ada', 'Ada Lovelace', 'email ada@example.com']),
    )
    const clock = (id: string) => page.locator(id).innerText()
    expect(await clock('#token-clock')).toMatch(/^0[45]:\d\d$/)
    expect(await clock('#idle-clock')).toMatch(/^(59:\d\d|1:00:00)$/)
    expect(await clock('#session-clock')).toMatch(/^(11:59:\d\d|12:00:00)$/)
  })

  test('keeps one cookie at a time, as Chromium stored it: first the login, then the session', async () => {
    const { page, cookies } = await demo.visit()
    const hardened = { domain: 'localhost', path: '/', httpOnly: true, secure: true }
    const inSeconds = (seconds: number) => expect.closeTo(Date.now() / 1_000 + seconds, -2)
    await page.goto('/bff/login')
    expect(await cookies()).toEqual([
      expect.objectContaining({ ...hardened, sameSite: 'Lax', expires: inSeconds(600) }),
    ])
    expect((await cookies())[0]?.name).toMatch(loginCookies)
    await passAuthorizationServer(page)
    await signedInAs(page).waitFor()
    const value = expect.stringMatching(/^[\w-]+\.[\w-]{43}$/)
    expect(await cookies()).toEqual([
      expect.objectContaining({
        ...hardened,
        name: sessionCookie,
        value,
        sameSite: 'Strict',
        expires: inSeconds(12 * 60 * 60),
      }),
    ])
    expect(await page.evaluate('document.cookie')).toBe('')
  })

  test('does not send the strict cookie along from the authorization server; the page asks for itself', async () => {
    const { page } = await demo.visit()
    await page.goto('/')
    await page.getByRole('link', { name: 'Sign in', exact: true }).click()
    const [landing, check] = await Promise.all([
      page.waitForRequest(`${demo.origin}/`),
      page.waitForRequest(`${demo.origin}/bff/session`),
      passAuthorizationServer(page),
    ])
    expect((await landing.allHeaders())['cookie'] ?? '').not.toContain(sessionCookie)
    expect((await check.allHeaders())['cookie']).toContain(sessionCookie)
    await signedInAs(page).waitFor()
  })

  test('goes where return_to says', async () => {
    const { page } = await demo.visit()
    await page.goto('/bff/login?return_to=/?from=a-bookmark%23counter')
    await passAuthorizationServer(page, 'Grace Hopper')
    await signedInAs(page, 'Grace Hopper').waitFor()
    expect(page.url()).toBe(`${demo.origin}/?from=a-bookmark#counter`)
  })

  test('as someone else ends the session before it', async () => {
    const { page, context, cookies } = await demo.visit()
    await signInByClicking(page)
    const [before] = await cookies()
    await page.getByRole('link', { name: 'Sign in as someone else' }).click()
    await passAuthorizationServer(page, 'Alan Turing')
    await signedInAs(page, 'Alan Turing').waitFor()
    await context.clearCookies()
    if (before) await context.addCookies([before])
    await page.reload()
    await signedOut(page).waitFor()
  })
})

test('two tabs sign in at once: both end signed in, as the last one', async () => {
  const { page, context, cookies } = await demo.visit()
  const other = await context.newPage()
  for (const tab of [page, other]) {
    await tab.goto('/')
    await tab.getByRole('link', { name: 'Sign in', exact: true }).click()
    await tab.getByRole('button', { name: 'Ada Lovelace' }).waitFor()
  }
  expect((await cookies()).filter(({ name }) => name.startsWith(loginCookies))).toHaveLength(2)
  await passAuthorizationServer(page)
  await signedInAs(page).waitFor()
  await passAuthorizationServer(other, 'Grace Hopper')
  await signedInAs(other, 'Grace Hopper').waitFor()
  await signedInAs(page, 'Grace Hopper').waitFor()
  expect((await cookies()).map(({ name }) => name)).toEqual([sessionCookie])
})

describe('a sign-in that does not finish', () => {
  test.each([
    ['denied', 'Deny'],
    ['cancelled', 'Cancel'],
  ])('%s at the authorization server ends on our page, whose way to try again works', async (_, button) => {
    const { page, cookies } = await demo.visit()
    await page.goto('/bff/login?return_to=/?again')
    if (button === 'Deny') await page.getByRole('button', { name: 'Ada Lovelace' }).click()
    await page.getByRole('button', { name: button }).click()
    await page.getByRole('heading', { name: 'Sign-in did not finish' }).waitFor()
    expect(await page.locator('dl').innerText()).toContain('login_denied')
    expect(await page.content()).not.toContain('The user')
    expect(await cookies()).toEqual([])
    await page.getByRole('link', { name: 'Sign in again' }).click()
    if (button === 'Cancel') await page.getByRole('button', { name: 'Ada Lovelace' }).click()
    await page.getByRole('button', { name: 'Allow' }).click()
    await signedInAs(page).waitFor()
    expect(page.url()).toBe(`${demo.origin}/?again`)
  })

  test.each([
    ['whose login cookie was deleted', async ({ context }: Visitor) => context.clearCookies({ domain: 'localhost' })],
    [
      'whose login cookie was changed',
      async ({ context, cookies }: Visitor) => {
        const [cookie] = await cookies()
        if (cookie) await context.addCookies([{ ...cookie, value: `${cookie.value.slice(0, -4)}AAAA` }])
      },
    ],
    [
      'whose state was tampered with',
      async ({ page, answers }: Visitor) => {
        const sent = (await answers()).map(({ url }) => url).find((url) => url.startsWith(`${demo.issuer}/auth?`)) ?? ''
        await page.goto(sent.replace(/([?&]state=)[^&]{4}/, '$1AAAA'))
      },
    ],
  ])('%s ends on our page, redeems nothing, and can be tried again', async (_, spoil) => {
    const visitor = await demo.visit()
    const { page, cookies } = visitor
    const redeemed = demo.count('token')
    await page.goto('/bff/login')
    await page.getByRole('button', { name: 'Ada Lovelace' }).click()
    await page.getByRole('button', { name: 'Allow' }).waitFor()
    await spoil(visitor)
    await page.getByRole('button', { name: 'Allow' }).click()
    await page.getByRole('heading', { name: 'Sign-in did not finish' }).waitFor()
    expect(await page.locator('dl').innerText()).toContain('login_invalid')
    expect((await cookies()).some(({ name }) => name === sessionCookie)).toBe(false)
    expect(demo.count('token')).toBe(redeemed)
    await page.getByRole('link', { name: 'Sign in again' }).click()
    await signedInAs(page).waitFor()
  })
})

describe('going back', () => {
  test('to the callback redeems nothing again and leaves the session alive', async () => {
    const visitor = await demo.visit()
    const { page } = visitor
    await signInByClicking(page)
    const redeemed = demo.count('token')
    const callback = await callbackOf(visitor)
    expect(callback).toContain('code=')
    for (const load of [() => page.goto(callback), () => page.reload()]) {
      await load()
      await page.getByRole('heading', { name: 'Sign-in did not finish' }).waitFor()
    }
    expect(demo.count('token')).toBe(redeemed)
    await page.getByRole('link', { name: 'Go to the front page' }).click()
    await signedInAs(page).waitFor()
    await page.getByRole('button', { name: 'Send' }).click()
    await page.locator('#reply-status', { hasText: '200' }).waitFor()
    await page.goto(callback)
    await page.getByRole('link', { name: 'Sign in again' }).click()
    await signedInAs(page).waitFor()
  })

  test('from the signed-in page and forward again stays signed in', async () => {
    const { page } = await demo.visit()
    await signInByClicking(page)
    await page.goBack()
    expect(new URL(page.url()).origin).toBe(demo.issuer)
    await page.goForward()
    await signedInAs(page).waitFor()
    await page.reload()
    await signedInAs(page).waitFor()
  })
})
