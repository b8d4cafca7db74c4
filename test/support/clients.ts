import { randomBytes } from 'node:crypto'
import { createAssertions } from './assertions.ts'
import { bearer, refuse } from './oauth-request.ts'
import { json, type Answer, type Received } from './server.ts'

/** RFC 7591 client metadata with what the server added. */
export type Client = {
  client_id: string
  client_secret?: string
  token_endpoint_auth_method: string
  redirect_uris: string[]
  grant_types: string[]
  response_types: string[]
  scope: string
  registration_access_token: string
  [member: string]: unknown
}

/** How strict a server's registration is; see `startStrictAuthorizationServer`. */
export type RegistrationRules = {
  initialAccessToken?: string | undefined
  authMethods: readonly string[]
  scopes: readonly string[]
  grantTypes: readonly string[]
  /** Seconds until a secret ends; 0: never. */
  clientSecretSeconds: number
  /** An update brings another secret, and leaves the registration access token. */
  updateRenewsSecret: boolean
  nowMs: () => number
  /** Called with every secret that the server gives away. */
  issued: (secret: string) => string
}

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

const random = (): string => randomBytes(18).toString('base64url')

/** RFC 6749 §2.3.1: both halves are form-encoded before they are joined. */
const formDecode = (text: string): string => {
  if (!/^(?:[\w.~*+-]|%[0-9A-F]{2})*$/i.test(text)) refuse('invalid_client', 'Basic is not form-encoded', 401)
  return decodeURIComponent(text.replaceAll('+', ' '))
}

