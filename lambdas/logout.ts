import type { AuthorizationServer } from '../shared/authorization-server.ts'
import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { isForm, json, query, redirect, single } from '../shared/message.ts'
import type { Request } from '../shared/message.ts'
import { hashHandle, pseudonym } from '../shared/seal.ts'
import type { Sealer } from '../shared/seal.ts'
import { sessionKey } from '../shared/sessions.ts'
import {
  clearSessionCookie,
  requireRequestProof,
  returnTo,
  resolveReturnTo,
  sessionTicket,
} from '../shared/user-agent.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { signedOutPage, signOutPage } from './pages.ts'
import { audit, bestEffort } from './report.ts'
import { authorizationServer, endings, sealer, stage } from './runtime.ts'

interface Deps {
  stage: Stage
  authorizationServer: AuthorizationServer
  sealer: Sealer
  endings: Endings
}

/** What the browser kept of the signed-in user goes too; cookies go by name, since "cookies" would reach other sites' of the domain. */
const CLEAR_SITE_DATA = '"cache", "storage"'

/** `return_to` where one was given. */
const givenReturnTo = (request: Request, settings: Stage): string | undefined =>
  query(request).has('return_to') ? returnTo(request, settings) : undefined

/** Whether a page posted a form, rather than a script, which would follow a redirect to another origin and learn nothing. */
const isPostedForm = (request: Request): boolean =>
  isForm(request) &&
  request.headers['x-csrf'] === undefined &&
  (request.headers['sec-fetch-mode'] ?? 'navigate') === 'navigate'

/** Where the browser ends its session at the authorization server; our state brings it back and carries on to the destination. */
const logoutUrl = async (
  deps: Deps,
  provider: string,
  destination: string | undefined,
): Promise<string | undefined> => {
  const sealed = await deps.sealer.seal('logout', [], JSON.stringify({ return_to: destination }))
  return await deps.authorizationServer.logoutUrl(provider, Buffer.from(sealed).toString('base64url'))
}

/**
 * The session is over: first its record, then the cookie, then, if no other session uses its grant, the tokens at the authorization
 * server (RFC 7009). Signing out without a session succeeds too. A script gets where to end the server's own session, a posted form is
 * sent there.
 */
export const logout =
  (deps: Deps): Endpoint =>
  async (request) => {
    requireRequestProof(request, deps.stage, { form: true })
    const destination = givenReturnTo(request, deps.stage)
    const { ticket } = sessionTicket(request)
    const ended = ticket && (await deps.endings.end(sessionKey(ticket.account, hashHandle(ticket.handle))))
    let url: string | undefined
    if (ended !== undefined) {
      audit('logout', 'signed_out', { provider: ended.provider, account: pseudonym(ended.account) }, request)
      url = await bestEffort('logout', request, () => logoutUrl(deps, ended.provider, destination))
    }
    const cookies = [clearSessionCookie()]
    const headers = { 'clear-site-data': CLEAR_SITE_DATA }
    if (!isPostedForm(request)) return json(200, { logout_url: url ?? null }, { cookies, headers })
    const reply = redirect(303, url ?? destination ?? `${deps.stage.origin}/`, cookies)
    return { ...reply, headers: { ...reply.headers, ...headers } }
  }

/** Asks before signing out; and where the authorization server sends the browser back with our `state`, the way on from there. */
export const confirmLogout =
  (deps: Deps): Endpoint =>
  async (request) => {
    const state = single(query(request), 'state') ?? ''
    const text = /^[A-Za-z0-9_-]+$/.test(state)
      ? await deps.sealer.open('logout', [], Buffer.from(state, 'base64url'))
      : undefined
    if (text !== undefined) {
      const { return_to: back } = JSON.parse(text) as { return_to?: string }
      return back === undefined ? signedOutPage() : redirect(303, resolveReturnTo(back, deps.stage))
    }
    const destination = givenReturnTo(request, deps.stage)
    const parameters = destination === undefined ? '' : `?${new URLSearchParams({ return_to: destination }).toString()}`
    // Browsers hold the redirect after a form to the page's form-action too.
    const targets = new Set(deps.stage.return_to_origins)
    for (const provider of Object.values(deps.stage.providers)) {
      for (const origin of [new URL(provider.issuer).origin, ...provider.endpoint_origins]) targets.add(origin)
    }
    return signOutPage(`/bff/logout${parameters}`, [...targets])
  }

const deps = (): Deps => ({
  stage: stage(),
  authorizationServer: authorizationServer(),
  sealer: sealer(),
  endings: endings(),
})

export const handler = edge('logout', {
  GET: (request) => confirmLogout(deps())(request),
  POST: (request) => logout(deps())(request),
})
