import { registrationRequest, requestedText } from './client-metadata.ts'
import type { Client } from './client.ts'
import { Failure } from './errors.ts'
import { createProviderSecret } from './provider-secret.ts'
import type { ProviderSecret } from './provider-secret.ts'
import { withClient } from './registration-changes.ts'
import type { Registration } from './registration-record.ts'
import { read } from './registration.ts'
import type { RegistrationsDeps } from './registrations.ts'
import { attemptsIn, isPending } from './rotation.ts'

/** What an operator gets to know of the registration at a provider: nothing of it is secret. */

/**
 * How it stands with our client: `known` to the server and as the stage asks; `differs` from that, or is not shown; `lost` where the server no longer takes it;
 * `unmanaged` where the server cannot be asked (RFC 7592); `unreachable` where it did not answer; `static` where an operator registered it;
 * `none`, at the issuer that the stage names.
 */
export type Standing = 'known' | 'differs' | 'lost' | 'unmanaged' | 'unreachable' | 'static' | 'none'

/** Times are seconds since the epoch; an end of 0 is none. */
export interface Look {
  provider: string
  issuer: string
  standing: Standing
  /** What the server said or what differs, in words. */
  detail: string | null
  client_id: string | null
  token_endpoint_auth_method: string | null
  registered_at: number | null
  secret_ends_at: number | null
  /** Clients that stay for the sessions that began under them. */
  retiring: number
  /** Registrations that were begun, and whose end nobody knows. */
  attempts: number
  rotation_pending: boolean
}

const standings: Partial<Record<Failure['reason'], Standing>> = {
  registration_lost: 'lost',
  registration_unmanaged: 'unmanaged',
  registration_refused: 'differs',
  server_unreachable: 'unreachable',
  server_timeout: 'unreachable',
  server_address_refused: 'unreachable',
}

/** Whether the server knows the client, and as what. Credentials that it brings by the way are kept: those before may be void. */
const standingOf = async (
  { send, stage }: RegistrationsDeps,
  provider: string,
  { issuer, metadata, current }: Registration,
  secret: ProviderSecret,
): Promise<{ standing: Standing; detail: string | null; client: Client }> => {
  let client = current
  const keep = async (changed: Client): Promise<void> => {
    client = changed
    await secret.change((registration) =>
      registration?.issuer === issuer ? withClient(registration, changed) : registration,
    )
  }
  try {
    client = await read(send, current, keep)
    const settings = stage.providers[provider]
    const wanted = settings && registrationRequest(stage, provider, settings, undefined)
    // Of clients from before that was kept, it is not known.
    const isAsked =
      wanted === undefined || current.requested === undefined || current.requested === requestedText(metadata, wanted)
    const detail = isAsked ? null : 'the stage asks for something else than what was last asked for'
    return { standing: isAsked ? 'known' : 'differs', detail, client }
  } catch (error) {
    const standing = error instanceof Failure ? standings[error.reason] : undefined
    if (!(error instanceof Failure) || standing === undefined) throw error
    return { standing, detail: error.detail ?? null, client }
  }
}

/** Looks at the registration of a provider, here and at the server. @throws provider_unknown, secrets_unavailable */
export const lookAt = async (deps: RegistrationsDeps, provider: string): Promise<Look> => {
  const settings = Object.hasOwn(deps.stage.providers, provider) ? deps.stage.providers[provider] : undefined
  const name = deps.secretOf(provider)
  if (settings === undefined || name === undefined) throw new Failure('provider_unknown', { detail: provider })
  const secret = createProviderSecret(deps.versions, name)
  const [{ registration: kept }, labels] = [await secret.read(), await deps.versions.labels(name)]
  // What was put aside for an issuer is turned to by a deploy; until then there is no place to keep what the server may bring.
  const registration = kept?.issuer === settings.issuer ? kept : undefined
  const here = {
    provider,
    issuer: settings.issuer,
    retiring: registration?.retiring.length ?? 0,
    attempts: attemptsIn(labels).length,
    rotation_pending: isPending(labels),
  }
  if (settings.client === 'static' || registration === undefined) {
    const standing = settings.client === 'static' ? 'static' : 'none'
    const nothing = { client_id: null, token_endpoint_auth_method: null, registered_at: null, secret_ends_at: null }
    return { ...here, standing, detail: null, ...nothing }
  }
  const { standing, detail, client } = await standingOf(deps, provider, registration, secret)
  return {
    ...here,
    standing,
    detail,
    client_id: client.client_id,
    token_endpoint_auth_method: client.token_endpoint_auth_method,
    registered_at: client.registered_at ?? null,
    secret_ends_at: client.client_secret_expires_at ?? null,
  }
}
