import { json, type Answer, type Received } from './server.ts'

/** The answer that a check ends in; thrown, and caught where answers are sent. */
export class Refusal extends Error {
  readonly answer: Answer
  constructor(answer: Answer) {
    super(String(answer.body))
    this.answer = answer
  }
}

/** Ends the request with an OAuth error. */
export const refuse = (error: string, description: string, status = 400, headers = {}): never => {
  throw new Refusal(json(status, { error, error_description: description }, headers))
}

/** The bearer token of a request, which must be the only credential in it. */
export const bearer = ({ headers }: Received): string | undefined =>
  /^Bearer ([\w.~+/=-]+)$/.exec(headers.authorization ?? '')?.[1]

/** A form or query as a map, every name known, at most once and with a value. */
export const parametersOf = (form: URLSearchParams, known: readonly string[]): Map<string, string> => {
  const found = new Map<string, string>()
  for (const [name, value] of form) {
    if (!known.includes(name)) refuse('invalid_request', `unknown parameter ${name}`)
    if (found.has(name)) refuse('invalid_request', `${name} stands twice`)
    if (value === '') refuse('invalid_request', `${name} has no value`)
    found.set(name, value)
  }
  return found
}

/** The form of a POST, as strictly. */
export const formOf = (request: Received, known: readonly string[]): Map<string, string> => {
  if (request.method !== 'POST') refuse('invalid_request', 'only POST', 405)
  if (request.path.includes('?')) refuse('invalid_request', 'parameters belong in the body')
  if (!/^application\/x-www-form-urlencoded\b/.test(request.headers['content-type'] ?? '')) {
    refuse('invalid_request', 'the body is not a form')
  }
  return parametersOf(new URLSearchParams(request.body.toString('utf8')), known)
}

/** The one parameter that may come several times (RFC 8707 section 2) as one value, with spaces between. */
export const joined = (query: URLSearchParams): URLSearchParams => {
  const asked = query.getAll('resource')
  if (asked.length < 2 || new Set(asked).size < asked.length) return query
  const once = new URLSearchParams(query)
  once.set('resource', asked.join(' '))
  return once
}
