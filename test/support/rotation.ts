import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  RotateSecretCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { REGION } from '../../infra/local/aws-call.ts'
import { operatorAccessKeyId } from '../../infra/local/stack.ts'
import type { startStrictStack } from './stacks.ts'

/** A client as the secret of a provider has it. */
export type StoredClient = { client_id: string; client_secret?: string; retired_at?: number; [member: string]: unknown }
/** What the secret of a provider holds. */
export type Stored = {
  current: StoredClient
  retiring: StoredClient[]
  keys?: { kid: string; created_at: number }[]
  [member: string]: unknown
}

/** What an operator does with the secret of a provider of a stack. */
export const openRotations = (
  { stack }: Pick<Awaited<ReturnType<typeof startStrictStack>>, 'stack'>,
  provider = 'Providerdemo',
) => {
  const client = new SecretsManagerClient({
    region: REGION,
    credentials: { accessKeyId: operatorAccessKeyId, secretAccessKey: 'operator' },
    endpoint: stack.endpoints.secretsManager,
    maxAttempts: 1,
  })
  const SecretId = stack.physicalId(provider)
  const labels = async (): Promise<Record<string, string[]>> =>
    (await client.send(new DescribeSecretCommand({ SecretId }))).VersionIdsToStages ?? {}
  return {
    secret: SecretId,
    /** A rotation begins; resolves with its token when it is done or given up. */
    rotate: async (): Promise<string> => {
      await stack.rotationIsIdle()
      const { VersionId } = await client.send(new RotateSecretCommand({ SecretId }))
      await stack.rotationIsIdle()
      return VersionId ?? ''
    },
    /** A rotation begins; resolves at once. */
    begin: async (): Promise<string> => (await client.send(new RotateSecretCommand({ SecretId }))).VersionId ?? '',
    labels,
    /** The id of the version with a label. */
    holderOf: async (label: string): Promise<string | undefined> =>
      Object.entries(await labels()).find(([, all]) => all.includes(label))?.[0],
    /** The registrations that were begun and that nobody knows the end of. */
    attempts: async (): Promise<string[]> =>
      Object.values(await labels()).flatMap((all) => all.filter((label) => label.startsWith('COATCHECK_ATTEMPT_'))),
    /** What is stored, now or under a label. */
    stored: async (VersionStage = 'AWSCURRENT'): Promise<Stored> =>
      JSON.parse((await client.send(new GetSecretValueCommand({ SecretId, VersionStage }))).SecretString ?? '{}'),
    /** A version that somebody else wrote is pending; resolves with its id. */
    putPending: async (value: string): Promise<string> => {
      const version = { SecretId, SecretString: value, VersionStages: ['AWSPENDING'] }
      return (await client.send(new PutSecretValueCommand(version))).VersionId ?? ''
    },
    /** That version is no longer pending. */
    removePending: async (version: string): Promise<void> => {
      const label = { SecretId, VersionStage: 'AWSPENDING', RemoveFromVersionId: version }
      await client.send(new UpdateSecretVersionStageCommand(label))
    },
    close: (): void => client.destroy(),
  }
}
