import { expect } from 'vitest'
import { json, startRecordingServer, type Received } from './server.ts'
import type { StrictAuthorizationServer } from './authorization-server.ts'

/** Starts a resource server on `127.0.0.1` that takes every call, whatever its token, records it and answers 200 with JSON. */
export const startRecordingResourceServer = async () => {
  const server = await startRecordingServer<'call'>(
    () => 'call',
    () => json(200, { ok: true }),
  )
  return {
    ...server,
    /** The latest call. @throws an Error where none has come */
    lastCall: () => {
      const call = server.requests.at(-1)
      if (!call) throw new Error('no call has reached the resource server')
      return call
    },
  }
}

/** The token of a call, which must be its only credential. */
export const tokenOf = ({ rawHeaders }: Pick<Received, 'rawHeaders'>): string => {
  const values = rawHeaders.filter(
    (_, index) => index % 2 === 1 && /^authorization$/i.test(rawHeaders[index - 1] ?? ''),
  )
  expect(values).toHaveLength(1)
  return values[0]?.replace(/^Bearer /, '') ?? ''
}

/** The header lines of a call as they came, names in lower case. */
export const headerLinesOf = ({ rawHeaders }: Pick<Received, 'rawHeaders'>): [name: string, value: string][] =>
  rawHeaders.flatMap((name, index): [string, string][] =>
    index % 2 === 0 ? [[name.toLowerCase(), rawHeaders[index + 1] ?? '']] : [],
  )

/** Whose live access token this is, as its authorization server says. */
export const subjectOf = async ({ issuer }: StrictAuthorizationServer, token: string): Promise<unknown> => {
  const reply = await fetch(`${issuer}/userinfo`, { headers: { authorization: `Bearer ${token}` } })
  const claims: unknown = await reply.json()
  return typeof claims === 'object' && claims !== null && 'sub' in claims ? claims.sub : undefined
}
