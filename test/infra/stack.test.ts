import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { synthesizeStage } from '../support/stacks.ts'

type Properties = Record<string, unknown>
type Resource = {
  DependsOn?: string[]
  Type: string
  Properties: Properties
  DeletionPolicy?: string
  UpdateReplacePolicy?: string
  Metadata?: Properties
}
type Template = { Resources: Record<string, Resource> }

const stage = {
  origin: 'https://app.example.com',
  providers: {
    main: { issuer: 'https://as.example.com', initial_access_token_secret: 'operator/main-token' },
    'second-one': {
      issuer: 'https://second.example.com',
      initial_access_token_secret: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:second-AbCdEf',
    },
  },
  apis: { orders: { provider: 'main', target: 'https://orders.example.com/v1' } },
  logs: { retention_days: 30 },
}
const startsTasks = [
  'Callback',
  'ApiToken',
  'Sessions',
  'Refresh',
  'Logout',
  'BackchannelLogout',
  'OperatorSessions',
  'Api',
]
const flows = [...startsTasks, 'Login', 'Session', 'Jwks', 'Background', 'Register', 'Rotate', 'Upkeep']

let assembly: string
let template: Template
let throwaway: Template
const read = (folder: string): Template =>
  JSON.parse(readFileSync(join(folder, 'coatcheck-local.template.json'), 'utf8'))

beforeAll(async () => {
  assembly = await synthesizeStage(stage)
  template = read(assembly)
  throwaway = read(await synthesizeStage({ ...stage, removal: 'destroy' }))
})

const resources = (type: string, { Resources } = template): [id: string, resource: Resource][] =>
  Object.entries(Resources).filter(([, resource]) => resource.Type === type)
const only = (type: string, from = template): Resource => {
  const [[, resource], ...more] = resources(type, from) as [[string, Resource]]
  expect(more).toEqual([])
  return resource
}
/** A logical id is the path of names, and a hash; `Session` is not `Sessions`. */
const isOf = (id: string, name: string): boolean => new RegExp(`^${name}(Function|Role|Log)?[0-9A-F]{8}$`).test(id)
const find = (type: string, prefix: string): [id: string, properties: Properties] => {
  const [id, resource] = resources(type).find(([name]) => isOf(name, prefix)) ?? expect.fail(`no ${type} ${prefix}`)
  return [id, resource.Properties]
}
/** Text of anything in the template. */
const text = (value: unknown): string => JSON.stringify(value)

