import { header } from './http.ts'
import type { IncomingReply } from './http.ts'

/** The content type of a reply in words that can be shown. */
export const shownContentType = (reply: IncomingReply): string =>
  (header(reply, 'content-type') ?? 'no content type').replace(/[^\x20-\x7e]/g, ' ').slice(0, 40)

/** An object in a JSON reply, which is UTF-8, or undefined when the body is anything else (RFC 8259 section 8.1). */
export const jsonObject = (reply: IncomingReply): Record<string, unknown> | undefined => {
  const [type = '', ...parameters] = (header(reply, 'content-type') ?? '').toLowerCase().split(';')
  if (type.trim() !== 'application/json') return undefined
  if (parameters.some((parameter) => /^\s*charset\s*=\s*"?utf-?(16|32)/.test(parameter))) return undefined
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(reply.body))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}
