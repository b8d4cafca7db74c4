import * as z from 'zod/mini'
import { describe, headerName, memberName, origin, plainUrl, scope } from './config-values.ts'
import { PROFILES } from './profiles.ts'

/** The settings of one provider: which authorization server, how Coatcheck is known there, and what it asks for. */

const account = z.strictObject({
  url: describe(
    plainUrl,
    "URL that answers GET with the user of the access token as a JSON object; on the issuer's origin or one of endpoint_origins.",
  ),
  subject: describe(
    memberName,
    'Member of that object that names the user for good, such as id: a string or a whole number, never used for anybody else.',
  ),
  claims: describe(
    z._default(z.record(memberName, memberName), {}),
    'Claims by the member that they are taken from, such as {"preferred_username": "username"}; others are taken from the member of their own name. sub is the subject.',
  ),
  token_header: describe(
    z.optional(headerName),
    'Header that carries the access token alone, such as X-Api-Token. Left out, or Authorization: Authorization: Bearer.',
  ),
})

const secretName = z
  .string()
  .check(
    z.regex(
      /^(arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:)?[\w/+=.@-]{1,512}$/,
      'must be the name or ARN of a Secrets Manager secret',
    ),
  )

const rotation = z.strictObject({
  mode: describe(
    z._default(z.enum(['successor', 'in-place', 'keys', 'off']), 'successor'),
    'successor: a second client is registered and takes over; the one before stays for the sessions that began under it, and is deleted when those are over. in-place: for servers that issue another secret when the registration is updated (RFC 7592) and allow no second client; the former is void at once, and for a moment requests wait. keys: the client has no secret and signs with keys of ours (private_key_jwt, ES256), which the server reads at /bff/jwks.json and has to reach there; they are renewed. off: credentials stay as they are.',
  ),
  every_days: describe(
    z._default(
      z
        .int('must be a whole number from 1 to 1000')
        .check(z.gte(1, 'must be at least 1'), z.lte(1_000, 'must be at most 1000')),
      30,
    ),
    'How often, in days. A secret that expires sooner is rotated in time all the same.',
  ),
})

/** A provider, as the stage file writes it. */
export const provider = z
  .strictObject({
    issuer: describe(plainUrl, 'Issuer of the authorization server, character by character as its metadata says it.'),
    profile: describe(
      z.optional(z.enum(PROFILES)),
      'What the authorization server is, where Coatcheck knows it: settings that are left out are those that are right for it. coder: see docs/coder.md.',
    ),
    client: describe(
      z._default(z.enum(['dynamic', 'static']), 'dynamic'),
      'dynamic: Coatcheck registers itself (RFC 7591). static: an operator registered a client and writes it into a secret of the stack; see docs/operations.md.',
    ),
    client_name: describe(
      z._default(
        z.string().check(z.minLength(1), z.maxLength(64), z.regex(/^\P{C}*$/u, 'must be in visible characters')),
        'Coatcheck',
      ),
      'Name under which Coatcheck registers; people read it on the consent page.',
    ),
    client_logo_uri: describe(
      z.optional(plainUrl.check(z.maxLength(255))),
      'URL of a picture that authorization servers may show beside that name. Left out: none is registered.',
    ),
    scopes: describe(
      z.optional(z.array(scope).check(z.minLength(1), z.maxLength(64))),
      'Scopes to register and request. Left out: those of openid, profile, email and offline_access that the server announces.',
    ),
    resource: describe(
      z.optional(plainUrl),
      'RFC 8707 resource indicator, sent the same at authorization, redeeming and refreshing. Left out: none is sent.',
    ),
    grants: describe(
      z._default(z.enum(['per-session', 'per-user']), 'per-session'),
      'per-user where the server keeps one live grant per user and client, so that all sessions of a user have to share it.',
    ),
    claims: describe(
      z._default(z.array(z.string().check(z.minLength(1), z.maxLength(64))).check(z.maxLength(64)), [
        'sub',
        'name',
        'preferred_username',
        'email',
        'picture',
      ]),
      'Claims about the user that GET /bff/session shows; all others are dropped at login.',
    ),
    account: describe(
      z.optional(account),
      'Where to ask who signed in, for servers that issue no ID token. There is no session where it cannot be told.',
    ),
    initial_access_token_secret: describe(
      z.optional(secretName),
      'Name or ARN of an existing Secrets Manager secret whose value is the initial access token for registration (RFC 7591 section 3).',
    ),
    api_token: describe(
      z._default(z.enum(['off', 'fallback', 'preferred']), 'off'),
      'Whether people may sign in with an API token that they paste: never, where the server has no OAuth that can be used, or first of all. Needs account, which tells whose it is.',
    ),
    certificate_secret: describe(
      z.optional(secretName),
      'Name or ARN of an existing Secrets Manager secret with a client certificate, its chain and its private key in PEM, shown to the servers of this provider and its APIs (mutual TLS).',
    ),
    rotation: describe(z.prefault(rotation, {}), 'How the credentials of a dynamic client are renewed.'),
    endpoint_origins: describe(
      z._default(z.array(origin).check(z.maxLength(8)), []),
      "Origins other than the issuer's that its endpoints may be on.",
    ),
  })
  .check(
    z.superRefine(({ api_token: mode, account: asked }, context) => {
      if (mode === 'off' || asked !== undefined) return
      const message = 'needs account, which tells whose a token is'
      context.addIssue({ code: 'custom', message, path: ['api_token'], input: mode })
    }),
    z.superRefine(({ client, initial_access_token_secret: token, rotation: { mode } }, context) => {
      if (client !== 'static') return
      const words = 'must be left out where client is static: an operator does that'
      if (token !== undefined)
        context.addIssue({ code: 'custom', message: words, path: ['initial_access_token_secret'], input: token })
      if (mode === 'keys' || mode === 'in-place')
        context.addIssue({ code: 'custom', message: words, path: ['rotation', 'mode'], input: mode })
    }),
  )
