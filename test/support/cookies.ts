import { Cookie, CookieJar, getPublicSuffix } from 'tough-cookie'

/** One `Set-Cookie` line as it arrived; `stored` is false where a browser would have thrown it away. */
export type ReceivedCookie = {
  url: string
  line: string
  name: string
  value: string
  path: string | undefined
  domain: string | undefined
  secure: boolean
  httpOnly: boolean
  sameSite: string | undefined
  /** `undefined` for a cookie that ends with the browser. */
  maxAgeSeconds: number | undefined
  stored: boolean
}

/** Which cookies a request may carry: all, those that are not Strict, or only `SameSite=None` ones. */
export type SameSiteContext = 'strict' | 'lax' | 'none'

const registrableDomain = (hostname: string): string => {
  try {
    return getPublicSuffix(hostname) ?? hostname
  } catch {
    return hostname
  }
}

/** True if both URLs are of one schemeful site. Ports do not count; `localhost` and `127.0.0.1` are two sites. */
export const sameSite = (a: URL, b: URL): boolean =>
  a.protocol === b.protocol && registrableDomain(a.hostname) === registrableDomain(b.hostname)

/** RFC 6265bis §4.1.3 and the `Http` prefixes of Layered Cookies; prefixes match whatever the case. */
const keepsItsPrefix = (cookie: Cookie): boolean => {
  const name = cookie.key.toLowerCase()
  const host = cookie.secure && cookie.domain === null && cookie.path === '/'
  if (name === '') return !/^__(host|secure|http)-/i.test(cookie.value)
  if (name.startsWith('__host-http-')) return host && cookie.httpOnly
  if (name.startsWith('__host-')) return host
  if (name.startsWith('__http-')) return cookie.secure && cookie.httpOnly
  return !name.startsWith('__secure-') || cookie.secure
}

/**
 * A browser's cookie store: prefixes, SameSite, Secure also on loopback, 4096 bytes a cookie. A cookie without SameSite
 * is Lax, without Chromium's two minutes in which it may go along with a cross-site POST.
 */
export const createCookies = () => {
  const jar = new CookieJar(undefined, { prefixSecurity: 'unsafe-disabled', rejectPublicSuffixes: true })
  const received: ReceivedCookie[] = []

  const store = (cookie: Cookie, url: string, context: SameSiteContext): boolean => {
    cookie.sameSite ??= 'lax'
    if (!keepsItsPrefix(cookie) || cookie.key.length + cookie.value.length > 4096) return false
    if (cookie.sameSite === 'none' && !cookie.secure) return false
    try {
      return jar.setCookieSync(cookie, url, { sameSiteContext: context, http: true }) !== undefined
    } catch {
      return false
    }
  }

  return {
    /** Every `Set-Cookie` line that any answer ever carried, oldest first. */
    received: received as readonly ReceivedCookie[],

    /** Takes the `Set-Cookie` lines of an answer from `url`. */
    take: (lines: string[], url: string, context: SameSiteContext): void => {
      for (const line of lines) {
        const cookie = Cookie.parse(line, { loose: true })
        if (!cookie) continue
        const { key, value, path, domain, secure, httpOnly, sameSite: rule, maxAge } = cookie
        const stored = store(cookie, url, context)
        received.push({
          url,
          line,
          name: key,
          value,
          path: path ?? undefined,
          domain: domain ?? undefined,
          secure,
          httpOnly,
          sameSite: rule,
          maxAgeSeconds: typeof maxAge === 'number' ? maxAge : undefined,
          stored,
        })
      }
    },

    /** The `Cookie` header for a request to `url`, empty if nothing may be sent. */
    header: (url: string, context: SameSiteContext): string =>
      jar.getCookieStringSync(url, { sameSiteContext: context, http: true }),

    /** The names of the cookies that `url` could see, in the order in which they are sent. */
    names: (url: string): string[] => jar.getCookiesSync(url).map((cookie) => cookie.key),

    /** The value of a cookie that `url` could see. */
    get: (url: string, name: string): string | undefined =>
      jar.getCookiesSync(url).find((cookie) => cookie.key === name)?.value,

    /** Puts a cookie into the store as if `url` had answered with this `Set-Cookie` line; the rules hold. */
    set: (line: string, url: string): boolean => {
      const cookie = Cookie.parse(line, { loose: true })
      return cookie !== undefined && store(cookie, url, 'strict')
    },

    /** Forgets the cookies that `url` could see: those whose name passes `which`, or all. */
    forget: (url: string, which: (name: string) => boolean = () => true): void => {
      for (const cookie of jar.getCookiesSync(url)) {
        if (!which(cookie.key)) continue
        jar.store.removeCookie(cookie.domain ?? '', cookie.path ?? '/', cookie.key, () => undefined)
      }
    },
  }
}

/** A cookie store that several tabs share. */
export type Cookies = ReturnType<typeof createCookies>
