import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { HttpObservation } from '../../infra/local/trace.ts'
import { leaksOf } from '../support/canaries.ts'
import { startDeploy } from '../support/custom-resource.ts'
import { exchange } from '../support/http.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack, startStrictStack, type StageFile } from '../support/stacks.ts'

/** A client without a secret: it signs who it is, and the authorization server fetches our public keys. */

const withKeys = (stage: StageFile): StageFile => ({
  ...stage,
  providers: { demo: { ...stage.providers['demo'], rotation: { mode: 'keys' } } },
})

let stack: Awaited<ReturnType<typeof startDemoStack>>
const sent: HttpObservation[] = []

beforeAll(async () => {
  stack = await startDemoStack({
    stage: withKeys,
    trace: { observeOutgoing: (observation) => void sent.push(observation), observeBrowser: () => undefined },
  })
})

afterAll(() => stack.close())

const keySet = () => exchange({ origin: stack.origin, method: 'GET', path: '/bff/jwks.json', headers: [] })
const forms = (path: string): URLSearchParams[] =>
  sent
    .filter(({ method, url }) => method === 'POST' && new URL(url).pathname === path)
    .map(({ requestBody }) => new URLSearchParams(requestBody))

describe('a provider whose mode is keys', () => {
  test('has a client without a secret, which was registered with where our keys are', async () => {
    const { current, keys } = JSON.parse(await stack.secretValue('Provider'))
    expect(current).toMatchObject({ token_endpoint_auth_method: 'private_key_jwt' })
    expect(current).not.toHaveProperty('client_secret')
    expect(keys).toHaveLength(2)
    const client = await stack.authorizationServer.provider.Client.find(current.client_id)
    expect(client).toMatchObject({ jwksUri: `${stack.origin}/bff/jwks.json`, tokenEndpointAuthSigningAlg: 'ES256' })
  })

  test('publishes the public half of its keys and nothing else, for a while', async () => {
    const { keys } = JSON.parse(await stack.secretValue('Provider'))
    const [first, second] = keys.map(({ kid, private_jwk: { x, y } }: (typeof keys)[0]) => {
      return { kty: 'EC', crv: 'P-256', x, y, kid, alg: 'ES256', use: 'sig' }
    })
    const reply = await keySet()
    expect(reply.json(), 'the key that signs, and the one that will').toEqual({ keys: [first, second] })
    expect([reply.headers['content-type'], reply.headers['cache-control']]).toEqual([
      'application/json',
      'public, max-age=300',
    ])
    const secret = keys.map(({ private_jwk: { d } }: (typeof keys)[0]) => ({ name: 'a private key', value: d }))
    expect(leaksOf(secret, { reply: reply.text })).toEqual([])
  })

  test('signs in, renews and signs out with an assertion of its own for each request', async () => {
    const tab = stack.newBrowser()
    const records = openRecords(stack.stack)
    await signIn(tab, { user: 'Ada' })
    await records.expireTokens()
    expect((await tab.fetch('/api/demo/notes')).status).toBeLessThan(500)
    expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    await stack.stack.backgroundIsIdle()
    records.close()

    const { current, keys } = JSON.parse(await stack.secretValue('Provider'))
    const requests = [...forms('/token'), ...forms('/token/revocation')]
    expect(requests.map((form) => form.get('grant_type'))).toEqual(['authorization_code', 'refresh_token', null])
    const assertions = requests.map((form) => form.get('client_assertion') ?? '')
    for (const [index, assertion] of assertions.entries()) {
      expect(requests[index]?.get('client_assertion_type')).toBe(
        'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      )
      expect(requests[index]?.has('client_secret')).toBe(false)
      expect(decodeProtectedHeader(assertion)).toEqual({ alg: 'ES256', kid: keys[0].kid })
      const claims = decodeJwt(assertion)
      expect(claims).toMatchObject({
        iss: current.client_id,
        sub: current.client_id,
        aud: stack.authorizationServer.issuer,
      })
      expect(Number(claims.exp) - Number(claims.iat)).toBe(60)
    }
    expect(new Set(assertions.map((assertion) => decodeJwt(assertion).jti)).size).toBe(3)
    const { d } = keys[0].private_jwk
    const places = { logs: stack.logs, items: await stack.items(), sent, pages: tab.history }
    expect(leaksOf([{ name: 'the private key', value: d }], places)).toEqual([])
  })

  test('has assertions that the server takes only once', async () => {
    const [form] = forms('/token/revocation')
    const again = await exchange({
      origin: stack.authorizationServer.issuer,
      method: 'POST',
      path: '/token/revocation',
      headers: [['Content-Type', 'application/x-www-form-urlencoded']],
      body: form?.toString(),
    })
    expect([again.status, again.json()['error']]).toEqual([401, 'invalid_client'])
  })
})

describe('a deploy', () => {
  const chooses = (mode: string) => (file: StageFile) => ({
    ...file,
    providers: { demo: { ...file.providers['demo'], rotation: { mode } } },
  })

  test('that chooses keys at a server without them fails and says so', async () => {
    const words = /rotation.mode is keys, but the server does not offer private_key_jwt with ES256/
    await expect(startStrictStack({ stage: chooses('keys') })).rejects.toThrow(words)
  })

  test('that repeats itself keeps client and keys', async () => {
    const deploy = await startDeploy()
    const before = JSON.parse(await stack.secretValue('Provider'))
    expect(await deploy.run(stack, 'Update')).toMatchObject({ Status: 'SUCCESS' })
    expect(JSON.parse(await stack.secretValue('Provider'))).toEqual(before)
    await deploy.close()
  })
})

test('a stage without keys publishes none', async () => {
  const other = await startStrictStack()
  const reply = await exchange({ origin: other.origin, method: 'GET', path: '/bff/jwks.json', headers: [] })
  expect([reply.status, reply.json()]).toEqual([200, { keys: [] }])
  const post = await exchange({ origin: other.origin, method: 'POST', path: '/bff/jwks.json', headers: [] })
  expect([post.status, post.headers['cache-control'], post.headers['allow']]).toEqual([405, 'no-store', 'GET'])
  await other.close()
})
