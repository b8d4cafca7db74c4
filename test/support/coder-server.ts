import { createCoderApi } from './coder-api.ts'
import { answerAuthorization, page } from './coder-authorize.ts'
import { createCoderClients } from './coder-clients.ts'
import { rulesOf, type Era } from './coder-era.ts'
import { createCoderGrants, randomText, type ApiKey, type TokenSettings } from './coder-grants.ts'
import { parametersOf, refuse, Refusal } from './oauth-request.ts'
import { json, startRecordingServer, type Answer, type Received } from './server.ts'

/** The endpoints of the server, as `requests`, `count`, `plan` and `always` name them. */
export type CoderEndpoint =
  | 'metadata'
  | 'register'
  | 'client'
  | 'login'
  | 'authorize'
  | 'token'
  | 'revoke'
  | 'account'
  | 'api'
  | 'site'

/** How the server differs from its defaults. */
export type CoderOptions = { era?: Era; accessTokenSeconds?: number; refreshTokenSeconds?: number }

/** What tests change while the server runs. */
export type CoderSettings = TokenSettings & {
  /** Whether Coder is an authorization server at all, and whether it registers clients. */
  enabled: boolean
  registration: boolean
}

const tokenParameters = [
  'grant_type',
  'client_id',
  'client_secret',
  'code',
  'redirect_uri',
  'refresh_token',
  'code_verifier',
  'resource',
  'scope',
]
const scopes = ['coder:all', 'coder:application_connect', 'coder:workspaces.access', 'user:read', 'user:read_personal']
const malformed = 'The request is missing required parameters or is otherwise malformed'

/**
 * Starts a server that is an authorization server and a resource server as Coder is: plain OAuth without OpenID Connect, opaque tokens, one
 * live grant a user and client, a web page for every path that it does not know.
 * @see Coder's source, coderd/oauth2provider and coderd/httpmw
 */
