import { setTimeout as delay } from 'node:timers/promises'
import type { Renewal as RenewalSettings } from './config.ts'
import { Failure, reasons } from './errors.ts'
import type { Reason } from './errors.ts'
import type { Sealer } from './seal.ts'
import type { Item, Key, Table } from './table.ts'

/**
 * Grants: the tokens that one redeemed code led to. Their records, their sealing, and their renewal: once, wherever calls land.
 *
 *   caller A   read v7 ── take lease ── read refresh token ── refresh ── save v8 if still v7
 *   caller B   read v7 ── lease taken: token still valid? use it : wait for v8
 *   logout              └─ removes the record at any time; A's save then fails and A revokes what it got
 *
 * The refresh token is read from what taking the lease returned, never before. The save asks for the version, not for the lease.
 */

/** What the authorization server issued. Times are seconds since the epoch. */
export interface Tokens {
  access_token: string
  refresh_token: string | undefined
  id_token: string | undefined
  scope: string | undefined
  /** When the access token ends. */
  expires: number
}

export interface Grant {
  key: Key
  version: number
  provider: string
  clientId: string
  /** The access token is used without a thought until then, in seconds since the epoch. */
  freshUntil: number
  /** When the access token ends, in seconds since the epoch. */
  expires: number
  leaseUntilMs: number
  /** When the record itself ends, in seconds since the epoch. */
  ttl: number
  sealed: Uint8Array
}

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

/** The wire side of a grant, given by `authorization-server`. */
export interface GrantWire {
  refresh(grant: Grant, tokens: Tokens): Promise<Refreshed>
  /** The tokens are revoked where the server can; never fails. */
  revoke(grant: Pick<Grant, 'provider' | 'clientId'>, tokens: Tokens): Promise<void>
}

/** The token to call with now, and the renewal under way beside it, to be awaited before the reply. */
export interface Access {
  grant: Grant
  tokens: Tokens
  renewal: Promise<Renewed> | undefined
}

export interface Grants {
  /** The record of a new grant, to be written together with its session. */
  newItem(key: Key, from: { provider: string; clientId: string; tokens: Tokens; ttl: number }): Promise<Item>
  /** The tokens of a grant. @throws session_ended when they do not open */
  open(grant: Grant): Promise<Tokens>
  /** A valid access token: the present one, the renewed one, or the one that another caller renewed. @throws grant_ended, session_missing, renewal_pending, server_* */
  access(grant: Grant): Promise<Access>
  /** The grant is renewed, or it is said why not. Never waits for another caller. */
  renew(grant: Grant): Promise<Renewed>
  /** The grant is renewed, by us or by another caller in the meantime. @throws grant_ended, session_missing, renewal_pending, server_* */
  renewed(grant: Grant): Promise<{ grant: Grant; tokens: Tokens }>
  /** The record is gone and its tokens are revoked where the server can; that part never fails. */
  end(key: Key): Promise<void>
}

const FORMAT = 1
/** The lease outlives the authorization server's deadline by this: the save with its retries, and clock skew between instances. */
const LEASE_RESERVE_MS = 5_000
/** How long a caller without a valid token waits for another one's renewal. */
const WAIT_MS = 8_000
const SAVE_ATTEMPTS = 3

