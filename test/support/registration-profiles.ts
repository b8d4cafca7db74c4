import { randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js'
import { createInteractions } from '../../infra/local/demo/interactions.ts'
import { listen } from '../../infra/local/edge.ts'

/** What becomes of a client's secret: it never ends; it ends, and an update brings another; it ends, and an update extends it. */
export const secretProfiles = ['never-expires', 'update-rotates', 'update-extends'] as const

/** How a server of a certified kind treats registrations. */
export type RegistrationProfile = {
  secret: (typeof secretProfiles)[number]
  /** Whether an update brings a new registration access token, and ends the one before at once. */
  rotatesRegistrationToken: boolean
}

/** Every behaviour of a server towards RFC 7592 that a client has to live with. */
export const registrationProfiles: readonly RegistrationProfile[] = secretProfiles.flatMap((secret) =>
  [true, false].map((rotatesRegistrationToken) => ({ secret, rotatesRegistrationToken })),
)

const users = ['ada', 'grace'].map((id) => {
  const name = id === 'ada' ? 'Ada' : 'Grace'
  return { id, name, given_name: name, family_name: 'Test', email: `${id}@example.com` }
})

/** A policy of oidc-provider: sees, and may change, what is about to be stored of a client. */
type Policy = (context: { method: string }, client: Record<string, unknown>) => void

const policyOf =
  (secret: RegistrationProfile['secret'], secondsOf: () => number): Policy =>
  ({ method }, client) => {
    if (secret === 'never-expires') return
    client['client_secret_expires_at'] = Math.floor(Date.now() / 1000) + secondsOf()
    if (method === 'PUT' && secret === 'update-rotates') client['client_secret'] = randomBytes(24).toString('base64url')
  }

/**
 * A real oidc-provider runs at `http://127.0.0.1:<port>` whose registrations behave as the profile says. They take the initial access
 * token, which is what the behaviour hangs on. Its sign-in is that of the demo server: `signIn(tab, { user: 'Ada' })`.
 * @param secretSeconds how long a secret lives where it ends; may be changed for the next one by `settings`
 */
export const startProfileServer = async (
  { secret, rotatesRegistrationToken }: RegistrationProfile,
  { secretSeconds = 3_600, accessTokenSeconds = 300 }: { secretSeconds?: number; accessTokenSeconds?: number } = {},
) => {
  const settings = { secretSeconds }
  let answer: RequestListener = (_request, response) => response.writeHead(503).end()
  const { port, close } = await listen((request, response) => answer(request, response), 0, '127.0.0.1')
  const issuer = `http://127.0.0.1:${port}`
  const key = await generateKeyPair('RS256', { extractable: true })
  const policies = { profile: policyOf(secret, () => settings.secretSeconds) }

  const store = new Map<string, unknown>()
  const provider = new Provider(issuer, {
    adapter: (model: string) => new MemoryAdapter(model, store),
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
    clients: [],
    clockTolerance: 0,
    conformIdTokenClaims: false,
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true, initialAccessToken: true, policies },
      registrationManagement: { enabled: true, rotateRegistrationAccessToken: rotatesRegistrationToken },
      revocation: { enabled: true, allowedPolicy: () => true },
      rpInitiatedLogout: { enabled: true },
    },
    findAccount: (_context: unknown, accountId: string) => ({ accountId, claims: () => ({ sub: accountId }) }),
    interactions: { url: (_context: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    issueRefreshToken: () => true,
    jwks: { keys: [Object.assign(await exportJWK(key.privateKey), { alg: 'RS256', use: 'sig' })] },
    pkce: { required: () => true },
    responseTypes: ['code'],
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access'],
    ttl: { AccessToken: accessTokenSeconds, Grant: 86_400, Interaction: 600, RefreshToken: 86_400, Session: 86_400 },
  })
  const interactions = createInteractions(provider, issuer, users)
  const protocol = provider.callback()
  answer = (request, response) => {
    if (request.url?.startsWith('/interaction/') !== true) protocol(request, response)
    else interactions(request, response).catch(() => void response.writeHead(500).end())
  }

  return {
    issuer,
    provider,
    settings,
    /** Registers any number of clients of the profile. */
    initialAccessToken: await new provider.InitialAccessToken({ policies: ['profile'] }).save(),
    /** The OAuth error with which the token endpoint refuses this client; `invalid_grant` where it took the client, but not the code. */
    tokenEndpointSays: async ({
      client_id: id,
      client_secret: secretNow = '',
    }: {
      client_id: string
      client_secret?: string | undefined
    }) => {
      const pair = Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secretNow)}`).toString('base64')
      const reply = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${pair}` },
        body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: 'none' }),
      })
      return String(Object(await reply.json()).error)
    },
    close,
  }
}
