import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { checkStage, StageFault, stageJsonSchema } from './stage-file.ts'

/** Writes what the schema of stage files says: `docs/configuration.md` for people, `infra/stages/stage.schema.json` for editors. */

interface Schema {
  type?: string
  description?: string
  default?: unknown
  enum?: readonly string[]
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  pattern?: string
  items?: Schema
  properties?: Readonly<Record<string, Schema>>
  additionalProperties?: Schema | false
  required?: readonly string[]
}

const COMMAND = 'npx node infra/print-configuration.ts'

const smallest = {
  origin: 'https://app.example.com',
  providers: { main: { issuer: 'https://as.example.com' } },
  apis: { orders: { provider: 'main', target: 'https://orders.example.com/v1' } },
}

const { main } = smallest.providers
const { orders } = smallest.apis

/** Stage files that are refused, each with the mistake it makes; the messages in the document are what they lead to. */
const mistakes: readonly (readonly [mistake: string, stage: object])[] = [
  ['No `origin`', { ...smallest, origin: undefined }],
  ['A path behind the origin', { ...smallest, origin: 'https://app.example.com/' }],
  ['http for an origin that is not on this machine', { ...smallest, origin: 'http://app.example.com' }],
  ['A setting that does not exist', { ...smallest, sessions: {} }],
  ['No provider', { ...smallest, providers: {}, apis: {} }],
  ['A name that does not fit into a path', { ...smallest, providers: { ...smallest.providers, Main_2: main } }],
  ['An issuer with a query', { ...smallest, providers: { main: { issuer: 'https://as.example.com/?tenant=1' } } }],
  ['An issuer over http', { ...smallest, providers: { main: { issuer: 'http://localhost:8081' } } }],
  ['An API of no provider', { ...smallest, apis: { orders: { ...orders, provider: 'other' } } }],
  [
    'A target that is not normalised',
    { ...smallest, apis: { orders: { ...orders, target: 'https://A.example.com' } } },
  ],
  ['A method that is never forwarded', { ...smallest, apis: { orders: { ...orders, methods: ['TRACE'] } } }],
  ['A network that is not private', { ...smallest, private_networks: ['0.0.0.0/0'] }],
  ['An idle end after the absolute end', { ...smallest, session: { idle_seconds: 7_200, absolute_seconds: 3_600 } }],
  ['A number out of range', { ...smallest, renewal: { authorization_server_timeout_seconds: 30 } }],
  ['A log retention CloudWatch does not know', { ...smallest, logs: { retention_days: 10 } }],
  ['Alarms to an address', { ...smallest, alarms: { topic_arn: 'on-call@example.com' } }],
]

const complaintAbout = (stage: object): string => {
  try {
    checkStage('', JSON.parse(JSON.stringify(stage)))
  } catch (error) {
    if (error instanceof StageFault) return error.message.split('\n  - ').slice(1).join('; ')
    throw error
  }
  throw new Error(`this stage is meant to be refused: ${JSON.stringify(stage)}`)
}

/** Words with angle brackets would be taken for HTML. */
const prose = (text: string): string => text.replaceAll(/\S*<\w+>\S*/g, '`$&`')

const cell = (text: string): string => prose(text).replaceAll('|', '\\|')

const grouped = (number: number): string => number.toLocaleString('en')

const between = (least: number | undefined, most: number | undefined, unit: string): string => {
  // Zod writes the range of safe integers where a number has no range of its own.
  const limits = [least, most].map((limit) =>
    limit === undefined || Math.abs(limit) >= Number.MAX_SAFE_INTEGER ? '' : grouped(limit),
  )
  const [from = '', to = ''] = limits
  if (from === '' && to === '') return ''
  if (from === '') return `, at most ${to}${unit}`
  return to === '' ? `, at least ${from}${unit}` : `, ${from} to ${to}${unit}`
}

const valueOf = (schema: Schema): string => {
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ')
  if (schema.type === 'array') {
    const of = schema.items === undefined ? '' : ` of ${valueOf(schema.items)}`
    return `list${of}${between(schema.minItems, schema.maxItems, ' of them')}`
  }
  const size =
    schema.type === 'integer'
      ? between(schema.minimum, schema.maximum, '')
      : between(schema.minLength, schema.maxLength, ' characters')
  return `${schema.type ?? 'value'}${size}`
}

const defaultOf = (schema: Schema, required: boolean): string => {
  if (required) return '**required**'
  return schema.default === undefined ? '–' : `\`${JSON.stringify(schema.default)}\``
}

