import { errorCode } from './authorization-response.ts'
import { authenticationOf, isRefusal } from './client-authentication.ts'
import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { Send } from './http.ts'
import { jsonObject } from './json-reply.ts'
import type { Peer } from './oauth.ts'
import { random } from './seal.ts'

/** Whether a server takes our client, found out without anything coming of it. */

/** An answer that says neither is told by its status and error code. */
export type Probed = 'accepted' | 'rejected' | `other: ${string}`

const LIMIT_BYTES = 64 * 1024

/**
 * What the token endpoint says to a code that nobody was given. A server authenticates the client before it looks at the code (RFC 6749
 * section 4.1.3); one that does not still refuses the code, so that nothing is ever consumed.
 * @throws server_unreachable, server_timeout, server_failed
 */
export const probe = async (
  { send, timeoutMs, now }: { send: Send; timeoutMs: number; now: () => number },
  { metadata, client, keys }: Peer,
): Promise<Probed> => {
  const body = new URLSearchParams({
    grant_type: 'authorization_code',
    code: random(32),
    redirect_uri: client.redirect_uri,
    code_verifier: random(48),
  })
  const headers = new Headers({ accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' })
  authenticationOf({ client, keys }, now)(metadata, client, body, headers)
  let reply: Awaited<ReturnType<Send>>
  try {
    reply = await send({
      method: 'POST',
      url: new URL(metadata.token_endpoint),
      headers: { ...Object.fromEntries(headers), 'accept-encoding': 'identity' },
      body: Buffer.from(body.toString()),
      timeoutMs,
      maxBytes: LIMIT_BYTES,
    })
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error
    throw new Failure(error.kind === 'timeout' ? 'server_timeout' : 'server_unreachable', { cause: error })
  }
  if (reply.status >= 500 || reply.status === 429)
    throw new Failure('server_failed', { detail: `status ${reply.status}` })
  const code = errorCode(jsonObject(reply)?.['error'])
  if (code === 'invalid_grant') return 'accepted'
  if (isRefusal(reply.status, code)) return 'rejected'
  return `other: ${reply.status} ${code}`
}
