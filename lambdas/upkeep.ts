import type { Client } from '../shared/client.ts'
import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import type { Send } from '../shared/http.ts'
import { takeUpInPlace } from '../shared/in-place.ts'
import { createProviderSecret } from '../shared/provider-secret.ts'
import { clientsOf } from '../shared/registration-changes.ts'
import { isInPlace, parsePending } from '../shared/registration-record.ts'
import type { Registration } from '../shared/registration-record.ts'
import { unregister } from '../shared/registration.ts'
import { isDue, isNearExpiry, isOver, isOverdue, retired } from '../shared/retirement.ts'
import { attemptsIn, isPending, openRotation } from '../shared/rotation.ts'
import { CURRENT, PENDING } from '../shared/secrets.ts'
import type { SecretVersions } from '../shared/secrets.ts'
import { writtenClientIds } from '../shared/static-client.ts'
import { scheduleEdge } from './edge.ts'
import { asFailure, audit, gauge, reportFailure } from './report.ts'
import { now, providerSecret, secretVersions, sendOnce, stage, writtenSecret } from './runtime.ts'

interface Deps {
  stage: Stage
  versions: SecretVersions
  secretOf: (provider: string) => string | undefined
  /** The same of the secret that an operator writes a static client into. */
  writtenSecretOf: (provider: string) => string | undefined
  send: Send
  now: () => number
}

const DAY_SECONDS = 86_400

/**
 * Every hour, for each client of ours: what has retired is deleted at the server once nothing can be left of it, credentials that expire
 * are rotated in time, and a rotation that did not get to its end is taken up again.
 * @see RFC 7591 section 3.2.1 (client_secret_expires_at), RFC 7592 section 2.3
 */
