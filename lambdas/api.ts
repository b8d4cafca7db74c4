import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import type { Grant } from '../shared/grant-record.ts'
import type { Grants } from '../shared/grants.ts'
import type { Send } from '../shared/http.ts'
import { Failure } from '../shared/errors.ts'
import { forward, resolveCall } from '../shared/resource-server.ts'
import { tokenOfRoute } from '../shared/route-tokens.ts'
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

    const wanted = tokenOfRoute(call.api)
    /** A token to call with; another one where that was refused. */
    const tokenFor = async (grant: Grant, refused?: string) => {
      if (wanted !== undefined) {
        const access = await deps.grants.route(grant, wanted, refused)
        reportRenewal('api', access, request)
        return { ...access, renewable: true }
      }
      const { tokens, ...access } = await (refused === undefined
        ? deps.grants.access(grant)
        : deps.grants.renewed(grant))
      reportRenewal('api', access, request)
      return { ...access, accessToken: tokens.access_token, renewable: tokens.refresh_token !== undefined }
    }

    return await endingWithGrant(live, deps.endings, async () => {
      const access = await tokenFor(live.grant)
      const beside = Promise.allSettled([access.renewal, deps.sessions.touch(live.session)])
      try {
        const reply = await forward(deps.send, call, request, access.accessToken, byMs)
        if (reply.status !== 401 || !access.renewable) return reply
        const again = await endingWithGrant({ ...live, grant: access.grant }, deps.endings, () =>
          tokenFor(access.grant, access.accessToken),
        )
        return await forward(deps.send, call, request, again.accessToken, byMs)
      } finally {
        await beside
      }
    })
  }

export const handler = edge('api', {
  ANY: (request) =>
    api({ stage: stage(), sessions: sessions(), grants: grants(), endings: endings(), send: send() })(request),
})
