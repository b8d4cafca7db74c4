import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { Request } from '../shared/message.ts'
import { hashHandle, newHandle, pseudonym } from '../shared/seal.ts'
import { sessionKey } from '../shared/sessions.ts'
import type { NewSession, Sessions, Started } from '../shared/sessions.ts'
import type { Tasks } from '../shared/tasks.ts'
import { setSessionCookie } from '../shared/user-agent.ts'
import { audit, bestEffort } from './report.ts'
import type { Facts } from './report.ts'

/**
 * The session of somebody who signed in has begun, in the place of the one that the browser had before; resolves with its cookie. Where it
 * could not begin, `giveBack` has run and nothing is left that nobody has the ticket of.
 * @throws login_overtaken, store_unavailable
 */
export const beginSession = async (
  flow: string,
  deps: { sessions: Sessions; endings: Endings; tasks: Tasks },
  request: Request,
  from: Omit<NewSession, 'handle' | 'user_agent'>,
  { giveBack, facts }: { giveBack?: () => Promise<void>; facts?: Facts } = {},
): Promise<string> => {
  const { account, provider, replaces } = from
  const handle = newHandle()
  let started: Started
  try {
    started = await deps.sessions.start({ ...from, handle, user_agent: request.headers['user-agent'] ?? '' })
  } catch (error) {
    await giveBack?.()
    if (error instanceof Failure && error.reason === 'store_unavailable') {
      // Whether the session was written cannot be told, and nobody has its ticket.
      await bestEffort(flow, request, () => deps.endings.end(sessionKey(account, hashHandle(handle))))
    }
    throw error
  }
  const session = pseudonym(hashHandle(handle))
  audit(flow, 'signed_in', { provider, account: pseudonym(account), session, ...facts }, request)
  await Promise.all([
    replaces === undefined ? undefined : bestEffort(flow, request, () => deps.endings.release(replaces)),
    bestEffort(flow, request, () => deps.tasks.start({ kind: 'limit', account })),
  ])
  return setSessionCookie(started.ticket, started.maxAgeSeconds)
}
