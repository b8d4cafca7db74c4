import { asAccount, pseudonym } from './seal.ts'
import type { AccountId } from './seal.ts'
import type { Key, Pages } from './table.ts'

/** How an operator finds whom a pseudonym of the audit trail means: nothing leads from it to a record but to look at them all. */

/** What is sought, by its pseudonym. */
export type Sought = { account: string } | { session: string }

/** Whose it is; where it was not found and there is more to look at, where to go on. */
export interface Findings {
  account: AccountId | undefined
  /** Records that were looked at this time. */
  lookedAt: number
  next: Key | undefined
}

/** Looks for some seconds at the records from there on (undefined: from the beginning). @throws store_unavailable */
export type Search = (sought: Sought, from: Key | undefined) => Promise<Findings>

/** How long one search looks before it says where to go on: less than a function may take, and long enough to be worth a call. */
const PATIENCE_MS = 8_000

const isMeant = ({ pk, sk }: Key, sought: Sought): boolean => {
  if (!pk.startsWith('A#')) return false
  if ('account' in sought) return pseudonym(pk.slice(2)) === sought.account
  return sk.startsWith('S#') && pseudonym(sk.slice(2)) === sought.session
}

/** A search of that table. */
export const createSearch =
  ({ table, now }: { table: Pages; now: () => number }): Search =>
  async (sought, from) => {
    const untilMs = now() + PATIENCE_MS
    let lookedAt = 0
    let start = from
    for (;;) {
      const { keys, next } = await table.page(start)
      lookedAt += keys.length
      const found = keys.find((key) => isMeant(key, sought))
      const account = found && asAccount(found.pk.slice(2))
      if (account !== undefined) return { account, lookedAt, next: undefined }
      if (next === undefined || now() >= untilMs) return { account: undefined, lookedAt, next }
      start = next
    }
  }
