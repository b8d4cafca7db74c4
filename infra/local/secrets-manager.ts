import { randomUUID } from 'node:crypto'
import {
  ACCOUNT_ID,
  type AwsOperation,
  type AwsServer,
  type Gate,
  isRecord,
  refusal,
  REGION,
  serveAws,
} from './aws-call.ts'
import { generateSecretString } from './secret-generation.ts'
import { createRotations, describeRotation, type RotationOptions, rotationToken } from './secret-rotation.ts'
import {
  addVersion,
  chooseVersion,
  holderOf,
  invalidParameter,
  maxStages,
  moveStage,
  type Secret,
  tooManyStages,
} from './secret-versions.ts'

type Input = Record<string, unknown>

const arnPrefix = `arn:aws:secretsmanager:${REGION}:${ACCOUNT_ID}:secret:`
const maxValueBytes = 65_536
const dayMs = 86_400_000

/** A Secrets Manager, and what the operator of the local run has of it. */
export interface SecretsManager extends AwsServer {
  /** The new secret's ARN, past gate and policy. */
  createSecret: (secret: { Name: string; Description?: string; SecretString?: string }) => Promise<string>
  /** Resolves when no rotation is under way any more. */
  rotationIsIdle: () => Promise<void>
}

/**
 * A Secrets Manager answers on a free port of 127.0.0.1, empty, its values in memory only. It knows the operations that
 * read, write and rotate values and move staging labels; binary values are not among them. Nothing is rotated by time.
 * Source: AWS Secrets Manager API reference.
 */
