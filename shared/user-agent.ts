import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import { isForm, query } from './message.ts'
import type { Request } from './message.ts'
import { asAccount, asHandle, hashState } from './seal.ts'
import type { AccountId, Handle, HandleHash, Sealer } from './seal.ts'

/**
 * All that concerns the browser: the two cookies, the proof that a page of ours made the request, and where it may be sent.
 * Cookies follow RFC 6265bis and RFC 10017 section 6.1.3.2; browsers that do not know `__Host-Http-` treat it as `__Host-`.
 */

const SESSION_COOKIE = '__Host-Http-session'
const LOGIN_COOKIE_PREFIX = '__Host-Http-login.'
const ATTRIBUTES = 'Path=/; Secure; HttpOnly'
/** How long a login may take, in seconds. */
export const LOGIN_SECONDS = 600
const MAX_LOGINS = 5
/** Most that all login cookies may take of the `Cookie` header, so that logins begun and left never lock a browser out. */
const LOGINS_LIMIT_CHARACTERS = 6_000
const COOKIE_HEADER_LIMIT_CHARACTERS = 8_192

/** What the session cookie says. */
export interface Ticket {
  account: AccountId
  handle: Handle
}

/** An authorization request in progress; it lives in its sealed cookie only. */
export interface Login {
  provider: string
  issuer: string
  client_id: string
  redirect_uri: string
  code_verifier: string
  nonce: string | undefined
  resource: string | undefined
  /** Resources that were asked for besides, for routes that have their own; left out where there are none. */
  route_resources?: readonly string[] | undefined
  return_to: string
  /** Milliseconds since the epoch. */
  started_ms: number
  /** Seconds since the epoch. */
  expires: number
  /** Key of the session that this browser had when the login began; it ends when the login succeeds. */
  replaces: { account: AccountId; session: HandleHash } | undefined
}

const cookiesOf = (request: Request): [name: string, value: string][] => {
  if (request.cookies.length > COOKIE_HEADER_LIMIT_CHARACTERS)
    throw new Failure('header_too_large', { detail: 'cookie' })
  return request.cookies.split(';').map((pair) => {
    // Only space and tab may be dropped: trimming Unicode white space would let a look-alike name pass for ours.
    const text = pair.replace(/^[ \t]+|[ \t]+$/g, '')
    const equals = text.indexOf('=')
    return equals === -1 ? ['', text] : [text.slice(0, equals), text.slice(equals + 1)]
  })
}

/**
 * The ticket in the session cookie; undefined when there is none, when it has not the form of one, or when there are two.
 * `present` tells whether the browser sent anything under that name, so that a dead cookie can be cleared.
 * @throws header_too_large
 */
export const sessionTicket = (request: Request): { ticket: Ticket | undefined; present: boolean } => {
  const values = cookiesOf(request).filter(([name]) => name === SESSION_COOKIE)
  const [account = '', handle = '', ...rest] = values.length === 1 ? (values[0]?.[1].split('.') ?? []) : []
  const ticketAccount = asAccount(account)
  const ticketHandle = asHandle(handle)
  if (rest.length > 0 || ticketAccount === undefined || ticketHandle === undefined) {
    return { ticket: undefined, present: values.length > 0 }
  }
  return { ticket: { account: ticketAccount, handle: ticketHandle }, present: true }
}

/** The `Set-Cookie` that hands out a ticket, for as long as the session can live. */
export const setSessionCookie = (ticket: Ticket, maxAgeSeconds: number): string =>
  `${SESSION_COOKIE}=${ticket.account}.${ticket.handle}; ${ATTRIBUTES}; SameSite=Strict; Max-Age=${maxAgeSeconds}`

/** The `Set-Cookie` that takes the ticket away, with the attributes it was set with: a prefixed cookie survives any other. */
export const clearSessionCookie = (): string => `${SESSION_COOKIE}=; ${ATTRIBUTES}; SameSite=Strict; Max-Age=0`

