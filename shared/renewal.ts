import { setTimeout as delay } from 'node:timers/promises'
import { arriving } from './arrivals.ts'
import type { Exchange, Renewal as RenewalSettings } from './config.ts'
import { Failure } from './errors.ts'
import type { Reason } from './errors.ts'
import { decodeGrant, isShared, routesUnchanged } from './grant-record.ts'
import type { Grant, GrantRecords, Holder, Tokens } from './grant-record.ts'
import type { Item, Table, Value } from './table.ts'
import type { Task } from './tasks.ts'

/**
 * Renewing a grant: once, wherever calls land.
 *
 *   caller A   read v7 ── take lease ── read refresh token ── refresh ── save v8 if still v7
 *   caller B   read v7 ── lease taken: token still valid? use it : wait for v8
 *   logout              └─ removes the record at any time; A's save then fails and A revokes what it got
 *
 * The refresh token is read from what taking the lease returned, never before. The save asks for the version, not for the lease.
 */

/** What refreshing led to: new tokens, the server's word that the grant is over, or no usable answer. */
export type Refreshed =
  | { kind: 'refreshed'; tokens: Tokens }
  | { kind: 'refused' }
  | { kind: 'unavailable'; reason: Reason; processed: 'no' | 'perhaps' }

/** What an exchange led to; one that is refused says nothing of the grant. */
export type Exchanged =
  | { kind: 'exchanged'; issued: Pick<Tokens, 'access_token' | 'expires'> }
  | { kind: 'refused'; detail: string | undefined }
  | { kind: 'unavailable'; reason: Reason }

export type Renewed =
  | { kind: 'renewed'; grant: Grant; tokens: Tokens }
  /** Somebody else holds the lease. */
  | { kind: 'held' }
  | { kind: 'unavailable'; reason: Reason }
  /** The server refused it for good, or never gave a refresh token. */
  | { kind: 'ended' }
  /** The record is gone: whoever ended the session meanwhile has told the browser. */
  | { kind: 'gone' }

type RenewalTask = Extract<Task, { kind: 'renew' }>

/** Tokens of a grant that is over; those that were exchanged do not end with the others. */
export type Revocable = Partial<Pick<Tokens, 'access_token' | 'refresh_token'>> & { exchanged?: readonly string[] }

/** The wire side of a grant, given by `authorization-server`. */
export interface GrantWire {
  /** Asks for new tokens, unless it is later than `sendByMs` (milliseconds since the epoch) by the time it could; for that resource, where one is named. */
  refresh(grant: Grant, tokens: Tokens, sendByMs: number, resource?: string): Promise<Refreshed>
  /** Exchanges the access token (RFC 8693), unless it is later than that. */
  exchange(grant: Grant, tokens: Tokens, wanted: Exchange, sendByMs: number): Promise<Exchanged>
  /** True when the server no longer honours the tokens or has no say in it (RFC 7009 section 2.2); false when it could not be asked. */
  revoke(holder: Holder, tokens: Revocable): Promise<boolean>
}

export interface Renewals {
  /** The lease on the grant as it was seen; otherwise how the grant stands. Without a refresh token there is nothing to renew. */
  takeLease(grant: Grant): Promise<{ kind: 'leased'; grant: Grant } | Renewed>
  /** The same, whatever it is taken for. */
  claimLease(grant: Grant): Promise<{ kind: 'leased'; grant: Grant } | Renewed>
  /** The lease of a task passes to whoever carries the task out, once however often the task is delivered; undefined when it has passed on. */
  takeOver(task: RenewalTask): Promise<Grant | undefined>
  /** The holder of the lease does not renew the grant now, and nobody does for a moment. */
  putOff(leased: Grant): Promise<void>
  /** The holder of the lease has no use for it. */
  letGo(leased: Grant): Promise<void>
  /** The holder of the lease renews the grant. */
  carryOut(leased: Grant): Promise<Renewed>
  /** Both, for a caller that has no valid token. */
  renew(grant: Grant): Promise<Renewed>
  /** Until when the holder of that lease may send, in milliseconds since the epoch. */
  sendByMs(leased: Grant): number
  /** New tokens are saved, with what `change` makes of the record as it is; or given back where it has been replaced or ended meanwhile. */
  save(leased: Grant, tokens: Tokens, change: (grant: Grant) => Promise<Record<string, Value>>): Promise<Renewed>
  /** The server refused the refresh token of the leased grant, or gave no usable answer: how the grant stands now. */
  failed(leased: Grant, outcome: Exclude<Refreshed, { kind: 'refreshed' }>): Promise<Renewed>
}

