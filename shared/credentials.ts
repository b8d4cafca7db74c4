import * as z from 'zod/mini'
import { clientKeySchema } from './client-keys.ts'
import type { ClientKey } from './client-keys.ts'
import { Failure } from './errors.ts'
import { clientSchema } from './client.ts'
import type { Client } from './client.ts'
import type { Stage } from './config.ts'
import type { Metadata } from './metadata.ts'
import type { Secrets } from './secrets.ts'
import { parseStaticKnowledge, staticRegistration } from './static-client.ts'

/** The credentials of each provider: one secret a provider, cached in this instance, read again when the server says they are wrong. */

const FORMAT = 1

/** Built when a secret is read: a schema at the top costs each cold start milliseconds. */
const registrationSchema = () => {
  const client = clientSchema()
  const atIssuer = {
    /** Credentials are only ever used with this issuer. */
    issuer: z.string(),
    metadata: z.looseObject({ issuer: z.string(), authorization_endpoint: z.string(), token_endpoint: z.string() }),
    current: client,
    retiring: z.array(client),
    keys: z.optional(z.array(clientKeySchema())),
  }
  return z.object({ format: z.literal(FORMAT), ...atIssuer, former: z.optional(z.array(z.object(atIssuer))) })
}

/** Our clients at one issuer. */
export interface RegistrationAtIssuer {
  issuer: string
  /** As discovered when the client was registered or last looked at. */
  metadata: Metadata
  current: Client
  retiring: Client[]
  /** Of clients that use private_key_jwt: the first signs, all are published. */
  keys?: ClientKey[] | undefined
}

/** What the secret of a provider holds. */
export interface Registration extends RegistrationAtIssuer {
  format: typeof FORMAT
  /** At issuers that the stage named before, until CloudFormation says that it will not go back to them. */
  former?: RegistrationAtIssuer[] | undefined
}

/** A registration with its first client. */
export const newRegistration = (
  metadata: Metadata,
  current: Client,
  retiring: Client[] = [],
  keys?: ClientKey[],
): Registration => ({
  format: FORMAT,
  issuer: metadata.issuer,
  metadata,
  current,
  retiring,
  ...(keys !== undefined && { keys }),
})

/** The registration in a secret's value, or undefined when it holds something else. */
export const parseRegistration = (value: string): Registration | undefined => {
  try {
    const parsed = registrationSchema().safeParse(JSON.parse(value))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}

export interface Credentials {
  /** The provider's registration. @throws not_registered, secrets_unavailable */
  of(provider: string): Promise<Registration>
  /** The same once more, for who met with a refusal: read again unless somebody has done so since. @throws not_registered, secrets_unavailable */
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

  const fresh = async (provider: string): Promise<Registration> => {
    const entry = { readMs: now(), registration: load(provider) }
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
      return known !== undefined && now() - known.readMs < maxAgeMs ? await known.registration : await fresh(provider)
    },

    async again(provider, refused) {
      const known = await cache.get(provider)?.registration
      return known === undefined || known === refused ? await fresh(provider) : known
    },
  }
}
