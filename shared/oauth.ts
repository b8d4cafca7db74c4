import * as oauth from 'oauth4webapi'
import { checkAuthorizationResponse, errorCode } from './authorization-response.ts'
import { authenticationOf, isRefusal } from './client-authentication.ts'
import type { ClientKey } from './client-keys.ts'
import type { Exchange } from './config.ts'
import { Failure } from './errors.ts'
import type { Reason } from './errors.ts'
import { HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject } from './json-reply.ts'
import type { Metadata } from './metadata.ts'
import type { Client } from './client.ts'
import { TOKEN_EXCHANGE } from './route-tokens.ts'
import { checkExchangeReply, checkTokenReply, DEFAULT_LIFETIME_SECONDS, faultOfClaims } from './token-reply.ts'

/**
 * The OAuth library: every protocol message goes through it, every error of it is translated here, and what it lets pass
 * (loose numbers, errors with status 200, odd token characters) is refused before it sees the reply.
 */

const LIMIT_BYTES = 256 * 1024
const CLOCK_TOLERANCE_SECONDS = 60

/** What the token endpoint issued, checked. */
export interface TokenReply {
  access_token: string
  refresh_token: string | undefined
  id_token: string | undefined
  scope: string | undefined
  expires_in_seconds: number
  /** Claims of the ID token, if one came. */
  claims: Readonly<Record<string, unknown>> | undefined
}

/** One provider as the library wants it, ready for calls. */
export interface Peer {
  metadata: Metadata
  client: Client
  /** What a client signs with that has no secret; the first of them. */
  keys: readonly ClientKey[]
}

export interface OAuth {
  /** The callback's parameters belong to this login and carry a code. @throws issuer_mismatch, state_missing, code_missing, login_denied, authorization_error, parameter_duplicated */
  checkCallback(peer: Peer, parameters: URLSearchParams, state: string): URLSearchParams
  /** The request URI of a pushed authorization request (RFC 9126). */
  push(peer: Peer, parameters: URLSearchParams): Promise<string>
  /** The code is redeemed (RFC 6749 section 4.1.3) and the ID token, where there has to be one, is right in every claim and in its signature. */
  redeem(
    peer: Peer,
    parameters: URLSearchParams,
    login: { redirect_uri: string; code_verifier: string; nonce: string | undefined; resource: string | undefined },
  ): Promise<TokenReply>
  /** The tokens are refreshed (RFC 6749 section 6). */
  refresh(peer: Peer, refreshToken: string, resource: string | undefined): Promise<TokenReply>
  /** The access token is exchanged for another one (RFC 8693). */
  exchange(peer: Peer, accessToken: string, wanted: Exchange): Promise<TokenReply>
  /** Claims of the UserInfo endpoint, whose subject is the ID token's. */
  userInfo(peer: Peer, accessToken: string, subject: string): Promise<Readonly<Record<string, unknown>>>
  /** The tokens are revoked, if the server can (RFC 7009). */
  revoke(peer: Peer, tokens: Partial<Pick<TokenReply, 'access_token' | 'refresh_token'>>): Promise<void>
}

/** RFC 8693 section 3. */
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

const faultReasons: Record<HttpFault['kind'], Reason> = {
  unreachable: 'server_unreachable',
  address_refused: 'server_address_refused',
  timeout: 'server_timeout',
  broken: 'server_failed',
  too_large: 'token_reply_invalid',
}

/**
 * Calls at authorization servers over `send`.
 * @throws server_unreachable, server_timeout, server_failed, server_refused, client_rejected, code_rejected,
 *   token_reply_invalid, id_token_invalid, userinfo_invalid
 */
