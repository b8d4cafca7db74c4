import { createHash } from 'node:crypto'
import { exchange } from './http.ts'
import type { CoderServer } from './coder-server.ts'

const redirectUri = 'http://localhost:8080/bff/callback/coder'
const verifier = 'v'.repeat(128)

type Parameters = Record<string, string | undefined> | [name: string, value: string][]

/** Parameters as a form or query; those set to `undefined` are left out. */
const encoded = (parameters: Parameters): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Array.isArray(parameters) ? parameters : Object.entries(parameters))
    if (value !== undefined) query.append(name, value)
  return query.toString()
}

/** A client of a server of Coder's kind, by hand: it registers, has a user consent without a page, and redeems codes. */
export const registerAtCoder = async (server: CoderServer, metadata: Record<string, unknown> = {}) => {
  const post = (path: string, body: string, headers: [string, string][]) =>
    exchange({ origin: server.issuer, method: 'POST', path, headers, body })

  const registered = await post(
    '/oauth2/register',
    JSON.stringify({ redirect_uris: [redirectUri], client_name: 'Test client', ...metadata }),
    [['Content-Type', 'application/json']],
  )
  const { client_id: id, client_secret: secret } = registered.status === 201 ? registered.json() : {}
  const credentials = { client_id: String(id), client_secret: String(secret) }

  const form = (path: string, parameters: Parameters, headers: [string, string][] = []) =>
    post(path, encoded(parameters), [['Content-Type', 'application/x-www-form-urlencoded'], ...headers])

  const authorizationPath = (change: Record<string, string | undefined> = {}): string =>
    `/oauth2/authorize?${encoded({
      response_type: 'code',
      client_id: credentials.client_id,
      redirect_uri: redirectUri,
      state: 'a-state',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      ...change,
    })}`

  /** Where the user's browser is sent after allowing the request of that path. */
  const consent = async (user: string, path = authorizationPath()) => {
    const reply = await post(path, '', [['Coder-Session-Token', server.sessionOf(user)]])
    return { reply, back: new URL(reply.headers['location'] ?? 'about:blank').searchParams }
  }

  /** The user allows the request, unless a code is given, and the code is redeemed. */
  const redeem = async (user: string, change: Record<string, string | undefined> = {}) =>
    form('/oauth2/tokens', {
      grant_type: 'authorization_code',
      ...credentials,
      code: change['code'] ?? (await consent(user)).back.get('code') ?? '',
      redirect_uri: redirectUri,
      code_verifier: verifier,
      ...change,
    })

  return {
    registered,
    redirectUri,
    credentials,
    form,
    authorizationPath,
    consent,
    redeem,
    refresh: (refreshToken: unknown, change: Record<string, string | undefined> = {}) =>
      form('/oauth2/tokens', {
        grant_type: 'refresh_token',
        ...credentials,
        refresh_token: String(refreshToken),
        ...change,
      }),
    revoke: (token: unknown, change: Record<string, string | undefined> = {}) =>
      form('/oauth2/revoke', { token: String(token), ...credentials, ...change }),
    call: (path: string, headers: [string, string][] = []) =>
      exchange({ origin: server.issuer, method: 'GET', path, headers }),
    /** The API's answer to a bearer token. */
    whoami: (token: unknown) =>
      exchange({
        origin: server.issuer,
        method: 'GET',
        path: '/api/v2/users/me',
        headers: [['Authorization', `Bearer ${String(token)}`]],
      }),
  }
}
