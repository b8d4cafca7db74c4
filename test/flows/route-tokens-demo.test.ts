import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AuthorizationServerEvent } from '../../infra/local/demo/authorization-server.ts'
import { expectProblem } from '../support/answers.ts'
import { openRecords } from '../support/records.ts'
import { startRecordingResourceServer, tokenOf } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startDemoStack } from '../support/stacks.ts'
import { exchangeTokens } from '../support/token-exchange.ts'
import type { Browser } from '../support/user-agent.ts'

/** Tokens of routes from the demo authorization server: JWTs for one audience each, refresh tokens that are used once, exchanges. */

const [main, billing, reports] = ['https://resource.example', 'https://billing.example', 'https://reports.example']
const instances = 4
const events: AuthorizationServerEvent[] = []
let stack: Awaited<ReturnType<typeof startDemoStack>>
let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let records: ReturnType<typeof openRecords>
let tab: Browser

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  const at = (path: string) => `${resourceServer.url}/${path}`
  stack = await startDemoStack({
    demo: { otherResources: [billing], onEvent: (event) => events.push(event) },
    before: ({ provider, issuer }) => exchangeTokens(provider, issuer, [reports]),
    target: at('main'),
    maxInstances: instances,
    stage: (stage) => ({
      ...stage,
      apis: {
        ...stage.apis,
        billing: { provider: 'demo', target: at('billing'), resource: billing },
        reports: { provider: 'demo', target: at('reports'), exchange: { audience: reports } },
        nowhere: { provider: 'demo', target: at('nowhere'), exchange: { audience: 'https://nowhere.example' } },
      },
    }),
  })
  records = openRecords(stack.stack)
  await stack.stack.function('Api').warm(instances)
  tab = stack.newBrowser()
  await signIn(tab)
})
afterAll(async () => {
  records.close()
  await stack.close()
  await resourceServer.close()
})

const call = (api: string) => tab.fetch(`/api/${api}/x`)
const audiences = (since: number) =>
  resourceServer.requests.slice(since).map((request) => [request.path, decodeJwt(tokenOf(request)).aud])

describe('with oidc-provider', () => {
  test('each route is called with a token for its own audience, over several rounds of rotation', async () => {
    for (let round = 0; round < 4; round += 1) {
      const since = resourceServer.requests.length
      const replies = await Promise.all(['demo', 'billing', 'reports', 'billing', 'demo', 'reports'].map(call))
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 200])
      expect(new Set(audiences(since).map(String))).toEqual(
        new Set([`/main/x,${main}`, `/billing/x,${billing}`, `/reports/x,${reports}`]),
      )
      await records.expireTokens()
      for (const { pk, sk } of await records.all('grant'))
        if (pk && sk) await records.set({ pk, sk }, { routes: { B: new Uint8Array([0]) } })
    }
    expect(events.filter(({ name }) => name === 'grant.error')).toEqual([])
  })

  test('forty calls of four instances lead to one refresh each', async () => {
    await records.expireTokens()
    for (const { pk, sk } of await records.all('grant'))
      if (pk && sk) await records.set({ pk, sk }, { routes: { B: new Uint8Array([0]) } })
    const granted = events.filter(({ name }) => name === 'grant.success').length
    const names = Array.from({ length: 40 }, (_, index) => ['demo', 'billing', 'reports'][index % 3] ?? '')
    const replies = await Promise.all(names.map(call))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(events.filter(({ name }) => name === 'grant.success').length).toBe(granted + 3)
    expect(events.filter(({ name }) => name === 'grant.revoked')).toEqual([])
  })

  test('an audience that it does not know is refused, and the session goes on', async () => {
    expectProblem(await call('nowhere'), 403, 'access_refused')
    expect((await call('demo')).status).toBe(200)
  })

  test('the session ends with everything, though the server does not revoke JWTs', async () => {
    const left = await records.all('grant')
    expect(left).toHaveLength(1)
    expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    expect(await records.all('grant')).toEqual([])
  })
})
