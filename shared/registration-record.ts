import * as z from 'zod/mini'
import { clientKeySchema } from './client-keys.ts'
import type { ClientKey } from './client-keys.ts'
import { clientSchema } from './client.ts'
import type { Client } from './client.ts'
import type { Metadata } from './metadata.ts'

/** What the secret of a provider holds: our registration, and the one that is to take its place. */

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

/** What is to become current, the version that it was made from, and the attempt that it came of. */
export interface Pending {
  registration: Registration
  from: string
  /** Undefined where nothing was registered for it. */
  attempt: string | undefined
}

const pendingSchema = () => z.object({ rotation: z.object({ from: z.string(), attempt: z.optional(z.string()) }) })

/** What a pending version holds, or undefined where it is not of a rotation of ours. */
export const parsePending = (value: string): Pending | undefined => {
  const registration = parseRegistration(value)
  const parsed = registration === undefined ? undefined : pendingSchema().safeParse(JSON.parse(value))
  if (registration === undefined || parsed?.success !== true) return undefined
  return { registration, from: parsed.data.rotation.from, attempt: parsed.data.rotation.attempt }
}

/** Whether what waits came of an update of the client that there is, and not of a registration or a key of ours. */
export const isInPlace = ({ registration, attempt }: Pending): boolean =>
  attempt === undefined && registration.current.token_endpoint_auth_method !== 'private_key_jwt'
