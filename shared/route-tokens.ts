import type { Api, Exchange, Stage } from './config.ts'
import type { Reason } from './errors.ts'

/**
 * Tokens that routes have of their own, beside the one of their grant: for another resource, by a refresh that names it (RFC 8707 section 2.2),
 * or by an exchange of the grant's token (RFC 8693). What a route asks for, and what a grant keeps of the answers.
 */

/** The grant type of an exchange (RFC 8693 section 2.1). */
export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

/** The token that a route asks for, under a name that is the same for routes that ask for the same. */
export type TokenOfRoute =
  | { kind: 'resource'; name: string; resource: string }
  | { kind: 'exchange'; name: string; exchange: Exchange }

/** A token of a route as it is kept. Times are seconds since the epoch. */
export interface RouteToken {
  access_token: string
  expires: number
  /** It is used without a thought until then. */
  fresh_until: number
  /** Whether it came of an exchange, so that it does not end with the refresh token. */
  exchanged: boolean
}

/** There is no token, and nobody asks for one again until then, in milliseconds since the epoch. */
export interface RoutePause {
  reason: Reason
  detail: string | undefined
  until_ms: number
}

/** By the name of what was asked for. */
export type RouteTokens = Readonly<Record<string, RouteToken | RoutePause>>

/** Most that one grant keeps, so that its record stays far from the 400 kB of an item: the latest to end win. */
const MOST_ENTRIES = 16
const MOST_CHARACTERS = 96_000

/** The token that a route asks for; undefined where that is its grant's. */
export const tokenOfRoute = ({ resource, exchange }: Pick<Api, 'resource' | 'exchange'>): TokenOfRoute | undefined => {
  if (exchange !== undefined) {
    const { audience, resource: of, scope, requested_token_type: type } = exchange
    // As null where it is left out.
    return { kind: 'exchange', name: `exchange ${JSON.stringify([audience, of, scope, type])}`, exchange }
  }
  return resource === undefined ? undefined : { kind: 'resource', name: `resource ${resource}`, resource }
}

/** Every resource to ask for at authorization, that of the grant's own token first. */
export const resourcesOf = ({ apis, providers }: Pick<Stage, 'apis' | 'providers'>, provider: string): string[] => {
  const own = providers[provider]?.resource
  const ofRoutes = Object.values(apis).flatMap((api) => (api.provider === provider ? (api.resource ?? []) : []))
  return [...new Set([...(own === undefined ? [] : [own]), ...ofRoutes])]
}

/** Whether that is a token. */
export const isToken = (entry: RouteToken | RoutePause | undefined): entry is RouteToken =>
  entry !== undefined && 'access_token' in entry

/** The tokens with this one among them, and without those that have ended or are too many. */
export const withRouteToken = (
  tokens: RouteTokens,
  name: string,
  entry: RouteToken | RoutePause,
  nowMs: number,
): RouteTokens => {
  const endsMs = (one: RouteToken | RoutePause): number => (isToken(one) ? one.expires * 1_000 : one.until_ms)
  let size = JSON.stringify(entry).length
  const before = tokens[name]
  // Calls under way may still need it, so that it is revoked with the others, and not now.
  const replaced = isToken(before) && before.exchanged ? { [`replaced ${name}`]: before } : {}
  const others = Object.entries({ ...tokens, ...replaced })
    .filter(([other, kept]) => other !== name && endsMs(kept) > nowMs)
    .toSorted(([, one], [, other]) => endsMs(other) - endsMs(one))
    .slice(0, MOST_ENTRIES - 1)
    .filter(([, kept]) => (size += JSON.stringify(kept).length) <= MOST_CHARACTERS)
  return Object.fromEntries([[name, entry], ...others])
}

/** Those that have to be revoked one by one. */
export const exchangedTokens = (tokens: RouteTokens): string[] =>
  Object.values(tokens).flatMap((entry) => (isToken(entry) && entry.exchanged ? [entry.access_token] : []))
