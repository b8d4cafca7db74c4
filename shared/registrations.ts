import { newClientKey } from './client-keys.ts'
import { registrationRequest, requestedScope, requestedText } from './client-metadata.ts'
import type { RegistrationRequest } from './client-metadata.ts'
import type { Client } from './client.ts'
import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import type { Send } from './http.ts'
import { initialAccessToken } from './initial-access-token.ts'
import { discover } from './metadata.ts'
import type { Metadata } from './metadata.ts'
import { registerNoted } from './noted-registration.ts'
import type { Notes } from './noted-registration.ts'
import { createProviderSecret } from './provider-secret.ts'
import type { Kept, ProviderSecret } from './provider-secret.ts'
import { begunAt, clientsOf, succeededBy, turnedTo, withClient, withoutFormer } from './registration-changes.ts'
import type { Registration } from './registration-record.ts'
import { parsePending } from './registration-record.ts'
import { unregister, update } from './registration.ts'
import { attemptsIn, openRotation } from './rotation.ts'
import { PENDING } from './secrets.ts'
import { random } from './seal.ts'
import type { Secrets, SecretVersions } from './secrets.ts'
import { staticKnowledge } from './static-client.ts'

/**
 * Our client at each provider is what the stage asks for. Every step looks first at what is kept, and keeps what it did before it goes
 * on, so that an event that comes twice finds nothing to do the second time.
 * @see RFC 8414 section 3, RFC 7591 section 3, RFC 7592
 */

/** What it takes to register. */
export interface RegistrationsDeps {
  stage: Stage
  secrets: Pick<Secrets, 'read'>
  versions: SecretVersions
  secretOf: (provider: string) => string | undefined
  send: Send
  now: () => number
  /** A client stays at the server although nobody needs it any more. */
  leftBehind: (provider: string, clientId: string) => void
}

/** How far it goes: what the stage asks for; an update in any case; a new client in any case. */
type Effort = 'as-needed' | 'update' | 'anew'

type Done = 'kept' | 'updated' | 'registered' | 'unmanaged'

interface Task {
  provider: string
  settings: Stage['providers'][string]
  secret: ProviderSecret
  notes: Notes
  metadata: Metadata
  wanted: RegistrationRequest
  effort: Effort
}

/** How often it starts over because somebody else has changed the secret. */
const ATTEMPTS = 4

const isUnmanageable = (error: unknown): error is Failure =>
  error instanceof Failure && (error.reason === 'registration_lost' || error.reason === 'registration_unmanaged')

/** Signing with keys is never turned on or off in place: until every instance knows, some would authenticate in the way that is void. */
const isOfOtherKind = ({ token_endpoint_auth_method: method }: Client, { jwks_uri }: RegistrationRequest): boolean =>
  (method === 'private_key_jwt') !== (jwks_uri !== undefined)

/** Whether a client that was registered before `requested` was kept was asked to be what is wanted now. */
const isOldButFits = (client: Client, { metadata, wanted }: Task): boolean =>
  client.requested === undefined &&
  client.redirect_uri === wanted.redirect_uri &&
  (client.requested_scope ?? '') === (requestedScope(metadata, wanted.scopes) ?? '')

/**
 * The registrations of a stage's providers.
 * @throws what discovery, registration and the secret throw; the detail is for the operator
 */
