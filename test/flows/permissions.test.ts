import {
  DynamoDBClient,
  DeleteTableCommand,
  ScanCommand,
  GetItemCommand,
  QueryCommand,
  PutItemCommand,
  DeleteItemCommand,
  UpdateItemCommand,
  TransactWriteItemsCommand,
} from '@aws-sdk/client-dynamodb'
import { GetSecretValueCommand, PutSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { REGION } from '../../infra/local/aws-call.ts'
import { accessKeyIdOf } from '../../infra/local/function-environment.ts'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { insteadJson } from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import { startRecordingResourceServer } from '../support/resource-server.ts'
import { openRotations } from '../support/rotation.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

const functions = [
  'Login',
  'Callback',
  'ApiToken',
  'Session',
  'Sessions',
  'Refresh',
  'Logout',
  'BackchannelLogout',
  'OperatorSessions',
  'Jwks',
  'Api',
  'Background',
  'Register',
  'Rotate',
  'Upkeep',
] as const
type FunctionName = (typeof functions)[number]
/** That the others, which control sessions, use all that they are granted is for test/infra/session-functions.test.ts, and for test/flows/api-token.test.ts. */
const driven = functions.filter(
  (name) => !['ApiToken', 'Sessions', 'BackchannelLogout', 'OperatorSessions', 'Background'].includes(name),
)
const idOf = (name: FunctionName) => `${name}Function`
const initialAccessToken = 'initial-access-token-of-second'

let stack: Awaited<ReturnType<typeof startStrictStack>>
let second: Awaited<ReturnType<typeof startStrictAuthorizationServer>>
let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  second = await startStrictAuthorizationServer({ initialAccessToken })
  stack = await startStrictStack({
    target: resourceServer.url,
    existingSecrets: { 'operator/second-token': initialAccessToken },
    stage: (stage) => ({
      ...stage,
      providers: {
        ...stage.providers,
        second: { issuer: second.issuer, initial_access_token_secret: 'operator/second-token' },
      },
      apis: { ...stage.apis, second: { provider: 'second', target: resourceServer.url } },
    }),
  })
  await everything()
})
afterAll(async () => {
  await stack.close()
  await second.close()
  await resourceServer.close()
})

/** Goes through every flow at both providers, with renewals and refusals. */
async function everything(): Promise<void> {
  const records = openRecords(stack.stack)
  for (const provider of ['demo', 'second']) {
    const server = provider === 'demo' ? stack.authorizationServer : second
    const tab = stack.newBrowser()
    const call = () => tab.fetch(`/api/${provider}/x`)
    const refresh = () => tab.fetch('/bff/refresh', { method: 'POST' })
    await signIn(tab, { provider })
    await signIn(tab, { provider })
    await tab.fetch('/bff/session')
    await tab.fetch('/bff/jwks.json')
    for (const use of [call, refresh]) {
      await records.age('session', { seen: 0 })
      await records.expireTokens()
      expect((await use()).status).toBe(200)
      await records.makeTokensDue()
      expect((await use()).status).toBe(200)
      await stack.stack.backgroundIsIdle()
    }
    server.plan('token', insteadJson(500, {}))
    await records.expireTokens()
    expect((await call()).status).toBe(503)
    await records.endLeases()
    for (const use of [call, refresh]) {
      server.endGrants('ada')
      await records.expireTokens()
      expect((await use()).status).toBe(401)
      await signIn(tab, { provider })
    }
    server.plan('revoke', insteadJson(503, {}))
    expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    await stack.stack.backgroundIsIdle()
    expect(server.unmet()).toEqual([])
  }
  records.close()
  for (const provider of ['Providerdemo', 'Providersecond']) {
    const rotations = openRotations(stack, provider)
    await rotations.rotate()
    const stored = await rotations.stored()
    const current = { ...stored.current, client_secret_expires_at: 1 }
    const retiring = stored.retiring.map((client) => Object.assign(client, { retired_at: 1 }))
    await stack.putSecretValue(provider, JSON.stringify({ ...stored, current, retiring }))
    await stack.stack.fire('EveryHour')
    await stack.stack.rotationIsIdle()
    rotations.close()
  }
  expect(stack.logs.filter(({ line }) => line.includes('AccessDenied'))).toEqual([])
}

