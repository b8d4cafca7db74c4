import { Failure } from '../shared/errors.ts'
import { json } from '../shared/message.ts'
import type { Reply } from '../shared/message.ts'
import type { Sessions } from '../shared/sessions.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { sessions } from './runtime.ts'
import { clearedIfPresent, describeSession, findLive } from './signed-in.ts'

/** Who is signed in here, and for how long. Never extends anything, never shows a token, never fails for want of a session. */
export const session =
  (deps: { sessions: Sessions }): Endpoint =>
  async (request) => {
    const signedOut = (): Reply =>
      json(200, { authenticated: false, login_url: '/bff/login' }, { cookies: clearedIfPresent(request) })
    const live = await findLive(request, deps.sessions)
    if (live === undefined) return signedOut()
    try {
      const { claims } = await deps.sessions.open(live.session)
      return json(200, describeSession(live, claims, Math.floor(Date.now() / 1_000)))
    } catch (error) {
      if (error instanceof Failure && error.reason === 'session_ended') return signedOut()
      throw error
    }
  }

export const handler = edge('session', { GET: (request) => session({ sessions: sessions() })(request) })
