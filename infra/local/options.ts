import { parseArgs } from 'node:util'

/**
 * What becomes of a refresh token that was used at the demo authorization server: `strict` rotates them and ends the grant when one is
 * used twice; `grace` rotates too, but for a minute answers the used one with the same tokens again; `reusable` does not rotate.
 */
export const refreshTokenModes = ['strict', 'grace', 'reusable'] as const
export type RefreshTokens = (typeof refreshTokenModes)[number]

/** What `npm start` was asked for. */
export interface StartOptions {
  /** 0 takes a free one. */
  port: number
  issuer: string | undefined
  stage: string | undefined
  accessTokenSeconds: number | undefined
  refreshTokens: RefreshTokens | undefined
  maxInstances: number
  /** The value of the secret that a stage names as `initial_access_token_secret`. */
  initialAccessToken: string | undefined
  verbose: boolean
  help: boolean
}

/** A mistake of whoever started it: a sentence that says what to do instead. */
export class UsageError extends Error {}

/** What `npm start -- --help` prints. */
export const helpText = `Coatcheck on this machine: the stack that CDK synthesizes, with everything it needs.

  npm start                                the demo, at http://localhost:8080
  npm start -- [options]                   options stand behind a -- of their own

Options
  --issuer <url>              Use a real authorization server instead of the demo one. Coatcheck
                              registers there by itself (RFC 7591) and deletes its client at the end.
                                npm start -- --issuer https://as.example.com

  --stage <file>              Use another stage file than infra/stages/local.json. Its origin becomes
                              http://localhost:<PORT>; http://127.0.0.1:8081 and :8082 in it stand
                              for the demo servers.
                                npm start -- --stage infra/stages/mine.json

  --access-token-seconds <n>  How long access tokens of the demo authorization server live (300);
                              short ones show renewals.
                                npm start -- --access-token-seconds 30

  --refresh-tokens <mode>     What becomes of used refresh tokens at the demo authorization server:
                              strict    each works once; a second use ends the grant (this is usual)
                              grace     for a minute a used one gets the same tokens again
                              reusable  they stay as they are
                                npm start -- --refresh-tokens grace

  --max-instances <n>         How many instances a function may have at a time (16).
                                npm start -- --max-instances 2

  --verbose                   Print every log line of the functions, not only warnings and errors.
  --help                      Print this.

Environment
  PORT                        Where it listens (8080); the other servers take the next free ports.
                                PORT=9000 npm start
  INITIAL_ACCESS_TOKEN        For an authorization server that registers nobody without one: the value
                              of the secret that the stage names as initial_access_token_secret.
`

const seeHelp = 'See npm start -- --help.'

/** The options of a command line and its environment; throws `UsageError`. */
export function parseOptions(argv: string[], env: NodeJS.ProcessEnv): StartOptions {
  const values = parse(argv)
  const { issuer, 'access-token-seconds': seconds, 'refresh-tokens': mode } = values
  if (issuer !== undefined && !isWebUrl(issuer)) {
    throw new UsageError(
      `--issuer takes the URL of an authorization server, such as https://as.example.com, not ${issuer}.`,
    )
  }
  for (const [name, value] of Object.entries({ '--access-token-seconds': seconds, '--refresh-tokens': mode })) {
    if (issuer === undefined || value === undefined) continue
    throw new UsageError(`${name} is for the demo authorization server; leave it out where you use --issuer.`)
  }
  const refreshTokens = refreshTokenModes.find((known) => known === mode)
  if (mode !== undefined && refreshTokens === undefined) {
    throw new UsageError(
      `--refresh-tokens takes ${refreshTokenModes.join(', ').replace(/, (?=\w+$)/, ' or ')}, not ${mode}.`,
    )
  }
  return {
    port: wholeNumber(env['PORT'] || '8080', 'PORT', 0, 65_535),
    issuer,
    stage: values.stage,
    accessTokenSeconds: seconds === undefined ? undefined : wholeNumber(seconds, '--access-token-seconds', 1, 86_400),
    refreshTokens,
    maxInstances: wholeNumber(values['max-instances'] ?? '16', '--max-instances', 1, 1_000),
    initialAccessToken: env['INITIAL_ACCESS_TOKEN'] || undefined,
    verbose: values.verbose ?? false,
    help: values.help ?? false,
  }
}

function parse(argv: string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  try {
    return parseArgs({
      args: argv,
      options: {
        issuer: text,
        stage: text,
        'access-token-seconds': text,
        'refresh-tokens': text,
        'max-instances': text,
        verbose: flag,
        help: { ...flag, short: 'h' },
      },
    }).values
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    const said = error instanceof Error ? (error.message.split(/\.(?:\s|$)|\n/)[0] ?? '') : String(error)
    if (code === 'ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL') {
      throw new UsageError(`${said}; options stand behind a -- of their own: npm start -- --issuer <url>.`)
    }
    throw new UsageError(`${said}. ${seeHelp}`)
  }
}

function isWebUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)
}

function wholeNumber(text: string, name: string, least: number, most: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
  if (value >= least && value <= most) return value
  throw new UsageError(`${name} takes a whole number from ${least} to ${most}, not ${text}.`)
}
