import { header } from './http.ts'
import type { IncomingReply } from './http.ts'
import { jsonObject } from './json-reply.ts'

/** Coder says that it is no authorization server in ways that only make sense to those who know it. This module does. */

/** The release that made the OAuth2 provider a setting of its own; before, it was an experiment. */
const SETTING_SINCE_MINOR = 38

/** The version that a reply of Coder tells, such as 2.34.1; undefined for replies of others. */
export const coderVersion = (reply: IncomingReply): string | undefined => {
  const told = header(reply, 'x-coder-build-version')
  if (told === undefined) return undefined
  return /^v?(\d{1,4}\.\d{1,4}\.\d{1,4})/.exec(told)?.[1] ?? 'of an unknown version'
}

/** How every piece of advice begins. */
export const IS_CODER = 'this is Coder'

const howToEnable = (version: string): string => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (!(major >= 1)) return 'set CODER_OAUTH2_PROVIDER_ENABLE=true, or before 2.38 add oauth2 to CODER_EXPERIMENTS'
  return major > 2 || (major === 2 && minor >= SETTING_SINCE_MINOR)
    ? 'set CODER_OAUTH2_PROVIDER_ENABLE=true'
    : 'add oauth2 to CODER_EXPERIMENTS'
}

/** How an owner of Coder lets clients register. */
export const CODER_REGISTRATION = 'an owner turns it on with coder oauth2-provider dcr enable'

/**
 * What a reply of Coder means that is no metadata or refuses a registration, and what its operator does about it; undefined where it is not
 * Coder's, or nothing is off.
 */
export const coderAdvice = (reply: IncomingReply): string | undefined => {
  const version = coderVersion(reply)
  if (version === undefined) return undefined
  const coder = `${IS_CODER} ${version}`
  const body = jsonObject(reply)
  if (reply.status === 200 && body === undefined) return `${coder}, which has no OAuth2 provider yet; update it`
  if (reply.status === 403 && body?.['error'] !== undefined) {
    return `${coder}, and dynamic client registration is off; ${CODER_REGISTRATION}`
  }
  if (reply.status !== 403 && reply.status !== 404) return undefined
  return `${coder}, and its OAuth2 provider is off; ${howToEnable(version)}`
}
