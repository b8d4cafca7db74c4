import { randomBytes } from 'node:crypto'
import { ACCOUNT_ID, isRecord, REGION, tableArn } from './aws-call.ts'
import type { FunctionDefinition } from './function-environment.ts'
import type { Statement } from './policy.ts'
import { generateSecretString } from './secret-generation.ts'

/** The properties of a resource with every intrinsic function resolved. */
export type Properties = Record<string, unknown>

/** A name as CloudFormation makes it up: stack, logical id and 12 random characters, cut to a length. */
export function physicalName(stackName: string, logicalId: string, maxLength: number): string {
  const suffix = randomBytes(6).toString('hex').toUpperCase()
  return `${`${stackName}-${logicalId}`.slice(0, maxLength - suffix.length - 1)}-${suffix}`
}

/** A table's CreateTable input, and the attribute of its time to live. */
export function tableInput(name: string, properties: Properties) {
  const taken = [
    'AttributeDefinitions',
    'KeySchema',
    'GlobalSecondaryIndexes',
    'LocalSecondaryIndexes',
    'BillingMode',
    'ProvisionedThroughput',
  ]
  const timeToLive = properties['TimeToLiveSpecification']
  return {
    arn: tableArn(name),
    input: { ...pick(properties, taken), TableName: name },
    timeToLive: isRecord(timeToLive) && timeToLive['Enabled'] === true ? timeToLive : undefined,
  }
}

/** The first value of a secret: given, generated, or none. */
export function secretValue(properties: Properties): string | undefined {
  if (typeof properties['SecretString'] === 'string') return properties['SecretString']
  const generate = properties['GenerateSecretString']
  return isRecord(generate) ? generateSecretString(generate) : undefined
}

/** A role while the stack is created: policies that name it add their statements. */
export interface Role {
  name: string
  arn: string
  statements: Statement[]
}

/** A role with the statements of its inline policies. Throws where it has a managed policy that says more than writing logs. */
export function createRole(name: string, properties: Properties): Role {
  for (const managed of list(properties['ManagedPolicyArns'])) {
    if (!String(managed).endsWith('service-role/AWSLambdaBasicExecutionRole')) {
      throw new Error(`the role has the managed policy ${String(managed)}, which the local run does not know`)
    }
  }
  const inline = list(properties['Policies']).flatMap((policy) => statementsOf(isRecord(policy) ? policy : {}))
  return { name, arn: `arn:aws:iam::${ACCOUNT_ID}:role/${name}`, statements: inline }
}

/** The statements of a policy's document; `createPolicyGate` judges whether they can be evaluated. */
export function statementsOf(policy: Properties): Statement[] {
  const document = policy['PolicyDocument']
  return isRecord(document) ? (list(document['Statement']) as Statement[]) : []
}

/** A function as its pool needs it. */
export function functionDefinition(
  logicalId: string,
  functionName: string,
  properties: Properties,
  assetFolder: (s3Key: string) => string,
): FunctionDefinition {
  const { Code: code, Environment: environment, LoggingConfig: logging } = properties
  if (!isRecord(code) || typeof code['S3Key'] !== 'string') throw new Error('the code is not an asset')
  const variables = isRecord(environment) && isRecord(environment['Variables']) ? environment['Variables'] : {}
  for (const [name, value] of Object.entries(variables)) {
    if (typeof value !== 'string') throw new Error(`the variable ${name} is ${JSON.stringify(value)}, not a string`)
  }
  return {
    logicalId,
    functionName,
    description: textOf(properties['Description'], ''),
    arn: `arn:aws:lambda:${REGION}:${ACCOUNT_ID}:function:${functionName}`,
    logGroupName: textOf(isRecord(logging) ? logging['LogGroup'] : undefined, `/aws/lambda/${functionName}`),
    runtime: String(properties['Runtime']),
    handler: String(properties['Handler']),
    taskRoot: assetFolder(code['S3Key']),
    memoryMegabytes: Number(properties['MemorySize'] ?? 128),
    timeoutSeconds: Number(properties['Timeout'] ?? 3),
    environment: variables as Record<string, string>,
  }
}

/** A Lambda permission: which service may invoke a function, and on behalf of what. */
export interface Permission {
  functionName: string
  principal: string
  sourceArn: string | undefined
  sourceAccount: string | undefined
}

/** Reads a permission to invoke a function; `FunctionName` may be a name or an ARN. */
export function permissionOf(properties: Properties): Permission {
  const { FunctionName: name, Principal: principal, SourceArn: source, SourceAccount: account } = properties
  return {
    functionName: String(name).split(':').at(-1) ?? '',
    principal: properties['Action'] === 'lambda:InvokeFunction' ? String(principal) : '',
    sourceArn: typeof source === 'string' ? source : undefined,
    sourceAccount: typeof account === 'string' ? account : undefined,
  }
}

/** True when one of the permissions lets the service invoke the function for a resource of this account. */
export function mayInvoke(
  permissions: readonly Permission[],
  functionName: string,
  principal: string,
  source: string,
): boolean {
  return permissions.some(
    (permission) =>
      permission.functionName === functionName &&
      permission.principal === principal &&
      (permission.sourceAccount === undefined || permission.sourceAccount === ACCOUNT_ID) &&
      (permission.sourceArn === undefined || matchesArn(permission.sourceArn, source)),
  )
}

/** True when one of the permissions lets the API invoke the function for the route. */
export function maySend(
  permissions: readonly Permission[],
  functionName: string,
  apiId: string,
  routeKey: string,
): boolean {
  const source = `arn:aws:execute-api:${REGION}:${ACCOUNT_ID}:${apiId}/$default/${routeKey.replace(' ', '')}`
  return mayInvoke(permissions, functionName, 'apigateway.amazonaws.com', source)
}

function matchesArn(pattern: string, arn: string): boolean {
  const source = pattern
    .replaceAll(/[$()+.[\\\]^{|}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`).test(arn)
}

/** Throws unless each given property is absent or has the one value that the local run plays. */
export function expectOnly(properties: Properties, expected: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(expected)) {
    const given = properties[name]
    if (given !== undefined && given !== value) {
      throw new Error(`${name} is ${JSON.stringify(given)}; the local run only knows ${JSON.stringify(value)}`)
    }
  }
}

function textOf(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise
}

function list(value: unknown): unknown[] {
  return value === undefined ? [] : [value].flat()
}

function pick(properties: Properties, names: string[]): Properties {
  return Object.fromEntries(Object.entries(properties).filter(([name]) => names.includes(name)))
}
