import type { Renewal as RenewalSettings } from './config.ts'
import { Failure } from './errors.ts'
import type { Sealer } from './seal.ts'
import type { Item, Key, Value } from './table.ts'

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
}

/** Whose tokens: what refreshing and revoking need to know of a grant. */
export type Holder = Pick<Grant, 'provider' | 'clientId'>

export interface GrantRecords {
  /** The attributes that keep the tokens: sealed, and when they end and are due. */
  attributes(key: Key, tokens: Tokens): Promise<Record<string, Value>>
  /** The tokens of a grant. @throws session_ended when they do not open */
  open(grant: Grant): Promise<Tokens>
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
  return {
    key: { pk: item.pk, sk: item.sk },
    version,
    provider,
    clientId,
    freshUntil,
    expires,
    leaseUntilMs: number('lease_until_ms'),
    retryAtMs: number('retry_at_ms'),
    ttl,
    sealed,
  }
}

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
  const freshUntil = (tokens: Tokens): number => {
    if (tokens.refresh_token === undefined) return tokens.expires
    const lifetime = Math.max(0, tokens.expires - Math.floor(now() / 1_000))
    return tokens.expires - Math.ceil(Math.min(settings.leeway_seconds, lifetime / 4))
  }

  return {
    attributes: async (key, tokens) => ({
      sealed: await sealer.seal('grant', [key.pk, key.sk], JSON.stringify(tokens)),
      fresh_until: freshUntil(tokens),
      expires: tokens.expires,
    }),

    async open(grant) {
      const text = await sealer.open('grant', [grant.key.pk, grant.key.sk], grant.sealed)
      if (text === undefined) throw new Failure('session_ended', { detail: 'the sealed tokens do not open' })
      return JSON.parse(text) as Tokens
    },
  }
}