export async function startSecretsManager(options: {
  gate: Gate
  rotation?: RotationOptions
}): Promise<SecretsManager> {
  const secrets = new Map<string, Secret>()
  const rotations = createRotations(
    options.rotation ?? { invoke: () => Promise.reject(new Error('there are no functions')) },
  )

  /** By name, ARN, or ARN without the random suffix. */
  const find = (secretId: unknown): Secret | undefined => {
    if (typeof secretId !== 'string') return undefined
    if (!secretId.startsWith('arn:')) return secrets.get(secretId)
    return [...secrets.values()].find(({ arn, name }) => secretId === arn || secretId === arnPrefix + name)
  }
  const get = (input: Input): Secret => {
    const secret = find(requiredText(input, 'SecretId'))
    if (!secret) throw refusal('ResourceNotFoundException', "Secrets Manager can't find the specified secret.")
    return secret
  }
  const getLive = (input: Input): Secret => {
    const secret = get(input)
    if (secret.deletedMs === undefined) return secret
    throw refusal(
      'InvalidRequestException',
      "You can't perform this operation on the secret because it was marked for deletion.",
    )
  }

  const operations: Record<string, AwsOperation> = {
    CreateSecret: (input) => {
      const name = requiredText(input, 'Name')
      if (!/^[\w/+=.@!-]{1,512}$/.test(name))
        throw refusal(
          'ValidationException',
          'Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!',
        )
      const existing = secrets.get(name)
      if (existing?.deletedMs !== undefined)
        throw refusal(
          'InvalidRequestException',
          "You can't create this secret because a secret with this name is already scheduled for deletion.",
        )
      const value = readValue(input)
      const token = readToken(input)
      if (existing) {
        if (value === undefined || existing.versions.get(token)?.value !== value)
          throw refusal('ResourceExistsException', `The operation failed because the secret ${name} already exists.`)
        return { ARN: existing.arn, Name: name, VersionId: token }
      }
      const nowMs = Date.now()
      const secret: Secret = {
        arn: `${arnPrefix}${name}-${arnSuffix()}`,
        name,
        description: optionalText(input, 'Description'),
        createdMs: nowMs,
        changedMs: nowMs,
        deletedMs: undefined,
        versions: new Map(),
      }
      secrets.set(name, secret)
      if (value === undefined) return { ARN: secret.arn, Name: name }
      addVersion(secret, { id: token, value, createdMs: nowMs, stages: [] }, ['AWSCURRENT'])
      return { ARN: secret.arn, Name: name, VersionId: token }
    },

    PutSecretValue: (input) => {
      const secret = getLive(input)
      const value = readValue(input)
      const token = readToken(input)
      const stages = readStages(input)
      if (value === undefined)
        throw refusal('InvalidRequestException', 'You must provide either SecretString or SecretBinary.')
      const existing = secret.versions.get(token)
      if (existing?.value !== undefined && existing.value !== value)
        throw refusal('ResourceExistsException', 'A resource with the ID you requested already exists.')
      const version = existing ?? { id: token, value, createdMs: Date.now(), stages: [] }
      if (existing?.value === undefined) {
        version.value = value
        addVersion(secret, version, holderOf(secret, 'AWSCURRENT') ? stages : [...stages, 'AWSCURRENT'])
      }
      return { ARN: secret.arn, Name: secret.name, VersionId: token, VersionStages: version.stages }
    },

    GetSecretValue: (input) => {
      const secret = getLive(input)
      const version = chooseVersion(secret, optionalText(input, 'VersionId'), optionalText(input, 'VersionStage'))
      return {
        ARN: secret.arn,
        Name: secret.name,
        VersionId: version.id,
        SecretString: version.value,
        VersionStages: version.stages,
        CreatedDate: version.createdMs / 1000,
      }
    },

    UpdateSecretVersionStage: (input) => {
      const secret = getLive(input)
      moveStage(
        secret,
        requiredText(input, 'VersionStage'),
        optionalText(input, 'RemoveFromVersionId'),
        optionalText(input, 'MoveToVersionId'),
      )
      secret.changedMs = Date.now()
      return { ARN: secret.arn, Name: secret.name }
    },

    RotateSecret: (input) => {
      const secret = getLive(input)
      const token = rotationToken(input)
      rotations.rotate(secret, input, token)
      return { ARN: secret.arn, Name: secret.name, VersionId: token }
    },

    ListSecrets: (input) => ({
      SecretList: [...secrets.values()]
        .filter((secret) => secret.deletedMs === undefined && fitsFilters(secret, input['Filters']))
        .map(({ arn, name, description }) => ({ ARN: arn, Name: name, Description: description })),
    }),

    DescribeSecret: (input) => {
      const secret = get(input)
      const labelled = [...secret.versions.values()].filter(({ stages }) => stages.length > 0)
      return {
        ARN: secret.arn,
        Name: secret.name,
        Description: secret.description,
        CreatedDate: secret.createdMs / 1000,
        LastChangedDate: secret.changedMs / 1000,
        DeletedDate: secret.deletedMs === undefined ? undefined : secret.deletedMs / 1000,
        ...describeRotation(secret),
        VersionIdsToStages:
          labelled.length === 0 ? undefined : Object.fromEntries(labelled.map(({ id, stages }) => [id, stages])),
      }
    },

    DeleteSecret: (input) => {
      const { ForceDeleteWithoutRecovery: force, RecoveryWindowInDays: days } = input
      if (force === true && days !== undefined)
        throw invalidParameter("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
      if (days !== undefined && !(typeof days === 'number' && days >= 7 && days <= 30))
        throw invalidParameter('The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).')
      const nowMs = Date.now()
      if (force === true) {
        const name = requiredText(input, 'SecretId')
        const secret = find(name) ?? { arn: `${arnPrefix}${name}-${arnSuffix()}`, name }
        secrets.delete(secret.name)
        return { ARN: secret.arn, Name: secret.name, DeletionDate: nowMs / 1000 }
      }
      const secret = getLive(input)
      secret.deletedMs = nowMs
      const windowDays = typeof days === 'number' ? days : 30
      return { ARN: secret.arn, Name: secret.name, DeletionDate: (nowMs + windowDays * dayMs) / 1000 }
    },
  }

  const resources = (_: string, input: Input) => {
    const secretId = optionalText(input, 'SecretId') ?? optionalText(input, 'Name') ?? '*'
    return [find(secretId)?.arn ?? (/^arn:|^\*$/.test(secretId) ? secretId : arnPrefix + secretId)]
  }
  /** Who rotates a secret must be allowed to invoke its function. */
  const also = (operation: string, input: Input) => {
    const functionArn = operation === 'RotateSecret' ? find(input['SecretId'])?.rotation?.lambdaArn : undefined
    return functionArn === undefined ? [] : [{ action: 'lambda:InvokeFunction', resource: functionArn }]
  }
  const server = await serveAws(
    { service: 'secretsmanager', target: 'secretsmanager', json: '1.1', operations, resources, also },
    options.gate,
  )
  return {
    ...server,
    close: async () => {
      await rotations.close()
      await server.close()
    },
    rotationIsIdle: rotations.idle,
    createSecret: async (secret) => String((await server.call('CreateSecret', { ...secret }))['ARN']),
  }
}

/** ListSecrets by description: the words that it begins with, whatever their case. */
function fitsFilters(secret: Secret, filters: unknown): boolean {
  if (filters === undefined) return true
  if (!Array.isArray(filters)) throw invalidParameter('Filters is a list.')
  return filters.every((filter) => {
    const { Key: key, Values: values } = isRecord(filter) ? filter : {}
    if (key !== 'description' || !Array.isArray(values))
      throw invalidParameter(`The local run filters by description, not by ${String(key)}.`)
    return values.some((value) => (secret.description ?? '').toLowerCase().startsWith(String(value).toLowerCase()))
  })
}

function optionalText(input: Input, member: string): string | undefined {
  const value = input[member] ?? undefined
  if (value !== undefined && typeof value !== 'string')
    throw refusal('SerializationException', `${member} is not a string`)
  return value
}

function requiredText(input: Input, member: string): string {
  const value = optionalText(input, member)
  if (value === undefined || value === '') throw refusal('ValidationException', `${member} must not be null or empty`)
  return value
}

function readToken(input: Input): string {
  const token = optionalText(input, 'ClientRequestToken') ?? randomUUID()
  if (token.length < 32 || token.length > 64)
    throw invalidParameter('ClientRequestToken must be 32-64 characters long.')
  return token
}

function readValue(input: Input): string | undefined {
  if (input['SecretBinary'] !== undefined) throw invalidParameter('The local run stores no SecretBinary.')
  const value = optionalText(input, 'SecretString')
  const bytes = Buffer.byteLength(value ?? ' ')
  if (bytes < 1 || bytes > maxValueBytes)
    throw refusal(
      'ValidationException',
      "1 validation error detected: Value at 'secretString' failed to satisfy constraint: Member must have length " +
        (bytes < 1 ? 'greater than or equal to 1' : `less than or equal to ${maxValueBytes}`),
    )
  return value
}

function readStages(input: Input): string[] {
  const stages = input['VersionStages'] ?? ['AWSCURRENT']
  if (!Array.isArray(stages) || !stages.every((stage) => typeof stage === 'string' && /^.{1,256}$/s.test(stage)))
    throw invalidParameter('VersionStages is a list of labels of 1 to 256 characters.')
  if (stages.length === 0) throw invalidParameter('VersionStages must have at least one label.')
  if (stages.length > maxStages) throw tooManyStages()
  return stages
}

/** The six random characters that AWS appends to a secret's name in its ARN. */
function arnSuffix(): string {
  return generateSecretString({ PasswordLength: 6, ExcludePunctuation: true, RequireEachIncludedType: false })
}
