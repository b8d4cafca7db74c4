import { registrationRequest } from '../shared/client-metadata.ts'
import { newClientKey } from '../shared/client-keys.ts'
import type { ClientKey } from '../shared/client-keys.ts'
import type { Stage } from '../shared/config.ts'
import { Failure } from '../shared/errors.ts'
import type { Send } from '../shared/http.ts'
import { readAgain, renewInPlace, takeUpInPlace } from '../shared/in-place.ts'
import { initialAccessToken } from '../shared/initial-access-token.ts'
import { registerNoted } from '../shared/noted-registration.ts'
import { probe } from '../shared/probe.ts'
import { createProviderSecret } from '../shared/provider-secret.ts'
import type { ProviderSecret } from '../shared/provider-secret.ts'
import { clientsOf } from '../shared/registration-changes.ts'
import { isInPlace } from '../shared/registration-record.ts'
import type { Pending, Registration } from '../shared/registration-record.ts'
import { unregister } from '../shared/registration.ts'
import { openRotation } from '../shared/rotation.ts'
import type { Rotation } from '../shared/rotation.ts'
import { random } from '../shared/seal.ts'
import type { Secrets, SecretVersions } from '../shared/secrets.ts'
import { rotationEdge } from './edge.ts'
import type { RotationEvent } from './edge.ts'
import { audit } from './report.ts'
import { now, pause, providerOfSecret, secrets, secretVersions, sendOnce, stage } from './runtime.ts'

interface Deps {
  stage: Stage
  secrets: Pick<Secrets, 'read'>
  versions: SecretVersions
  providerOf: (secret: string) => string | undefined
  send: Send
  now: () => number
  pause: (milliseconds: number) => Promise<void>
}

/** How often a client that was just registered is tried before it is believed that the server does not know it; milliseconds between. */
const PROBE_PAUSES_MS = [0, 500, 1_500]

/** How long a key is published before it signs: servers keep our key set for 300 seconds, and instances of ours for 60. */
const PUBLISHED_SECONDS = 600

/**
 * The keys after a rotation: the one that signs, the next one, the one before. Whatever signs has been published since the rotation before,
 * so that no server meets a key that is not in its copy of our key set; the one before is for instances that do not know yet.
 */
const nextKeys = ([signing, next]: readonly ClientKey[], fresh: ClientKey): ClientKey[] => {
  if (signing === undefined) return [fresh]
  return next === undefined ? [signing, fresh] : [next, fresh, signing]
}

const failed = (detail: string): Failure => new Failure('rotation_failed', { detail })

/**
 * The rotation of a provider's credentials, step by step: a second client takes the place of the first, which stays for the grants that
 * were made under it; or the first gets other credentials, where the server has no place for a second. Each step may be repeated, after a crash too.
 * @see AWS Secrets Manager user guide, "Lambda rotation functions"; RFC 7591 section 3
 */
