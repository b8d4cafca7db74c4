import { setTimeout as delay } from 'node:timers/promises'
import type { Renewal as RenewalSettings } from './config.ts'
import { Failure, reasons } from './errors.ts'
import type { Reason } from './errors.ts'
import { createGrantRecords, decodeGrant, GRANT_FORMAT, routesUnchanged } from './grant-record.ts'
import type { Grant, Holder, Tokens } from './grant-record.ts'
import { createRenewals } from './renewal.ts'
import type { GrantWire, Renewed, Revocable } from './renewal.ts'
import { createRouteRenewals } from './route-renewal.ts'
import type { RouteAccess, RouteRenewals } from './route-renewal.ts'
import { exchangedTokens } from './route-tokens.ts'
import { newVersion } from './seal.ts'
import type { Sealer } from './seal.ts'
import type { Condition, Item, Key, Step, Table } from './table.ts'
import type { Task, Tasks } from './tasks.ts'

/** Grants: the tokens that one redeemed code led to, from the login that brings them to the logout that gives them back. */

/** The token to call with now, and the renewal under way beside it, to be awaited before the reply. */
export interface Access extends Omit<RouteAccess, 'accessToken'> {
  tokens: Tokens
}

export interface NewGrant extends Holder {
  tokens: Tokens
  /** When the record ends, in seconds since the epoch. */
  ttl: number
  /** Where sessions share it: when its code was sent to be redeemed, in milliseconds since the epoch. */
  sinceMs?: number | undefined
}

export interface Grants {
  /** The write that puts a grant in place; where sessions share one, over what was there, unless a sign-in that ran beside this one put it there. */
  place(key: Key, from: NewGrant): Promise<Step>
  /**
   * The write for a sign-in that met another one of the same user: whose tokens live the server tells, and the grant is theirs. With the
   * tokens as they are then. @throws server_*
   */
  contest(key: Key, from: NewGrant, rival: Item | undefined): Promise<{ step: Step; tokens: Tokens }>
  /** The tokens of a grant. @throws session_ended when they do not open */
  open(grant: Grant): Promise<Tokens>
  /** A valid access token: the present one, the renewed one, or the one that another caller renewed. @throws grant_ended, session_missing, renewal_pending, server_* */
  access(grant: Grant): Promise<Access>
  /** The grant is renewed, by us or by another caller in the meantime. @throws grant_ended, session_missing, renewal_pending, server_* */
  renewed(grant: Grant): Promise<Access>
  /** A valid token for a route that has its own, other than the one that was refused. @throws like the others; access_refused, resource_not_granted */
  route: RouteRenewals['access']
  /** The renewal that a task was started for is carried out, once however often the task is delivered. */
  resume(task: Extract<Task, { kind: 'renew' }>): Promise<Renewed>
  /** The grant in that item has its tokens revoked, now or, where that fails, later, and is gone, whatever a renewal makes of it meanwhile. */
  end(item: Item): Promise<void>
  /** The same for a grant that sessions share, by one at a time of those that want it. False when it has changed meanwhile and is still there. */
  endShared(item: Item): Promise<boolean>
  /** The tokens of an ended grant are revoked. @throws server_failed when the server could not be asked */
  revokeLater(task: Extract<Task, { kind: 'revoke' }>): Promise<void>
  /** Tokens that belong to no grant any more are revoked, now or later. */
  giveBack(holder: Holder, tokens: Revocable): Promise<void>
  /** What was exchanged for the routes of a grant that is dead is revoked: it does not die with it. */
  giveBackRoutes(item: Item): Promise<void>
}

/** How long a caller without a valid token waits for another one's renewal. */
const WAIT_MS = 8_000
/** Who ends a shared grant has this long beyond the authorization server's deadline before another one takes over. */
const ENDING_RESERVE_MS = 2_000
const ENDING_PAUSE_MS = 100
/** Instances' clocks differ by less than this. */
const CLOCKS_MS = 5_000

/** Whatever kept a grant from being renewed, the caller may come again: the grant is still there. */
const notNow = (reason: Reason): Failure =>
  new Failure(reasons[reason].status === 503 ? reason : 'server_failed', { detail: reason, retryAfterSeconds: 1 })

