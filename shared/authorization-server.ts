import type { ReadAccount } from './account.ts'
import type { Stage } from './config.ts'
import type { Credentials } from './credentials.ts'
import { Failure } from './errors.ts'
import { NO_CLIENT } from './grant-record.ts'
import type { Tokens } from './grant-record.ts'
import { createIdentify, ignoringFailure } from './identity.ts'
import type { Exchanged, GrantWire, Refreshed } from './renewal.ts'
import { resourcesOf } from './route-tokens.ts'
import type { OAuth, Peer, TokenReply } from './oauth.ts'
import type { Registration } from './registration-record.ts'
import { accountOf } from './seal.ts'
import type { AccountId } from './seal.ts'
import type { Claims } from './sessions.ts'
import { callbackUrl, postLogoutUrl } from './stage.ts'

/** What flows ask of a provider's authorization server. Which client, which credentials and what to do when they changed is decided here. */

/** A login that has been asked for. Values that the browser must not see yet stay with the caller. */
export interface AuthorizationRequest {
  state: string
  nonce: string
  codeChallenge: string
  prompt: string | undefined
  loginHint: string | undefined
}

/** Where to send the browser, and what its callback must be checked against. */
export interface Authorization {
  url: URL
  issuer: string
  clientId: string
  redirectUri: string
  /** Whether OpenID Connect is spoken, so that an ID token with the nonce must come back. */
  openid: boolean
  resource: string | undefined
  /** Resources that routes have of their own. */
  routeResources: readonly string[]
}

/** Who signed in, and with which tokens. */
export interface SignedIn {
  account: AccountId
  clientId: string
  claims: Claims
  tokens: Tokens
  /** When the code was sent to be redeemed, in milliseconds since the epoch. */
  sinceMs: number
  /** The authorization server's own session, where it may log it out behind the browser's back. */
  serverSession: { issuer: string; sid: string } | undefined
}

export interface AuthorizationServer extends GrantWire {
  /** The authorization request, as a URL with each parameter once (but `resource`, RFC 8707 section 2) and none that was not asked for (RFC 6749 section 4.1.1). */
  authorize(provider: string, request: AuthorizationRequest): Promise<Authorization>
  /** The callback is genuine, its code is redeemed and its user is known. */
  finish(
    provider: string,
    parameters: URLSearchParams,
    login: {
      state: string
      issuer: string
      clientId: string
      redirectUri: string
      codeVerifier: string
      nonce: string | undefined
      resource: string | undefined
      routeResources?: readonly string[] | undefined
    },
  ): Promise<SignedIn>
  /** Where the browser ends its session at the server (OpenID Connect RP-Initiated Logout 1.0), if the server has that. */
  logoutUrl(provider: string, state: string): Promise<string | undefined>
}

/** How long it is waited before credentials that are renewed in place are read again; milliseconds. A lease leaves 2.5 seconds for that. */
const REREAD_PAUSES_MS = [0, 300, 700, 1_000]

const PROMPTS = new Set(['login', 'consent', 'select_account', 'none'])

const scopesOf = (scope: string | undefined): string[] => scope?.split(' ') ?? []