const isNested = (schema: Schema): boolean =>
  schema.properties !== undefined ||
  (typeof schema.additionalProperties === 'object' && schema.additionalProperties.properties !== undefined)

/** A table of the settings of an object, then one for each object among them. */
const sections = (name: string, title: string, schema: Schema): string[] => {
  const entries = Object.entries(schema.properties ?? {})
  const rows = entries.map(([key, value]) => {
    const nested = isNested(value)
    const shown = nested && value.type === 'object' ? 'object, see below' : valueOf(value)
    const standard =
      nested && value.default !== undefined ? 'as below' : defaultOf(value, schema.required?.includes(key) === true)
    return `| \`${key}\` | ${cell(value.description ?? '')} | ${cell(shown)} | ${cell(standard)} |`
  })
  const table = ['| setting | what it says | value | default |', '|---|---|---|---|', ...rows]
  return [
    `### ${title}\n\n${schema.description === undefined ? '' : `${prose(schema.description)}\n\n`}${table.join('\n')}`,
    ...entries.flatMap(([key, value]) => {
      const setting = name === '' ? key : `${name}.${key}`
      if (value.properties !== undefined) return sections(setting, `\`${setting}\``, value)
      if (typeof value.additionalProperties !== 'object' || !isNested(value)) return []
      const each = {
        ...value.additionalProperties,
        ...(value.description === undefined ? {} : { description: value.description }),
      }
      return sections(`${setting}.<name>`, `\`${setting}.<name>\``, each)
    }),
  ]
}

/** The text of `docs/configuration.md`. */
export const configurationDocument = (): string => {
  const schema: Schema = stageJsonSchema()
  const complaints = mistakes.map(([mistake, stage]) => `| ${mistake} | ${cell(complaintAbout(stage))} |`)
  return `# Configuration

<!-- Written by \`${COMMAND}\` from the schema in shared/config.ts. Edit that, not this. -->

A stage is one JSON file, \`infra/stages/<stage>.json\`. \`npx cdk deploy -c stage=<stage>\` deploys it and
\`npm start -- --stage <file>\` runs it on this machine. There are no other settings: no environment variable, no console.

The file is checked before anything is synthesized. A setting that does not exist is refused, so that a misspelt one cannot be
overlooked. Nothing that identifies or protects has a default. Editors complete and check the file by
[\`stage.schema.json\`](../infra/stages/stage.schema.json), which the file names in \`$schema\`.

## The smallest stage file

\`\`\`json
${JSON.stringify({ $schema: './stage.schema.json', ...smallest }, null, 2)}
\`\`\`

Coatcheck registers itself at \`${main.issuer}\` during the deploy. The redirect URI of its client is
\`${smallest.origin}/bff/callback/main\`. A call of \`${smallest.origin}/api/orders/2024/7\` goes to
\`${orders.target}/2024/7\`.

## Settings

Names of providers and APIs are 1 to 32 of \`a-z\`, \`0-9\` and \`-\`, starting with a letter. Times are whole seconds. URLs use
https; http is for \`localhost\`, \`127.0.0.1\` and \`[::1]\` only.

${sections('', 'The stage', schema).join('\n\n')}

## What is refused, and how it is said

Each fault is one line that names the setting and says what to write. These are the messages to these mistakes:

| mistake | message |
|---|---|
${complaints.join('\n')}

A stage may come to 3,000 bytes with its defaults filled in, not counting \`alarms\`. It travels in the environment of each function, which holds 4,096.

## What the functions read

The stack sets these variables; there is nothing to set by hand.

| variable | value |
|---|---|
| \`COATCHECK_STAGE\` | the stage with its defaults and without \`alarms\`, as JSON |
| \`COATCHECK_STACK\` | name of the stack, which metrics go by |
| \`COATCHECK_TABLE\` | name of the table |
| \`COATCHECK_SEALING_SECRET\` | ARN of the secret with the sealing keys |
| \`COATCHECK_PROVIDER_SECRETS\` | ARN of each provider's secret, as JSON by provider name |

What is in the table and the secrets: [storage.md](storage.md).
`
}

/** The text of `infra/stages/stage.schema.json`. */
export const schemaFile = (): string => `${JSON.stringify(stageJsonSchema(), null, 2)}\n`

if (import.meta.main) {
  const root = path.resolve(import.meta.dirname, '..')
  writeFileSync(path.join(root, 'docs/configuration.md'), configurationDocument())
  writeFileSync(path.join(root, 'infra/stages/stage.schema.json'), schemaFile())
}
