import type { RequestListener } from 'node:http'
import type { BrowserContextOptions, Page } from 'playwright-core'
import type { AuthorizationServerOptions } from '../../infra/local/demo/authorization-server.ts'
import { createFrontend } from '../../infra/local/demo/frontend.ts'
import { createTrace } from '../../infra/local/trace.ts'
import type { Canary } from './canaries.ts'
import { launchChromium } from './chromium.ts'
import { startDemoStack } from './stacks.ts'

/** What a request of a page was answered. */
type Seen = { url: string; status: number; headers: Record<string, string>; body: string }

const tokenNames = new Set(['access_token', 'refresh_token', 'id_token'])

const tokensIn = (text: string): Canary[] => {
  if (!text.startsWith('{')) return []
  return Object.entries(JSON.parse(text)).flatMap(([name, value]) =>
    tokenNames.has(name) && typeof value === 'string' ? [{ name, value }] : [],
  )
}

/** What Chromium writes into its console for an answer with an error status: no fault of the page. */
const isStatusNote = (text: string): boolean => text.startsWith('Failed to load resource: the server responded with')

/**
 * The whole demo as `npm start` composes it, on free ports, and a Chromium to visit it: the frontend is on `localhost`, the
 * authorization server on `127.0.0.1`, which is another site.
 */
export const startDemo = async (options: Partial<AuthorizationServerOptions> = {}) => {
  const trace = createTrace()
  const tokens: Canary[] = []
  let answer: RequestListener = (_request, response) => response.writeHead(503).end()
  const [browser, stack] = await Promise.all([
    launchChromium(),
    startDemoStack({
      demo: options,
      frontend: (request, response) => answer(request, response),
      trace: {
        observeBrowser: (observation) => trace.observeBrowser(observation),
        observeOutgoing: (observation) => {
          tokens.push(...tokensIn(observation.responseBody))
          trace.observeOutgoing(observation)
        },
      },
    }),
  ])
  const { issuer, users } = stack.authorizationServer
  answer = createFrontend({ trace, provider: { name: 'demo', issuer, users } })
  let complaints: string[] = []

  return {
    ...stack,
    issuer,
    /** Every token that the authorization server has issued so far. */
    tokens: tokens as readonly Canary[],
    /** How many requests of this kind the trace has. */
    count: (step: 'token' | 'refresh' | 'revocation' | 'callback'): number =>
      trace.list().filter((entry) => entry.step === step).length,
    /** A browser profile of its own with one tab, and what its pages were answered. */
    visit: async (profile: BrowserContextOptions = {}) => {
      const context = await browser.newContext({ baseURL: stack.origin, ...profile })
      context.setDefaultTimeout(15_000)
      const answers: Promise<Seen>[] = []
      const watch = (page: Page): void => {
        page.on('console', (message) => {
          const isNote = isStatusNote(message.text()) || !['error', 'warning'].includes(message.type())
          if (!isNote) complaints.push(`${message.type()} on ${page.url()}: ${message.text()}`)
        })
        page.on('pageerror', (error) => complaints.push(`uncaught on ${page.url()}: ${error.message}`))
      }
      context.on('page', watch)
      context.on('response', (response) => {
        const isLive = (response.headers()['content-type'] ?? '').startsWith('text/event-stream')
        const seen = async (): Promise<Seen> => ({
          url: response.url(),
          status: response.status(),
          headers: await response.allHeaders().catch(() => response.headers()),
          body: isLive ? '' : await response.text().catch(() => ''),
        })
        answers.push(seen())
      })
      return {
        context,
        page: await context.newPage(),
        /** All answers so far. */
        answers: (): Promise<Seen[]> => Promise.all(answers),
        cookies: async () => (await context.cookies()).filter(({ domain }) => domain === 'localhost'),
      }
    },
    /**
     * Everybody leaves.
     * @throws an Error with what pages wrote into their consoles: errors and warnings, policy violations, uncaught errors
     */
    leave: async (): Promise<void> => {
      await Promise.all(browser.contexts().map((context) => context.close()))
      const said = complaints.join('\n')
      complaints = []
      if (said !== '') throw new Error(`Pages complained:\n${said}`)
    },
    close: async (): Promise<void> => {
      await browser.close()
      await stack.close()
    },
  }
}

/** A running demo. */
export type Demo = Awaited<ReturnType<typeof startDemo>>
/** Somebody with a browser profile of their own. */
export type Visitor = Awaited<ReturnType<Demo['visit']>>

/** The heading that says who is signed in. */
export const signedInAs = (page: Page, name = 'Ada Lovelace') =>
  page.getByRole('heading', { name: `Signed in as ${name}` })

/** The heading that says that nobody is. */
export const signedOut = (page: Page) => page.getByRole('heading', { name: 'Signed out', exact: true })

/** Chooses who signs in, if asked, and allows everything. */
export const passAuthorizationServer = async (page: Page, name = 'Ada Lovelace'): Promise<void> => {
  await page.getByRole('button', { name }).click()
  await page.getByRole('button', { name: 'Allow' }).click()
}

/** Signs in by clicking, from the demo page on; the page says so then. */
export const signInByClicking = async (page: Page, name = 'Ada Lovelace'): Promise<void> => {
  await page.goto('/')
  await page.getByRole('link', { name: 'Sign in', exact: true }).click()
  await passAuthorizationServer(page, name)
  await signedInAs(page, name).waitFor()
}
