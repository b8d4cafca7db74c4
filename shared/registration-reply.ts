import * as z from 'zod/mini'
import { AUTHENTICATION_METHODS, printable } from './client.ts'
import type { Client } from './client.ts'
import { Failure } from './errors.ts'
import { jsonObject, shownContentType } from './json-reply.ts'
import type { IncomingReply } from './http.ts'

/** What a server answers at registration and its management, checked against what was asked (RFC 7591 section 3.2, RFC 7592 section 3). */

/** The last second of the year 9999: whoever says more says milliseconds. */
const LAST_SECOND = 253_402_300_799

const expiry = () => z.int().check(z.gte(0), z.lte(LAST_SECOND))

const replySchema = () =>
  z.object({
    client_id: printable(),
    client_secret: z.optional(printable()),
    client_secret_expires_at: z.optional(expiry()),
    redirect_uris: z.array(z.string()),
    grant_types: z.optional(z.array(z.string())),
    response_types: z.optional(z.array(z.string())),
    token_endpoint_auth_method: z.optional(z.string()),
    id_token_signed_response_alg: z.optional(z.string()),
    scope: z.optional(z.string()),
    registration_client_uri: z.optional(z.string()),
    registration_access_token: z.optional(printable()),
  })

/** The server refused, or its reply is not one to what was asked; the words are for the operator. */
export const refused = (detail: string): Failure => new Failure('registration_refused', { detail })

/** What was asked for, as far as the reply must agree with it. */
export interface Asked {
  redirect_uri: string
  method: Client['token_endpoint_auth_method']
  /** Where the registration may be managed. */
  origins: ReadonlySet<string>
  /** The client that was read or updated: its credentials stay where the reply does not bring others. */
  client?: Client
}

const isManagementUri = (uri: string, origins: ReadonlySet<string>): boolean => {
  if (!URL.canParse(uri)) return false
  const url = new URL(uri)
  return origins.has(url.origin) && url.username === '' && url.password === '' && url.hash === ''
}

/** The client with what a server says of its secret: a new secret whose end is not said has none that we know of. */
const withSecret = (client: Client, secret: string | undefined, expires: number | undefined): Client => {
  const same = secret === undefined || secret === client.client_secret
  return {
    ...client,
    client_secret: secret ?? client.client_secret,
    client_secret_expires_at: expires ?? (same ? client.client_secret_expires_at : undefined),
  }
}

/**
 * The client with each credential of a reply that can be one, and no judgement of the rest: from the moment a server has answered, the
 * former ones may be void, whatever else is wrong with the answer. The same object where nothing is new.
 */
export const withCredentials = (
  client: Client,
  body: Readonly<Record<string, unknown>> | undefined,
  origins: ReadonlySet<string>,
): Client => {
  if (body === undefined || (body['client_id'] ?? client.client_id) !== client.client_id) return client
  const text = (name: string): string | undefined => printable().safeParse(body[name]).data
  const management = text('registration_client_uri')
  const method = body['token_endpoint_auth_method'] ?? client.token_endpoint_auth_method
  const kept =
    method === 'none' || method === 'private_key_jwt'
      ? client
      : withSecret(client, text('client_secret'), expiry().safeParse(body['client_secret_expires_at']).data)
  const next: Client = {
    ...kept,
    registration_access_token: text('registration_access_token') ?? client.registration_access_token,
    registration_client_uri:
      management !== undefined && isManagementUri(management, origins) ? management : client.registration_client_uri,
  }
  const changed = (Object.keys(next) as (keyof Client)[]).some((name) => next[name] !== client[name])
  return changed ? next : client
}

/**
 * The client of a reply, if it is what was asked for. The reply's authentication method wins over the request's (RFC 7591 section 3.2.1);
 * redirect URIs, grant and place of management are not the server's to choose. What else the server says is not looked at, let alone fetched.
 * @throws registration_refused
 */
export const accepted = (reply: IncomingReply, asked: Asked): Client => {
  const body = jsonObject(reply)
  if (body === undefined)
    throw refused(`the registration reply is no JSON object (content type: ${shownContentType(reply)})`)
  // Some servers write null for what they do not have.
  const said = Object.fromEntries(Object.entries(body).filter(([, member]) => member !== null))
  const parsed = replySchema().safeParse(said)
  if (!parsed.success) {
    const members = [...new Set(parsed.error.issues.map((issue) => issue.path.join('.')))].join(', ')
    throw refused(`the registration reply lacks or misspells ${members}`)
  }
  const got = parsed.data
  const { client: before, redirect_uri } = asked
  if (before !== undefined && got.client_id !== before.client_id) {
    throw refused(`the server answered with another client than ${before.client_id}`)
  }
  if (got.redirect_uris.length !== 1 || got.redirect_uris[0] !== redirect_uri) {
    throw refused('the server registered other redirect URIs than the one asked for')
  }
  if (got.grant_types !== undefined && !got.grant_types.includes('authorization_code')) {
    throw refused('the server did not register the authorization_code grant')
  }
  if (got.response_types !== undefined && !got.response_types.includes('code')) {
    throw refused('the server did not register the response type code')
  }
  const method = AUTHENTICATION_METHODS.find((name) => name === (got.token_endpoint_auth_method ?? asked.method))
  if (method === undefined || (method === 'private_key_jwt' && asked.method !== method)) {
    throw refused('the server registered an authentication method that was not asked for')
  }
  if (asked.method === 'private_key_jwt' && method !== asked.method) {
    throw refused(`rotation.mode is keys, but the server registered ${method}`)
  }
  const management = got.registration_client_uri
  if (management !== undefined && !isManagementUri(management, asked.origins)) {
    throw refused('the registration management URI is not on the issuer, nor where registration is')
  }
  const client = withSecret(
    {
      ...before,
      client_id: got.client_id,
      token_endpoint_auth_method: method,
      id_token_signed_response_alg: got.id_token_signed_response_alg,
      registration_client_uri: management ?? before?.registration_client_uri,
      registration_access_token: got.registration_access_token ?? before?.registration_access_token,
      redirect_uri,
      scope: got.scope,
    },
    got.client_secret,
    got.client_secret_expires_at,
  )
  if (method === 'none' || method === 'private_key_jwt')
    return { ...client, client_secret: undefined, client_secret_expires_at: undefined }
  if (client.client_secret === undefined) throw refused(`the server issued no secret for ${method}`)
  return client
}

/**
 * What a server says of an error, cut to what is safe and useful to an operator; should it echo one of these secrets, not that.
 * A server without OAuth often says why in `message`.
 * @see RFC 7591 section 3.2.2
 */
export const errorText = (reply: IncomingReply, secrets: readonly (string | undefined)[]): string => {
  const body = jsonObject(reply)
  const text = (name: string): string => {
    let value = body?.[name]
    if (typeof value !== 'string') return ''
    for (const secret of secrets) if (secret !== undefined) value = String(value).replaceAll(secret, '(a secret)')
    return String(value)
      .replace(/[^\x20-\x7e]/g, ' ')
      .slice(0, 300)
  }
  const [error, description, message] = [text('error'), text('error_description'), text('message')]
  const said = error === '' ? 'without an OAuth error' : error
  const more = error === '' ? message : description
  return `status ${reply.status}${error === '' ? ' ' : ', '}${said}${more === '' ? '' : `: ${more}`}`
}
