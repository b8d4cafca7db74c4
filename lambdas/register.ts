import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import { withAdvice } from '../shared/profiles.ts'
import { createRegistrations } from '../shared/registrations.ts'
import type { RegistrationsDeps } from '../shared/registrations.ts'
import { pseudonym } from '../shared/seal.ts'
import { customResource, isFailedCreate } from './custom-resource.ts'
import type { ResourceEvent, ResourceOutcome } from './custom-resource.ts'
import { audit, reportFailure } from './report.ts'
import { now, providerSecret, secrets, secretVersions, sendOnce, stage } from './runtime.ts'

/** The custom resource that keeps our client at a provider equal to the stage, and the repair of it. */

/** The issuer that the stage named when it made a resource with these properties. */
const issuerOf = ({ Settings: text }: Readonly<Record<string, string>>): string | undefined => {
  const settings: unknown = text === undefined ? undefined : JSON.parse(text)
  const issuer = typeof settings === 'object' && settings !== null && 'issuer' in settings ? settings.issuer : undefined
  return typeof issuer === 'string' ? issuer : undefined
}

/** Where people may sign in with API tokens, a server that has no OAuth we can use does not fail the deploy: the log says why. */
const orWithoutOAuth = async <T extends { clientId: string | undefined }>(
  { providers }: Stage,
  provider: string,
  run: () => Promise<T>,
): Promise<Pick<T, 'clientId'>> => {
  try {
    return await run()
  } catch (error) {
    const byToken = Object.hasOwn(providers, provider) && providers[provider]?.api_token !== 'off'
    const without = error instanceof Failure && ['metadata_invalid', 'registration_refused'].includes(error.reason)
    if (!byToken || !without) throw error
    reportFailure('register', error)
    return { clientId: undefined }
  }
}

/**
 * What CloudFormation asks for: a client at the issuer that the stage names, or none. Another issuer is another resource, so that
 * CloudFormation has the clients at the one before deleted once it will not go back to it. So it does where the provider is gone.
 */
export const register =
  (deps: RegistrationsDeps) =>
  async ({ type, id, properties, oldProperties }: ResourceEvent): Promise<ResourceOutcome> => {
    const provider = properties['Provider'] ?? ''
    const issuer = issuerOf(properties)
    if (type === 'Delete') {
      // A stage that no longer has the provider does not know its secret either.
      const secretOf = (name: string): string | undefined => deps.secretOf(name) ?? properties['Secret']
      if (!isFailedCreate(id)) await createRegistrations({ ...deps, secretOf }).giveUp(provider, issuer)
      return { id: id ?? provider, attributes: {} }
    }
    const { ensure } = createRegistrations(deps)
    const { clientId } = await orWithoutOAuth(deps.stage, provider, () => ensure(provider, 'as-needed'))
    const named = pseudonym(deps.stage.providers[provider]?.issuer ?? '')
    const isSame = type === 'Update' && issuerOf(oldProperties) === issuer
    return {
      id: isSame && id !== undefined ? id : `registration-${provider}-${named}`,
      attributes: clientId === undefined ? {} : { ClientId: clientId },
    }
  }

/** What an operator orders: `{"repair": "<provider>"}`, with `"anew": true` a new client whatever there is. */
export const repair =
  (deps: RegistrationsDeps) =>
  async (order: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> => {
    const { repair: provider, anew = false, ...others } = order
    if (typeof provider !== 'string' || typeof anew !== 'boolean' || Object.keys(others).length > 0) {
      throw new Failure('request_invalid', { detail: 'say {"repair": "<provider>"}, if need be with "anew": true' })
    }
    const { done, clientId } = await createRegistrations(deps).ensure(provider, anew ? 'anew' : 'update')
    return { provider, done, client_id: clientId }
  }

const composed = (): RegistrationsDeps => ({
  stage: stage(),
  secrets: secrets(),
  versions: secretVersions(),
  secretOf: providerSecret,
  send: sendOnce(),
  now,
  leftBehind: (provider, clientId) => audit('register', 'client_left_behind', { provider, client_id: clientId }),
})

const advised = async <T>(provider: unknown, run: () => Promise<T>): Promise<T> => {
  try {
    return await run()
  } catch (error) {
    throw withAdvice(error, stage().providers[String(provider)]?.profile)
  }
}

export const handler = customResource(
  'register',
  (event) => advised(event.properties['Provider'], () => register(composed())(event)),
  (order) => advised(order['repair'], () => repair(composed())(order)),
)
