import { createHash, randomBytes } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT, type JWTPayload } from 'jose'
import type { Client } from './clients.ts'
import { refuse } from './oauth-request.ts'
import { json, type Answer } from './server.ts'

/** How the next ID tokens differ from good ones; a claim set to `undefined` is left out. */
export type IdTokenChange = {
  claims?: Record<string, unknown>
  as?: Forgery | undefined
}

/** How a JWT is not what it should be; a tampered one has another `sub` than was signed. */
export type Forgery = 'none' | 'HS256' | 'another key' | 'unknown kid' | 'tampered'

/** How a JWT is made; `secret` is the key of HS256. */
export type Signing = { as?: Forgery | undefined; typ?: string | undefined; secret?: string | undefined }

/** What one code led to; `live` until it is revoked, replaced, or a code or refresh token of it comes again. */
export type Grant = {
  id: string
  clientId: string
  subject: string
  scope: string
  resource: string | undefined
  /** All resources that the user agreed to; `resource` is the first. */
  resources?: string[]
  nonce: string | undefined
  live: boolean
  renewals: number
}

type Code = { grant: Grant; redirectUri: string; challenge: string; spent: boolean; endsMs: number }

/** What tests change while the server runs. */
export type GrantSettings = {
  accessTokenSeconds: number
  idToken: IdTokenChange
  /** Whether a refresh token is used once and a second use ends the grant; with `grace` a second use gets the same answer again. */
  rotation: boolean | 'grace'
}

type Rules = {
  settings: GrantSettings
  users: Record<string, JWTPayload>
  oneGrantPerUser: boolean
  nowMs: () => number
  issued: (secret: string) => string
}

const random = (): string => randomBytes(24).toString('base64url')
const isPkce = /^[\w.~-]{43,128}$/