describe('the table', () => {
  test('has both keys, ends items by ttl, is paid by request and encrypted', () => {
    expect(only('AWS::DynamoDB::Table').Properties).toMatchObject({
      KeySchema: [
        { AttributeName: 'pk', KeyType: 'HASH' },
        { AttributeName: 'sk', KeyType: 'RANGE' },
      ],
      AttributeDefinitions: [
        { AttributeName: 'pk', AttributeType: 'S' },
        { AttributeName: 'sk', AttributeType: 'S' },
      ],
      BillingMode: 'PAY_PER_REQUEST',
      TimeToLiveSpecification: { AttributeName: 'ttl', Enabled: true },
      SSESpecification: { SSEEnabled: true },
    })
  })

  test('stays when the stack goes, with its secrets, unless the stage says otherwise', () => {
    const kept = [
      only('AWS::DynamoDB::Table'),
      ...resources('AWS::SecretsManager::Secret').map(([, resource]) => resource),
    ]
    for (const resource of kept)
      expect(resource).toMatchObject({ DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' })
    expect(only('AWS::DynamoDB::Table').Properties).toMatchObject({ DeletionProtectionEnabled: true })
    const going = [
      only('AWS::DynamoDB::Table', throwaway),
      ...resources('AWS::SecretsManager::Secret', throwaway).map(([, one]) => one),
    ]
    for (const resource of going)
      expect(resource).toMatchObject({ DeletionPolicy: 'Delete', UpdateReplacePolicy: 'Delete' })
    expect(only('AWS::DynamoDB::Table', throwaway).Properties).toMatchObject({ DeletionProtectionEnabled: false })
  })
})

describe('the secrets', () => {
  test('are the sealing keys, made up by Secrets Manager, and one without a value for each provider', () => {
    const made = resources('AWS::SecretsManager::Secret').map(([id, { Properties: given }]) => [
      id.replace(/[0-9A-F]{8}$/, ''),
      given['GenerateSecretString'],
    ])
    expect(made).toEqual([
      [
        'SealingKeys',
        {
          SecretStringTemplate: '{"current":"k1"}',
          GenerateStringKey: 'k1',
          PasswordLength: 64,
          ExcludePunctuation: true,
        },
      ],
      ['Providermain', undefined],
      ['Providersecondone', undefined],
    ])
  })

  test('have no value in the template', () => {
    for (const [, { Properties: given }] of resources('AWS::SecretsManager::Secret'))
      expect(given).not.toHaveProperty('SecretString')
    expect(resources('AWS::SSM::Parameter')).toEqual([])
  })
})

describe('the functions', () => {
  test('are these, and no other', () => {
    const ids = resources('AWS::Lambda::Function').map(([id]) => id.replace(/Function[0-9A-F]{8}$/, ''))
    expect(ids.toSorted()).toEqual(flows.toSorted())
    expect(resources('AWS::Lambda::LayerVersion')).toEqual([])
    expect(resources('AWS::Lambda::Url')).toEqual([])
  })

  test.each(flows)('%s runs on Node.js 24 and arm64, with a log group of its own that forgets', (flow) => {
    const [, properties] = find('AWS::Lambda::Function', flow)
    const [log, { RetentionInDays: days }] = find('AWS::Logs::LogGroup', `${flow}Log`)
    expect(properties).toMatchObject({
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
      Handler: 'index.handler',
      LoggingConfig: { LogGroup: { Ref: log } },
      Description: expect.stringMatching(/^[A-Z].{10,}/),
    })
    expect(days).toBe(30)
    expect(Number(properties['Timeout'])).toBeLessThanOrEqual(
      { OperatorSessions: 60, Register: 60, Rotate: 60, Upkeep: 120, Background: 30 }[flow] ?? 29,
    )
  })

  test.each(flows)('%s has the stage, the table and the names of secrets in its environment, and no secret', (flow) => {
    const { Environment } = find('AWS::Lambda::Function', flow)[1]
    const { Variables } = Environment as { Variables: Properties }
    const names = [
      'PROVIDER_SECRETS',
      'SEALING_SECRET',
      'STACK',
      'STAGE',
      'TABLE',
      ...(startsTasks.includes(flow) ? ['BACKGROUND'] : []),
    ]
    expect(Object.keys(Variables).toSorted()).toEqual(names.map((name) => `COATCHECK_${name}`).toSorted())
    expect(text(Variables)).not.toMatch(/resolve:secretsmanager|client_secret/)
    expect(JSON.parse(String(Variables['COATCHECK_STAGE']))).toMatchObject({ origin: stage.origin, removal: 'retain' })
    expect(Variables['COATCHECK_STACK']).toBe('coatcheck-local')
  })

  test.each(flows)('%s is ES modules with their source maps, and nothing of the CDK or of tests', (flow) => {
    const { S3Key } = find('AWS::Lambda::Function', flow)[1]['Code'] as { S3Key: string }
    const folder = join(assembly, `asset.${S3Key.replace('.zip', '')}`)
    const files = readdirSync(folder).toSorted()
    const modules = files.filter((file) => file.endsWith('.mjs'))
    expect(files).toEqual(modules.flatMap((file) => [file, `${file}.map`]))
    const source = readFileSync(join(folder, 'index.mjs'), 'utf8')
    expect(source).toContain('sourceMappingURL=index.mjs.map')
    const sourcesOf = (file: string): string[] =>
      (JSON.parse(readFileSync(join(folder, `${file}.map`), 'utf8')) as { sources: string[] }).sources
    const sources = modules.flatMap(sourcesOf)
    const ours = sources.filter((file) => !file.includes('node_modules/')).map((file) => file.replace(/^(\.\.\/)+/, ''))
    expect(ours.filter((file) => !/(lambdas|shared|infra\/builtins)\/[\w-]+\.c?[jt]s$/.test(file))).toEqual([])
    expect(sources.filter((file) => /node_modules\/(aws-cdk|vitest|dynalite|oidc-provider)/.test(file))).toEqual([])
    // Who starts tasks loads the client when it starts one.
    expect(sourcesOf('index.mjs').filter((file) => file.includes('client-lambda'))).toEqual([])
    expect(sources.join().includes('client-lambda') || !startsTasks.includes(flow)).toBe(true)
    // Only logout tokens need it: the OAuth library checks the others.
    expect(sources.some((file) => file.includes('node_modules/jose/'))).toBe(flow === 'BackchannelLogout')
    expect(source).toMatch(/\bexport\{[^}]*\bas handler\b/)
  })
})

describe('the grants', () => {
  const table = () => ({ 'Fn::GetAtt': [resources('AWS::DynamoDB::Table')[0]?.[0], 'Arn'] })
  const secret = (prefix: string) => ({ Ref: find('AWS::SecretsManager::Secret', prefix)[0] })
  const providers = () => [secret('Providermain'), secret('Providersecondone')]
  const dynamoDb = (...actions: string[]) => ({
    Action: actions.map((action) => `dynamodb:${action}`),
    Resource: [table()],
  })
  const secrets = (...list: unknown[]) => ({ Action: ['secretsmanager:GetSecretValue'], Resource: list })

  const keys = () => secrets(secret('SealingKeys'))
  const tasks = () => ({
    Action: ['lambda:InvokeFunction'],
    Resource: [{ 'Fn::GetAtt': [find('AWS::Lambda::Function', 'Background')[0], 'Arn'] }],
  })
  const ending = ['DeleteItem', 'Query']
  const renewing = ['BatchGetItem', 'UpdateItem', 'BatchWriteItem', ...ending]

  const initialAccessTokens = () =>
    secrets(
      {
        'Fn::Join': [
          '',
          [
            'arn:',
            { Ref: 'AWS::Partition' },
            ':secretsmanager:',
            { Ref: 'AWS::Region' },
            ':',
            { Ref: 'AWS::AccountId' },
            ':secret:operator/main-token-??????',
          ],
        ],
      },
      stage.providers['second-one'].initial_access_token_secret,
    )
  const changing = () => ({
    Action: ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage'].map(
      (action) => `secretsmanager:${action}`,
    ),
    Resource: providers(),
  })
  const expected: Record<string, () => unknown[]> = {
    Login: () => [keys(), secrets(...providers())],
    Callback: () => [dynamoDb('PutItem', 'ConditionCheckItem', ...ending), keys(), secrets(...providers()), tasks()],
    ApiToken: () => [dynamoDb('PutItem', 'ConditionCheckItem', ...ending), keys(), secrets(...providers()), tasks()],
    Session: () => [dynamoDb('BatchGetItem'), keys()],
    Jwks: () => [secrets(...providers())],
    Sessions: () => [dynamoDb('BatchGetItem', ...ending), keys(), secrets(...providers()), tasks()],
    Refresh: () => [dynamoDb(...renewing), keys(), secrets(...providers()), tasks()],
    Logout: () => [dynamoDb(...ending), keys(), secrets(...providers()), tasks()],
    BackchannelLogout: () => [
      dynamoDb('BatchGetItem', 'BatchWriteItem', ...ending),
      keys(),
      secrets(...providers()),
      tasks(),
    ],
    OperatorSessions: () => [dynamoDb('Scan', 'BatchWriteItem', ...ending), keys(), secrets(...providers()), tasks()],
    Api: () => [dynamoDb(...renewing), keys(), secrets(...providers()), tasks()],
    Background: () => [dynamoDb(...renewing), keys(), secrets(...providers())],
    Register: () => [initialAccessTokens()],
    Rotate: () => [changing(), initialAccessTokens()],
    Upkeep: () => [
      changing(),
      { Action: ['secretsmanager:RotateSecret'], Resource: providers() },
      {
        Action: ['lambda:InvokeFunction'],
        Resource: [{ 'Fn::GetAtt': [find('AWS::Lambda::Function', 'Rotate')[0], 'Arn'] }],
      },
    ],
  }

  test.each(flows)('of %s are exactly these', (flow) => {
    const [role, { AssumeRolePolicyDocument, ManagedPolicyArns, Policies }] = find('AWS::IAM::Role', `${flow}Role`)
    expect(ManagedPolicyArns).toBeUndefined()
    expect(text(AssumeRolePolicyDocument)).toContain('"Service":"lambda.amazonaws.com"')
    const [policy, ...more] = Policies as { PolicyDocument: { Statement: Properties[] } }[]
    const [logs, ...grants] = policy?.PolicyDocument.Statement ?? []
    expect(more).toEqual([])
    expect(logs).toMatchObject({
      Effect: 'Allow',
      Action: ['logs:CreateLogStream', 'logs:PutLogEvents'],
      Resource: { 'Fn::GetAtt': [find('AWS::Logs::LogGroup', `${flow}Log`)[0], 'Arn'] },
    })
    const listed = grants.map(({ Action, Resource }) => ({
      Action: [Action].flat(),
      Resource: [Resource].flat(),
    }))
    expect(listed).toEqual(expected[flow]?.())
    expect(grants.every(({ Effect }) => Effect === 'Allow')).toBe(true)
    expect(find('AWS::Lambda::Function', flow)[1]['Role']).toEqual({ 'Fn::GetAtt': [role, 'Arn'] })
  })

  test('come from one other policy for each provider, which goes after its registration does', () => {
    const [role] = find('AWS::IAM::Role', 'RegisterRole')
    const policies = resources('AWS::IAM::Policy')
    const registrations = resources('Custom::CoatcheckRegistration')
    const given = policies.map(([id, { Properties: policy }]) => {
      const { Statement } = policy['PolicyDocument'] as { Statement: Properties[] }
      const registration = registrations.find(([, { DependsOn: before }]) => before?.includes(id))
      return { roles: policy['Roles'], Statement, of: registration?.[1].Properties['Secret'] }
    })
    const actions = ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage']
    const Action = actions.map((action) => `secretsmanager:${action}`)
    expect(given).toEqual(
      providers().map((one) => ({
        roles: [{ Ref: role }],
        Statement: [{ Effect: 'Allow', Action, Resource: one }],
        of: one,
      })),
    )
    expect(resources('AWS::IAM::ManagedPolicy')).toEqual([])
    expect(resources('AWS::SecretsManager::ResourcePolicy')).toEqual([])
    expect(resources('AWS::IAM::Role')).toHaveLength(flows.length)
  })
})

describe('the HTTP API', () => {
  test('has these routes, each to its function', () => {
    const integrations = new Map(resources('AWS::ApiGatewayV2::Integration'))
    const routes = resources('AWS::ApiGatewayV2::Route').map(([, { Properties: route }]) => {
      const id = [...integrations.keys()].find((name) => text(route['Target']).includes(name)) ?? ''
      return [
        route['RouteKey'],
        text(integrations.get(id)?.Properties['IntegrationUri']).replace(/.*"(\w+)Function.*/, '$1'),
      ]
    })
    expect(Object.fromEntries(routes)).toEqual({
      'ANY /bff/login': 'Login',
      'ANY /bff/callback/{provider}': 'Callback',
      'ANY /bff/session': 'Session',
      'ANY /bff/sessions': 'Sessions',
      'ANY /bff/sessions/{id}': 'Sessions',
      'ANY /bff/refresh': 'Refresh',
      'ANY /bff/logout': 'Logout',
      'ANY /bff/backchannel-logout/{provider}': 'BackchannelLogout',
      'ANY /bff/jwks.json': 'Jwks',
      'ANY /bff/api-token/{provider}': 'ApiToken',
      'ANY /api/{api}/{path+}': 'Api',
    })
  })

  test('hands on payload 2.0 as it is: no header mapping, no CORS, no authorizer', () => {
    for (const [, { Properties: integration }] of resources('AWS::ApiGatewayV2::Integration')) {
      expect(integration).toMatchObject({ IntegrationType: 'AWS_PROXY', PayloadFormatVersion: '2.0' })
      expect(integration).not.toHaveProperty('RequestParameters')
      expect(integration).not.toHaveProperty('ResponseParameters')
    }
    expect(only('AWS::ApiGatewayV2::Api').Properties).not.toHaveProperty('CorsConfiguration')
    expect(resources('AWS::ApiGatewayV2::Authorizer')).toEqual([])
    for (const [, { Properties: route }] of resources('AWS::ApiGatewayV2::Route'))
      expect(route['AuthorizationType']).toBe('NONE')
  })

  test('may invoke its functions, on its routes only, and nobody else may', () => {
    const permissions = resources('AWS::Lambda::Permission')
      .map(([, { Properties: given }]) => given)
      .filter(({ Principal: who }) => !/^(secretsmanager|events)\./.test(String(who)))
    expect(permissions).toHaveLength(11)
    for (const permission of permissions) {
      expect(permission).toMatchObject({ Action: 'lambda:InvokeFunction', Principal: 'apigateway.amazonaws.com' })
      expect(text(permission['SourceArn'])).toMatch(/"\/\*\/\*\/(bff|api)\/[^"]+"/)
    }
  })

  test('logs neither paths with their queries nor headers, and forgets', () => {
    const { AccessLogSettings } = only('AWS::ApiGatewayV2::Stage').Properties
    const { Format } = AccessLogSettings as { Format: string }
    const variables = Object.values(JSON.parse(Format) as Record<string, string>)
    expect(variables.toSorted()).toEqual([
      '$context.integrationErrorMessage',
      '$context.requestId',
      '$context.responseLatency',
      '$context.routeKey',
      '$context.status',
    ])
    expect(find('AWS::Logs::LogGroup', 'AccessLog')[1]).toMatchObject({ RetentionInDays: 30 })
  })
})

test('every provider is registered at deploy by a custom resource that knows what it is about', () => {
  const [register] = find('AWS::Lambda::Function', 'Register')
  const registrations = resources('Custom::CoatcheckRegistration').map(([, { Properties: given }]) => given)
  expect(registrations.map(({ ServiceToken }) => ServiceToken)).toEqual([
    { 'Fn::GetAtt': [register, 'Arn'] },
    { 'Fn::GetAtt': [register, 'Arn'] },
  ])
  expect(
    registrations.map(({ Provider, Origin, Settings }) => [Provider, Origin, JSON.parse(String(Settings))]),
  ).toEqual([
    ['main', stage.origin, expect.objectContaining(stage.providers.main)],
    ['second-one', stage.origin, expect.objectContaining(stage.providers['second-one'])],
  ])
})

test('without an initial access token nobody may read one', async () => {
  const plain = { ...stage, providers: { main: { issuer: 'https://as.example.com' } } }
  const { Resources } = read(await synthesizeStage(plain))
  const role = Object.entries(Resources).find(([id]) => id.startsWith('RegisterRole'))?.[1]
  expect(text(role)).toContain('logs:PutLogEvents')
  expect(text(role)).not.toContain('secretsmanager')
  expect(text(role)).not.toContain('??????')
})
