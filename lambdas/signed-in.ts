import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { Access } from '../shared/grants.ts'
import type { Request } from '../shared/message.ts'
import type { Live, Session, Sessions } from '../shared/sessions.ts'
import { clearSessionCookie, sessionTicket } from '../shared/user-agent.ts'
import { audit, holderOf } from './report.ts'

/** The live session of a request, for the flows that need one, and what can be told of sessions. */

/** The live session that the request's cookie is the ticket of, or undefined. @throws header_too_large, store_unavailable */
export const findLive = async (request: Request, sessions: Pick<Sessions, 'find'>): Promise<Live | undefined> => {
  const { ticket } = sessionTicket(request)
  return ticket === undefined ? undefined : await sessions.find(ticket)
}

/** The `Set-Cookie` that takes a dead ticket away, where the browser sent one. */
export const clearedIfPresent = (request: Request): string[] =>
  sessionTicket(request).present ? [clearSessionCookie()] : []

/** The live session of the request. @throws session_missing, which takes a dead cookie away; store_unavailable, which does not */
export const requireLive = async (request: Request, sessions: Pick<Sessions, 'find'>): Promise<Live> => {
  const live = await findLive(request, sessions)
  if (live === undefined) throw new Failure('session_missing', { cookies: clearedIfPresent(request) })
  return live
}

/**
 * Runs with the session's grant. When it turns out that the grant is over, its sessions end with it and the cookie goes; nothing else
 * ends a session.
 * @throws what `run` throws
 */
export const endingWithGrant = async <T>(
  live: Live,
  endings: Pick<Endings, 'buryGrant'>,
  run: () => Promise<T>,
): Promise<T> => {
  try {
    return await run()
  } catch (error) {
    if (!(error instanceof Failure) || (error.reason !== 'grant_ended' && error.reason !== 'session_ended')) throw error
    const buried = await endings.buryGrant({ ...live.grant.key, version: live.grant.version })
    // Replaced by a sign-in meanwhile: the session goes on with the new one.
    if (!buried) throw new Failure('renewal_pending', { retryAfterSeconds: 1 })
    throw error.with({ cookies: [clearSessionCookie()] })
  }
}

/** A renewal that was carried out for this request is in the audit trail. */
export const reportRenewal = (
  flow: string,
  { renewedHere, grant }: Pick<Access, 'renewedHere' | 'grant'>,
  request: Request,
): void => {
  if (renewedHere) audit(flow, 'renewed', { provider: grant.provider, ...holderOf(grant.key) }, request)
}

/** What the browser of a session called itself at sign-in; undefined where that does not open any more, as nothing of the session does. */
export const userAgentOf = async (session: Session, sessions: Pick<Sessions, 'open'>): Promise<string | undefined> => {
  try {
    return (await sessions.open(session)).user_agent
  } catch (error) {
    if (error instanceof Failure && error.reason === 'session_ended') return undefined
    throw error
  }
}

/** What `GET /bff/session` and `POST /bff/refresh` say of a live session. Durations are seconds from `now`, which is seconds since the epoch. */
export const describeSession = (
  { session, grant }: Live,
  claims: Readonly<Record<string, unknown>>,
  nowSeconds: number,
): Record<string, unknown> => ({
  authenticated: true,
  provider: grant.provider,
  claims,
  created_at: session.created,
  expires_in: session.absoluteEnd - nowSeconds,
  idle_expires_in: session.idleEnd - nowSeconds,
  access_token_expires_in: Math.max(0, grant.expires - nowSeconds),
  now: nowSeconds,
})
