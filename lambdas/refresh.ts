import type { Stage } from '../shared/config.ts'
import type { Grants } from '../shared/grants.ts'
import { json } from '../shared/message.ts'
import type { Sessions } from '../shared/sessions.ts'
import { requireRequestProof } from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { grants, sessions, stage } from './runtime.ts'
import { describeSession, endingWithGrant, requireLive } from './signed-in.ts'

/** The session is kept alive and its grant renewed if that is due; asking twice does no more than asking once. */
export const refresh =
  (deps: { stage: Stage; sessions: Sessions; grants: Grants }): Endpoint =>
  async (request) => {
    requireRequestProof(request, deps.stage)
    const live = await requireLive(request, deps.sessions)
    const due = Date.now() / 1_000 >= live.grant.freshUntil
    const [session, { grant }, claims] = await endingWithGrant(live, deps.sessions, () =>
      Promise.all([
        deps.sessions.touch(live.session),
        due ? deps.grants.renewed(live.grant) : live,
        deps.sessions.claims(live.session),
      ]),
    )
    return json(200, describeSession({ session, grant }, claims, Math.floor(Date.now() / 1_000)))
  }

export const handler = edge('refresh', {
  POST: (request) => refresh({ stage: stage(), sessions: sessions(), grants: grants() })(request),
})