const loginCookie = (name: string, value: string, maxAgeSeconds: number): string =>
  `${name}=${value}; ${ATTRIBUTES}; SameSite=Lax; Max-Age=${maxAgeSeconds}`

/** A login cookie is named by when it began and by its state's hash, so that its callback finds it and the oldest can go. */
const loginCookieName = (state: string, startedSeconds: number): string =>
  `${LOGIN_COOKIE_PREFIX}${startedSeconds.toString(36)}-${hashState(state).slice(0, 22)}`

const loginCookiesOf = (request: Request): [name: string, value: string][] =>
  cookiesOf(request).filter(([name]) => name.startsWith(LOGIN_COOKIE_PREFIX))

/** When the login of a cookie began, as its name says it. */
const startedOf = ([name]: [name: string, value: string]): string =>
  name.slice(LOGIN_COOKIE_PREFIX.length).split('-', 1)[0] ?? ''

/**
 * The cookies that keep a login in this browser: its own, and the removal of the oldest ones where there would be too many or too much.
 * @throws secrets_unavailable
 */
export const keepLogin = async (request: Request, sealer: Sealer, state: string, login: Login): Promise<string[]> => {
  const value = Buffer.from(await sealer.seal('login', [state], JSON.stringify(login))).toString('base64url')
  const own = loginCookie(loginCookieName(state, login.expires - LOGIN_SECONDS), value, LOGIN_SECONDS)
  let size = own.length
  // Browsers send the older of two cookies first, and sorting keeps that order within a second.
  const newestFirst = loginCookiesOf(request)
    .toSorted((one, other) => (startedOf(one) < startedOf(other) ? -1 : Number(startedOf(one) > startedOf(other))))
    .toReversed()
  const tooMany = newestFirst.filter(([name, other], index) => {
    size += name.length + other.length
    return index >= MAX_LOGINS - 1 || size > LOGINS_LIMIT_CHARACTERS
  })
  return [...tooMany.map(([name]) => loginCookie(name, '', 0)), own]
}

/** The login that a callback's state belongs to in this browser, and the `Set-Cookie` that forgets it. */
export interface KeptLogin {
  login: Login
  forget: string
}

/**
 * The login of that state. Its cookie proves that this browser began it; the seal, that nothing in it was changed.
 * @throws login_cookie_missing, login_cookie_unreadable, login_expired, secrets_unavailable
 */
export const keptLogin = async (
  request: Request,
  sealer: Sealer,
  state: string,
  nowSeconds: number,
): Promise<KeptLogin> => {
  const suffix = `-${hashState(state).slice(0, 22)}`
  const cookies = loginCookiesOf(request).filter(([name]) => name.endsWith(suffix))
  const cookie = cookies[0]
  if (cookie === undefined || cookies.length > 1) throw new Failure('login_cookie_missing')
  const [name, value] = cookie
  const text = /^[A-Za-z0-9_-]+$/.test(value)
    ? await sealer.open('login', [state], Buffer.from(value, 'base64url'))
    : undefined
  if (text === undefined) throw new Failure('login_cookie_unreadable')
  const login = JSON.parse(text) as Login
  if (login.expires <= nowSeconds) throw new Failure('login_expired')
  return { login, forget: loginCookie(name, '', 0) }
}

/**
 * The request proves that a page of this origin made it: `X-CSRF: 1`, which no other site can send without our leave, and where
 * the browser says so, the right origin and site. A posted form cannot carry the header; there the browser's word is needed.
 * `navigation` allows GET of our own pages without the header, for downloads and images.
 * @throws csrf_header_missing, csrf_origin_wrong, csrf_site_wrong
 * @see RFC 10017 section 6.1.3.3
 */
