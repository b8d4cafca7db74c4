import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import type { Grants } from '../shared/grants.ts'
import type { Send } from '../shared/http.ts'
import { Failure } from '../shared/errors.ts'
import { forward, resolveCall } from '../shared/resource-server.ts'
import type { Sessions } from '../shared/sessions.ts'
import { requireRequestProof } from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { endings, grants, send, sessions, stage } from './runtime.ts'
import { endingWithGrant, reportRenewal, requireLive } from './signed-in.ts'

/** Renewing and repeating included, a call is answered before the function's own end at 29 seconds. */
const CALL_LIMIT_MS = 26_000

/**
 * A call of the resource server with the user's token (RFC 6750), renewed as needed. A 401 leads to one forced renewal and one repeat.
 * What need not come first is done while the resource server works: moving the idle end, renewing ahead of time.
 */
export const api =
  (deps: { stage: Stage; sessions: Sessions; grants: Grants; endings: Endings; send: Send }): Endpoint =>
  async (request) => {
    const byMs = Date.now() + CALL_LIMIT_MS
    const route = deps.stage.apis[request.pathParameters['api'] ?? '']
    requireRequestProof(request, deps.stage, { navigation: route?.navigation === true })
    const call = resolveCall(deps.stage, request)
    const live = await requireLive(request, deps.sessions)
    if (live.grant.provider !== call.api.provider)
      throw new Failure('session_missing', { detail: 'signed in at another provider' })

    return await endingWithGrant(live, deps.endings, async () => {
      const access = await deps.grants.access(live.grant)
      reportRenewal('api', access, request)
      const beside = Promise.allSettled([access.renewal, deps.sessions.touch(live.session)])
      try {
        const reply = await forward(deps.send, call, request, access.tokens.access_token, byMs)
        if (reply.status !== 401 || access.tokens.refresh_token === undefined) return reply
        const again = await endingWithGrant({ ...live, grant: access.grant }, deps.endings, () =>
          deps.grants.renewed(access.grant),
        )
        reportRenewal('api', again, request)
        return await forward(deps.send, call, request, again.tokens.access_token, byMs)
      } finally {
        await beside
      }
    })
  }

export const handler = edge('api', {
  ANY: (request) =>
    api({ stage: stage(), sessions: sessions(), grants: grants(), endings: endings(), send: send() })(request),
})
