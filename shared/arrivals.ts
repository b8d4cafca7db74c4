import { hashState } from './seal.ts'
import type { Item, Key, Table } from './table.ts'

/**
 * Sign-ins on their way at a provider with one live grant a user: there the server kills a user's tokens when it issues new ones, a moment
 * before those can be saved. Whose they are is not known until they are there, so each sign-in is announced before its code is redeemed,
 * and the announcement goes with the write that saves the tokens. Who is refused in between knows that it has to wait and for how long.
 */

/** Longer than a callback may run, so that one that was stopped holds nobody up for good. */
const ARRIVING_MS = 30_000
const TTL_SECONDS = 3_600

/** Where the sign-in of that state is announced. */
export const arrivalKey = (provider: string, state: string): Key => ({ pk: `P#${provider}`, sk: hashState(state) })

/** The announcement of a sign-in. */
export const arrival = (key: Key, nowMs: number): Item => ({
  ...key,
  until_ms: nowMs + ARRIVING_MS,
  ttl: Math.floor(nowMs / 1_000) + TTL_SECONDS,
})

/** The sign-ins at a provider that are on their way now, by name. */
export const arriving = async (table: Pick<Table, 'list'>, provider: string, nowMs: number): Promise<string[]> =>
  (await table.list(`P#${provider}`, '')).flatMap(({ sk, until_ms: untilMs }) =>
    typeof untilMs === 'number' && untilMs > nowMs ? [sk] : [],
  )
