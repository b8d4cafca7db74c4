import { randomUUID } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { ACCOUNT_ID, type AwsCall, type Gate, REGION } from './aws-call.ts'
import { createResources, type CreatedResources } from './creation.ts'
import { startCustomResources } from './custom-resources.ts'
import { startDynamoDb } from './dynamodb.ts'
import { createEdge, listen } from './edge.ts'
import { accessKeyIdOf, type Endpoints, type FunctionDefinition } from './function-environment.ts'
import { createFunctionPool, type FunctionPool } from './functions.ts'
import { createHttpApi, type HttpApiRoute } from './gateway.ts'
import { startLambdaApi } from './lambda-api.ts'
import { createPolicyGate, needsOf, type Principal, type Statement } from './policy.ts'
import { mayInvoke, maySend, type Permission } from './resources.ts'
import { createSchedules } from './schedules.ts'
import { startSecretsManager } from './secrets-manager.ts'
import { readAssembly } from './template.ts'
import type { Trace } from './trace.ts'

/** Where the stack comes from and where it listens; the callbacks hear of what happens inside. */
export interface LocalStackOptions {
  /** The cloud assembly folder that the CDK app synthesized. */
  assembly: string
  /** 0 takes a free port. */
  port: number
  /** Both loopback addresses when left out. */
  host?: string
  /** Per function. */
  maxInstances?: number
  frontend?: RequestListener
  /** Secrets that the operator has made before: name to value. */
  existingSecrets?: Record<string, string>
  /** Asked about each AWS call that the caller's policy allows; may answer a fault instead, wait, or throw. */
  gate?: Gate
  trace?: Pick<Trace, 'observeOutgoing' | 'observeBrowser'>
  /** Before each repetition of a rotation that failed, in milliseconds; none: Secrets Manager gives it up at once. */
  rotationRetryDelaysMs?: readonly number[]
  onLog?: (functionName: string, line: string) => void
  onProgress?: (message: string) => void
}

/** An AWS call that a function made and its policy allowed. */
export interface UsedAction {
  functionName: string
  action: string
  resource: string
}

/** A running stack. Resources and functions are named by logical id, or by a beginning of it that only one has. */
export interface LocalStack {
  /** The origin that browsers see. */
  url: string
  endpoints: Endpoints
  outputs: Record<string, unknown>
  physicalId: (logicalId: string) => string
  functions: ReadonlyMap<string, FunctionPool>
  function: (logicalId: string) => FunctionPool
  invoke: (logicalId: string, event: unknown) => Promise<unknown>
  /** What the template's policies grant to a function. */
  statements: (logicalId: string) => readonly Statement[]
  awsCalls: readonly UsedAction[]
  /** What these calls had to be allowed: for a transaction, the action of each of its items. */
  usedPermissions: readonly UsedAction[]
  /** Resolves when nothing that functions started in the background is queued or running any more. */
  backgroundIsIdle: () => Promise<void>
  /** Resolves when no rotation of a secret is under way any more. */
  rotationIsIdle: () => Promise<void>
  /** A rule that goes by the clock has fired, and its targets have handled it. */
  fire: (logicalId: string) => Promise<void>
  /** Custom resources are deleted, every process and server has ended. May be called again. */
  close: () => Promise<void>
}

/** The access key id that may call the emulators without any policy: the operator's own. */
export const operatorAccessKeyId = 'LOCALOPERATOR'

const deleteLimitMs = 5_000

/**
 * The stack of the assembly runs on this machine: its tables and secrets are in emulators, its custom resources have run,
 * its routes answer. Rejects with an Error naming the resource that cannot be created; nothing is left running then.
 */