export const rotate = (deps: Deps) => {
  const timeoutMs = deps.stage.renewal.authorization_server_timeout_seconds * 1_000

  const rotated = (provider: string, { retiring }: Registration): void =>
    audit('rotate', 'credentials_rotated', { provider, retiring: retiring.length })

  /** The client waits; a process that was faster has one waiting already, and ours is given back. */
  const keep = async (rotation: Rotation, pending: Pending, attempt: string): Promise<void> => {
    const client = pending.registration.current
    let kept: boolean
    try {
      kept = await rotation.keep(pending)
    } catch (error) {
      const waiting = await rotation.pending()
      if (waiting?.attempt !== attempt && (await unregister(deps.send, client))) await rotation.settle(attempt)
      throw error
    }
    if (kept || (await unregister(deps.send, client))) await rotation.settle(attempt)
  }

  /** Our client has other credentials, and they are current: the steps after this find nothing to do. */
  const renew = async (
    rotation: Rotation,
    secret: ProviderSecret,
    provider: string,
    registration: Registration,
    settings: Stage['providers'][string],
  ): Promise<void> => {
    if (registration.current.client_secret === undefined) {
      await rotation.abandon(undefined)
      throw failed('the client has no secret that could be renewed in place')
    }
    await renewInPlace({ ...deps, secret, rotation }, registrationRequest(deps.stage, provider, settings, undefined))
    rotated(provider, registration)
  }

  /** What comes next is made, and kept before anything else: a second client, or where our client has no secret, a further key. */
  const createSecret = async (rotation: Rotation, provider: string, secret: ProviderSecret): Promise<void> => {
    const waiting = await rotation.pending()
    if (waiting !== undefined) {
      if (isInPlace(waiting)) return await takeUp(rotation, provider, secret, waiting)
      if (waiting.attempt !== undefined) await rotation.settle(waiting.attempt)
      return
    }
    const { id: from, registration } = await rotation.current()
    const { metadata, current, keys = [] } = registration
    if (current.token_endpoint_auth_method === 'private_key_jwt') {
      if (deps.now() / 1_000 - (keys[1]?.created_at ?? 0) < PUBLISHED_SECONDS) {
        await rotation.abandon(undefined)
        throw failed(
          `the key that is to sign was published less than ${PUBLISHED_SECONDS} seconds ago; try again later`,
        )
      }
      const next = { ...registration, keys: nextKeys(keys, newClientKey(Math.floor(deps.now() / 1_000))) }
      await rotation.keep({ registration: next, from, attempt: undefined })
      return
    }
    const settings = deps.stage.providers[provider]
    if (settings === undefined) throw new Failure('provider_unknown', { detail: provider })
    if (registration.issuer !== settings.issuer) {
      // What the stage has for its issuer is not for the one before (RFC 9700 section 4.4).
      await rotation.abandon(undefined)
      throw failed('the stage names another issuer than the registration is of; a deploy registers there')
    }
    if (settings.rotation.mode === 'in-place') return await renew(rotation, secret, provider, registration, settings)
    const token = await initialAccessToken(deps.secrets, settings)
    const attempt = random(9)
    const wanted = { ...registrationRequest(deps.stage, provider, settings, token), attempt }
    const client = await registerNoted(deps.send, metadata, wanted, rotation, deps.now)
    const next = { ...registration, current: client, retiring: [current, ...registration.retiring] }
    await keep(rotation, { registration: next, from, attempt }, attempt)
  }

  /** What waits must not become current: its client is given back, and the rotation is over. */
  const giveUp = async (rotation: Rotation, { registration, attempt }: Pending, why: string): Promise<never> => {
    const { registration: known } = await rotation.current()
    const isKnown = clientsOf(known).some((client) => client.client_id === registration.current.client_id)
    const isGone = isKnown || (await unregister(deps.send, registration.current))
    await rotation.abandon(isGone ? undefined : attempt)
    throw failed(`${why}; what was new is given back, and what was there goes on`)
  }

  const waitingIn = async (rotation: Rotation): Promise<Pending> => {
    const pending = await rotation.pending()
    if (pending === undefined) throw failed('what is pending is not of ours')
    return pending
  }

  /** What an update of before brought is current, whatever has become of the stage since. */
  const takeUp = async (
    rotation: Rotation,
    provider: string,
    secret: ProviderSecret,
    pending: Pending,
  ): Promise<void> => {
    if (await takeUpInPlace({ ...deps, secret, rotation }, pending, timeoutMs)) {
      return rotated(provider, pending.registration)
    }
    await rotation.abandon(undefined)
    throw failed('the registration was changed by a deploy since; the credentials that the server takes are kept')
  }

  /** Both clients are of the issuer that the stage names (RFC 9700 section 4.4). There is nothing to set: the server made the credentials. */
  const setSecret = async (rotation: Rotation, provider: string): Promise<void> => {
    const pending = await waitingIn(rotation)
    const { registration } = await rotation.current()
    const issuers = new Set([pending, { registration }].map((one) => one.registration.issuer))
    // What came of an update is current already, or becomes it.
    if (isInPlace(pending)) return
    if (issuers.size > 1 || !issuers.has(deps.stage.providers[provider]?.issuer ?? ''))
      await giveUp(rotation, pending, 'the stage names another issuer since')
  }

  /** Whether the server takes what waits; where its answer is of no known kind, it has to be the one to what is current. */
  const isTaken = async (waiting: Registration, inUse: Registration): Promise<boolean> => {
    const ask = ({ metadata, current, keys = [] }: Registration) =>
      probe({ send: deps.send, timeoutMs, now: deps.now }, { metadata, client: current, keys })
    for (const pauseMs of PROBE_PAUSES_MS) {
      await deps.pause(pauseMs)
      const said = await ask(waiting)
      if (said === 'accepted') return true
      if (said !== 'rejected') return said === (await ask(inUse))
    }
    return false
  }

  /** The server takes the new client. AWS tries this step alone too, on a version that holds nothing of ours. */
  const testSecret = async (rotation: Rotation, secret: ProviderSecret): Promise<void> => {
    const pending = await rotation.pending()
    if (pending === undefined) return
    const { registration } = await rotation.current()
    if (isInPlace(pending)) {
      if (await isTaken(registration, registration)) return
      await readAgain({ ...deps, secret }, registration)
      const { registration: shown } = await rotation.current()
      if (await isTaken(shown, shown)) return
      throw failed('the server does not take the credentials that it issued; a repair registers a new client')
    }
    if (!(await isTaken(pending.registration, registration)))
      await giveUp(rotation, pending, 'the server does not take the client that it registered')
  }

  /** The new client is what logins begin with from now on. */
  const finishSecret = async (rotation: Rotation, provider: string, secret: ProviderSecret): Promise<void> => {
    const pending = await waitingIn(rotation)
    if (isInPlace(pending)) return await takeUp(rotation, provider, secret, pending)
    if (!(await rotation.promote(pending)))
      await giveUp(rotation, pending, 'the registration was changed by a deploy since')
    rotated(provider, pending.registration)
  }

  return async ({ Step: step, SecretId: name, ClientRequestToken: token }: RotationEvent): Promise<void> => {
    const provider = deps.providerOf(name)
    if (provider === undefined) throw failed('the secret is of no provider of this stage')
    const rotation = openRotation(deps.versions, name, token, () => random(24))
    const secret = createProviderSecret(deps.versions, name)
    const asked = step.replace('_s', 'S')
    if (asked === 'testSecret') return await testSecret(rotation, secret)
    if (!(await rotation.isOpen())) return
    switch (asked) {
      case 'createSecret':
        return await createSecret(rotation, provider, secret)
      case 'setSecret':
        return await setSecret(rotation, provider)
      case 'finishSecret':
        return await finishSecret(rotation, provider, secret)
      default:
        throw failed('a step that is none of createSecret, setSecret, testSecret and finishSecret')
    }
  }
}

export const handler = rotationEdge('rotate', (event) =>
  rotate({
    stage: stage(),
    secrets: secrets(),
    versions: secretVersions(),
    providerOf: providerOfSecret,
    send: sendOnce(),
    now,
    pause,
  })(event),
)
