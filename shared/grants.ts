import { setTimeout as delay } from 'node:timers/promises'
import type { Renewal as RenewalSettings } from './config.ts'
import { Failure, reasons } from './errors.ts'
import type { Reason } from './errors.ts'
import { createGrantRecords, decodeGrant, GRANT_FORMAT } from './grant-record.ts'
import type { Grant, Holder, Tokens } from './grant-record.ts'
import { createRenewals } from './renewal.ts'
import type { GrantWire, Renewed } from './renewal.ts'
import type { Sealer } from './seal.ts'
import type { Key, Step, Table } from './table.ts'
import type { Task, Tasks } from './tasks.ts'

/** Grants: the tokens that one redeemed code led to, from the login that brings them to the logout that gives them back. */

/** The token to call with now, and the renewal under way beside it, to be awaited before the reply. */
export interface Access {
  grant: Grant
  tokens: Tokens
  /** Whether this caller renewed it just now. */
  renewedHere: boolean
  renewal: Promise<unknown> | undefined
}

export interface Grants {
  /** The write that puts a grant in place: a record of its own, or, where the account shares one, over what was there. */
  place(key: Key, from: Holder & { tokens: Tokens; ttl: number; shared: boolean }): Promise<Step>
  /** The tokens of a grant. @throws session_ended when they do not open */
  open(grant: Grant): Promise<Tokens>
  /** A valid access token: the present one, the renewed one, or the one that another caller renewed. @throws grant_ended, renewal_pending, server_* */
  access(grant: Grant): Promise<Access>
  /** The grant is renewed, by us or by another caller in the meantime. @throws grant_ended, renewal_pending, server_* */
  renewed(grant: Grant): Promise<Access>
  /** The renewal that a task was started for is carried out, if its lease is still held. */
  resume(task: Extract<Task, { kind: 'renew' }>): Promise<Renewed>
  /** The record is gone, unless it has another version than the one given; its tokens are revoked, now or, where that fails, later. */
  end(key: Key, version?: number): Promise<Grant | undefined>
  /** The tokens of an ended grant are revoked. @throws server_failed when the server could not be asked */
  revokeLater(task: Extract<Task, { kind: 'revoke' }>): Promise<void>
  /** Tokens that belong to no grant any more are revoked, now or later. */
  giveBack(holder: Holder, tokens: Tokens): Promise<void>
}

/** How long a caller without a valid token waits for another one's renewal. */
const WAIT_MS = 8_000

/** Whatever kept a grant from being renewed, the caller may come again: the grant is still there. */
const notNow = (reason: Reason): Failure =>
  new Failure(reasons[reason].status === 503 ? reason : 'server_failed', { detail: reason, retryAfterSeconds: 1 })

/**
 * Grants in that table.
 * @param settings of the stage; the lease is measured by the authorization server's deadline
 */
export const createGrants = ({
  table,
  sealer,
  wire,
  tasks,
  settings,
  now,
}: {
  table: Table
  sealer: Sealer
  wire: GrantWire
  tasks: Tasks
  settings: RenewalSettings
  now: () => number
}): Grants => {
  const seconds = (): number => Math.floor(now() / 1_000)
  const records = createGrantRecords({ sealer, settings, now })

  /** Revoked at once, or handed to the background; a queue that is not to be had either is the server's expiry to solve. */
  const giveBack = async ({ provider, clientId }: Holder, tokens: Tokens): Promise<void> => {
    if (await wire.revoke({ provider, clientId }, tokens)) return
    const sealed = await sealer.seal('task', [provider, clientId], JSON.stringify(tokens))
    const task = {
      kind: 'revoke',
      provider,
      client_id: clientId,
      sealed: Buffer.from(sealed).toString('base64'),
    } as const
    await tasks.start(task).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error
    })
  }

  const renewals = createRenewals({ table, records, wire, giveBack, settings, now })

  const renewed = async (grant: Grant): Promise<Access> => {
    const deadlineMs = now() + WAIT_MS
    let current = grant
    for (let pauseMs = 40; ; pauseMs = Math.min(pauseMs * 1.5, 400)) {
      if (current.retryAtMs > now()) {
        throw new Failure('renewal_pending', { retryAfterSeconds: Math.ceil((current.retryAtMs - now()) / 1_000) })
      }
      if (current.leaseUntilMs <= now()) {
        const outcome = await renewals.renew(current)
        if (outcome.kind === 'renewed') {
          const { grant: fresh, tokens } = outcome
          return { grant: fresh, tokens, renewedHere: true, renewal: undefined }
        }
        if (outcome.kind === 'ended') throw new Failure('grant_ended')
        if (outcome.kind === 'unavailable') throw notNow(outcome.reason)
      }
      if (now() + pauseMs > deadlineMs) throw new Failure('renewal_pending', { retryAfterSeconds: 1 })
      await delay(pauseMs * (0.5 + Math.random()))
      const [item] = await table.read([grant.key])
      const read = decodeGrant(item)
      if (read === undefined) throw new Failure('grant_ended', { detail: 'the grant was ended meanwhile' })
      if (read.version !== grant.version) {
        return { grant: read, tokens: await records.open(read), renewedHere: false, renewal: undefined }
      }
      current = read
    }
  }

  /** Renewing ahead of time, as a task of its own: nobody who holds a valid token waits for it. */
  const renewBeside = async (grant: Grant): Promise<void> => {
    const claim = await renewals.takeLease(grant)
    if (claim.kind !== 'leased') return
    const { key, version, leaseUntilMs } = claim.grant
    await tasks.start({ kind: 'renew', pk: key.pk, sk: key.sk, version, lease_until_ms: leaseUntilMs })
  }

  return {
    open: (grant) => records.open(grant),
    renewed,
    giveBack,

    async place(key, { provider, clientId, tokens, ttl, shared }) {
      const item = {
        format: GRANT_FORMAT,
        provider,
        client_id: clientId,
        ttl,
        ...(await records.attributes(key, tokens)),
      }
      return shared
        ? { upsert: key, change: { set: item, increment: ['version'], remove: ['lease_until_ms', 'retry_at_ms'] } }
        : { put: { ...key, ...item, version: 1 } }
    },

    async access(grant) {
      const tokens = await records.open(grant)
      if (seconds() < grant.freshUntil) return { grant, tokens, renewedHere: false, renewal: undefined }
      if (seconds() >= grant.expires) return await renewed(grant)
      const waits = Math.max(grant.leaseUntilMs, grant.retryAtMs) > now()
      const renewal = waits ? undefined : renewBeside(grant)
      renewal?.catch(() => undefined)
      return { grant, tokens, renewedHere: false, renewal }
    },

    async resume({ pk, sk, version, lease_until_ms: leaseUntilMs }) {
      const [item] = await table.read([{ pk, sk }])
      const grant = decodeGrant(item)
      const mine = grant?.version === version && grant.leaseUntilMs === leaseUntilMs
      return mine ? await renewals.carryOut(grant) : { kind: 'held' }
    },

    async end(key, version) {
      const grant = decodeGrant(
        await table.remove({ pk: key.pk, sk: key.sk }, version === undefined ? [] : [['version', '=', version]]),
      )
      if (grant !== undefined) await giveBack(grant, await records.open(grant))
      return grant
    },

    async revokeLater({ provider, client_id: clientId, sealed }) {
      const text = await sealer.open('task', [provider, clientId], Buffer.from(sealed, 'base64'))
      if (text === undefined) return
      if (!(await wire.revoke({ provider, clientId }, JSON.parse(text) as Tokens))) throw new Failure('server_failed')
    },
  }
}
