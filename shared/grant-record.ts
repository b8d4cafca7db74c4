import type { Renewal as RenewalSettings } from './config.ts'
import { Failure } from './errors.ts'
import type { Sealer } from './seal.ts'
import type { RouteToken, RouteTokens } from './route-tokens.ts'
import type { Condition, Item, Key, Value } from './table.ts'

/** The record of a grant: what is plain in it, what is sealed, and how it reads back. */

/** What the authorization server issued. Times are seconds since the epoch. */
export interface Tokens {
  access_token: string
  refresh_token: string | undefined
  id_token: string | undefined
  scope: string | undefined
  /** When the access token ends. */
  expires: number
  /**
   * The resources that were asked for at authorization (RFC 8707), that of the access token first: no other is ever named at refreshing.
   * Absent in records from before they were kept.
   */
  resources?: readonly string[]
}

export interface Grant {
  key: Key
  version: number
  /** Changes whenever the access token does, which versions do more often: a refresh for a route brings a new refresh token only. */
  generation: number
  provider: string
  clientId: string
  /** The access token is used without a thought until then, in seconds since the epoch. */
  freshUntil: number
  /** When the access token ends, in seconds since the epoch. */
  expires: number
  /** Somebody renews it until then, in milliseconds since the epoch; 0 nobody. */
  leaseUntilMs: number
  /** After a renewal that failed nobody tries again until then, in milliseconds since the epoch; 0 anybody may. */
  retryAtMs: number
  /** When the record itself ends, in seconds since the epoch. */
  ttl: number
  sealed: Uint8Array
  /** Tokens that routes have of their own, where there are any. */
  routes: Uint8Array | undefined
  /** How often these were written. */
  routesVersion: number
}

/** What a grant has instead of a client where the user brought the token: no client of ours has an empty id (RFC 6749 appendix A.1). */
export const NO_CLIENT = ''

/** Whose tokens: what refreshing and revoking need to know of a grant. */
export type Holder = Pick<Grant, 'provider' | 'clientId'>

export interface GrantRecords {
  /** The attributes that keep the tokens: sealed, and when they end and are due. */
  attributes(key: Key, tokens: Tokens): Promise<Record<string, Value>>
  /** The attributes that keep new tokens where the access token stays: when that is due stays too. */
  besides(grant: Grant, tokens: Tokens): Promise<Record<string, Value>>
  /** The tokens of a grant. @throws session_ended when they do not open */
  open(grant: Grant): Promise<Tokens>
  /** The attributes that keep the tokens of routes. */
  routes(grant: Grant, tokens: RouteTokens): Promise<Record<string, Value>>
  /** Those of the grant; none where they do not open. */
  openRoutes(grant: Grant): Promise<RouteTokens>
  /** A new token of a route, which was issued at that lifetime, as it is kept. */
  routeToken(issued: Pick<Tokens, 'access_token' | 'expires'>, exchanged: boolean): RouteToken
}

/** Of all grants that are written; a reader refuses what it does not know. */
export const GRANT_FORMAT = 1

/** A grant that the sessions of an account share has its provider's name; others have their session's. */
export const isShared = (grant: Grant): boolean => grant.key.sk === `G#${grant.provider}`

/** Names the one session that a grant belongs to, as its record does; undefined where sessions share the grant. */
export const sessionOfGrant = ({ sk }: Key): string | undefined => /^G#([\w-]{43})$/.exec(sk)?.[1]

/** The grant in a table item, or undefined when it is of no format that we know. */
export const decodeGrant = (item: Item | undefined): Grant | undefined => {
  if (item === undefined || item['format'] !== GRANT_FORMAT) return undefined
  const { version, provider, client_id: clientId, fresh_until: freshUntil, expires, ttl, sealed } = item
  if (typeof version !== 'number' || typeof provider !== 'string' || typeof clientId !== 'string') return undefined
  if (typeof freshUntil !== 'number' || typeof expires !== 'number' || typeof ttl !== 'number') return undefined
  if (!(sealed instanceof Uint8Array)) return undefined
  const number = (name: string): number => (typeof item[name] === 'number' ? item[name] : 0)
  const { routes } = item
  return {
    key: { pk: item.pk, sk: item.sk },
    version,
    generation: version - number('besides'),
    provider,
    clientId,
    freshUntil,
    expires,
    leaseUntilMs: number('lease_until_ms'),
    retryAtMs: number('retry_at_ms'),
    ttl,
    sealed,
    routes: routes instanceof Uint8Array ? routes : undefined,
    routesVersion: number('routes_version'),
  }
}

/** True of a record whose routes' tokens are as that grant has them. */
export const routesUnchanged = ({ routesVersion }: Grant): Condition =>
  routesVersion === 0 ? ['routes_version', 'absent or <', 1] : ['routes_version', '=', routesVersion]

/** Seals and opens the tokens of grants. */
export const createGrantRecords = ({
  sealer,
  settings,
  now,
}: {
  sealer: Sealer
  settings: RenewalSettings
  now: () => number
}): GrantRecords => {
  const freshUntil = (expires: number): number => {
    const lifetime = Math.max(0, expires - Math.floor(now() / 1_000))
    return expires - Math.ceil(Math.min(settings.leeway_seconds, lifetime / 4))
  }
  const sealTokens = (key: Key, tokens: Tokens): Promise<Uint8Array> =>
    sealer.seal('grant', [key.pk, key.sk], JSON.stringify(tokens))

  return {
    attributes: async (key, tokens) => ({
      sealed: await sealTokens(key, tokens),
      fresh_until: tokens.refresh_token === undefined ? tokens.expires : freshUntil(tokens.expires),
      expires: tokens.expires,
    }),

    besides: async ({ key, version, generation }, tokens) => ({
      sealed: await sealTokens(key, tokens),
      besides: version - generation + 1,
    }),

    async open(grant) {
      const text = await sealer.open('grant', [grant.key.pk, grant.key.sk], grant.sealed)
      if (text === undefined) throw new Failure('session_ended', { detail: 'the sealed tokens do not open' })
      return JSON.parse(text) as Tokens
    },

    routes: async ({ key: { pk, sk }, routesVersion }, tokens) => ({
      routes: await sealer.seal('routes', [pk, sk], JSON.stringify(tokens)),
      routes_version: routesVersion + 1,
    }),

    async openRoutes({ key: { pk, sk }, routes }) {
      const text = routes && (await sealer.open('routes', [pk, sk], routes))
      return text === undefined ? {} : (JSON.parse(text) as RouteTokens)
    },

    routeToken: ({ access_token, expires }, exchanged) => ({
      access_token,
      expires,
      fresh_until: freshUntil(expires),
      exchanged,
    }),
  }
}
