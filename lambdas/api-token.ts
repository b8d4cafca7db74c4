import type { ReadAccount } from '../shared/account.ts'
import type { AccountEndpoint, Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure, reasons } from '../shared/errors.ts'
import { NO_CLIENT } from '../shared/grant-record.ts'
import type { Grants } from '../shared/grants.ts'
import { isForm, isNavigation, redirect, single } from '../shared/message.ts'
import type { Request } from '../shared/message.ts'
import { accountOf } from '../shared/seal.ts'
import type { Sealer } from '../shared/seal.ts'
import { sessionKey } from '../shared/sessions.ts'
import type { Sessions } from '../shared/sessions.ts'
import { loginPath } from '../shared/stage.ts'
import type { Tasks } from '../shared/tasks.ts'
import { keptLogin, requireRequestProof, resolveReturnTo } from '../shared/user-agent.ts'
import type { Login } from '../shared/user-agent.ts'
import { beginSession } from './begin-session.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { apiTokenPage } from './pages.ts'
import { reportFailure } from './report.ts'
import { endings, grants, readAccount, sealer, sessions, stage, tasks } from './runtime.ts'
import { tokenQuestion } from './token-question.ts'

interface Deps {
  stage: Stage
  readAccount: ReadAccount
  sealer: Sealer
  sessions: Sessions
  grants: Grants
  endings: Endings
  tasks: Tasks
}

const FORM_LIMIT_BYTES = 16 * 1024
/** What a header can carry, without spaces, which people copy along. */
const TOKEN = /^[\x21-\x7e]{1,4096}$/

const formOf = (request: Request): URLSearchParams => {
  if (!isForm(request) || request.body.length > FORM_LIMIT_BYTES) throw new Failure('request_invalid')
  return new URLSearchParams(Buffer.from(request.body).toString())
}

/** The session of the token's user begins, with the token as its grant: it cannot be renewed, and it is not ours to revoke. */
const enter = async (
  deps: Deps,
  request: Request,
  login: Login,
  token: string,
  { subject, claims }: Awaited<ReturnType<ReadAccount>>,
): Promise<string> => {
  const { provider } = login
  const account = accountOf(login.issuer, subject)
  const replaces = login.replaces && sessionKey(login.replaces.account, login.replaces.session)
  // When the token ends, the resource server alone knows: not before the session, as far as we are concerned.
  const expires = Math.floor(Date.now() / 1_000) + deps.stage.session.absolute_seconds + 60
  const tokens = { access_token: token, refresh_token: undefined, id_token: undefined, scope: undefined, expires }
  return await beginSession(
    'api-token',
    deps,
    request,
    {
      account,
      provider,
      sharedGrant: false,
      grant: (key, ttl) => deps.grants.place(key, { provider, clientId: NO_CLIENT, tokens, ttl }),
      claims,
      endsBy: undefined,
      serverSession: undefined,
      loginStartedMs: login.started_ms,
      replaces,
    },
    { facts: { by: 'api_token' } },
  )
}

/** Whose the token is. @throws api_token_malformed, api_token_rejected, account_unresolved */
const ownerOf = async (deps: Deps, endpoint: AccountEndpoint, token: string, claims: readonly string[]) => {
  if (!TOKEN.test(token)) throw new Failure('api_token_malformed')
  try {
    return await deps.readAccount(endpoint, token, claims)
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'account_refused') throw error
    throw new Failure('api_token_rejected', { detail: error.detail })
  }
}

/** What the page can say and ask again for: the login stays as it is. */
const ASKED_AGAIN: ReadonlySet<string> = new Set(['api_token_malformed', 'api_token_rejected', 'account_unresolved'])

/**
 * Signing in with an API token: the form of a login that this browser began brings it, the account endpoint says whose it is. A wrong one
 * costs nothing but another try; the token is in no answer, no log and no cookie.
 */
export const apiToken =
  (deps: Deps): Endpoint =>
  async (request) => {
    const provider = request.pathParameters['provider'] ?? ''
    const settings = Object.hasOwn(deps.stage.providers, provider) ? deps.stage.providers[provider] : undefined
    if (settings?.account === undefined || settings.api_token === 'off') throw new Failure('provider_unknown')
    requireRequestProof(request, deps.stage, { form: true })
    const form = formOf(request)
    const state = single(form, 'state') ?? ''
    // One that is too long is a wrong token rather than a wrong request: the page says so and asks again.
    const [token = '', ...others] = form.getAll('token')
    if (others.length > 0) throw new Failure('parameter_duplicated', { detail: 'token' })
    let cookies: string[] = []
    let tryAgain = loginPath(provider)
    try {
      if (state === '') throw new Failure('state_missing')
      const { login, forget } = await keptLogin(request, deps.sealer, state, Math.floor(Date.now() / 1_000))
      tryAgain = loginPath(provider, login.return_to)
      // A login that went to the authorization server is not ended here, nor that of another provider or issuer.
      if (login.provider !== provider || login.client_id !== NO_CLIENT) throw new Failure('provider_mismatch')
      if (login.issuer !== settings.issuer) throw new Failure('issuer_mismatch')
      try {
        const owner = await ownerOf(deps, settings.account, token.trim(), settings.claims)
        if (!(await deps.sessions.spendLogin(state, login.expires, undefined))) throw new Failure('login_already_used')
        cookies = [forget]
        const sessionCookie = await enter(deps, request, login, token.trim(), owner)
        return redirect(303, resolveReturnTo(login.return_to, deps.stage), [forget, sessionCookie])
      } catch (error) {
        if (!(error instanceof Failure) || !ASKED_AGAIN.has(error.reason) || !isNavigation(request)) throw error
        reportFailure('api-token', error, request)
        const optional = settings.api_token === 'preferred'
        const question = tokenQuestion(deps.stage, { provider, state, returnTo: login.return_to, optional })
        return apiTokenPage({ ...question, problem: reasons[error.reason] })
      }
    } catch (error) {
      throw error instanceof Failure ? error.with({ cookies, tryAgain }) : error
    }
  }

export const handler = edge('api-token', {
  POST: (request) =>
    apiToken({
      stage: stage(),
      readAccount: readAccount(),
      sealer: sealer(),
      sessions: sessions(),
      grants: grants(),
      endings: endings(),
      tasks: tasks(),
    })(request),
})