export const requireRequestProof = (
  request: Request,
  stage: Stage,
  allow: { form?: boolean; navigation?: boolean } = {},
): void => {
  const site = request.headers['sec-fetch-site']
  const origin = request.headers['origin']
  const form = allow.form === true && isForm(request)

  if (site !== undefined && site !== 'same-origin') throw new Failure('csrf_site_wrong')
  // A form on a page with Referrer-Policy: no-referrer is sent with Origin: null; its site then has to be known.
  const originMissing = origin === undefined || (form && site === 'same-origin' && origin === 'null')
  if (!originMissing && origin !== stage.origin) throw new Failure('csrf_origin_wrong')

  if (request.headers['x-csrf'] === '1') return
  if (form && (site === 'same-origin' || origin === stage.origin)) return
  if (allow.navigation === true && request.method === 'GET' && site === 'same-origin') return
  throw new Failure('csrf_header_missing')
}

/**
 * The request is a person following a link: not a frame, an image, a script or a prefetch. Browsers that do not tell are believed.
 * @throws not_a_navigation, prefetch_refused
 */
export const requireUserNavigation = (request: Request): void => {
  const purpose = `${request.headers['sec-purpose'] ?? ''} ${request.headers['purpose'] ?? ''}`
  if (purpose.includes('prefetch') || purpose.includes('prerender')) throw new Failure('prefetch_refused')
  const mode = request.headers['sec-fetch-mode']
  const destination = request.headers['sec-fetch-dest']
  if (mode !== undefined && mode !== 'navigate') throw new Failure('not_a_navigation')
  if (destination !== undefined && destination !== 'document') throw new Failure('not_a_navigation')
}

const RETURN_TO_LIMIT_CHARACTERS = 2_048
/** Printable ASCII without the characters that parsers disagree on, and no escape of a control character. */
const RETURN_TO_TEXT = /^(?:%(?![01]|7f)[0-9a-f]{2}|[!$&'()*+,\-./0-9:;=?@A-Z[\]_a-z~#])*$/i
/** In a path, neither a dot, a slash, a backslash nor a percent sign may hide in an escape. */
const PATH_ESCAPES = /%(?:2e|2f|5c|25)/i

/** Escapes that are no UTF-8 are read differently by each reader. */
const isUtf8 = (path: string): boolean => {
  try {
    return decodeURIComponent(path).isWellFormed()
  } catch {
    return false
  }
}

const isLocalPath = (value: string): boolean => {
  const path = value.split(/[?#]/, 1)[0] ?? ''
  return (
    path.startsWith('/') &&
    isUtf8(path) &&
    !path.includes('//') &&
    !PATH_ESCAPES.test(path) &&
    !path.split('/').some((segment) => /^\.{1,2}(;|$)/.test(segment))
  )
}

/**
 * Where the browser goes after login or logout, as an absolute URL: a path of ours, or a URL on one of the stage's origins,
 * re-serialised. `/bff` is no place to return to: it would loop or sign out.
 * @throws return_to_invalid
 * @see RFC 9700 section 4.11
 */
export const resolveReturnTo = (value: string, stage: Stage): string => {
  const refuse = (): never => {
    throw new Failure('return_to_invalid')
  }
  if (value.length > RETURN_TO_LIMIT_CHARACTERS || !RETURN_TO_TEXT.test(value)) return refuse()
  const origins = [stage.origin, ...stage.return_to_origins]
  const base = value.startsWith('/')
    ? stage.origin
    : origins.find((origin) => value === origin || value.startsWith(`${origin}/`))
  if (base === undefined) return refuse()
  const local = value.startsWith('/') ? value : value.slice(base.length) || '/'
  if (!isLocalPath(local)) return refuse()
  const url = new URL(local, base)
  if (url.origin !== base || url.href !== base + local) return refuse()
  if (base === stage.origin && /^\/bff(\/|$)/i.test(decodeURIComponent(url.pathname))) return refuse()
  return url.href
}

/** `return_to` of the query, or our own front page. @throws return_to_invalid */
export const returnTo = (request: Request, stage: Stage): string => {
  const values = query(request).getAll('return_to')
  const value = values[0]
  if (values.length > 1) throw new Failure('return_to_invalid')
  return value === undefined ? `${stage.origin}/` : resolveReturnTo(value, stage)
}