/** Registers, manages and authenticates clients (RFC 7591, RFC 7592, RFC 6749 §2.3, RFC 7523). */
export const createClients = (rules: RegistrationRules) => {
  const clients = new Map<string, Client>()
  const seconds = () => Math.floor(rules.nowMs() / 1000)
  const assertions = createAssertions(rules)

  const list = (members: Record<string, unknown>, name: string, allowed: readonly string[] | RegExp): string[] => {
    const value = members[name]
    const fits = (item: unknown): item is string =>
      typeof item === 'string' && (allowed instanceof RegExp ? allowed.test(item) : allowed.includes(item))
    if (Array.isArray(value) && value.length > 0 && value.every(fits)) return value
    return refuse(name === 'redirect_uris' ? 'invalid_redirect_uri' : 'invalid_client_metadata', `${name} is not right`)
  }

  const checked = (members: Record<string, unknown>) => {
    const { token_endpoint_auth_method: method = 'client_secret_basic' } = members
    if (typeof method !== 'string' || !rules.authMethods.includes(method)) {
      return refuse('invalid_client_metadata', 'this authentication method is not supported')
    }
    if (method === 'private_key_jwt') {
      if (typeof members['jwks_uri'] !== 'string') refuse('invalid_client_metadata', 'jwks_uri is missing')
      if (members['token_endpoint_auth_signing_alg'] !== 'ES256') refuse('invalid_client_metadata', 'only ES256')
    }
    const scope = members['scope'] ?? rules.scopes.join(' ')
    if (typeof scope !== 'string' || scope.split(' ').some((word) => !rules.scopes.includes(word))) {
      return refuse('invalid_client_metadata', 'scope holds an unknown scope')
    }
    return {
      ...members,
      redirect_uris: list(members, 'redirect_uris', /^(https:\/\/|http:\/\/(localhost|127\.0\.0\.1)[:/])[^#]*$/),
      grant_types: list({ grant_types: ['authorization_code'], ...members }, 'grant_types', rules.grantTypes),
      response_types: list({ response_types: ['code'], ...members }, 'response_types', ['code']),
      token_endpoint_auth_method: method,
      scope,
    }
  }

  const membersOf = (request: Received): Record<string, unknown> => {
    if (!/^application\/json\b/.test(request.headers['content-type'] ?? '')) {
      refuse('invalid_client_metadata', 'the body is not JSON')
    }
    return JSON.parse(request.body.toString('utf8'))
  }

  /** The whole client as a reply shows it; credentials have characters that must be encoded everywhere. */
  const register = (request: Received, managementUri: (id: string) => string): Answer => {
    const token = bearer(request)
    if (token !== rules.initialAccessToken) {
      refuse('invalid_token', 'registration needs its initial access token and no other', 401)
    }
    const members = checked(membersOf(request))
    const id = `c:${random()} +%`
    const secret = rules.issued(`s:${random()}/+ %&=`)
    const ends = rules.clientSecretSeconds === 0 ? 0 : seconds() + rules.clientSecretSeconds
    const client: Client = {
      ...members,
      client_id: id,
      client_id_issued_at: seconds(),
      ...(['none', 'private_key_jwt'].includes(members.token_endpoint_auth_method)
        ? {}
        : { client_secret: secret, client_secret_expires_at: ends }),
      registration_access_token: rules.issued(`rat-${random()}`),
      registration_client_uri: managementUri(id),
    }
    clients.set(id, client)
    return json(201, client)
  }

  /** RFC 7592 §2: read, full replacement, deletion. A replacement brings a new registration access token, or a new secret. */
  const manage = (request: Received, id: string): Answer => {
    const client = clients.get(id)
    if (!client || bearer(request) !== client.registration_access_token) {
      return refuse('invalid_token', 'not the registration access token of this client', 401)
    }
    if (request.method === 'GET') return json(200, client)
    if (request.method === 'DELETE') {
      clients.delete(id)
      return { status: 204 }
    }
    if (request.method !== 'PUT') return { status: 405, headers: { Allow: 'GET, PUT, DELETE' } }
    const members = membersOf(request)
    const { registration_client_uri: uri, client_secret_expires_at: ends, client_id_issued_at: since } = client
    for (const name of [
      'registration_access_token',
      'registration_client_uri',
      'client_secret_expires_at',
      'client_id_issued_at',
    ]) {
      if (name in members) refuse('invalid_request', `an update must not hold ${name}`)
    }
    const { client_secret: secret } = members
    if (members['client_id'] !== id) refuse('invalid_request', 'an update must hold its client_id')
    if (secret !== undefined && secret !== client.client_secret) refuse('invalid_request', 'not the current secret')
    const updated: Client = {
      ...checked(members),
      client_id: id,
      client_id_issued_at: since,
      ...(client.client_secret === undefined
        ? {}
        : {
            client_secret: rules.updateRenewsSecret ? rules.issued(`s:${random()}/+ %&=`) : client.client_secret,
            client_secret_expires_at: ends,
          }),
      registration_access_token: rules.updateRenewsSecret
        ? client.registration_access_token
        : rules.issued(`rat-${random()}`),
      registration_client_uri: uri,
    }
    clients.set(id, updated)
    return json(200, updated)
  }

  /** The client that a request authenticates as, by exactly the method that is registered for it. */
  const authenticate = async (request: Received, form: Map<string, string>, issuer: string): Promise<Client> => {
    const [, encoded] = /^Basic ([\w+/]+={0,2})$/.exec(request.headers.authorization ?? '') ?? []
    const pair = encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString('latin1').split(':')
    const [id, secret] = pair ? pair.map(formDecode) : [form.get('client_id'), form.get('client_secret')]
    const [assertion, assertionType] = [form.get('client_assertion'), form.get('client_assertion_type')]
    const without = assertion === undefined ? 'none' : 'private_key_jwt'
    const used = pair ? 'client_secret_basic' : secret === undefined ? without : 'client_secret_post'
    const client = clients.get(id ?? '')
    const challenge = { 'WWW-Authenticate': 'Basic realm="strict"' }
    const fail = (why: string) => refuse('invalid_client', why, 401, challenge)
    if (!client) return fail('unknown client')
    if (request.headers.authorization !== undefined && !pair) fail('an Authorization header that is not Basic')
    if (pair && (pair.length !== 2 || form.has('client_secret'))) fail('more than one authentication')
    if (pair && (form.get('client_id') ?? id) !== id) fail('two client identifiers')
    if (used !== client.token_endpoint_auth_method) fail(`${used} is not how this client authenticates`)
    if ((secret !== undefined || pair) && (assertion ?? assertionType) !== undefined)
      fail('more than one authentication')
    if (used === 'private_key_jwt') {
      if (assertionType !== ASSERTION_TYPE) fail('another type of assertion')
      await assertions.check(assertion ?? '', client, issuer)
      return client
    }
    if (used !== 'none' && secret !== client.client_secret) fail('wrong secret')
    const ends = Number(client['client_secret_expires_at'] ?? 0)
    if (ends !== 0 && ends <= seconds()) fail('the secret has expired')
    return client
  }

  return {
    register,
    manage,
    authenticate,
    /** The key sets of clients that sign, as the server keeps them. */
    keySets: { fetched: assertions.fetched, forget: assertions.forget },
    find: (id: string | undefined): Client | undefined => clients.get(id ?? ''),
    all: (): Client[] => [...clients.values()],
  }
}
