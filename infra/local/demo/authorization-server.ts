import { randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { errors, Provider, type Context, type Grant, type ProviderError } from 'oidc-provider'
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js'
import { listen } from '../edge.ts'
import type { RefreshTokens } from '../options.ts'
import { createInteractions } from './interactions.ts'
import { html, page, pageHeaders, sendPage } from './pages.ts'
import { repeatRefreshAnswers } from './refresh-grace.ts'

/** Someone who can sign in at the demo authorization server; `id` becomes the subject. */
export interface DemoUser {
  id: string
  name: string
  given_name: string
  family_name: string
  email: string
}

/** What the authorization server reports of its work: an oidc-provider event and, of a failure, the error and its cause. */
export interface AuthorizationServerEvent {
  name: string
  error?: string
  description?: string
  detail?: string
}

export interface AuthorizationServerOptions {
  /** 0 takes a free port. */
  port: number
  /** The resource that every access token is for: its `aud`. */
  resource: string
  /** Further resources that tokens may be for, one a token. */
  otherResources?: readonly string[]
  accessTokenSeconds?: number
  /** What becomes of a refresh token once it was used; `strict` unless told. */
  refreshTokens?: RefreshTokens
  /** Registration asks for this initial access token; open to everyone where there is none. */
  initialAccessToken?: string
  users?: readonly DemoUser[]
  clockToleranceSeconds?: number
  onEvent?: (event: AuthorizationServerEvent) => void
}

export interface AuthorizationServer {
  issuer: string
  users: readonly DemoUser[]
  provider: Provider
  close(): Promise<void>
}

const demoUsers: readonly DemoUser[] = [
  { id: 'ada', name: 'Ada Lovelace', given_name: 'Ada', family_name: 'Lovelace', email: 'ada@example.com' },
  { id: 'grace', name: 'Grace Hopper', given_name: 'Grace', family_name: 'Hopper', email: 'grace@example.com' },
  { id: 'alan', name: 'Alan Turing', given_name: 'Alan', family_name: 'Turing', email: 'alan@example.com' },
]

const scopes = ['openid', 'profile', 'email', 'offline_access', 'demo:read', 'demo:write']

const reportedEvents = [
  ...['authorization', 'grant', 'registration_create', 'registration_update', 'registration_delete'].flatMap((name) => [
    `${name}.success`,
    `${name}.error`,
  ]),
  'revocation.error',
  'introspection.error',
  'userinfo.error',
  'end_session.success',
  'end_session.error',
  'backchannel.success',
  'backchannel.error',
  'grant.revoked',
  'server_error',
]

/** Clients here are on loopback, which oidc-provider's own dispatcher refuses; and one that starts cold takes its time. */
const fetchFromLoopback = (url: string, request: RequestInit): Promise<Response> => {
  delete request.dispatcher
  return fetch(url, Object.assign(request, { signal: AbortSignal.timeout(10_000) }))
}

const days = (count: number): number => count * 24 * 60 * 60

/** Signing keys for ID tokens (RS256, what clients get when they name none) and for access tokens (ES256). */
const signingKeys = async () => {
  const keys = ['RS256', 'ES256'].map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true })
    return Object.assign(await exportJWK(privateKey), { alg, use: 'sig' })
  })
  return { keys: await Promise.all(keys) }
}

/** Storage for oidc-provider's own memory adapter that forgets what expired but never evicts what is alive. */
const createStore = () => {
  const entries = new Map<string, { value: unknown; endsAtMs: number }>()
  return {
    get: (key: string): unknown => {
      const entry = entries.get(key)
      if (entry && entry.endsAtMs > Date.now()) return entry.value
      entries.delete(key)
      return undefined
    },
    set: (key: string, value: unknown, options?: { maxAge: number }): void => {
      entries.set(key, { value, endsAtMs: Date.now() + (options?.maxAge ?? Infinity) })
    },
    delete: (key: string): void => {
      entries.delete(key)
    },
  }
}

const wordsOf = ({ message, error, error_description, error_detail }: ProviderError) => ({
  error: error ?? message,
  ...(error_description !== undefined && { description: error_description }),
  ...(error_detail !== undefined && { detail: error_detail }),
})

/** A copy of an earlier grant under a new id, so that every login has tokens that live and die on their own. */
const copyOf = async (provider: Provider, earlier: Grant, owner: { accountId: string; clientId: string }) => {
  const grant = new provider.Grant(owner)
  if (earlier.openid?.scope) grant.addOIDCScope(earlier.openid.scope)
  if (earlier.openid?.claims) grant.addOIDCClaims(earlier.openid.claims)
  for (const [resource, scope] of Object.entries(earlier.resources ?? {})) grant.addResourceScope(resource, scope)
  await grant.save()
  return grant
}

const loadExistingGrant = async ({ oidc }: Context): Promise<Grant | undefined> => {
  const { client, provider, result, session } = oidc
  if (!client || !session.accountId) return undefined
  if (result?.consent?.grantId) return await provider.Grant.find(result.consent.grantId)
  const earlierId = session.grantIdFor(client.clientId)
  const earlier = earlierId === undefined ? undefined : await provider.Grant.find(earlierId)
  return earlier && (await copyOf(provider, earlier, { accountId: session.accountId, clientId: client.clientId }))
}

/**
 * Starts a working authorization server at `http://127.0.0.1:<port>` that has no clients yet: they register themselves
 * (RFC 7591, RFC 7592). Authorization code flow with PKCE only, `iss` in its responses (RFC 9207), JWT access tokens for one
 * resource (RFC 9068, RFC 8707), rotating refresh tokens, revocation, introspection, RP-initiated and back-channel logout; no
 * PAR. Everything lives in memory and ends with it.
 *
 * @throws an Error with the code EADDRINUSE where the port is taken
 */
