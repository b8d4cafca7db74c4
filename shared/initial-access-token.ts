import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import type { Secrets } from './secrets.ts'

/**
 * The initial access token that the operator put into a secret for registrations at a provider (RFC 7591 section 3); undefined where the
 * stage names none.
 * @throws registration_refused when that secret has no value, secrets_unavailable
 */
export const initialAccessToken = async (
  secrets: Pick<Secrets, 'read'>,
  { initial_access_token_secret: secret }: Pick<Stage['providers'][string], 'initial_access_token_secret'>,
): Promise<string | undefined> => {
  if (secret === undefined) return undefined
  const token = await secrets.read(secret)
  if (token !== undefined) return token.trim()
  throw new Failure('registration_refused', {
    detail: `the secret ${secret} with the initial access token has no value`,
  })
}
