import type { Stage } from './config.ts'

/** The stage as functions have it: read back from what the deploy wrote, and the URLs that follow from it. */

/**
 * The stage that the CDK app has checked against the schema of `shared/config` and written out with every default. It is believed:
 * whoever can change a function's environment can change its code, and to build the schema again would take 15 ms of each cold start.
 * @throws SyntaxError when the text is not JSON
 */
export const readStage = (text: string): Stage => JSON.parse(text) as Stage

/** The callback URL registered for a provider: the one redirect URI of its client. */
export const callbackUrl = (stage: Stage, providerName: string): string =>
  `${stage.origin}/bff/callback/${providerName}`

/** The URL that an authorization server sends the browser back to after RP-initiated logout. */
export const postLogoutUrl = (stage: Stage): string => `${stage.origin}/bff/logout`

/** The URL that an authorization server posts logout tokens to (OpenID Connect Back-Channel Logout 1.0). */
export const backchannelLogoutUrl = (stage: Stage, providerName: string): string =>
  `${stage.origin}/bff/backchannel-logout/${providerName}`

/** The URL of the public keys of our clients. */
export const jwksUrl = (stage: Stage): string => `${stage.origin}/bff/jwks.json`

/** The path at which a login of that provider starts over, to the same place. */
export const loginPath = (provider: string | undefined, returnTo?: string): string => {
  const parameters = new URLSearchParams({
    ...(provider !== undefined && { provider }),
    ...(returnTo !== undefined && { return_to: returnTo }),
  })
  return parameters.size === 0 ? '/bff/login' : `/bff/login?${parameters.toString()}`
}

/** The provider of a login that names none. */
export const defaultProvider = (stage: Stage): string => stage.default_provider ?? Object.keys(stage.providers)[0] ?? ''