/** The authorization servers of a stage. */
export const createAuthorizationServer = ({
  stage,
  credentials,
  oauth,
  readAccount,
  now,
  pause,
}: {
  stage: Stage
  credentials: Credentials
  oauth: OAuth
  readAccount: ReadAccount
  now: () => number
  pause: (milliseconds: number) => Promise<void>
}): AuthorizationServer => {
  const peerOf = (registration: Registration, provider: string, clientId: string): Peer => {
    const client = [registration.current, ...registration.retiring].find((one) => one.client_id === clientId)
    if (client === undefined)
      throw new Failure('client_rejected', { detail: `${provider} no longer has client ${clientId}` })
    return { metadata: registration.metadata, client, keys: registration.keys ?? [] }
  }

  /** Runs with the client that the login or grant was made under. Credentials that were replaced are read again: once, or in place a few times. */
  const withClient = async <T>(provider: string, clientId: string, run: (peer: Peer) => Promise<T>): Promise<T> => {
    const isInPlace = stage.providers[provider]?.rotation.mode === 'in-place'
    let known = await credentials.of(provider)
    for (const pauseMs of isInPlace ? REREAD_PAUSES_MS : [0]) {
      const peer = peerOf(known, provider, clientId)
      try {
        return await run(peer)
      } catch (error) {
        if (!(error instanceof Failure && error.reason === 'client_rejected')) throw error
        if (pauseMs > 0) await pause(pauseMs)
        known = await credentials.again(provider, known)
      }
    }
    return await run(peerOf(known, provider, clientId))
  }

  const asTokens = (reply: TokenReply, resources: readonly string[]): Tokens => ({
    access_token: reply.access_token,
    refresh_token: reply.refresh_token,
    id_token: reply.id_token,
    scope: reply.scope,
    expires: Math.floor(now() / 1_000) + reply.expires_in_seconds,
    resources,
  })

  const identify = createIdentify({ stage, oauth, readAccount })

  const checked = (
    peer: Peer,
    parameters: URLSearchParams,
    login: { state: string; issuer: string },
  ): URLSearchParams => {
    if (peer.metadata.issuer !== login.issuer)
      throw new Failure('issuer_mismatch', { detail: 'the stage changed meanwhile' })
    return oauth.checkCallback(peer, parameters, login.state)
  }

  return {
    async authorize(provider, { state, nonce, codeChallenge, prompt, loginHint }) {
      const [resource, ...routeResources] = resourcesOf(stage, provider)
      const { metadata, current: client } = await credentials.of(provider)
      const openid = scopesOf(client.scope).includes('openid')
      const parameters = new URLSearchParams({
        response_type: 'code',
        client_id: client.client_id,
        redirect_uri: callbackUrl(stage, provider),
        state,
        code_challenge: codeChallenge,
        code_challenge_method: 'S256',
        ...(client.scope === undefined ? {} : { scope: client.scope }),
        ...(openid ? { nonce } : {}),
        // Both are of OpenID Connect; a server that does not speak it may refuse what it does not know.
        ...(openid && prompt !== undefined && PROMPTS.has(prompt) ? { prompt } : {}),
        ...(openid && loginHint !== undefined ? { login_hint: loginHint.slice(0, 256) } : {}),
      })
      for (const one of resource === undefined ? [] : [resource, ...routeResources]) parameters.append('resource', one)
      const url = new URL(metadata.authorization_endpoint)
      const pushed = metadata.pushed_authorization_request_endpoint !== undefined
      const sent = pushed
        ? new URLSearchParams({
            client_id: client.client_id,
            request_uri: await withClient(provider, client.client_id, (peer) => oauth.push(peer, parameters)),
          })
        : parameters
      for (const name of sent.keys()) url.searchParams.delete(name)
      for (const [name, value] of sent) url.searchParams.append(name, value)
      return {
        url,
        issuer: metadata.issuer,
        clientId: client.client_id,
        redirectUri: callbackUrl(stage, provider),
        openid,
        resource,
        routeResources,
      }
    },

    finish: (provider, parameters, login) =>
      withClient(provider, login.clientId, async (peer) => {
        const sinceMs = now()
        const reply = await oauth.redeem(peer, checked(peer, parameters, login), {
          redirect_uri: login.redirectUri,
          code_verifier: login.codeVerifier,
          nonce: login.nonce,
          resource: login.resource,
        })
        try {
          const { subject, claims } = await identify(provider, peer, reply, login.resource)
          const sid = reply.claims?.['sid']
          return {
            account: accountOf(login.issuer, subject),
            clientId: login.clientId,
            claims,
            tokens: asTokens(reply, [login.resource ?? [], login.routeResources ?? []].flat()),
            sinceMs,
            serverSession:
              peer.metadata.backchannel_logout_supported === true && typeof sid === 'string'
                ? { issuer: login.issuer, sid }
                : undefined,
          }
        } catch (error) {
          await ignoringFailure(() => oauth.revoke(peer, reply))
          throw error
        }
      }),

    async refresh(grant, tokens, sendByMs, resource): Promise<Refreshed> {
      // Not what the stage says by now: some servers take the refresh token back before they refuse a resource that was not granted.
      const { resources = [stage.providers[grant.provider]?.resource ?? []].flat() } = tokens
      try {
        return await withClient(grant.provider, grant.clientId, async (peer): Promise<Refreshed> => {
          // Credentials may have taken their time, and been read for a second attempt.
          if (now() > sendByMs) throw new Failure('renewal_pending', { detail: 'too late under this lease' })
          const reply = await oauth.refresh(peer, tokens.refresh_token ?? '', resource ?? resources[0])
          const subject = reply.claims?.['sub']
          if (typeof subject === 'string' && `A#${accountOf(peer.metadata.issuer, subject)}` !== grant.key.pk) {
            await ignoringFailure(() => oauth.revoke(peer, reply))
            return { kind: 'refused' }
          }
          return {
            kind: 'refreshed',
            tokens: { ...asTokens(reply, resources), id_token: reply.id_token ?? tokens.id_token },
          }
        })
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        switch (error.reason) {
          case 'code_rejected':
            return { kind: 'refused' }
          case 'server_timeout':
          case 'server_failed':
          case 'token_reply_invalid':
          case 'id_token_invalid':
            return { kind: 'unavailable', reason: error.reason, processed: 'perhaps' }
          default:
            return { kind: 'unavailable', reason: error.reason, processed: 'no' }
        }
      }
    },

    async exchange(grant, tokens, wanted, sendByMs): Promise<Exchanged> {
      // No client of ours has a claim on a token that the user brought.
      if (grant.clientId === NO_CLIENT) return { kind: 'refused', detail: 'an API token is not exchanged' }
      try {
        return await withClient(grant.provider, grant.clientId, async (peer): Promise<Exchanged> => {
          if (now() > sendByMs) throw new Failure('renewal_pending', { detail: 'too late under this lease' })
          const reply = await oauth.exchange(peer, tokens.access_token, wanted)
          return { kind: 'exchanged', issued: asTokens(reply, []) }
        })
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        return error.reason === 'code_rejected' || error.reason === 'server_refused'
          ? { kind: 'refused', detail: error.detail }
          : { kind: 'unavailable', reason: error.reason }
      }
    },

    async revoke({ provider, clientId }, { exchanged = [], ...tokens }) {
      // It is the user's to revoke, too: it is only forgotten.
      if (clientId === NO_CLIENT) return true
      const own = (tokens.refresh_token ?? tokens.access_token) === undefined ? [] : [tokens]
      const all = [...own, ...exchanged.map((token) => ({ access_token: token }))]
      const results = await Promise.all(
        all.map(async (one) => {
          try {
            await withClient(provider, clientId, (peer) => oauth.revoke(peer, one))
            return true
          } catch (error) {
            if (!(error instanceof Failure)) throw error
            // A server that answers that it will not is not asked again; one that did not answer is.
            return error.reason === 'server_refused'
          }
        }),
      )
      return results.every(Boolean)
    },

    async logoutUrl(provider, state) {
      const known = await credentials.of(provider).catch((error: unknown) => {
        const without = stage.providers[provider]?.api_token !== 'off'
        if (without && error instanceof Failure && error.reason === 'not_registered') return undefined
        throw error
      })
      if (known === undefined) return undefined
      const { metadata, current } = known
      if (metadata.end_session_endpoint === undefined) return undefined
      const url = new URL(metadata.end_session_endpoint)
      url.searchParams.set('client_id', current.client_id)
      url.searchParams.set('post_logout_redirect_uri', postLogoutUrl(stage))
      url.searchParams.set('state', state)
      return url.href
    },
  }
}
