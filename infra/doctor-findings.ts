import { AUTHENTICATION_METHODS, CERTIFICATE_METHODS } from '../shared/client.ts'
import { preferredMethod, requestedScope } from '../shared/client-metadata.ts'
import type { RegistrationRequest } from '../shared/client-metadata.ts'
import { CODER_REGISTRATION } from '../shared/coder-advice.ts'
import { parseStage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import type { Metadata } from '../shared/metadata.ts'

/** What an authorization server's metadata mean for Coatcheck: what it can do, what is done with that, what is missing. */

/**
 * `ok`: works as it is. `note`: something is missing that nobody has to do anything about. `todo`: something is to be done, here or at the
 * server. `stop`: the server cannot be used as it is.
 */
export type Level = 'ok' | 'note' | 'todo' | 'stop'

/** One thing that was found out, with what to do about it. */
export interface Finding {
  topic: string
  level: Level
  says: string
  advice?: string
}

const finding = (topic: string, level: Level, says: string, advice?: string): Finding => ({
  topic,
  level,
  says,
  ...(advice === undefined ? {} : { advice }),
})

/** What a member of a list of the server's may look like here. */
const shown = (names: readonly string[]): string =>
  names
    .map((name) => name.replace(/[^\x21-\x7e]/g, '').slice(0, 40))
    .slice(0, 8)
    .join(', ')

const signIn = (metadata: Metadata): Finding => {
  const scope = requestedScope(metadata, undefined)
  const asks = scope === undefined ? 'no scope unless the stage names some' : `scopes ${scope}`
  return finding('sign-in', 'ok', `code flow with PKCE S256; ${asks}`)
}

const user = (metadata: Metadata, isCoder: boolean): Finding => {
  const openid = (requestedScope(metadata, undefined) ?? '').split(' ').includes('openid')
  if (openid && metadata.jwks_uri !== undefined) return finding('user', 'ok', 'told by the ID token (OpenID Connect)')
  if (isCoder) return finding('user', 'ok', 'told by /api/v2/users/me (profile coder)')
  return finding(
    'user',
    'todo',
    'there is no ID token to tell who signed in',
    'set account to a URL that answers with the user of an access token',
  )
}

const authentication = (metadata: Metadata, wanted: RegistrationRequest): Finding => {
  const offered = metadata.token_endpoint_auth_methods_supported
  const others = offered === undefined ? 'the server announces none' : `offered: ${shown(offered)}`
  try {
    const method = preferredMethod(metadata, wanted)
    if (method === 'none') return finding('authentication', 'note', `none, a public client (${others})`)
    return finding('authentication', 'ok', `${method} (${others})`)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const advice = (offered ?? []).includes('private_key_jwt')
      ? 'set rotation.mode to keys, for private_key_jwt'
      : `allow one of ${AUTHENTICATION_METHODS.join(', ')} at the server`
    return finding('authentication', 'todo', `none that Coatcheck has by default (${others})`, advice)
  }
}

const registration = (metadata: Metadata, isCoder: boolean): Finding => {
  if (metadata.registration_endpoint !== undefined) {
    const { pathname } = new URL(metadata.registration_endpoint)
    return finding('registration', 'ok', `Coatcheck registers itself at ${pathname.slice(0, 60)}; --register tries it`)
  }
  return finding(
    'registration',
    'todo',
    'no registration endpoint: dynamic client registration is off or not supported',
    `${isCoder ? CODER_REGISTRATION : 'turn it on at the server (RFC 7591)'}, or set client to static and register one by hand`,
  )
}

/** What a stage does that does not say how to rotate. */
const rotationByDefault = () => {
  const provider = { issuer: 'https://as.example.com' }
  const parsed = parseStage({ origin: 'https://app.example.com', providers: { main: provider } })
  return parsed.ok ? parsed.stage.providers['main']?.rotation : undefined
}

const rotation = (metadata: Metadata): Finding => {
  const settings = rotationByDefault()
  if (metadata.registration_endpoint === undefined || settings === undefined)
    return finding('rotation', 'note', 'by hand: whoever registers the client renews its secret')
  const { mode, every_days: days } = settings
  const hasKeys =
    (metadata.token_endpoint_auth_methods_supported ?? []).includes('private_key_jwt') &&
    (metadata.token_endpoint_auth_signing_alg_values_supported ?? ['ES256']).includes('ES256')
  const how = mode === 'successor' ? ': a new client takes over' : ''
  const more = hasKeys && mode !== 'keys' ? '; keys is possible too' : ''
  return finding('rotation', 'ok', `${mode}, every ${days} days${how}${more}`)
}

const refresh = (metadata: Metadata): Finding => {
  const grants = metadata.grant_types_supported
  if (grants === undefined)
    return finding('refresh', 'note', 'not announced (no grant_types_supported); asked for all the same')
  if (grants.includes('refresh_token')) return finding('refresh', 'ok', 'tokens are renewed without the user')
  return finding(
    'refresh',
    'todo',
    'the server has no refresh tokens, so a session is of no use when its access token ends',
    'turn refresh tokens on at the server, or make access tokens last as long as sessions should',
  )
}

const signOut = (metadata: Metadata): Finding => {
  const browser = metadata.end_session_endpoint !== undefined
  const behind = metadata.backchannel_logout_supported === true
  if (browser && behind) return finding('sign-out', 'ok', 'at both ends: RP-initiated and back-channel logout')
  if (browser)
    return finding('sign-out', 'note', 'RP-initiated; without back-channel logout, one at the server is not known here')
  if (behind)
    return finding('sign-out', 'note', 'back-channel; without RP-initiated logout, the server keeps its own session')
  return finding('sign-out', 'note', 'here only: neither RP-initiated nor back-channel logout')
}

/** What there is to say of client certificates (RFC 8705), if anything is. */
export const certificateFinding = (metadata: Metadata, isShown: boolean, hasAliases: boolean): Finding[] => {
  if (isShown) return [finding('certificate', 'note', 'was shown; name a secret that holds it in certificate_secret')]
  const methods = metadata.token_endpoint_auth_methods_supported ?? []
  if (!hasAliases && !CERTIFICATE_METHODS.some((method) => methods.includes(method))) return []
  const says = 'the server takes client certificates (mutual TLS); certificate_secret shows it one'
  return [finding('certificate', 'note', says)]
}

/** What the metadata say, topic by topic. */
export const judge = (metadata: Metadata, wanted: RegistrationRequest, isCoder: boolean): Finding[] => [
  signIn(metadata),
  user(metadata, isCoder),
  authentication(metadata, wanted),
  registration(metadata, isCoder),
  rotation(metadata),
  refresh(metadata),
  metadata.pushed_authorization_request_endpoint === undefined
    ? finding('requests', 'note', 'no PAR (RFC 9126); parameters go through the browser')
    : finding('requests', 'ok', 'pushed to the server first (PAR, RFC 9126)'),
  metadata.authorization_response_iss_parameter_supported === true
    ? finding('iss', 'ok', 'announced, so every callback must have it (RFC 9207)')
    : finding('iss', 'note', 'not announced; checked where it comes'),
  metadata.revocation_endpoint === undefined
    ? finding('revocation', 'note', 'none: tokens of ended sessions live on until they expire')
    : finding('revocation', 'ok', 'tokens of ended sessions are revoked (RFC 7009)'),
  signOut(metadata),
]
