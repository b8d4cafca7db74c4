import { randomUUID } from 'node:crypto'
import type { HttpApiEvent } from '../../infra/local/gateway-payload.ts'

/** The event of a page script's GET of `/api/{api}/{path}` with that `Cookie` header, as an HTTP API would make it (payload format 2.0). */
export const apiCallEvent = (api: string, path: string, cookie: string): HttpApiEvent => {
  const rawPath = `/api/${api}/${path}`
  const routeKey = 'ANY /api/{api}/{path+}'
  const now = new Date()
  return {
    version: '2.0',
    routeKey,
    rawPath,
    rawQueryString: '',
    cookies: cookie.split('; '),
    headers: { 'x-csrf': '1', accept: '*/*', host: 'local', 'sec-fetch-site': 'same-origin' },
    requestContext: {
      accountId: '000000000000',
      apiId: 'local',
      domainName: 'local',
      domainPrefix: 'local',
      http: { method: 'GET', path: rawPath, protocol: 'HTTP/1.1', sourceIp: '127.0.0.1', userAgent: 'test' },
      requestId: randomUUID(),
      routeKey,
      stage: '$default',
      time: now.toISOString(),
      timeEpoch: now.getTime(),
    },
    pathParameters: { api, path },
    isBase64Encoded: false,
  }
}
