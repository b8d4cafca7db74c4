import { randomUUID } from 'node:crypto'
import { ACCOUNT_ID, type AwsServer, isRecord, REGION } from './aws-call.ts'
import type { CustomResources } from './custom-resources.ts'
import { accessKeyIdOf, type FunctionDefinition } from './function-environment.ts'
import type { FunctionPool } from './functions.ts'
import { apiHost } from './gateway-payload.ts'
import { createPolicyGate, type Principal } from './policy.ts'
import {
  createRole,
  expectOnly,
  functionDefinition,
  type Permission,
  permissionOf,
  physicalName,
  type Properties,
  type Role,
  secretValue,
  statementsOf,
  tableInput,
} from './resources.ts'
import { ruleArn, type Schedules } from './schedules.ts'
import type { SecretsManager } from './secrets-manager.ts'
import { type Assembly, createResolver, type Resource, type ResourceValues } from './template.ts'

/** What creating resources needs: the emulators, and how a function comes to life. */
export interface CreationParts {
  dynamoDb: AwsServer
  secretsManager: SecretsManager
  customResources: CustomResources
  schedules: Schedules
  /** Where the permissions of the template are collected. */
  permissions: Permission[]
  principals: Map<string, Principal>
  startFunction: (definition: FunctionDefinition) => FunctionPool
  onProgress?: (message: string) => void
}

/** What came of a template; `physicalIds` are what `Ref` gives. */
export interface CreatedResources {
  functions: Map<string, FunctionPool>
  physicalIds: Map<string, string>
  outputs: Record<string, unknown>
  api: { apiId: string; routes: Properties[]; integrations: Map<string, Properties> }
}

/** A resource could not be created; `reason` is why, for a custom resource in its function's own words. */
export class ResourceFailure extends Error {
  readonly reason: string
  readonly isCustomResource: boolean

  constructor(logicalId: string, type: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    super(`${logicalId} (${type}): ${reason}`, { cause })
    this.reason = reason
    this.isCustomResource = isCustom(type)
  }
}

function isCustom(type: string): boolean {
  return type.startsWith('Custom::') || type === 'AWS::CloudFormation::CustomResource'
}

/**
 * Every resource of the assembly exists, custom resources included, in an order that its references allow. Principals are
 * filled with each function's role. Rejects with an Error that names the resource that cannot be created.
 */
