import { newClientKey } from '../shared/client-keys.ts'
import type { Stage } from '../shared/config.ts'
import { newRegistration, parseRegistration } from '../shared/credentials.ts'
import type { Registration } from '../shared/credentials.ts'
import { Failure } from '../shared/errors.ts'
import type { Send } from '../shared/http.ts'
import { discover } from '../shared/metadata.ts'
import { registrationRequest, requestedScope } from '../shared/client-metadata.ts'
import type { RegistrationRequest } from '../shared/client-metadata.ts'
import { withAdvice } from '../shared/profiles.ts'
import { register as registerClient, unregister } from '../shared/registration.ts'
import type { Secrets } from '../shared/secrets.ts'
import { parseStaticKnowledge, staticKnowledge } from '../shared/static-client.ts'
import { customResource } from './custom-resource.ts'
import type { ResourceEvent, ResourceOutcome } from './custom-resource.ts'
import { providerSecret, secrets, sendOnce, stage } from './runtime.ts'

interface Deps {
  stage: Stage
  secrets: Secrets
  secretOf: (provider: string) => string | undefined
  send: Send
}

/** A client that still is what the stage asks for is kept (RFC 7591 says nothing of registering again; people would see a new name for consent). */
const stillFits = (
  registration: Registration | undefined,
  wanted: RegistrationRequest,
  issuer: string,
  scope: string | undefined,
): boolean =>
  registration !== undefined &&
  registration.issuer === issuer &&
  registration.current.redirect_uri === wanted.redirect_uri &&
  (registration.current.requested_scope ?? '') === (scope ?? '') &&
  (registration.current.token_endpoint_auth_method === 'private_key_jwt') === (wanted.jwks_uri !== undefined)

/**
 * The provider has a client: the authorization server is discovered, the client registered where there is none that fits, and the
 * credentials are in the secret before this returns. Deleting gives the client back.
 * @see RFC 8414 section 3, RFC 7591 section 3, RFC 7592 section 2.3
 */
export const register =
  (deps: Deps) =>
  async (event: ResourceEvent): Promise<ResourceOutcome> => {
    const provider = event.properties['Provider'] ?? ''
    const settings = deps.stage.providers[provider]
    const secret = deps.secretOf(provider)
    if (settings === undefined || secret === undefined) throw new Failure('provider_unknown', { detail: provider })
    const value = await deps.secrets.read(secret)
    const known = value === undefined ? undefined : parseRegistration(value)
    const before = known ?? parseStaticKnowledge(value ?? '')
    const clients = known === undefined ? (before?.retiring ?? []) : [known.current, ...known.retiring]
    const id = `registration-${provider}`

    if (event.type === 'Delete') {
      for (const client of clients) await unregister(deps.send, client)
      return { id, attributes: {} }
    }

    const { issuer, endpoint_origins: endpointOrigins, initial_access_token_secret: tokenSecret } = settings
    const metadata = await discover(deps.send, issuer, endpointOrigins)
    // Grants made under the clients before go on with them; those of another issuer are not ours to use any more.
    const retiring = before?.issuer === issuer ? clients : []
    if (settings.client === 'static') {
      await deps.secrets.write(secret, JSON.stringify(staticKnowledge(metadata, retiring)), event.requestId)
      return { id, attributes: {} }
    }
    const initialAccessToken = tokenSecret === undefined ? undefined : await deps.secrets.read(tokenSecret)
    if (tokenSecret !== undefined && initialAccessToken === undefined) {
      throw new Failure('registration_refused', {
        detail: `the secret ${tokenSecret} with the initial access token has no value`,
      })
    }
    const wanted = registrationRequest(deps.stage, provider, settings, initialAccessToken?.trim())

    const fits = stillFits(known, wanted, issuer, requestedScope(metadata, settings.scopes))
    const registration =
      known !== undefined && fits
        ? { ...known, metadata }
        : newRegistration(
            metadata,
            await registerClient(deps.send, metadata, wanted),
            retiring,
            known?.issuer === issuer ? known.keys : undefined,
          )
    if (settings.rotation.mode === 'keys') registration.keys ??= [newClientKey(Math.floor(Date.now() / 1_000))]
    await deps.secrets.write(secret, JSON.stringify(registration), event.requestId)
    return { id, attributes: { ClientId: registration.current.client_id } }
  }

export const handler = customResource('register', (event) =>
  register({ stage: stage(), secrets: secrets(), secretOf: providerSecret, send: sendOnce() })(event).catch(
    (error: unknown) => {
      throw withAdvice(error, stage().providers[event.properties['Provider'] ?? '']?.profile)
    },
  ),
)
