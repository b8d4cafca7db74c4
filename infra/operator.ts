import { parseArgs } from 'node:util'
import type { ParseArgsConfig } from 'node:util'

/** What the commands of operators have in common: how they read their arguments, reach AWS, and say what went wrong. */

/** A mistake of the operator, or what they have to do something about: a sentence that says what. */
export class Refusal extends Error {}

/** The arguments as the command defines them. @throws Refusal for others */
export const argumentsOf = <T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> => {
  try {
    return parseArgs(config)
  } catch (error) {
    const [said] = (error instanceof Error ? error.message : String(error)).split(/\.(?:\s|$)|\n/)
    throw new Refusal(`${said}; --help says what there is.`)
  }
}

/** Settings of an AWS client: none where the AWS CLI's are meant; otherwise those of the local run at that endpoint. */
export const accessAt = async (endpoint?: string) => {
  if (endpoint === undefined) return {}
  if (!URL.canParse(endpoint)) throw new Refusal('--endpoint takes the URL that npm start prints.')
  const [{ REGION: region }, { operatorAccessKeyId }] = await Promise.all([
    import('./local/aws-call.ts'),
    import('./local/stack.ts'),
  ])
  return { endpoint, region, credentials: { accessKeyId: operatorAccessKeyId, secretAccessKey: 'operator' } }
}

/** A line on the terminal as it goes on, for what takes long; nothing of what servers or users said can steer the terminal. */
export const tell = (line: string): void => void process.stderr.write(`${plain(line)}\n`)

/** Text that somebody else wrote, in one line and without what steers a terminal. */
export const plain = (text: string): string => text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')

const hint = (error: Error): string | undefined => {
  if (error.name === 'CredentialsProviderError')
    return 'There are no AWS credentials: set AWS_PROFILE or sign in as for the AWS CLI.'
  if (error.message === 'Region is missing') return 'Say which region: set AWS_REGION, or a profile that has one.'
  const code: unknown = 'code' in error ? error.code : undefined
  if (typeof code === 'string' && /^(ECONNREFUSED|ENOTFOUND|ETIMEDOUT|EHOSTUNREACH)$/.test(code))
    return `AWS cannot be reached (${code}); for the local run, take --endpoint from what npm start prints.`
  return undefined
}

/** What a command that failed says, in one line: a refusal as it is, of other errors their name too. */
const sentenceOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof Refusal) return error.message
  return hint(error) ?? `${error.name}: ${error.message.split('\n')[0]}`
}

/** The process does what the command says and prints what it resolves with; a failure is a sentence on stderr and exit code 1. */
export const runCommand = async (run: (argv: string[]) => Promise<string>): Promise<void> => {
  try {
    process.stdout.write(await run(process.argv.slice(2)))
  } catch (error) {
    process.stderr.write(`${plain(sentenceOf(error))}\n`)
    process.exitCode = 1
  }
}
