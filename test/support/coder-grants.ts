import { createHash, randomInt } from 'node:crypto'
import type { Rules } from './coder-era.ts'
import { refuse, Refusal } from './oauth-request.ts'
import { json, type Answer } from './server.ts'

/** A client as Coder keeps it. */
export type CoderClient = {
  id: string
  secret: string | undefined
  redirectUris: string[]
  scope: string
  registrationToken: string
  metadata: Record<string, unknown>
}

/** A pair of tokens, or with no client a Coder session of a browser; `live` until something deletes it. */
export type ApiKey = {
  accessToken: string
  refreshToken: string | undefined
  userId: string
  clientId: string | undefined
  resource: string | undefined
  scope: string
  endsMs: number
  refreshEndsMs: number
  live: boolean
  /** What deleted it. */
  endedBy: 'exchange' | 'refresh' | 'revocation' | 'administrator' | undefined
}

type Code = {
  clientId: string
  userId: string
  sentRedirectUri: string | undefined
  challenge: string | undefined
  resource: string | undefined
  scope: string
  endsMs: number
}

/** What tests change while the server runs. */
export type TokenSettings = {
  accessTokenSeconds: number
  refreshTokenSeconds: number
  /** Between the read and the write of a token request's transaction; where others come first meanwhile, this one loses. */
  beforeWrite: ((grantType: string) => Promise<void> | void) | undefined
}

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'

/** Random text as Coder makes it: letters and digits only. */
export const randomText = (length: number): string =>
  Array.from({ length }, () => letters[randomInt(letters.length)]).join('')

/** A secret, code or refresh token: prefix, ten characters that name it, forty that prove it. */
export const prefixedSecret = (): string => `coder_${randomText(10)}_${randomText(40)}`

const wellFormedPkce = /^[\w.~-]{43,128}$/
const codeSeconds = 600

