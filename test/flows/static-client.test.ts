import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectErrorPage } from '../support/answers.ts'
import { parseStage } from '../../shared/config.ts'
import { staticKnowledge, staticRegistration } from '../../shared/static-client.ts'
import { leaksOf } from '../support/canaries.ts'
import { startDeploy } from '../support/custom-resource.ts'
import type { Client } from '../support/clients.ts'
import { insteadJson } from '../support/faults.ts'
import { exchange } from '../support/http.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack, type StageFile } from '../support/stacks.ts'

/** Clients that an operator registered and wrote into a secret: no deploy is needed when they change. */

const isStatic = (stage: StageFile): StageFile => ({
  ...stage,
  providers: { demo: { ...stage.providers['demo'], client: 'static' } },
})

let stack: Awaited<ReturnType<typeof startStrictStack>>
let client: Client

/** What an operator does at the server. */
const registerByHand = async (method = 'client_secret_basic'): Promise<Client> => {
  const reply = await exchange({
    origin: stack.authorizationServer.issuer,
    method: 'POST',
    path: '/register',
    headers: [['Content-Type', 'application/json']],
    body: JSON.stringify({
      redirect_uris: [`${stack.origin}/bff/callback/demo`],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: method,
      scope: 'openid profile email offline_access',
    }),
  })
  const id = reply.json()['client_id']
  return stack.authorizationServer.clients().find((one) => one.client_id === id) ?? expect.fail('no client')
}
const write = (value: unknown): Promise<void> =>
  stack.putSecretValue('Clientdemo', typeof value === 'string' ? value : JSON.stringify(value))
const credentialsOf = ({ client_id, client_secret }: Client) => ({ client_id, client_secret })
const lastDetail = (): unknown => {
  const line = stack.logs.map((entry) => entry.line).findLast((text) => text.includes('"reason":"not_registered"'))
  return JSON.parse(line ?? '{}').detail
}

beforeAll(async () => {
  stack = await startStrictStack({ stage: isStatic })
  client = await registerByHand()
})

afterAll(() => stack.close())

test('a deploy registers nothing, keeps what it learned of the server, and leaves the secret to the operator', async () => {
  expect(stack.authorizationServer.requests.filter(({ endpoint }) => endpoint === 'register')).toHaveLength(1)
  expect(JSON.parse(await stack.secretValue('Provider'))).toMatchObject({
    issuer: stack.authorizationServer.issuer,
    static: true,
    metadata: { token_endpoint: `${stack.authorizationServer.issuer}/token` },
    retiring: [],
  })
})

test('before the operator wrote anything, a login says that it is not set up, and the log says what to do', async () => {
  expectErrorPage(await signIn(stack.newBrowser()), 503, 'provider_not_ready')
  expect(lastDetail()).toBe(
    'demo: the secret of its static client has no value yet; write {"client_id": "...", "client_secret": "..."} into it',
  )
})

test('its secret may be read by who signs in, renews or signs out, and written by the operator alone', () => {
  const arn = stack.stack.physicalId('Clientdemo')
  const granted = (name: string) =>
    stack.stack
      .statements(`${name}Function`)
      .filter(({ Resource }) => [Resource].flat().includes(arn))
      .flatMap(({ Action }) => Action)
  for (const name of ['Login', 'Callback', 'Refresh', 'Logout', 'Api', 'Background']) {
    expect(granted(name)).toEqual(['secretsmanager:GetSecretValue'])
  }
  for (const name of ['Register', 'Session']) expect(granted(name)).toEqual([])
})

