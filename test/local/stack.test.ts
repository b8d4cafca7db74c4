import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type LocalStack,
  type LocalStackOptions,
  operatorAccessKeyId,
  startLocalStack,
} from '../../infra/local/stack.ts'

const webSource = `
import { DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
const table = new DynamoDBClient()
const secrets = new SecretsManagerClient()
const does = {
  put: () => table.send(new PutItemCommand({ TableName: process.env.TABLE, Item: { pk: { S: 'a' }, sk: { S: 'b' } } })),
  get: () => table.send(new GetItemCommand({ TableName: process.env.TABLE, Key: { pk: { S: 'a' }, sk: { S: 'b' } } })),
  key: () => secrets.send(new GetSecretValueCommand({ SecretId: process.env.KEY })),
}
export const handler = async (event) => {
  const what = event.pathParameters?.what ?? event.what
  try {
    const { Item, SecretString } = await does[what]()
    return { statusCode: 200, body: JSON.stringify({ Item, SecretString, made: process.env.MADE }) }
  } catch (error) {
    return { statusCode: 502, body: error.name + ': ' + error.message }
  }
}`

const makerSource = `
import { writeFileSync } from 'node:fs'
export const handler = async (event) => {
  writeFileSync(process.env.NOTES + '/' + event.RequestType + '.json', JSON.stringify(event))
  const { how } = event.ResourceProperties
  if (how === 'silent') return
  if (how === 'crash') process.exit(1)
  await fetch(event.ResponseURL, {
    method: 'PUT',
    headers: { 'content-type': how === 'typed' ? 'application/json' : '' },
    body: JSON.stringify({
      Status: how === 'refused' ? 'FAILED' : 'SUCCESS',
      Reason: how === 'refused' ? 'The server does not register clients.' : undefined,
      PhysicalResourceId: 'thing-1',
      Data: { Name: 'made ' + how },
    }),
  })
}`

