import { randomUUID } from 'node:crypto'
import type { StrictAuthorizationServer } from './authorization-server.ts'
import type { Signing } from './grants.ts'
import { exchange, type HeaderLines, type Reply } from './http.ts'

/** The one event of logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4). */
export const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout'

/** A logout token for the server's first client, good but for what is said; claims set to `undefined` are left out. */
export const logoutToken = (
  server: Pick<StrictAuthorizationServer, 'issuer' | 'clients' | 'sign'>,
  claims: Record<string, unknown>,
  signing: Signing = {},
): Promise<string> => {
  const [client] = server.clients()
  const seconds = Math.floor(Date.now() / 1000)
  const good = {
    iss: server.issuer,
    aud: client?.client_id,
    iat: seconds,
    exp: seconds + 120,
    jti: randomUUID(),
    events: { [logoutEvent]: {} },
  }
  return server.sign({ ...good, ...claims }, { typ: 'logout+jwt', secret: client?.client_secret, ...signing })
}

/** Posts a body to the back-channel logout endpoint as an authorization server does: without cookies, from nowhere. */
export const postLogout = (
  origin: string,
  body: string,
  request: { provider?: string; method?: string; type?: string; query?: string } = {},
): Promise<Reply> => {
  const { provider = 'demo', method = 'POST', type = 'application/x-www-form-urlencoded', query = '' } = request
  const headers: HeaderLines = method === 'GET' ? [] : [['Content-Type', type]]
  const path = `/bff/backchannel-logout/${provider}${query}`
  return exchange({ origin, method, path, headers, ...(method === 'GET' ? {} : { body }) })
}

/** Posts one logout token. */
export const sendLogoutToken = (origin: string, token: string): Promise<Reply> =>
  postLogout(origin, new URLSearchParams({ logout_token: token }).toString())
