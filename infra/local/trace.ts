import {
  authorize,
  callMeanings,
  endpointMeanings,
  grantMeanings,
  meaning,
  type Meaning,
  registrationMeanings,
  requestMeaning,
  type Step,
  taskTitles,
} from './trace-meanings.ts'
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

const membersOf = (text: string): Members | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value) : undefined
  } catch {
    return undefined
  }
}

const withoutQuery = (url: string): string => url.replace(/[?#].*$/s, '')

const isInvocation = /^\/\d{4}-\d\d-\d\d\/functions\/[^/]+\/invocations$/

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

  /** A sentence about Coatcheck itself. */
  const say = (atMs: number, step: Step, text: string): void => {
    const nothing = { method: '', url: '', request: {}, status: null, response: {}, duration_ms: null }
    add(atMs, { ...meaning(step, text), ...nothing, from: 'coatcheck', to: 'coatcheck' })
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
    if (url.includes('/.well-known/')) return callMeanings.discovery
    if (endpoint.startsWith('registration_')) return registrationMeanings[method] ?? callMeanings.other
    if (endpoint === 'token_endpoint' || (method === 'POST' && grantType !== ''))
      return grantMeanings[grantType] ?? callMeanings.token
    return endpointMeanings[endpoint] ?? (/api/i.test(functionName) ? callMeanings.api : callMeanings.other)
  }

  const observeOutgoing = (observation: HttpObservation): void => {
    const { method, url, requestHeaders, requestBody, responseHeaders, responseBody } = observation
    // Lambda's Invoke is no message of the exchange, but it tells why the next ones come from elsewhere.
    if (isInvocation.test(new URL(url).pathname)) {
      const task = new Map(membersOf(requestBody)).get('kind')
      say(observation.startedAtMs, 'other', taskTitles[String(task)] ?? callMeanings.other.title)
      return
    }
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
    const found = requestMeaning(method, path, query)
    add(startedAtMs, {
      ...found,
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

  return {
    observeOutgoing,
    observeBrowser,
    note: (step, text) => say(now(), step, text),
    list: () => entries.toSorted((a, b) => a.at.localeCompare(b.at) || a.id - b.id),
    subscribe: (listener) => {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