/** Whether an ARN is what a policy's pattern means. */
const covers = (pattern: string, arn: string): boolean =>
  new RegExp(
    `^${pattern
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
  ).test(arn)

const grantedTo = (name: FunctionName) =>
  stack.stack
    .statements(idOf(name))
    .flatMap(({ Action, Resource }) =>
      [Action].flat().flatMap((action) => [Resource].flat().map((resource) => ({ action, resource }))),
    )
    .filter(({ action }) => !action.startsWith('logs:'))

describe.each(driven)('%s', (name) => {
  const granted = () => grantedTo(name)
  const used = () => {
    const { functionName } = stack.stack.function(idOf(name)).definition
    return stack.stack.usedPermissions.filter((call) => call.functionName === functionName)
  }

  test('is granted no action and no resource that no flow uses', () => {
    const idle = granted().filter(
      ({ action, resource }) => !used().some((call) => call.action === action && covers(resource, call.resource)),
    )
    expect(idle).toEqual([])
  })

  test('uses all that it is granted', () => {
    const actions = (list: { action: string }[]) => [...new Set(list.map(({ action }) => action))].toSorted()
    expect(actions(used())).toEqual(actions(granted()))
  })
})

describe.each(functions)('%s', (name) => {
  test('is granted exact resources', () => {
    for (const { Action, Resource } of stack.stack.statements(idOf(name))) {
      expect([Action].flat().filter((action) => action.includes('*'))).toEqual([])
      // Secrets Manager ends each ARN in six characters of its own, and a log group's streams are behind it.
      for (const resource of [Resource].flat()) expect(resource.replace(/-\?{6}$|:\*$/, '')).toMatch(/^arn:aws:[^*?]+$/)
    }
  })

  test('is refused whatever else it may try, with action and function in the words', async () => {
    const { definition } = stack.stack.function(idOf(name))
    const credentials = { accessKeyId: accessKeyIdOf(definition.logicalId), secretAccessKey: 'its own' }
    const { dynamodb, secretsManager } = stack.stack.endpoints
    const table = new DynamoDBClient({ region: REGION, credentials, endpoint: dynamodb })
    const secrets = new SecretsManagerClient({ region: REGION, credentials, endpoint: secretsManager })
    const TableName = stack.stack.physicalId('Table')
    const Key = { pk: { S: 'x' }, sk: { S: 'y' } }
    const SecretId = stack.stack.physicalId('SealingKeys')
    const attempts: [action: string, run: () => Promise<unknown>][] = [
      ['dynamodb:Scan', () => table.send(new ScanCommand({ TableName }))],
      [
        'dynamodb:Query',
        () =>
          table.send(
            new QueryCommand({
              TableName,
              KeyConditionExpression: 'pk = :p',
              ExpressionAttributeValues: { ':p': { S: 'x' } },
            }),
          ),
      ],
      ['dynamodb:GetItem', () => table.send(new GetItemCommand({ TableName, Key }))],
      ['dynamodb:PutItem', () => table.send(new PutItemCommand({ TableName, Item: Key }))],
      ['dynamodb:DeleteItem', () => table.send(new DeleteItemCommand({ TableName, Key }))],
      ['dynamodb:UpdateItem', () => table.send(new UpdateItemCommand({ TableName, Key }))],
      [
        'dynamodb:PutItem',
        () => table.send(new TransactWriteItemsCommand({ TransactItems: [{ Put: { TableName, Item: Key } }] })),
      ],
      ['dynamodb:DeleteTable', () => table.send(new DeleteTableCommand({ TableName }))],
      [
        'secretsmanager:PutSecretValue',
        () => secrets.send(new PutSecretValueCommand({ SecretId, SecretString: '{}' })),
      ],
      ['secretsmanager:GetSecretValue', () => secrets.send(new GetSecretValueCommand({ SecretId: 'elsewhere' }))],
    ]
    const mine = new Set(grantedTo(name).map(({ action }) => action))
    const others = attempts.filter(([action]) => !mine.has(action) || action.startsWith('secretsmanager:'))
    for (const [action, run] of others) {
      await expect(run()).rejects.toMatchObject({
        name: 'AccessDeniedException',
        message: expect.stringMatching(
          new RegExp(`/${definition.functionName} is not authorized to perform: ${action} on resource: `),
        ),
      })
    }
    table.destroy()
    secrets.destroy()
  })
})

test('only the functions that open sealed things may read the sealing keys, and only what registers writes a secret', () => {
  const may = (action: string, secret: string) =>
    functions.filter((name) =>
      stack.stack
        .statements(idOf(name))
        .some(
          ({ Action, Resource }) =>
            [Action].flat().includes(action) &&
            [Resource].flat().some((pattern) => covers(pattern, stack.stack.physicalId(secret))),
        ),
    )
  expect(may('secretsmanager:GetSecretValue', 'SealingKeys')).toEqual([
    'Login',
    'Callback',
    'ApiToken',
    'Session',
    'Sessions',
    'Refresh',
    'Logout',
    'BackchannelLogout',
    'OperatorSessions',
    'Api',
    'Background',
  ])
  expect(may('secretsmanager:GetSecretValue', 'Providerdemo')).toEqual([
    'Login',
    'Callback',
    'ApiToken',
    'Sessions',
    'Refresh',
    'Logout',
    'BackchannelLogout',
    'OperatorSessions',
    'Jwks',
    'Api',
    'Background',
    'Register',
    'Rotate',
    'Upkeep',
  ])
  expect(may('secretsmanager:PutSecretValue', 'Providerdemo')).toEqual(['Register', 'Rotate', 'Upkeep'])
})
