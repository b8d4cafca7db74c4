import { setTimeout as delay } from 'node:timers/promises'
import { Failure, reasons } from './errors.ts'
import type { Reason } from './errors.ts'
import { decodeGrant } from './grant-record.ts'
import type { Grant, GrantRecords, Holder, Tokens } from './grant-record.ts'
import type { GrantWire, Renewals, Revocable } from './renewal.ts'
import { isToken, withRouteToken } from './route-tokens.ts'
import type { RoutePause, RouteToken, TokenOfRoute } from './route-tokens.ts'
import type { Table } from './table.ts'

/**
 * Tokens of routes, asked for once, wherever calls land: under the lease of their grant.
 *
 *   caller A   reads ── takes lease ── is it there by now? use it : refresh for the resource, or exchange ── saves, which lets the lease go
 *   caller B   reads ── lease taken ── reads again: token there? use it ; refused? say so ; lease free? be A
 *
 * A refresh for a route uses the refresh token up like any other, so that it is saved like any other: if the version is as it was. An exchange
 * uses nothing up: it is saved only by who has the lease still, and is given back otherwise. Who is refused tells all others for a while.
 */

export interface RouteAccess {
  grant: Grant
  accessToken: string
  /** Whether this caller renewed the grant itself just now. */
  renewedHere: boolean
  /** The renewal under way beside it, to be awaited before the reply. */
  renewal: Promise<unknown> | undefined
}

export interface RouteRenewals {
  /**
   * A valid token of that route, other than the one that was refused.
   * @throws access_refused, resource_not_granted, grant_ended, session_missing, renewal_pending, server_*
   */
  access(grant: Grant, wanted: TokenOfRoute, refused: string | undefined): Promise<RouteAccess>
}

type Own = Omit<RouteAccess, 'accessToken'> & { tokens: Tokens }

type Obtained =
  | { kind: 'obtained'; grant: Grant; token: RouteToken }
  /** Look again: by others, or by us, something has changed. */
  | { kind: 'changed'; grant: Grant }
  | { kind: 'held' }

/** How long a caller without a token of the route waits for another one's. */
const WAIT_MS = 8_000
/** After a server said no, or nothing, nobody asks for the same again for this long. */
const REFUSED_PAUSE_MS = 5_000
const FAILED_PAUSE_MS = 1_000