export const createOAuth = ({ send, timeoutMs, now }: { send: Send; timeoutMs: number; now: () => number }): OAuth => {
  const jwksCaches = new Map<string, oauth.JWKSCacheInput>()

  /** The library's fetch: `check`, where there is one, sees what came with status 200 first and says what the library gets instead. */
  const fetchWith =
    (check?: (body: Record<string, unknown>) => Record<string, unknown>) =>
    async (
      url: string,
      init: { method: string; headers: Record<string, string>; body?: unknown },
    ): Promise<Response> => {
      let reply: IncomingReply
      try {
        reply = await send({
          method: init.method,
          url: new URL(url),
          headers: { ...init.headers, 'accept-encoding': 'identity' },
          body: init.body instanceof URLSearchParams ? Buffer.from(init.body.toString()) : undefined,
          timeoutMs,
          maxBytes: LIMIT_BYTES,
        })
      } catch (error) {
        if (error instanceof HttpFault)
          throw new Failure(faultReasons[error.kind], { detail: error.detail, cause: error, retryAfterSeconds: 1 })
        throw error
      }
      if (reply.status >= 500 || reply.status === 429) {
        throw new Failure('server_failed', { detail: `status ${reply.status}`, retryAfterSeconds: 1 })
      }
      const body = jsonObject(reply)
      // Some servers answer errors with 200; the library must see what it is.
      const status = reply.status === 200 && body?.['error'] !== undefined ? 400 : reply.status
      // The library would parse whatever it can, whatever its content type.
      const checked = status === 200 && check !== undefined ? check(body ?? {}) : body
      const empty = status === 204 || status === 304
      return new Response(empty ? null : checked === undefined ? Buffer.from(reply.body) : JSON.stringify(checked), {
        status: status >= 200 && status <= 599 ? status : 502,
        headers: checked === undefined ? {} : { 'content-type': 'application/json' },
      })
    }

  const options = (peer: Peer, check?: (body: Record<string, unknown>) => Record<string, unknown>) => ({
    [oauth.customFetch]: fetchWith(check),
    // The stage allows http on loopback only; metadata on it were judged by the same rule.
    [oauth.allowInsecureRequests]: peer.metadata.issuer.startsWith('http:'),
  })

  const asServer = ({ metadata }: Peer): oauth.AuthorizationServer => ({
    ...(metadata as oauth.AuthorizationServer),
    // No symmetric or absent signature, whatever the server says it could do.
    id_token_signing_alg_values_supported: (metadata.id_token_signing_alg_values_supported ?? ['RS256']).filter(
      (algorithm) => algorithm !== 'none' && !algorithm.startsWith('HS'),
    ),
  })

  const asClient = ({ client }: Peer): oauth.Client => ({
    client_id: client.client_id,
    [oauth.clockTolerance]: CLOCK_TOLERANCE_SECONDS,
  })

  const translate = (error: unknown, invalid: Reason): never => {
    if (error instanceof Failure) throw error
    if (error instanceof oauth.ResponseBodyError) {
      const code = errorCode(error.error)
      if (isRefusal(error.status, code)) throw new Failure('client_rejected', { detail: code, retryAfterSeconds: 5 })
      if (code === 'invalid_grant') throw new Failure('code_rejected', { detail: code })
      throw new Failure('server_refused', { detail: code })
    }
    if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
      const code = error.code ?? ''
      if (code === oauth.RESPONSE_IS_NOT_CONFORM) throw new Failure('server_refused', { detail: 'not an OAuth reply' })
      const reason = code === oauth.RESPONSE_IS_NOT_JSON ? 'token_reply_invalid' : invalid
      throw new Failure(reason, { detail: `${code} ${error.message.slice(0, 120)}` })
    }
    throw new Failure(invalid, { cause: error })
  }

  const guarded = async <T>(invalid: Reason, run: () => Promise<T>): Promise<T> => {
    try {
      return await run()
    } catch (error) {
      return translate(error, invalid)
    }
  }

  const asTokenReply = (result: oauth.TokenEndpointResponse): TokenReply => ({
    access_token: result.access_token,
    refresh_token: result.refresh_token,
    id_token: result.id_token,
    scope: result.scope,
    expires_in_seconds: result.expires_in ?? DEFAULT_LIFETIME_SECONDS,
    claims: oauth.getValidatedIdTokenClaims(result),
  })

  /** What the library leaves to its caller: the token names somebody, is of this login's time, and its signature is right. */
  const checkIdToken = async (peer: Peer, response: Response, claims: TokenReply['claims']): Promise<void> => {
    const fault = faultOfClaims(claims, now() / 1_000, CLOCK_TOLERANCE_SECONDS)
    if (fault !== undefined) throw new Failure('id_token_invalid', { detail: fault })
    if (peer.metadata.jwks_uri === undefined)
      throw new Failure('id_token_invalid', { detail: 'the server has no jwks_uri' })
    const cache = jwksCaches.get(peer.metadata.jwks_uri) ?? {}
    jwksCaches.set(peer.metadata.jwks_uri, cache)
    await oauth.validateApplicationLevelSignature(asServer(peer), response, {
      ...options(peer),
      [oauth.jwksCache]: cache,
    })
  }

  const revoke: OAuth['revoke'] = (peer, { access_token: access, refresh_token: refresh }) =>
    guarded('server_refused', async () => {
      if (peer.metadata.revocation_endpoint === undefined) return
      // Revoking the refresh token ends the access token too (RFC 7009 section 2.1); one call is enough.
      const response = await oauth.revocationRequest(
        asServer(peer),
        asClient(peer),
        authenticationOf(peer, now),
        refresh ?? access ?? '',
        {
          ...options(peer),
          additionalParameters: { token_type_hint: refresh === undefined ? 'access_token' : 'refresh_token' },
        },
      )
      await oauth.processRevocationResponse(response)
    })

  return {
    checkCallback(peer, parameters, state) {
      checkAuthorizationResponse(parameters, peer.metadata)
      try {
        return oauth.validateAuthResponse(asServer(peer), asClient(peer), parameters, state)
      } catch (cause) {
        return translate(cause, 'request_invalid')
      }
    },

    push: (peer, parameters) =>
      guarded('server_refused', async () => {
        const response = await oauth.pushedAuthorizationRequest(
          asServer(peer),
          asClient(peer),
          authenticationOf(peer, now),
          parameters,
          options(peer),
        )
        const result = await oauth.processPushedAuthorizationResponse(asServer(peer), asClient(peer), response)
        return result.request_uri
      }),

    async redeem(peer, parameters, login) {
      let issued: ReturnType<typeof checkTokenReply> | undefined
      try {
        const response = await guarded('token_reply_invalid', () =>
          oauth.authorizationCodeGrantRequest(
            asServer(peer),
            asClient(peer),
            authenticationOf(peer, now),
            parameters,
            login.redirect_uri,
            login.code_verifier,
            {
              ...options(peer, (body) => (issued = checkTokenReply(body))),
              ...(login.resource === undefined ? {} : { additionalParameters: { resource: login.resource } }),
            },
          ),
        )
        return await guarded('id_token_invalid', async () => {
          const expected = login.nonce === undefined ? {} : { requireIdToken: true, expectedNonce: login.nonce }
          const reply = asTokenReply(
            await oauth.processAuthorizationCodeResponse(asServer(peer), asClient(peer), response, expected),
          )
          if (login.nonce !== undefined) await checkIdToken(peer, response, reply.claims)
          return reply
        })
      } catch (error) {
        // Nobody will have these tokens, since it cannot be told whose they are.
        if (issued !== undefined) await revoke(peer, issued).catch(() => undefined)
        throw error
      }
    },

    refresh: (peer, refreshToken, resource) =>
      guarded('token_reply_invalid', async () => {
        const response = await oauth.refreshTokenGrantRequest(
          asServer(peer),
          asClient(peer),
          authenticationOf(peer, now),
          refreshToken,
          {
            ...options(peer, checkTokenReply),
            ...(resource === undefined ? {} : { additionalParameters: { resource } }),
          },
        )
        return asTokenReply(await oauth.processRefreshTokenResponse(asServer(peer), asClient(peer), response))
      }),

    exchange: (peer, accessToken, wanted) =>
      guarded('token_reply_invalid', async () => {
        const response = await oauth.genericTokenEndpointRequest(
          asServer(peer),
          asClient(peer),
          authenticationOf(peer, now),
          TOKEN_EXCHANGE,
          Object.entries({ ...wanted, subject_token: accessToken, subject_token_type: ACCESS_TOKEN }).flatMap(
            ([name, value]) => (value === undefined ? [] : [[name, value]]),
          ),
          options(peer, checkExchangeReply),
        )
        return asTokenReply(await oauth.processGenericTokenEndpointResponse(asServer(peer), asClient(peer), response))
      }),

    userInfo: (peer, accessToken, subject) =>
      guarded('userinfo_invalid', async () => {
        const response = await oauth.userInfoRequest(asServer(peer), asClient(peer), accessToken, options(peer))
        return await oauth.processUserInfoResponse(asServer(peer), asClient(peer), subject, response)
      }),

    revoke,
  }
}
