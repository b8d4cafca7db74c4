import { clientMetadata, addedByServer, preferredMethod, requestedScope, requestedText } from './client-metadata.ts'
import type { RegistrationRequest } from './client-metadata.ts'
import type { Client } from './client.ts'
import { coderAdvice } from './coder-advice.ts'
import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject } from './json-reply.ts'
import type { Metadata } from './metadata.ts'
import { accepted, errorText, refused, withCredentials } from './registration-reply.ts'
import type { Asked } from './registration-reply.ts'

/** Our client at a provider: registered by RFC 7591; read, updated and given up by RFC 7592. */

const LIMIT_BYTES = 64 * 1024
const TIMEOUT_MS = 10_000

/** Keeps a client whose secret, registration access token or management URI just changed at the server. */
export type Persist = (client: Client) => Promise<void>

const call = async (
  send: Send,
  { body, bearer, ...request }: { method: string; url: string; bearer: string | undefined; body?: object },
): Promise<IncomingReply> => {
  const url = new URL(request.url)
  try {
    return await send({
      method: request.method,
      url,
      headers: {
        accept: 'application/json',
        'accept-encoding': 'identity',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      },
      body: body === undefined ? undefined : Buffer.from(JSON.stringify(body)),
      timeoutMs: TIMEOUT_MS,
      maxBytes: LIMIT_BYTES,
    })
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error
    if (error.kind === 'too_large') throw refused('the registration reply is too large')
    if (error.kind === 'address_refused')
      throw new Failure('server_address_refused', { detail: error.detail, cause: error })
    const reason = error.kind === 'timeout' ? 'server_timeout' : 'server_unreachable'
    throw new Failure(reason, { detail: `no answer from ${url.origin}`, cause: error })
  }
}

const isOk = ({ status }: IncomingReply): boolean => status === 200 || status === 201

/** What is requested at authorization: what the server registered is a ceiling (RFC 7591 section 2), and more than that is refused there. */
const withScope = (client: Client, requested: string | undefined): Client => {
  const ceiling = client.scope?.split(' ')
  const allowed = requested?.split(' ').filter((name) => ceiling?.includes(name) ?? true)
  const scope = allowed === undefined || allowed.length === 0 ? undefined : allowed.join(' ')
  return { ...client, scope, requested_scope: requested }
}

/** What to do about a refused registration, where that can be told from the status. */
const hint = (reply: IncomingReply, bearer: string | undefined): string => {
  const { status } = reply
  const advice = coderAdvice(reply)
  if (advice !== undefined) return `; ${advice}`
  if (status === 401 && bearer === undefined) return '; it wants an initial access token (initial_access_token_secret)'
  if (status === 401) return '; it does not take the initial access token'
  if (status === 403 || status === 404) return '; dynamic client registration is off there, or not open to us'
  return status === 429 ? '; try again later' : ''
}

/** Where a registration may be managed: at the issuer, or where registration is, which the stage has allowed. */
const managementOrigins = ({ issuer, registration_endpoint: registration }: Metadata): Set<string> =>
  new Set([issuer, registration].flatMap((url) => (url === undefined ? [] : [new URL(url).origin])))

/** A client that the server registered otherwise than it was asked to is given back, if the reply says how. */
const giveBackRefused = async (
  send: Send,
  reply: IncomingReply,
  { redirect_uri, method, origins }: Asked,
): Promise<void> => {
  const body = jsonObject(reply)
  const id = body?.['client_id']
  if (typeof id !== 'string') return
  await unregister(
    send,
    withCredentials({ client_id: id, token_endpoint_auth_method: method, redirect_uri }, body, origins),
  )
}

/**
 * A new client is registered at the server.
 * @throws registration_refused, server_unreachable, server_timeout; the detail is for the operator
 * @see RFC 7591 section 3
 */
export const register = async (
  send: Send,
  metadata: Metadata,
  wanted: RegistrationRequest,
  now: () => number = Date.now,
): Promise<Client> => {
  if (metadata.registration_endpoint === undefined) {
    throw refused('the server has no registration endpoint: dynamic client registration is off or not supported')
  }
  const method = preferredMethod(metadata, wanted)
  const bearer = wanted.initial_access_token
  const mark =
    wanted.attempt === undefined ? {} : { software_id: 'coatcheck', software_version: `attempt ${wanted.attempt}` }
  const body = { ...clientMetadata(metadata, wanted), ...mark, token_endpoint_auth_method: method }
  const reply = await call(send, { method: 'POST', url: metadata.registration_endpoint, bearer, body })
  if (!isOk(reply)) {
    throw refused(`the server refused the registration: ${errorText(reply, [bearer])}${hint(reply, bearer)}`)
  }
  const { redirect_uri } = wanted
  const origins = managementOrigins(metadata)
  let client: Client
  try {
    client = accepted(reply, { redirect_uri, method, origins })
  } catch (error) {
    await giveBackRefused(send, reply, { redirect_uri, method, origins })
    throw error
  }
  return {
    ...withScope(client, requestedScope(metadata, wanted.scopes)),
    requested: requestedText(metadata, wanted),
    registered_at: Math.floor(now() / 1_000),
    ...(wanted.attempt !== undefined && { attempt: wanted.attempt }),
  }
}

