// `npm run rotate`: an operator rotates the credentials of our client at a provider, or looks at them. Credentials are never shown.
import { setTimeout as delay } from 'node:timers/promises'
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  RotateSecretCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { accessAt, argumentsOf, Refusal, runCommand } from './operator.ts'

const help = `The credentials of Coatcheck's client at a provider.

  npm run rotate -- <provider>
      They are rotated now, as the schedule would do it. Nobody is signed out. Says how it ended.
  npm run rotate -- <provider> --list
      Which clients there are, until when, and registrations that were begun and whose end nobody knows.
  npm run rotate -- <provider> --forget <attempt>
      Such a registration has been looked after and is no longer listed.

  --secret <name or ARN>   where several stacks have a provider of that name
  --endpoint <url>         the local run, as npm start says it

Credentials and region come from where the AWS CLI has them (AWS_PROFILE, AWS_REGION, ...).
`

const ATTEMPT = 'COATCHECK_ATTEMPT_'
const PATIENCE_MS = 5 * 60_000
const POLL_MS = 1_000

type Labels = Record<string, string[]>

const labelsOf = async (client: SecretsManagerClient, secret: string): Promise<Labels> =>
  (await client.send(new DescribeSecretCommand({ SecretId: secret }))).VersionIdsToStages ?? {}

const holderOf = (labels: Labels, label: string): string | undefined =>
  Object.entries(labels).find(([, all]) => all.includes(label))?.[0]

/** The secret of a provider, by the description that the stack gave it. */
const secretOf = async (client: SecretsManagerClient, provider: string): Promise<string> => {
  const description = `Coatcheck: registration and credentials at ${provider}`
  const { SecretList: found = [] } = await client.send(
    new ListSecretsCommand({ Filters: [{ Key: 'description', Values: [description] }] }),
  )
  const arns = found.flatMap(({ ARN: arn, Description: text }) =>
    arn !== undefined && text === description ? arn : [],
  )
  const [arn] = arns
  if (arn === undefined) throw new Refusal(`There is no provider ${provider} in this account and region.`)
  if (arns.length > 1)
    throw new Refusal(`Several stacks have a provider ${provider}; add --secret and one of ${arns.join(' ')}`)
  return arn
}

/** The rotation that is pending now, or a new one; resolves with its token. */
const begin = async (client: SecretsManagerClient, secret: string): Promise<string> => {
  try {
    return (await client.send(new RotateSecretCommand({ SecretId: secret }))).VersionId ?? ''
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'InvalidRequestException') throw error
    const pending = holderOf(await labelsOf(client, secret), 'AWSPENDING')
    if (pending === undefined) throw new Refusal(`${error.message} Does the stage say "rotation": {"mode": "off"}?`)
    return pending
  }
}

const rotate = async (client: SecretsManagerClient, secret: string): Promise<string> => {
  const token = await begin(client, secret)
  for (let waitedMs = 0; waitedMs < PATIENCE_MS; waitedMs += POLL_MS) {
    const labels = (await labelsOf(client, secret))[token] ?? []
    if (labels.includes('AWSCURRENT')) return 'Rotated. What began under the client before goes on under it.\n'
    if (!labels.includes('AWSPENDING')) break
    await delay(POLL_MS)
  }
  throw new Refusal('The rotation failed and what was there goes on; the log of the function Rotate says why.')
}

const date = (seconds: unknown): string =>
  typeof seconds === 'number' && seconds > 0 ? new Date(seconds * 1_000).toISOString() : 'no known time'

const attemptsIn = (labels: Labels): { id: string; version: string }[] =>
  Object.entries(labels).flatMap(([version, all]) =>
    all.flatMap((label) => (label.startsWith(ATTEMPT) ? [{ id: label.slice(ATTEMPT.length), version }] : [])),
  )

const list = async (client: SecretsManagerClient, secret: string): Promise<string> => {
  const { SecretString: text = '{}' } = await client.send(new GetSecretValueCommand({ SecretId: secret }))
  const { current = {}, retiring = [] } = JSON.parse(text)
  const labels = await labelsOf(client, secret)
  const pending = holderOf(labels, 'AWSPENDING')
  const isOpen = pending !== undefined && !labels[pending]?.includes('AWSCURRENT')
  return [
    `${current['client_id']}  current, registered ${date(current['registered_at'])}, secret until ${date(current['client_secret_expires_at'])}`,
    ...[retiring].flat().map((one) => `${one['client_id']}  retiring since ${date(one['retired_at'])}`),
    ...(isOpen ? ['A rotation was begun and is not done; npm run rotate takes it up again.'] : []),
    ...attemptsIn(labels).map(
      ({ id }) =>
        `${id}  perhaps an orphan: look at the authorization server for a client whose software_version is "attempt ${id}", delete it there, then --forget ${id}`,
    ),
    '',
  ].join('\n')
}

const forget = async (client: SecretsManagerClient, secret: string, attempt: string): Promise<string> => {
  const found = attemptsIn(await labelsOf(client, secret)).find(({ id }) => id === attempt)
  if (found === undefined) throw new Refusal(`There is no attempt ${attempt}; --list shows those that there are.`)
  const label = { SecretId: secret, VersionStage: `${ATTEMPT}${attempt}`, RemoveFromVersionId: found.version }
  await client.send(new UpdateSecretVersionStageCommand(label))
  return `${attempt} is no longer listed.\n`
}

const run = async (argv: string[]): Promise<string> => {
  const text = { type: 'string' } as const
  const { values, positionals } = argumentsOf({
    args: argv,
    allowPositionals: true,
    options: {
      list: { type: 'boolean' },
      forget: text,
      secret: text,
      endpoint: text,
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) return help
  const [provider, ...more] = positionals
  if (provider === undefined || more.length > 0)
    throw new Refusal('Say which provider, as the stage file names it. See npm run rotate -- --help.')
  const client = new SecretsManagerClient(await accessAt(values.endpoint))
  const secret = values.secret ?? (await secretOf(client, provider))
  if (values.forget !== undefined) return await forget(client, secret, values.forget)
  return values.list === true ? await list(client, secret) : await rotate(client, secret)
}

await runCommand(run)
