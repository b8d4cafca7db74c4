import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  ResourceNotFoundException,
  RotateSecretCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { causeName, Failure } from './errors.ts'

/** Secrets Manager, as far as functions that change nothing there need it. */
export interface Secrets {
  /** The value of a secret that has that label, the current one if none is said; undefined when there is none. @throws secrets_unavailable */
  read(secret: string, label?: string): Promise<string | undefined>
}

/** A value of a secret and the id of that version, which is what AWS calls its ClientRequestToken: 32 to 64 characters. */
export interface SecretVersion {
  id: string
  value: string
}

/** A secret as its versions, each of which never changes, and the labels that are on them. Each call throws secrets_unavailable. */
export interface SecretVersions {
  /** The version of that id, or with that label; undefined where there is none, or where it has no value yet. */
  find(secret: string, which: { id: string } | { label: string }): Promise<SecretVersion | undefined>
  /** The labels of every version that has one, by its id. */
  labels(secret: string): Promise<Readonly<Record<string, readonly string[]>>>
  /** The version is there with this label, which leaves any other; false when its id has another value already. */
  add(secret: string, version: SecretVersion, label: string): Promise<boolean>
  /** The label has moved from one version to the other, or off it; false when another version has it. Atomic. */
  move(secret: string, label: string, ends: { from?: string; to?: string }): Promise<boolean>
  /** The version is current in the place of `from` (undefined: of none); false, and nothing has changed, when another one was. */
  replace(secret: string, version: SecretVersion, from: string | undefined): Promise<boolean>
  /** A rotation has begun; false when one was under way, which is taken up again. */
  rotate(secret: string): Promise<boolean>
}

/** The label of what is current. */
export const CURRENT = 'AWSCURRENT'
/** The label of what is to become current. */
export const PENDING = 'AWSPENDING'
/** A version that is about to become current by `replace` waits under this one. */
const NEXT = 'COATCHECK_NEXT'

const createClient = (): SecretsManagerClient =>
  new SecretsManagerClient({
    maxAttempts: 3,
    requestHandler: { connectionTimeout: 1_000, requestTimeout: 3_000, throwOnRequestTimeout: true },
  })

const unavailable = (error: unknown): Failure => {
  const refused = error instanceof Error && error.name === 'AccessDeniedException' ? error.message : causeName(error)
  return new Failure('secrets_unavailable', { detail: refused, cause: error, retryAfterSeconds: 1 })
}

const isNamed = (error: unknown, ...names: string[]): boolean => error instanceof Error && names.includes(error.name)

/** Calls on Secrets Manager by secret name or ARN. */
export const createSecrets = (): Secrets => {
  const client = createClient()
  return {
    async read(secret, label) {
      try {
        const reply = await client.send(new GetSecretValueCommand({ SecretId: secret, VersionStage: label }))
        return reply.SecretString
      } catch (error) {
        if (error instanceof ResourceNotFoundException) return undefined
        throw unavailable(error)
      }
    },
  }
}

/** Calls on the versions of secrets, for what changes them. */
export const createSecretVersions = (): SecretVersions => {
  const client = createClient()

  /** What the call answers, or the other value where it fails with an error of one of these names. */
  const unless = async <T, U>(names: readonly string[], otherwise: U, run: () => Promise<T>): Promise<T | U> => {
    try {
      return await run()
    } catch (error) {
      if (isNamed(error, ...names)) return otherwise
      throw unavailable(error)
    }
  }

  const add: SecretVersions['add'] = (secret, { id, value }, label) =>
    unless(['ResourceExistsException'], false, async () => {
      const version = { SecretId: secret, SecretString: value, ClientRequestToken: id, VersionStages: [label] }
      await client.send(new PutSecretValueCommand(version))
      return true
    })

  const labels: SecretVersions['labels'] = (secret) =>
    unless([], {}, async () => {
      const reply = await client.send(new DescribeSecretCommand({ SecretId: secret }))
      return reply.VersionIdsToStages ?? {}
    })

  const move: SecretVersions['move'] = async (secret, label, { from, to }) => {
    const isMoved = await unless(['InvalidParameterException', 'InvalidRequestException'], false, async () => {
      const ends = { SecretId: secret, VersionStage: label, RemoveFromVersionId: from, MoveToVersionId: to }
      await client.send(new UpdateSecretVersionStageCommand(ends))
      return true
    })
    if (isMoved || to === undefined) return isMoved
    // The SDK repeats a call whose answer was lost, and the repeated one finds the label moved.
    return (await labels(secret))[to]?.includes(label) ?? false
  }

  return {
    find: (secret, which) =>
      unless(['ResourceNotFoundException'], undefined, async () => {
        const version = 'id' in which ? { VersionId: which.id } : { VersionStage: which.label }
        const reply = await client.send(new GetSecretValueCommand({ SecretId: secret, ...version }))
        const { VersionId: id, SecretString: value } = reply
        return id === undefined || value === undefined ? undefined : { id, value }
      }),

    labels,
    add,
    move,

    async replace(secret, version, from) {
      // The first value of a secret is current whatever its label.
      if (!(await add(secret, version, from === undefined ? CURRENT : NEXT))) return false
      return from === undefined || (await move(secret, CURRENT, { from, to: version.id }))
    },

    rotate: (secret) =>
      unless(['InvalidRequestException'], false, async () => {
        await client.send(new RotateSecretCommand({ SecretId: secret }))
        return true
      }),
  }
}
