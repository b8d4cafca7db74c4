import { signAssertion } from './client-keys.ts'
import type { ClientKey } from './client-keys.ts'
import { Failure } from './errors.ts'
import type { Client } from './client.ts'

/** How our client proves who it is at token, revocation and pushed authorization request endpoints (RFC 6749 section 2.3). */

/** Puts the proof into a request that is about to be sent: into its body, or into its headers. */
export type ClientAuthentication = (
  server: { issuer: string },
  client: { client_id: string },
  body: URLSearchParams,
  headers: Headers,
) => void

const formEncoded = (text: string): string => new URLSearchParams({ '': text }).toString().slice(1)

/**
 * HTTP Basic (RFC 6749 section 2.3.1). Other libraries escape even `-` and `_`, which form encoding leaves alone and which servers
 * that do not decode, such as Coder, then take for part of the secret.
 */
const clientSecretBasic =
  (secret: string): ClientAuthentication =>
  (_server, client, _body, headers) => {
    const pair = `${formEncoded(client.client_id)}:${formEncoded(secret)}`
    headers.set('authorization', `Basic ${Buffer.from(pair).toString('base64')}`)
  }

const clientSecretPost =
  (secret: string): ClientAuthentication =>
  (_server, client, body) => {
    body.set('client_id', client.client_id)
    body.set('client_secret', secret)
  }

/** For those who prove nothing, and for those whose certificate does (RFC 8705 section 2). */
const clientIdOnly: ClientAuthentication = (_server, client, body) => body.set('client_id', client.client_id)

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** A signed assertion (RFC 7523 section 2.2), a new one for each request, since a server takes each once. */
const privateKeyJwt =
  (key: ClientKey, now: () => number): ClientAuthentication =>
  ({ issuer }, { client_id: clientId }, body) => {
    body.set('client_id', clientId)
    body.set('client_assertion_type', ASSERTION_TYPE)
    const nowSeconds = Math.floor(now() / 1_000)
    body.set('client_assertion', signAssertion(key, { issuer, clientId, nowSeconds }))
  }

/**
 * The client's own way to authenticate, as its registration says it; of the keys, the first signs.
 * @throws not_registered when a key is needed and there is none
 */
export const authenticationOf = (
  { client, keys }: { client: Client; keys: readonly ClientKey[] },
  now: () => number,
): ClientAuthentication => {
  const secret = client.client_secret ?? ''
  switch (client.token_endpoint_auth_method) {
    case 'client_secret_basic':
      return clientSecretBasic(secret)
    case 'client_secret_post':
      return clientSecretPost(secret)
    case 'none':
    case 'tls_client_auth':
    case 'self_signed_tls_client_auth':
      return clientIdOnly
    case 'private_key_jwt': {
      const [key] = keys
      if (key === undefined)
        throw new Failure('not_registered', { detail: `${client.client_id} has no key to sign with` })
      return privateKeyJwt(key, now)
    }
  }
}

/**
 * Whether a server does not take the client: `invalid_client`, with 400 or 401 (RFC 6749 section 5.2). With 401 `unauthorized_client` means
 * the same: Keycloak says it to a wrong secret.
 */
export const isRefusal = (status: number, code: string): boolean =>
  code === 'invalid_client' || (code === 'unauthorized_client' && status === 401)
