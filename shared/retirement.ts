import type { Client } from './client.ts'
import type { Registration } from './registration-record.ts'

/** When a client that has retired is no longer needed, and when one that expires has to be followed by another. */

/**
 * What may still begin or be under way after a client has retired: instances begin logins with what they read up to 15 minutes ago, a login
 * takes ten, and tasks are repeated for an hour.
 */
const MARGIN_SECONDS = 2 * 3_600
/** How long it is tried to delete a client at a server that does not let us. */
const PATIENCE_SECONDS = 7 * 86_400

/** The last moment before which a session of a client can live, in seconds since the epoch. */
const endOf = ({ retired_at: since }: Client, sessionSeconds: number): number =>
  since === undefined ? Number.POSITIVE_INFINITY : since + sessionSeconds + MARGIN_SECONDS

/** Whether no session can be left that began under the client, when sessions last that long at most. */
export const isOver = (client: Client, sessionSeconds: number, nowSeconds: number): boolean =>
  endOf(client, sessionSeconds) < nowSeconds

/** Whether it has been tried for long enough to delete the client. */
export const isOverdue = (client: Client, sessionSeconds: number, nowSeconds: number): boolean =>
  endOf(client, sessionSeconds) + PATIENCE_SECONDS < nowSeconds

/** The registration without the clients that are gone; those that retired by a rotation since get the date. The same where nothing changes. */
export const retired = <T extends Pick<Registration, 'retiring'>>(
  registration: T,
  gone: ReadonlySet<string>,
  nowSeconds: number,
): T => {
  const { retiring } = registration
  if (!retiring.some((client) => client.retired_at === undefined || gone.has(client.client_id))) return registration
  const left = retiring.filter((client) => !gone.has(client.client_id))
  return { ...registration, retiring: left.map((client) => Object.assign({ retired_at: nowSeconds }, client)) }
}

const LEAST_SECONDS = 3 * 3_600
const MOST_SECONDS = 30 * 86_400
const UNKNOWN_LIFETIME_SECONDS = 30 * 86_400

/** How long before its end a secret is to be followed by another, and how long it is still good, in seconds. None where it does not end. */
const timeOf = (client: Client, nowSeconds: number): { lead: number; lifetime: number; left: number } | undefined => {
  const { client_secret_expires_at: ends = 0, registered_at: since = ends - UNKNOWN_LIFETIME_SECONDS } = client
  if (ends === 0) return undefined
  const lifetime = ends - since
  return { lead: Math.min(Math.max(lifetime / 3, LEAST_SECONDS), MOST_SECONDS), lifetime, left: ends - nowSeconds }
}

/**
 * Whether the secret of a client is to be followed by another now: when a third of its time is left, but not more than 30 days and not less
 * than three hours before its end (RFC 7591 section 3.2.1: 0 means never).
 */
export const isDue = (client: Client, nowSeconds: number): boolean => {
  const time = timeOf(client, nowSeconds)
  return time !== undefined && time.left < time.lead
}

/** Whether two thirds of the time in which the secret was to be followed by another have passed, so that somebody should look. */
export const isNearExpiry = (client: Client, nowSeconds: number): boolean => {
  const time = timeOf(client, nowSeconds)
  return time !== undefined && time.left < Math.min(time.lead, time.lifetime) / 3
}