/** Tokens of routes beside the grants of that table. */
export const createRouteRenewals = ({
  table,
  records,
  renewals,
  wire,
  access,
  renewed,
  giveBack,
  now,
}: {
  table: Table
  records: GrantRecords
  renewals: Renewals
  wire: Pick<GrantWire, 'refresh' | 'exchange'>
  /** The grant's own token, and a new one. */
  access: (grant: Grant) => Promise<Own>
  renewed: (grant: Grant) => Promise<Own>
  giveBack: (holder: Holder, tokens: Revocable) => Promise<void>
  now: () => number
}): RouteRenewals => {
  const seconds = (): number => Math.floor(now() / 1_000)

  const failure = (reason: Reason, detail: string | undefined): Failure =>
    reasons[reason].status === 503 || reason === 'access_refused'
      ? new Failure(reason, { detail, ...(reason !== 'access_refused' && { retryAfterSeconds: 1 }) })
      : new Failure('server_failed', { detail: reason, retryAfterSeconds: 1 })

  const gone = (): Failure => new Failure('session_missing', { detail: 'the session ended meanwhile' })

  const readAgain = async (grant: Grant): Promise<Grant> => {
    const [item] = await table.read([grant.key])
    const read = decodeGrant(item)
    if (read === undefined) throw gone()
    return read
  }

  /** The routes' tokens are saved with this one, and the lease is let go; undefined where it is somebody else's by now. */
  const saveUnderLease = async (
    leased: Grant,
    { name }: TokenOfRoute,
    entry: RouteToken | RoutePause,
  ): Promise<Grant | undefined> => {
    const tokens = withRouteToken(await records.openRoutes(leased), name, entry, now())
    const saved = await table.update(leased.key, {
      set: await records.routes(leased, tokens),
      remove: ['lease_until_ms'],
      when: [
        ['version', '=', leased.version],
        ['lease_until_ms', '=', leased.leaseUntilMs],
      ],
    })
    const current = decodeGrant(saved.item)
    if (saved.changed || current === undefined) return current
    // A save whose answer was lost meets itself.
    const there = (await records.openRoutes(current))[name]
    return isToken(entry) && isToken(there) && there.access_token === entry.access_token ? current : undefined
  }

  /** Nobody asks again for a while, and a token that is valid yet is used meanwhile; unless the grant changed beside us. @throws what is to be said of it */
  const pause = async (
    leased: Grant,
    wanted: TokenOfRoute,
    reason: Reason,
    detail: string | undefined,
    refused: string | undefined,
  ): Promise<Obtained> => {
    const untilMs = now() + (reason === 'access_refused' ? REFUSED_PAUSE_MS : FAILED_PAUSE_MS)
    const known = (await records.openRoutes(leased))[wanted.name]
    const usable = isToken(known) && known.access_token !== refused && known.expires > seconds()
    const entry = usable ? { ...known, fresh_until: Math.ceil(untilMs / 1_000) } : { reason, detail, until_ms: untilMs }
    if ((await saveUnderLease(leased, wanted, entry)) !== undefined) throw failure(reason, detail)
    const current = await readAgain(leased)
    if (current.version === leased.version) throw failure(reason, detail)
    return { kind: 'changed', grant: current }
  }

  const exchange = async (
    leased: Grant,
    wanted: Extract<TokenOfRoute, { kind: 'exchange' }>,
    refused: string | undefined,
  ): Promise<Obtained> => {
    const tokens = await records.open(leased)
    const outcome = await wire.exchange(leased, tokens, wanted.exchange, renewals.sendByMs(leased))
    if (outcome.kind === 'refused') {
      // Where sessions share the grant, a sign-in may have ended the token that was shown.
      const state = await renewals.failed(leased, { kind: 'refused' })
      if (state.kind === 'renewed') return { kind: 'changed', grant: state.grant }
      if (state.kind === 'gone') throw gone()
      if (state.kind === 'unavailable') throw failure(state.reason, undefined)
      return await pause(leased, wanted, 'access_refused', outcome.detail, refused)
    }
    if (outcome.kind === 'unavailable') return await pause(leased, wanted, outcome.reason, undefined, refused)
    const token = records.routeToken(outcome.issued, true)
    const unsaved = () => giveBack(leased, { exchanged: [token.access_token] })
    const grant = await saveUnderLease(leased, wanted, token).catch(async (error: unknown) => {
      await unsaved()
      throw error
    })
    if (grant !== undefined) return { kind: 'obtained', grant, token }
    await unsaved()
    return { kind: 'changed', grant: await readAgain(leased) }
  }

  const refresh = async (
    leased: Grant,
    wanted: Extract<TokenOfRoute, { kind: 'resource' }>,
    refused: string | undefined,
  ): Promise<Obtained> => {
    const tokens = await records.open(leased)
    const outcome = await wire.refresh(leased, tokens, renewals.sendByMs(leased), wanted.resource)
    if (outcome.kind === 'unavailable' && outcome.reason === 'server_refused')
      return await pause(leased, wanted, 'access_refused', 'the server refused the resource', refused)
    if (outcome.kind !== 'refreshed') {
      const state = await renewals.failed(leased, outcome)
      if (state.kind === 'renewed') return { kind: 'changed', grant: state.grant }
      if (state.kind === 'ended') throw new Failure('grant_ended')
      throw state.kind === 'unavailable' ? failure(state.reason, undefined) : gone()
    }
    const token = records.routeToken(outcome.tokens, false)
    const kept = {
      ...tokens,
      refresh_token: outcome.tokens.refresh_token ?? tokens.refresh_token,
      id_token: outcome.tokens.id_token,
    }
    const saved = await renewals.save(leased, kept, async (grant) => ({
      ...(await records.besides(leased, kept)),
      ...(await records.routes(grant, withRouteToken(await records.openRoutes(grant), wanted.name, token, now()))),
    }))
    if (saved.kind !== 'renewed') throw gone()
    const entry = (await records.openRoutes(saved.grant))[wanted.name]
    const isOurs = isToken(entry) && entry.access_token === token.access_token
    return isOurs ? { kind: 'obtained', grant: saved.grant, token } : { kind: 'changed', grant: saved.grant }
  }

  const valid = async (grant: Grant, { name }: TokenOfRoute, refused: string | undefined) => {
    const entry = (await records.openRoutes(grant))[name]
    if (entry === undefined) return undefined
    if (isToken(entry)) return entry.access_token !== refused && entry.expires > seconds() ? entry : undefined
    if (entry.until_ms > now()) throw failure(entry.reason, entry.detail)
    return undefined
  }

  /** Asks for a new token under the lease, unless another one did meanwhile. */
  const obtain = async (grant: Grant, wanted: TokenOfRoute, refused: string | undefined): Promise<Obtained> => {
    const claim = await renewals.claimLease(grant)
    if (claim.kind === 'held') return { kind: 'held' }
    if (claim.kind === 'renewed') return { kind: 'changed', grant: claim.grant }
    if (claim.kind !== 'leased') throw gone()
    const leased = claim.grant
    // An exchange does not change the version, so that the lease is no proof of what was read.
    if (leased.routesVersion !== grant.routesVersion) {
      await renewals.letGo(leased)
      return { kind: 'changed', grant: { ...leased, leaseUntilMs: 0 } }
    }
    return wanted.kind === 'exchange' ? await exchange(leased, wanted, refused) : await refresh(leased, wanted, refused)
  }

  /** The grant needs a new access token before it is exchanged: the server may count its time a little differently. */
  const isDue = (grant: Grant, wanted: TokenOfRoute): boolean =>
    wanted.kind === 'exchange' && seconds() >= grant.freshUntil

  /** Behind a token that is valid yet, by one caller. */
  const aheadOfTime = (grant: Grant, wanted: TokenOfRoute, token: RouteToken): Promise<unknown> | undefined => {
    if (seconds() < token.fresh_until || Math.max(grant.leaseUntilMs, grant.retryAtMs) > now()) return undefined
    const renewal = async (): Promise<void> => {
      const ready = isDue(grant, wanted) ? (await renewed(grant)).grant : grant
      if (ready.routesVersion === grant.routesVersion) await obtain(ready, wanted, undefined)
    }
    const started = renewal()
    started.catch(() => undefined)
    return started
  }

  const accessOf = async (start: Grant, wanted: TokenOfRoute, refused: string | undefined): Promise<RouteAccess> => {
    const deadlineMs = now() + WAIT_MS
    let [grant, renewedHere] = [start, false]
    for (let pauseMs = 40; now() < deadlineMs; pauseMs = Math.min(pauseMs * 1.5, 400)) {
      const token = await valid(grant, wanted, refused)
      if (token !== undefined) {
        return { grant, accessToken: token.access_token, renewedHere, renewal: aheadOfTime(grant, wanted, token) }
      }
      if (grant.retryAtMs > now())
        throw new Failure('renewal_pending', { retryAfterSeconds: Math.ceil((grant.retryAtMs - now()) / 1_000) })
      if (grant.leaseUntilMs <= now()) {
        if (isDue(grant, wanted)) {
          const own = await renewed(grant)
          renewedHere ||= own.renewedHere
          // By the time others may have brought what is wanted.
          grant = own.grant
          continue
        }
        const outcome = await obtain(grant, wanted, refused)
        if (outcome.kind === 'obtained')
          return { grant: outcome.grant, accessToken: outcome.token.access_token, renewedHere, renewal: undefined }
        if (outcome.kind === 'changed') {
          grant = outcome.grant
          continue
        }
      }
      await delay(pauseMs * (0.5 + Math.random()))
      grant = await readAgain(grant)
    }
    throw new Failure('renewal_pending', { retryAfterSeconds: 1 })
  }

  return {
    async access(grant, wanted, refused) {
      if (wanted.kind === 'exchange') return await accessOf(grant, wanted, refused)
      const { resources = [], refresh_token: refreshToken } = await records.open(grant)
      // Asked for it nevertheless, a server may take the refresh token back before it says no.
      if (!resources.includes(wanted.resource)) throw new Failure('resource_not_granted')
      if (resources[0] === wanted.resource) {
        const { tokens, ...own } = await (refused === undefined ? access(grant) : renewed(grant))
        return { ...own, accessToken: tokens.access_token }
      }
      if (refreshToken !== undefined) return await accessOf(grant, wanted, refused)
      throw new Failure('access_refused', { detail: 'there is no refresh token to ask with' })
    },
  }
}
