import type { Client } from './client.ts'

/** How our client proves who it is at token, revocation and pushed authorization request endpoints (RFC 6749 section 2.3). */

/** Puts the proof into a request that is about to be sent: into its body, or into its headers. */
export type ClientAuthentication = (
  server: { issuer: string },
  client: { client_id: string },
  body: URLSearchParams,
  headers: Headers,
) => void | Promise<void>

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

const none: ClientAuthentication = (_server, client, body) => body.set('client_id', client.client_id)

/** The client's own way to authenticate, as its registration says it. */
export const authenticationOf = (client: Client): ClientAuthentication => {
  const secret = client.client_secret ?? ''
  switch (client.token_endpoint_auth_method) {
    case 'client_secret_basic':
      return clientSecretBasic(secret)
    case 'client_secret_post':
      return clientSecretPost(secret)
    case 'none':
      return none
  }
}
