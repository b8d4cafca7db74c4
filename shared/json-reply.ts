import { header } from './http.ts'
import type { IncomingReply } from './http.ts'

/** An object in a JSON reply, or undefined when the body is anything else. */
export const jsonObject = (reply: IncomingReply): Record<string, unknown> | undefined => {
  const type = (header(reply, 'content-type') ?? '').split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/json') return undefined
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(reply.body))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}