export async function startLocalStack(options: LocalStackOptions): Promise<LocalStack> {
  const {
    port,
    host = 'localhost',
    maxInstances = 16,
    existingSecrets = {},
    rotationRetryDelaysMs,
    frontend,
    onLog,
    onProgress,
    trace,
  } = options
  const assembly = readAssembly(options.assembly)
  const principals = new Map<string, Principal>()
  const awsCalls: UsedAction[] = []
  const usedPermissions: UsedAction[] = []
  const gate = composeGate(principals, { awsCalls, usedPermissions }, options)
  const closing: (() => Promise<unknown>)[] = []
  const close = closeOnce(closing)

  try {
    // Bound first, so that a taken port is told before anything is registered anywhere.
    let answer: RequestListener = (_request, response) => response.writeHead(503).end('The stack is being created.\n')
    const server = await listen((request, response) => answer(request, response), port, host)
    closing.push(server.close)
    const dynamoDb = await startDynamoDb({ gate })
    closing.push(dynamoDb.close)
    const permissions: Permission[] = []
    const pools: FunctionPool[] = []
    /** A service of AWS invokes a function, on behalf of one of its resources. */
    const invokeAs = async (principal: string, source: string, arn: string, event: unknown): Promise<unknown> => {
      const pool = pools.find(({ definition }) => definition.arn === arn)
      if (!pool || !mayInvoke(permissions, pool.definition.functionName, principal, source))
        throw new Error(`${principal} cannot invoke the function ${arn} for ${source}`)
      return await pool.invoke(event)
    }
    const secretsManager = await startSecretsManager({
      gate,
      rotation: {
        invoke: (arn, event) => invokeAs('secretsmanager.amazonaws.com', event.SecretId, arn, event),
        onLog: (message) => onLog?.('Secrets Manager', message),
        ...(rotationRetryDelaysMs !== undefined && { retryDelaysMs: rotationRetryDelaysMs }),
      },
    })
    closing.push(secretsManager.close)
    const schedules = createSchedules({
      invoke: (arn, rule, event) => invokeAs('events.amazonaws.com', rule, arn, event),
      onLog: (message) => onLog?.('EventBridge', message),
    })
    closing.push(async () => schedules.close())
    for (const [Name, SecretString] of Object.entries(existingSecrets)) {
      await secretsManager.createSecret({ Name, SecretString })
    }
    const stackId = `arn:aws:cloudformation:${REGION}:${ACCOUNT_ID}:stack/${assembly.stackName}/${randomUUID()}`
    const customResources = await startCustomResources(stackId)
    closing.push(customResources.close)
    closing.push(() => Promise.all(pools.map((pool) => pool.close())))
    closing.push(() => Promise.race([customResources.deleteAll(), pause(deleteLimitMs)]))

    const lambda = await startLambdaApi({ gate, functions: () => pools, ...(onLog && { onLog }) })
    closing.push(lambda.close)
    const endpoints = { dynamodb: dynamoDb.endpoint, secretsManager: secretsManager.endpoint, lambda: lambda.endpoint }
    const startFunction = (definition: FunctionDefinition): FunctionPool => {
      const onHttp = trace?.observeOutgoing
      const told = { ...(onLog && { onLog }), ...(onHttp && { onHttp }) }
      const pool = createFunctionPool({ definition, endpoints, maxInstances, ...told })
      pools.push(pool)
      return pool
    }
    const parts = { dynamoDb, secretsManager, customResources, schedules, permissions, principals, startFunction }
    const created = await createResources(assembly, stackId, { ...parts, ...(onProgress && { onProgress }) })
    answer = createEdge(apiOf(created, permissions, options), frontend)
    return {
      url: `http://${host}:${server.port}`,
      endpoints,
      outputs: created.outputs,
      physicalId: (logicalId) => lookUp(created.physicalIds, logicalId),
      functions: created.functions,
      function: (logicalId) => lookUp(created.functions, logicalId),
      invoke: (logicalId, event) => lookUp(created.functions, logicalId).invoke(event),
      statements: (logicalId) =>
        principals.get(accessKeyIdOf(lookUp(created.functions, logicalId).definition.logicalId))?.statements ?? [],
      awsCalls,
      usedPermissions,
      backgroundIsIdle: lambda.idle,
      rotationIsIdle: secretsManager.rotationIsIdle,
      fire: schedules.fire,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Policy first, as IAM is; then the call counts as used; then the caller's own gate may spoil it. */
function composeGate(
  principals: Map<string, Principal>,
  { awsCalls, usedPermissions }: Record<'awsCalls' | 'usedPermissions', UsedAction[]>,
  options: LocalStackOptions,
): Gate {
  const policy = createPolicyGate({ principals, admin: operatorAccessKeyId })
  return async (call: AwsCall) => {
    const functionName = principals.get(call.accessKeyId)?.functionName
    const denied = policy(call)
    if (denied) {
      options.onLog?.(functionName ?? call.accessKeyId, `${denied.type}: ${denied.message}`)
      return denied
    }
    if (functionName) {
      for (const resource of call.resources) awsCalls.push({ functionName, action: call.action, resource })
      for (const need of needsOf(call)) usedPermissions.push({ functionName, ...need })
    }
    return options.gate?.(call)
  }
}

function apiOf(
  { api, functions }: CreatedResources,
  permissions: readonly Permission[],
  { onLog, trace }: LocalStackOptions,
): RequestListener {
  const routes = api.routes.map((route): HttpApiRoute => {
    const routeKey = String(route['RouteKey'])
    const integration = api.integrations.get(String(route['Target']).replace('integrations/', ''))
    const pool = [...functions.values()].find(({ definition }) => definition.arn === integration?.['IntegrationUri'])
    if (!pool) throw new Error(`The route ${routeKey} leads to no function of this template`)
    const { functionName } = pool.definition
    const timeoutMs = integration?.['TimeoutInMillis']
    return {
      routeKey,
      functionName,
      invoke: pool.invoke,
      forbidden: !maySend(permissions, functionName, api.apiId, routeKey),
      ...(timeoutMs === undefined ? {} : { timeoutMs: Number(timeoutMs) }),
    }
  })
  return createHttpApi({
    apiId: api.apiId,
    routes,
    onError: (message) => onLog?.('API Gateway', message),
    ...(trace && { onAnswer: trace.observeBrowser }),
  })
}

/** By logical id, or by what the stack calls it: CDK adds its own words and eight digits. */
function lookUp<T>(values: ReadonlyMap<string, T>, logicalId: string): T {
  const exact = values.get(logicalId)
  if (exact !== undefined) return exact
  const begun = [...values].filter(([name]) => name.startsWith(logicalId))
  const called = begun.filter(([name]) => /^(?:Function)?[0-9A-F]{8}$/.test(name.slice(logicalId.length)))
  const [found, ...more] = (called.length > 0 ? called : begun).map(([, value]) => value)
  if (found === undefined || more.length > 0) {
    throw new Error(
      `${more.length > 0 ? 'Several have' : 'None has'} the logical id ${logicalId}: ${[...values.keys()].join(', ')}`,
    )
  }
  return found
}

function closeOnce(closing: (() => Promise<unknown>)[]): () => Promise<void> {
  let closed: Promise<void> | undefined
  const closeAll = async () => {
    for (const step of closing.toReversed()) await step()
  }
  return () => (closed ??= closeAll())
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref())
}
