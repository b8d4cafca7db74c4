import { randomBytes } from 'node:crypto'
import { createClients, type Client } from './clients.ts'
import { createGrants, type GrantSettings } from './grants.ts'
import { bearer, formOf, joined, parametersOf, refuse, Refusal } from './oauth-request.ts'
import type { StrictOptions } from './strict-options.ts'
import { json, startRecordingServer, type Answer, type Received } from './server.ts'

/** The endpoints of the strict server, as `requests`, `count`, `plan` and `always` name them. */
export type Endpoint =
  | 'metadata'
  | 'jwks'
  | 'register'
  | 'client'
  | 'par'
  | 'authorize'
  | 'token'
  | 'userinfo'
  | 'revoke'
  | 'end_session'
  | 'other'

const exchangeType = 'urn:ietf:params:oauth:grant-type:token-exchange'
const random = (): string => randomBytes(24).toString('base64url')

/**
 * Starts an authorization server that refuses whatever a real one may refuse: unknown, repeated and empty parameters,
 * another redirect URI, a missing S256 challenge, nonce or state, a code or a rotated refresh token that comes again
 * (which ends the grant), another way to authenticate than the registered one, credentials that are not form-encoded.
 * It signs its test user in without a page. Everything that arrives is recorded, and faults stand before its endpoints.
 * @see RFC 6749, 7009, 7591, 7592, 7636, 8414, 8707, 9126, 9207; OpenID Connect Core 1.0
 */
