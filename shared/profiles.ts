import type { Stage } from './config.ts'
import { IS_CODER } from './coder-advice.ts'
import { Failure } from './errors.ts'

/**
 * Profiles: what is right for every supported version of a product that is an authorization server. A profile stands in for settings that
 * the stage leaves out, before the stage is checked, so that functions meet plain settings only; here too are the settings that cannot be
 * right for it, and the words for an operator whose server does not do what Coatcheck needs.
 */

/** Profiles that there are. */
export const PROFILES = ['coder'] as const

type Profile = (typeof PROFILES)[number]
type Settings = Readonly<Record<string, unknown>>
type Complaint = { path: (string | number)[]; message: string }

/** Coder looks for a token here before it looks at the bearer header, so that nothing else of a call can take its place. */
const CODER_TOKEN_HEADER = 'Coder-Session-Token'
/** Of OpenID Connect, which Coder does not speak: from 2.38 on it refuses a sign-in that asks for one. */
const OPENID_SCOPES = new Set(['openid', 'profile', 'email', 'address', 'phone', 'offline_access'])

const isObject = (value: unknown): value is Settings =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const originOf = (url: unknown): string | undefined =>
  typeof url === 'string' && URL.canParse(url) ? new URL(url).origin : undefined

const isCoder = (provider: unknown): provider is Settings => isObject(provider) && provider['profile'] === 'coder'

const coderProvider = (settings: Settings): Settings => {
  const { issuer, account = {} } = settings
  const known = {
    url: `${String(issuer).replace(/\/$/, '')}/api/v2/users/me`,
    subject: 'id',
    claims: { preferred_username: 'username', picture: 'avatar_url' },
    token_header: CODER_TOKEN_HEADER,
  }
  return {
    grants: 'per-user',
    ...settings,
    // What is wrong with the issuer is said of the issuer.
    ...(originOf(issuer) !== undefined && { account: isObject(account) ? { ...known, ...account } : account }),
  }
}

/** The stage with what the profiles of its providers say, wherever it says nothing itself. It has not been checked yet, and may be anything. */
export const applyProfiles = (stage: unknown): unknown => {
  if (!isObject(stage) || !isObject(stage['providers'])) return stage
  const { providers, apis } = stage
  const each = (settings: Settings, change: (one: unknown) => unknown): Settings =>
    Object.fromEntries(Object.entries(settings).map(([name, one]) => [name, change(one)]))
  const api = (settings: unknown): unknown => {
    if (!isObject(settings)) return settings
    const name = String(settings['provider'])
    const provider = Object.hasOwn(providers, name) ? providers[name] : undefined
    const isOwn = isCoder(provider) && originOf(provider['issuer']) === originOf(settings['target'])
    return isOwn ? { token_header: CODER_TOKEN_HEADER, ...settings } : settings
  }
  return {
    ...stage,
    providers: each(providers, (one) => (isCoder(one) ? coderProvider(one) : one)),
    ...(isObject(apis) && { apis: each(apis, api) }),
  }
}

/** As Coder compares a resource with its access URL: without the slash at its end. */
const sameResource = (one: string, other: string): boolean =>
  new URL(one).href.replace(/\/$/, '') === new URL(other).href.replace(/\/$/, '')

/** Settings of the stage that contradict the profile of a provider, each with what to write instead. */
export const contradictions = (stage: Pick<Stage, 'providers' | 'apis'>): Complaint[] => {
  const coders = Object.entries(stage.providers).filter(([, { profile }]) => profile === 'coder')
  const ofProviders = coders.flatMap(([name, { grants, resource, issuer, scopes = [], rotation }]) => {
    const openid = scopes.filter((scope) => OPENID_SCOPES.has(scope)).join(', ')
    const checks: [right: boolean, setting: string, message: string][] = [
      [
        grants === 'per-user',
        'grants',
        'must be per-user, or left out: Coder keeps one live grant per user and client',
      ],
      [
        resource === undefined || sameResource(resource, issuer),
        'resource',
        'must be the issuer, or left out: Coder refuses tokens of any other resource',
      ],
      [
        rotation.mode === 'successor' || rotation.mode === 'off',
        'rotation',
        'must be of mode successor or off: Coder knows no private_key_jwt, and an update does not change a secret',
      ],
      [openid === '', 'scopes', `must not hold ${openid}: Coder does not speak OpenID Connect`],
    ]
    return checks.flatMap(([right, setting, message]) =>
      right ? [] : [{ path: ['providers', name, setting], message }],
    )
  })
  const names = new Set(coders.map(([name]) => name))
  const ofRoutes = Object.entries(stage.apis).flatMap(([key, { provider, resource, exchange }]) => {
    const message = 'must not have resource or exchange: Coder has one token a user, for itself'
    return names.has(provider) && (resource ?? exchange) !== undefined ? [{ path: ['apis', key], message }] : []
  })
  return [...ofProviders, ...ofRoutes]
}

const ADVICE: Record<Profile, Partial<Record<Failure['reason'], string>>> = {
  coder: {
    metadata_invalid:
      'Is the OAuth 2 provider of this Coder on? CODER_OAUTH2_PROVIDER_ENABLE=true turns it on from 2.38, CODER_EXPERIMENTS=oauth2 before. The issuer is its access URL, character by character.',
    registration_refused:
      'May clients register at this Coder? From 2.37 an owner allows it by "coder oauth2-provider dcr enable". Up to 2.31 it has metadata even where its OAuth 2 provider is off; CODER_EXPERIMENTS=oauth2 turns that on.',
  },
}

/** What went wrong at a provider's server, with what an operator of such a server can do about it. */
export const withAdvice = (error: unknown, profile: Profile | undefined): unknown => {
  const advice = profile !== undefined && error instanceof Failure ? ADVICE[profile][error.reason] : undefined
  if (advice === undefined || !(error instanceof Failure)) return error
  // Where the server told its version, the advice for that is there already.
  if (error.detail?.includes(IS_CODER) === true) return error
  return new Failure(error.reason, { detail: `${error.detail ?? error.reason}. ${advice}`, cause: error })
}
