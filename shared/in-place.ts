import type { RegistrationRequest } from './client-metadata.ts'
import type { Client } from './client.ts'
import { Failure } from './errors.ts'
import type { Send } from './http.ts'
import { probe } from './probe.ts'
import type { ProviderSecret } from './provider-secret.ts'
import { withCredentialsOf } from './registration-changes.ts'
import type { Pending, Registration } from './registration-record.ts'
import { read, update } from './registration.ts'
import type { Persist } from './registration.ts'
import type { Rotation } from './rotation.ts'

/**
 * Rotation of a client's credentials at a server that issues others when the registration is updated (RFC 7592 section 2.2). The former
 * secret is void from that moment on, so that what came is current before anything else is done.
 */

/** What it takes to renew credentials in place. */
export interface InPlaceDeps {
  send: Send
  secret: ProviderSecret
  rotation: Rotation
  pause: (milliseconds: number) => Promise<void>
  now: () => number
}

/** How long after each other it is tried to keep what the server will not say again; milliseconds. */
const KEEP_PAUSES_MS = [500, 2_000, 5_000]

const failed = (detail: string): Failure => new Failure('rotation_failed', { detail })

const hasReason = (error: unknown, ...reasons: Failure['reason'][]): error is Failure =>
  error instanceof Failure && reasons.includes(error.reason)

/**
 * The current client has another secret, or one that ends later, and that is current. A secret that the server shows and we do not have
 * is of a run that was killed: it becomes current, and the server is asked for no other.
 * @throws rotation_failed where the server changes nothing at an update, or somebody has changed the registration meanwhile; nothing waits
 * then. What `update` and the secret throw: the step may be repeated.
 */
export const renewInPlace = async (deps: InPlaceDeps, wanted: RegistrationRequest): Promise<void> => {
  const { send, secret, rotation, pause } = deps
  const since = Math.floor(deps.now() / 1_000)
  let known = await rotation.current()
  let isDone = false
  let isKept = false

  const keepNow = async (client: Client, isUpdate: boolean): Promise<void> => {
    const before = known.registration.current
    const isMoved = (client.client_secret_expires_at ?? 0) !== (before.client_secret_expires_at ?? 0)
    const isRenewed = client.client_secret !== before.client_secret || (isUpdate && isMoved)
    if (isRenewed && !isDone) {
      const registration = withCredentialsOf(known.registration, { ...client, registered_at: since })
      const pending: Pending = { registration, from: known.id, attempt: undefined }
      isKept = true
      isDone = (await rotation.keep(pending)) && (await rotation.promote(pending))
      if (isDone) return
    }
    await secret.change((registration) => registration && withCredentialsOf(registration, client))
    known = await rotation.current()
  }
  const persist =
    (isUpdate: boolean): Persist =>
    async (client) => {
      for (const pauseMs of KEEP_PAUSES_MS) {
        try {
          return await keepNow(client, isUpdate)
        } catch (error) {
          if (!hasReason(error, 'secrets_unavailable')) throw error
          await pause(pauseMs)
        }
      }
      await keepNow(client, isUpdate)
    }
  const show = (): Promise<unknown> => read(send, known.registration.current, persist(false))

  try {
    await show()
  } catch (error) {
    // A server may update what it does not show, and an update mends what somebody has changed there.
    if (!hasReason(error, 'registration_unmanaged', 'registration_refused')) throw error
  }
  if (isDone) return
  const { metadata, current } = known.registration
  try {
    await update(send, metadata, current, wanted, persist(true))
  } catch (error) {
    if (hasReason(error, 'registration_unmanaged')) {
      await rotation.abandon(undefined)
      throw failed(`${error.detail ?? ''}; set rotation.mode to successor`)
    }
    if (!hasReason(error, 'server_timeout', 'server_unreachable')) throw error
    // It may have been done: everybody is locked out until what the server has now is known.
    await show()
    if (!isDone) throw error
  }
  if (isDone) return
  await rotation.abandon(undefined)
  throw failed(
    isKept
      ? 'the registration was changed by somebody else at the same time; what the server issued is kept'
      : 'the server keeps the secret and its end when the registration is updated; set rotation.mode to successor',
  )
}

/**
 * What an update of before brought is current; false where the registration was changed since. Its credentials are kept then all the
 * same if it is these that the server takes.
 * @throws what the secret throws, server_unreachable, server_timeout, server_failed
 */
export const takeUpInPlace = async (
  { send, secret, rotation, now }: Pick<InPlaceDeps, 'send' | 'secret' | 'rotation' | 'now'>,
  pending: Pending,
  timeoutMs: number,
): Promise<boolean> => {
  if (await rotation.promote(pending)) return true
  const { metadata, current: client } = pending.registration
  const said = await probe({ send, timeoutMs, now }, { metadata, client, keys: [] })
  if (said === 'accepted') await secret.change((known) => known && withCredentialsOf(known, client))
  return false
}

/** What the server shows of the current client's credentials is kept, where that is something else than we have. */
export const readAgain = async (
  { send, secret }: Pick<InPlaceDeps, 'send' | 'secret'>,
  { current }: Registration,
): Promise<void> => {
  await read(send, current, (client) =>
    secret.change((registration) => registration && withCredentialsOf(registration, client)),
  )
}
