import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDeploy } from '../support/custom-resource.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack } from '../support/stacks.ts'

/** The custom resource that registers our client: what it sends, what it keeps, and what it gives back. */

type Stack = Awaited<ReturnType<typeof startStrictStack>>

let stack: Stack
let deploy: Awaited<ReturnType<typeof startDeploy>>

beforeAll(async () => {
  deploy = await startDeploy()
  stack = await startStrictStack()
})

afterAll(async () => {
  await stack.close()
  await deploy.close()
})

const registrations = (): Record<string, unknown>[] =>
  stack.authorizationServer.requests
    .filter(({ endpoint }) => endpoint === 'register')
    .map(({ body }) => JSON.parse(body.toString()))

describe('a deploy', () => {
  test('registers exactly what the stage asks for, once, before anything runs', async () => {
    expect(registrations()).toEqual([
      {
        client_name: 'Coatcheck demo',
        redirect_uris: [`${stack.origin}/bff/callback/demo`],
        post_logout_redirect_uris: [`${stack.origin}/bff/logout`],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        token_endpoint_auth_method: 'client_secret_basic',
        scope: 'openid profile email offline_access',
        software_id: 'coatcheck',
        software_version: expect.stringMatching(/^attempt [\w-]{12}$/),
      },
    ])
    const [client] = stack.authorizationServer.clients()
    expect(JSON.parse(await stack.secretValue('Provider'))).toMatchObject({
      issuer: stack.authorizationServer.issuer,
      current: {
        client_id: client?.client_id,
        client_secret: client?.client_secret,
        token_endpoint_auth_method: 'client_secret_basic',
      },
      retiring: [],
    })
  })

  test('that repeats the event keeps the client', async () => {
    const before = await stack.secretValue('Provider')
    const RequestId = randomUUID()
    for (const type of ['Create', 'Create', 'Update'] as const) {
      const { Status, PhysicalResourceId, Data } = await deploy.run(
        stack,
        type,
        type === 'Create' ? RequestId : undefined,
      )
      const [client] = stack.authorizationServer.clients()
      expect({ Status, PhysicalResourceId, Data }).toEqual({
        Status: 'SUCCESS',
        PhysicalResourceId: expect.stringMatching(/^registration-demo/),
        Data: { ClientId: client?.client_id },
      })
    }
    expect(registrations()).toHaveLength(1)
    expect(JSON.parse(await stack.secretValue('Provider'))).toEqual(JSON.parse(before))
  })

  test('answers to the URL it was given, without content type, and tells no secret', async () => {
    await deploy.run(stack, 'Create')
    const answer = deploy.answers.at(-1)
    expect([answer?.method, answer?.headers['content-type']]).toEqual(['PUT', ''])
    for (const secret of stack.authorizationServer.secrets) expect(answer?.body.toString()).not.toContain(secret)
  })

  test('whose scopes changed updates the client, and its grants go on', async () => {
    const other = await startStrictStack({ strict: { accessTokenSeconds: 1 } })
    const tab = other.newBrowser()
    await signIn(tab)
    const [old] = other.authorizationServer.clients()
    other.authorizationServer.plan('metadata', faults.changed({ scopes_supported: ['openid', 'offline_access'] }))
    expect(await deploy.run(other, 'Update')).toMatchObject({ Status: 'SUCCESS' })
    const [current, ...more] = other.authorizationServer.clients()
    expect([current?.client_id, current?.scope, more]).toEqual([old?.client_id, 'openid offline_access', []])
    expect(JSON.parse(await other.secretValue('Provider'))).toMatchObject({
      current: { client_id: old?.client_id, scope: 'openid offline_access' },
      retiring: [],
    })
    expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    await other.close()
    expect(other.authorizationServer.clients()).toEqual([])
  })

  test('at a server without management registers a new client, and grants of the old one go on', async () => {
    const unmanaged = { registration_client_uri: undefined, registration_access_token: undefined }
    const other = await startStrictStack({
      strict: { accessTokenSeconds: 1 },
      before: (server) => server.plan('register', faults.changed(unmanaged)),
    })
    const tab = other.newBrowser()
    await signIn(tab)
    other.authorizationServer.plan('metadata', faults.changed({ scopes_supported: ['openid', 'offline_access'] }))
    expect(await deploy.run(other, 'Update')).toMatchObject({ Status: 'SUCCESS' })
    const [old, current] = other.authorizationServer.clients()
    expect(JSON.parse(await other.secretValue('Provider'))).toMatchObject({
      current: { client_id: current?.client_id, scope: 'openid offline_access' },
      retiring: [{ client_id: old?.client_id }],
    })
    expect((await tab.fetch('/bff/refresh', { method: 'POST' })).status).toBe(200)
    await other.close()
    expect(other.authorizationServer.clients().map(({ client_id: id }) => id)).toEqual([old?.client_id])
  })

  test('that an operator repairs says what was done, and tells no secret', async () => {
    const [client] = stack.authorizationServer.clients()
    const outcome = await stack.stack.invoke('Register', { repair: 'demo' })
    expect(outcome).toEqual({ provider: 'demo', done: 'updated', client_id: client?.client_id })
    await expect(stack.stack.invoke('Register', { repair: 'nobody' })).rejects.toThrow('nobody')
  })

  test('that deletes the stack gives the client back, and is not held up by a server that is gone', async () => {
    const other = await startStrictStack()
    other.authorizationServer.plan('client', faults.reset)
    expect(await deploy.run(other, 'Delete')).toMatchObject({ Status: 'SUCCESS' })
    expect(other.authorizationServer.clients()).toHaveLength(1)
    expect(await deploy.run(other, 'Delete')).toMatchObject({ Status: 'SUCCESS' })
    expect(other.authorizationServer.clients()).toEqual([])
    expect(await deploy.run(other, 'Delete')).toMatchObject({ Status: 'SUCCESS' })
    await other.close()
  })

  test('at the demo server registers, signs in and gives back', async () => {
    const demo = await startDemoStack({
      demo: { initialAccessToken: 'first-come-first-served' },
      existingSecrets: { 'initial-access-token': ' first-come-first-served\n' },
      stage: (stage) => ({
        ...stage,
        providers: { demo: { ...stage.providers['demo'], initial_access_token_secret: 'initial-access-token' } },
      }),
    })
    const tab = demo.newBrowser()
    await signIn(tab, { user: 'Alan' })
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ claims: { sub: 'alan' } })
    const { current } = JSON.parse(await demo.secretValue('Provider'))
    await demo.close()
    expect(await demo.authorizationServer.provider.Client.find(current.client_id)).toBeUndefined()
  })
})

