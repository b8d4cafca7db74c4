import type { Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { accessibilityFaults, type Focused, tabTo } from '../support/accessibility.ts'
import { type Demo, signedInAs, signedOut, startDemo } from '../support/demo.ts'

let demo: Demo
beforeAll(async () => {
  demo = await startDemo()
})
afterEach(() => demo.leave())
afterAll(() => demo?.close())

const callApi = async (page: Page, kind: string): Promise<void> => {
  await page.getByRole('radio', { name: kind }).check()
  await page.getByRole('button', { name: 'Send' }).click()
  await page.locator('#reply-status :is(.outcome, .problem)').first().waitFor()
}

/** Every page that people see, in an order in which one leads to the next. */
const tour: [name: string, go: (page: Page) => Promise<unknown>][] = [
  ['the demo page, signed out', async (page) => [await page.goto('/'), await signedOut(page).waitFor()]],
  ['the demo page with a problem', (page) => callApi(page, 'Who am I')],
  ['the sign-in page of the demo', (page) => page.getByRole('link', { name: 'Sign in', exact: true }).click()],
  ['the consent page of the demo', (page) => page.getByRole('button', { name: 'Ada Lovelace' }).click()],
  ['the page after a denied sign-in', (page) => page.getByRole('button', { name: 'Deny' }).click()],
  ['an error page without a way to try again', (page) => page.goto('/bff/login?provider=nobody')],
  ['the page of an address that is not there', (page) => page.goto('/nothing')],
  [
    'the demo page, signed in',
    async (page) => {
      await page.goto('/bff/login')
      await page.getByRole('button', { name: 'Allow' }).click()
      await signedInAs(page).waitFor()
    },
  ],
  ['the demo page after a call', (page) => callApi(page, 'Echo JSON')],
  [
    'the demo page with a message of the trace open',
    async (page) => {
      await page.getByRole('radio', { name: 'A status' }).check()
      await page.locator('#messages li:not(.check-up) summary').last().click()
    },
  ],
  ['the page that asks before signing out', (page) => page.goto('/bff/logout')],
  ['the page where the demo signs out', (page) => page.getByRole('button', { name: 'Sign out' }).click()],
  ['the page after signing out', (page) => page.getByRole('button', { name: 'Sign out' }).click()],
]

const screens = [
  { colorScheme: 'light', width: 1280 },
  { colorScheme: 'dark', width: 1280 },
  { colorScheme: 'dark', width: 320 },
  { colorScheme: 'light', width: 320 },
] as const

test('no page keeps anybody out, light or dark, wide or narrow', async () => {
  const { page } = await demo.visit({ reducedMotion: 'reduce' })
  const faults: string[] = []
  for (const [name, go] of tour) {
    await go(page)
    await page.waitForLoadState()
    for (const { colorScheme, width } of screens) {
      await page.emulateMedia({ colorScheme })
      await page.setViewportSize({ width, height: 720 })
      const found = await accessibilityFaults(page)
      faults.push(...found.map((fault) => `${name}, ${colorScheme}, ${width} px: ${fault}`))
    }
  }
  expect(faults).toEqual([])
  expect(await page.getByRole('heading', { level: 1 }).innerText()).toBe('You are signed out')
}, 90_000)

test('what the pages are searched for would be found', async () => {
  const { page } = await demo.visit({ viewport: { width: 320, height: 640 } })
  await page.setContent(`<body style="margin:0"><h2 id="a">Two</h2><h1 id="a">One</h1><h1>Another</h1><img src="data:,">
    <main style="width:400px"><p style="color:#888;background:#fff">Pale</p><input><a href="/"></a><section>Part</section>
    <button style="border:1px solid #eee;background:#fff;height:10px;padding:0">Flat</button></main>Outside</body>`)
  expect((await accessibilityFaults(page)).toSorted()).toEqual([
    '#a is there twice',
    '2 first headings',
    '400 px wide in 320 px',
    '<a>  has no name',
    '<body> TwoOneAnother PalePart FlatOutside is outside of every landmark',
    '<button> Flat does not stand out',
    '<button> Flat is too small',
    '<h1> Another is outside of every landmark',
    '<h1> One is outside of every landmark',
    '<h2> Two is outside of every landmark',
    '<h2> Two skips a level',
    '<input>  has no label',
    '<p> Pale has a contrast of 3.54',
    '<section> Part has no label',
    'data:, has no text',
    'no language',
    'no title',
    'no viewport',
  ])
})

test('the keyboard alone signs in, calls the API and signs out, and shows where it is', async () => {
  const { page } = await demo.visit()
  const visited: Focused[] = []
  const press = async (name: string): Promise<void> => {
    visited.push(...(await tabTo(page, name)))
    await page.keyboard.press('Enter')
  }
  await page.goto('/')
  await signedOut(page).waitFor()
  await press('Sign in')
  await page.getByRole('heading', { name: 'Who are you?' }).waitFor()
  await press('Grace Hopper grace@example.com')
  await page.getByRole('heading', { name: 'Allow Coatcheck demo?' }).waitFor()
  await press('Allow')
  await signedInAs(page, 'Grace Hopper').waitFor()
  await press('Send')
  await page.locator('#reply-status', { hasText: '200' }).waitFor()
  await page.goto('/bff/logout')
  await press('Stay signed in')
  await signedInAs(page, 'Grace Hopper').waitFor()
  await press('Sign out')
  await page.getByText('Sign out here too?').waitFor()
  await press('Sign out')
  await signedOut(page).waitFor()
  expect(visited.filter(({ isVisible }) => !isVisible)).toEqual([])
  expect(visited.length).toBeGreaterThan(10)
})