export const createRegistrations = (deps: RegistrationsDeps) => {
  const nowSeconds = (): number => Math.floor(deps.now() / 1_000)

  /** The registration with what was discovered just now, and with keys where the stage signs. */
  const complete = (registration: Registration, { metadata, settings }: Task): Registration => {
    // The first signs; the second is published from now on, and signs after the next rotation.
    const fresh = () => [newClientKey(nowSeconds()), newClientKey(nowSeconds())]
    const keys = registration.keys ?? (settings.rotation.mode === 'keys' ? fresh() : undefined)
    return { ...registration, metadata, ...(keys !== undefined && { keys }) }
  }

  /** A new client is registered and kept; undefined when somebody else has changed the secret meanwhile, and it is given back. */
  const registerNew = async (
    task: Task,
    kept: Kept,
    place: (client: Client) => Registration,
  ): Promise<Done | undefined> => {
    const token = await initialAccessToken(deps.secrets, task.settings)
    const attempt = random(9)
    const wanted = { ...task.wanted, initial_access_token: token, attempt }
    const client = await registerNoted(deps.send, task.metadata, wanted, task.notes, deps.now)
    const giveBack = async (): Promise<void> => {
      if (await unregister(deps.send, client)) await task.notes.settle(attempt)
      else deps.leftBehind(task.provider, client.client_id)
    }
    let isKept: boolean
    try {
      isKept = await task.secret.replace(kept, complete(place(client), task))
    } catch (error) {
      // It may have been kept all the same. Where that cannot be read, the note stays.
      const { registration } = await task.secret.read()
      if (registration?.current.client_id !== client.client_id) await giveBack()
      throw error
    }
    if (!isKept) {
      await giveBack()
      return undefined
    }
    await task.notes.settle(attempt)
    return 'registered'
  }

  /** The registration is updated at the server, or cannot be. */
  const updateClient = async (task: Task, known: Registration): Promise<Done | Failure> => {
    const { metadata, wanted, secret } = task
    const keep = (client: Client): Promise<void> =>
      secret.change((registration) => registration && withClient(registration, client))
    try {
      const client = await update(deps.send, metadata, known.current, wanted, keep)
      await secret.change((registration) => registration && complete(withClient(registration, client), task))
      return 'updated'
    } catch (error) {
      if (isUnmanageable(error)) return error
      throw error
    }
  }

  /** What is known at the issuer is made to fit, or followed by a client that does; undefined when it has to start over. */
  const renew = async (task: Task, kept: Kept, known: Registration): Promise<Done | undefined> => {
    const { metadata, wanted, secret, effort } = task
    const requested = requestedText(metadata, wanted)
    const fits = (client: Client): boolean => client.requested === requested && !isOfOtherKind(client, wanted)
    const keep = async (registration: Registration): Promise<Done | undefined> => {
      const next = complete(registration, task)
      if (JSON.stringify(next) === JSON.stringify(known)) return 'kept'
      return (await secret.replace(kept, next)) ? 'kept' : undefined
    }

    if (effort === 'as-needed') {
      if (fits(known.current)) return await keep(known)
      // A rollback: the client from before the change is there still.
      const isUsable = ({ client_secret_expires_at: ends = 0 }: Client): boolean => ends === 0 || ends > nowSeconds()
      const [before] = known.retiring
        .filter((client) => fits(client) && isUsable(client))
        .toSorted((one, other) => (other.retired_at ?? 0) - (one.retired_at ?? 0))
      if (before !== undefined) return await keep(succeededBy(known, before, nowSeconds()))
    }

    if (effort !== 'anew' && !isOfOtherKind(known.current, wanted)) {
      const done = await updateClient(task, known)
      if (!(done instanceof Failure)) return done
      if (done.reason === 'registration_unmanaged') {
        if (effort === 'update') return 'unmanaged'
        if (isOldButFits(known.current, task)) return await keep({ ...known, current: { ...known.current, requested } })
      }
    }
    const latest = await secret.read()
    const { registration } = latest
    const { client_id: id, registration_access_token: token } = known.current
    // A rotation or another deploy has been here: its client, or its registration access token, may do.
    if (registration?.current.client_id !== id || registration.current.registration_access_token !== token)
      return undefined
    return await registerNew(task, latest, (client) => succeededBy(registration, client, nowSeconds()))
  }

  /** What is known beside a client that an operator registered; clients of ours from before stay for their grants. */
  const keepStatic = async (task: Task, kept: Kept): Promise<Done | undefined> => {
    const { issuer } = task.settings
    const before = kept.registration === undefined ? undefined : turnedTo(kept.registration, issuer)
    const known = kept.known?.issuer === issuer ? kept.known : undefined
    const next = staticKnowledge(
      task.metadata,
      before === undefined ? (known?.retiring ?? []) : clientsOf(before),
      (before ?? known)?.keys,
    )
    if (JSON.stringify(next) === JSON.stringify(kept.known)) return 'kept'
    if (!(await task.secret.replace(kept, next))) return undefined
    const others = kept.registration === undefined ? [] : [kept.registration, ...(kept.registration.former ?? [])]
    for (const { client_id: id } of others.filter((one) => one.issuer !== issuer).flatMap(clientsOf)) {
      deps.leftBehind(task.provider, id)
    }
    return 'kept'
  }

  /** Notes of clients that are kept are gone: what wrote them was killed before it could take them away. */
  const settleKept = async ({ secret, notes }: Task, labels: Parameters<typeof attemptsIn>[0]): Promise<void> => {
    const open = attemptsIn(labels).map(({ id }) => id)
    if (open.length === 0) return
    const { registration } = await secret.read()
    const kept = registration === undefined ? [] : clientsOf(registration).map(({ attempt }) => attempt)
    for (const attempt of open) if (kept.includes(attempt)) await notes.settle(attempt)
  }

  const ensureOnce = async (task: Task, kept: Kept): Promise<Done | undefined> => {
    const { issuer, client } = task.settings
    if (client === 'static') return await keepStatic(task, kept)
    const before = kept.registration
    const known = before === undefined ? undefined : turnedTo(before, issuer)
    if (known === undefined) {
      const { retiring = [], keys } = kept.known?.issuer === issuer ? kept.known : {}
      const more = { retiring, ...(keys !== undefined && { keys }) }
      return await registerNew(task, kept, (first) => ({ ...begunAt(before, task.metadata, first), ...more }))
    }
    if (known === before) return await renew(task, kept, known)
    await task.secret.replace(kept, known)
    return undefined
  }

  /** The provider has a client that is what the stage asks for; how it came to that, and its id where it is ours to know. */
  const ensure = async (provider: string, effort: Effort): Promise<{ done: Done; clientId: string | undefined }> => {
    const settings = deps.stage.providers[provider]
    const name = deps.secretOf(provider)
    if (settings === undefined || name === undefined) throw new Failure('provider_unknown', { detail: provider })
    const { issuer, endpoint_origins: endpointOrigins } = settings
    const metadata = await discover(deps.send, issuer, endpointOrigins, settings.certificate_secret !== undefined)
    const secret = createProviderSecret(deps.versions, name)
    const wanted = registrationRequest(deps.stage, provider, settings, undefined)
    const notes = openRotation(deps.versions, name, 'deploy', () => random(24))
    const task = { provider, settings, secret, notes, metadata, wanted, effort }
    await settleKept(task, await deps.versions.labels(name))
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const done = await ensureOnce(task, await secret.read())
      if (done !== undefined) return { done, clientId: (await secret.read()).registration?.current.client_id }
    }
    throw new Failure('secrets_unavailable', { detail: 'the registration is changed by others at the same time' })
  }

  /** Clients of rotations that did not get to their end. */
  const waitingIn = async (name: string): Promise<Client[]> => {
    const labels = await deps.versions.labels(name)
    const ids = Object.keys(labels).filter(
      (id) => labels[id]?.includes(PENDING) || attemptsIn({ [id]: labels[id] ?? [] }).length > 0,
    )
    const versions = await Promise.all(ids.map((id) => deps.versions.find(name, { id })))
    return versions.flatMap((version) => (version && parsePending(version.value)?.registration.current) ?? [])
  }

  /** Our clients at an issuer (left out: at every one) are given up, each with its own credentials, where the server lets us. */
  const giveUp = async (provider: string, issuer: string | undefined): Promise<void> => {
    const name = deps.secretOf(provider)
    if (name === undefined) return deps.leftBehind(provider, 'unknown')
    const secret = createProviderSecret(deps.versions, name)
    const { registration, known } = await secret.read()
    const now = (registration ?? known)?.issuer
    if (now === undefined) return
    const isAll = issuer === undefined || issuer === now
    const given = [registration, ...(registration?.former ?? [])].filter((one) => isAll || one?.issuer === issuer)
    const clients = given.flatMap((one) => (one === undefined ? [] : clientsOf(one)))
    let isGone = true
    for (const client of [...clients, ...(isAll ? [...(known?.retiring ?? []), ...(await waitingIn(name))] : [])]) {
      if (await unregister(deps.send, client)) continue
      isGone = false
      deps.leftBehind(provider, client.client_id)
    }
    // What was not given up can be by hand, with what is kept.
    if (isGone) await secret.change((found) => (isAll ? undefined : found && withoutFormer(found, issuer)))
  }

  return { ensure, giveUp }
}
