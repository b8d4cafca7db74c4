import { readFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import {
  DynamoDBClient,
  ListTablesCommand,
  paginateScan,
  PutItemCommand,
  type AttributeValue,
} from '@aws-sdk/client-dynamodb'
import { GetSecretValueCommand, PutSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { inject } from 'vitest'
import {
  startAuthorizationServer,
  type AuthorizationServer,
  type AuthorizationServerOptions,
} from '../../infra/local/demo/authorization-server.ts'
import { startResourceServer } from '../../infra/local/demo/resource-server.ts'
import { REGION } from '../../infra/local/aws-call.ts'
import { operatorAccessKeyId, startLocalStack, type LocalStackOptions } from '../../infra/local/stack.ts'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from './authorization-server.ts'
import type { StrictOptions } from './strict-options.ts'
import { startCoderServer, type CoderOptions, type CoderServer } from './coder-server.ts'
import { exchange } from './http.ts'
import { createBrowser } from './user-agent.ts'

/** A stage file as it is written, before the schema fills in defaults. */
export type StageFile = {
  origin: string
  providers: Record<string, Record<string, unknown>>
  apis: Record<string, Record<string, unknown>>
  [setting: string]: unknown
}

/** How a stack differs from the local stage. */
export type StackOptions = {
  /** The last word on the stage, which has the servers' URLs by then. */
  stage?: (stage: StageFile) => StageFile
  /** The base URL of `/api/demo`; a resource server of the demo's kind unless told. */
  target?: string
} & Partial<
  Pick<LocalStackOptions, 'maxInstances' | 'existingSecrets' | 'gate' | 'frontend' | 'trace' | 'rotationRetryDelaysMs'>
>

/** One line that a function or the gateway logged. */
export type LogLine = { functionName: string; line: string }

const localStage = join(import.meta.dirname, '../../infra/stages/local.json')
const attempts = 3
/** The first synthesis of a run loads the CDK, beside other tests. */
const synthesisLimitMs = 55_000

const page: RequestListener = (_, response) => {
  const links = '<a href="/bff/login">Sign in</a> <a href="/bff/logout">Sign out</a>'
  response.writeHead(200, { 'Content-Type': 'text/html' }).end(`<!doctype html><title>Frontend</title>${links}`)
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, 'localhost')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}

/** The cloud assembly of a stage file, made by the run's one warm process; resolves with its folder. */
export const synthesizeStage = async (stage: unknown): Promise<string> => {
  const body = JSON.stringify(stage)
  const request = { origin: inject('synthesizer'), method: 'POST', path: '/', headers: [], body }
  const reply = await exchange({ ...request, deadlineMs: synthesisLimitMs })
  if (reply.status !== 200) throw new Error(`the stage does not synthesize: ${reply.text}`)
  return String(reply.json()['assembly'])
}

const isPortTaken = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'

/** Synthesizes the stage for a free port and starts it there; another port where that one was taken meanwhile. */
const startOnFreePort = async (
  stageFor: (origin: string) => StageFile,
  options: Omit<LocalStackOptions, 'assembly' | 'port'>,
) => {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort()
    const assembly = await synthesizeStage(stageFor(`http://localhost:${port}`))
    try {
      return await startLocalStack({ ...options, assembly, port })
    } catch (error) {
      if (attempt === attempts || !isPortTaken(error)) throw error
    }
  }
}

/**
 * A stack of its own runs on a free port, with the provider `demo` at `issuer` and the route `/api/demo` to a resource
 * server. Its registration has happened.
 */