let folder: string
const open: LocalStack[] = []

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'coatcheck-stack-'))
  for (const [name, contents] of Object.entries({ web: webSource, maker: makerSource })) {
    const outfile = join(folder, 'assembly', `asset.${name}`, 'index.mjs')
    const banner = { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)` }
    const stdin = { contents, resolveDir: import.meta.dirname }
    await build({
      stdin,
      outfile,
      banner,
      bundle: true,
      platform: 'node',
      format: 'esm',
      mainFields: ['module', 'main'],
    })
  }
})
afterAll(async () => {
  await Promise.all(open.map((stack) => stack.close()))
  rmSync(folder, { recursive: true })
})

const policy = (Action: string[], Resource: unknown) => ({
  PolicyDocument: { Statement: [{ Effect: 'Allow', Action, Resource }], Version: '2012-10-17' },
})
const lambda = (asset: string, role: string, Variables: Record<string, unknown>) => ({
  Type: 'AWS::Lambda::Function',
  Properties: {
    Code: { S3Bucket: { 'Fn::Sub': 'assets-${AWS::Region}' }, S3Key: `${asset}.zip` },
    Handler: 'index.handler',
    Runtime: 'nodejs24.x',
    Role: { 'Fn::GetAtt': [role, 'Arn'] },
    Environment: { Variables },
    LoggingConfig: { LogGroup: { Ref: 'Logs' } },
  },
})

function resourcesOf({ how = 'well', notes }: { how?: string; notes: string }): Record<string, unknown> {
  return {
    Logs: { Type: 'AWS::Logs::LogGroup', Properties: { RetentionInDays: 90 } },
    Table: {
      Type: 'AWS::DynamoDB::Table',
      Properties: {
        BillingMode: 'PAY_PER_REQUEST',
        AttributeDefinitions: ['pk', 'sk'].map((AttributeName) => ({ AttributeName, AttributeType: 'S' })),
        KeySchema: [
          { AttributeName: 'pk', KeyType: 'HASH' },
          { AttributeName: 'sk', KeyType: 'RANGE' },
        ],
        TimeToLiveSpecification: { AttributeName: 'ttl', Enabled: true },
        PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      },
    },
    Key: {
      Type: 'AWS::SecretsManager::Secret',
      Properties: {
        GenerateSecretString: {
          PasswordLength: 43,
          ExcludePunctuation: true,
          SecretStringTemplate: '{"a":1}',
          GenerateStringKey: 'key',
        },
      },
    },
    Empty: { Type: 'AWS::SecretsManager::Secret', Properties: { Name: 'credentials' } },
    Role: {
      Type: 'AWS::IAM::Role',
      Properties: { Policies: [policy(['dynamodb:PutItem'], { 'Fn::GetAtt': ['Table', 'Arn'] })] },
    },
    Policy: {
      Type: 'AWS::IAM::Policy',
      Properties: {
        PolicyName: 'p',
        Roles: [{ Ref: 'Role' }],
        ...policy(['secretsmanager:GetSecretValue'], { Ref: 'Key' }),
      },
    },
    Web: lambda('web', 'Role', {
      TABLE: { Ref: 'Table' },
      KEY: { Ref: 'Key' },
      MADE: { 'Fn::GetAtt': ['Thing', 'Name'] },
    }),
    MakerRole: { Type: 'AWS::IAM::Role', Properties: {} },
    Maker: lambda('maker', 'MakerRole', { NOTES: notes }),
    Thing: {
      Type: 'Custom::Thing',
      Properties: {
        ServiceToken: { 'Fn::GetAtt': ['Maker', 'Arn'] },
        how,
        count: 3,
        deep: [{ on: true }],
        table: { Ref: 'Table' },
      },
    },
    Api: { Type: 'AWS::ApiGatewayV2::Api', Properties: { Name: 'Api', ProtocolType: 'HTTP' } },
    Stage: {
      Type: 'AWS::ApiGatewayV2::Stage',
      Properties: { ApiId: { Ref: 'Api' }, StageName: '$default', AutoDeploy: true },
    },
    Integration: {
      Type: 'AWS::ApiGatewayV2::Integration',
      Properties: {
        IntegrationType: 'AWS_PROXY',
        IntegrationUri: { 'Fn::GetAtt': ['Web', 'Arn'] },
        PayloadFormatVersion: '2.0',
      },
    },
    ...Object.fromEntries(
      ['GET /bff/{what}', 'POST /bff/{what}'].map((RouteKey, i) => [
        `Route${i}`,
        {
          Type: 'AWS::ApiGatewayV2::Route',
          Properties: {
            RouteKey,
            AuthorizationType: 'NONE',
            Target: { 'Fn::Join': ['', ['integrations/', { Ref: 'Integration' }]] },
          },
        },
      ]),
    ),
    Permission: {
      Type: 'AWS::Lambda::Permission',
      Properties: {
        Action: 'lambda:InvokeFunction',
        FunctionName: { 'Fn::GetAtt': ['Web', 'Arn'] },
        Principal: 'apigateway.amazonaws.com',
        SourceArn: { 'Fn::Sub': 'arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*/GET/bff/{what}' },
      },
    },
  }
}

let assemblies = 0
async function start({
  how,
  change = (resources) => resources,
  ...options
}: {
  how?: string
  change?: (resources: Record<string, unknown>) => Record<string, unknown>
} & Partial<LocalStackOptions> = {}) {
  const name = `Web${(assemblies += 1)}`
  const notes = join(folder, name)
  mkdirSync(notes)
  const write = (file: string, content: unknown) => writeFileSync(join(notes, file), JSON.stringify(content))
  const stack = { type: 'aws:cloudformation:stack', properties: { templateFile: `${name}.template.json` } }
  const asset = (id: string) => [id, { source: { path: `../assembly/asset.${id}`, packaging: 'zip' } }]
  write('manifest.json', { artifacts: { [name]: stack } })
  write(`${name}.assets.json`, { files: Object.fromEntries(['web', 'maker'].map(asset)) })
  write(`${name}.template.json`, {
    Resources: change(resourcesOf({ notes, ...(how && { how }) })),
    Outputs: { Table: { Value: { Ref: 'Table' } } },
  })
  const local = await startLocalStack({ assembly: notes, port: 0, ...options })
  open.push(local)
  return { ...local, notes }
}

const operator = (endpoint: string) => ({
  endpoint,
  region: 'us-east-1',
  credentials: { accessKeyId: operatorAccessKeyId, secretAccessKey: 'x' },
})

describe('a running stack', () => {
  let stack: Awaited<ReturnType<typeof start>>
  const logged: string[] = []
  beforeAll(async () => {
    stack = await start({
      existingSecrets: { 'initial/token': 'secret' },
      onLog: (name, line) => logged.push(`${name} ${line}`),
    })
  })
  const get = async (path: string, init?: RequestInit) => {
    const response = await fetch(stack.url + path, init)
    return { status: response.status, text: await response.text() }
  }

  it('serves the template’s routes with its functions, tables and secrets', async () => {
    expect(stack.url).toMatch(/^http:\/\/localhost:\d+$/)
    expect(await get('/bff/put')).toEqual({ status: 200, text: '{"made":"made well"}' })
    const { status, text } = await get('/bff/key')
    expect(status).toBe(200)
    expect(JSON.parse(String(JSON.parse(text).SecretString))).toEqual({
      a: 1,
      key: expect.stringMatching(/^[A-Za-z0-9]{43}$/),
    })
    expect(stack.outputs).toEqual({ Table: stack.physicalId('Table') })
  })

  it('refuses what the function’s policy does not allow, and says so in the log', async () => {
    const { status, text } = await get('/bff/get')
    expect(status).toBe(502)
    expect(text).toMatch(
      /^AccessDeniedException: User: arn:aws:sts::000000000000:assumed-role\/.+ is not authorized to perform: dynamodb:GetItem/,
    )
    expect(logged.join('\n')).toMatch(/AccessDeniedException/)
  })

  it('knows what each function was granted and what it used', async () => {
    await stack.invoke('Web', { what: 'put' })
    expect(stack.statements('Web').map(({ Action }) => Action)).toEqual([
      ['dynamodb:PutItem'],
      ['secretsmanager:GetSecretValue'],
    ])
    const { functionName } = stack.function('Web').definition
    const resource = `arn:aws:dynamodb:us-east-1:000000000000:table/${stack.physicalId('Table')}`
    expect(stack.awsCalls).toContainEqual({ functionName, action: 'dynamodb:PutItem', resource })
    expect(stack.awsCalls.map(({ action }) => action)).not.toContain('dynamodb:GetItem')
  })

  it('answers 500 on a route whose function has no permission for it', async () => {
    expect(await get('/bff/put', { method: 'POST' })).toEqual({
      status: 500,
      text: '{"message":"Internal Server Error"}',
    })
  })

  it('lets the operator look into tables and secrets', async () => {
    const table = new DynamoDBClient(operator(stack.endpoints.dynamodb))
    const TableName = stack.physicalId('Table')
    await table.send(new PutItemCommand({ TableName, Item: { pk: { S: 'x' }, sk: { S: 'y' } } }))
    const { Item } = await table.send(new GetItemCommand({ TableName, Key: { pk: { S: 'x' }, sk: { S: 'y' } } }))
    expect(Item).toEqual({ pk: { S: 'x' }, sk: { S: 'y' } })
    const secrets = new SecretsManagerClient(operator(stack.endpoints.secretsManager))
    expect(await secrets.send(new GetSecretValueCommand({ SecretId: 'initial/token' }))).toMatchObject({
      SecretString: 'secret',
    })
    await expect(secrets.send(new GetSecretValueCommand({ SecretId: 'credentials' }))).rejects.toThrow(/AWSCURRENT/)
  })

  it('names no resource that is not there', () => {
    expect(() => stack.physicalId('Other')).toThrow(/None has the logical id Other: Logs, Table/)
    expect(() => stack.physicalId('Route')).toThrow(/Several have the logical id Route/)
  })
})

describe('a custom resource', () => {
  it('gets CloudFormation’s event, with every scalar as a string, and its Delete when the stack closes', async () => {
    const { notes, physicalId, close } = await start()
    const event = (type: string): unknown => JSON.parse(readFileSync(join(notes, `${type}.json`), 'utf8'))
    expect(event('Create')).toMatchObject({
      RequestType: 'Create',
      StackId: expect.stringContaining('arn:aws:cloudformation:us-east-1:000000000000:stack/Web'),
      RequestId: expect.any(String),
      LogicalResourceId: 'Thing',
      ResourceType: 'Custom::Thing',
      ResourceProperties: { how: 'well', count: '3', deep: [{ on: 'true' }], table: physicalId('Table') },
    })
    expect(physicalId('Thing')).toBe('thing-1')
    await close()
    expect(event('Delete')).toMatchObject({ RequestType: 'Delete', PhysicalResourceId: 'thing-1' })
  })

  it.each([
    ['refused', 'Thing (Custom::Thing): The server does not register clients.'],
    ['silent', 'Thing (Custom::Thing): Thing (Create): its function ended without an answer'],
    [
      'crash',
      /Thing \(Create\): its function Runtime.ExitError: RequestId: \S+ Error: Runtime exited with error: exit status 1/,
    ],
    ['typed', /S3 would refuse: SignatureDoesNotMatch: the URL is signed for an empty Content-Type/],
  ])('that is %s stops the start with its reason', async (how, message) => {
    await expect(start({ how })).rejects.toThrow(message)
  })
})

describe('a stack that cannot run', () => {
  it.each([
    [
      'a resource type without emulator',
      { Bucket: { Type: 'AWS::S3::Bucket' } },
      'Bucket (AWS::S3::Bucket): the local run does not know the resource type AWS::S3::Bucket',
    ],
    [
      'a route with an authorizer',
      { Other: { Type: 'AWS::ApiGatewayV2::Route', Properties: { RouteKey: 'GET /x', AuthorizationType: 'JWT' } } },
      'Other (AWS::ApiGatewayV2::Route): AuthorizationType is "JWT"; the local run only knows "NONE"',
    ],
    [
      'a managed policy',
      {
        Other: {
          Type: 'AWS::IAM::Role',
          Properties: { ManagedPolicyArns: ['arn:aws:iam::aws:policy/AdministratorAccess'] },
        },
      },
      'Other (AWS::IAM::Role): the role has the managed policy arn:aws:iam::aws:policy/AdministratorAccess, which the local run does not know',
    ],
    [
      'a variable that is no string',
      { Other: lambda('web', 'Role', { N: 3 }) },
      'Other (AWS::Lambda::Function): the variable N is 3, not a string',
    ],
  ])('says so and leaves nothing running: %s', async (_, extra, message) => {
    await expect(start({ change: (resources) => ({ ...resources, ...extra }) })).rejects.toThrow(message)
  })

  it('says that the port is taken before it creates anything', async () => {
    const first = await start()
    const port = Number(new URL(first.url).port)
    const progress: string[] = []
    await expect(start({ port, onProgress: (line) => progress.push(line) })).rejects.toThrow(
      `Port ${port} is already in use`,
    )
    expect(progress).toEqual([])
  })
})

it('hands AWS calls to the caller’s gate, and closes twice without complaint', async () => {
  const { invoke, close } = await start({
    gate: ({ action }) =>
      action === 'dynamodb:PutItem' ? { status: 400, type: 'AccessDeniedException', message: 'spoilt' } : undefined,
  })
  expect(await invoke('Web', { what: 'put' })).toMatchObject({ statusCode: 502, body: 'AccessDeniedException: spoilt' })
  await Promise.all([close(), close()])
  await expect(invoke('Web', { what: 'put' })).rejects.toThrow(/the function is gone/)
})
