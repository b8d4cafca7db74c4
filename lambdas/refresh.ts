import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import type { Grants } from '../shared/grants.ts'
import { json } from '../shared/message.ts'
import type { Sessions } from '../shared/sessions.ts'
import { requireRequestProof } from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import { bestEffort } from './report.ts'
import type { Endpoint } from './edge.ts'
import { endings, grants, sessions, stage } from './runtime.ts'
import { describeSession, endingWithGrant, reportRenewal, requireLive } from './signed-in.ts'

/**
 * The session is kept alive and its grant renewed if that is due: at once where its token has ended, behind the answer where it still is
 * valid. Asking twice does no more than asking once.
 */
export const refresh =
  (deps: { stage: Stage; sessions: Sessions; grants: Grants; endings: Endings }): Endpoint =>
  async (request) => {
    requireRequestProof(request, deps.stage)
    const live = await requireLive(request, deps.sessions)
    return await endingWithGrant(live, deps.endings, async () => {
      // One after the other: where the first fails, the answer must not leave a renewal behind in the middle of its work.
      const { claims } = await deps.sessions.open(live.session)
      const session = await deps.sessions.touch(live.session)
      const access = await deps.grants.access(live.grant)
      reportRenewal('refresh', access, request)
      const { grant, renewal } = access
      if (renewal !== undefined) await bestEffort('refresh', request, () => renewal)
      return json(200, describeSession({ session, grant }, claims, Math.floor(Date.now() / 1_000)))
    })
  }

export const handler = edge('refresh', {
  POST: (request) => refresh({ stage: stage(), sessions: sessions(), grants: grants(), endings: endings() })(request),
})
