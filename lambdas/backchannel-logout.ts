import type { Stage } from '../shared/config.ts'
import type { Credentials } from '../shared/credentials.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { LogoutTokens } from '../shared/logout-token.ts'
import { isForm } from '../shared/message.ts'
import { accountOf, pseudonym } from '../shared/seal.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { audit, endedSessions } from './report.ts'
import { credentials, endings, logoutTokens, stage } from './runtime.ts'

const BODY_LIMIT_BYTES = 32 * 1024

/**
 * The authorization server says that somebody signed out there: the sessions that began under that session of its, or where it names
 * none, all of that user's, are over. Logins that were under way lose. The same token again has no second effect.
 * @see OpenID Connect Back-Channel Logout 1.0 sections 2.5 to 2.8
 */
export const backchannelLogout =
  (deps: { stage: Stage; credentials: Credentials; logoutTokens: LogoutTokens; endings: Endings }): Endpoint =>
  async (request) => {
    const provider = request.pathParameters['provider'] ?? ''
    if (!Object.hasOwn(deps.stage.providers, provider))
      throw new Failure('provider_unknown', { detail: provider.slice(0, 32) })
    if (!isForm(request)) throw new Failure('logout_token_invalid', { detail: 'not a posted form' })
    if (request.body.length > BODY_LIMIT_BYTES) throw new Failure('logout_token_invalid', { detail: 'too large' })
    const form = new URLSearchParams(Buffer.from(request.body).toString('utf8'))
    const values = form.getAll('logout_token')
    const [token] = values
    if (token === undefined || values.length > 1)
      throw new Failure('logout_token_invalid', { detail: 'no single logout_token' })

    const { issuer, jti, sid, sub } = await deps.logoutTokens(token, await deps.credentials.of(provider))
    await deps.endings.onceFor(issuer, jti, async () => {
      const account = sub === undefined ? undefined : accountOf(issuer, sub)
      const ended =
        sid === undefined
          ? account === undefined
            ? []
            : await deps.endings.endAccount(account)
          : await deps.endings.endServerSession(issuer, sid)
      const by = sid === undefined ? 'sub' : 'sid'
      const who = account === undefined ? {} : { account: pseudonym(account) }
      audit('backchannel-logout', 'signed_out_by_server', { provider, by, ...who, ...endedSessions(ended) }, request)
    })
    return { status: 200 }
  }

export const handler = edge('backchannel-logout', {
  POST: (request) =>
    backchannelLogout({
      stage: stage(),
      credentials: credentials(),
      logoutTokens: logoutTokens(),
      endings: endings(),
    })(request),
})