/** Not `grant_ended`, which takes the cookie away: by now it may be that of a new session. */
const endedMeanwhile = (): Failure => new Failure('session_missing', { detail: 'the session ended meanwhile' })

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
  const endingMs = settings.authorization_server_timeout_seconds * 1_000 + ENDING_RESERVE_MS
  const records = createGrantRecords({ sealer, settings, now })

  /** Revoked at once, or handed to the background; a queue that is not to be had either is the server's expiry to solve. */
  const giveBack = async ({ provider, clientId }: Holder, tokens: Revocable): Promise<void> => {
    if (await wire.revoke({ provider, clientId }, tokens)) return
    const sealed = await sealer.seal('task', [provider, clientId], JSON.stringify(tokens))
    const task = {
      kind: 'revoke',
      provider,
      client_id: clientId,
      sealed: Buffer.from(sealed).toString('base64'),
    } as const
    await tasks.start(task).catch((error: unknown) => {
      if (!(error instanceof Failure && error.reason === 'background_unavailable')) throw error
    })
  }

  /** The tokens of a grant, or undefined where they do not open. */
  const readable = async (grant: Grant): Promise<Tokens | undefined> => {
    try {
      return await records.open(grant)
    } catch (error) {
      if (error instanceof Failure && error.reason === 'session_ended') return undefined
      throw error
    }
  }

  /** Revoked before it is forgotten: whoever is stopped in between leaves something to repeat. False when the grant has changed meanwhile. */
  const revokeAndRemove = async (item: Item): Promise<boolean> => {
    const grant = decodeGrant(item)
    const tokens = grant && (await readable(grant))
    if (grant !== undefined && tokens !== undefined) {
      const exchanged = exchangedTokens(await records.openRoutes(grant))
      await giveBack(grant, exchanged.length === 0 ? tokens : { ...tokens, exchanged })
    }
    const when = grant === undefined ? [] : [['version', '=', grant.version] as const, routesUnchanged(grant)]
    return (await table.remove({ pk: item.pk, sk: item.sk }, when)) !== undefined
  }

  const newItem = async (key: Key, { provider, clientId, tokens, ttl, sinceMs }: NewGrant): Promise<Item> => ({
    ...key,
    format: GRANT_FORMAT,
    version: newVersion(),
    provider,
    client_id: clientId,
    ...(sinceMs === undefined ? {} : { placed_ms: now() }),
    ttl,
    ...(await records.attributes(key, tokens)),
  })

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
          if (fresh.generation !== grant.generation)
            return { grant: fresh, tokens, renewedHere: true, renewal: undefined }
          // A refresh for a route came before us, which brought a new refresh token and no access token.
          current = fresh
          continue
        }
        if (outcome.kind === 'ended') throw new Failure('grant_ended')
        if (outcome.kind === 'gone') throw endedMeanwhile()
        if (outcome.kind === 'unavailable') throw notNow(outcome.reason)
      }
      if (now() + pauseMs > deadlineMs) throw new Failure('renewal_pending', { retryAfterSeconds: 1 })
      await delay(pauseMs * (0.5 + Math.random()))
      const [item] = await table.read([grant.key])
      const read = decodeGrant(item)
      if (read === undefined) throw endedMeanwhile()
      if (read.generation !== grant.generation) {
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
    try {
      await tasks.start({ kind: 'renew', pk: key.pk, sk: key.sk, version, lease_until_ms: leaseUntilMs })
    } catch (error) {
      await renewals.putOff(claim.grant)
      throw error
    }
  }

  const access = async (grant: Grant): Promise<Access> => {
    const tokens = await records.open(grant)
    if (seconds() < grant.freshUntil) return { grant, tokens, renewedHere: false, renewal: undefined }
    if (seconds() >= grant.expires) return await renewed(grant)
    const waits = Math.max(grant.leaseUntilMs, grant.retryAtMs) > now()
    const renewal = waits ? undefined : renewBeside(grant)
    renewal?.catch(() => undefined)
    return { grant, tokens, renewedHere: false, renewal }
  }

  const routes = createRouteRenewals({ table, records, renewals, wire, access, renewed, giveBack, now })

  return {
    open: (grant) => records.open(grant),
    access,
    renewed,
    route: (grant, wanted, refused) => routes.access(grant, wanted, refused),
    giveBack,

    async giveBackRoutes(item) {
      const grant = decodeGrant(item)
      const exchanged = grant === undefined ? [] : exchangedTokens(await records.openRoutes(grant))
      if (grant !== undefined && exchanged.length > 0) await giveBack(grant, { exchanged })
    },

    async place(key, from) {
      const put = await newItem(key, from)
      return from.sinceMs === undefined
        ? { put }
        : { put, when: [['placed_ms', 'absent or <', from.sinceMs - CLOCKS_MS]] }
    },

    async contest(key, from, rival) {
      const version = rival?.['version'] ?? 0
      const when: Condition[] = [['version', rival === undefined ? 'absent or <' : '=', version]]
      const grant = decodeGrant(await newItem(key, from))
      if (grant === undefined) throw new Failure('internal', { detail: 'a new grant is none' })
      let { tokens } = from
      if (tokens.refresh_token !== undefined) {
        const outcome = await wire.refresh(grant, tokens, Infinity)
        if (outcome.kind === 'unavailable') throw notNow(outcome.reason)
        if (outcome.kind === 'refused') {
          // The other one's tokens live; where its session has ended by now, there is nothing left to share.
          if (rival === undefined) throw new Failure('login_overtaken')
          return { step: { check: key, when }, tokens }
        }
        tokens = { ...outcome.tokens, refresh_token: outcome.tokens.refresh_token ?? tokens.refresh_token }
      }
      return { step: { put: await newItem(key, { ...from, tokens }), when }, tokens }
    },

    async resume(task) {
      const leased = await renewals.takeOver(task)
      return leased === undefined ? { kind: 'held' } : await renewals.carryOut(leased)
    },

    async end({ pk, sk, ...attributes }) {
      for (
        let item: Item | undefined = { pk, sk, ...attributes };
        item !== undefined;
        [item] = await table.list(pk, sk)
      ) {
        if (await revokeAndRemove(item)) return
      }
    },

    async endShared(item) {
      const { pk, sk, version = 0 } = item
      for (;;) {
        const claim = await table.update(
          { pk, sk },
          {
            set: { ending_until_ms: now() + endingMs },
            when: [
              ['version', '=', version],
              ['ending_until_ms', 'absent or <', now()],
            ],
          },
        )
        if (claim.changed) return await revokeAndRemove(claim.item)
        if (claim.item?.['version'] !== version) return claim.item === undefined
        await delay(ENDING_PAUSE_MS)
      }
    },

    async revokeLater({ provider, client_id: clientId, sealed }) {
      const text = await sealer.open('task', [provider, clientId], Buffer.from(sealed, 'base64'))
      if (text === undefined) return
      if (!(await wire.revoke({ provider, clientId }, JSON.parse(text) as Revocable)))
        throw new Failure('server_failed')
    },
  }
}