export async function createResources(
  assembly: Assembly,
  stackId: string,
  parts: CreationParts,
): Promise<CreatedResources> {
  const { dynamoDb, secretsManager, customResources, schedules, permissions, principals, startFunction, onProgress } =
    parts
  const { stackName, assetFolder } = assembly
  const resolver = createResolver(stackName, stackId)
  const roles: Role[] = []
  const functions = new Map<string, FunctionPool>()
  const physicalIds = new Map<string, string>()
  const api: CreatedResources['api'] = { apiId: '', routes: [], integrations: new Map() }

  const create = async (resource: Resource, properties: Properties): Promise<ResourceValues> => {
    const { logicalId, type } = resource
    const nameOf = (property: string, maxLength: number) =>
      typeof properties[property] === 'string' ? properties[property] : physicalName(stackName, logicalId, maxLength)

    if (isCustom(type)) {
      onProgress?.(`running the custom resource ${logicalId}`)
      const pool = [...functions.values()].find(({ definition }) => definition.arn === properties['ServiceToken'])
      if (!pool) throw new Error('its ServiceToken is no function of this template')
      return customResources.create({ logicalId, type, properties, invoke: pool.invoke })
    }
    switch (type) {
      case 'AWS::DynamoDB::Table': {
        const name = nameOf('TableName', 255)
        const { arn, input, timeToLive } = tableInput(name, properties)
        await dynamoDb.call('CreateTable', input)
        if (timeToLive)
          await dynamoDb.call('UpdateTimeToLive', { TableName: name, TimeToLiveSpecification: timeToLive })
        return { ref: name, attributes: { Arn: arn } }
      }
      case 'AWS::SecretsManager::Secret': {
        const value = secretValue(properties)
        const name = nameOf('Name', 100)
        const { Description: description } = properties
        const arn = await secretsManager.createSecret({
          Name: name,
          ...(typeof description === 'string' && { Description: description }),
          ...(value === undefined ? {} : { SecretString: value }),
        })
        return { ref: arn, attributes: { Id: arn } }
      }
      case 'AWS::SecretsManager::RotationSchedule': {
        const { SecretId, RotationLambdaARN, RotationRules, RotateImmediatelyOnUpdate } = properties
        await secretsManager.call('RotateSecret', {
          SecretId,
          RotationLambdaARN,
          RotationRules: isRecord(RotationRules) ? RotationRules : {},
          RotateImmediately: RotateImmediatelyOnUpdate ?? true,
        })
        return { ref: String(SecretId) }
      }
      case 'AWS::Events::Rule': {
        const name = nameOf('Name', 64)
        schedules.add(logicalId, name, properties)
        return { ref: name, attributes: { Arn: ruleArn(name) } }
      }
      case 'AWS::IAM::Role': {
        const role = createRole(nameOf('RoleName', 64), properties)
        roles.push(role)
        return { ref: role.name, attributes: { Arn: role.arn } }
      }
      case 'AWS::IAM::Policy': {
        const named = roles.filter(({ name }) => [properties['Roles']].flat().includes(name))
        for (const role of named) role.statements.push(...statementsOf(properties))
        return { ref: String(properties['PolicyName']) }
      }
      case 'AWS::Lambda::Function': {
        const name = nameOf('FunctionName', 64)
        const role = roles.find(({ arn }) => arn === properties['Role'])
        if (!role) throw new Error('its Role is no role of this template')
        const principal = { functionName: name, roleName: role.name, statements: role.statements }
        // A gate of its own, so that a statement which cannot be evaluated stops the start and not a call.
        createPolicyGate({ principals: new Map([[name, principal]]), admin: '' })
        principals.set(accessKeyIdOf(logicalId), principal)
        const pool = startFunction(functionDefinition(logicalId, name, properties, assetFolder))
        functions.set(logicalId, pool)
        return { ref: name, attributes: { Arn: pool.definition.arn } }
      }
      case 'AWS::Lambda::EventInvokeConfig':
        expectOnly(properties, { MaximumRetryAttempts: 2 })
        return { ref: logicalId }
      case 'AWS::Lambda::Permission':
        permissions.push(permissionOf(properties))
        return { ref: logicalId }
      case 'AWS::ApiGatewayV2::Api':
        expectOnly(properties, { ProtocolType: 'HTTP' })
        if (api.apiId) throw new Error('it is a second API; the local run serves one')
        api.apiId = randomUUID().slice(-10)
        return { ref: api.apiId, attributes: { ApiId: api.apiId, ApiEndpoint: `https://${apiHost(api.apiId)}` } }
      case 'AWS::ApiGatewayV2::Integration': {
        expectOnly(properties, {
          IntegrationType: 'AWS_PROXY',
          PayloadFormatVersion: '2.0',
          RequestParameters: undefined,
        })
        const id = randomUUID().slice(-7)
        api.integrations.set(id, properties)
        return { ref: id }
      }
      case 'AWS::ApiGatewayV2::Route':
        expectOnly(properties, { AuthorizationType: 'NONE' })
        api.routes.push(properties)
        return { ref: logicalId }
      case 'AWS::ApiGatewayV2::Stage':
        expectOnly(properties, { StageName: '$default', AutoDeploy: true })
        return { ref: '$default' }
      case 'AWS::Logs::LogGroup': {
        const name = nameOf('LogGroupName', 255)
        return { ref: name, attributes: { Arn: `arn:aws:logs:${REGION}:${ACCOUNT_ID}:log-group:${name}:*` } }
      }
      case 'AWS::CloudWatch::Alarm': {
        // Metrics go no further than the log here, so there is nothing to watch.
        const name = nameOf('AlarmName', 255)
        return { ref: name, attributes: { Arn: `arn:aws:cloudwatch:${REGION}:${ACCOUNT_ID}:alarm:${name}` } }
      }
      case 'AWS::CloudWatch::Dashboard':
        return { ref: nameOf('DashboardName', 255) }
      default:
        throw new Error(`the local run does not know the resource type ${type}`)
    }
  }

  for (const resource of assembly.resources) {
    const { logicalId, type } = resource
    const properties = resolver.resolve(resource.properties, logicalId)
    try {
      const values = await create(resource, isRecord(properties) ? properties : {})
      resolver.define(logicalId, values)
      physicalIds.set(logicalId, values.ref)
    } catch (error) {
      throw new ResourceFailure(logicalId, type, error)
    }
  }
  const outputs = resolver.resolve(assembly.outputs, 'An output')
  return { functions, physicalIds, outputs: isRecord(outputs) ? outputs : {}, api }
}
