import { Failure } from './errors.ts'
import { parseSealingKeys } from './seal.ts'
import type { SealingKeys } from './seal.ts'

/** The sealing keys as one instance knows them: read once, again when they may have changed, and never forgotten for an outage. */

const MAX_AGE_MS = 15 * 60_000
/** Made-up key ids must not lead to a read of the secret each. */
const COOLDOWN_MS = 5_000

const numberOf = (id: string): number => Number(/^k(\d{1,9})$/.exec(id)?.[1] ?? 0)

/** Whether a key that is not among them may have been added since: `npm run keys` counts up, so that one of an earlier number was removed. */
const mayBeNew = (id: string, { keys }: SealingKeys): boolean =>
  numberOf(id) > Math.max(0, ...Object.keys(keys).map(numberOf))

/**
 * The keys, from a cache; read past it when they lack the wanted id, so that what another instance sealed under a key that was added just
 * now opens here.
 * @param read the value of the sealing secret
 * @throws secrets_unavailable, also for a key that may be new while the secret was read just now: trying again helps
 */
export const createSealingKeys = ({ read, now }: { read: () => Promise<string | undefined>; now: () => number }) => {
  let cached: { readMs: number; keys: Promise<SealingKeys> } | undefined
  let searchedMs = -Infinity

  const load = (fallback?: Promise<SealingKeys>): Promise<SealingKeys> => {
    const before = cached
    const fresh = read().then((value) => parseSealingKeys(value ?? ''))
    const entry = { readMs: now(), keys: fallback === undefined ? fresh : fresh.catch(() => fallback) }
    cached = entry
    entry.keys.catch(() => {
      if (cached === entry) cached = before
    })
    return entry.keys
  }

  return async (wanted?: string): Promise<SealingKeys> => {
    // Keys do not go bad by age: while the secret cannot be read, those that are known go on sealing and opening.
    if (cached === undefined || now() - cached.readMs > MAX_AGE_MS) await load(cached?.keys)
    const known = await (cached?.keys ?? load())
    if (wanted === undefined || Object.hasOwn(known.keys, wanted)) return known
    if (now() - searchedMs > COOLDOWN_MS) {
      searchedMs = now()
      return await load()
    }
    const latest = await (cached?.keys ?? load())
    if (!Object.hasOwn(latest.keys, wanted) && mayBeNew(wanted, latest)) {
      throw new Failure('secrets_unavailable', { detail: 'a sealing key not met before', retryAfterSeconds: 1 })
    }
    return latest
  }
}
