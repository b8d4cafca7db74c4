import * as z from 'zod/mini'
import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject } from './metadata.ts'
import type { Metadata } from './metadata.ts'

/** Our client at a provider: registered by RFC 7591, given up by RFC 7592. Replies are checked against what was asked. */

const LIMIT_BYTES = 64 * 1024
const TIMEOUT_MS = 10_000

const AUTHENTICATION_METHODS = ['client_secret_basic', 'client_secret_post', 'none'] as const

export type AuthenticationMethod = (typeof AUTHENTICATION_METHODS)[number]

const printable = () => z.string().check(z.regex(/^[\x20-\x7e]{1,4096}$/))

/** A client as it is kept: the credentials, how to use them, and how to manage the registration. Built when used, since that takes its time. */
export const clientSchema = () =>
  z.object({
    client_id: printable(),
    client_secret: z.optional(printable()),
    /** Seconds since the epoch; 0 never. */
    client_secret_expires_at: z.optional(z.number()),
    token_endpoint_auth_method: z.enum(AUTHENTICATION_METHODS),
    id_token_signed_response_alg: z.optional(z.string()),
    registration_client_uri: z.optional(z.string()),
    registration_access_token: z.optional(printable()),
    redirect_uri: z.string(),
    /** What is requested at authorization. */
    scope: z.optional(z.string()),
    /** What was asked for at registration; the server may have granted less. */
    requested_scope: z.optional(z.string()),
  })

export type Client = z.infer<ReturnType<typeof clientSchema>>

export interface RegistrationRequest {
  client_name: string
  redirect_uri: string
  post_logout_redirect_uri: string
  backchannel_logout_uri: string
  /** Left out: those of our defaults that the server announces. */
  scopes: readonly string[] | undefined
  initial_access_token: string | undefined
}

const replySchema = () =>
  z.object({
    client_id: printable(),
    client_secret: z.optional(printable()),
    client_secret_expires_at: z.optional(z.int().check(z.gte(0))),
    redirect_uris: z.array(z.string()),
    grant_types: z.optional(z.array(z.string())),
    token_endpoint_auth_method: z.optional(z.string()),
    id_token_signed_response_alg: z.optional(z.string()),
    scope: z.optional(z.string()),
    registration_client_uri: z.optional(z.string()),
    registration_access_token: z.optional(printable()),
  })

const DEFAULT_SCOPES = ['openid', 'profile', 'email', 'offline_access']

const refused = (detail: string): Failure => new Failure('registration_refused', { detail })

/** The authentication method to ask for: the first of ours that the server announces (RFC 8414: basic when it announces none). */
const preferredMethod = (metadata: Metadata): AuthenticationMethod => {
  const supported = metadata.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  const method = AUTHENTICATION_METHODS.find((candidate) => supported.includes(candidate))
  if (method === undefined) {
    throw refused(`the server offers none of ${AUTHENTICATION_METHODS.join(', ')} at its token endpoint`)
  }
  return method
}

/** The scopes to request: the stage's, or those of our defaults that the server announces. */
export const requestedScope = (metadata: Metadata, scopes: readonly string[] | undefined): string | undefined => {
  const wanted = scopes ?? DEFAULT_SCOPES.filter((scope) => (metadata.scopes_supported ?? []).includes(scope))
  return wanted.length === 0 ? undefined : wanted.join(' ')
}

/** What a server says of an error, cut to what is safe and useful to an operator (RFC 7591 section 3.2.2); should it echo our token, not that. */
const errorText = (reply: IncomingReply, initialAccessToken: string | undefined): string => {
  const body = jsonObject(reply)
  const text = (value: unknown): string =>
    typeof value === 'string'
      ? value
          .replaceAll(initialAccessToken ?? '\0', '(the initial access token)')
          .replace(/[^\x20-\x7e]/g, ' ')
          .slice(0, 300)
      : ''
  const error = text(body?.['error'])
  const description = text(body?.['error_description'])
  if (error === '') return `status ${reply.status} without an OAuth error`
  return description === '' ? `status ${reply.status}, ${error}` : `status ${reply.status}, ${error}: ${description}`
}

const call = async (send: Send, request: Parameters<Send>[0]): Promise<IncomingReply> => {
  try {
    return await send(request)
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error
    const detail = `no answer from ${request.url.origin}`
    if (error.kind === 'too_large') throw refused('the registration reply is too large')
    if (error.kind === 'address_refused')
      throw new Failure('server_address_refused', { detail: error.detail, cause: error })
    throw new Failure(error.kind === 'timeout' ? 'server_timeout' : 'server_unreachable', { detail, cause: error })
  }
}

