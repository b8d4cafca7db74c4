import { CLIENT_KEY_ALGORITHM } from './client-keys.ts'
import type { Stage } from './config.ts'
import { AUTHENTICATION_METHODS } from './client.ts'
import type { AuthenticationMethod, Client } from './client.ts'
import { Failure } from './errors.ts'
import type { Metadata } from './metadata.ts'
import { TOKEN_EXCHANGE } from './route-tokens.ts'
import { backchannelLogoutUrl, callbackUrl, jwksUrl, postLogoutUrl } from './stage.ts'

/** The client metadata that a stage asks a server to register (RFC 7591 section 2). */

/** What our client is to be at a provider, before it is known what the server can do. */
export interface RegistrationRequest {
  client_name: string
  logo_uri?: string | undefined
  redirect_uri: string
  post_logout_redirect_uri: string
  backchannel_logout_uri: string
  /** Left out: those of our defaults that the server announces. */
  scopes: readonly string[] | undefined
  initial_access_token: string | undefined
  /** Whether tokens are exchanged for routes, so that the grant type of that is asked for. */
  exchanges?: boolean
  /** Where our public keys are: private_key_jwt is asked for then, and only then. */
  jwks_uri: string | undefined
  /** Sent as `software_version` where it is there, so that an operator can tell at the server what was registered when. */
  attempt?: string
}

const DEFAULT_SCOPES = ['openid', 'profile', 'email', 'offline_access']

/** What the stage asks for at one of its providers. */
export const registrationRequest = (
  stage: Stage,
  provider: string,
  { client_name, client_logo_uri, scopes, rotation }: Stage['providers'][string],
  initialAccessToken: string | undefined,
): RegistrationRequest => ({
  client_name,
  logo_uri: client_logo_uri,
  redirect_uri: callbackUrl(stage, provider),
  post_logout_redirect_uri: postLogoutUrl(stage),
  backchannel_logout_uri: backchannelLogoutUrl(stage, provider),
  scopes,
  initial_access_token: initialAccessToken,
  exchanges: Object.values(stage.apis).some((api) => api.provider === provider && api.exchange !== undefined),
  jwks_uri: rotation.mode === 'keys' ? jwksUrl(stage) : undefined,
})

/** The scopes to request: the stage's, or those of our defaults that the server announces. */
export const requestedScope = (metadata: Metadata, scopes: readonly string[] | undefined): string | undefined => {
  const wanted = scopes ?? DEFAULT_SCOPES.filter((scope) => (metadata.scopes_supported ?? []).includes(scope))
  return wanted.length === 0 ? undefined : wanted.join(' ')
}

/** Those with a secret or without anything: what there is where the stage does not choose keys. */
const WITHOUT_KEYS = AUTHENTICATION_METHODS.filter((method) => method !== 'private_key_jwt')

/**
 * The authentication method to ask for: keys where the stage chooses them; the one that the client has as long as the server announces it;
 * otherwise the first of ours that it does (RFC 8414 section 2: basic when it announces none).
 * @throws registration_refused
 */
export const preferredMethod = (
  metadata: Metadata,
  wanted: RegistrationRequest,
  client?: Client,
): AuthenticationMethod => {
  const supported = metadata.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  if (wanted.jwks_uri !== undefined) {
    const algorithms = metadata.token_endpoint_auth_signing_alg_values_supported ?? [CLIENT_KEY_ALGORITHM]
    if (supported.includes('private_key_jwt') && algorithms.includes(CLIENT_KEY_ALGORITHM)) return 'private_key_jwt'
    throw new Failure('registration_refused', {
      detail: `rotation.mode is keys, but the server does not offer private_key_jwt with ${CLIENT_KEY_ALGORITHM} at its token endpoint`,
    })
  }
  const offered = WITHOUT_KEYS.filter((candidate) => supported.includes(candidate))
  const method = offered.find((candidate) => candidate === client?.token_endpoint_auth_method) ?? offered[0]
  if (method === undefined) {
    throw new Failure('registration_refused', {
      detail: `the server offers none of ${WITHOUT_KEYS.join(', ')} at its token endpoint`,
    })
  }
  return method
}

/** @throws registration_refused where routes need exchanges that the server does not announce */
const grantTypes = (
  { grant_types_supported: supported }: Metadata,
  { exchanges = false }: RegistrationRequest,
): string[] => {
  if (exchanges && supported !== undefined && !supported.includes(TOKEN_EXCHANGE)) {
    throw new Failure('registration_refused', {
      detail:
        'an API has exchange, but the server does not announce token exchange (RFC 8693) in grant_types_supported',
    })
  }
  const refresh = (supported ?? ['refresh_token']).includes('refresh_token') ? ['refresh_token'] : []
  return ['authorization_code', ...refresh, ...(exchanges ? [TOKEN_EXCHANGE] : [])]
}

/** Everything that we say of our client at this server but how it authenticates. What is not said is the server's to choose. */
export const clientMetadata = (metadata: Metadata, wanted: RegistrationRequest): Record<string, unknown> => {
  const scope = requestedScope(metadata, wanted.scopes)
  return {
    client_name: wanted.client_name,
    ...(wanted.logo_uri === undefined ? {} : { logo_uri: wanted.logo_uri }),
    redirect_uris: [wanted.redirect_uri],
    grant_types: grantTypes(metadata, wanted),
    response_types: ['code'],
    ...(wanted.jwks_uri !== undefined && {
      token_endpoint_auth_signing_alg: CLIENT_KEY_ALGORITHM,
      jwks_uri: wanted.jwks_uri,
    }),
    ...(scope === undefined ? {} : { scope }),
    ...(metadata.end_session_endpoint === undefined
      ? {}
      : { post_logout_redirect_uris: [wanted.post_logout_redirect_uri] }),
    ...(metadata.backchannel_logout_supported === true && {
      backchannel_logout_uri: wanted.backchannel_logout_uri,
      backchannel_logout_session_required: true,
    }),
  }
}

/** The same metadata as one text, whatever the order of their members: what `Client.requested` holds. */
export const requestedText = (metadata: Metadata, wanted: RegistrationRequest): string =>
  JSON.stringify(
    Object.fromEntries(Object.entries(clientMetadata(metadata, wanted)).toSorted(([a], [b]) => (a < b ? -1 : 1))),
  )

/** Members that we alone say or are silent about; what a server makes of them never comes back to it as if it were ours. */
const OURS: ReadonlySet<string> = new Set([
  'client_name',
  'client_uri',
  'logo_uri',
  'redirect_uris',
  'grant_types',
  'response_types',
  'token_endpoint_auth_method',
  'token_endpoint_auth_signing_alg',
  'scope',
  'post_logout_redirect_uris',
  'backchannel_logout_uri',
  'backchannel_logout_session_required',
  'jwks',
  'jwks_uri',
  'software_statement',
])

/** What an update must not hold, and the credentials, which are said apart (RFC 7592 section 2.2). */
const NEVER: ReadonlySet<string> = new Set([
  'registration_access_token',
  'registration_client_uri',
  'client_secret_expires_at',
  'client_id_issued_at',
  'client_id',
  'client_secret',
])

/**
 * The members that the server added to our registration: an update replaces all of it, so that they are lost unless they are said again.
 * @see RFC 7592 section 2.2
 */
export const addedByServer = (registered: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(registered).filter(([name, value]) => value !== null && !OURS.has(name) && !NEVER.has(name)),
  )
