import { createCookies, sameSite, type Cookies, type SameSiteContext } from './cookies.ts'
import { formsOf, linksOf, visibleText, type Form, type Link } from './html.ts'
import { exchange, type HeaderLines, type Reply } from './http.ts'

/** One request of a browser with its answer's head. */
export type Hop = {
  method: string
  url: string
  requestHeaders: HeaderLines
  status: number
  location: string | undefined
  setCookies: string[]
}

/** What a tab shows after a navigation: the last answer, and how it was reached. */
export type Page = Reply & {
  url: string
  hops: Hop[]
  forms: Form[]
  links: Link[]
  /** The words that a reader sees. */
  visible: string
}

/** Where a navigation comes from: a page that was loaded, a URL of one, or nothing (typed, or a bookmark). */
export type Initiator = Page | string | undefined

/** What a page script asks for. */
export type ScriptRequest = {
  method?: string
  headers?: Record<string, string>
  body?: string | Uint8Array
  /** Sent as JSON with its content type. */
  json?: unknown
  /** `X-CSRF: 1`, the request proof; true unless told. */
  csrf?: boolean
  /** The origin of the page whose script this is; the browser's own origin unless told. */
  from?: string
  signal?: AbortSignal
}

const maxHops = 20
const userAgent =
  'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36'

const matches = (text: string, wanted: string | RegExp): boolean =>
  typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text)

/** Fetch Metadata §2.3 `set-site`: the farthest any URL of the chain is from the initiator. */
const fetchSite = (initiator: URL | undefined, chain: URL[]): string => {
  if (!initiator) return 'none'
  if (chain.every((url) => url.origin === initiator.origin)) return 'same-origin'
  return chain.every((url) => sameSite(url, initiator)) ? 'same-site' : 'cross-site'
}

/**
 * Which cookies the last URL of a chain may see. A chain that had a hop on another site counts as cross-site to its
 * end, also when a user typed its first URL; browsers differ there and this is the strictest.
 */
const cookieContext = (initiator: URL | undefined, chain: URL[], lax: boolean): SameSiteContext => {
  const target = chain.at(-1)
  const all = initiator ? [initiator, ...chain] : chain
  if (target && all.every((url) => sameSite(url, target))) return 'strict'
  return lax ? 'lax' : 'none'
}

/** Fetch §3.1 and Referrer Policy §8: what a navigation says about the page that it leaves. */
const leaving = (initiator: URL | undefined, policy: string, chain: URL[]): { referrer?: string; origin: string } => {
  if (!initiator) return { origin: 'null' }
  const stays = chain.every((url) => url.origin === initiator.origin)
  if (policy === 'no-referrer' || (policy === 'same-origin' && !stays)) return { origin: 'null' }
  const moved = chain.slice(0, -1).some((url) => url.origin !== initiator.origin)
  const referrer = stays ? `${initiator.origin}${initiator.pathname}${initiator.search}` : `${initiator.origin}/`
  return { referrer, origin: moved ? 'null' : initiator.origin }
}

/**
 * A browser as the product meets it: one tab, a cookie store, navigations that follow redirects, and page scripts.
 * It sends what Chromium sends (Fetch Metadata, Origin, Referer) over plain `node:http`, so that odd paths and bytes
 * arrive as written. `origin` is where its own page scripts live.
 * @see RFC 6265bis §5.2 and §5.8.3 (SameSite), https://www.w3.org/TR/fetch-metadata/
 */
