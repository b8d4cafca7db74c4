import { DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb'
import { GetSecretValueCommand, PutSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { describe, expect, it } from 'vitest'
import type { AwsCall } from '../../infra/local/aws-call.ts'
import { startDynamoDb } from '../../infra/local/dynamodb.ts'
import { createPolicyGate, type Principal, type Statement } from '../../infra/local/policy.ts'
import { startSecretsManager } from '../../infra/local/secrets-manager.ts'

const table = 'arn:aws:dynamodb:us-east-1:000000000000:table/sessions'

const allow = (Action: string | string[], Resource: string | string[] = table): Statement => ({
  Effect: 'Allow',
  Action,
  Resource,
})
const deny = (Action: string, Resource = table): Statement => ({ Effect: 'Deny', Action, Resource })

const principalWith = (...statements: Statement[]): Principal => ({
  functionName: 'coatcheck-session',
  roleName: 'SessionRole',
  statements,
})
const gateFor = (...statements: Statement[]) =>
  createPolicyGate({ principals: new Map([['AKIDSESSION', principalWith(...statements)]]), admin: 'AKIDADMIN' })

const call = (action: string, resources: string[] = [table], input: Record<string, unknown> = {}): AwsCall => ({
  accessKeyId: 'AKIDSESSION',
  service: 'dynamodb',
  action,
  resources,
  input,
})

describe('a function may do what its statements allow', () => {
  it.each<[string, Statement[], AwsCall]>([
    ['the very action', [allow('dynamodb:GetItem')], call('dynamodb:GetItem')],
    ['one of several', [allow(['dynamodb:PutItem', 'dynamodb:GetItem'])], call('dynamodb:GetItem')],
    ['an action in other letters', [allow('DynamoDB:getitem')], call('dynamodb:GetItem')],
    ['an action by wildcard', [allow('dynamodb:Get*')], call('dynamodb:GetItem')],
    ['a resource by wildcard', [allow('dynamodb:*', 'arn:aws:dynamodb:*:*:table/s?ssions')], call('dynamodb:GetItem')],
    ['an index', [allow('dynamodb:Query', `${table}/index/*`)], call('dynamodb:Query', [`${table}/index/by-sid`])],
    [
      'every table of a batch',
      [allow('dynamodb:BatchGetItem', '*')],
      call('dynamodb:BatchGetItem', [table, `${table}2`]),
    ],
  ])('%s', (_, statements, allowed) => {
    expect(gateFor(...statements)(allowed)).toBeUndefined()
  })
})

describe('a function may not do anything else', () => {
  it.each<[string, Statement[], AwsCall]>([
    ['nothing is allowed', [], call('dynamodb:GetItem')],
    ['another action is', [allow('dynamodb:PutItem')], call('dynamodb:GetItem')],
    ['another table is', [allow('dynamodb:GetItem', `${table}2`)], call('dynamodb:GetItem')],
    ['only the index is', [allow('dynamodb:Query', `${table}/index/*`)], call('dynamodb:Query')],
    ['only the table is', [allow('dynamodb:Query')], call('dynamodb:Query', [`${table}/index/by-sid`])],
    ['the name has a dot where the policy has', [allow('dynamodb:GetItem', 'arn.*')], call('dynamodb:GetItem')],
    ['one table of a batch is', [allow('dynamodb:BatchGetItem')], call('dynamodb:BatchGetItem', [table, `${table}2`])],
  ])('when %s', (_, statements, refused) => {
    expect(gateFor(...statements)(refused)).toMatchObject({ type: 'AccessDeniedException' })
  })

  it('and is told so as AWS would', () => {
    expect(gateFor(allow('dynamodb:PutItem'))(call('dynamodb:GetItem'))).toEqual({
      status: 400,
      type: 'AccessDeniedException',
      message:
        'User: arn:aws:sts::000000000000:assumed-role/SessionRole/coatcheck-session is not authorized to perform: ' +
        `dynamodb:GetItem on resource: ${table} because no identity-based policy allows the dynamodb:GetItem action`,
    })
  })

  it('and a deny wins over every allow', () => {
    const gate = gateFor(deny('dynamodb:Delete*'), allow('dynamodb:*'))
    expect(gate(call('dynamodb:GetItem'))).toBeUndefined()
    expect(gate(call('dynamodb:DeleteItem'))?.message).toMatch(/with an explicit deny in an identity-based policy$/)
  })

  it('and a transaction needs the action of each of its items', () => {
    const items = [{ Put: { TableName: 'sessions' } }, { ConditionCheck: { TableName: 'sessions' } }]
    const transaction = call('dynamodb:TransactWriteItems', [table], { TransactItems: items })
    expect(gateFor(allow(['dynamodb:PutItem', 'dynamodb:ConditionCheckItem']))(transaction)).toBeUndefined()
    expect(gateFor(allow(['dynamodb:TransactWriteItems', 'dynamodb:PutItem']))(transaction)?.message).toContain(
      'not authorized to perform: dynamodb:ConditionCheckItem',
    )
  })
})

describe('access keys', () => {
  it('an unknown one is refused, the operator may do everything', () => {
    const gate = gateFor()
    expect(gate({ ...call('dynamodb:GetItem'), accessKeyId: 'AKIDSTRANGER' })).toEqual({
      status: 400,
      type: 'UnrecognizedClientException',
      message: 'The security token included in the request is invalid.',
    })
    expect(gate({ ...call('dynamodb:DeleteTable'), accessKeyId: 'AKIDADMIN' })).toBeUndefined()
  })

  it('one that is added later counts from then on', () => {
    const principals = new Map<string, Principal>()
    const gate = createPolicyGate({ principals, admin: 'AKIDADMIN' })
    expect(gate(call('dynamodb:GetItem'))?.type).toBe('UnrecognizedClientException')
    principals.set('AKIDSESSION', principalWith(allow('dynamodb:GetItem')))
    expect(gate(call('dynamodb:GetItem'))).toBeUndefined()
  })
})

describe('a statement that would be misjudged is an error at the start', () => {
  it.each<[string, object]>([
    ['a condition', { Condition: { StringEquals: { 'aws:RequestedRegion': 'us-east-1' } } }],
    ['everything but an action', { NotAction: 'dynamodb:DeleteItem' }],
    ['everything but a resource', { NotResource: table }],
    ['an unresolved function', { Resource: { 'Fn::GetAtt': ['Table', 'Arn'] } }],
    ['no such effect', { Effect: 'Maybe' }],
  ])('%s', (_, members) => {
    expect(() => gateFor({ ...allow('dynamodb:GetItem'), ...members })).toThrow(/SessionRole .*coatcheck-session/)
  })
})

describe('over the wire', () => {
  const credentials = { accessKeyId: 'AKIDSESSION', secretAccessKey: 'secret' }

  it('the SDK gets an AccessDeniedException that names action and function', async () => {
    const dynamodb = await startDynamoDb({ gate: gateFor(allow('dynamodb:PutItem')) })
    const client = new DynamoDBClient({ endpoint: dynamodb.endpoint, region: 'us-east-1', credentials })
    const get = client.send(new GetItemCommand({ TableName: 'sessions', Key: { pk: { S: 'a' } } }))
    await expect(get).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringMatching(/SessionRole\/coatcheck-session is not authorized to perform: dynamodb:GetItem/),
    })
    client.destroy()
    await dynamodb.close()
  })

  it('a secret is judged by its full ARN, whatever name the caller uses', async () => {
    const principal = principalWith()
    const secrets = await startSecretsManager({
      gate: createPolicyGate({ principals: new Map([['AKIDSESSION', principal]]), admin: 'AKIDADMIN' }),
    })
    const arn = await secrets.createSecret({ Name: 'coatcheck/demo', SecretString: 'value' })
    principal.statements.push(allow('secretsmanager:GetSecretValue', arn))
    const client = new SecretsManagerClient({ endpoint: secrets.endpoint, region: 'us-east-1', credentials })
    for (const SecretId of [arn, 'coatcheck/demo', arn.slice(0, -7)])
      expect((await client.send(new GetSecretValueCommand({ SecretId }))).SecretString).toBe('value')
    await expect(
      client.send(new PutSecretValueCommand({ SecretId: 'coatcheck/demo', SecretString: 'other' })),
    ).rejects.toMatchObject({
      name: 'AccessDeniedException',
      message: expect.stringContaining(`secretsmanager:PutSecretValue on resource: ${arn}`),
    })
    await expect(client.send(new GetSecretValueCommand({ SecretId: 'coatcheck/none' }))).rejects.toMatchObject({
      name: 'AccessDeniedException',
    })
    client.destroy()
    await secrets.close()
  })
})