export const startCoderServer = async (options: CoderOptions = {}) => {
  const rules = rulesOf(options.era ?? '2.37')
  const settings: CoderSettings = {
    accessTokenSeconds: options.accessTokenSeconds ?? 86_400,
    refreshTokenSeconds: options.refreshTokenSeconds ?? 2_592_000,
    beforeWrite: undefined,
    enabled: true,
    registration: true,
  }
  const secrets: string[] = []
  const issued = (secret: string): string => {
    secrets.push(secret)
    return secret
  }
  const csrfTokens = new Map<ApiKey, string>()
  let issuer = ''
  const grants = createCoderGrants({ rules, settings, nowMs: () => Date.now(), issued })
  const clients = createCoderClients({ rules, issuer: () => issuer, enabled: () => settings.registration, issued })
  const api = createCoderApi({ rules, grants, issuer: () => issuer })

  const metadata = () => ({
    issuer,
    authorization_endpoint: `${issuer}/oauth2/authorize`,
    token_endpoint: `${issuer}/oauth2/tokens`,
    ...(settings.registration || !rules.registrationCanBeOff
      ? { registration_endpoint: `${issuer}/oauth2/register` }
      : {}),
    revocation_endpoint: `${issuer}/oauth2/revoke`,
    response_types_supported: ['code'],
    grant_types_supported: ['authorization_code', 'refresh_token'],
    code_challenge_methods_supported: ['S256'],
    scopes_supported: scopes,
    token_endpoint_auth_methods_supported: rules.authMethods,
  })

  const wellKnown = (path: string): Answer => {
    if (path.startsWith('/.well-known/oauth-authorization-server')) return json(200, metadata())
    const resource = {
      resource: issuer,
      authorization_servers: [issuer],
      bearer_methods_supported: ['header', 'query'],
    }
    return json(200, { ...resource, scopes_supported: scopes })
  }

  const authorize = (request: Received): Answer => {
    const client = clients.named(request, request.query)
    const credential = api.credentialOf(request)
    const session = grants.keyOf(credential?.token ?? '')
    if (session === undefined) {
      const query = new URLSearchParams({ message: 'You must be signed in', redirect: request.path })
      return { status: 303, headers: { Location: `/login?${query.toString()}` } }
    }
    const csrfToken = csrfTokens.get(session) ?? randomText(43)
    csrfTokens.set(session, csrfToken)
    const forgeable = rules.csrfOnConsent && credential?.place === 'cookie'
    return answerAuthorization(request, {
      rules,
      scopes,
      client,
      session,
      csrfToken: forgeable ? csrfToken : undefined,
      begin: (asked) => grants.begin({ ...asked, clientId: client.id, userId: session.userId }),
    })
  }

  /** Query and form merged, as Go's `FormValue` has them. */
  const mergedOf = (request: Received): URLSearchParams => {
    if (request.method !== 'POST') throw new Refusal({ status: 405 })
    if (!/^application\/x-www-form-urlencoded\b/.test(request.headers['content-type'] ?? ''))
      refuse('invalid_request', malformed)
    if (!rules.secretInQuery && request.query.has('client_secret'))
      refuse('invalid_request', 'client_secret must not be in the query')
    return new URLSearchParams([...new URLSearchParams(request.body.toString('utf8')), ...request.query])
  }

  const token = (request: Received): Promise<Answer> => {
    const sent = mergedOf(request)
    const client = clients.named(request, sent)
    const type = sent.getAll('grant_type').length === 1 ? sent.get('grant_type') : null
    if (type !== 'authorization_code' && type !== 'refresh_token')
      return refuse('unsupported_grant_type', 'The grant type is missing or unsupported')
    const judged = rules.refusesUnknownParameters
      ? sent
      : new URLSearchParams([...sent].filter(([name]) => tokenParameters.includes(name)))
    const form = parametersOf(judged, tokenParameters)
    const redeems = type === 'authorization_code'
    const required = redeems || rules.authenticatesRefreshAndRevoke
    clients.authenticate(request, sent, client, required)
    const needed = redeems ? 'code' : 'refresh_token'
    if (!form.has(needed)) refuse('invalid_request', redeems ? 'Missing required parameter: code' : malformed)
    return redeems ? grants.redeem(client, form) : grants.refresh(client, form)
  }

  const revoke = (request: Received): Answer => {
    const sent = mergedOf(request)
    const client = clients.named(request, sent)
    clients.authenticate(request, sent, client, rules.authenticatesRefreshAndRevoke)
    grants.revoke(sent.get('token') ?? refuse('invalid_request', 'missing token parameter'), client.id)
    return { status: 200 }
  }

  const site = (): Answer => page(200, 'Coder', '<div id="root"></div>')

  const whenOff = (): Answer =>
    rules.statusWhenOff === 404
      ? json(404, { message: 'Route not found.' })
      : json(403, {
          message: "OAuth2 Provider Functionality functionality requires enabling the 'oauth2' experiment.",
        })

  const respond = (request: Received & { endpoint: CoderEndpoint }): Answer | Promise<Answer> => {
    const [path = ''] = request.path.split('?')
    const oauth = path.startsWith('/oauth2/') || (request.endpoint === 'metadata' && !rules.wellKnownWhenOff)
    if (oauth && !settings.enabled) return whenOff()
    switch (request.endpoint) {
      case 'metadata':
        return wellKnown(path)
      case 'register':
        return clients.register(request)
      case 'client':
        return clients.manage(request, path.slice('/oauth2/clients/'.length), (clientId) => grants.endAll({ clientId }))
      case 'login':
        return api.login(request)
      case 'authorize':
        return authorize(request)
      case 'token':
        return token(request)
      case 'revoke':
        return revoke(request)
      case 'account':
      case 'api':
        return api.call(request)
      case 'site':
        return path.startsWith('/oauth2/') ? json(404, { message: 'Route not found.' }) : site()
    }
  }

  const answered = async (request: Received & { endpoint: CoderEndpoint }): Promise<Answer> => {
    try {
      return await respond(request)
    } catch (error) {
      if (error instanceof Refusal) return error.answer
      throw error
    }
  }

  const endpointOf = (_method: string, path: string): CoderEndpoint => {
    if (/^\/\.well-known\/oauth-(authorization-server|protected-resource)(\/|$)/.test(path)) return 'metadata'
    if (path.startsWith('/oauth2/clients/')) return 'client'
    if (path === '/oauth2/tokens') return 'token'
    if (path === '/api/v2/users/me') return 'account'
    if (path.startsWith('/api/')) return 'api'
    if (path === '/login') return 'login'
    return (['register', 'authorize', 'revoke'] as const).find((name) => path === `/oauth2/${name}`) ?? 'site'
  }

  const server = await startRecordingServer<CoderEndpoint>(endpointOf, async (request) => {
    const headers = {
      'X-Coder-Build-Version': rules.version,
      ...(rules.noStore && request.path.startsWith('/oauth2/') ? { Pragma: 'no-cache' } : {}),
    }
    const answer = await answered(request)
    const { 'Cache-Control': _, ...rest } = answer.headers ?? {}
    const cached = rules.noStore && request.path.startsWith('/oauth2/') ? { 'Cache-Control': 'no-store' } : {}
    return { ...answer, headers: { ...rest, ...headers, ...cached } }
  })
  issuer = server.url

  return {
    ...server,
    issuer,
    settings,
    users: api.users,
    clients: clients.all,
    /** Every code, token and credential that was ever given away. */
    secrets: secrets as readonly string[],
    /** Every pair that a client ever got, oldest first. */
    pairs: (): ApiKey[] => grants.all.filter(({ clientId }) => clientId !== undefined),
    /** The requests to the token endpoint of one grant type. */
    tokenRequests: (type: 'authorization_code' | 'refresh_token') =>
      server.requests.filter(
        ({ endpoint, body }) => endpoint === 'token' && new URLSearchParams(body.toString()).get('grant_type') === type,
      ),
    expireAccessTokens: grants.expireAccessTokens,
    endGrants: grants.endAll,
    /** A Coder session token of a user, as the user's own browser has one. */
    sessionOf: api.sessionOf,
  }
}

/** A server of Coder's kind that runs. */
export type CoderServer = Awaited<ReturnType<typeof startCoderServer>>