export const startAuthorizationServer = async (options: AuthorizationServerOptions): Promise<AuthorizationServer> => {
  const {
    resource,
    otherResources = [],
    accessTokenSeconds = 300,
    refreshTokens = 'strict',
    users = demoUsers,
  } = options
  let answer: RequestListener = (_request, response) => response.writeHead(503).end()
  const { port, close } = await listen((request, response) => answer(request, response), options.port, '127.0.0.1')
  const issuer = `http://127.0.0.1:${port}`

  const findAccount = (_ctx: unknown, accountId: string) => {
    const user = users.find(({ id }) => id === accountId)
    if (!user) return undefined
    const { id, ...claims } = user
    return { accountId, claims: () => ({ sub: id, preferred_username: id, email_verified: true, ...claims }) }
  }

  const showPage = (ctx: Context, title: string, content: ReturnType<typeof html>): void => {
    for (const [name, value] of Object.entries(pageHeaders)) ctx.set(name, value)
    ctx.body = page(issuer, title, content)
  }

  const store = createStore()
  const provider = new Provider(issuer, {
    adapter: (model: string) => new MemoryAdapter(model, store),
    claims: {
      openid: ['sub', 'sid', 'auth_time', 'iss'],
      profile: ['name', 'given_name', 'family_name', 'preferred_username'],
      email: ['email', 'email_verified'],
    },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
    clientBasedCORS: () => false,
    clients: [],
    clockTolerance: options.clockToleranceSeconds ?? 0,
    conformIdTokenClaims: false,
    cookies: {
      keys: [randomBytes(32).toString('base64url')],
      // Cookies ignore ports, so that servers on one host would otherwise overwrite each other's.
      names: { session: `session_${port}`, interaction: `interaction_${port}`, resume: `interaction_resume_${port}` },
    },
    expiresWithSession: () => false,
    features: {
      backchannelLogout: { enabled: true },
      dPoP: { enabled: false },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
      pushedAuthorizationRequests: { enabled: false },
      registration: { enabled: true, initialAccessToken: options.initialAccessToken ?? false },
      registrationManagement: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        getResourceServerInfo: (_ctx: unknown, indicator: string) => {
          if (![resource, ...otherResources].includes(indicator)) throw new errors.InvalidTarget()
          return {
            scope: scopes.join(' '),
            audience: indicator,
            accessTokenTTL: accessTokenSeconds,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          }
        },
        useGrantedResource: () => true,
      },
      revocation: {
        enabled: true,
        allowedPolicy: (_ctx: unknown, client: { clientId: string }, token: { clientId: string }) =>
          client.clientId === token.clientId,
      },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx: Context, form: string) => {
          const buttons = `<button class="main" name="logout" value="yes">Sign out</button>
<button class="plain">Stay signed in</button></form>`
          const client = ctx.oidc.client?.clientName
          const words = client ? `${client} has signed you out. Sign out here too?` : 'You are signed in here.'
          showPage(
            ctx,
            'Sign out?',
            html`<p>${words}</p>
              ${{ markup: form.replace('</form>', buttons) }}`,
          )
        },
        postLogoutSuccessSource: (ctx: Context) => {
          showPage(ctx, 'You are signed out', html`<p>Nobody is signed in at this authorization server any more.</p>`)
        },
      },
    },
    fetch: fetchFromLoopback,
    findAccount,
    interactions: { url: (_ctx: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    issueRefreshToken: (_ctx: unknown, client: { grantTypeAllowed(grantType: string): boolean }) =>
      client.grantTypeAllowed('refresh_token'),
    jwks: await signingKeys(),
    loadExistingGrant,
    pkce: { required: () => true },
    renderError: (ctx: Context, out: { error: string; error_description?: string }) => {
      const words = html`<p>${out.error_description ?? 'The request could not be completed.'}</p>
        <p><code>${out.error}</code></p>`
      showPage(ctx, 'This request cannot continue', words)
    },
    responseTypes: ['code'],
    rotateRefreshToken: refreshTokens !== 'reusable',
    scopes,
    ttl: {
      AccessToken: accessTokenSeconds,
      AuthorizationCode: 60,
      Grant: days(14),
      IdToken: 60 * 60,
      Interaction: 60 * 60,
      RefreshToken: days(14),
      Session: days(1),
    },
  })

  if (refreshTokens === 'grace') repeatRefreshAnswers(provider)

  for (const name of reportedEvents) {
    provider.on(name, (_ctx, error?: ProviderError) => {
      options.onEvent?.({ name, ...(error instanceof Error && wordsOf(error)) })
    })
  }

  const interactions = createInteractions(provider, issuer, users)
  const protocol = provider.callback()
  answer = (request, response) => {
    const path = (request.url ?? '/').replace(/[?#].*$/s, '')
    if (path.startsWith('/interaction/')) {
      interactions(request, response).catch((error: unknown) => {
        options.onEvent?.({ name: 'server_error', detail: String(error) })
        sendPage(response, 500, page(issuer, 'Something went wrong', html`<p>Please try again.</p>`))
      })
    } else if (path === '/') {
      const link = html`<p>
        It speaks OAuth 2.0 and OpenID Connect: see its <a href="/.well-known/openid-configuration">metadata</a>.
      </p>`
      sendPage(response, 200, page(issuer, 'Nothing to see here', link))
    } else {
      protocol(request, response)
    }
  }

  return { issuer, users, provider, close }
}
