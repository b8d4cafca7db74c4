import type { AccountEndpoint } from './config.ts'
import { Failure } from './errors.ts'
import { HttpFault, tokenHeaders } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject } from './json-reply.ts'
import type { Claims } from './sessions.ts'
import { isSubject } from './token-reply.ts'

/** Who signed in, where no ID token says it: an endpoint of the resource server tells whose the access token is. */

const LIMIT_BYTES = 64 * 1024

export interface Account {
  subject: string
  claims: Claims
}

/** The user of an access token, with those of the wanted claims that the endpoint tells. @throws account_refused where the token is none there, account_unresolved */
export type ReadAccount = (
  endpoint: AccountEndpoint,
  accessToken: string,
  wanted: readonly string[],
) => Promise<Account>

const unresolved = (detail: string, cause?: unknown): Failure => new Failure('account_unresolved', { detail, cause })

/** A subject as text. A number beyond 2^53 has lost digits, so that two users could be one. */
const subjectOf = (value: unknown): string | undefined => {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? String(value) : undefined
  return isSubject(value) ? value : undefined
}

/** Reads accounts over `send`, each within that time. */
export const createReadAccount =
  ({ send, timeoutMs }: { send: Send; timeoutMs: number }): ReadAccount =>
  async ({ url, subject: subjectMember, claims: members, token_header: tokenHeader }, accessToken, wanted) => {
    let reply: IncomingReply
    try {
      reply = await send({
        method: 'GET',
        url: new URL(url),
        headers: {
          accept: 'application/json',
          'accept-encoding': 'identity',
          ...tokenHeaders(accessToken, tokenHeader),
          'user-agent': 'coatcheck',
        },
        timeoutMs,
        maxBytes: LIMIT_BYTES,
      })
    } catch (error) {
      if (error instanceof HttpFault) throw unresolved(`the account endpoint: ${error.detail ?? error.kind}`, error)
      throw error
    }
    if (reply.status === 401 || reply.status === 403) {
      throw new Failure('account_refused', { detail: `the account endpoint answered ${reply.status}` })
    }
    if (reply.status !== 200) throw unresolved(`the account endpoint answered ${reply.status}`)
    const body = jsonObject(reply)
    if (body === undefined) throw unresolved('the account endpoint answered no JSON object')
    const member = (name: string): unknown => (Object.hasOwn(body, name) ? body[name] : undefined)
    const subject = subjectOf(member(subjectMember))
    if (subject === undefined) throw unresolved(`the account has no usable member ${subjectMember}`)
    const told = wanted.flatMap((name) => {
      const value = name === 'sub' ? subject : member(members[name] ?? name)
      return value === undefined || value === null || value === '' ? [] : [[name, value] as const]
    })
    return { subject, claims: Object.fromEntries(told) }
  }