describe('the method that the reply says wins over the one that was asked for', () => {
  const registeredAs =
    (method: string): Fault =>
    (proceed, request) => {
      const asked = JSON.parse(request.body.toString())
      request.body = Buffer.from(JSON.stringify({ ...asked, token_endpoint_auth_method: method }))
      return proceed()
    }

  test.each(['client_secret_basic', 'client_secret_post', 'none'])('%s', async (method) => {
    const other = await startStrictStack({ before: (server) => server.plan('register', registeredAs(method)) })
    const tab = other.newBrowser()
    await signIn(tab)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
    const [request] = other.authorizationServer.tokenRequests('authorization_code')
    const form = new URLSearchParams(request?.body.toString())
    expect([request?.headers.authorization !== undefined, form.has('client_secret')]).toEqual([
      method === 'client_secret_basic',
      method === 'client_secret_post',
    ])
    expect('client_secret' in JSON.parse(await other.secretValue('Provider')).current).toBe(method !== 'none')
    await other.close()
  })

  test('where it says none, the one that was asked for is used', async () => {
    const fault = faults.changed({ token_endpoint_auth_method: undefined, scope: undefined, grant_types: undefined })
    const other = await startStrictStack({ before: (server) => server.plan('register', fault) })
    expect((await signIn(other.newBrowser())).status).toBe(200)
    await other.close()
  })
})