/** Issues and takes codes and tokens; each code once, each refresh token once where it rotates. */
export const createGrants = async ({ settings, users, oneGrantPerUser, nowMs, issued }: Rules) => {
  const [key, strangerKey] = await Promise.all([generateKeyPair('RS256'), generateKeyPair('RS256')])
  const jwk = { ...(await exportJWK(key.publicKey)), kid: 'strict-1', use: 'sig', alg: 'RS256' }
  const grants: Grant[] = []
  const codes = new Map<string, Code>()
  const accessTokens = new Map<
    string,
    { grant: Grant; endsMs: number; audience: string | undefined; exchanged: boolean }
  >()
  const refreshTokens = new Map<string, { grant: Grant; spent?: Promise<Answer> }>()

  /** A new grant; the result is its code. */
  const begin = (
    facts: Omit<Grant, 'id' | 'live' | 'renewals'>,
    { redirectUri, challenge }: { redirectUri: string; challenge: string },
  ): string => {
    for (const old of oneGrantPerUser ? grants : []) {
      if (old.clientId === facts.clientId && old.subject === facts.subject) old.live = false
    }
    const grant: Grant = { id: random(), ...facts, live: true, renewals: 0 }
    grants.push(grant)
    const code = issued(`code-${random()}`)
    codes.set(code, { grant, redirectUri, challenge, spent: false, endsMs: nowMs() + 60_000 })
    return code
  }

  /** A JWT under the server's key; claims that are `undefined` are left out. */
  const sign = async (
    claims: Record<string, unknown>,
    { as, typ, secret = 'secret' }: Signing = {},
  ): Promise<string> => {
    const payload = JSON.parse(JSON.stringify(claims))
    if (as === 'none') return new UnsecuredJWT(payload).encode()
    const alg = as === 'HS256' ? 'HS256' : 'RS256'
    const header = {
      alg,
      kid: as === 'unknown kid' ? `unknown-${random()}` : jwk.kid,
      ...(typ !== undefined && { typ }),
    }
    const signer = as === 'another key' ? strangerKey.privateKey : key.privateKey
    const signingKey = as === 'HS256' ? new TextEncoder().encode(secret) : signer
    const token = await new SignJWT(payload).setProtectedHeader(header).sign(signingKey)
    if (as !== 'tampered') return token
    const [head, , signature] = token.split('.')
    const tampered = Buffer.from(JSON.stringify({ ...payload, sub: 'mallory' })).toString('base64url')
    return [head, tampered, signature].join('.')
  }

  const idToken = async (issuer: string, grant: Grant, client: Client): Promise<string> => {
    const { claims = {}, as } = settings.idToken
    const seconds = Math.floor(nowMs() / 1000)
    const good = { iss: issuer, aud: grant.clientId, sub: grant.subject, iat: seconds, exp: seconds + 300 }
    const profile = users[grant.subject]
    const payload = { ...good, nonce: grant.nonce, sid: grant.id, ...profile, ...claims }
    return sign(payload, { as, secret: client.client_secret })
  }

  const tokens = async (
    issuer: string,
    grant: Grant,
    client: Client,
    refreshToken: string | undefined,
    audience: string | undefined,
  ) => {
    const access = issued(`at-${random()}`)
    accessTokens.set(access, {
      grant,
      endsMs: nowMs() + settings.accessTokenSeconds * 1000,
      audience,
      exchanged: false,
    })
    const next =
      client.grant_types.includes('refresh_token') && (refreshToken === undefined || settings.rotation !== false)
    const refresh = next ? issued(`rt-${random()}`) : undefined
    if (refresh !== undefined) refreshTokens.set(refresh, { grant })
    const id = grant.scope.split(' ').includes('openid') ? issued(await idToken(issuer, grant, client)) : undefined
    const { accessTokenSeconds: expires_in } = settings
    return json(200, {
      access_token: access,
      token_type: 'Bearer',
      expires_in,
      scope: grant.scope,
      refresh_token: refresh,
      id_token: id,
    })
  }

  const isGranted = ({ resource, resources = [] }: Grant, asked: string | undefined): boolean =>
    asked === resource || (asked !== undefined && resources.includes(asked))

  /** RFC 8693: a new token of the subject token's user, which lives on its own. */
  const exchange = (form: Map<string, string>, client: Client): Answer => {
    const subject = accessTokens.get(form.get('subject_token') ?? '')
    if (form.get('subject_token_type') !== 'urn:ietf:params:oauth:token-type:access_token')
      refuse('invalid_request', 'not an access token')
    if (!subject?.grant.live || subject.endsMs <= nowMs() || subject.exchanged)
      return refuse('invalid_request', 'the subject token is not valid')
    if (subject.grant.clientId !== client.client_id) refuse('invalid_grant', 'a token of another client')
    const audience = form.get('audience') ?? form.get('resource') ?? form.get('scope')
    if (audience === undefined || audience.includes('unknown')) refuse('invalid_target', 'an unknown audience')
    const access = issued(`xt-${random()}`)
    const endsMs = nowMs() + settings.accessTokenSeconds * 1000
    accessTokens.set(access, { grant: subject.grant, endsMs, audience, exchanged: true })
    return json(200, {
      access_token: access,
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: settings.accessTokenSeconds,
    })
  }

  const redeem = (issuer: string, form: Map<string, string>, client: Client): Promise<Answer> => {
    const code = codes.get(form.get('code') ?? '')
    if (!code || code.grant.clientId !== client.client_id) return refuse('invalid_grant', 'not a code of this client')
    if (code.spent) code.grant.live = false
    const verifier = form.get('code_verifier') ?? ''
    if (code.spent || code.endsMs <= nowMs()) refuse('invalid_grant', 'a code is used once and soon')
    code.spent = true
    if (form.get('redirect_uri') !== code.redirectUri) refuse('invalid_grant', 'another redirect URI')
    if (!isPkce.test(verifier) || createHash('sha256').update(verifier).digest('base64url') !== code.challenge) {
      refuse('invalid_grant', 'not the verifier of the challenge')
    }
    const resource = form.get('resource')
    if (!isGranted(code.grant, resource)) refuse('invalid_target', 'another resource')
    return tokens(issuer, code.grant, client, undefined, resource)
  }

  const refresh = (issuer: string, form: Map<string, string>, client: Client): Promise<Answer> => {
    const token = form.get('refresh_token') ?? ''
    const known = refreshTokens.get(token)
    if (!known || known.grant.clientId !== client.client_id)
      return refuse('invalid_grant', 'not a token of this client')
    if (known.spent && settings.rotation !== 'grace') known.grant.live = false
    if (!known.grant.live) refuse('invalid_grant', 'the grant has ended')
    const resource = form.get('resource')
    if (!isGranted(known.grant, resource)) {
      // As some servers do: the token is used up by then.
      known.spent = Promise.resolve(json(400, { error: 'invalid_target' }))
      refuse('invalid_target', 'another resource')
    }
    if (known.spent) return known.spent
    known.grant.renewals += 1
    const answer = tokens(issuer, known.grant, client, token, resource)
    if (settings.rotation !== false) known.spent = answer
    return answer
  }

  return {
    jwk,
    sign,
    begin,
    redeem,
    refresh,
    exchange,
    /** RFC 7009: a refresh token takes its grant along, an access token goes alone, a stranger's stays. */
    revoke: (value: string, clientId: string): void => {
      const grant = refreshTokens.get(value)?.grant
      if (grant?.clientId === clientId) grant.live = false
      if (accessTokens.get(value)?.grant.clientId === clientId) accessTokens.delete(value)
    },
    /** Whose a live access token is. */
    subjectOf: (value: string | undefined): string | undefined => {
      const access = accessTokens.get(value ?? '')
      return access?.grant.live && access.endsMs > nowMs() ? access.grant.subject : undefined
    },
    /** What an access token is for, however it was issued, as long as it lives; an exchanged one outlives its grant. */
    audienceOf: (value: string): string | undefined => {
      const access = accessTokens.get(value)
      return access && access.endsMs > nowMs() && (access.exchanged || access.grant.live) ? access.audience : undefined
    },
    /** The exchanged tokens that live. */
    exchanged: (): string[] =>
      [...accessTokens].flatMap(([token, { exchanged, endsMs }]) => (exchanged && endsMs > nowMs() ? [token] : [])),
    all: grants as readonly Grant[],
    /** Ends every access token now; refresh tokens live on. */
    expireAccessTokens: (): void => {
      for (const access of accessTokens.values()) access.endsMs = 0
    },
    /** Ends every grant of a user, as an administrator would. */
    end: (subject: string): void => {
      for (const grant of grants) if (grant.subject === subject) grant.live = false
    },
  }
}
