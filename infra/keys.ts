// `npm run keys`: an operator lists, rotates and removes the keys that seal cookies and records. Values are never shown.
import { randomBytes } from 'node:crypto'
import {
  GetSecretValueCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { argumentsOf, Refusal, runCommand } from './operator.ts'

const help = `The keys that seal Coatcheck's cookies and records.

  npm run keys -- list --secret <name or ARN>
      The ids of all keys, and which one seals now.
  npm run keys -- rotate --secret <name or ARN>
      A new key seals from now on; all others go on opening. Nobody is signed out.
  npm run keys -- forget <id> --secret <name or ARN> [--yes]
      A key that no longer seals is removed, and with it everything that only it opens.

The secret is the output SealingKeysSecret of the stack. Credentials and region come from where the AWS CLI has them
(AWS_PROFILE, AWS_REGION, ...). Functions notice a new key when they first meet it, and use it themselves within 15
minutes; a key is safe to forget once the longest session (absolute_seconds of the stage) has passed since then.
`

/** The secret's value: `current` and keys by id, and which version of the secret that is. */
interface Keys {
  version: string
  current: string
  byId: Record<string, string>
}

/** The version that is being put in place carries this label until it is current. */
const NEXT = 'COATCHECK_NEXT'

const read = async (client: SecretsManagerClient, secret: string): Promise<Keys> => {
  const { SecretString: text = '', VersionId: version = '' } = await client.send(
    new GetSecretValueCommand({ SecretId: secret }),
  )
  const unusable = new Refusal(`${secret} does not hold sealing keys; give the ARN that the stack's outputs name.`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw unusable
  }
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
  const { current, ...byId } = Object.fromEntries(entries.filter((entry) => typeof entry[1] === 'string'))
  if (typeof current !== 'string' || byId[current] === undefined) throw unusable
  return { version, current, byId }
}

/** The new value is current, unless somebody else changed the secret since it was read. */
const write = async (client: SecretsManagerClient, secret: string, { version, current, byId }: Keys): Promise<void> => {
  const { VersionId: next } = await client.send(
    new PutSecretValueCommand({
      SecretId: secret,
      SecretString: JSON.stringify({ current, ...byId }),
      VersionStages: [NEXT],
    }),
  )
  const move = { SecretId: secret, VersionStage: 'AWSCURRENT', MoveToVersionId: next, RemoveFromVersionId: version }
  try {
    await client.send(new UpdateSecretVersionStageCommand(move))
  } catch (error) {
    if (!(error instanceof Error) || !/^Invalid(Parameter|Request)Exception$/.test(error.name)) throw error
    throw new Refusal(
      'Somebody else changed the keys at the same time; nothing is changed. Look at them and try again.',
    )
  }
}

const numberOf = (id: string): number => Number(/^k(\d+)$/.exec(id)?.[1] ?? 0)

const rotated = (keys: Keys): Keys => {
  const id = `k${Math.max(...Object.keys(keys.byId).map(numberOf)) + 1}`
  return { ...keys, current: id, byId: { ...keys.byId, [id]: randomBytes(48).toString('base64url') } }
}

const without = (keys: Keys, id: string, isSure: boolean): Keys => {
  if (keys.byId[id] === undefined)
    throw new Refusal(`There is no key ${id}; there are ${Object.keys(keys.byId).join(', ')}.`)
  if (id === keys.current) throw new Refusal(`${id} seals now and cannot be removed; rotate first.`)
  if (!isSure) {
    throw new Refusal(
      `Whatever only ${id} opens ends with it: every session that began while ${id} sealed, and every sign-in, sign-out and ` +
        'revocation of that time that is still under way. Their users have to sign in again. ' +
        `To remove it: npm run keys -- forget ${id} --yes`,
    )
  }
  const { [id]: _, ...byId } = keys.byId
  return { ...keys, byId }
}

const list = ({ current, byId }: Keys): string =>
  Object.keys(byId)
    .map((id) => `${id}  ${id === current ? 'seals and opens' : 'opens'}\n`)
    .join('')

const run = async (argv: string[]): Promise<string> => {
  const { values, positionals } = argumentsOf({
    args: argv,
    allowPositionals: true,
    options: { secret: { type: 'string' }, yes: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  })
  const [command, id, ...more] = positionals
  if (values.help === true) return help
  const takesId = command === 'forget'
  if (!['list', 'rotate', 'forget'].includes(command ?? '') || more.length > 0 || (id !== undefined) !== takesId) {
    throw new Refusal('Say list, rotate or forget <id>. See npm run keys -- --help.')
  }
  const { secret } = values
  if (secret === undefined) throw new Refusal('Say which secret: --secret <name or ARN>. See npm run keys -- --help.')
  const client = new SecretsManagerClient({})
  const keys = await read(client, secret)
  if (command === 'list') return list(keys)
  const changed = id === undefined ? rotated(keys) : without(keys, id, values.yes === true)
  await write(client, secret, changed)
  return list(changed)
}

await runCommand(run)
