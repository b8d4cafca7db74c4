import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { checkStage, parseStageText, StageFault } from '../stage-file.ts'
import { isRecord } from './aws-call.ts'
import { ResourceFailure } from './creation.ts'
import { type DemoUser, startAuthorizationServer } from './demo/authorization-server.ts'
import { createFrontend } from './demo/frontend.ts'
import { startResourceServer } from './demo/resource-server.ts'
import { listen } from './edge.ts'
import { type StartOptions, UsageError } from './options.ts'
import { startLocalStack } from './stack.ts'
import { createTrace } from './trace.ts'

/** What has to end, last first. */
export type Closing = (() => Promise<void> | void)[]

const localStage = join(import.meta.dirname, '../stages/local.json')
/** What the demo's servers are called in stage files. */
const placeholders = { issuer: 'http://127.0.0.1:8081', resourceServer: 'http://127.0.0.1:8082' }

const colours = process.stdout.isTTY && !process.env['NO_COLOR']
const dim = (text: string) => (colours ? `\u001B[2m${text}\u001B[22m` : text)
const bold = (text: string) => (colours ? `\u001B[1m${text}\u001B[22m` : text)
const say = (text: string) => void process.stdout.write(`${text}\n`)
/** Times count from the start of the process. */
const progress = (text: string) => say(dim(`${(performance.now() / 1000).toFixed(1).padStart(5)} s  ${text}`))

/**
 * The whole product runs, and has said where to click. Each part that must end is pushed to `closing`, also where a later
 * one fails; rejects with an Error whose message is for whoever started it.
 */
export async function run(
  { issuer: realIssuer, maxInstances, verbose, ...options }: StartOptions,
  closing: Closing,
): Promise<void> {
  const stageFile = options.stage === undefined ? localStage : resolve(process.env['INIT_CWD'] ?? '.', options.stage)
  const written = readStage(stageFile)
  const existingSecrets = initialAccessTokens(written, options.initialAccessToken)
  const port = await freePort(options.port, options.port)
  const uses = (placeholder: string) => JSON.stringify(written).includes(JSON.stringify(placeholder))
  if (realIssuer !== undefined && !uses(placeholders.issuer)) {
    throw new UsageError(
      `--issuer stands in for the demo's ${placeholders.issuer}, which ${stageFile} does not name; write the issuer there instead.`,
    )
  }

  const issuerPort = await freePort(port + 1)
  const resourcePort = await freePort(issuerPort + 1)
  const resource = `http://127.0.0.1:${resourcePort}`
  const servers = { issuer: realIssuer ?? `http://127.0.0.1:${issuerPort}`, resourceServer: resource }
  const stage = stageFor(written, port, servers, realIssuer !== undefined)
  judgeStage(stage, relative('.', stageFile), realIssuer)
  const [name = 'demo'] = Object.keys(stage.providers)
  const [issuer = servers.issuer] = issuersOf(stage)

  let users: readonly DemoUser[] = []
  if (realIssuer === undefined && uses(placeholders.issuer)) {
    progress('starting the demo authorization server')
    const { accessTokenSeconds, refreshTokens } = options
    const authorizationServer = await startAuthorizationServer({
      port: issuerPort,
      resource,
      ...(accessTokenSeconds !== undefined && { accessTokenSeconds }),
      ...(refreshTokens !== undefined && { refreshTokens }),
    })
    closing.push(() => authorizationServer.close())
    users = authorizationServer.users
  }
  if (uses(placeholders.resourceServer)) {
    progress('starting the demo resource server')
    const isNamed = JSON.stringify(stage.providers).includes(JSON.stringify(resource))
    const resourceServer = await startResourceServer({
      port: resourcePort,
      issuer,
      ...(!isNamed && { audience: 'any' }),
    })
    closing.push(() => resourceServer.close())
  }

  progress(`synthesizing the stack of ${relative('.', stageFile)}`)
  const outdir = mkdtempSync(join(tmpdir(), 'coatcheck-'))
  closing.push(() => rmSync(outdir, { recursive: true, force: true }))
  // Loaded only now: the CDK takes a second of its own.
  const { synthesize } = await import('../synthesize.ts')
  const { assembly } = await synthesize({ stage, outdir })

  progress('creating the stack')
  let isCreated = false
  const trace = createTrace()
  const stack = await startLocalStack({
    assembly,
    port,
    maxInstances,
    trace,
    frontend: createFrontend({ trace, provider: { name, issuer, users } }),
    existingSecrets,
    onProgress: progress,
    onLog: (functionName, line) => {
      // What makes a resource fail while the stack is created is what this ends with.
      if (verbose || (isWorrying(line) && (isCreated || !isFailedResource(line)))) say(`${functionName}  ${line}`)
    },
  }).catch((error: unknown) => {
    throw error instanceof ResourceFailure && error.isCustomResource ? registrationFailure(stage, error.reason) : error
  })
  isCreated = true
  closing.push(stack.close)
  progress('everything is up')

  const rows = [
    ['Click', bold(stack.url)],
    ...(users.length > 0
      ? [['Sign in', `as ${users.map((user) => user.name).join(', ')}: pick one, there is no password`]]
      : []),
    ['Issuer', issuer],
    ['Registration', `npm run registration -- ${name} --endpoint ${stack.endpoints.lambda}`],
    ['Sessions', `npm run sessions -- ${name} --subject <sub> --endpoint ${stack.endpoints.lambda}`],
    ['Rotate', `npm run rotate -- ${name} --endpoint ${stack.endpoints.secretsManager}`],
    ['Trace', `${stack.url}/__local/trace (the page shows it live)`],
    ['Stop', 'Ctrl-C'],
  ]
  say(`\n${rows.map(([label = '', text]) => `  ${label.padEnd(14)}${text}`).join('\n')}\n`)
  say(`ready ${stack.url}`)
}

