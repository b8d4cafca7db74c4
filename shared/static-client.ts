import * as z from 'zod/mini'
import { requestedScope } from './client-metadata.ts'
import { clientKeySchema } from './client-keys.ts'
import type { ClientKey } from './client-keys.ts'
import { CERTIFICATE_METHODS, clientSchema, printable } from './client.ts'
import type { Client } from './client.ts'
import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import type { Metadata } from './metadata.ts'
import type { Registration } from './registration-record.ts'
import { callbackUrl } from './stage.ts'

/**
 * Clients that an operator registered: the operator writes their credentials into a secret of its own, whenever there are others, and what
 * we know of the server is kept beside it in ours, so that neither side overwrites the other.
 */

const METHODS = ['client_secret_basic', 'client_secret_post', 'none', ...CERTIFICATE_METHODS] as const

const writtenClient = () =>
  z.strictObject({
    client_id: printable(),
    client_secret: z.optional(printable()),
    token_endpoint_auth_method: z.optional(z.enum(METHODS)),
  })

type WrittenClient = z.infer<ReturnType<typeof writtenClient>>

/** What the operator's secret holds: the client, and those before it under which grants still live. */
const writtenSchema = () => z.extend(writtenClient(), { retiring: z.optional(z.array(writtenClient())) })

const knownSchema = () =>
  z.object({
    format: z.literal(1),
    issuer: z.string(),
    metadata: z.looseObject({ issuer: z.string(), authorization_endpoint: z.string(), token_endpoint: z.string() }),
    static: z.literal(true),
    retiring: z.array(clientSchema()),
    /** Of those clients, where they sign. */
    keys: z.optional(z.array(clientKeySchema())),
  })

/** What our secret of a provider holds whose client is static: the server, and clients of ours from before, while grants live under them. */
export type StaticKnowledge = z.infer<ReturnType<typeof knownSchema>>

/** What we know of the server of a static client. */
export const staticKnowledge = (metadata: Metadata, retiring: Client[], keys?: ClientKey[]): StaticKnowledge => ({
  format: 1,
  issuer: metadata.issuer,
  metadata,
  static: true,
  retiring,
  ...(keys !== undefined && { keys }),
})

/** The same from a secret's value, or undefined when it holds something else. */
export const parseStaticKnowledge = (value: string): StaticKnowledge | undefined => {
  try {
    return knownSchema().safeParse(JSON.parse(value)).data
  } catch {
    return undefined
  }
}

const EXAMPLE = '{"client_id": "...", "client_secret": "..."}'

/** What is wrong with what the operator wrote, by the names of members; values stay untold. */
const complaint = (issue: z.core.$ZodIssue): string => {
  const member = issue.path.join('.')
  if (issue.code === 'unrecognized_keys')
    return `has members that it must not have: ${issue.keys.join(', ').slice(0, 100)}`
  if (member === '') return `must be an object such as ${EXAMPLE}`
  if (member.endsWith('token_endpoint_auth_method')) return `must have one of ${METHODS.join(', ')} as ${member}`
  return `must have as ${member} ${member === 'retiring' ? 'a list of clients' : 'text of 1 to 4,096 printable characters'}`
}

const written = (provider: string, value: string | undefined): z.infer<ReturnType<typeof writtenSchema>> => {
  const refuse = (words: string): never => {
    throw new Failure('not_registered', { detail: `${provider}: the secret of its static client ${words}` })
  }
  if (value === undefined || value.trim() === '') return refuse(`has no value yet; write ${EXAMPLE} into it`)
  let content: unknown
  try {
    content = JSON.parse(value)
  } catch {
    return refuse(`is no JSON; write ${EXAMPLE} into it`)
  }
  const parsed = writtenSchema().safeParse(content)
  if (parsed.success) return parsed.data
  return refuse([...new Set(parsed.error.issues.map(complaint))].join('; and it '))
}

/** The ids of the clients in the operator's secret; undefined where nothing usable is written there. */
export const writtenClientIds = (value: string): ReadonlySet<string> | undefined => {
  try {
    const { data } = writtenSchema().safeParse(JSON.parse(value))
    return data && new Set([data, ...(data.retiring ?? [])].map(({ client_id: id }) => id))
  } catch {
    return undefined
  }
}

/** How a client authenticates whose operator does not say it: without a secret not at all, else basic unless the server has only post. */
const methodOf = ({ client_secret: secret, token_endpoint_auth_method: method }: WrittenClient, metadata: Metadata) => {
  if (method !== undefined) return method
  if (secret === undefined) return 'none'
  const supported = metadata.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  return !supported.includes('client_secret_basic') && supported.includes('client_secret_post')
    ? 'client_secret_post'
    : 'client_secret_basic'
}

/**
 * The registration of a static client: what the operator wrote, at the server that we know.
 * @throws not_registered, in words for the operator, where nothing or something unusable was written
 */
export const staticRegistration = (
  stage: Stage,
  provider: string,
  { format, issuer, metadata, retiring, keys }: StaticKnowledge,
  value: string | undefined,
): Registration => {
  const { retiring: before = [], ...current } = written(provider, value)
  const asClient = (given: WrittenClient): Client => {
    const method = methodOf(given, metadata)
    const byCertificate = CERTIFICATE_METHODS.some((name) => name === method)
    const lacks = (words: string): never => {
      throw new Failure('not_registered', { detail: `${provider}: ${words}, for ${method}` })
    }
    if (byCertificate && stage.providers[provider]?.certificate_secret === undefined) {
      return lacks('the stage must name a certificate_secret')
    }
    if (method !== 'none' && !byCertificate && given.client_secret === undefined) {
      return lacks('the secret of its static client must have client_secret')
    }
    const scope = requestedScope(metadata, stage.providers[provider]?.scopes)
    const redirect_uri = callbackUrl(stage, provider)
    return { ...given, token_endpoint_auth_method: method, redirect_uri, scope }
  }
  const all = [...before.map(asClient), ...retiring]
  return { format, issuer, metadata, current: asClient(current), retiring: all, ...(keys !== undefined && { keys }) }
}
