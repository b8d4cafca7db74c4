import * as z from 'zod/mini'
import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import { accountOf, pseudonym } from '../shared/seal.ts'
import type { AccountId } from '../shared/seal.ts'
import type { Search } from '../shared/session-search.ts'
import { isLive } from '../shared/sessions.ts'
import type { Session, Sessions } from '../shared/sessions.ts'
import type { Key } from '../shared/table.ts'
import { orderEdge } from './edge.ts'
import { audit, endedSessions } from './report.ts'
import { endings, search, sessions, stage } from './runtime.ts'
import { userAgentOf } from './signed-in.ts'

interface Deps {
  stage: Stage
  sessions: Sessions
  endings: Endings
  search: Search
}

const pseudonymSchema = () => z.string().check(z.regex(/^[\w-]{12}$/))

/** What an operator orders: whose sessions, or which one, and whether they end. Pseudonyms are those of the audit trail. */
const orderSchema = () =>
  z.strictObject({
    provider: z.string().check(z.regex(/^[a-z][a-z0-9-]{0,31}$/)),
    of: z.union([
      z.strictObject({ subject: z.string().check(z.minLength(1), z.maxLength(1_024)) }),
      z.strictObject({ account: pseudonymSchema() }),
      z.strictObject({ session: pseudonymSchema() }),
    ]),
    end: z.boolean(),
    /** Where a search goes on. */
    from: z.optional(
      z.strictObject({
        pk: z.string().check(z.regex(/^[\x21-\x7e]{1,200}$/)),
        sk: z.string().check(z.regex(/^[\x20-\x7e]{1,200}$/)),
      }),
    ),
  })

type Order = z.infer<ReturnType<typeof orderSchema>>

/** What an operator is told of a session. Times are seconds since the epoch; it ends at the latest then, and sooner when it is not used. */
interface Told {
  session: string
  provider: string
  user_agent: string | null
  created_at: number
  last_seen_at: number
  ends_at: number
}

/** The live sessions that are meant, or that ended; where nobody was found yet and there are more records, where to go on. */
interface Outcome {
  account: string | null
  sessions: Told[]
  looked_at: number
  next: Key | null
}

const endThem = async ({ endings: ends }: Deps, account: AccountId, { of, end }: Order) => {
  const isMeant = ({ key }: Session): boolean => !('session' in of) || pseudonym(key.sk.slice(2)) === of.session
  if (end && !('session' in of)) return await ends.endAccount(account)
  const meant = (await ends.list(account)).filter(isMeant)
  return end ? await ends.endAll(meant) : meant
}

/**
 * Sessions of a user, for an operator: they are told of, or they are over, as if the user had ended them; where all of a user's end, a
 * login that was under way is lost too.
 * @throws request_invalid, provider_unknown, store_unavailable
 */
export const operatorSessions =
  (deps: Deps) =>
  async (given: unknown, requestId?: string): Promise<Outcome> => {
    const { success, data: order } = orderSchema().safeParse(given)
    if (!success) throw new Failure('request_invalid', { detail: 'the order is none that npm run sessions gives' })
    const { provider, of, from } = order
    const settings = Object.hasOwn(deps.stage.providers, provider) ? deps.stage.providers[provider] : undefined
    if (settings === undefined) throw new Failure('provider_unknown', { detail: provider })
    const { account, lookedAt, next } =
      'subject' in of
        ? { account: accountOf(settings.issuer, of.subject), lookedAt: 0, next: undefined }
        : await deps.search(of, from)
    if (account === undefined) return { account: null, sessions: [], looked_at: lookedAt, next: next ?? null }

    const found = await endThem(deps, account, order)
    if (order.end && found.length > 0) {
      audit('operator-sessions', 'sessions_ended', { ...endedSessions(found), by: 'operator' }, requestId)
    }
    const live = found.filter((session) => isLive(session, Math.floor(Date.now() / 1_000)))
    const told = live.map(async (session): Promise<Told> => ({
      session: pseudonym(session.key.sk.slice(2)),
      provider: session.provider,
      user_agent: (await userAgentOf(session, deps.sessions)) ?? null,
      created_at: session.created,
      last_seen_at: session.seen,
      ends_at: session.absoluteEnd,
    }))
    return { account: pseudonym(account), sessions: await Promise.all(told), looked_at: lookedAt, next: null }
  }

export const handler = orderEdge('operator-sessions', (order, requestId) =>
  operatorSessions({ stage: stage(), sessions: sessions(), endings: endings(), search: search() })(order, requestId),
)
