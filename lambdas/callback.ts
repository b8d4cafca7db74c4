import { arrivalKey } from '../shared/arrivals.ts'
import type { AuthorizationServer } from '../shared/authorization-server.ts'
import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { Grants } from '../shared/grants.ts'
import { query, redirect, single } from '../shared/message.ts'
import type { Request } from '../shared/message.ts'
import type { Sealer } from '../shared/seal.ts'
import { sessionKey } from '../shared/sessions.ts'
import type { Sessions } from '../shared/sessions.ts'
import { loginPath } from '../shared/stage.ts'
import type { Key } from '../shared/table.ts'
import type { Tasks } from '../shared/tasks.ts'
import { keptLogin, resolveReturnTo } from '../shared/user-agent.ts'
import type { Login } from '../shared/user-agent.ts'
import { beginSession } from './begin-session.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { bestEffort } from './report.ts'
import { authorizationServer, endings, grants, sealer, sessions, stage, tasks } from './runtime.ts'

interface Deps {
  stage: Stage
  authorizationServer: AuthorizationServer
  sealer: Sealer
  sessions: Sessions
  grants: Grants
  endings: Endings
  tasks: Tasks
}

/** The code is redeemed and the session of its user begins; without a session, its tokens are given back. */
const enter = async (
  deps: Deps,
  request: Request,
  parameters: URLSearchParams,
  state: string,
  login: Login,
  announced: Key | undefined,
): Promise<string> => {
  const { provider } = login
  const signedIn = await deps.authorizationServer.finish(provider, parameters, {
    state,
    issuer: login.issuer,
    clientId: login.client_id,
    redirectUri: login.redirect_uri,
    codeVerifier: login.code_verifier,
    nonce: login.nonce,
    resource: login.resource,
    routeResources: login.route_resources,
  })
  const { account, clientId, sinceMs } = signedIn
  let { tokens } = signedIn
  const replaces = login.replaces === undefined ? undefined : sessionKey(login.replaces.account, login.replaces.session)
  return await beginSession(
    'callback',
    deps,
    request,
    {
      account,
      provider,
      sharedGrant: announced !== undefined,
      grant: async (key, ttl, rival) => {
        const grant = { provider, clientId, tokens, ttl, ...(announced !== undefined && { sinceMs }) }
        if (rival === undefined) return await deps.grants.place(key, grant)
        const contested = await deps.grants.contest(key, grant, rival.item)
        tokens = contested.tokens
        return contested.step
      },
      claims: signedIn.claims,
      endsBy: tokens.refresh_token === undefined ? tokens.expires : undefined,
      serverSession: signedIn.serverSession,
      loginStartedMs: login.started_ms,
      replaces,
      arrivalKey: announced,
    },
    { giveBack: () => deps.grants.giveBack({ provider, clientId }, tokens) },
  )
}

/** The hosted callback URL: the authorization response (RFC 6749 section 4.1.2, RFC 9207) of a login that this browser began. */
export const callback =
  (deps: Deps): Endpoint =>
  async (request) => {
    const provider = request.pathParameters['provider'] ?? ''
    const parameters = query(request)
    let tryAgain = loginPath(Object.hasOwn(deps.stage.providers, provider) ? provider : undefined)
    let cookies: string[] = []
    try {
      const state = single(parameters, 'state')
      if (state === undefined || state === '') throw new Failure('state_missing')
      const { login, forget } = await keptLogin(request, deps.sealer, state, Math.floor(Date.now() / 1_000))
      tryAgain = loginPath(login.provider, login.return_to)
      if (login.provider !== provider) throw new Failure('provider_mismatch')

      // Once, wherever and however often this callback lands. While that cannot be told, the login stays usable: a reload may succeed.
      const sharesGrants = deps.stage.providers[provider]?.grants === 'per-user'
      const announced = sharesGrants ? arrivalKey(provider, state) : undefined
      if (!(await deps.sessions.spendLogin(state, login.expires, announced))) throw new Failure('login_already_used')
      cookies = [forget]
      const sessionCookie = await enter(deps, request, parameters, state, login, announced).catch(
        async (error: unknown) => {
          if (announced !== undefined) await bestEffort('callback', request, () => deps.sessions.withdraw(announced))
          throw error
        },
      )
      return redirect(303, resolveReturnTo(login.return_to, deps.stage), [forget, sessionCookie])
    } catch (error) {
      throw error instanceof Failure ? error.with({ cookies, tryAgain }) : error
    }
  }

export const handler = edge('callback', {
  GET: (request) =>
    callback({
      stage: stage(),
      authorizationServer: authorizationServer(),
      sealer: sealer(),
      sessions: sessions(),
      grants: grants(),
      endings: endings(),
      tasks: tasks(),
    })(request),
})