/** The reply, if it registers what was asked. The reply's authentication method wins over the request's (RFC 7591 section 3.2.1). */
const accept = (
  reply: IncomingReply,
  wanted: RegistrationRequest,
  method: AuthenticationMethod,
  metadata: Metadata,
): Client => {
  const parsed = replySchema().safeParse(jsonObject(reply))
  if (!parsed.success) {
    const members = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.') || 'the body'))].join(', ')
    throw refused(`the registration reply lacks or misspells ${members}`)
  }
  const got = parsed.data
  if (got.redirect_uris.length !== 1 || got.redirect_uris[0] !== wanted.redirect_uri) {
    throw refused('the server registered other redirect URIs than the one asked for')
  }
  if (got.grant_types !== undefined && !got.grant_types.includes('authorization_code')) {
    throw refused('the server did not register the authorization_code grant')
  }
  const granted = AUTHENTICATION_METHODS.find((name) => name === (got.token_endpoint_auth_method ?? method))
  if (granted === undefined) throw refused(`the server registered an authentication method that was not asked for`)
  if (granted !== 'none' && got.client_secret === undefined) throw refused(`the server issued no secret for ${granted}`)
  const management = got.registration_client_uri
  const origins = [metadata.issuer, metadata.registration_endpoint].flatMap((url) =>
    url === undefined ? [] : [new URL(url).origin],
  )
  if (management !== undefined && (!URL.canParse(management) || !origins.includes(new URL(management).origin))) {
    throw refused('the registration management URI is not on the issuer, nor where registration is')
  }
  return {
    client_id: got.client_id,
    client_secret: granted === 'none' ? undefined : got.client_secret,
    client_secret_expires_at: got.client_secret_expires_at,
    token_endpoint_auth_method: granted,
    id_token_signed_response_alg: got.id_token_signed_response_alg,
    registration_client_uri: management,
    registration_access_token: got.registration_access_token,
    redirect_uri: wanted.redirect_uri,
    scope: got.scope,
  }
}

/**
 * A new client is registered at the server.
 * @throws registration_refused, server_unreachable, server_timeout; the detail is for the operator
 * @see RFC 7591 section 3
 */
export const register = async (send: Send, metadata: Metadata, wanted: RegistrationRequest): Promise<Client> => {
  if (metadata.registration_endpoint === undefined) {
    throw refused('the server has no registration endpoint: dynamic client registration is off or not supported')
  }
  const method = preferredMethod(metadata)
  const scope = requestedScope(metadata, wanted.scopes)
  const grantTypes = ['authorization_code', 'refresh_token'].filter(
    (type) => type === 'authorization_code' || (metadata.grant_types_supported ?? [type]).includes(type),
  )
  const reply = await call(send, {
    method: 'POST',
    url: new URL(metadata.registration_endpoint),
    headers: {
      accept: 'application/json',
      'accept-encoding': 'identity',
      'content-type': 'application/json',
      ...(wanted.initial_access_token === undefined ? {} : { authorization: `Bearer ${wanted.initial_access_token}` }),
    },
    body: Buffer.from(
      JSON.stringify({
        client_name: wanted.client_name,
        redirect_uris: [wanted.redirect_uri],
        grant_types: grantTypes,
        response_types: ['code'],
        token_endpoint_auth_method: method,
        ...(scope === undefined ? {} : { scope }),
        ...(metadata.end_session_endpoint === undefined
          ? {}
          : { post_logout_redirect_uris: [wanted.post_logout_redirect_uri] }),
        ...(metadata.backchannel_logout_supported === true && {
          backchannel_logout_uri: wanted.backchannel_logout_uri,
          backchannel_logout_session_required: true,
        }),
      }),
    ),
    timeoutMs: TIMEOUT_MS,
    maxBytes: LIMIT_BYTES,
  })
  if (reply.status !== 201 && reply.status !== 200)
    throw refused(`the server refused the registration: ${errorText(reply, wanted.initial_access_token)}`)
  const client = accept(reply, wanted, method, metadata)
  // What the server registered is a ceiling (RFC 7591 section 2): more than that is refused at authorization.
  const ceiling = client.scope?.split(' ')
  const allowed =
    ceiling === undefined
      ? scope
      : scope
          ?.split(' ')
          .filter((name) => ceiling.includes(name))
          .join(' ')
  return { ...client, scope: allowed === '' ? undefined : allowed, requested_scope: scope }
}

/**
 * The client is no longer registered; false when the server would not say so.
 * @see RFC 7592 section 2.3
 */
export const unregister = async (send: Send, client: Client): Promise<boolean> => {
  if (client.registration_client_uri === undefined || client.registration_access_token === undefined) return false
  try {
    const reply = await send({
      method: 'DELETE',
      url: new URL(client.registration_client_uri),
      headers: { authorization: `Bearer ${client.registration_access_token}`, accept: 'application/json' },
      timeoutMs: TIMEOUT_MS,
      maxBytes: LIMIT_BYTES,
    })
    return reply.status === 204 || reply.status === 401 || reply.status === 404
  } catch (error) {
    if (error instanceof HttpFault) return false
    throw error
  }
}
