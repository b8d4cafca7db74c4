import { randomUUID } from 'node:crypto'
import { escape, page } from './coder-authorize.ts'
import type { Rules } from './coder-era.ts'
import type { createCoderGrants } from './coder-grants.ts'
import { json, type Answer, type Received } from './server.ts'

/** The name of Coder's own cookie, and of the query parameter that does the same. */
const sessionToken = 'coder_session_token'

const cookieOf = ({ headers }: Received, wanted: string): string | undefined =>
  (headers.cookie ?? '')
    .split(';')
    .map((pair) => pair.trim().split('='))
    .find(([name]) => name === wanted)?.[1]

const normalised = (url: string): string => new URL(url).href.replace(/\/$/, '')

/**
 * Coder's own API and sign-in page, as far as a client meets them. A token is looked for in a cookie, a query parameter and a header of
 * Coder's own before the bearer token counts.
 */
export const createCoderApi = ({
  rules,
  grants,
  issuer,
}: {
  rules: Rules
  grants: Pick<ReturnType<typeof createCoderGrants>, 'keyOf' | 'signIn'>
  issuer: () => string
}) => {
  const users = ['ada', 'grace', 'lin'].map((username) => ({
    id: randomUUID(),
    username,
    name: `${username[0]?.toUpperCase()}${username.slice(1)}`,
    email: `${username}@example.com`,
    avatar_url: '',
    status: 'active',
    login_type: 'password',
    roles: [],
  }))

  /** The token of a request and where it was. */
  const credentialOf = (request: Received): { token: string; place: 'cookie' | 'query' | 'header' } | undefined => {
    const [, bearer] = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '') ?? []
    const header = request.headers['coder-session-token']
    const places = [
      ['cookie', cookieOf(request, sessionToken)],
      ['query', request.query.get(sessionToken)],
      ['header', Array.isArray(header) ? header[0] : header],
      ['header', bearer],
      ['query', request.query.get('access_token')],
    ] as const
    for (const [place, token] of places) if (token) return { token, place }
    return undefined
  }

  const challenge = (error: string, description: string): Record<string, string> => ({
    'WWW-Authenticate':
      `Bearer realm="coder", error="${error}", error_description="${description}", ` +
      `resource_metadata="${issuer()}/.well-known/oauth-protected-resource"`,
  })

  const signedOut = (detail: string): Answer =>
    json(
      401,
      { message: 'You are signed out or your session has expired. Please sign in again to continue.', detail },
      challenge('invalid_token', 'The access token has expired'),
    )

  const call = (request: Received): Answer => {
    const [path] = request.path.split('?')
    if (path === '/api/v2/buildinfo') return json(200, { external_url: issuer(), version: rules.version })
    const found = credentialOf(request)
    if (found === undefined) return signedOut(`Cookie "${sessionToken}" or query parameter must be provided.`)
    if (!/^\w{10}-\w{22}$/.test(found.token)) return signedOut('Invalid API key format: incorrect length')
    const key = grants.keyOf(found.token)
    if (key === undefined) return signedOut('API key is invalid.')
    if (key.resource !== undefined && normalised(key.resource) !== normalised(issuer()))
      return json(
        403,
        { message: 'Token audience validation failed' },
        challenge('insufficient_scope', 'The access token is invalid'),
      )
    const mayRead = !rules.enforcesScopes || /(^| )(coder:all|user:read)( |$)/.test(key.scope)
    const user = users.find(({ id }) => id === key.userId)
    if (path === '/api/v2/users/me' && mayRead && user !== undefined) return json(200, user)
    return json(404, { message: 'Resource not found or you do not have access to this resource' })
  }

  const idOf = (username: string | null): string | undefined => users.find((user) => user.username === username)?.id

  const login = (request: Received): Answer => {
    const userId = idOf(new URLSearchParams(request.body.toString('utf8')).get('username'))
    if (request.method === 'POST' && userId !== undefined) {
      const cookie = `${sessionToken}=${grants.signIn(userId).accessToken}; Path=/; HttpOnly; SameSite=Lax`
      return { status: 303, headers: { Location: request.query.get('redirect') ?? '/', 'Set-Cookie': cookie } }
    }
    const forms = users.map(
      ({ name, username }) =>
        `<form method="POST"><button name="username" value="${username}">${escape(name)}</button></form>`,
    )
    return page(200, 'Sign in to Coder', forms.join(''))
  }

  return {
    users,
    credentialOf,
    call,
    login,
    /** A Coder session token of a user, as the user's own browser has one. */
    sessionOf: (username: string): string => grants.signIn(idOf(username) ?? '').accessToken,
  }
}
