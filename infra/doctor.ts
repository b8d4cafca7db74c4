// `npm run doctor`: what an authorization server can do, what Coatcheck makes of it, and what is to be done.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { parseCertificate } from '../shared/certificates.ts'
import { origin as originSchema, plainUrl } from '../shared/config-values.ts'
import { Failure } from '../shared/errors.ts'
import { examine } from './doctor-examination.ts'
import type { Question, Verdict } from './doctor-examination.ts'
import { textOf } from './doctor-report.ts'
import { createCalls } from './doctor-send.ts'
import type { Shown } from './doctor-send.ts'

const help = `What an authorization server can do, and what Coatcheck makes of it.

  npm run doctor -- <issuer or URL of a resource server> [options]

Options
  --register                  Try a real registration, and delete it again.
  --initial-access-token-file <file>
                              The server registers nobody without this token; - reads it from stdin.
  --origin <origin>           Where Coatcheck is going to be, for the redirect URI of that
                              registration (https://app.example.com).
  --endpoint-origin <origin>  An origin besides the issuer's that endpoints may be on; may be repeated.
  --certificate <file>        Show this client certificate (PEM: certificate, its chain, its key) to
                              the URL's origin and to each --endpoint-origin.
  --json                      Print JSON: { asked, verdict, issuer, resource, product, stage, findings }.
  --help                      Print this.

Exit code
  0   usable as it is         2   not usable
  1   usable, work to do      64  the command line is wrong

Nothing is changed at the server without --register. It may be one on this machine, such as that of
npm start: npm run doctor -- http://127.0.0.1:8081
`

const EXIT: Record<Verdict, number> = { usable: 0, work: 1, unusable: 2 }
const USAGE = 64
const INTERRUPTED = 130

/** A mistake of the operator: a sentence that says what to do instead. */
class UsageError extends Error {}

const checked = (schema: typeof plainUrl, value: string, what: string): string => {
  const result = schema.safeParse(value)
  if (result.success) return value
  throw new UsageError(`${what} ${result.error.issues[0]?.message ?? 'is not usable'}.`)
}

const tokenOf = (file: string | undefined): string | undefined => {
  if (file === undefined) return undefined
  let token: string
  try {
    token = readFileSync(file === '-' ? 0 : file, 'utf8').trim()
  } catch {
    throw new UsageError(`--initial-access-token-file: there is no readable file ${file}.`)
  }
  if (/^[\x21-\x7e]{1,4096}$/.test(token)) return token
  throw new UsageError('--initial-access-token-file: the file must hold one token, in visible characters.')
}

/** The certificate of the file, for the servers that the operator named. */
const shownTo = ({ url, endpointOrigins }: Question, file: string | undefined): Shown | undefined => {
  if (file === undefined) return undefined
  try {
    const certificate = parseCertificate(file, readFileSync(file, 'utf8'))
    return { certificate, origins: new Set([url.origin, ...endpointOrigins]) }
  } catch (error) {
    const words = error instanceof Failure ? error.detail?.replace(/^the secret /, 'the file ') : undefined
    throw new UsageError(`--certificate: ${words ?? `there is no readable file ${file}`}.`)
  }
}

const parse = (argv: string[]) => {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  try {
    return parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        register: flag,
        'initial-access-token-file': text,
        origin: text,
        'endpoint-origin': { ...text, multiple: true },
        certificate: text,
        json: flag,
        help: { ...flag, short: 'h' },
      },
    })
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message.split(/[.\n]/)[0] : String(error)}.`)
  }
}

const questionOf = ({ values, positionals }: ReturnType<typeof parse>): Question => {
  const [url, ...more] = positionals
  if (url === undefined || more.length > 0)
    throw new UsageError('Say one URL: npm run doctor -- https://as.example.com')
  const file = values['initial-access-token-file']
  if (file !== undefined && values.register !== true)
    throw new UsageError('--initial-access-token-file is for --register.')
  return {
    asked: checked(plainUrl, url, 'The URL'),
    url: new URL(url),
    endpointOrigins: (values['endpoint-origin'] ?? []).map((each) => checked(originSchema, each, '--endpoint-origin')),
    origin: checked(originSchema, values.origin ?? 'https://app.example.com', '--origin'),
    register: values.register ?? false,
    initialAccessToken: tokenOf(file),
    hasCertificate: values.certificate !== undefined,
  }
}

const tell = (line: string): void => void process.stderr.write(`${line.replace(/[^\x20-\x7e]/g, '?')}\n`)

const run = async (argv: string[]): Promise<number> => {
  const parsed = parse(argv)
  if (parsed.values.help === true) {
    process.stdout.write(help)
    return 0
  }
  const question = questionOf(parsed)
  const shown = shownTo(question, parsed.values.certificate)
  let interrupted = false
  const report = await examine(question, createCalls(tell, { shown }), (client) => {
    // From here on somebody has to delete it.
    process.on('SIGINT', () => {
      interrupted = true
      tell(`the client ${client} is deleted first`)
    })
  })
  process.stdout.write(parsed.values.json === true ? `${JSON.stringify(report, null, 2)}\n` : textOf(report))
  return interrupted ? INTERRUPTED : EXIT[report.verdict]
}

try {
  process.exitCode = await run(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  tell(`${error.message} See npm run doctor -- --help.`)
  process.exitCode = USAGE
}
