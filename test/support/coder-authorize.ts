import type { Rules } from './coder-era.ts'
import type { ApiKey, CoderClient } from './coder-grants.ts'
import { json, type Answer, type Received } from './server.ts'

const known = [
  'response_type',
  'client_id',
  'redirect_uri',
  'scope',
  'state',
  'resource',
  'code_challenge',
  'code_challenge_method',
]

/** A page of Coder's, as a browser gets it. */
export const page = (status: number, title: string, body: string, headers: Record<string, string> = {}): Answer => ({
  status,
  headers: { 'Content-Type': 'text/html; charset=utf-8', ...headers },
  body: `<!doctype html><html lang="en"><head><title>${escape(title)}</title></head><body><h1>${escape(title)}</h1>${body}</body></html>`,
})

/** Text as it stands in HTML. */
export const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (found) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[found] ?? found)

/** What an authorization request asks for, once nothing is wrong with it. */
export type Asked = {
  redirectUri: string
  sentRedirectUri: string | undefined
  challenge: string | undefined
  resource: string | undefined
  scope: string
}

type Fault = { error: string; reason: string; mayGoBack: boolean }

const isBelow = (asked: URL, registered: URL): boolean =>
  asked.host === registered.host && asked.pathname.startsWith(registered.pathname)

/** The redirect URI of a request, or undefined where it is not one that the client may use. */
const redirectUriOf = (rules: Rules, { redirectUris }: CoderClient, sent: string | null): string | undefined => {
  const [first = ''] = redirectUris
  if (sent === null) return first
  if (!URL.canParse(sent)) return undefined
  const fits = {
    below: () => isBelow(new URL(sent), new URL(first)),
    first: () => sent === first,
    any: () => redirectUris.includes(sent),
  }[rules.redirectUris]
  return fits() ? sent : undefined
}

/** What an authorization request of a known client asks for, or what is wrong with it and whether the callback may hear of it. */
const judge = (rules: Rules, scopes: readonly string[], client: CoderClient, query: URLSearchParams): Asked | Fault => {
  const sent = query.get('redirect_uri')
  const redirectUri = redirectUriOf(rules, client, sent)
  if (redirectUri === undefined || query.getAll('client_id').length > 1)
    return { error: 'invalid_request', reason: 'redirect_uri or client_id', mayGoBack: false }
  const fault = (error: string, reason: string): Fault => ({ error, reason, mayGoBack: true })
  const repeated = known.find((name) => query.getAll(name).length > 1)
  if (repeated !== undefined) return fault('invalid_request', `Query param "${repeated}" provided more than once`)
  const unknown = [...query.keys()].find((name) => !known.includes(name))
  if (unknown !== undefined && rules.refusesUnknownParameters)
    return fault('invalid_request', `Query param "${unknown}" is not a valid query param`)
  if (query.get('response_type') !== 'code') return fault('unsupported_response_type', 'response_type')
  const challenge = query.get('code_challenge') ?? undefined
  if (challenge === undefined && rules.pkceRequired) return fault('invalid_request', 'code_challenge')
  if (challenge !== undefined && rules.pkceForm && !/^[\w.~-]{43,128}$/.test(challenge))
    return fault('invalid_request', 'code_challenge')
  if ((query.get('code_challenge_method') ?? 'S256') !== 'S256') return fault('invalid_request', 'challenge method')
  const resource = query.get('resource') ?? undefined
  if (resource !== undefined && (!URL.canParse(resource) || resource.includes('#')))
    return fault('invalid_target', 'resource')
  const asked = query.get('scope') ?? ''
  const allowed = client.scope === '' ? undefined : client.scope.split(' ')
  const names = asked === '' ? (allowed ?? ['coder:all']) : asked.split(' ')
  if (rules.enforcesScopes && names.some((name) => !scopes.includes(name) || allowed?.includes(name) === false))
    return fault('invalid_scope', 'unknown or unsupported scope')
  const scope = rules.enforcesScopes ? names.join(' ') : 'coder:all'
  return { redirectUri, sentRedirectUri: sent ?? undefined, challenge, resource, scope }
}

const sendBack = (redirectUri: string, parameters: Record<string, string | null>): Answer => {
  const back = new URL(redirectUri)
  for (const [name, value] of Object.entries(parameters)) if (value !== null) back.searchParams.set(name, value)
  return { status: 302, headers: { Location: back.href } }
}

/**
 * The authorization endpoint for somebody who is signed in at Coder: GET asks for consent, each time; POST is the consent and
 * makes the code.
 */
export const answerAuthorization = (
  request: Received,
  {
    rules,
    scopes,
    client,
    session,
    csrfToken,
    begin,
  }: {
    rules: Rules
    scopes: readonly string[]
    client: CoderClient
    session: ApiKey
    /** What the consent form must bring along; undefined where the request cannot be a forged one. */
    csrfToken: string | undefined
    begin: (asked: Asked) => string
  },
): Answer => {
  const { query, method } = request
  const state = query.get('state')
  const asked = judge(rules, scopes, client, query)
  if ('error' in asked) {
    const { error, reason, mayGoBack } = asked
    const target = redirectUriOf(rules, client, query.get('redirect_uri'))
    if (rules.sendsErrorsBack && mayGoBack && target !== undefined)
      return sendBack(target, { error, error_description: reason, state })
    if (method === 'POST') return json(400, { error, error_description: `Invalid query params: ${reason}` })
    return page(400, 'Invalid Query Parameters', `<p>${escape(reason)}</p>`)
  }
  if (method === 'POST') {
    const form = new URLSearchParams(request.body.toString('utf8'))
    if (csrfToken !== undefined && form.get('csrf_token') !== csrfToken)
      return page(400, 'Something is wrong with your CSRF token.', '')
    return sendBack(asked.redirectUri, { code: begin(asked), state })
  }
  const cancelled = sendBack(asked.redirectUri, {
    error: 'access_denied',
    error_description: 'The resource owner or authorization server denied the request',
    state,
  })
  const field = csrfToken === undefined ? '' : `<input type="hidden" name="csrf_token" value="${csrfToken}">`
  return page(
    200,
    `Authorize ${String(client.metadata['client_name'])}`,
    `<p>Allow it to have full access to your ${escape(session.userId)} account?</p>` +
      `<form method="POST">${field}<button type="submit">Allow</button></form>` +
      `<a href="${escape(String(cancelled.headers?.['Location']))}">Cancel</a>`,
  )
}
