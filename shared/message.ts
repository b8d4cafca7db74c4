/** The plain request and reply that flows work with; `lambdas/edge` translates both from and to API Gateway. */

import { Failure } from './errors.ts'

export interface Request {
  method: string
  /** Path as the gateway gives it, percent-decoded once. */
  path: string
  pathParameters: Readonly<Record<string, string>>
  /** Without the leading question mark, still encoded. */
  rawQuery: string
  /** Names in lower case; repeated headers joined by a comma. */
  headers: Readonly<Record<string, string>>
  /** The `Cookie` header as one string. */
  cookies: string
  body: Uint8Array
  /** Names this request in logs, pages and problems. */
  id: string
}

export interface Reply {
  status: number
  headers?: Record<string, string>
  /** Complete `Set-Cookie` values. */
  cookies?: string[]
  body?: string | Uint8Array
  /** How long anybody may keep the reply; left out, nobody may. */
  cacheSeconds?: number
}

/** A page for a person; `lambdas/pages` turns it into HTML. */
export const json = (status: number, value: unknown, more: Omit<Reply, 'status' | 'body'> = {}): Reply => ({
  status,
  ...more,
  headers: { 'content-type': 'application/json', ...more.headers },
  body: JSON.stringify(value),
})

/** A redirect that turns any method into GET (RFC 9110 section 15.4.4), or 302 where the contract says so. */
export const redirect = (status: 302 | 303, location: string, cookies: string[] = []): Reply => ({
  status,
  headers: { location },
  cookies,
})

const PARAMETER_LIMIT_CHARACTERS = 4_096

/**
 * The one value of a query or form parameter, or undefined when it is absent.
 * @throws parameter_duplicated, parameter_too_large
 */
export const single = (parameters: URLSearchParams, name: string): string | undefined => {
  const values = parameters.getAll(name)
  if (values.length > 1) throw new Failure('parameter_duplicated', { detail: name })
  const value = values[0]
  if (value !== undefined && value.length > PARAMETER_LIMIT_CHARACTERS) {
    throw new Failure('parameter_too_large', { detail: name })
  }
  return value
}

const QUERY_LIMIT_CHARACTERS = 8_192

/**
 * The query's parameters, decoded.
 * @throws parameter_too_large over 8,192 characters
 */
export const query = (request: Request): URLSearchParams => {
  if (request.rawQuery.length > QUERY_LIMIT_CHARACTERS) throw new Failure('parameter_too_large', { detail: 'query' })
  return new URLSearchParams(request.rawQuery)
}

/** Whether a form was posted (RFC 1866 form encoding), as opposed to a script's fetch. */
export const isForm = (request: Request): boolean =>
  (request.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() === 'application/x-www-form-urlencoded'

/**
 * Whether a person looks at the reply: a browser says so itself in `Sec-Fetch-Mode`, others by what they accept.
 * Navigations get pages, fetches get problems.
 */
export const isNavigation = (request: Request): boolean => {
  const mode = request.headers['sec-fetch-mode']
  if (mode !== undefined) return mode === 'navigate'
  return (request.headers['accept'] ?? '').includes('text/html')
}
