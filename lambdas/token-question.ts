import type { Stage } from '../shared/config.ts'
import { NO_CLIENT } from '../shared/grant-record.ts'
import type { Reply, Request } from '../shared/message.ts'
import { hashHandle, random } from '../shared/seal.ts'
import type { Sealer } from '../shared/seal.ts'
import { keepLogin, LOGIN_SECONDS, sessionTicket } from '../shared/user-agent.ts'
import { apiTokenPage } from './pages.ts'
import type { TokenQuestion } from './pages.ts'

/** The question for an API token: a login like any other, kept in its cookie, but answered on a page of ours. */

/** The question of a login, `optional` where one may sign in by OAuth instead. */
export const tokenQuestion = (
  stage: Stage,
  { provider, state, returnTo, optional }: { provider: string; state: string; returnTo: string; optional: boolean },
): TokenQuestion => ({
  provider,
  state,
  host: new URL(stage.providers[provider]?.issuer ?? '').host,
  otherWay: optional
    ? `/bff/login?${new URLSearchParams({ provider, method: 'oauth', return_to: returnTo }).toString()}`
    : undefined,
  // Browsers hold the redirect after a form to the page's form-action too.
  formTargets: stage.return_to_origins,
})

/** A login begins with the page that asks for the token. @throws secrets_unavailable */
export const askForToken = async (
  { stage, sealer }: { stage: Stage; sealer: Sealer },
  request: Request,
  provider: string,
  returnTo: string,
  optional: boolean,
): Promise<Reply> => {
  const state = random(32)
  const startedMs = Date.now()
  const { ticket } = sessionTicket(request)
  const cookies = await keepLogin(request, sealer, state, {
    provider,
    issuer: stage.providers[provider]?.issuer ?? '',
    client_id: NO_CLIENT,
    redirect_uri: '',
    code_verifier: '',
    nonce: undefined,
    resource: undefined,
    return_to: returnTo,
    started_ms: startedMs,
    expires: Math.floor(startedMs / 1_000) + LOGIN_SECONDS,
    replaces: ticket === undefined ? undefined : { account: ticket.account, session: hashHandle(ticket.handle) },
  })
  return { ...apiTokenPage(tokenQuestion(stage, { provider, state, returnTo, optional })), cookies }
}
