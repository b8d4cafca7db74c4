import { expect } from 'vitest'
import type { Reply } from './http.ts'
import { linksOf, visibleText } from './html.ts'

/** What every answer of ours to a browser must be, so that each flow test need only say which one it expects. */

/** The cookie that is the ticket of a session. */
export const sessionCookie = '__Host-Http-session'
/** How the names of login cookies begin. */
export const loginCookies = '__Host-Http-login.'

/** The answer has the headers that all of ours have. */
export const expectOurHeaders = ({ headers }: Reply): void => {
  expect(headers).toMatchObject({
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'x-frame-options': 'DENY',
    'x-request-id': expect.stringMatching(/^[\w+/=-]{8,}$/),
  })
  expect(headers['content-security-policy']).toMatch(/^default-src 'none';.* ?frame-ancestors 'none'/)
  expect(headers).not.toHaveProperty('access-control-allow-origin')
}

/** The answer sets no session cookie; taking one away is no setting. */
export const expectNoSession = (reply: Reply): void => {
  const set = reply.setCookies.filter((line) => line.startsWith(`${sessionCookie}=`) && !/; Max-Age=0(;|$)/.test(line))
  expect(set).toEqual([])
}

/** A page for a person, with that status and public code, its request id, and nowhere to go but a new login and the front page. */
export const expectErrorPage = (reply: Reply, status: number, code: string): void => {
  const text = visibleText(reply.text)
  expect([reply.status, /\bCode (\S+)/.exec(text)?.[1]]).toEqual([status, code])
  expectOurHeaders(reply)
  expectNoSession(reply)
  expect(reply.headers['content-type']).toBe('text/html; charset=utf-8')
  expect(reply.headers).not.toHaveProperty('location')
  expect(text).toContain(`Request ${reply.headers['x-request-id']}`)
  expect(reply.text).toMatch(/^<!doctype html>\s*<html lang="en">/)
  expect(reply.text.match(/<h1\b/g)).toHaveLength(1)
  expect(reply.text).not.toMatch(/<(script|img|iframe|object)\b/i)
  for (const { href } of linksOf(reply.text)) expect(href).toMatch(/^\/($|bff\/login)/)
}

/** A problem for a script (RFC 9457), with that status and public code and its request id. */
export const expectProblem = (reply: Reply, status: number, code: string): void => {
  expect(reply.headers['content-type'] ?? '').toMatch(/^application\/problem\+json/)
  expect(reply.json()).toEqual({ title: expect.any(String), status, code, request_id: reply.headers['x-request-id'] })
  expect(reply.status).toBe(status)
  expectOurHeaders(reply)
  expectNoSession(reply)
}

/** The keys of the session and grant records among a table's items. */
export const signedInRecords = (items: readonly Record<string, { S?: string | undefined }>[]): string[] =>
  items.flatMap(({ sk }) => (sk?.S !== undefined && /^[SG]#/.test(sk.S) ? [sk.S] : [])).toSorted()
