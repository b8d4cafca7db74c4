import type { SessionSettings } from './config.ts'
import { Failure } from './errors.ts'
import { decodeGrant } from './grants.ts'
import type { Grant } from './grants.ts'
import { hashHandle, hashState, newHandle } from './seal.ts'
import type { AccountId, HandleHash, Sealer } from './seal.ts'
import type { Item, Key, Table } from './table.ts'
import type { Ticket } from './user-agent.ts'

/**
 * Sessions: one signed-in browser each. The record is found by the hash of the handle in its cookie; the table alone
 * yields neither a cookie nor a claim. A session is over at its idle end or its absolute end, whichever comes first, whether or not its
 * record is still there; and over for good once the record is gone.
 */

export type Claims = Readonly<Record<string, unknown>>

/** Times are seconds since the epoch. */
export interface Session {
  key: Key
  grantKey: Key
  account: AccountId
  created: number
  seen: number
  idleEnd: number
  absoluteEnd: number
  sealed: Uint8Array
}

/** A live session and the grant it uses. */
export interface Live {
  session: Session
  grant: Grant
}

export interface NewSession {
  account: AccountId
  /** The record of the grant that the session uses, for its key and time to live (seconds since the epoch). */
  grant: (key: Key, ttl: number) => Promise<Item>
  claims: Claims
  userAgent: string
  /** When the session ends at the latest, in seconds since the epoch; set where its tokens cannot be renewed beyond that. */
  endsBy: number | undefined
  /** The session that this browser had before; it ends with the same write. */
  replaces: Key | undefined
}

export interface Sessions {
  /** The login of that state is spent; false when it was before, so that a callback counts once wherever it lands. */
  spendLogin(state: string, expires: number): Promise<boolean>
  /** A new session and its grant are in the table, under a handle that never was before. */
  start(from: NewSession): Promise<{ ticket: Ticket; maxAgeSeconds: number }>
  /** The live session of a ticket with its grant, in one read; undefined when it never was or is over. */
  find(ticket: Ticket): Promise<Live | undefined>
  /** The claims about the user. @throws session_ended when they do not open */
  claims(session: Session): Promise<Claims>
  /** The idle end is moved, at most once a minute; a session that was ended stays ended. */
  touch(session: Session): Promise<Session>
  /** The session is over everywhere. */
  end(session: Session): Promise<void>
  /** The session and the grant that died under it are over; nothing is left to revoke. */
  discard(live: Live): Promise<void>
}

const FORMAT = 1
const TOUCH_SECONDS = 60
/** Records stay this much longer than they count, so that clocks that differ a little never see one vanish early. */
const TTL_MARGIN_SECONDS = 3_600
const USER_AGENT_LIMIT_CHARACTERS = 256

const partition = (account: AccountId): string => `A#${account}`

/** The key of a session's record. */
export const sessionKey = (account: AccountId, session: HandleHash): Key => ({
  pk: partition(account),
  sk: `S#${session}`,
})

/** The grant of a session lies beside it and bears its name, so that one read of two keys finds both. */
export const grantKeyOf = (key: Key): Key => ({ pk: key.pk, sk: `G#${key.sk.slice(2)}` })

const decodeSession = (account: AccountId, item: Item | undefined): Session | undefined => {
  if (item === undefined || item['format'] !== FORMAT) return undefined
  const { grant, created, seen, idle_end: idleEnd, absolute_end: absoluteEnd, sealed } = item
  if (typeof grant !== 'string' || typeof created !== 'number' || typeof seen !== 'number') return undefined
  if (typeof idleEnd !== 'number' || typeof absoluteEnd !== 'number' || !(sealed instanceof Uint8Array))
    return undefined
  const key = { pk: item.pk, sk: item.sk }
  return { key, grantKey: { pk: item.pk, sk: grant }, account, created, seen, idleEnd, absoluteEnd, sealed }
}

/** Sessions in that table. */
export const createSessions = ({
  table,
  sealer,
  settings,
  now,
}: {
  table: Table
  sealer: Sealer
  settings: SessionSettings
  now: () => number
}): Sessions => {
  const seconds = (): number => Math.floor(now() / 1_000)

  return {
    spendLogin: (state, expires) =>
      table.create({ pk: `C#${hashState(state)}`, sk: '-', format: FORMAT, ttl: expires + TTL_MARGIN_SECONDS }),

    async start({ account, grant, claims, userAgent, endsBy = Infinity, replaces }) {
      const handle = newHandle()
      const key = sessionKey(account, hashHandle(handle))
      const grantKey = grantKeyOf(key)
      const created = seconds()
      const absoluteEnd = Math.min(created + settings.absolute_seconds, endsBy)
      const ttl = absoluteEnd + TTL_MARGIN_SECONDS
      const kept = JSON.stringify({ claims, user_agent: userAgent.slice(0, USER_AGENT_LIMIT_CHARACTERS) })
      const session: Item = {
        ...key,
        format: FORMAT,
        version: 1,
        grant: grantKey.sk,
        created,
        seen: created,
        idle_end: Math.min(created + settings.idle_seconds, absoluteEnd),
        absolute_end: absoluteEnd,
        ttl,
        sealed: await sealer.seal('session', [key.pk, key.sk], kept),
      }
      await table.write({
        put: [await grant(grantKey, ttl), session],
        remove: replaces === undefined ? [] : [replaces],
      })
      return { ticket: { account, handle }, maxAgeSeconds: absoluteEnd - created }
    },

    async find({ account, handle }) {
      const key = sessionKey(account, hashHandle(handle))
      // A cold instance reads its keys while the table is read, not after it.
      sealer.prepare()
      const [sessionItem, grantItem] = await table.read([key, grantKeyOf(key)])
      const session = decodeSession(account, sessionItem)
      const grant = decodeGrant(grantItem)
      if (session === undefined || grant === undefined) return undefined
      const time = seconds()
      return time < session.idleEnd && time < session.absoluteEnd ? { session, grant } : undefined
    },

    async claims({ key, sealed }) {
      const text = await sealer.open('session', [key.pk, key.sk], sealed)
      if (text === undefined) throw new Failure('session_ended', { detail: 'the sealed claims do not open' })
      return (JSON.parse(text) as { claims: Claims }).claims
    },

    async touch(session) {
      const time = seconds()
      if (time - session.seen < Math.min(TOUCH_SECONDS, settings.idle_seconds / 10)) return session
      const idleEnd = Math.min(time + settings.idle_seconds, session.absoluteEnd)
      const touched = await table.update(session.key, {
        set: { seen: time, idle_end: idleEnd },
        when: [['seen', '<', time]],
      })
      return touched.changed ? { ...session, seen: time, idleEnd } : session
    },

    async end(session) {
      await table.remove(session.key)
    },

    async discard({ session, grant }) {
      await table.write({ remove: [session.key, grant.key] })
    },
  }
}