const startStack = async (issuer: string, resource: string | undefined, options: StackOptions) => {
  const { stage: change = (stage) => stage, target: given, ...local } = options
  const resourceServer =
    given === undefined
      ? await startResourceServer({ port: 0, issuer, ...(resource !== undefined && { audience: resource }) })
      : undefined
  const target = given ?? resourceServer?.url ?? ''
  const base: StageFile = JSON.parse(await readFile(localStage, 'utf8'))
  const { resource: _, ...provider } = base.providers['demo'] ?? {}
  const stageFor = (origin: string): StageFile =>
    change({
      ...base,
      origin,
      providers: { demo: { ...provider, issuer, ...(resource !== undefined && { resource }) } },
      apis: { demo: { ...base.apis['demo'], target } },
    })
  const logs: LogLine[] = []
  const onLog = (functionName: string, line: string): void => void logs.push({ functionName, line })
  const stack = await startOnFreePort(stageFor, { frontend: page, ...local, onLog }).catch(async (error: unknown) => {
    await resourceServer?.close()
    throw error
  })
  const operator = {
    region: REGION,
    credentials: { accessKeyId: operatorAccessKeyId, secretAccessKey: 'operator' },
  }
  const dynamoDb = new DynamoDBClient({ ...operator, endpoint: stack.endpoints.dynamodb })
  const secretsManager = new SecretsManagerClient({ ...operator, endpoint: stack.endpoints.secretsManager })

  return {
    origin: stack.url,
    stack,
    /** The base URL of `/api/demo`. */
    target,
    /** A new browser with an empty cookie store. */
    newBrowser: () => createBrowser({ origin: stack.url }),
    /** Everything that functions and the gateway have logged so far. */
    logs: logs as readonly LogLine[],
    /** Every item of every table, as stored. */
    items: async (): Promise<Record<string, AttributeValue>[]> => {
      const { TableNames = [] } = await dynamoDb.send(new ListTablesCommand({}))
      const found: Record<string, AttributeValue>[] = []
      for (const TableName of TableNames) {
        for await (const { Items = [] } of paginateScan({ client: dynamoDb }, { TableName })) found.push(...Items)
      }
      return found
    },
    /** Puts an item in the place of the one with its keys, past every policy. */
    putItem: async (item: Record<string, AttributeValue>): Promise<void> => {
      await dynamoDb.send(new PutItemCommand({ TableName: stack.physicalId('Table'), Item: item }))
    },
    /** Gives a secret, named the same way, another current value. */
    putSecretValue: async (logicalId: string, value: string): Promise<void> => {
      const SecretId = stack.physicalId(logicalId)
      await secretsManager.send(new PutSecretValueCommand({ SecretId, SecretString: value }))
    },
    /** The current value of a secret, named by its logical id or the beginning of it. */
    secretValue: async (logicalId: string): Promise<string> => {
      const command = new GetSecretValueCommand({ SecretId: stack.physicalId(logicalId) })
      return (await secretsManager.send(command)).SecretString ?? ''
    },
    close: async (): Promise<void> => {
      dynamoDb.destroy()
      secretsManager.destroy()
      await stack.close()
      await resourceServer?.close()
    },
  }
}

/** The resource indicator of stacks with a strict authorization server. */
const strictResource = 'https://resource.example'

/** A stack whose provider is a strict authorization server of its own, which signs users in without a page. */
export const startStrictStack = async ({
  strict = {},
  before,
  ...options
}: StackOptions & {
  strict?: StrictOptions
  /** Called with the server before the stack meets it. */
  before?: (server: StrictAuthorizationServer) => void
} = {}) => {
  const authorizationServer = await startStrictAuthorizationServer({ resources: [strictResource], ...strict })
  before?.(authorizationServer)
  const resource = strict.resources ? strict.resources[0] : strictResource
  const started = await startStack(authorizationServer.issuer, resource, options).catch(async (error: unknown) => {
    await authorizationServer.close()
    throw error
  })
  const close = async (): Promise<void> => {
    await started.close()
    await authorizationServer.close()
  }
  return { ...started, authorizationServer, close }
}

/** A stack whose provider is a server of Coder's kind, with the profile of it; `/api/demo` is its API. */
export const startCoderStack = async ({
  coder = {},
  before,
  stage,
  ...options
}: StackOptions & {
  coder?: CoderOptions
  /** Called with the server before the stack meets it. */
  before?: (server: CoderServer) => void
} = {}) => {
  const authorizationServer = await startCoderServer(coder)
  before?.(authorizationServer)
  const { issuer } = authorizationServer
  const asCoder = (file: StageFile): StageFile => ({
    ...file,
    providers: { demo: { ...file.providers['demo'], profile: 'coder' } },
  })
  const started = await startStack(issuer, undefined, {
    target: `${issuer}/api/v2`,
    ...options,
    stage: (file) => stage?.(asCoder(file)) ?? asCoder(file),
  }).catch(async (error: unknown) => {
    await authorizationServer.close()
    throw error
  })
  const close = async (): Promise<void> => {
    await started.close()
    await authorizationServer.close()
  }
  return { ...started, authorizationServer, close }
}

/** A stack whose provider is the demo authorization server, with its pages. */
export const startDemoStack = async ({
  demo = {},
  before,
  ...options
}: StackOptions & {
  demo?: Partial<AuthorizationServerOptions>
  /** Called with the server before the stack meets it. */
  before?: (server: AuthorizationServer) => void
} = {}) => {
  const authorizationServer = await startAuthorizationServer({ port: 0, resource: strictResource, ...demo })
  before?.(authorizationServer)
  const started = await startStack(authorizationServer.issuer, strictResource, options).catch(
    async (error: unknown) => {
      await authorizationServer.close()
      throw error
    },
  )
  const close = async (): Promise<void> => {
    await started.close()
    await authorizationServer.close()
  }
  return { ...started, authorizationServer, close }
}
