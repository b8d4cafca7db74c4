import type { AuthorizationServer } from '../shared/authorization-server.ts'
import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import { query, redirect, single } from '../shared/message.ts'
import { codeChallenge, hashHandle, newCodeVerifier, random } from '../shared/seal.ts'
import type { Sealer } from '../shared/seal.ts'
import { defaultProvider, loginPath } from '../shared/stage.ts'
import { keepLogin, LOGIN_SECONDS, requireUserNavigation, returnTo, sessionTicket } from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { askForToken } from './token-question.ts'
import { authorizationServer, sealer, stage } from './runtime.ts'

/** Starts a login: the authorization request (RFC 6749 section 4.1.1) with PKCE (RFC 7636), its secrets sealed into a cookie. */
export const login =
  (deps: { stage: Stage; authorizationServer: Pick<AuthorizationServer, 'authorize'>; sealer: Sealer }): Endpoint =>
  async (request) => {
    requireUserNavigation(request)
    const parameters = query(request)
    const provider = single(parameters, 'provider') ?? defaultProvider(deps.stage)
    if (!Object.hasOwn(deps.stage.providers, provider))
      throw new Failure('provider_unknown', { detail: provider.slice(0, 32) })
    const destination = returnTo(request, deps.stage)

    const { api_token: token } = deps.stage.providers[provider] ?? {}
    if (token === 'preferred' && single(parameters, 'method') !== 'oauth') {
      return await askForToken(deps, request, provider, destination, true)
    }

    const startedMs = Date.now()
    const state = random(32)
    const nonce = random(32)
    const codeVerifier = newCodeVerifier()
    const authorization = await deps.authorizationServer
      .authorize(provider, {
        state,
        nonce,
        codeChallenge: codeChallenge(codeVerifier),
        prompt: single(parameters, 'prompt'),
        loginHint: single(parameters, 'login_hint'),
      })
      .catch((error: unknown) => {
        if (token !== 'off' && error instanceof Failure && error.reason === 'not_registered') return undefined
        throw error instanceof Failure ? error.with({ tryAgain: loginPath(provider, destination) }) : error
      })
    if (authorization === undefined) return await askForToken(deps, request, provider, destination, false)

    const { ticket } = sessionTicket(request)
    const cookies = await keepLogin(request, deps.sealer, state, {
      provider,
      issuer: authorization.issuer,
      client_id: authorization.clientId,
      redirect_uri: authorization.redirectUri,
      code_verifier: codeVerifier,
      nonce: authorization.openid ? nonce : undefined,
      resource: authorization.resource,
      route_resources: authorization.routeResources.length === 0 ? undefined : authorization.routeResources,
      return_to: destination,
      started_ms: startedMs,
      expires: Math.floor(startedMs / 1_000) + LOGIN_SECONDS,
      replaces: ticket === undefined ? undefined : { account: ticket.account, session: hashHandle(ticket.handle) },
    })
    return redirect(302, authorization.url.href, cookies)
  }

export const handler = edge('login', {
  GET: (request) => login({ stage: stage(), authorizationServer: authorizationServer(), sealer: sealer() })(request),
})