describe('what the operator wrote', () => {
  test.each<[what: string, value: unknown, words: string]>([
    ['nothing but a space', ' ', 'has no value yet'],
    ['text', 'my-client:my-secret-is-in-here', 'is no JSON'],
    ['half of it', '{"client_id": "c1", "client_secret": "sec', 'is no JSON'],
    ['a list', ['c1'], 'must be an object such as'],
    ['null', null, 'must be an object such as'],
    ['no client', { client_secret: 'planted-secret-value' }, 'must have as client_id text'],
    ['an empty client', { client_id: '' }, 'must have as client_id text'],
    ['a number', { client_id: 1 }, 'must have as client_id text'],
    [
      'a secret with a line break',
      { client_id: 'c1', client_secret: 'planted-secret\n' },
      'must have as client_secret',
    ],
    ['a huge secret', { client_id: 'c1', client_secret: 'x'.repeat(5_000) }, 'must have as client_secret'],
    ['a misspelled member', { client_id: 'c1', clientSecret: 'planted-secret-value' }, 'must not have: clientSecret'],
    ['another method', { client_id: 'c1', token_endpoint_auth_method: 'tls' }, 'one of client_secret_basic'],
    [
      'a method without its secret',
      { client_id: 'c1', token_endpoint_auth_method: 'client_secret_post' },
      'for client',
    ],
    ['something else as former clients', { client_id: 'c1', retiring: {} }, 'must have as retiring a list'],
    ['a former client without id', { client_id: 'c1', retiring: [{}] }, 'must have as retiring.0.client_id'],
  ])('is named in words where it is %s, without its values', async (_, value, words) => {
    await write(value)
    expectErrorPage(await signIn(stack.newBrowser()), 503, 'provider_not_ready')
    expect(lastDetail()).toContain(words)
    expect(leaksOf(['planted-secret-value', 'my-secret-is-in-here'], { logs: stack.logs })).toEqual([])
  })

  test('is used at the next login', async () => {
    await write(credentialsOf(client))
    const tab = stack.newBrowser()
    await signIn(tab)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    expect((await tab.fetch('/api/demo/notes')).status).toBeLessThan(500)
    expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
  })

  test.each([
    ['invalid_client', 400],
    ['invalid_client', 401],
    ['unauthorized_client', 401],
  ])('may change at any time: %s with status %i is met with what is there now', async (error, status) => {
    await write(credentialsOf(client))
    const tab = stack.newBrowser()
    await signIn(tab)
    const records = openRecords(stack.stack)
    client.client_secret = `changed to ${error} ${status} %+`
    await write(credentialsOf(client))
    stack.authorizationServer.plan('token', insteadJson(status, { error }))
    await records.expireTokens()
    expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    await signIn(stack.newBrowser())
    expect(stack.authorizationServer.unmet()).toEqual([])
    records.close()
  })

  test('may be another client, with the former one for the grants that were made under it', async () => {
    await write(credentialsOf(client))
    const tab = stack.newBrowser()
    await signIn(tab)
    const records = openRecords(stack.stack)
    const next = await registerByHand('client_secret_post')
    const before = { ...credentialsOf(client), token_endpoint_auth_method: 'client_secret_basic' }
    await write({ ...credentialsOf(next), token_endpoint_auth_method: 'client_secret_post', retiring: [before] })
    client.client_secret = 'changed once more'
    before.client_secret = 'changed once more'
    await write({ ...credentialsOf(next), token_endpoint_auth_method: 'client_secret_post', retiring: [before] })
    await records.expireTokens()
    expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    records.close()
  })

  test('shows nowhere', async () => {
    const places = { logs: stack.logs, items: await stack.items(), ours: await stack.secretValue('Provider') }
    expect(leaksOf([{ name: 'the secret', value: client.client_secret ?? '' }], places)).toEqual([])
    expect(leaksOf(stack.authorizationServer.secrets, { logs: stack.logs, items: await stack.items() })).toEqual([])
  })
})

describe('a client without a method', () => {
  test.each<[supported: string[], secret: string | undefined, method: string]>([
    [['client_secret_post'], 's3cret', 'client_secret_post'],
    [['client_secret_post', 'client_secret_basic'], 's3cret', 'client_secret_basic'],
    [['private_key_jwt'], 's3cret', 'client_secret_basic'],
    [['client_secret_basic'], undefined, 'none'],
  ])('authenticates as the server with %s can: with the secret %s by %s', (supported, secret, method) => {
    const issuer = 'https://as.example.com'
    const parsed = parseStage({ origin: 'https://app.example.com', providers: { demo: { issuer, client: 'static' } } })
    if (!parsed.ok) throw new Error(parsed.faults.join())
    const known = staticKnowledge(
      {
        issuer,
        authorization_endpoint: `${issuer}/a`,
        token_endpoint: `${issuer}/t`,
        token_endpoint_auth_methods_supported: supported,
      },
      [],
    )
    const written = JSON.stringify({ client_id: 'c1', client_secret: secret })
    expect(staticRegistration(parsed.stage, 'demo', known, written).current).toMatchObject({
      token_endpoint_auth_method: method,
      redirect_uri: 'https://app.example.com/bff/callback/demo',
    })
  })
})

test('a deploy that makes a provider static keeps the clients of grants made before', async () => {
  const deploy = await startDeploy()
  const former = {
    client_id: 'former',
    token_endpoint_auth_method: 'none',
    redirect_uri: `${stack.origin}/bff/callback/demo`,
  }
  const { metadata, issuer } = JSON.parse(await stack.secretValue('Provider'))
  await stack.putSecretValue('Provider', JSON.stringify({ format: 1, issuer, metadata, current: former, retiring: [] }))
  expect(await deploy.run(stack, 'Update')).toMatchObject({ Status: 'SUCCESS' })
  expect(await deploy.run(stack, 'Update')).toMatchObject({ Status: 'SUCCESS' })
  expect(JSON.parse(await stack.secretValue('Provider'))).toMatchObject({ static: true, retiring: [former] })
  await stack.stack.fire('EveryHour')
  const dated = [{ ...former, retired_at: expect.any(Number) }]
  expect(JSON.parse(await stack.secretValue('Provider'))).toMatchObject({ static: true, retiring: dated })
  const written = await stack.secretValue('Clientdemo')
  expect(written).toContain('client_id')
  expect(await deploy.run(stack, 'Delete')).toMatchObject({ Status: 'SUCCESS' })
  expect(stack.authorizationServer.clients().map(({ client_id: id }) => id)).toContain(client.client_id)
  await deploy.close()
})
