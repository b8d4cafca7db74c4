import { hidden, onlyPublicParts, publicHeaders, publicParts, publicUrl } from './redact.ts'

/** One HTTP call that a function made, as `instance.ts` saw it: nothing redacted, times in ms, header names lower case. */
export interface HttpObservation {
  functionName: string
  method: string
  url: string
  requestHeaders: Record<string, string>
  requestBody: string
  status?: number
  responseHeaders: Record<string, string>
  responseBody: string
  startedAtMs: number
  durationMs: number
  error?: string
}

/** One request of the browser to `/bff` or `/api`, as the gateway saw it; `query` is the raw query string. */
export interface BrowserObservation {
  method: string
  path: string
  query: string
  status: number
  location?: string
  startedAtMs: number
  durationMs: number
  functionName?: string
}

export type Party = 'browser' | 'coatcheck' | 'authorization server' | 'resource server'

export type Step =
  | 'discovery'
  | 'registration'
  | 'login'
  | 'authorize'
  | 'callback'
  | 'token'
  | 'refresh'
  | 'userinfo'
  | 'jwks'
  | 'revocation'
  | 'session'
  | 'logout'
  | 'api'
  | 'other'

/** One message of the exchange, fit to be shown: only public values, everything else as `••• (43 characters)`. */
export interface TraceEntry {
  id: number
  /** When it began, ISO 8601. */
  at: string
  step: Step
  from: Party
  to: Party
  method: string
  url: string
  request: Record<string, string>
  /** Null where there was no answer, or where the browser goes on by itself. */
  status: number | null
  response: Record<string, string>
  duration_ms: number | null
  title: string
  /** Where the message is specified; empty for our own. */
  reference: string
}

export interface Trace {
  observeOutgoing(observation: HttpObservation): void
  observeBrowser(observation: BrowserObservation): void
  /** Adds a sentence of the runner's own; it is shown as it is. */
  note(step: Step, text: string): void
  /** The newest entries, at most `limit`, in the order in which they began. */
  list(): TraceEntry[]
  /** Calls `listener` with every new entry until the returned function is called. */
  subscribe(listener: (entry: TraceEntry) => void): () => void
}

type Members = [string, unknown][]

interface Meaning {
  step: Step
  title: string
  reference: string
}

const meaning = (step: Step, title: string, reference = ''): Meaning => ({ step, title, reference })

const endpointMeanings: Readonly<Record<string, Meaning>> = {
  jwks_uri: meaning('jwks', 'Coatcheck fetches the keys of the authorization server', 'RFC 7517 section 5'),
  pushed_authorization_request_endpoint: meaning(
    'authorize',
    'Coatcheck pushes the authorization request',
    'RFC 9126 section 2.1',
  ),
  revocation_endpoint: meaning('revocation', 'Coatcheck revokes a token', 'RFC 7009 section 2.1'),
  userinfo_endpoint: meaning(
    'userinfo',
    'Coatcheck asks for claims about the user',
    'OpenID Connect Core 1.0 section 5.3',
  ),
}

const registrationMeanings: Readonly<Record<string, Meaning>> = {
  POST: meaning('registration', 'Coatcheck registers itself as a client', 'RFC 7591 section 3.1'),
  GET: meaning('registration', 'Coatcheck reads its registration', 'RFC 7592 section 2.1'),
  PUT: meaning('registration', 'Coatcheck updates its registration', 'RFC 7592 section 2.2'),
  DELETE: meaning('registration', 'Coatcheck deletes its registration', 'RFC 7592 section 2.3'),
}

const grantMeanings: Readonly<Record<string, Meaning>> = {
  authorization_code: meaning('token', 'Coatcheck redeems the code for tokens', 'RFC 6749 section 4.1.3'),
  refresh_token: meaning('refresh', 'Coatcheck refreshes the tokens', 'RFC 6749 section 6'),
}

const discovery = meaning('discovery', 'Coatcheck reads the metadata of the authorization server', 'RFC 8414 section 3')
const token = meaning('token', 'Coatcheck asks for a token', 'RFC 6749 section 3.2')
const apiCall = meaning('api', "Coatcheck calls the resource server with the user's token", 'RFC 6750 section 2.1')
const otherCall = meaning('other', 'Coatcheck makes a call')
const authorize = meaning('authorize', 'The browser carries the authorization request over', 'RFC 6749 section 4.1.1')

const browserMeanings: readonly [request: RegExp, meaning: Meaning][] = [
  [/^\S+ \/bff\/login$/, meaning('login', 'The browser starts a login', 'RFC 6749 section 4.1')],
  [/^\S+ \/bff\/callback\//, meaning('callback', 'The browser comes back with the answer', 'RFC 6749 section 4.1.2')],
  [/^\S+ \/bff\/session$/, meaning('session', 'The browser asks who is signed in')],
  [/^\S+ \/bff\/refresh$/, meaning('session', 'The browser keeps its session alive')],
  [/^\S+ \/bff\/sessions/, meaning('session', 'The browser looks after its sessions')],
  [/^POST \/bff\/logout$/, meaning('logout', 'The browser signs out')],
  [/^GET \/bff\/logout$/, meaning('logout', 'The browser asks to sign out, or is back from it')],
  [/^\S+ \/bff\/jwks\.json$/, meaning('jwks', "Somebody fetches Coatcheck's public keys", 'RFC 7517 section 5')],
  [/^\S+ \/api\//, meaning('api', 'The browser calls an API with its session cookie')],
]

const membersOf = (text: string): Members | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value) : undefined
  } catch {
    return undefined
  }
}

