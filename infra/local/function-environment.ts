import { randomBytes } from 'node:crypto'
import { ACCOUNT_ID, REGION } from './aws-call.ts'

/** A function as its template describes it; `taskRoot` is the folder with its bundle, `handler` is `file.export`. */
export interface FunctionDefinition {
  logicalId: string
  functionName: string
  description: string
  arn: string
  logGroupName: string
  runtime: string
  handler: string
  taskRoot: string
  memoryMegabytes: number
  timeoutSeconds: number
  environment: Record<string, string>
}

/** Where functions find the AWS APIs. */
export interface Endpoints {
  dynamodb: string
  secretsManager: string
  lambda: string
}

const environmentLimitBytes = 4096
const reservedNames =
  /^(_HANDLER|_X_AMZN_TRACE_ID|AWS_(DEFAULT_)?REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_(FUNCTION_(NAME|MEMORY_SIZE|VERSION)|INITIALIZATION_TYPE|LOG_(GROUP|STREAM)_NAME|RUNTIME_API)|AWS_ACCESS_KEY(_ID)?|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|LAMBDA_(TASK_ROOT|RUNTIME_DIR))$/

/** The access key id that a function's calls of AWS carry, which is how the emulators know who calls. */
export function accessKeyIdOf(logicalId: string): string {
  return `LOCAL${logicalId.toUpperCase().replaceAll(/[^A-Z0-9]/g, '')}`
}

/** Throws where Lambda refuses the configuration: environment over 4 KB, reserved variable names, a runtime that is not this Node.js. */
export function refuseBadConfiguration({ logicalId, environment, runtime }: FunctionDefinition): void {
  const size = Buffer.byteLength(JSON.stringify(environment))
  if (size > environmentLimitBytes) {
    throw new Error(
      `The environment variables of ${logicalId} take ${size} bytes; Lambda allows ${environmentLimitBytes}.`,
    )
  }
  const reserved = Object.keys(environment).find((name) => reservedNames.test(name))
  if (reserved) throw new Error(`${logicalId} sets ${reserved}, which Lambda reserves.`)
  const major = process.versions.node.split('.')[0]
  if (runtime !== `nodejs${major}.x`) {
    throw new Error(`${logicalId} wants the runtime ${runtime}, but this is Node.js ${major}.`)
  }
}

/** The whole environment of an instance: the template's variables and Lambda's own. */
export function instanceEnvironment(definition: FunctionDefinition, endpoints: Endpoints): Record<string, string> {
  return {
    // Node.js cannot open sockets on Windows without it.
    ...(process.env['SystemRoot'] ? { SystemRoot: process.env['SystemRoot'] } : {}),
    // Authorities that this machine trusts beside the usual ones.
    ...(process.env['NODE_EXTRA_CA_CERTS'] ? { NODE_EXTRA_CA_CERTS: process.env['NODE_EXTRA_CA_CERTS'] } : {}),
    ...definition.environment,
    // Away from the developer's own home, so that no ~/.aws reaches the function.
    HOME: definition.taskRoot,
    TZ: 'UTC',
    _HANDLER: definition.handler,
    LAMBDA_TASK_ROOT: definition.taskRoot,
    AWS_REGION: REGION,
    AWS_DEFAULT_REGION: REGION,
    AWS_EXECUTION_ENV: `AWS_Lambda_${definition.runtime}`,
    AWS_LAMBDA_FUNCTION_NAME: definition.functionName,
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(definition.memoryMegabytes),
    AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
    AWS_LAMBDA_INITIALIZATION_TYPE: 'on-demand',
    AWS_LAMBDA_LOG_GROUP_NAME: definition.logGroupName,
    AWS_LAMBDA_LOG_STREAM_NAME: `[$LATEST]${randomBytes(16).toString('hex')}`,
    AWS_ACCESS_KEY_ID: accessKeyIdOf(definition.logicalId),
    AWS_SECRET_ACCESS_KEY: 'local',
    AWS_SESSION_TOKEN: `local-${ACCOUNT_ID}`,
    AWS_ENDPOINT_URL_DYNAMODB: endpoints.dynamodb,
    AWS_ENDPOINT_URL_SECRETS_MANAGER: endpoints.secretsManager,
    AWS_ENDPOINT_URL_LAMBDA: endpoints.lambda,
  }
}
