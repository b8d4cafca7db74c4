import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createBrowser, type Page } from '../support/user-agent.ts'

const record = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {}

/** A client of the demo authorization server, by hand: it registers, sends a browser there and redeems the code. */
export const registerClient = async (issuer: string, metadata: Record<string, unknown> = {}) => {
  const callback = createServer((_request, response) => response.end('callback'))
  callback.listen(0, '127.0.0.1')
  await once(callback, 'listening')
  const address = callback.address()
  const home = `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
  const redirectUri = `${home}/callback`

  const registered = await fetch(`${issuer}/reg`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      client_name: 'Test client',
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: [`${home}/`],
      grant_types: ['authorization_code', 'refresh_token'],
      ...metadata,
    }),
  })
  const registration = record(await registered.json())
  const clientId = String(registration['client_id'])
  const basic = Buffer.from(`${clientId}:${String(registration['client_secret'])}`).toString('base64')
  const verifier = randomBytes(32).toString('base64url')

  const post = async (path: string, parameters: Record<string, string>) => {
    const body = new URLSearchParams(parameters)
    const reply = await fetch(`${issuer}${path}`, {
      method: 'POST',
      headers: { authorization: `Basic ${basic}` },
      body,
    })
    const text = await reply.text()
    return { status: reply.status, body: text.startsWith('{') ? record(JSON.parse(text)) : {} }
  }

  return {
    registration,
    clientId,
    home,
    redirectUri,
    close: () => callback.close(),
    /** The authorization request, with these parameters added or (undefined) left out. */
    authorizationUrl: (more: Record<string, string | undefined> = {}): string => {
      const all = {
        response_type: 'code',
        client_id: clientId,
        redirect_uri: redirectUri,
        scope: 'openid profile email offline_access demo:read',
        state: 'a-state',
        code_challenge: createHash('sha256').update(verifier).digest('base64url'),
        code_challenge_method: 'S256',
        ...more,
      }
      const given = Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined)
      return `${issuer}/auth?${new URLSearchParams(given).toString()}`
    },
    redeem: (page: Page) =>
      post('/token', {
        grant_type: 'authorization_code',
        code: new URL(page.url).searchParams.get('code') ?? '',
        redirect_uri: redirectUri,
        code_verifier: verifier,
      }),
    refresh: (refreshToken: unknown) =>
      post('/token', { grant_type: 'refresh_token', refresh_token: String(refreshToken) }),
    revoke: (token: unknown) => post('/token/revocation', { token: String(token) }),
    introspect: (token: unknown) => post('/token/introspection', { token: String(token) }),
  }
}

/** A client of the kind that `registerClient` makes. */
export type DemoClient = Awaited<ReturnType<typeof registerClient>>

/** A browser signs in as Ada and allows everything; the tokens of that login. */
export const signInAndRedeem = async (client: DemoClient, browser = createBrowser({ origin: client.home })) => {
  const signIn = await browser.navigate(client.authorizationUrl())
  const consent = await browser.submit(signIn, 'Ada Lovelace')
  const callback = await browser.submit(consent, 'Allow')
  return (await client.redeem(callback)).body
}