/** Codes and tokens: opaque, one live pair a user and client, the old pair dead at once, no memory of what was. */
export const createCoderGrants = ({
  rules,
  settings,
  nowMs,
  issued,
}: {
  rules: Rules
  settings: TokenSettings
  nowMs: () => number
  issued: (secret: string) => string
}) => {
  const codes = new Map<string, Code>()
  const keys: ApiKey[] = []

  const invalidGrant = (description: string): never => refuse('invalid_grant', description)

  /** The transaction found nothing to delete any more. */
  const lost = (description: string): never => {
    if (!rules.losesRacesWith500) return invalidGrant(description)
    const detail = 'delete oauth2 app token: sql: no rows in result set'
    throw new Refusal(json(500, { message: 'Failed to exchange token', detail }))
  }

  const end = (matches: (key: ApiKey) => boolean, endedBy: ApiKey['endedBy']): void => {
    for (const key of keys) if (key.live && matches(key)) Object.assign(key, { live: false, endedBy })
  }

  const issue = (facts: Pick<ApiKey, 'userId' | 'clientId' | 'resource' | 'scope'>): ApiKey => {
    const key: ApiKey = {
      ...facts,
      accessToken: issued(`${randomText(10)}-${randomText(22)}`),
      refreshToken: facts.clientId === undefined ? undefined : issued(prefixedSecret()),
      endsMs: nowMs() + settings.accessTokenSeconds * 1000,
      refreshEndsMs: nowMs() + settings.refreshTokenSeconds * 1000,
      live: true,
      endedBy: undefined,
    }
    keys.push(key)
    return key
  }

  const reply = (key: ApiKey): Answer =>
    json(200, {
      access_token: key.accessToken,
      token_type: 'Bearer',
      expires_in: settings.accessTokenSeconds,
      refresh_token: key.refreshToken,
      expiry: new Date(key.endsMs).toISOString(),
      ...(rules.enforcesScopes ? { scope: key.scope } : {}),
    })

  const byRefreshToken = (token: string, clientId: string): ApiKey | undefined =>
    keys.find(
      (key) => key.live && key.refreshToken === token && key.clientId === clientId && key.refreshEndsMs > nowMs(),
    )

  /** The code's PKCE verifier is right, where there has to be one. */
  const checkVerifier = (name: string, code: Code, verifier: string | undefined): void => {
    if (code.challenge === undefined) return
    if (rules.pkceForm && !wellFormedPkce.test(verifier ?? ''))
      refuse('invalid_request', 'The code_verifier parameter must be 43 to 128 characters of unreserved characters')
    const right = createHash('sha256')
      .update(verifier ?? '')
      .digest('base64url')
    if (right === code.challenge) return
    if (rules.pkceForm) codes.delete(name)
    invalidGrant('The PKCE code verifier is invalid')
  }

  return {
    /** A new code; earlier ones of the same user and client that were not redeemed are gone. */
    begin: (facts: Omit<Code, 'endsMs'>): string => {
      for (const [name, { clientId, userId }] of codes)
        if (clientId === facts.clientId && userId === facts.userId) codes.delete(name)
      const name = issued(prefixedSecret())
      codes.set(name, { ...facts, endsMs: nowMs() + codeSeconds * 1000 })
      return name
    },

    /** A Coder session of a user's browser. */
    signIn: (userId: string): ApiKey => issue({ userId, clientId: undefined, resource: undefined, scope: 'coder:all' }),

    /** RFC 6749 section 4.1.3; the user's earlier pair for this client is deleted. */
    redeem: async (client: CoderClient, form: Map<string, string>): Promise<Answer> => {
      const refused = 'The authorization code is invalid or expired'
      const name = form.get('code') ?? ''
      const code = codes.get(name)
      if (code === undefined || code.clientId !== client.id || code.endsMs <= nowMs()) return invalidGrant(refused)
      const redirectUri = form.get('redirect_uri')
      if (redirectUri !== undefined && !client.redirectUris.includes(redirectUri))
        refuse('invalid_request', 'The request is missing required parameters or is otherwise malformed')
      if (code.sentRedirectUri !== undefined && code.sentRedirectUri !== redirectUri) invalidGrant(refused)
      checkVerifier(name, code, form.get('code_verifier'))
      if (form.get('resource') !== code.resource) refuse('invalid_target', 'The resource parameter is invalid')
      await settings.beforeWrite?.('authorization_code')
      if (!codes.delete(name)) return lost(refused)
      const { userId, resource, scope } = code
      end((key) => key.userId === userId && key.clientId === client.id, 'exchange')
      return reply(issue({ userId, clientId: client.id, resource, scope }))
    },

    /** RFC 6749 section 6; the pair is deleted and a new one issued. Its refusal tells no replay from a stranger's token. */
    refresh: async (client: CoderClient, form: Map<string, string>): Promise<Answer> => {
      const refused = 'The refresh token is invalid or expired'
      const old = byRefreshToken(form.get('refresh_token') ?? '', client.id)
      if (old === undefined) return invalidGrant(refused)
      const resource = form.get('resource')
      if (resource !== undefined && resource !== old.resource)
        refuse('invalid_target', 'The resource parameter is invalid')
      await settings.beforeWrite?.('refresh_token')
      if (!old.live) return lost(refused)
      end((key) => key === old, 'refresh')
      return reply(issue(old))
    },

    /** RFC 7009: either token ends the pair; a stranger's and an unknown one are no error. */
    revoke: (token: string, clientId: string): void => {
      if (!/^(coder_\w{10}_\w{40}|\w{10}-\w{22})$/.test(token)) refuse('invalid_request', 'Invalid token format')
      end((key) => key.clientId === clientId && (key.refreshToken === token || key.accessToken === token), 'revocation')
    },

    /** The live key that a token of the API is. */
    keyOf: (token: string): ApiKey | undefined =>
      keys.find((key) => key.live && key.accessToken === token && key.endsMs > nowMs()),

    /** Every pair and session that there ever was, oldest first. */
    all: keys as readonly ApiKey[],

    /** Ends every access token now; refresh tokens live on. */
    expireAccessTokens: (): void => {
      for (const key of keys) key.endsMs = 0
    },

    /** Ends all pairs of a client, or of a user, as an administrator would. */
    endAll: ({ clientId, userId }: { clientId?: string; userId?: string }): void =>
      end(
        (key) =>
          key.clientId !== undefined &&
          (clientId === undefined || key.clientId === clientId) &&
          (userId === undefined || key.userId === userId),
        'administrator',
      ),
  }
}