interface StageFile {
  providers: Record<string, unknown>
  [setting: string]: unknown
}

function readStage(path: string): StageFile {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    throw new UsageError(`The stage file ${path} cannot be read; give --stage the path of a JSON file.`)
  }
  try {
    const stage = parseStageText(relative('.', path), text)
    if (isRecord(stage)) return { ...stage, providers: isRecord(stage['providers']) ? stage['providers'] : {} }
  } catch (error) {
    if (error instanceof StageFault) throw error
    throw new UsageError(
      `The stage file ${path} is not valid JSON: ${String(error instanceof Error ? error.message : error)}.`,
    )
  }
  throw new UsageError(`The stage file ${path} is not a JSON object.`)
}

/** The stage as it runs here: our origin, and the servers that its placeholders stand for. */
function stageFor(stage: StageFile, port: number, servers: typeof placeholders, isRealIssuer: boolean): StageFile {
  const replace = (value: unknown): unknown => {
    if (value === placeholders.issuer) return servers.issuer
    if (value === placeholders.resourceServer) return servers.resourceServer
    if (Array.isArray(value)) return value.map(replace)
    if (!isRecord(value)) return value
    return Object.fromEntries(
      Object.entries(value)
        // A real authorization server has never heard of the demo's resource.
        .filter(([name, member]) => !(isRealIssuer && name === 'resource' && member === placeholders.resourceServer))
        .map(([name, member]) => [name, replace(member)]),
    )
  }
  const replaced = Object.fromEntries(Object.entries(stage).map(([name, member]) => [name, replace(member)]))
  const { providers } = replaced
  return { ...replaced, origin: `http://localhost:${port}`, providers: isRecord(providers) ? providers : {} }
}

/** The stage can be used. Where it is the issuer of the command line that cannot, that is what is said. */
function judgeStage(stage: StageFile, file: string, realIssuer: string | undefined): void {
  try {
    checkStage(file, stage)
  } catch (error) {
    const [fault = '', ...others] = error instanceof StageFault ? error.faults : []
    const about = /^providers\.[^.]+\.issuer: /.exec(fault)?.[0]
    if (realIssuer === undefined || about === undefined || others.length > 0) throw error
    throw new UsageError(`--issuer ${realIssuer} ${fault.slice(about.length)}.`)
  }
}

function issuersOf(stage: StageFile): string[] {
  return Object.values(stage.providers)
    .map((provider) => (isRecord(provider) ? provider['issuer'] : undefined))
    .filter((issuer) => typeof issuer === 'string')
}

function registrationFailure(stage: StageFile, reason: string): Error {
  return new Error(
    `Coatcheck cannot register at ${issuersOf(stage).join(' or ')}: ${reason.replace(/[.\s]+$/, '')}. ` +
      'Check that it runs and lets clients register, or use another one with --issuer <url>.',
  )
}

function initialAccessTokens(stage: StageFile, value: string | undefined): Record<string, string> {
  const names = Object.values(stage.providers)
    .map((provider) => (isRecord(provider) ? provider['initial_access_token_secret'] : undefined))
    .filter((name) => typeof name === 'string')
  if (names.length > 0 && value === undefined) {
    throw new UsageError(`The stage names the secret ${names[0]}; set INITIAL_ACCESS_TOKEN to its value.`)
  }
  return Object.fromEntries(names.map((name) => [name, value ?? '']))
}

/** The first free port from `first` on, as far as `last`; rejects where there is none. */
async function freePort(first: number, last = 65_535): Promise<number> {
  try {
    const { port, close } = await listen(() => {}, first)
    await close()
    return port
  } catch (error) {
    const isTaken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'
    if (isTaken && first < last) return freePort(first + 1, last)
    throw error
  }
}

function isFailedResource(line: string): boolean {
  return line.includes('"message":"custom resource failed"')
}

function isWorrying(line: string): boolean {
  try {
    const entry: unknown = JSON.parse(line)
    return !isRecord(entry) || /^(warn|error|critical|fatal)/i.test(String(entry['level']))
  } catch {
    return true
  }
}