export const upkeep = (deps: Deps) => {
  const timeoutMs = deps.stage.renewal.authorization_server_timeout_seconds * 1_000
  const nowSeconds = (): number => Math.floor(deps.now() / 1_000)

  /** Whether the client is gone, or will never be by our doing. */
  const isSettled = async (provider: string, client: Client): Promise<boolean> => {
    if (await unregister(deps.send, client)) return true
    const isManaged = client.registration_client_uri !== undefined && client.registration_access_token !== undefined
    if (isManaged && !isOverdue(client, deps.stage.session.absolute_seconds, nowSeconds())) return false
    audit('upkeep', 'client_left_behind', { provider, client_id: client.client_id })
    return true
  }

  /** Those whose time is over go, at the server first; resolves with their ids. */
  const deleted = async (provider: string, retiring: readonly Client[]): Promise<ReadonlySet<string>> => {
    const gone = new Set<string>()
    for (const client of retiring) {
      if (!isOver(client, deps.stage.session.absolute_seconds, nowSeconds())) continue
      if (await isSettled(provider, client)) gone.add(client.client_id)
    }
    if (gone.size > 0) audit('upkeep', 'clients_deleted', { provider, count: gone.size })
    return gone
  }

  /** Clients that just retired get their date; those whose time is over go. */
  const retire = async (provider: string, secret: string, { retiring }: Registration): Promise<void> => {
    const gone = await deleted(provider, retiring)
    const change = (known: Registration | undefined) => known && retired(known, gone, nowSeconds())
    await createProviderSecret(deps.versions, secret).change(change)
  }

  /** The ids of the clients that an operator wrote down; undefined where there is nothing usable. */
  const writtenFor = async (provider: string): Promise<ReadonlySet<string> | undefined> => {
    const name = deps.writtenSecretOf(provider)
    const written = name === undefined ? undefined : await deps.versions.find(name, { label: CURRENT })
    return written && writtenClientIds(written.value)
  }

  /** The same for clients of ours from before an operator wrote another one down; one that is written down there is the operator's now. */
  const retireBeside = async (provider: string, secret: string): Promise<void> => {
    const ours = createProviderSecret(deps.versions, secret)
    const kept = await ours.read()
    if (kept.known === undefined) return
    const { retiring } = kept.known
    const theirs = retiring.length === 0 ? undefined : await writtenFor(provider)
    // Until it is known which client is used instead, it may be any of these.
    const unused = theirs === undefined ? [] : retiring.filter(({ client_id: id }) => !theirs.has(id))
    const next = retired(kept.known, await deleted(provider, unused), nowSeconds())
    // Where a deploy was faster, the next hour sees to it.
    if (next !== kept.known) await ours.replace(kept, next)
  }

  /** Attempts whose client is known are given back, now that the server may answer; how many are left that only an operator can settle. */
  const settleAttempts = async (
    secret: string,
    labels: Readonly<Record<string, readonly string[]>>,
  ): Promise<number> => {
    let left = 0
    for (const { label, version: id } of attemptsIn(labels)) {
      const version = await deps.versions.find(secret, { id })
      const pending = version === undefined ? undefined : parsePending(version.value)
      if (pending !== undefined && (await unregister(deps.send, pending.registration.current))) {
        await deps.versions.move(secret, label, { from: id })
      } else left += 1
    }
    return left
  }

  /** A rotation that nobody will take up again is over: what waits is given back. */
  const takeBack = async (secret: string, registration: Registration | undefined): Promise<void> => {
    const used = new Set((registration === undefined ? [] : clientsOf(registration)).map(({ client_id: id }) => id))
    const labels = await deps.versions.labels(secret)
    for (const [id, names] of Object.entries(labels)) {
      if (!names.includes(PENDING)) continue
      const version = await deps.versions.find(secret, { id })
      const pending = version === undefined ? undefined : parsePending(version.value)
      const rotation = openRotation(deps.versions, secret, id, () => id)
      const ours = createProviderSecret(deps.versions, secret)
      if (pending !== undefined && isInPlace(pending)) {
        await takeUpInPlace({ ...deps, secret: ours, rotation }, pending, timeoutMs)
        await rotation.abandon(undefined)
        continue
      }
      // New keys are of the client that is there.
      const isOther = pending !== undefined && !used.has(pending.registration.current.client_id)
      const isLeft = isOther && !(await unregister(deps.send, pending.registration.current))
      await rotation.abandon(isLeft ? pending.attempt : undefined)
    }
  }

  const tend = async (provider: string): Promise<void> => {
    const secret = deps.secretOf(provider)
    const settings = deps.stage.providers[provider]
    if (secret === undefined || settings === undefined) return
    if (settings.client === 'static') return await retireBeside(provider, secret)
    const { registration } = await createProviderSecret(deps.versions, secret).read()
    const { client_secret_expires_at: ends = 0 } = registration?.current ?? {}
    if (registration !== undefined && ends !== 0) {
      gauge('secret_days_left', provider, (ends - nowSeconds()) / DAY_SECONDS)
      gauge('secret_near_expiry', provider, Number(isNearExpiry(registration.current, nowSeconds())))
    }

    const rotates = settings.rotation.mode !== 'off'
    const isWaiting = isPending(await deps.versions.labels(secret))
    if (isWaiting && !rotates) await takeBack(secret, registration)
    const labels = await deps.versions.labels(secret)
    const isMade = isPending(labels) && (await deps.versions.find(secret, { label: PENDING })) !== undefined
    if (isMade) {
      // Nothing is changed under what was made from it.
      gauge('orphaned_registrations', provider, attemptsIn(labels).length)
    } else {
      gauge('orphaned_registrations', provider, await settleAttempts(secret, labels))
      if (registration !== undefined) await retire(provider, secret, registration)
    }
    if (!rotates || registration === undefined) return
    if (isWaiting || isDue(registration.current, nowSeconds())) await deps.versions.rotate(secret)
  }

  return async (requestId?: string): Promise<void> => {
    let failed = 0
    for (const provider of Object.keys(deps.stage.providers)) {
      try {
        await tend(provider)
      } catch (error) {
        failed += 1
        reportFailure('upkeep', asFailure(error), requestId)
      }
    }
    if (failed > 0) throw new Failure('rotation_failed', { detail: `upkeep failed for ${failed} providers` })
  }
}

export const handler = scheduleEdge('upkeep', (requestId) =>
  upkeep({
    stage: stage(),
    versions: secretVersions(),
    secretOf: providerSecret,
    writtenSecretOf: writtenSecret,
    send: sendOnce(),
    now,
  })(requestId),
)
