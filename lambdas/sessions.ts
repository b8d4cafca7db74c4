import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import { json, query, single } from '../shared/message.ts'
import { isLive } from '../shared/sessions.ts'
import type { Session, Sessions } from '../shared/sessions.ts'
import { clearSessionCookie, requireRequestProof } from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { audit, endedSessions } from './report.ts'
import { endings, sessions, stage } from './runtime.ts'
import { requireLive, userAgentOf } from './signed-in.ts'

interface Deps {
  stage: Stage
  sessions: Sessions
  endings: Endings
}

/** What a session is called towards its own user: the hash of its handle, from which no cookie follows. */
const idOf = (session: Session): string => session.key.sk.slice(2)

/** The user's own sessions, newest first: each browser that is signed in. Times as in `GET /bff/session`. */
export const listSessions =
  (deps: Deps): Endpoint =>
  async (request) => {
    const { session: current } = await requireLive(request, deps.sessions)
    const now = Math.floor(Date.now() / 1_000)
    const live = (await deps.endings.list(current.account)).filter((session) => isLive(session, now))
    const described = await Promise.all(
      live.toReversed().map(async (session) => {
        const userAgent = await userAgentOf(session, deps.sessions)
        if (userAgent === undefined) return []
        return {
          id: idOf(session),
          current: idOf(session) === idOf(current),
          provider: session.provider,
          user_agent: userAgent,
          created_at: session.created,
          last_seen_at: session.seen,
          expires_in: session.absoluteEnd - now,
          idle_expires_in: session.idleEnd - now,
        }
      }),
    )
    return json(200, { sessions: described.flat(), now })
  }

/** Ends one of the user's own sessions, all others, or with `all=true` every one. */
export const endSessions =
  (deps: Deps): Endpoint =>
  async (request) => {
    requireRequestProof(request, deps.stage)
    const { session: current } = await requireLive(request, deps.sessions)
    const id = request.pathParameters['id']
    const all = id === undefined ? (single(query(request), 'all') ?? 'false') : 'false'
    if (all !== 'true' && all !== 'false') throw new Failure('request_invalid', { detail: 'all is true or false' })
    const known = await deps.endings.list(current.account)
    const chosen = known.filter((session) => {
      if (id !== undefined) return idOf(session) === id
      return all === 'true' || idOf(session) !== idOf(current)
    })
    if (id !== undefined && chosen.length === 0) throw new Failure('session_unknown')
    audit('sessions', 'sessions_ended', endedSessions(await deps.endings.endAll(chosen)), request)
    const cookies = chosen.some((session) => idOf(session) === idOf(current)) ? [clearSessionCookie()] : []
    return json(200, { ended: chosen.length }, { cookies })
  }

/** Each of the two paths has methods of its own. */
const refuseMethod: Endpoint = async ({ pathParameters }) => {
  throw new Failure('method_not_allowed', {
    allow: pathParameters['id'] === undefined ? ['GET', 'DELETE'] : ['DELETE'],
  })
}

const deps = (): Deps => ({ stage: stage(), sessions: sessions(), endings: endings() })

export const handler = edge('sessions', {
  GET: (request) => (request.pathParameters['id'] === undefined ? listSessions(deps()) : refuseMethod)(request),
  DELETE: (request) => endSessions(deps())(request),
  ANY: refuseMethod,
})