/** The lease outlives the authorization server's deadline by this: half for getting to send, half for the save and for clocks that differ. */
const LEASE_RESERVE_MS = 5_000
/** New tokens exist nowhere else until they are saved; the table may be away for this long. */
const SAVE_LIMIT_MS = 12_000
/** How long a refused caller waits for the sign-ins that may have replaced its tokens, before it is told to come again. */
const ARRIVAL_WAIT_MS = 3_000
const ARRIVAL_PAUSE_MS = 100

/** After a renewal that surely did not happen nobody asks again for this long. */
const BACKOFF_MS = 1_000

/**
 * Renewals of grants in that table.
 * @param giveBack revokes tokens that came too late
 */
export const createRenewals = ({
  table,
  records,
  wire,
  giveBack,
  settings,
  now,
}: {
  table: Table
  records: GrantRecords
  wire: Pick<GrantWire, 'refresh'>
  giveBack: (holder: Holder, tokens: Tokens) => Promise<void>
  settings: RenewalSettings
  now: () => number
}): Renewals => {
  const leaseMs = settings.authorization_server_timeout_seconds * 1_000 + LEASE_RESERVE_MS

  const asRenewed = async (item: Item | undefined): Promise<Renewed> => {
    const grant = decodeGrant(item)
    return grant === undefined ? { kind: 'gone' } : { kind: 'renewed', grant, tokens: await records.open(grant) }
  }

  const save: Renewals['save'] = async (leased, tokens, change) => {
    const deadlineMs = now() + SAVE_LIMIT_MS
    let current = leased
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 800)) {
      try {
        const changes = await change(current)
        const saved = await table.update(leased.key, {
          set: { ...changes, version: leased.version + 1 },
          remove: ['lease_until_ms', 'retry_at_ms'],
          when: [
            ['version', '=', leased.version],
            ...(changes['routes'] === undefined ? [] : [routesUnchanged(current)]),
          ],
        })
        const beside = saved.changed ? undefined : decodeGrant(saved.item)
        if (beside?.version === leased.version) {
          // Only the routes' tokens have changed, by whoever had the lease after us.
          current = beside
          continue
        }
        const outcome = await asRenewed(saved.item)
        if (saved.changed) return outcome
        // Where the record is there, to revoke one refresh token could only harm what it stands on: a save whose answer was lost meets
        // itself, or what came of it since; a server may give another caller the same; a sign-in that replaced a shared grant has killed these.
        if (outcome.kind === 'gone') await giveBack(leased, tokens)
        return outcome
      } catch (error) {
        if (now() + pauseMs > deadlineMs) throw error
        await delay(pauseMs)
      }
    }
  }

  const claimLease: Renewals['claimLease'] = async (grant) => {
    const startMs = now()
    const claimed = await table.update(grant.key, {
      set: { lease_until_ms: startMs + leaseMs },
      when: [
        ['version', '=', grant.version],
        ['lease_until_ms', 'absent or <', startMs],
        ['retry_at_ms', 'absent or <', startMs],
      ],
    })
    const current = decodeGrant(claimed.item)
    if (claimed.changed) return current === undefined ? { kind: 'gone' } : { kind: 'leased', grant: current }
    return current?.version === grant.version ? { kind: 'held' } : await asRenewed(claimed.item)
  }

  const takeLease: Renewals['takeLease'] = async (grant) =>
    (await records.open(grant)).refresh_token === undefined ? { kind: 'ended' } : await claimLease(grant)

  const takeOver = async ({
    pk,
    sk,
    version,
    lease_until_ms: taskLeaseUntilMs,
  }: RenewalTask): Promise<Grant | undefined> => {
    // Not the same again, so that a second delivery finds it changed.
    const leaseUntilMs = Math.max(now() + leaseMs, taskLeaseUntilMs + 1)
    const claim = await table.update(
      { pk, sk },
      {
        set: { lease_until_ms: leaseUntilMs },
        when: [
          ['version', '=', version],
          ['lease_until_ms', '=', taskLeaseUntilMs],
        ],
      },
    )
    return claim.changed ? decodeGrant(claim.item) : undefined
  }

  /** The lease ends now, and nobody asks the server before that time. */
  const pauseUntil = async (leased: Grant, retryAtMs: number): Promise<Item | undefined> => {
    const given = await table.update(leased.key, {
      set: { retry_at_ms: retryAtMs },
      remove: ['lease_until_ms'],
      when: [
        ['version', '=', leased.version],
        ['lease_until_ms', '=', leased.leaseUntilMs],
      ],
    })
    return given.item
  }

  /** No new tokens came of it; if others brought some meanwhile, it does not matter. */
  const unlessReplaced = async (leased: Grant, retryAtMs: number, reason: Reason): Promise<Renewed> => {
    try {
      const item = await pauseUntil(leased, retryAtMs)
      return item?.['version'] === leased.version ? { kind: 'unavailable', reason } : await asRenewed(item)
    } catch (error) {
      // A lease that cannot be let go ends by itself.
      if (error instanceof Failure) return { kind: 'unavailable', reason }
      throw error
    }
  }

  /**
   * Whether a grant that the server refused is as it was, so that the refusal counts and is not merely a race lost. Where sessions share
   * grants, a sign-in may have replaced it and not have saved that yet: those that are on their way by now are waited for, each seen gone
   * before the grant is read again.
   */
  const refusalStands = async (leased: Grant): Promise<Renewed> => {
    const untilMs = now() + ARRIVAL_WAIT_MS
    let awaited = isShared(leased) ? await arriving(table, leased.provider, now()) : []
    for (;;) {
      const [item] = await table.read([leased.key])
      if (item?.['version'] !== leased.version) return await asRenewed(item)
      if (awaited.length === 0) return { kind: 'ended' }
      if (now() > untilMs) return await unlessReplaced(leased, now() + BACKOFF_MS, 'renewal_pending')
      await delay(ARRIVAL_PAUSE_MS)
      const still = new Set(await arriving(table, leased.provider, now()))
      awaited = awaited.filter((name) => still.has(name))
    }
  }

  // Somebody who was held up longer must not send: another caller may hold the lease by the time the answer is here.
  const sendByMs = (leased: Grant): number => leased.leaseUntilMs - leaseMs + LEASE_RESERVE_MS / 2

  const failed: Renewals['failed'] = async (leased, outcome) =>
    outcome.kind === 'refused'
      ? await refusalStands(leased)
      : // A token that was perhaps used must not be sent again soon; a server that is down is not to be asked by every caller.
        await unlessReplaced(
          leased,
          outcome.processed === 'no' ? now() + BACKOFF_MS : leased.leaseUntilMs,
          outcome.reason,
        )

  const carryOut = async (leased: Grant): Promise<Renewed> => {
    const tokens = await records.open(leased)
    const outcome = await wire.refresh(leased, tokens, sendByMs(leased))
    if (outcome.kind !== 'refreshed') return await failed(leased, outcome)
    const renewed = { ...outcome.tokens, refresh_token: outcome.tokens.refresh_token ?? tokens.refresh_token }
    return await save(leased, renewed, () => records.attributes(leased.key, renewed))
  }

  const renew = async (grant: Grant): Promise<Renewed> => {
    const taken = await takeLease(grant)
    return taken.kind === 'leased' ? await carryOut(taken.grant) : taken
  }

  const putOff = async (leased: Grant): Promise<void> => {
    await pauseUntil(leased, now() + BACKOFF_MS)
  }

  const letGo = async (leased: Grant): Promise<void> => {
    await pauseUntil(leased, 0)
  }

  return { takeLease, claimLease, takeOver, putOff, letGo, carryOut, renew, sendByMs, save, failed }
}