export const createBrowser = ({ origin, cookies = createCookies() }: { origin: string; cookies?: Cookies }) => {
  const history: Hop[] = []

  const send = async (hop: {
    url: URL
    path?: string
    method: string
    headers: HeaderLines
    body?: string | Uint8Array | undefined
    /** Which cookies go along; none at all, and none are taken, where it is undefined. */
    context: SameSiteContext | undefined
    /** True for the tab's document, which may set SameSite cookies from wherever it was reached. */
    document?: boolean
    signal?: AbortSignal | undefined
  }): Promise<Reply> => {
    const { url, method, context } = hop
    const cookie = context === undefined ? '' : cookies.header(url.href, context)
    const headers: HeaderLines = [
      ['User-Agent', userAgent],
      ...hop.headers,
      ...(cookie === '' ? [] : ([['Cookie', cookie]] as HeaderLines)),
    ]
    const path = hop.path ?? `${url.pathname}${url.search}`
    const reply = await exchange({ origin: url.origin, method, path, headers, body: hop.body, signal: hop.signal })
    if (context !== undefined) cookies.take(reply.setCookies, url.href, hop.document ? 'strict' : context)
    if (/"(cookies|\*)"/.test(reply.headers['clear-site-data'] ?? '')) cookies.forget(url.href)
    history.push({
      method,
      url: url.href,
      requestHeaders: headers,
      status: reply.status,
      location: reply.headers['location'],
      setCookies: reply.setCookies,
    })
    return reply
  }

  /** Loads a URL as the tab's document and follows redirects, at most 20; a refused or non-http target stays unread. */
  const navigate = async (
    target: string,
    options: { from?: Initiator; method?: 'GET' | 'POST'; body?: string; type?: string } = {},
  ): Promise<Page> => {
    const { from } = options
    const initiator = from === undefined ? undefined : new URL(typeof from === 'string' ? from : from.url)
    const policy = typeof from === 'object' ? (from.headers['referrer-policy'] ?? '') : ''
    const start = history.length
    const chain = [new URL(target, initiator ?? origin)]
    let method: string = options.method ?? 'GET'
    let body = options.body
    for (;;) {
      const url = chain.at(-1) ?? new URL(origin)
      const { referrer, origin: sender } = leaving(initiator, policy, chain)
      const headers: HeaderLines = [
        ['Upgrade-Insecure-Requests', '1'],
        ['Accept', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'],
        ['Accept-Language', 'en-GB,en;q=0.9'],
        ['Sec-Fetch-Site', fetchSite(initiator, chain)],
        ['Sec-Fetch-Mode', 'navigate'],
        ['Sec-Fetch-User', '?1'],
        ['Sec-Fetch-Dest', 'document'],
      ]
      if (referrer !== undefined) headers.push(['Referer', referrer])
      if (method === 'POST') headers.push(['Origin', sender])
      if (method === 'POST' && options.type !== undefined) headers.push(['Content-Type', options.type])
      const reply = await send({
        url,
        method,
        headers,
        body,
        context: cookieContext(initiator, chain, method === 'GET'),
      })
      const { location } = reply.headers
      const next = [301, 302, 303, 307, 308].includes(reply.status) && location ? URL.parse(location, url.href) : null
      if (!next || !/^https?:$/.test(next.protocol)) {
        return {
          ...reply,
          url: url.href,
          hops: history.slice(start),
          forms: formsOf(reply.text),
          links: linksOf(reply.text),
          visible: visibleText(reply.text),
        }
      }
      if (reply.status < 307) [method, body] = ['GET', undefined]
      chain.push(next)
      if (chain.length > maxHops) throw new Error(`too many redirects, the last one to ${next.href}`)
    }
  }

  /** Follows the first link of `page` whose text or href contains `wanted`. */
  const click = (page: Page, wanted: string | RegExp): Promise<Page> => {
    const link = page.links.find(({ href, text }) => matches(text, wanted) || matches(href, wanted))
    if (!link) throw new Error(`no link ${String(wanted)} on ${page.url}: ${page.visible.slice(0, 400)}`)
    return navigate(new URL(link.href, page.url).href, { from: page })
  }

  /**
   * Fills in and sends the first form of `page` that has a button (or, where it has none, words) like `wanted`; its
   * first form if nothing is wanted. `values` replace or add fields by name.
   */
  const submit = (page: Page, wanted: string | RegExp = '', values: Record<string, string> = {}): Promise<Page> => {
    const labels = ({ buttons, text }: Form) => (buttons.length > 0 ? buttons.map((button) => button.text) : [text])
    const form = page.forms.find((candidate) => labels(candidate).some((label) => matches(label, wanted)))
    if (!form) throw new Error(`no form ${String(wanted)} on ${page.url}: ${page.visible.slice(0, 400)}`)
    const button = form.buttons.find(({ text }) => matches(text, wanted))
    const fields = new URLSearchParams(form.fields.filter(([name]) => !(name in values)))
    for (const [name, value] of Object.entries(values)) fields.append(name, value)
    if (button && button.name !== '') fields.append(button.name, button.value)
    const target = new URL(form.action, page.url)
    if (form.method === 'POST') {
      const type = 'application/x-www-form-urlencoded'
      return navigate(target.href, { from: page, method: 'POST', body: fields.toString(), type })
    }
    target.search = fields.toString()
    return navigate(target.href, { from: page })
  }

  /** Calls as a script of a page at `from` would, with credentials; never follows a redirect. */
  const fetch = (path: string, request: ScriptRequest = {}): Promise<Reply> => {
    const { method = 'GET', csrf = true, json, from = origin, signal } = request
    const url = new URL(path, origin)
    const page = new URL(from)
    const body = json === undefined ? request.body : JSON.stringify(json)
    const headers: HeaderLines = Object.entries(request.headers ?? {})
    const named = new Set(headers.map(([name]) => name.toLowerCase()))
    const add = (name: string, value: string) => {
      if (!named.has(name.toLowerCase())) headers.push([name, value])
    }
    if (csrf) add('X-CSRF', '1')
    if (json !== undefined) add('Content-Type', 'application/json')
    else if (typeof body === 'string') add('Content-Type', 'text/plain;charset=UTF-8')
    add('Accept', '*/*')
    add('Sec-Fetch-Site', fetchSite(page, [url]))
    add('Sec-Fetch-Mode', 'cors')
    add('Sec-Fetch-Dest', 'empty')
    add('Referer', `${page.origin}/`)
    if (method !== 'GET' && method !== 'HEAD') add('Origin', page.origin)
    else if (page.origin !== url.origin) add('Origin', page.origin)
    return send({ url, method, headers, body, context: cookieContext(page, [url], false), signal })
  }

  /** Sends exactly this to the browser's origin, with the cookies of a same-origin request unless `cookies` is false. */
  const raw = (request: {
    path: string
    method?: string
    headers?: HeaderLines
    body?: string | Uint8Array
    cookies?: boolean
  }): Promise<Reply> =>
    send({
      url: new URL(origin),
      path: request.path,
      method: request.method ?? 'GET',
      headers: request.headers ?? [],
      body: request.body,
      context: request.cookies === false ? undefined : 'strict',
    })

  return {
    origin,
    cookies,
    /** Every request of this tab, redirects included, oldest first. */
    history: history as readonly Hop[],
    navigate,
    click,
    submit,
    fetch,
    raw,
    /** Another tab of the same browser: it shares the cookies. */
    newTab: () => createBrowser({ origin, cookies }),
  }
}

/** A tab of a browser. */
export type Browser = ReturnType<typeof createBrowser>
