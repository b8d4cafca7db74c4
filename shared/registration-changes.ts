import type { Client } from './client.ts'
import type { Metadata } from './metadata.ts'
import { newRegistration } from './registration-record.ts'
import type { Registration, RegistrationAtIssuer } from './registration-record.ts'

/** How the registration at a provider changes: what is kept of it when a client, or the issuer, is another one. */

const plain = ({ issuer, metadata, current, retiring, keys }: RegistrationAtIssuer): RegistrationAtIssuer => ({
  issuer,
  metadata,
  current,
  retiring,
  ...(keys !== undefined && { keys }),
})

const withFormer = (registration: Registration, former: readonly RegistrationAtIssuer[]): Registration => {
  const { former: _, ...rest } = registration
  return former.length === 0 ? rest : { ...rest, former: [...former] }
}

/** The client in the place of the one of its id, wherever that is; nothing changes where it is not there any more. */
export const withClient = (registration: Registration, client: Client): Registration => {
  const renewed = (one: Client): Client => (one.client_id === client.client_id ? client : one)
  return { ...registration, current: renewed(registration.current), retiring: registration.retiring.map(renewed) }
}

/** The client of that id has the credentials of this one, and stays what it is otherwise; nothing changes where it is not there any more. */
export const withCredentialsOf = (registration: Registration, client: Client): Registration => {
  const { client_secret, client_secret_expires_at, registration_access_token, registration_client_uri } = client
  const credentials = { client_secret, client_secret_expires_at, registration_access_token, registration_client_uri }
  const renewed = (one: Client): Client =>
    one.client_id === client.client_id ? { ...one, ...credentials, registered_at: client.registered_at } : one
  return { ...registration, current: renewed(registration.current), retiring: registration.retiring.map(renewed) }
}

/** The client is current, whether it is new or had retired; the one before retires, so that grants made under it go on with it. */
export const succeededBy = (registration: Registration, client: Client, nowSeconds: number): Registration => {
  const { retired_at: _, ...current } = client
  const others = [{ ...registration.current, retired_at: nowSeconds }, ...registration.retiring]
  return { ...registration, current, retiring: others.filter((one) => one.client_id !== client.client_id) }
}

/**
 * The registration at that issuer, which the stage names now: what there is at another one is put aside and kept, with credentials that
 * are used there only. Undefined where there is none.
 */
export const turnedTo = (registration: Registration, issuer: string): Registration | undefined => {
  if (registration.issuer === issuer) return registration
  const { former = [] } = registration
  const known = former.find((one) => one.issuer === issuer)
  if (known === undefined) return undefined
  const others = [plain(registration), ...former.filter((one) => one !== known)]
  return withFormer({ format: registration.format, ...known }, others)
}

/** The first client at an issuer; what there was at another one is put aside and kept. */
export const begunAt = (before: Registration | undefined, metadata: Metadata, client: Client): Registration => {
  const registration = newRegistration(metadata, client)
  return before === undefined ? registration : withFormer(registration, [plain(before), ...(before.former ?? [])])
}

/** The registration without what was put aside at that issuer. */
export const withoutFormer = (registration: Registration, issuer: string): Registration =>
  withFormer(
    registration,
    (registration.former ?? []).filter((one) => one.issuer !== issuer),
  )

/** Every client at an issuer, the current one first. */
export const clientsOf = ({ current, retiring }: RegistrationAtIssuer): Client[] => [current, ...retiring]
