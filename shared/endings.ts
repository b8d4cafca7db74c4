import { Failure } from './errors.ts'
import { decodeGrant, isShared, sessionOfGrant } from './grant-record.ts'
import type { Grant } from './grant-record.ts'
import type { Grants } from './grants.ts'
import { hashName } from './seal.ts'
import type { AccountId } from './seal.ts'
import {
  accountEndKey,
  decodeSession,
  isLive,
  partition,
  serverSessionEndKey,
  serverSessionPartition,
  TTL_MARGIN_SECONDS,
} from './sessions.ts'
import type { Session } from './sessions.ts'
import type { Key, Table } from './table.ts'
import type { Tasks } from './tasks.ts'

/**
 * How sessions end, other than by time: the record goes first, so that the session is over everywhere at once; then, if no other session
 * uses its grant, the grant goes and its tokens are revoked. Everything here may be repeated.
 */
export interface Endings {
  /** Every session of an account that has a record, oldest first; some may be past their end. */
  list(account: AccountId): Promise<Session[]>
  /** The session of that key is over; the session as it was, or undefined when there was none. */
  end(key: Key): Promise<Session | undefined>
  /** The session of that key was removed; its grant is ended too, unless another session uses it. */
  release(key: Key): Promise<void>
  /** These sessions of one account are over; those of them that were there until now. */
  endAll(sessions: readonly Session[]): Promise<Session[]>
  /** The grant is dead at the server: every session that uses it is over. False when it was replaced meanwhile, and they go on. */
  buryGrant(grant: Pick<Grant, 'version'> & Key): Promise<boolean>
  /** The account has no more live sessions than that; the oldest ended, and those that were over are gone: which they were. */
  limit(account: AccountId, most: number): Promise<Session[]>
  /** Sessions that began under that session of the authorization server are over, and no login under it succeeds any more. Which ended. */
  endServerSession(issuer: string, sid: string): Promise<Session[]>
  /**
   * Every session of the account is over, and no login that began before now succeeds any more; what an ending that was cut short left is
   * gone too. Which ended.
   */
  endAccount(account: AccountId): Promise<Session[]>
  /** Runs once for that logout token; again only when an earlier run did not come to its end. */
  onceFor(issuer: string, jti: string, run: () => Promise<void>): Promise<void>
}

/** For how long a logout still meets logins that were under way: longer than a login may take. */
const REMEMBERED_SECONDS = 1_800
/** Most sessions that are ended at a time. */
const CHUNK = 10

