import type { AuthorizationServer } from '../shared/authorization-server.ts'
import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import type { Grants } from '../shared/grants.ts'
import { query, redirect, single } from '../shared/message.ts'
import type { Request } from '../shared/message.ts'
import { pseudonym } from '../shared/seal.ts'
import type { Sealer } from '../shared/seal.ts'
import { grantKeyOf, sessionKey } from '../shared/sessions.ts'
import type { Sessions } from '../shared/sessions.ts'
import { keptLogin, resolveReturnTo, setSessionCookie } from '../shared/user-agent.ts'
import type { Login } from '../shared/user-agent.ts'
import { audit, bestEffort, edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { authorizationServer, grants, sealer, sessions, stage } from './runtime.ts'

interface Deps {
  stage: Stage
  authorizationServer: AuthorizationServer
  sealer: Sealer
  sessions: Sessions
  grants: Grants
}

/** A way to start over, to the same place. */
const loginPath = (deps: Deps, provider: string, destination?: string): string => {
  const known = Object.hasOwn(deps.stage.providers, provider) ? { provider } : undefined
  const parameters = new URLSearchParams({ ...known, ...(destination === undefined ? {} : { return_to: destination }) })
  return parameters.size === 0 ? '/bff/login' : `/bff/login?${parameters.toString()}`
}

/** The code is redeemed and the session of its user begins; without a session, its tokens are given back. */
const enter = async (
  deps: Deps,
  request: Request,
  parameters: URLSearchParams,
  state: string,
  login: Login,
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
  })
  const replaces = login.replaces === undefined ? undefined : sessionKey(login.replaces.account, login.replaces.session)
  let cookie: string
  try {
    const started = await deps.sessions.start({
      account: signedIn.account,
      grant: (key, ttl) => deps.grants.newItem(key, { provider, ttl, ...signedIn }),
      claims: signedIn.claims,
      userAgent: request.headers['user-agent'] ?? '',
      endsBy: signedIn.tokens.refresh_token === undefined ? signedIn.tokens.expires : undefined,
      replaces,
    })
    cookie = setSessionCookie(started.ticket, started.maxAgeSeconds)
  } catch (error) {
    await deps.authorizationServer.revoke({ provider, clientId: signedIn.clientId }, signedIn.tokens)
    throw error
  }
  audit('signed in', request, { provider, account: pseudonym(signedIn.account) })
  if (replaces !== undefined) await bestEffort('callback', request, () => deps.grants.end(grantKeyOf(replaces)))
  return cookie
}

/** The hosted callback URL: the authorization response (RFC 6749 section 4.1.2, RFC 9207) of a login that this browser began. */
export const callback =
  (deps: Deps): Endpoint =>
  async (request) => {
    const provider = request.pathParameters['provider'] ?? ''
    const parameters = query(request)
    let tryAgain = loginPath(deps, provider)
    let cookies: string[] = []
    try {
      const state = single(parameters, 'state')
      if (state === undefined || state === '') throw new Failure('state_missing')
      const { login, forget } = await keptLogin(request, deps.sealer, state, Math.floor(Date.now() / 1_000))
      tryAgain = loginPath(deps, login.provider, login.return_to)
      if (login.provider !== provider) throw new Failure('provider_mismatch')

      // Once, wherever and however often this callback lands. While that cannot be told, the login stays usable: a reload may succeed.
      if (!(await deps.sessions.spendLogin(state, login.expires))) throw new Failure('login_already_used')
      cookies = [forget]
      const sessionCookie = await enter(deps, request, parameters, state, login)
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
    })(request),
})
