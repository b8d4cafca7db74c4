import type { Request } from '../../shared/message.ts'

/** The cookie of that name in the `Set-Cookie` lines of an answer, as it is sent back. */
export const cookieOf = (lines: readonly string[] | undefined, name: string): string | undefined =>
  lines?.map((line) => line.split(';')[0] ?? '').find((pair) => pair.startsWith(name) && !pair.endsWith('='))

/** A request that proves itself, and nothing else of interest. */
export const requestOf = (path: string, request: Partial<Request>): Request => ({
  method: 'GET',
  path,
  pathParameters: {},
  rawQuery: '',
  headers: { 'x-csrf': '1' },
  cookies: '',
  body: Buffer.alloc(0),
  id: 'request',
  ...request,
})
