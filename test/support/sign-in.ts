import { exchange } from './http.ts'
import type { Browser, Page } from './user-agent.ts'

/** Who signs in, and what the login is asked for. */
export type SignIn = {
  /** A name on the demo server's page, such as `Ada`; a strict server that shows no page gets it as `login_hint` where given. */
  user?: string
  returnTo?: string
  provider?: string
  /** The button on the consent page: `Allow` or `Deny`. */
  consent?: string
}

/** Loads the frontend and starts a login there; resolves with the authorization server's page, or where no page was shown, the end. */
export const startLogin = async (tab: Browser, { user, returnTo, provider }: SignIn = {}): Promise<Page> => {
  const home = await tab.navigate('/')
  const query = new URLSearchParams()
  if (returnTo !== undefined) query.set('return_to', returnTo)
  if (provider !== undefined) query.set('provider', provider)
  if (user !== undefined) query.set('login_hint', user.toLowerCase())
  return tab.navigate(`/bff/login${query.size > 0 ? `?${query.toString()}` : ''}`, { from: home })
}

/** Goes through the authorization server's pages, if it shows any; resolves with the page after the callback. */
export const finishLogin = async (
  tab: Browser,
  page: Page,
  { user = 'Ada', consent = 'Allow' }: SignIn = {},
): Promise<Page> => {
  const has = ({ forms }: Page, label: string) =>
    forms.some(({ buttons }) => buttons.some(({ text }) => text.includes(label)))
  const away = new URL(page.url).origin !== tab.origin
  const chosen = away && has(page, user) ? await tab.submit(page, user) : page
  return new URL(chosen.url).origin !== tab.origin && has(chosen, consent) ? tab.submit(chosen, consent) : chosen
}

/** Signs in as a user would and resolves with the page that the browser ends on. */
export const signIn = async (tab: Browser, options: SignIn = {}): Promise<Page> =>
  finishLogin(tab, await startLogin(tab, options), options)

/** The headers of somebody who follows a link of the frontend or types an address. */
export const navigation: [string, string][] = [
  ['Accept', 'text/html'],
  ['Sec-Fetch-Site', 'same-origin'],
  ['Sec-Fetch-Mode', 'navigate'],
  ['Sec-Fetch-Dest', 'document'],
]

/** A login that a strict server has answered, with the browser not back yet. */
export type Pending = { authorization: URL; callback: URL }

/** Starts a login and has the strict server answer it; resolves with where the browser would go now. */
export const authorize = async (tab: Browser, query: Record<string, string> = {}): Promise<Pending> => {
  const path = `/bff/login?${new URLSearchParams(query).toString()}`
  const authorization = new URL((await tab.raw({ path, headers: navigation })).headers['location'] ?? '')
  const { origin, pathname, search } = authorization
  const answer = await exchange({ origin, method: 'GET', path: pathname + search, headers: [] })
  return { authorization, callback: new URL(answer.headers['location'] ?? '') }
}

/** The browser comes back from the authorization server. */
export const comeBack = (tab: Browser, { authorization, callback }: Pending): Promise<Page> =>
  tab.navigate(callback.href, { from: authorization.href })
