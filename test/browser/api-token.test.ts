import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { accessibilityFaults, tabTo } from '../support/accessibility.ts'
import { launchChromium } from '../support/chromium.ts'
import { startCoderStack } from '../support/stacks.ts'

/** The page to paste an API token into, as a real browser shows it. */

let browser: Browser
let stack: Awaited<ReturnType<typeof startCoderStack>>

beforeAll(async () => {
  browser = await launchChromium()
  stack = await startCoderStack({
    frontend: (_, response) =>
      response
        .writeHead(200, { 'Content-Type': 'text/html' })
        .end(
          '<!doctype html><title>Frontend</title><style>a{font:1rem system-ui}</style><a href="/bff/login">Sign in</a>',
        ),
    stage: (stage) => ({
      ...stage,
      providers: { demo: { ...stage.providers['demo'], api_token: 'preferred' } },
    }),
  })
})

afterEach(() => Promise.all(browser.contexts().map((context) => context.close())))

afterAll(async () => {
  await browser?.close()
  await stack?.close()
})

const visit = async (): Promise<{ page: Page; complaints: string[] }> => {
  const context = await browser.newContext({ baseURL: stack.origin, reducedMotion: 'reduce' })
  context.setDefaultTimeout(20_000)
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', (message) => {
    const isNote = message.text().startsWith('Failed to load resource: the server responded with')
    if (!isNote && ['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  return { page, complaints }
}

test('signs in by keyboard alone: a wrong token is said to be wrong, a right one leads back', async () => {
  const { page, complaints } = await visit()
  await page.goto('/bff/login')
  await page.getByRole('heading', { name: 'Sign in with an API token' }).waitFor()
  await tabTo(page, 'API token')
  await page.keyboard.type('not-a-token-of-anybody')
  await page.keyboard.press('Enter')
  const alert = page.getByRole('alert')
  await alert.waitFor()
  expect(await alert.innerText()).toMatch(/^That API token was not accepted/)
  const field = page.getByLabel('API token')
  expect([await field.inputValue(), await field.getAttribute('type')]).toEqual(['', 'password'])
  expect(await page.content()).not.toContain('not-a-token-of-anybody')

  const visited = await tabTo(page, 'API token')
  await page.keyboard.type(stack.authorizationServer.sessionOf('ada'))
  await page.keyboard.press('Enter')
  await page.waitForURL(`${stack.origin}/`)
  const session = await page.evaluate<{ claims?: object }>("fetch('/bff/session').then((reply) => reply.json())")
  expect(session).toMatchObject({ authenticated: true, claims: { preferred_username: 'ada' } })
  expect(visited.filter(({ isVisible }) => !isVisible)).toEqual([])
  expect(complaints).toEqual([])
}, 60_000)

test('offers the way without a token', async () => {
  const { page, complaints } = await visit()
  await page.goto('/bff/login')
  await page.getByRole('link', { name: 'Sign in without a token' }).click()
  expect(new URL(page.url()).origin).toBe(stack.authorizationServer.issuer)
  expect(complaints).toEqual([])
})

test('keeps nobody out, asking or asking again, light or dark, wide or narrow', async () => {
  const { page } = await visit()
  const faults: string[] = []
  for (const name of ['asking', 'asking again']) {
    if (name === 'asking') await page.goto('/bff/login')
    else {
      await page.getByLabel('API token').fill('wrong')
      await page.getByRole('button', { name: 'Sign in' }).click()
      await page.getByRole('alert').waitFor()
    }
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const width of [1_280, 320]) {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: 720 })
        faults.push(...(await accessibilityFaults(page)).map((fault) => `${name}, ${colorScheme}, ${width}: ${fault}`))
      }
    }
  }
  expect(faults).toEqual([])
}, 60_000)
