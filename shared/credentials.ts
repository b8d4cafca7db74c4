import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import { withCredentialsOf } from './registration-changes.ts'
import { isInPlace, parsePending, parseRegistration } from './registration-record.ts'
import type { Registration } from './registration-record.ts'
import { PENDING } from './secrets.ts'
import type { Secrets } from './secrets.ts'
import { parseStaticKnowledge, staticRegistration } from './static-client.ts'

/** The credentials of each provider: one secret a provider, cached in this instance, read again when the server says they are wrong. */

/** How often it is looked at most for credentials that wait, at a server that refuses those that are current; milliseconds. */
const WAITING_EVERY_MS = 1_000

export interface Credentials {
  /** The provider's registration. @throws not_registered, secrets_unavailable */
  of(provider: string): Promise<Registration>
  /**
   * The same once more, for who met with a refusal: read again unless somebody has done so since. Where what was refused is still current,
   * with the credentials that wait for the end of a rotation in place: the server has voided the others already.
   * @throws not_registered, secrets_unavailable
   */
  again(provider: string, refused: Registration): Promise<Registration>
}

/**
 * Credentials of the providers of a stage.
 * @param secretOf the secret's name or ARN of each provider
 * @param maxAgeMs how long they are used before they are read again
 * @param writtenSecretOf the same of the secret that an operator writes a static client into
 * @param stage names the issuer of each provider; credentials of any other are not handed out (RFC 9700 section 4.4)
 */
export const createCredentials = ({
  secrets,
  secretOf,
  writtenSecretOf,
  stage,
  maxAgeMs,
  now,
}: {
  secrets: Pick<Secrets, 'read'>
  secretOf: (provider: string) => string | undefined
  writtenSecretOf: (provider: string) => string | undefined
  stage: Stage
  maxAgeMs: number
  now: () => number
}): Credentials => {
  const cache = new Map<string, { readMs: number; registration: Promise<Registration> }>()

  const load = async (provider: string): Promise<Registration> => {
    const settings = stage.providers[provider]
    const isStatic = settings?.client === 'static'
    const read = async (secret: string | undefined) => (secret === undefined ? undefined : await secrets.read(secret))
    const [value = '', written] = await Promise.all([
      read(secretOf(provider)),
      read(isStatic ? writtenSecretOf(provider) : undefined),
    ])
    const known = isStatic ? parseStaticKnowledge(value) : parseRegistration(value)
    if (known === undefined) throw new Failure('not_registered', { detail: provider })
    if (known.issuer !== settings?.issuer) {
      throw new Failure('not_registered', { detail: `${provider}: the registration is of another issuer` })
    }
    return 'static' in known ? staticRegistration(stage, provider, known, written) : known
  }

  const lookedMs = new Map<string, number>()

  /** The registration after a refusal. Only what the server issued for a client that there is counts: other clients wait untried. */
  const loadAfter = async (provider: string, refused: Registration): Promise<Registration> => {
    const registration = await load(provider)
    const secret = stage.providers[provider]?.client === 'static' ? undefined : secretOf(provider)
    if (secret === undefined || registration.current.client_secret !== refused.current.client_secret)
      return registration
    const sinceMs = now() - (lookedMs.get(provider) ?? Number.NEGATIVE_INFINITY)
    if (sinceMs < WAITING_EVERY_MS) return registration
    lookedMs.set(provider, now())
    const pending = parsePending((await secrets.read(secret, PENDING)) ?? '')
    if (pending === undefined || !isInPlace(pending)) return registration
    const { issuer, current } = pending.registration
    return issuer === registration.issuer ? withCredentialsOf(registration, current) : registration
  }

  const fresh = async (provider: string, loading: Promise<Registration>): Promise<Registration> => {
    const entry = { readMs: now(), registration: loading }
    cache.set(provider, entry)
    try {
      return await entry.registration
    } catch (error) {
      if (cache.get(provider) === entry) cache.delete(provider)
      throw error
    }
  }

  return {
    async of(provider) {
      const known = cache.get(provider)
      return known !== undefined && now() - known.readMs < maxAgeMs
        ? await known.registration
        : await fresh(provider, load(provider))
    },

    async again(provider, refused) {
      const entry = cache.get(provider)
      const known = await entry?.registration
      if (known !== undefined && known !== refused) return known
      // Others who met with the same refusal may have begun to read meanwhile; what waits is read for one of them only.
      const latest = cache.get(provider)
      if (latest !== undefined && latest !== entry) return await latest.registration
      return await fresh(provider, loadAfter(provider, refused))
    },
  }
}
