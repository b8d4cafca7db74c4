/**
 * Every way in which a request can fail, in one closed table: what the log calls it (the reason) and what the outside sees of it.
 * Several reasons share one public code on purpose: probing learns nothing about which check refused.
 */

interface Row {
  status: 400 | 401 | 403 | 404 | 405 | 413 | 431 | 500 | 502 | 503 | 504
  /** Stable public code, part of the HTTP contract. */
  code: string
  /** One sentence for the person or the script that made the request. */
  sentence: string
  /** How it is logged: `info` is somebody else's mistake, `warn` may be an attack or a passing fault, `error` needs an operator. */
  level: 'info' | 'warn' | 'error'
}

const login = {
  status: 400,
  code: 'login_invalid',
  sentence: 'This sign-in is no longer valid. Please sign in again.',
  level: 'warn',
} as const
const serverInvalid = {
  status: 502,
  code: 'authorization_server_invalid',
  sentence: 'The sign-in service gave an answer that cannot be trusted. Please try again later.',
  level: 'error',
} as const
const registration = { ...serverInvalid, sentence: 'The authorization server refused the registration.' } as const
const serverUnavailable = {
  status: 503,
  code: 'authorization_server_unavailable',
  sentence: 'The sign-in service cannot be reached right now. Please try again in a moment.',
  level: 'error',
} as const
const signedOut = { status: 401, code: 'session_required', sentence: 'You are not signed in.', level: 'info' } as const
const navigation = {
  code: 'navigation_required',
  sentence: 'Signing in starts by following a link, not from a script, a frame or a prefetch.',
  level: 'info',
} as const
const accountUnresolved = {
  status: 502,
  code: 'account_unresolved',
  sentence: 'It could not be found out who you are, so you are not signed in. You can try again.',
  level: 'error',
} as const
const notReady = {
  status: 503,
  code: 'provider_not_ready',
  sentence: 'Signing in is not set up yet. Please try again later.',
  level: 'error',
} as const
const apiToken = {
  status: 403,
  code: 'api_token_rejected',
  sentence: 'That API token was not accepted. Check that it was copied whole, that it has not expired, and try again.',
  level: 'info',
} as const
const csrf = {
  status: 403,
  code: 'csrf_rejected',
  sentence: 'The request does not prove that a page of this site made it: send the header X-CSRF: 1 from this origin.',
  level: 'warn',
} as const
const storeUnavailable = {
  status: 503,
  code: 'store_unavailable',
  sentence: 'The service cannot answer right now. Please try again in a moment.',
  level: 'error',
} as const
const internal = {
  status: 500,
  code: 'internal',
  sentence: 'Something went wrong here. Please try again later.',
  level: 'error',
} as const