export const startStrictAuthorizationServer = async (options: StrictOptions = {}) => {
  const { openid = true, iss = true, rotation = true, resources = [], metadata: places = 'both' } = options
  const scopes = options.scopes ?? [...(openid ? ['openid', 'profile', 'email'] : []), 'offline_access', 'read']
  const users = options.users ?? { ada: { name: 'Ada', email: 'ada@example.com' }, grace: { name: 'Grace' } }
  const settings: GrantSettings & { user: string; aheadSeconds: number } = {
    /** Who signs in; a `login_hint` that names a user wins. */
    user: Object.keys(users)[0] ?? 'ada',
    accessTokenSeconds: options.accessTokenSeconds ?? 300,
    idToken: {},
    rotation,
    /** How far the server's clock is ahead of ours. */
    aheadSeconds: 0,
  }
  const nowMs = () => Date.now() + settings.aheadSeconds * 1000
  const secrets: string[] = []
  const issued = (secret: string): string => {
    secrets.push(secret)
    return secret
  }
  const pushed = new Map<string, Map<string, string>>()
  const oneGrantPerUser = options.oneGrantPerUser ?? false
  const grants = await createGrants({ settings, users, oneGrantPerUser, nowMs, issued })

  const grantTypes = ['authorization_code', 'refresh_token', ...(options.exchange ? [exchangeType] : [])]

  const authMethods = options.authMethods ?? ['client_secret_basic', 'client_secret_post', 'none']
  const signs = authMethods.includes('private_key_jwt')
  const credentials = ['client_id', 'client_secret', ...(signs ? ['client_assertion', 'client_assertion_type'] : [])]

  const clients = createClients({
    grantTypes,
    initialAccessToken: options.initialAccessToken,
    authMethods,
    scopes,
    clientSecretSeconds: options.clientSecretSeconds ?? 0,
    updateRenewsSecret: options.updateRenewsSecret ?? false,
    nowMs,
    issued,
  })

  const authorizationParameters = [
    'response_type',
    'client_id',
    'redirect_uri',
    'scope',
    'state',
    'code_challenge',
    'code_challenge_method',
    ...(openid ? ['nonce', 'prompt', 'login_hint', 'max_age'] : []),
    ...(resources.length > 0 ? ['resource'] : []),
  ]

  const metadata = (issuer: string) => ({
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    registration_endpoint: `${issuer}/register`,
    revocation_endpoint: `${issuer}/revoke`,
    ...(options.par ? { pushed_authorization_request_endpoint: `${issuer}/par` } : {}),
    ...(openid
      ? {
          jwks_uri: `${issuer}/jwks`,
          userinfo_endpoint: `${issuer}/userinfo`,
          end_session_endpoint: `${issuer}/end_session`,
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: ['RS256'],
        }
      : {}),
    scopes_supported: scopes,
    response_types_supported: ['code'],
    response_modes_supported: ['query'],
    grant_types_supported: grantTypes,
    code_challenge_methods_supported: ['S256'],
    token_endpoint_auth_methods_supported: authMethods,
    ...(signs ? { token_endpoint_auth_signing_alg_values_supported: ['ES256'] } : {}),
    ...(options.backchannelLogout ? { backchannel_logout_supported: true } : {}),
    ...(iss ? { authorization_response_iss_parameter_supported: true } : {}),
  })

  /** What is wrong with an authorization request of a known client, or nothing. */
  const fault = (client: Client, parameters: Map<string, string>): string | undefined => {
    const words = (parameters.get('scope') ?? '').split(' ')
    if (parameters.get('response_type') !== 'code') return 'unsupported_response_type'
    if (words.some((word) => !client.scope.split(' ').includes(word))) return 'invalid_scope'
    if (parameters.get('code_challenge_method') !== 'S256') return 'invalid_request'
    if (!/^[\w-]{43}$/.test(parameters.get('code_challenge') ?? '')) return 'invalid_request'
    if ((parameters.get('state') ?? '').length < 22) return 'invalid_request'
    if (words.includes('openid') && (parameters.get('nonce') ?? '').length < 22) return 'invalid_request'
    const asked = (parameters.get('resource') ?? '').split(' ')
    if (resources.length > 0 && asked.some((one) => !resources.includes(one))) return 'invalid_target'
    return undefined
  }

  /** The client of an authorization request; one that is not known or names another redirect URI is never sent back. */
  const requester = (parameters: Map<string, string>): Client => {
    const client = clients.find(parameters.get('client_id')) ?? refuse('invalid_client', 'unknown client')
    if (!client.redirect_uris.includes(parameters.get('redirect_uri') ?? '')) {
      refuse('invalid_request', 'not a registered redirect URI')
    }
    return client
  }

  const push = async (request: Received, issuer: string): Promise<Answer> => {
    const body = Buffer.from(joined(new URLSearchParams(request.body.toString('utf8'))).toString())
    const form = formOf({ ...request, body }, [...new Set([...authorizationParameters, ...credentials])])
    const { client_id: id } = await clients.authenticate(request, form, issuer)
    for (const name of credentials) form.delete(name)
    form.set('client_id', id)
    const error = fault(requester(form), form)
    if (error !== undefined) refuse(error, 'as a pushed authorization request')
    const uri = `urn:ietf:params:oauth:request_uri:${random()}`
    pushed.set(uri, form)
    return json(201, { request_uri: uri, expires_in: 60 })
  }

  const authorize = (request: Received, issuer: string): Answer => {
    if (request.method !== 'GET') refuse('invalid_request', 'only GET', 405)
    const asked = parametersOf(joined(request.query), [
      ...authorizationParameters,
      ...(options.par ? ['request_uri'] : []),
    ])
    const uri = asked.get('request_uri')
    if (uri !== undefined && asked.size !== 2) refuse('invalid_request', 'parameters beside request_uri')
    const parameters = uri === undefined ? asked : (pushed.get(uri) ?? refuse('invalid_request_uri', 'unknown or used'))
    if (uri !== undefined) pushed.delete(uri)
    const client = requester(parameters)
    const redirectUri = parameters.get('redirect_uri') ?? ''
    const back = new URL(redirectUri)
    const error = fault(client, parameters)
    if (error === undefined) {
      const hint = parameters.get('login_hint')
      const subject = hint !== undefined && Object.hasOwn(users, hint) ? hint : settings.user
      const { scope = '', nonce, code_challenge: challenge = '' } = Object.fromEntries(parameters)
      const [resource, ...others] = parameters.get('resource')?.split(' ') ?? []
      const granted = { resource, ...(others.length > 0 && { resources: [resource ?? '', ...others] }) }
      const facts = { clientId: client.client_id, subject, scope, ...granted, nonce }
      const code = grants.begin(facts, { redirectUri, challenge })
      back.searchParams.set('code', code)
    } else {
      back.searchParams.set('error', error)
    }
    const state = parameters.get('state')
    if (state !== undefined) back.searchParams.set('state', state)
    if (iss) back.searchParams.set('iss', issuer)
    return { status: 302, headers: { Location: back.href, 'Cache-Control': 'no-store' } }
  }

  const token = async (request: Received, issuer: string): Promise<Answer> => {
    const own = ['grant_type', ...credentials, ...(resources.length > 0 ? ['resource'] : [])]
    const type = new URLSearchParams(request.body.toString('utf8')).get('grant_type')
    const redeems = type === 'authorization_code'
    const exchanges = options.exchange === true && type === exchangeType
    const known = exchanges
      ? ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'resource', 'scope']
      : redeems
        ? ['code', 'redirect_uri', 'code_verifier']
        : ['refresh_token']
    const form = formOf(request, [...own, ...known])
    const client = await clients.authenticate(request, form, issuer)
    if (!client.grant_types.includes(type ?? '')) refuse('unauthorized_client', 'not a grant type of this client')
    if (exchanges) return grants.exchange(form, client)
    return redeems ? grants.redeem(issuer, form, client) : grants.refresh(issuer, form, client)
  }

  const revoke = async (request: Received, issuer: string): Promise<Answer> => {
    const form = formOf(request, ['token', 'token_type_hint', ...credentials])
    const { client_id: id } = await clients.authenticate(request, form, issuer)
    grants.revoke(form.get('token') ?? refuse('invalid_request', 'no token'), id)
    return { status: 200 }
  }

  const userinfo = (request: Received): Answer => {
    const challenge = { 'WWW-Authenticate': 'Bearer error="invalid_token"' }
    const sub = grants.subjectOf(bearer(request)) ?? refuse('invalid_token', 'not a live token', 401, challenge)
    return json(200, { sub, ...users[sub] })
  }

  const endSession = (request: Received): Answer => {
    const known = ['id_token_hint', 'client_id', 'post_logout_redirect_uri', 'state', 'logout_hint']
    const parameters = parametersOf(request.query, known)
    const client = clients.find(parameters.get('client_id'))
    const target = parameters.get('post_logout_redirect_uri')
    const registered = client?.['post_logout_redirect_uris']
    if (target === undefined)
      return { status: 200, headers: { 'Content-Type': 'text/html' }, body: '<h1>Signed out</h1>' }
    if (!Array.isArray(registered) || !registered.includes(target)) refuse('invalid_request', 'not a registered URI')
    const back = new URL(target)
    const state = parameters.get('state')
    if (state !== undefined) back.searchParams.set('state', state)
    return { status: 302, headers: { Location: back.href } }
  }

  const respond = (request: Received & { endpoint: Endpoint }, issuer: string): Answer | Promise<Answer> => {
    const [path = ''] = request.path.split('?')
    const management = `${issuer}/register/`
    switch (request.endpoint) {
      case 'metadata':
        if (places !== 'both' && path.endsWith('openid-configuration') !== (places === 'openid')) return { status: 404 }
        return json(200, metadata(issuer))
      case 'jwks':
        return json(200, { keys: [grants.jwk] })
      case 'register':
        return clients.register(request, (id) => management + encodeURIComponent(id))
      case 'client':
        return clients.manage(request, decodeURIComponent(path.slice('/register/'.length)))
      case 'par':
        return push(request, issuer)
      case 'authorize':
        return authorize(request, issuer)
      case 'token':
        return token(request, issuer)
      case 'revoke':
        return revoke(request, issuer)
      case 'userinfo':
        return userinfo(request)
      case 'end_session':
        return endSession(request)
      default:
        return { status: 404 }
    }
  }

  const served: Endpoint[] = ['register', 'authorize', 'token', 'revoke']
  if (openid) served.push('jwks', 'userinfo', 'end_session')
  if (options.par) served.push('par')
  const endpointOf = (_method: string, path: string): Endpoint => {
    if (path.startsWith('/.well-known/')) return 'metadata'
    return path.startsWith('/register/') ? 'client' : (served.find((name) => path === `/${name}`) ?? 'other')
  }

  const answer = async (request: Received & { endpoint: Endpoint }, url: string) => {
    try {
      return await respond(request, url)
    } catch (error) {
      if (error instanceof Refusal) return error.answer
      throw error
    }
  }
  const server = await startRecordingServer<Endpoint>(endpointOf, answer, options.publicUrl)

  return {
    ...server,
    issuer: server.url,
    settings,
    /** The clients that are registered now. */
    clients: clients.all,
    /** The key sets of clients that sign who they are. */
    keySets: clients.keySets,
    /** Every code, token and credential that was ever given away, to search logs, replies and items for. */
    secrets: secrets as readonly string[],
    grants: grants.all,
    jwk: grants.jwk,
    sign: grants.sign,
    /** The requests to the token endpoint of one grant type. */
    tokenRequests: (type: 'authorization_code' | 'refresh_token' | typeof exchangeType) =>
      server.requests.filter(
        ({ endpoint, body }) => endpoint === 'token' && new URLSearchParams(body.toString()).get('grant_type') === type,
      ),
    audienceOf: grants.audienceOf,
    exchanged: grants.exchanged,
    expireAccessTokens: grants.expireAccessTokens,
    endGrants: grants.end,
  }
}

/** A strict authorization server that runs. */
export type StrictAuthorizationServer = Awaited<ReturnType<typeof startStrictAuthorizationServer>>
