import { afterAll, beforeAll, expect, test } from 'vitest'
import { insteadJson } from '../support/faults.ts'
import { startRenewalStack } from '../support/renewal.ts'
import { signIn } from '../support/sign-in.ts'

let stack: Awaited<ReturnType<typeof startRenewalStack>>

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 1 })
  // Afterwards every instance has read what it keeps: sealing keys, credentials, the server's signing keys.
  const tab = await stack.signedIn()
  await tab.fetch('/api/demo/x')
  await tab.fetch('/bff/session')
  for (const path of ['/api/demo/x', '/bff/refresh', '/bff/logout']) {
    await stack.records.expireTokens()
    await tab.fetch(path, { method: 'POST' })
  }
})
afterAll(() => stack.close())

/**
 * The actions at AWS and the calls of the two servers that a function makes while `run` goes on, and those that nobody
 * should make on a warm path.
 */
const trips = async (logicalId: string, run: () => Promise<unknown>) => {
  const { functionName } = stack.stack.function(logicalId).definition
  const { authorizationServer, resourceServer } = stack
  const before = {
    aws: stack.stack.awsCalls.length,
    authorizationServer: authorizationServer.requests.length,
    resourceServer: resourceServer.requests.length,
  }
  await run()
  const aws = stack.stack.awsCalls.slice(before.aws)
  expect(aws.filter(({ action }) => action.startsWith('secretsmanager:'))).toEqual([])
  return {
    dynamoDb: aws.filter((call) => call.functionName === functionName).map(({ action }) => action.split(':')[1]),
    // What the browser itself asks of the server is no round trip of ours.
    authorizationServer: authorizationServer.requests
      .slice(before.authorizationServer)
      .map(({ endpoint }) => endpoint)
      .filter((endpoint) => endpoint !== 'authorize'),
    resourceServer: resourceServer.requests.length - before.resourceServer,
  }
}

test('login: none at all', async () => {
  const tab = stack.newBrowser()
  expect((await trips('Login', () => signIn(tab))).dynamoDb).toEqual([])
})

test('callback: 2 DynamoDB, 1 authorization server', async () => {
  expect(await trips('Callback', () => signIn(stack.newBrowser()))).toEqual({
    dynamoDb: ['PutItem', 'BatchWriteItem'],
    authorizationServer: ['token'],
    resourceServer: 0,
  })
})

test('callback in a browser that was signed in: 1 DynamoDB and 1 authorization server more, to revoke the tokens before', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Callback', () => signIn(tab))).toEqual({
    dynamoDb: ['PutItem', 'BatchWriteItem', 'DeleteItem'],
    authorizationServer: ['token', 'revoke'],
    resourceServer: 0,
  })
})

test('session: 1 DynamoDB', async () => {
  const tab = await stack.signedIn()
  const session = await trips('Session', () => tab.fetch('/bff/session'))
  expect(session).toEqual({ dynamoDb: ['BatchGetItem'], authorizationServer: [], resourceServer: 0 })
  const nobody = await trips('Session', () => stack.newBrowser().fetch('/bff/session'))
  expect(nobody).toEqual({ dynamoDb: [], authorizationServer: [], resourceServer: 0 })
})

test('API call with a fresh token: 1 DynamoDB, 1 resource server', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
    dynamoDb: ['BatchGetItem'],
    authorizationServer: [],
    resourceServer: 1,
  })
})

test('API call that moves the idle end, once a minute: 1 DynamoDB more, made beside the call', async () => {
  const tab = await stack.signedIn()
  await stack.records.age('session', { seen: Math.floor(Date.now() / 1_000) - 61 })
  const expected = { dynamoDb: ['BatchGetItem', 'UpdateItem'], authorizationServer: [], resourceServer: 1 }
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual(expected)
  expect((await trips('Api', () => tab.fetch('/api/demo/x'))).dynamoDb).toEqual(['BatchGetItem'])
})

test.each(['expired', 'due'])(
  'API call that renews a grant that is %s: 3 DynamoDB, 1 authorization server',
  async (how) => {
    const tab = await stack.signedIn()
    await (how === 'due' ? stack.records.makeTokensDue() : stack.records.expireTokens())
    expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
      dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
      authorizationServer: ['token'],
      resourceServer: 1,
    })
  },
)

test('API call that is refused by the resource server first: the same, and 2 resource server', async () => {
  const tab = await stack.signedIn()
  stack.resourceServer.plan('call', insteadJson(401, {}))
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
    authorizationServer: ['token'],
    resourceServer: 2,
  })
})

test('refresh: 1 DynamoDB, and 2 more with 1 authorization server where the grant is due', async () => {
  const tab = await stack.signedIn()
  const refresh = () => tab.fetch('/bff/refresh', { method: 'POST' })
  expect((await trips('Refresh', refresh)).dynamoDb).toEqual(['BatchGetItem'])
  await stack.records.makeTokensDue()
  expect(await trips('Refresh', refresh)).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
    authorizationServer: ['token'],
    resourceServer: 0,
  })
})

test('logout: 3 DynamoDB, 1 authorization server', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Logout', () => tab.fetch('/bff/logout', { method: 'POST' }))).toEqual({
    dynamoDb: ['BatchGetItem', 'DeleteItem', 'DeleteItem'],
    authorizationServer: ['revoke'],
    resourceServer: 0,
  })
})

test('what is refused before a session is looked for: none', async () => {
  const tab = await stack.signedIn()
  for (const path of ['/api/unknown/x', '/api/demo/x%2f..', '/api/demo/../x']) {
    expect((await trips('Api', () => tab.raw({ path, headers: [['X-CSRF', '1']] }))).dynamoDb).toEqual([])
  }
  expect((await trips('Api', () => tab.fetch('/api/demo/x', { csrf: false }))).dynamoDb).toEqual([])
  expect((await trips('Logout', () => tab.fetch('/bff/logout', { method: 'POST', csrf: false }))).dynamoDb).toEqual([])
})