/** Endings in that table. */
export const createEndings = ({
  table,
  grants,
  tasks,
  now,
}: {
  table: Table
  grants: Pick<Grants, 'end' | 'endShared' | 'giveBackRoutes'>
  tasks: Tasks
  now: () => number
}): Endings => {
  const ttl = (): number => Math.floor(now() / 1_000) + REMEMBERED_SECONDS + TTL_MARGIN_SECONDS

  const list = async (account: AccountId): Promise<Session[]> => {
    const items = await table.list(partition(account), 'S#')
    return items.flatMap((item) => decodeSession(item) ?? []).toSorted((one, other) => one.created - other.created)
  }

  /** Called after a session's record has gone, so that of several that end at once the last one sees no other. */
  const release = async (key: Key): Promise<void> => {
    const items = await table.list(key.pk, '')
    const own = items.find(({ sk }) => sk === `G#${key.sk.slice(2)}`)
    if (own !== undefined) return await grants.end(own)
    const atSeconds = Math.floor(now() / 1_000)
    const live = items.flatMap((item) => decodeSession(item) ?? []).filter((session) => isLive(session, atSeconds))
    const used = new Set(live.map(({ grantKey }) => grantKey.sk))
    const grantless = items.filter((item) => {
      const grant = decodeGrant(item)
      return grant !== undefined && isShared(grant) && !used.has(item.sk)
    })
    const ended = await Promise.all(grantless.map((item) => grants.endShared(item)))
    // Renewed meanwhile it is still nobody's; replaced by a sign-in it has a new session beside it.
    if (ended.includes(false)) await release(key)
  }

  const end = async (key: Key): Promise<Session | undefined> => {
    const session = decodeSession(await table.remove(key))
    try {
      // Also where there was no session: an ending that was cut short here before is completed by its repetition.
      await release(key)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      await tasks.start({ kind: 'release', pk: key.pk, sk: key.sk })
    }
    return session
  }

  /** Each is ended, also where another one cannot be; the sessions there were. @throws the first failure, when all is done */
  const endEach = async (keys: readonly Key[]): Promise<Session[]> => {
    const ended: PromiseSettledResult<Session | undefined>[] = []
    for (let start = 0; start < keys.length; start += CHUNK) {
      ended.push(...(await Promise.allSettled(keys.slice(start, start + CHUNK).map(end))))
    }
    const failed = ended.find((result) => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    return ended.flatMap((result) => (result.status === 'fulfilled' ? (result.value ?? []) : []))
  }

  const endAll = (sessions: readonly Session[]): Promise<Session[]> => endEach(sessions.map(({ key }) => key))

  const remember = async (key: Key): Promise<void> => {
    await table.write({ put: [{ ...key, ended_ms: now(), ttl: ttl() }] })
  }

  return {
    list,
    end,
    release,
    endAll,

    async buryGrant({ pk, sk, version }) {
      const users = (await table.list(pk, 'S#')).filter((item) => item['grant'] === sk)
      // With its version, so that a grant that was replaced meanwhile stays, and its sessions with it.
      const buried = await table.remove({ pk, sk }, [['version', '=', version]])
      if (buried === undefined) return !(await table.list(pk, sk)).some((item) => item.sk === sk)
      if (users.length > 0) await table.write({ remove: users.map((item) => ({ pk, sk: item.sk })) })
      await grants.giveBackRoutes(buried)
      return true
    },

    async limit(account, most) {
      const sessions = Object.groupBy(await list(account), (one) =>
        isLive(one, Math.floor(now() / 1_000)) ? 'live' : 'over',
      )
      // Nobody's session ends for the sake of one that is over anyway and only has not been deleted yet.
      const { live = [], over = [] } = sessions
      return await endAll([...over, ...live.slice(0, Math.max(0, live.length - most))])
    },

    async endServerSession(issuer, sid) {
      await remember(serverSessionEndKey(issuer, sid))
      const pointers = (await table.list(serverSessionPartition(issuer, sid), 'A#')).map((item) => {
        const [pk = '', sk = ''] = item.sk.split(' ')
        return { pointer: { pk: item.pk, sk: item.sk }, session: { pk, sk } }
      })
      const ended = await endEach(pointers.map(({ session }) => session))
      if (pointers.length > 0) await table.write({ remove: pointers.map(({ pointer }) => pointer) })
      return ended
    },

    async endAccount(account) {
      await remember(accountEndKey(account))
      const items = await table.list(partition(account), '')
      const sessions = items.flatMap((item) => decodeSession(item) ?? [])
      const names = sessions.map(({ key }) => key.sk.slice(2))
      // A grant without its session is of an ending that was cut short; whoever repeats it completes it.
      const left = items.flatMap((item) => sessionOfGrant(item) ?? []).filter((name) => !names.includes(name))
      const ended = await endEach([...names, ...left].map((name) => ({ pk: partition(account), sk: `S#${name}` })))
      // The same of one that sessions shared, and that none of those that ended here used.
      const used = new Set(sessions.map(({ grantKey }) => grantKey.sk))
      const isShareLeft = items.some((item) => {
        const grant = decodeGrant(item)
        return grant !== undefined && isShared(grant) && !used.has(item.sk)
      })
      if (isShareLeft) await release(accountEndKey(account))
      return ended
    },

    async onceFor(issuer, jti, run) {
      const key = { pk: `J#${hashName('jti', issuer, jti)}`, sk: '-' }
      const [known] = await table.read([key])
      if (known?.['done'] === 1) return
      await run()
      await table.write({ put: [{ ...key, done: 1, ttl: ttl() }] })
    },
  }
}
