// `npm run registration`: an operator looks at the registration of our client at a provider, or repairs it. Credentials are never shown.
import * as z from 'zod/mini'
import { register } from './flows.ts'
import { argumentsOf, plain, Refusal, runCommand } from './operator.ts'
import { ordersTo } from './operator-functions.ts'
import type { GiveOrder } from './operator-functions.ts'

const help = `The registration of Coatcheck's client at a provider.

  npm run registration -- <provider>
      What is registered, and whether the server still knows it. Nothing is changed.
  npm run registration -- <provider> --repair
      The registration is what the stage asks for again, whoever changed it at the server; where the server
      no longer knows our client, another one is registered.
  npm run registration -- <provider> --repair --anew
      A new client is registered, whatever there is. What began under the one before goes on with it.

  --function <name>        where several stacks have a provider of that name: the output RegisterFunction
  --endpoint <url>         the local run, as npm start says it

Exit code
  0   the server knows our client, or it is repaired       1   it is to be repaired, or that failed

Credentials and region come from where the AWS CLI has them (AWS_PROFILE, AWS_REGION, ...). They need
lambda:InvokeFunction on that function, and lambda:ListFunctions to find it.
`

const timeSchema = () => z.nullable(z.number().check(z.minimum(0), z.maximum(253_402_300_799)))
const standings = ['known', 'differs', 'lost', 'unmanaged', 'unreachable', 'static', 'none'] as const
const lookSchema = () =>
  z.object({
    issuer: z.string(),
    standing: z.enum(standings),
    detail: z.nullable(z.string()),
    client_id: z.nullable(z.string()),
    token_endpoint_auth_method: z.nullable(z.string()),
    registered_at: timeSchema(),
    secret_ends_at: timeSchema(),
    retiring: z.int(),
    attempts: z.int(),
    rotation_pending: z.boolean(),
  })
const repairSchema = () =>
  z.object({
    done: z.enum(['kept', 'updated', 'registered', 'unmanaged']),
    client_id: z.optional(z.string()),
  })

type Look = z.infer<ReturnType<typeof lookSchema>>

const inWords: Record<Look['standing'], string> = {
  known: 'known there, and as the stage asks',
  differs: 'not shown there as the stage asks; --repair asks for it again',
  lost: 'no longer taken there; --repair registers another one',
  unmanaged: 'unknown: the server cannot be asked (RFC 7592)',
  unreachable: 'unknown: the server did not answer',
  static: "the operator's own; it is in the secret that the output ClientSecret names",
  none: 'not registered; deploy, or --repair',
}
const isWell = (standing: Look['standing']): boolean => ['known', 'unmanaged', 'static'].includes(standing)

const time = (seconds: number): string => new Date(seconds * 1_000).toISOString().replace(/\.\d+/, '')

const endOf = (seconds: number | null): string => {
  if (seconds === null) return 'of which the server does not say when it ends'
  return seconds === 0 ? 'which does not end' : `until ${time(seconds)}`
}

const secretOf = ({ token_endpoint_auth_method: method, secret_ends_at: ends }: Look): string =>
  method?.startsWith('client_secret_') === true ? `${method}, with a secret ${endOf(ends)}` : (method ?? '')

const described = (provider: string, look: Look): string => {
  const { client_id: id, registered_at: since, retiring, attempts, rotation_pending: pending } = look
  const lines = [
    `${provider} at ${look.issuer}: ${inWords[look.standing]}`,
    ...(look.detail === null ? [] : [`  ${look.detail}`]),
    ...(id === null ? [] : [`  client ${id}${since === null ? '' : `, registered ${time(since)}`}, ${secretOf(look)}`]),
    ...(retiring === 0 ? [] : [`  clients that stay for sessions that began under them: ${retiring}`]),
    ...(pending ? ['  a rotation was begun and is not done; npm run rotate takes it up again'] : []),
    ...(attempts === 0 ? [] : [`  perhaps orphans: ${attempts}; see npm run rotate -- ${provider} --list`]),
  ]
  return lines.map((line) => `${plain(line)}\n`).join('')
}

const show = async (give: GiveOrder, provider: string): Promise<string> => {
  const look = await give({ show: provider }, lookSchema())
  if (!isWell(look.standing)) process.exitCode = 1
  return described(provider, look)
}

const repair = async (give: GiveOrder, provider: string, anew: boolean): Promise<string> => {
  const { done, client_id: id = '' } = await give({ repair: provider, ...(anew && { anew }) }, repairSchema())
  if (done === 'unmanaged')
    throw new Refusal('The server cannot be asked (RFC 7592), and nothing was done; --anew registers a new client.')
  const words = {
    kept: "The client is the operator's own; the server's metadata were read again.",
    updated: `The registration of client ${id} is what the stage asks for.`,
    registered: `A new client is registered: ${id}. Sign-ins begin with it.`,
  }
  return `${plain(words[done])}\n`
}

const run = async (argv: string[]): Promise<string> => {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const { values, positionals } = argumentsOf({
    args: argv,
    allowPositionals: true,
    options: { repair: flag, anew: flag, function: text, endpoint: text, help: { ...flag, short: 'h' } },
  })
  if (values.help === true) return help
  const [provider, ...more] = positionals
  if (provider === undefined || more.length > 0)
    throw new Refusal('Say which provider, as the stage file names it. See npm run registration -- --help.')
  const { repair: isRepair = false, anew = false } = values
  if (anew && !isRepair) throw new Refusal('--anew goes with --repair. See npm run registration -- --help.')
  const give = await ordersTo(register.description, provider, values)
  return isRepair ? await repair(give, provider, anew) : await show(give, provider)
}

await runCommand(run)
