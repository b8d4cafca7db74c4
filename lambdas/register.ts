import * as z from 'zod/mini'
import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import { withAdvice } from '../shared/profiles.ts'
import { lookAt } from '../shared/registration-look.ts'
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

/** What an operator orders: to look at the registration, or to repair it, if need be with a new client whatever there is. */
const orderSchema = () => {
  const provider = z.string().check(z.regex(/^[a-z][a-z0-9-]{0,31}$/))
  return z.union([
    z.strictObject({ show: provider }),
    z.strictObject({ repair: provider, anew: z.optional(z.boolean()) }),
  ])
}

const providerIn = (order: unknown): string => {
  const { data } = orderSchema().safeParse(order)
  if (data === undefined) return ''
  return 'show' in data ? data.show : data.repair
}

/** Carries out what an operator orders; the outcome holds no secret. @throws request_invalid, and what looking and registering throw */
export const obey =
  (deps: RegistrationsDeps) =>
  async (given: unknown): Promise<object> => {
    const { success, data: order } = orderSchema().safeParse(given)
    if (!success) {
      const detail = 'say {"show": "<provider>"} or {"repair": "<provider>"}, if need be with "anew": true'
      throw new Failure('request_invalid', { detail })
    }
    if ('show' in order) return await lookAt(deps, order.show)
    const { done, clientId } = await createRegistrations(deps).ensure(order.repair, order.anew ? 'anew' : 'update')
    return { provider: order.repair, done, client_id: clientId }
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
  (order) => advised(providerIn(order), () => obey(composed())(order)),
)
