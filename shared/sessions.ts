import { arrival } from './arrivals.ts'
import type { SessionSettings } from './config.ts'
import { Failure } from './errors.ts'
import { decodeGrant } from './grant-record.ts'
import type { Grant } from './grant-record.ts'
import { hashHandle, hashName, hashState } from './seal.ts'
import type { AccountId, Handle, HandleHash, Sealer } from './seal.ts'
import type { Item, Key, Step, Table } from './table.ts'
import type { Ticket } from './user-agent.ts'

/**
 * Sessions: one signed-in browser each. The record is found by the hash of the handle in its cookie; the table alone
 * yields neither a cookie nor a claim. A session is over at its idle end or its absolute end, whichever comes first, whether or not its
 * record is still there; and over for good once the record is gone. How sessions end is in `endings`.
 */

export type Claims = Readonly<Record<string, unknown>>

/** Times are seconds since the epoch. */
export interface Session {
  key: Key
  grantKey: Key
  account: AccountId
  provider: string
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

/** What is sealed in a session. */
export interface Kept {
  claims: Claims
  /** What the browser called itself at sign-in. */
  user_agent: string
}

export interface NewSession extends Kept {
  account: AccountId
  /** Fresh from `newHandle`; the caller can end the session by it where it cannot be told whether it began. */
  handle: Handle
  provider: string
  /** Whether the account's sessions share one grant. */
  sharedGrant: boolean
  /**
   * The write that puts the grant of the session in place, for its key and time to live (seconds since the epoch). Asked again where that
   * failed, with what another sign-in has put there.
   */
  grant: (key: Key, ttl: number, rival?: { item: Item | undefined }) => Promise<Step>
  /** The authorization server's own session, by which back-channel logout names ours. */
  serverSession: { issuer: string; sid: string } | undefined
  /** When the login began, in milliseconds since the epoch: a logout of the user or of the server's session since then wins. */
  loginStartedMs: number
  /** When the session ends at the latest, in seconds since the epoch; set where its tokens cannot be renewed beyond that. */
  endsBy: number | undefined
  /** The session that this browser had before; it ends with the same write. */
  replaces: Key | undefined
  /** Where the sign-in is announced, until it is done. */
  arrivalKey?: Key | undefined
}

/** A session that just began: its ticket, and how long the ticket can be good at most. */
export interface Started {
  ticket: Ticket
  maxAgeSeconds: number
}

export interface Sessions {
  /**
   * The login of that state is spent, and announced where that has to be; false when it was spent before, so that a callback counts
   * once wherever it lands.
   */
  spendLogin(state: string, expires: number, arrivalKey: Key | undefined): Promise<boolean>
  /** A sign-in that came to nothing is no longer announced. */
  withdraw(arrivalKey: Key): Promise<void>
  /** A new session and its grant are in the table. @throws login_overtaken; store_unavailable, when it may have begun all the same */
  start(from: NewSession): Promise<Started>
  /** The live session of a ticket with its grant, in one read; undefined when it never was or is over. */
  find(ticket: Ticket): Promise<Live | undefined>
  /** What is sealed in a session. @throws session_ended when it does not open */
  open(session: Session): Promise<Kept>
  /** The idle end is moved, at most once a minute; a session that was ended stays ended. */
  touch(session: Session): Promise<Session>
}

const FORMAT = 1
const TOUCH_SECONDS = 60
/** How often a sign-in that meets another one of the same user tries to be saved. */
const CONTESTS = 3
/** Records stay this much longer than they count, so that clocks that differ a little never see one vanish early. */
export const TTL_MARGIN_SECONDS = 3_600
const USER_AGENT_LIMIT_CHARACTERS = 256

/** The partition of an account's sessions and grants. */
export const partition = (account: AccountId): string => `A#${account}`

/** The key of a session's record. */
export const sessionKey = (account: AccountId, session: HandleHash): Key => ({
  pk: partition(account),
  sk: `S#${session}`,
})

/** The grant of a session lies beside it and bears its name, so that one read of two keys finds both. */
export const ownGrantKey = (key: Key): Key => ({ pk: key.pk, sk: `G#${key.sk.slice(2)}` })

/** The one grant of an account at a provider, where its sessions share it. */
const sharedGrantKey = (pk: string, provider: string): Key => ({ pk, sk: `G#${provider}` })

/** Where it is written that all of an account's sessions were ended, and when. */
export const accountEndKey = (account: AccountId): Key => ({ pk: partition(account), sk: 'X' })

/** The partition of the sessions that began under one session of the authorization server. */
export const serverSessionPartition = (issuer: string, sid: string): string => `L#${hashName('sid', issuer, sid)}`

/** Where it is written that a session of the authorization server has ended. */
export const serverSessionEndKey = (issuer: string, sid: string): Key => ({
  pk: serverSessionPartition(issuer, sid),
  sk: 'X',
})

/** The session in a table item, or undefined when it is of no format that we know. */
export const decodeSession = (item: Item | undefined): Session | undefined => {
  if (item === undefined || item['format'] !== FORMAT || !item.pk.startsWith('A#')) return undefined
  const { grant, provider, created, seen, idle_end: idleEnd, absolute_end: absoluteEnd, sealed } = item
  if (typeof grant !== 'string' || typeof provider !== 'string') return undefined
  if (typeof created !== 'number' || typeof seen !== 'number') return undefined
  if (typeof idleEnd !== 'number' || typeof absoluteEnd !== 'number' || !(sealed instanceof Uint8Array))
    return undefined
  return {
    key: { pk: item.pk, sk: item.sk },
    grantKey: { pk: item.pk, sk: grant },
    account: item.pk.slice(2) as AccountId,
    provider,
    created,
    seen,
    idleEnd,
    absoluteEnd,
    sealed,
  }
}

/** Whether a session has not come to its idle or absolute end, at that time in seconds since the epoch. */
export const isLive = ({ idleEnd, absoluteEnd }: Session, atSeconds: number): boolean =>
  atSeconds < idleEnd && atSeconds < absoluteEnd

/**
 * Sessions in that table.
 * @param sharedGrants providers whose accounts have one grant for all sessions
 */
export const createSessions = ({
  table,
  sealer,
  settings,
  sharedGrants,
  now,
}: {
  table: Table
  sealer: Sealer
  settings: SessionSettings
  sharedGrants: readonly string[]
  now: () => number
}): Sessions => {
  const seconds = (): number => Math.floor(now() / 1_000)

  return {
    async spendLogin(state, expires, arrivalKey) {
      const spent = { pk: `C#${hashState(state)}`, sk: '-', format: FORMAT, ttl: expires + TTL_MARGIN_SECONDS }
      if (arrivalKey === undefined) return await table.create(spent)
      // What has ended by now is as good as absent.
      return await table.transact([
        { put: spent, when: [['ttl', 'absent or <', seconds()]] },
        { put: arrival(arrivalKey, now()) },
      ])
    },

    async withdraw(arrivalKey) {
      await table.remove(arrivalKey)
    },

    async start(from) {
      const { account, handle, provider, serverSession, endsBy = Infinity, replaces } = from
      const key = sessionKey(account, hashHandle(handle))
      const grantKey = from.sharedGrant ? sharedGrantKey(key.pk, provider) : ownGrantKey(key)
      const created = seconds()
      const absoluteEnd = Math.min(created + settings.absolute_seconds, endsBy)
      const ttl = absoluteEnd + TTL_MARGIN_SECONDS
      const kept: Kept = { claims: from.claims, user_agent: from.user_agent.slice(0, USER_AGENT_LIMIT_CHARACTERS) }
      const session: Item = {
        ...key,
        format: FORMAT,
        version: 1,
        grant: grantKey.sk,
        provider,
        created,
        seen: created,
        idle_end: Math.min(created + settings.idle_seconds, absoluteEnd),
        absolute_end: absoluteEnd,
        ttl,
        sealed: await sealer.seal('session', [key.pk, key.sk], JSON.stringify(kept)),
      }
      const pointer =
        serverSession === undefined
          ? []
          : [
              {
                put: {
                  pk: serverSessionPartition(serverSession.issuer, serverSession.sid),
                  sk: `${key.pk} ${key.sk}`,
                  ttl,
                },
              },
              {
                check: serverSessionEndKey(serverSession.issuer, serverSession.sid),
                when: [['ended_ms', 'absent or <', from.loginStartedMs] as const],
              },
            ]
      const write = (grant: Step): Promise<boolean> =>
        table.transact([
          { put: session },
          grant,
          { check: accountEndKey(account), when: [['ended_ms', 'absent or <', from.loginStartedMs]] },
          ...pointer,
          ...[replaces, from.arrivalKey].flatMap((gone) => (gone === undefined ? [] : [{ remove: gone }])),
        ])
      let started = await write(await from.grant(grantKey, ttl))
      for (let attempt = 1; !started && from.sharedGrant && attempt <= CONTESTS; attempt += 1) {
        const item = (await table.list(grantKey.pk, grantKey.sk)).find(({ sk }) => sk === grantKey.sk)
        started = await write(await from.grant(grantKey, ttl, { item }))
      }
      if (!started) throw new Failure('login_overtaken')
      return { ticket: { account, handle }, maxAgeSeconds: absoluteEnd - created }
    },

    async find({ account, handle }) {
      const key = sessionKey(account, hashHandle(handle))
      const grantKeys = [ownGrantKey(key), ...sharedGrants.map((provider) => sharedGrantKey(key.pk, provider))]
      // A cold instance reads its keys while the table is read, not after it.
      sealer.prepare()
      const [sessionItem, ...grantItems] = await table.read([key, ...grantKeys])
      const session = decodeSession(sessionItem)
      const grant = decodeGrant(grantItems.find((item) => item?.sk === session?.grantKey.sk))
      if (session === undefined || grant === undefined) return undefined
      return isLive(session, seconds()) ? { session, grant } : undefined
    },

    async open({ key, sealed }) {
      const text = await sealer.open('session', [key.pk, key.sk], sealed)
      if (text === undefined) throw new Failure('session_ended', { detail: 'the sealed claims do not open' })
      return JSON.parse(text) as Kept
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
  }
}
