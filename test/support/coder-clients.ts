import { createHash, randomUUID } from 'node:crypto'
import type { Rules } from './coder-era.ts'
import { prefixedSecret, randomText, type CoderClient } from './coder-grants.ts'
import { bearer, refuse, Refusal } from './oauth-request.ts'
import { json, type Answer, type Received } from './server.ts'

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const dangerousScheme = /^(javascript|data|file|ftp):/i
const loopback = /^(localhost|127\.0\.0\.1|\[::1\]|.+\.localhost)$/
const basicChallenge = { 'WWW-Authenticate': 'Basic realm="coder"' }

const invalidClient = (): never => refuse('invalid_client', 'The client credentials are invalid', 401, basicChallenge)

const invalidMetadata = (why: string): never => refuse('invalid_client_metadata', why)

const oauthError = (status: number, error: string, description: string): Answer =>
  json(status, { error, error_description: description })

/** RFC 7591 and 7592 as Coder speaks them, and client authentication. */
export const createCoderClients = ({
  rules,
  issuer,
  enabled,
  issued,
}: {
  rules: Rules
  issuer: () => string
  /** Whether anyone may register. */
  enabled: () => boolean
  issued: (secret: string) => string
}) => {
  const clients = new Map<string, CoderClient>()

  const checkRedirectUri = (value: unknown): string => {
    if (typeof value !== 'string' || value === '' || !URL.canParse(value)) return invalidMetadata('redirect URI')
    if (value.includes('#')) invalidMetadata('a redirect URI must not contain a fragment')
    if (dangerousScheme.test(value)) invalidMetadata('dangerous scheme')
    const url = new URL(value)
    if (url.protocol === 'http:' && !loopback.test(url.hostname)) invalidMetadata('http is for loopback')
    return value
  }

  const strings = (value: unknown, fallback: string[], allowed: string[]): string[] => {
    const list: unknown = value ?? fallback
    if (!Array.isArray(list) || !list.every((item): item is string => allowed.includes(item)))
      return invalidMetadata('an unsupported type')
    return list
  }

  /** The metadata with Coder's defaults; what a full replacement leaves out is back at its default. */
  const checked = (asked: Record<string, unknown>): Record<string, unknown> & { redirect_uris: string[] } => {
    const uris = asked['redirect_uris']
    if (!Array.isArray(uris) || uris.length === 0) return invalidMetadata('at least one redirect URI is required')
    const grantTypes = ['authorization_code', 'refresh_token']
    const method = asked['token_endpoint_auth_method'] ?? 'client_secret_basic'
    if (typeof method !== 'string' || !['client_secret_basic', 'client_secret_post', 'none'].includes(method))
      invalidMetadata('unsupported token_endpoint_auth_method')
    const given = typeof asked['client_name'] === 'string' ? asked['client_name'] : 'Dynamically Registered Client'
    const digest = createHash('sha256').update(given).digest('hex').slice(0, 8)
    const grants = strings(asked['grant_types'], grantTypes, grantTypes)
    if (!grants.includes('authorization_code')) invalidMetadata('authorization_code is required')
    return {
      redirect_uris: uris.map(checkRedirectUri),
      client_name: given.length > 64 ? `${given.slice(0, 55)}-${digest}` : given,
      grant_types: grants,
      response_types: strings(asked['response_types'], ['code'], ['code']),
      token_endpoint_auth_method: method,
      ...(typeof asked['scope'] === 'string' && asked['scope'] !== '' ? { scope: asked['scope'] } : {}),
    }
  }

  const bodyOf = ({ body }: Received): Record<string, unknown> => {
    try {
      return JSON.parse(body.toString('utf8'))
    } catch (error) {
      throw new Refusal(json(400, { message: 'Request body must be valid JSON.', detail: String(error) }))
    }
  }

  const managementUri = (id: string): string => `${issuer()}/oauth2/clients/${id}`

  const register = (request: Received): Answer => {
    if (!enabled())
      return oauthError(403, 'invalid_request', 'Dynamic client registration is disabled on this deployment')
    const metadata = checked(bodyOf(request))
    const confidential = metadata['token_endpoint_auth_method'] !== 'none' || !rules.publicClients
    const client: CoderClient = {
      id: randomUUID(),
      secret: confidential ? issued(prefixedSecret()) : undefined,
      redirectUris: metadata.redirect_uris,
      scope: typeof metadata['scope'] === 'string' ? metadata['scope'] : '',
      registrationToken: issued(randomText(40)),
      metadata,
    }
    clients.set(client.id, client)
    return json(201, {
      client_id: client.id,
      ...(client.secret === undefined ? {} : { client_secret: client.secret }),
      client_id_issued_at: Math.floor(Date.now() / 1000),
      ...metadata,
      registration_access_token: client.registrationToken,
      registration_client_uri: managementUri(client.id),
    })
  }

  /** RFC 7592, in which Coder never shows the secret or the registration access token again, nor replaces either. */
  const manage = (request: Received, id: string, gone: (id: string) => void): Answer => {
    if (!uuid.test(id)) return oauthError(400, 'invalid_client_id', 'Invalid client ID format')
    const client = clients.get(id)
    if (client === undefined || bearer(request) !== client.registrationToken)
      return oauthError(401, 'invalid_token', 'Invalid registration access token')
    if (request.method === 'DELETE') {
      clients.delete(id)
      gone(id)
      return { status: 204 }
    }
    if (request.method !== 'GET' && request.method !== 'PUT') return { status: 405 }
    if (request.method === 'PUT') {
      const metadata = checked(bodyOf(request))
      const isPublic = (method: unknown): boolean => method === 'none'
      const now = client.metadata['token_endpoint_auth_method']
      if (rules.publicClients && isPublic(now) !== isPublic(metadata['token_endpoint_auth_method']))
        invalidMetadata('a client cannot move between public and confidential')
      Object.assign(client, { metadata, redirectUris: metadata.redirect_uris, scope: metadata['scope'] ?? '' })
    }
    return json(200, { client_id: id, ...client.metadata, registration_client_uri: managementUri(id) })
  }

  /** User and password of HTTP Basic, which Coder does not percent-decode. */
  const basicOf = ({ headers }: Received): [string, string] | undefined => {
    const [, encoded] = /^Basic ([\w+/]+={0,2})$/i.exec(headers.authorization ?? '') ?? []
    if (encoded === undefined || !rules.basicAtTokenEndpoint) return undefined
    const [user = '', ...rest] = Buffer.from(encoded, 'base64').toString('utf8').split(':')
    return [user, rest.join(':')]
  }

  /** The client that a request names in its query, its form or HTTP Basic. */
  const named = (request: Received, parameters: URLSearchParams): CoderClient => {
    const id = parameters.get('client_id') ?? basicOf(request)?.[0]
    if (id === undefined || id === '') return refuse('invalid_request', 'Missing client_id parameter')
    return (uuid.test(id) ? clients.get(id) : undefined) ?? invalidClient()
  }

  /** The client authenticated; by which of the methods does not matter, not at all where `required` is false. */
  const authenticate = (
    request: Received,
    parameters: URLSearchParams,
    client: CoderClient,
    required: boolean,
  ): void => {
    const basic = basicOf(request)
    const sent = parameters.get('client_secret')
    const conflict =
      basic !== undefined &&
      ((sent !== null && sent !== basic[1]) || (parameters.get('client_id') ?? basic[0]) !== basic[0])
    if (conflict) refuse('invalid_request', 'Conflicting client credentials in the request')
    if (!required || client.secret === undefined) return
    const secret = sent ?? basic?.[1]
    if (secret !== client.secret) invalidClient()
  }

  return { register, manage, named, authenticate, all: (): CoderClient[] => [...clients.values()] }
}
