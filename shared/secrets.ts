import {
  GetSecretValueCommand,
  PutSecretValueCommand,
  ResourceNotFoundException,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager'
import { causeName, Failure } from './errors.ts'

/** Secrets Manager, as the two calls that Coatcheck makes of it. */
export interface Secrets {
  /** The current value of a secret, or undefined when it has none yet. @throws secrets_unavailable */
  read(secret: string): Promise<string | undefined>
  /** The value is current; writing the same value under the same token (32 to 64 characters) again changes nothing. @throws secrets_unavailable */
  write(secret: string, value: string, token: string): Promise<void>
}

/** Calls on Secrets Manager by secret name or ARN. */
export const createSecrets = (): Secrets => {
  const client = new SecretsManagerClient({
    maxAttempts: 3,
    requestHandler: { connectionTimeout: 1_000, requestTimeout: 3_000, throwOnRequestTimeout: true },
  })

  const unavailable = (error: unknown): Failure => {
    const refused = error instanceof Error && error.name === 'AccessDeniedException' ? error.message : causeName(error)
    return new Failure('secrets_unavailable', { detail: refused, cause: error, retryAfterSeconds: 1 })
  }

  return {
    async read(secret) {
      try {
        const reply = await client.send(new GetSecretValueCommand({ SecretId: secret }))
        return reply.SecretString
      } catch (error) {
        if (error instanceof ResourceNotFoundException) return undefined
        throw unavailable(error)
      }
    },

    async write(secret, value, token) {
      try {
        await client.send(
          new PutSecretValueCommand({ SecretId: secret, SecretString: value, ClientRequestToken: token }),
        )
      } catch (error) {
        throw unavailable(error)
      }
    },
  }
}
