import { Failure } from './errors.ts'
import { parsePending, parseRegistration } from './registration-record.ts'
import type { Pending, Registration } from './registration-record.ts'
import { CURRENT, PENDING } from './secrets.ts'
import type { SecretVersion, SecretVersions } from './secrets.ts'

/**
 * One rotation of a provider's secret, as versions and labels. What is to become current waits under AWSPENDING with the version it was
 * made from, so that it only ever takes the place of that one; what is registered on the way is noted before.
 */

const PREVIOUS = 'AWSPREVIOUS'
/** The beginning of the label of a note: a registration that was begun, and not yet kept. */
const ATTEMPT = 'COATCHECK_ATTEMPT_'

/** A secret has at most 20 labels: from here on attempts share one, which only an operator takes away. */
const MOST_NOTES = 10
const FURTHER = 'further'

const refused = (detail: string): Failure => new Failure('rotation_failed', { detail })

/** Registrations that may be at a server without being kept, by the version that is their note. */
export const attemptsIn = (
  labels: Readonly<Record<string, readonly string[]>>,
): { id: string; label: string; version: string }[] =>
  Object.entries(labels).flatMap(([version, names]) =>
    names.flatMap((label) => (label.startsWith(ATTEMPT) ? [{ id: label.slice(ATTEMPT.length), label, version }] : [])),
  )

/** Whether a rotation was begun and did not get to its end. */
export const isPending = (labels: Readonly<Record<string, readonly string[]>>): boolean =>
  Object.values(labels).some((names) => names.includes(PENDING) && !names.includes(CURRENT))

/** The rotation that AWS calls by a ClientRequestToken. */
export interface Rotation {
  /** Whether it still has to be done: not after its version became current. @throws rotation_failed when AWS knows no such rotation */
  isOpen(): Promise<boolean>
  /** What is current, and its version. @throws rotation_failed when that is no registration */
  current(): Promise<{ id: string; registration: Registration }>
  /** What waits to become current; undefined as long as there is nothing, or nothing of ours. */
  pending(): Promise<Pending | undefined>
  /** It waits to become current; false when something else does already. */
  keep(pending: Pending): Promise<boolean>
  /** A note is there that something is about to be registered, under this id. */
  note(attempt: string): Promise<void>
  /** The note is gone: what was registered is kept, or is no longer registered. */
  settle(attempt: string): Promise<void>
  /** What waited is current; false when that has changed since it was made. */
  promote(pending: Pending): Promise<boolean>
  /** Nothing waits any more; where its client could not be given back, a note says so. */
  abandon(attempt: string | undefined): Promise<void>
}

/** The rotation of a secret under a token. All but `current` may be repeated after a crash, and by two processes at once. */
export const openRotation = (
  versions: SecretVersions,
  secret: string,
  token: string,
  newId: () => string,
): Rotation => {
  const find = (which: Parameters<SecretVersions['find']>[1]): Promise<SecretVersion | undefined> =>
    versions.find(secret, which)

  const current: Rotation['current'] = async () => {
    const version = await find({ label: CURRENT })
    const registration = version === undefined ? undefined : parseRegistration(version.value)
    if (version === undefined || registration === undefined) throw refused('there is no registration yet: deploy first')
    return { id: version.id, registration }
  }

  return {
    current,

    async isOpen() {
      const labels = (await versions.labels(secret))[token] ?? []
      if (labels.includes(CURRENT)) return false
      if (labels.includes(PREVIOUS)) {
        // It was current, and others have built on it since.
        if (labels.includes(PENDING)) await versions.move(secret, PENDING, { from: token })
        return false
      }
      if (labels.includes(PENDING)) return true
      throw refused('no rotation of that token is under way: it was given up, or its version replaced since')
    },

    async pending() {
      const version = await find({ id: token })
      return version === undefined ? undefined : parsePending(version.value)
    },

    keep: ({ registration, from, attempt }) =>
      versions.add(
        secret,
        { id: token, value: JSON.stringify({ ...registration, rotation: { from, attempt } }) },
        PENDING,
      ),

    async note(attempt) {
      const noted = attemptsIn(await versions.labels(secret)).length
      const value = JSON.stringify({ attempt, token })
      await versions.add(secret, { id: newId(), value }, `${ATTEMPT}${noted < MOST_NOTES ? attempt : FURTHER}`)
    },

    async settle(attempt) {
      for (const { id, version } of attemptsIn(await versions.labels(secret))) {
        if (id === attempt) await versions.move(secret, `${ATTEMPT}${id}`, { from: version })
      }
    },

    async promote({ from }) {
      const { id } = await current()
      if (id === token) return true
      return id === from && (await versions.move(secret, CURRENT, { from, to: token }))
    },

    async abandon(attempt) {
      if (attempt !== undefined) await versions.move(secret, `${ATTEMPT}${attempt}`, { to: token })
      await versions.move(secret, PENDING, { from: token })
    },
  }
}
