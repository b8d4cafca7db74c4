import { afterAll, beforeAll, expect, test } from 'vitest'
import { gate, insteadJson } from '../support/faults.ts'
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
  const other = await stack.signedIn()
  await stack.records.makeTokensDue()
  await other.fetch('/api/demo/x')
  await stack.stack.backgroundIsIdle()
})
afterAll(() => stack.close())

/**
 * The actions at AWS that a function makes while `run` goes on and until what that started in the background is done, the tasks that it
 * hands to the background, and the calls of the two servers by whichever function; nobody should read a secret on a warm path.
 */
const trips = async (logicalId: string, run: () => Promise<unknown>) => {
  const { functionName } = stack.stack.function(logicalId).definition
  await stack.stack.backgroundIsIdle()
  const { authorizationServer, resourceServer } = stack
  const before = {
    aws: stack.stack.awsCalls.length,
    authorizationServer: authorizationServer.requests.length,
    resourceServer: resourceServer.requests.length,
  }
  await run()
  await stack.stack.backgroundIsIdle()
  const aws = stack.stack.awsCalls.slice(before.aws)
  const own = aws.filter((call) => call.functionName === functionName).map(({ action }) => action)
  expect(aws.filter(({ action }) => action.startsWith('secretsmanager:'))).toEqual([])
  return {
    dynamoDb: own.filter((action) => action.startsWith('dynamodb:')).map((action) => action.split(':')[1]),
    tasks: own.filter((action) => action === 'lambda:InvokeFunction').length,
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

test('callback: 2 DynamoDB, 1 authorization server, 1 task', async () => {
  expect(await trips('Callback', () => signIn(stack.newBrowser()))).toEqual({
    dynamoDb: ['PutItem', 'TransactWriteItems'],
    tasks: 1,
    authorizationServer: ['token'],
    resourceServer: 0,
  })
})

test('callback in a browser that was signed in: 2 DynamoDB and 1 authorization server more, to revoke the tokens before', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Callback', () => signIn(tab))).toEqual({
    dynamoDb: ['PutItem', 'TransactWriteItems', 'Query', 'DeleteItem'],
    tasks: 1,
    authorizationServer: ['token', 'revoke'],
    resourceServer: 0,
  })
})

test('session: 1 DynamoDB', async () => {
  const tab = await stack.signedIn()
  const session = await trips('SessionFunction', () => tab.fetch('/bff/session'))
  expect(session).toEqual({ dynamoDb: ['BatchGetItem'], tasks: 0, authorizationServer: [], resourceServer: 0 })
  const nobody = await trips('SessionFunction', () => stack.newBrowser().fetch('/bff/session'))
  expect(nobody).toEqual({ dynamoDb: [], tasks: 0, authorizationServer: [], resourceServer: 0 })
})

test('API call with a fresh token: 1 DynamoDB, 1 resource server', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
    dynamoDb: ['BatchGetItem'],
    tasks: 0,
    authorizationServer: [],
    resourceServer: 1,
  })
})

test('API call that moves the idle end, once a minute: 1 DynamoDB more, made beside the call', async () => {
  const tab = await stack.signedIn()
  await stack.records.age('session', { seen: Math.floor(Date.now() / 1_000) - 61 })
  const expected = { dynamoDb: ['BatchGetItem', 'UpdateItem'], tasks: 0, authorizationServer: [], resourceServer: 1 }
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual(expected)
  expect((await trips('Api', () => tab.fetch('/api/demo/x'))).dynamoDb).toEqual(['BatchGetItem'])
})

test('API call whose token has ended: 3 DynamoDB, 1 authorization server', async () => {
  const tab = await stack.signedIn()
  await stack.records.expireTokens()
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
    tasks: 0,
    authorizationServer: ['token'],
    resourceServer: 1,
  })
})

/** A call whose token is due is answered before the authorization server has: what its function did, and what the background did. */
const aheadOfTime = async (logicalId: string, path: string) => {
  const tab = await stack.signedIn()
  await stack.records.makeTokensDue()
  const held = gate()
  stack.authorizationServer.plan('token', held.fault)
  let background: Awaited<ReturnType<typeof trips>> | undefined
  const caller = await trips(logicalId, async () => {
    background = await trips('Background', async () => {
      expect((await tab.fetch(path, { method: 'POST' })).status).toBe(200)
      await held.reached
      held.release()
    })
  })
  expect(background?.dynamoDb).toEqual(['UpdateItem', 'UpdateItem'])
  return caller
}

test('API call whose token is due: 1 DynamoDB more and 1 task; the background 2 DynamoDB, 1 authorization server', async () => {
  expect(await aheadOfTime('Api', '/api/demo/x')).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem'],
    tasks: 1,
    authorizationServer: ['token'],
    resourceServer: 1,
  })
})

test('API call that is refused by the resource server first: the same, and 2 resource server', async () => {
  const tab = await stack.signedIn()
  stack.resourceServer.plan('call', insteadJson(401, {}))
  expect(await trips('Api', () => tab.fetch('/api/demo/x'))).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
    tasks: 0,
    authorizationServer: ['token'],
    resourceServer: 2,
  })
})

test('refresh: 1 DynamoDB, and 2 more with 1 authorization server where the token has ended', async () => {
  const tab = await stack.signedIn()
  const refresh = () => tab.fetch('/bff/refresh', { method: 'POST' })
  expect((await trips('Refresh', refresh)).dynamoDb).toEqual(['BatchGetItem'])
  await stack.records.expireTokens()
  expect(await trips('Refresh', refresh)).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem', 'UpdateItem'],
    tasks: 0,
    authorizationServer: ['token'],
    resourceServer: 0,
  })
})

test('refresh where the token is due: 1 DynamoDB more and 1 task; the background as for a call', async () => {
  expect(await aheadOfTime('Refresh', '/bff/refresh')).toEqual({
    dynamoDb: ['BatchGetItem', 'UpdateItem'],
    tasks: 1,
    authorizationServer: ['token'],
    resourceServer: 0,
  })
})

test('logout: 3 DynamoDB, 1 authorization server', async () => {
  const tab = await stack.signedIn()
  expect(await trips('Logout', () => tab.fetch('/bff/logout', { method: 'POST' }))).toEqual({
    dynamoDb: ['DeleteItem', 'Query', 'DeleteItem'],
    tasks: 0,
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
