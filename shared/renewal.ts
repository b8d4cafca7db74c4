import { setTimeout as delay } from 'node:timers/promises'
import { arriving } from './arrivals.ts'
import type { Renewal as RenewalSettings } from './config.ts'
import { Failure } from './errors.ts'
import type { Reason } from './errors.ts'
import { decodeGrant, isShared } from './grant-record.ts'
import type { Grant, GrantRecords, Holder, Tokens } from './grant-record.ts'
import type { Item, Table } from './table.ts'
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

/** The wire side of a grant, given by `authorization-server`. */
export interface GrantWire {
  /** Asks for new tokens, unless it is later than `sendByMs` (milliseconds since the epoch) by the time it could. */
  refresh(grant: Grant, tokens: Tokens, sendByMs: number): Promise<Refreshed>
  /** True when the server no longer honours the tokens or has no say in it (RFC 7009 section 2.2); false when it could not be asked. */
  revoke(holder: Holder, tokens: Tokens): Promise<boolean>
}

export interface Renewals {
  /** The lease on the grant as it was seen; otherwise how the grant stands. */
  takeLease(grant: Grant): Promise<{ kind: 'leased'; grant: Grant } | Renewed>
  /** The lease of a task passes to whoever carries the task out, once however often the task is delivered; undefined when it has passed on. */
  takeOver(task: RenewalTask): Promise<Grant | undefined>
  /** The holder of the lease does not renew the grant now. */
  putOff(leased: Grant): Promise<void>
  /** The holder of the lease renews the grant. */
  carryOut(leased: Grant): Promise<Renewed>
  /** Both, for a caller that has no valid token. */
  renew(grant: Grant): Promise<Renewed>
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

  /** The new tokens are in the table, or given back to the server because the grant ended or was replaced meanwhile. */
  const save = async (leased: Grant, tokens: Tokens): Promise<Renewed> => {
    const deadlineMs = now() + SAVE_LIMIT_MS
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 800)) {
      try {
        const set = { ...(await records.attributes(leased.key, tokens)), version: leased.version + 1 }
        const saved = await table.update(leased.key, {
          set,
          remove: ['lease_until_ms', 'retry_at_ms'],
          when: [['version', '=', leased.version]],
        })
        const outcome = await asRenewed(saved.item)
        if (saved.changed) return outcome
        // A save whose answer was lost meets itself; a server that does not rotate, or gives grace, has given another caller the same.
        const inUse = outcome.kind === 'renewed' && outcome.tokens.refresh_token === tokens.refresh_token
        // A sign-in that replaced a shared grant has killed these tokens; to revoke them could only harm its own.
        const replaced = outcome.kind === 'renewed' && isShared(leased)
        if (!inUse && !replaced) await giveBack(leased, tokens)
        return outcome
      } catch (error) {
        if (now() + pauseMs > deadlineMs) throw error
        await delay(pauseMs)
      }
    }
  }

  /** The lease on the grant as it was seen; otherwise how the grant stands. */
  const takeLease = async (grant: Grant): Promise<{ kind: 'leased'; grant: Grant } | Renewed> => {
    if ((await records.open(grant)).refresh_token === undefined) return { kind: 'ended' }
    const startMs = now()
    const claim = await table.update(grant.key, {
      set: { lease_until_ms: startMs + leaseMs },
      when: [
        ['version', '=', grant.version],
        ['lease_until_ms', 'absent or <', startMs],
        ['retry_at_ms', 'absent or <', startMs],
      ],
    })
    const current = decodeGrant(claim.item)
    if (claim.changed) return current === undefined ? { kind: 'gone' } : { kind: 'leased', grant: current }
    return current?.version === grant.version ? { kind: 'held' } : await asRenewed(claim.item)
  }

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
  const letGo = async (leased: Grant, retryAtMs: number): Promise<Item | undefined> => {
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
      const item = await letGo(leased, retryAtMs)
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

  const carryOut = async (leased: Grant): Promise<Renewed> => {
    const tokens = await records.open(leased)
    // Somebody who was held up longer must not send: another caller may hold the lease by the time the answer is here.
    const sendByMs = leased.leaseUntilMs - leaseMs + LEASE_RESERVE_MS / 2
    const outcome = await wire.refresh(leased, tokens, sendByMs)
    switch (outcome.kind) {
      case 'refreshed':
        return await save(leased, {
          ...outcome.tokens,
          refresh_token: outcome.tokens.refresh_token ?? tokens.refresh_token,
        })
      case 'refused':
        return await refusalStands(leased)
      case 'unavailable':
        // A token that was perhaps used must not be sent again soon; a server that is down is not to be asked by every caller.
        return await unlessReplaced(
          leased,
          outcome.processed === 'no' ? now() + BACKOFF_MS : leased.leaseUntilMs,
          outcome.reason,
        )
    }
  }

  const renew = async (grant: Grant): Promise<Renewed> => {
    const claim = await takeLease(grant)
    return claim.kind === 'leased' ? await carryOut(claim.grant) : claim
  }

  const putOff = async (leased: Grant): Promise<void> => {
    await letGo(leased, now() + BACKOFF_MS)
  }

  return { takeLease, takeOver, putOff, carryOut, renew }
}
