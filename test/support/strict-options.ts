import type { JWTPayload } from 'jose'

/** How the strict server differs from its defaults. */
export type StrictOptions = {
  /** Where the metadata is: RFC 8414, OpenID Connect Discovery, or both (the default). */
  metadata?: 'both' | 'oauth' | 'openid'
  /** False for plain OAuth: no `openid` scope, ID token, `nonce`, UserInfo, `prompt`, `login_hint`. */
  openid?: boolean
  scopes?: string[]
  authMethods?: string[]
  /** Registration wants this token, and refuses any token where there is none. */
  initialAccessToken?: string
  accessTokenSeconds?: number
  clientSecretSeconds?: number
  /** An update of a registration brings another secret in the place of another registration access token. */
  updateRenewsSecret?: boolean
  /** Resource indicators (RFC 8707) that are known; `resource` is an unknown parameter where none is. */
  resources?: string[]
  /** Tokens may be exchanged (RFC 8693). */
  exchange?: boolean
  /** Refresh tokens are used once and a second use ends the grant, or with `grace` gets the same answer again; true unless told. */
  rotation?: boolean | 'grace'
  /** A new code for a user and client ends their older grants. */
  oneGrantPerUser?: boolean
  par?: boolean
  /** Says that it does OpenID Connect Back-Channel Logout 1.0; the tokens are a test's to send. */
  backchannelLogout?: boolean
  /** The `iss` of RFC 9207 in authorization responses; true unless told. */
  iss?: boolean
  users?: Record<string, JWTPayload>
  /** Where others find it, if something stands in front of it. */
  publicUrl?: string
}