export const reasons = {
  // what the caller sent
  request_invalid: { status: 400, code: 'request_invalid', sentence: 'The request is malformed.', level: 'info' },
  parameter_duplicated: { status: 400, code: 'request_invalid', sentence: 'The request is malformed.', level: 'warn' },
  parameter_too_large: { status: 400, code: 'request_invalid', sentence: 'The request is malformed.', level: 'info' },
  return_to_invalid: {
    status: 400,
    code: 'invalid_return_to',
    sentence: 'return_to must be a path on this site.',
    level: 'warn',
  },
  provider_unknown: {
    status: 404,
    code: 'provider_unknown',
    sentence: 'There is no sign-in service of that name.',
    level: 'info',
  },
  method_not_allowed: {
    status: 405,
    code: 'method_not_allowed',
    sentence: 'This method is not allowed here.',
    level: 'info',
  },
  not_a_navigation: { status: 403, ...navigation },
  prefetch_refused: { status: 503, ...navigation },
  csrf_header_missing: csrf,
  csrf_origin_wrong: csrf,
  csrf_site_wrong: csrf,
  path_invalid: {
    status: 400,
    code: 'path_invalid',
    sentence: 'The path is not one that can be forwarded.',
    level: 'warn',
  },
  header_invalid: { status: 400, code: 'request_invalid', sentence: 'The request is malformed.', level: 'warn' },
  header_too_large: {
    status: 431,
    code: 'header_too_large',
    sentence: 'The request headers are too large.',
    level: 'info',
  },
  api_unknown: {
    status: 404,
    code: 'route_not_allowed',
    sentence: 'There is no API route of that name.',
    level: 'info',
  },

  // a login in progress
  login_cookie_missing: login,
  login_cookie_unreadable: login,
  login_expired: login,
  login_already_used: login,
  login_overtaken: login,
  state_missing: login,
  provider_mismatch: login,
  issuer_mismatch: login,
  code_missing: login,
  code_rejected: login,
  id_token_invalid: login,
  login_denied: {
    status: 403,
    code: 'login_denied',
    sentence: 'Sign-in was cancelled or refused at the sign-in service. You can try again.',
    level: 'info',
  },
  authorization_error: {
    status: 400,
    code: 'login_failed',
    sentence: 'The sign-in service could not complete the sign-in. You can try again.',
    level: 'warn',
  },

  // a session
  session_missing: signedOut,
  session_ended: signedOut,
  grant_ended: { ...signedOut, level: 'warn' },
  renewal_pending: {
    status: 503,
    code: 'refresh_pending',
    sentence: 'Access is being renewed. Please try again in a moment.',
    level: 'warn',
  },

  // a token that a route has of its own
  access_refused: {
    status: 403,
    code: 'access_refused',
    sentence: 'The sign-in service gives you no access to this API.',
    level: 'warn',
  },
  resource_not_granted: {
    status: 403,
    code: 'access_not_granted',
    sentence: 'Your sign-in does not cover this API yet. Please sign in again.',
    level: 'info',
  },

  session_unknown: {
    status: 404,
    code: 'session_unknown',
    sentence: 'You have no session of that id.',
    level: 'info',
  },
  logout_token_invalid: {
    status: 400,
    code: 'logout_token_invalid',
    sentence: 'The logout token is not valid.',
    level: 'warn',
  },

  // the authorization server
  metadata_invalid: serverInvalid,
  token_reply_invalid: serverInvalid,
  userinfo_invalid: serverInvalid,
  account_refused: accountUnresolved,
  api_token_malformed: apiToken,
  api_token_rejected: apiToken,
  account_unresolved: accountUnresolved,
  server_refused: serverInvalid,
  client_rejected: {
    status: 503,
    code: 'authorization_server_unavailable',
    sentence: 'The sign-in service cannot be used right now. Please try again later.',
    level: 'error',
  },
  server_unreachable: serverUnavailable,
  server_address_refused: serverUnavailable,
  server_timeout: serverUnavailable,
  server_failed: serverUnavailable,
  certificate_unusable: notReady,
  not_registered: notReady,
  registration_refused: registration,
  registration_lost: registration,
  registration_unmanaged: registration,

  // the resource server
  resource_server_unreachable: {
    status: 502,
    code: 'resource_server_unavailable',
    sentence: 'The API cannot be reached right now.',
    level: 'error',
  },
  resource_server_address_refused: {
    status: 502,
    code: 'resource_server_unavailable',
    sentence: 'The API cannot be reached right now.',
    level: 'error',
  },
  resource_server_invalid: {
    status: 502,
    code: 'resource_server_invalid',
    sentence: 'The API gave an answer that cannot be passed on.',
    level: 'error',
  },
  resource_server_timeout: {
    status: 504,
    code: 'resource_server_timeout',
    sentence: 'The API took too long to answer.',
    level: 'error',
  },

  // our own parts
  store_unavailable: storeUnavailable,
  secrets_unavailable: storeUnavailable,
  background_unavailable: storeUnavailable,
  rotation_failed: internal,
  internal,
} as const satisfies Record<string, Row>

export type Reason = keyof typeof reasons

export interface FailureOptions {
  detail?: string | undefined
  cause?: unknown
  retryAfterSeconds?: number | undefined
  cookies?: readonly string[] | undefined
  tryAgain?: string | undefined
  allow?: readonly string[] | undefined
}

/**
 * A request ends with one reason of the table. `detail` goes to the log and never to the outside; it must not contain
 * a token, a secret or text of another server that was not cut to an error code.
 */
export class Failure extends Error {
  readonly reason: Reason
  readonly detail: string | undefined
  readonly retryAfterSeconds: number | undefined
  /** `Set-Cookie` values that go out with the answer. */
  readonly cookies: readonly string[]
  /** Path of ours that a person may follow to try again. */
  readonly tryAgain: string | undefined
  /** Methods that are allowed here, with `method_not_allowed` (RFC 9110 section 15.5.6). */
  readonly allow: readonly string[] | undefined

  constructor(reason: Reason, options: FailureOptions = {}) {
    super(options.detail === undefined ? reason : `${reason}: ${options.detail}`, { cause: options.cause })
    this.name = 'Failure'
    this.reason = reason
    this.detail = options.detail
    this.retryAfterSeconds = options.retryAfterSeconds
    this.cookies = options.cookies ?? []
    this.tryAgain = options.tryAgain
    this.allow = options.allow
  }

  /** The same failure with more to tell the browser. */
  with(more: Pick<FailureOptions, 'cookies' | 'tryAgain'>): Failure {
    const { reason, detail, cause, retryAfterSeconds, cookies, tryAgain, allow } = this
    return new Failure(reason, { detail, cause, retryAfterSeconds, cookies, tryAgain, allow, ...more })
  }
}

/** The error's name and code, which are safe to log; its message may quote what another server sent. */
export const causeName = (error: unknown): string => {
  if (!(error instanceof Error)) return typeof error
  const code = 'code' in error && typeof error.code === 'string' ? ` ${error.code}` : ''
  return `${error.name}${code}`
}
