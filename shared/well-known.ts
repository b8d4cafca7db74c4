import { coderAdvice } from './coder-advice.ts'
import { Failure } from './errors.ts'
import { header, HttpFault } from './http.ts'
import type { IncomingReply, Send } from './http.ts'
import { jsonObject, shownContentType } from './json-reply.ts'

/** Documents at well-known URLs: fetched within limits, read strictly, and what is no document is said in words. */

const LIMIT_BYTES = 256 * 1024
const TIMEOUT_MS = 5_000

/** What is at a well-known URL: the object of the document, or in words why there is none. */
export type WellKnown =
  | { kind: 'found'; value: Record<string, unknown> }
  /** `passing`: it may be there when the server is well again. */
  | { kind: 'missing'; complaint: string; passing: boolean; advice: string | undefined }

/** The well-known URL of RFC 8414 section 3.1 and RFC 9728 section 3.1: inserted between host and path, before any query. */
export const wellKnownUrl = (name: string, identifier: URL): URL => {
  const path = identifier.pathname === '/' ? '' : identifier.pathname.replace(/\/$/, '')
  return new URL(`/.well-known/${name}${path}${identifier.search}`, identifier)
}

/**
 * A member that stands twice in one object of a JSON text, or undefined. Parsers disagree on which of the two counts, so that two who
 * read the document would not believe the same. The text must be JSON.
 */
export const repeatedMember = (json: string): string | undefined => {
  const open: (Set<string> | undefined)[] = []
  for (const [token, name, colon] of json.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|[{}[\]]/g)) {
    if (token === '{') open.push(new Set())
    else if (token === '[') open.push(undefined)
    else if (token === '}' || token === ']') open.pop()
    else if (name !== undefined && colon !== undefined) {
      const member = String(JSON.parse(name))
      const members = open.at(-1)
      if (members?.has(member) === true) return member
      members?.add(member)
    }
  }
  return undefined
}

const leadsTo = (reply: IncomingReply, url: URL): string => {
  const location = header(reply, 'location')
  if (location === undefined || !URL.canParse(location, url.href)) return ''
  const { origin } = new URL(location, url)
  return origin === url.origin ? ' on the same origin' : ` to ${origin.slice(0, 200)}`
}

/** Why a reply is no document, in words. */
const complaintAbout = (reply: IncomingReply, url: URL): string => {
  const { status } = reply
  if (status >= 300 && status <= 399)
    return `answered ${status}, a redirect${leadsTo(reply, url)}, and none is followed`
  if (status !== 200) return `answered ${status}`
  const type = shownContentType(reply)
  return `${/^text\/html\b/i.test(type) ? 'answered with a web page; it ' : ''}holds no JSON object (content type: ${type})`
}

/**
 * What is at a well-known URL. Redirects are not followed, since the server at their end is another than was asked.
 * @throws metadata_invalid, server_unreachable, server_address_refused, server_timeout
 * @see RFC 8414 section 3.2, RFC 9728 section 3.2, RFC 8259 section 4
 */
export const fetchWellKnown = async (send: Send, url: URL): Promise<WellKnown> => {
  let reply: IncomingReply
  try {
    reply = await send({
      method: 'GET',
      url,
      headers: { accept: 'application/json', 'accept-encoding': 'identity' },
      timeoutMs: TIMEOUT_MS,
      maxBytes: LIMIT_BYTES,
    })
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error
    if (error.kind === 'too_large')
      throw new Failure('metadata_invalid', { detail: `the metadata at ${url.pathname} are over ${LIMIT_BYTES} bytes` })
    if (error.kind === 'address_refused')
      throw new Failure('server_address_refused', { detail: error.detail, cause: error })
    const reason = error.kind === 'timeout' ? 'server_timeout' : 'server_unreachable'
    throw new Failure(reason, { detail: `no answer from ${url.origin}`, cause: error })
  }
  const value = reply.status === 200 ? jsonObject(reply) : undefined
  if (value === undefined) {
    return {
      kind: 'missing',
      complaint: `${url.pathname} ${complaintAbout(reply, url)}`,
      passing: reply.status >= 500 || reply.status === 429,
      advice: coderAdvice(reply),
    }
  }
  const repeated = repeatedMember(new TextDecoder().decode(reply.body))
  if (repeated !== undefined) {
    const shown = JSON.stringify(repeated.replace(/[^\x20-\x7e]/g, ' ').slice(0, 64))
    throw new Failure('metadata_invalid', {
      detail: `the member ${shown} stands twice in the metadata at ${url.pathname}`,
    })
  }
  return { kind: 'found', value }
}