const withoutQuery = (url: string): string => url.replace(/[?#].*$/s, '')

const isForm = (text: string): boolean => /^[\w.+%-]+=/.test(text)

const bodyParts = (text: string): Record<string, string> => {
  if (text === '') return {}
  const members = membersOf(text)
  if (members) return publicParts(members)
  return isForm(text) ? publicParts(new URLSearchParams(text)) : { body: hidden(text) }
}

/** Bodies of API calls are the user's business: only their size is told. */
const bodySize = (text: string, headers: Record<string, string>): Record<string, string> => {
  const length = Number(headers['content-length'] ?? Buffer.byteLength(text))
  return length > 0 ? { body: `••• (${length} bytes)` } : {}
}

/** The kind of failure, such as ECONNREFUSED, without the rest of the message. */
const failureParts = (error: string | undefined): Record<string, string> =>
  error === undefined ? {} : { failure: /\bE[A-Z]{4,20}\b/.exec(error)?.[0] ?? 'no answer' }

/**
 * Makes the redacted record of the OAuth exchange that the demo shows. It learns from the metadata that passes by which
 * URL is which endpoint. What it is told is redacted before it is kept.
 */
export const createTrace = ({ limit = 500, now = Date.now }: { limit?: number; now?: () => number } = {}): Trace => {
  const listeners = new Set<(entry: TraceEntry) => void>()
  const endpoints = new Map<string, string>()
  let entries: TraceEntry[] = []
  let lastId = 0

  const add = (startedAtMs: number, entry: Omit<TraceEntry, 'id' | 'at'>): void => {
    lastId += 1
    const complete = { id: lastId, at: new Date(startedAtMs).toISOString(), ...entry }
    entries = [...entries, complete].slice(-limit)
    for (const listener of listeners) listener(complete)
  }

  const learn = (members: Members | undefined): void => {
    for (const [name, value] of members ?? []) {
      const url = typeof value === 'string' ? value : ''
      if (/^(.+_endpoint|jwks_uri|registration_client_uri)$/.test(name) && URL.canParse(url)) {
        endpoints.set(withoutQuery(url), name)
      }
    }
  }

  const meaningOf = ({ functionName, method, url, requestBody }: HttpObservation): Meaning => {
    const endpoint = endpoints.get(withoutQuery(url)) ?? ''
    const form = isForm(requestBody) ? new URLSearchParams(requestBody) : undefined
    const grantType = form?.get('grant_type') ?? ''
    if (url.includes('/.well-known/')) return discovery
    if (endpoint.startsWith('registration_')) return registrationMeanings[method] ?? otherCall
    if (endpoint === 'token_endpoint' || (method === 'POST' && grantType !== ''))
      return grantMeanings[grantType] ?? token
    return endpointMeanings[endpoint] ?? (/api/i.test(functionName) ? apiCall : otherCall)
  }

  const observeOutgoing = (observation: HttpObservation): void => {
    const { method, url, requestHeaders, requestBody, responseHeaders, responseBody } = observation
    const found = meaningOf(observation)
    const { step } = found
    const answer = step === 'api' ? undefined : membersOf(responseBody)
    if (step === 'discovery' || step === 'registration') learn(answer)
    const parts = step === 'api' ? bodySize : bodyParts
    add(observation.startedAtMs, {
      ...found,
      from: 'coatcheck',
      to: step === 'api' ? 'resource server' : 'authorization server',
      method,
      url: publicUrl(withoutQuery(url)) ?? '•••',
      request: {
        ...publicHeaders(requestHeaders),
        ...publicParts(new URL(url).searchParams),
        ...parts(requestBody, requestHeaders),
      },
      status: observation.status ?? null,
      response: {
        ...publicHeaders(responseHeaders),
        ...(step === 'discovery' && answer ? onlyPublicParts(answer) : parts(responseBody, responseHeaders)),
        ...failureParts(observation.error),
      },
      duration_ms: observation.durationMs,
    })
  }

  const observeBrowser = (observation: BrowserObservation): void => {
    const { method, path, query, status, location, startedAtMs, durationMs } = observation
    const [, found] = browserMeanings.find(([pattern]) => pattern.test(`${method} ${path}`)) ?? [
      path,
      meaning('other', 'The browser asks'),
    ]
    const failed = found.step === 'callback' && new URLSearchParams(query).has('error')
    add(startedAtMs, {
      ...found,
      ...(failed && { title: 'The browser comes back with an error', reference: 'RFC 6749 section 4.1.2.1' }),
      from: 'browser',
      to: 'coatcheck',
      method,
      url: publicUrl(path) ?? '•••',
      request: publicParts(new URLSearchParams(query)),
      status,
      response: location === undefined ? {} : publicHeaders({ location }),
      duration_ms: durationMs,
    })
    const target = found.step === 'login' && location !== undefined ? URL.parse(location) : null
    if (!target?.searchParams.has('client_id')) return
    add(startedAtMs + durationMs, {
      ...authorize,
      from: 'browser',
      to: 'authorization server',
      method: 'GET',
      url: publicUrl(withoutQuery(target.href)) ?? '•••',
      request: publicParts(target.searchParams),
      status: null,
      response: {},
      duration_ms: null,
    })
  }

  const note = (step: Step, text: string): void => {
    const nothing = { method: '', url: '', request: {}, status: null, response: {}, duration_ms: null }
    add(now(), { ...meaning(step, text), ...nothing, from: 'coatcheck', to: 'coatcheck' })
  }

  return {
    observeOutgoing,
    observeBrowser,
    note,
    list: () => entries.toSorted((a, b) => a.at.localeCompare(b.at) || a.id - b.id),
    subscribe: (listener) => {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