interface Managed {
  url: string
  bearer: string
}

const managementOf = ({ client_id: id, ...client }: Client): Managed => {
  const { registration_client_uri: url, registration_access_token: bearer } = client
  if (url === undefined || bearer === undefined) {
    throw new Failure('registration_unmanaged', {
      detail: `the server gave no way to manage the registration of client ${id} (RFC 7592)`,
    })
  }
  return { url, bearer }
}

/** A management reply that is no success, in words. 401 never says which: no such client, or not its registration access token. */
const managementFailure = (reply: IncomingReply, client: Client, what: string): Failure => {
  const said = errorText(reply, [client.registration_access_token, client.client_secret])
  if (reply.status === 401) {
    return new Failure('registration_lost', {
      detail: `the server no longer knows client ${client.client_id}, or its registration access token is void: ${said}`,
    })
  }
  if ([404, 405, 501].includes(reply.status)) {
    return new Failure('registration_unmanaged', { detail: `the server does not ${what} registrations: ${said}` })
  }
  return refused(`the server refused to ${what} the registration of client ${client.client_id}: ${said}`)
}

/** The client with what the reply brought of credentials, kept before anything else is done with the reply. */
const afterPersisting = async (
  reply: IncomingReply,
  client: Client,
  origins: ReadonlySet<string>,
  persist: Persist,
): Promise<Client> => {
  const next = withCredentials(client, jsonObject(reply), origins)
  if (next !== client) await persist(next)
  return next
}

/**
 * The client as the server has it now. A server that shows no secret again leaves the one we know.
 * @throws registration_lost (401: the registration is gone or its token void), registration_unmanaged, registration_refused,
 * server_unreachable, server_timeout; what `persist` throws. Whatever credentials came were kept before that.
 * @see RFC 7592 section 2.1
 */
export const read = async (send: Send, client: Client, persist: Persist): Promise<Client> => {
  const managed = managementOf(client)
  const reply = await call(send, { method: 'GET', ...managed })
  if (!isOk(reply)) throw managementFailure(reply, client, 'show')
  const origins = new Set([new URL(managed.url).origin])
  const current = await afterPersisting(reply, client, origins, persist)
  const method = current.token_endpoint_auth_method
  const shown = accepted(reply, { redirect_uri: client.redirect_uri, method, origins, client: current })
  return withScope(shown, client.requested_scope)
}

/**
 * The registration is what is wanted now, all of it: nothing falls to a default, and what the server itself had added stays. The client
 * and its grants go on; its secret and its registration access token may be new.
 * @throws registration_lost (401: the registration is gone or its token void), registration_unmanaged (no management URI, or 404, 405, 501),
 * registration_refused, server_unreachable, server_timeout; what `persist` throws. Whatever credentials came were kept before that.
 * @see RFC 7592 section 2.2
 */
export const update = async (
  send: Send,
  metadata: Metadata,
  client: Client,
  wanted: RegistrationRequest,
  persist: Persist,
): Promise<Client> => {
  const origins = managementOrigins(metadata)
  const shown = await call(send, { method: 'GET', ...managementOf(client) })
  // A server may update what it does not show.
  if (!isOk(shown) && ![403, 405, 501].includes(shown.status)) throw managementFailure(shown, client, 'show')
  const current = isOk(shown) ? await afterPersisting(shown, client, origins, persist) : client

  const method = preferredMethod(metadata, wanted, current)
  const { client_id, client_secret } = current
  const ours = { ...clientMetadata(metadata, wanted), token_endpoint_auth_method: method, client_id }
  const more = {
    ...(isOk(shown) ? addedByServer(jsonObject(shown) ?? {}) : {}),
    ...(client_secret === undefined ? {} : { client_secret }),
  }
  const put = (body: object) => call(send, { method: 'PUT', ...managementOf(current), body })
  let reply = await put({ ...more, ...ours })
  // Some servers show members that they do not take, and some take any secret for an attempt to choose one.
  if ([400, 403].includes(reply.status) && Object.keys(more).length > 0) reply = await put(ours)
  if (!isOk(reply)) throw managementFailure(reply, current, 'update')

  const kept = await afterPersisting(reply, current, origins, persist)
  const updated = accepted(reply, { redirect_uri: wanted.redirect_uri, method, origins, client: kept })
  return {
    ...withScope(updated, requestedScope(metadata, wanted.scopes)),
    requested: requestedText(metadata, wanted),
  }
}

/**
 * The client is no longer registered; false when the server would not say so, or there is no way to tell it.
 * @see RFC 7592 section 2.3
 */
export const unregister = async (send: Send, client: Client): Promise<boolean> => {
  try {
    const { status } = await call(send, { method: 'DELETE', ...managementOf(client) })
    return status === 204 || status === 401 || status === 404
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}