/** The grant in a table item, or undefined when it is of no format that we know. */
export const decodeGrant = (item: Item | undefined): Grant | undefined => {
  if (item === undefined || item['format'] !== FORMAT) return undefined
  const { version, provider, client_id: clientId, fresh_until: freshUntil, expires, ttl, sealed } = item
  if (typeof version !== 'number' || typeof provider !== 'string' || typeof clientId !== 'string') return undefined
  if (typeof freshUntil !== 'number' || typeof expires !== 'number' || typeof ttl !== 'number') return undefined
  if (!(sealed instanceof Uint8Array)) return undefined
  const leaseUntilMs = typeof item['lease_until_ms'] === 'number' ? item['lease_until_ms'] : 0
  return {
    key: { pk: item.pk, sk: item.sk },
    version,
    provider,
    clientId,
    freshUntil,
    expires,
    leaseUntilMs,
    ttl,
    sealed,
  }
}

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
  settings,
  now,
}: {
  table: Table
  sealer: Sealer
  wire: GrantWire
  settings: RenewalSettings
  now: () => number
}): Grants => {
  const leaseMs = settings.authorization_server_timeout_seconds * 1_000 + LEASE_RESERVE_MS
  const seconds = (): number => Math.floor(now() / 1_000)

  const freshUntil = (tokens: Tokens): number => {
    if (tokens.refresh_token === undefined) return tokens.expires
    const lifetime = Math.max(0, tokens.expires - seconds())
    return tokens.expires - Math.ceil(Math.min(settings.leeway_seconds, lifetime / 4))
  }

  const sealTokens = async (key: Key, tokens: Tokens) => ({
    sealed: await sealer.seal('grant', [key.pk, key.sk], JSON.stringify(tokens)),
    fresh_until: freshUntil(tokens),
    expires: tokens.expires,
  })

  const open = async (grant: Grant): Promise<Tokens> => {
    const text = await sealer.open('grant', [grant.key.pk, grant.key.sk], grant.sealed)
    if (text === undefined) throw new Failure('session_ended', { detail: 'the sealed tokens do not open' })
    return JSON.parse(text) as Tokens
  }

  const asRenewed = async (item: Item | undefined): Promise<Renewed> => {
    const grant = decodeGrant(item)
    return grant === undefined ? { kind: 'gone' } : { kind: 'renewed', grant, tokens: await open(grant) }
  }

  /** The new tokens are in the table, or given back to the server because the grant ended meanwhile. */
  const save = async (leased: Grant, tokens: Tokens): Promise<Renewed> => {
    const set = { ...(await sealTokens(leased.key, tokens)), version: leased.version + 1 }
    for (let attempt = 1; ; attempt += 1) {
      try {
        const saved = await table.update(leased.key, {
          set,
          remove: ['lease_until_ms'],
          when: [['version', '=', leased.version]],
        })
        if (saved.changed) return await asRenewed(saved.item)
        // A save whose answer was lost is retried and then meets itself.
        const mine = saved.item?.['version'] === set.version ? await asRenewed(saved.item) : undefined
        if (mine?.kind === 'renewed' && mine.tokens.access_token === tokens.access_token) return mine
        await wire.revoke(leased, tokens)
        return await asRenewed(saved.item)
      } catch (error) {
        if (attempt === SAVE_ATTEMPTS) throw error
        await delay(100 * attempt)
      }
    }
  }

  const renew = async (grant: Grant): Promise<Renewed> => {
    if ((await open(grant)).refresh_token === undefined) return { kind: 'ended' }
    const startMs = now()
    const leaseUntilMs = startMs + leaseMs
    const claim = await table.update(grant.key, {
      set: { lease_until_ms: leaseUntilMs },
      when: [
        ['version', '=', grant.version],
        ['lease_until_ms', 'absent or <', startMs],
      ],
    })
    if (!claim.changed) {
      const other = decodeGrant(claim.item)
      return other?.version === grant.version ? { kind: 'held' } : await asRenewed(claim.item)
    }
    const leased = decodeGrant(claim.item)
    if (leased === undefined) return { kind: 'gone' }
    const tokens = await open(leased)

    // Somebody who was held up this long must not send: another caller may hold the lease by the time the answer is here.
    if (leaseUntilMs - now() < leaseMs - LEASE_RESERVE_MS / 2) return { kind: 'held' }

    const outcome = await wire.refresh(leased, tokens)
    switch (outcome.kind) {
      case 'refreshed':
        return await save(leased, {
          ...outcome.tokens,
          refresh_token: outcome.tokens.refresh_token ?? tokens.refresh_token,
        })
      case 'refused': {
        const [item] = await table.read([grant.key])
        return item?.['version'] === leased.version ? { kind: 'ended' } : await asRenewed(item)
      }
      case 'unavailable':
        if (outcome.processed === 'no') {
          await table.update(grant.key, {
            remove: ['lease_until_ms'],
            when: [
              ['version', '=', leased.version],
              ['lease_until_ms', '=', leaseUntilMs],
            ],
          })
        }
        return { kind: 'unavailable', reason: outcome.reason }
    }
  }

  const renewed = async (grant: Grant): Promise<{ grant: Grant; tokens: Tokens }> => {
    const deadlineMs = now() + WAIT_MS
    let current = grant
    for (let pauseMs = 40; ; pauseMs = Math.min(pauseMs * 1.5, 400)) {
      if (current.leaseUntilMs <= now()) {
        const outcome = await renew(current)
        if (outcome.kind === 'renewed') return outcome
        if (outcome.kind === 'ended') throw new Failure('grant_ended')
        if (outcome.kind === 'gone') throw endedMeanwhile()
        if (outcome.kind === 'unavailable') throw notNow(outcome.reason)
      }
      if (now() + pauseMs > deadlineMs) throw new Failure('renewal_pending', { retryAfterSeconds: 1 })
      await delay(pauseMs * (0.5 + Math.random()))
      const [item] = await table.read([grant.key])
      const read = decodeGrant(item)
      if (read === undefined) throw endedMeanwhile()
      if (read.version !== grant.version) return { grant: read, tokens: await open(read) }
      current = read
    }
  }

  return {
    open,
    renew,
    renewed,

    async newItem(key, { provider, clientId, tokens, ttl }) {
      const sealed = await sealTokens(key, tokens)
      return { ...key, format: FORMAT, version: 1, provider, client_id: clientId, ttl, ...sealed }
    },

    async access(grant) {
      const tokens = await open(grant)
      if (seconds() < grant.freshUntil) return { grant, tokens, renewal: undefined }
      if (seconds() >= grant.expires) return { ...(await renewed(grant)), renewal: undefined }
      // Still valid: the call goes out with it while this caller, if nobody else does, renews beside it.
      const renewal = grant.leaseUntilMs > now() ? undefined : renew(grant)
      renewal?.catch(() => undefined)
      return { grant, tokens, renewal }
    },

    async end(key) {
      const grant = decodeGrant(await table.remove(key))
      if (grant === undefined) return
      await wire.revoke(grant, await open(grant))
    },
  }
}
