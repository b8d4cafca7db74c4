import type { RegistrationRequest } from '../shared/client-metadata.ts'
import type { Client } from '../shared/client.ts'
import { Failure } from '../shared/errors.ts'
import type { Send } from '../shared/http.ts'
import type { Metadata } from '../shared/metadata.ts'
import { read, register, unregister } from '../shared/registration.ts'
import type { Finding } from './doctor-findings.ts'

/** A real registration, tried and taken back. */

const isOver = ({ client_secret_expires_at: end = 0 }: Client): boolean => end !== 0 && end * 1_000 <= Date.now()

const lastsUntil = (client: Client): string => {
  const { client_secret: secret, client_secret_expires_at: end } = client
  if (secret === undefined) return 'it has no secret'
  if (end === undefined || end === 0) return 'its secret does not expire'
  return `its secret ${isOver(client) ? 'has expired already, at' : 'expires at'} ${new Date(end * 1_000).toISOString()}`
}

/** Whether the server shows the registration again (RFC 7592); a new registration access token replaces the one before. */
const readBack = async (send: Send, client: Client): Promise<{ client: Client; management: string }> => {
  let current = client
  const persist = async (next: Client): Promise<void> => {
    current = next
  }
  try {
    await read(send, client, persist)
    return { client: current, management: 'it can be read (RFC 7592)' }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { client: current, management: `it cannot be read again: ${error.detail ?? error.reason}` }
  }
}

/**
 * What a registration leads to. The client is deleted whatever happens in between; `onClient` learns its id before that, so that an
 * operator can do it by hand.
 */
export const tryRegistration = async (
  send: Send,
  metadata: Metadata,
  wanted: RegistrationRequest,
  onClient: (id: string) => void,
): Promise<Finding[]> => {
  let client: Client
  try {
    client = await register(send, metadata, wanted)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const advice =
      'let clients register there, give an initial access token, or set client to static and register one by hand'
    return [{ topic: 'registration', level: 'todo', says: error.detail ?? error.reason, advice }]
  }
  onClient(client.client_id)
  const managed = await readBack(send, client)
  const isDeleted = await unregister(send, managed.client)
  const says = `a client was registered with ${client.token_endpoint_auth_method}; ${lastsUntil(client)}; ${managed.management}`
  if (!isDeleted) {
    const advice = `delete the client ${client.client_id} at the server by hand; it would not delete those of Coatcheck either`
    return [{ topic: 'registration', level: 'todo', says: `${says}; the server did not delete it`, advice }]
  }
  const finding = { topic: 'registration', says: `${says}; it was deleted again` } as const
  return isOver(client)
    ? [{ ...finding, level: 'todo', advice: 'see whether the clocks agree, and how long secrets last at the server' }]
    : [{ ...finding, level: 'ok' }]
}
