import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as faults from '../support/faults.ts'
import { logoutToken, sendLogoutToken } from '../support/logout-tokens.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack, synthesizeStage } from '../support/stacks.ts'

/** The functions that control sessions: how they are reached, how often they are repeated, and that they may do what they do and no more. */

type Properties = Record<string, unknown>
type Resource = { Type: string; Properties: Properties }

let resources: [id: string, resource: Resource][]

beforeAll(async () => {
  const folder = await synthesizeStage({
    origin: 'https://app.example.com',
    providers: { main: { issuer: 'https://as.example.com' } },
  })
  const file = readdirSync(folder).find((name) => name.endsWith('.template.json')) ?? ''
  const template: { Resources: Record<string, Resource> } = JSON.parse(readFileSync(join(folder, file), 'utf8'))
  resources = Object.entries(template.Resources)
})

const all = (type: string) => resources.filter(([, resource]) => resource.Type === type)
const idOf = (type: string, prefix: string): string => all(type).find(([id]) => id.startsWith(prefix))?.[0] ?? 'none'
const functionId = (name: string): string => idOf('AWS::Lambda::Function', `${name}Function`)
const variables = (name: string): Properties => {
  const [, resource] = all('AWS::Lambda::Function').find(([id]) => id === functionId(name)) ?? []
  const { Variables } = Object(resource?.Properties['Environment'])
  return Object(Variables)
}

describe('routes', () => {
  test.each([
    ['ANY /bff/sessions', 'Sessions'],
    ['ANY /bff/sessions/{id}', 'Sessions'],
    ['ANY /bff/backchannel-logout/{provider}', 'BackchannelLogout'],
  ])('%s leads to %s', (key, name) => {
    const [, route] =
      all('AWS::ApiGatewayV2::Route').find(([, { Properties: given }]) => given['RouteKey'] === key) ?? []
    const target = JSON.stringify(route?.Properties['Target'])
    const [, integration] = all('AWS::ApiGatewayV2::Integration').find(([id]) => target.includes(`"${id}"`)) ?? []
    expect(JSON.stringify(integration?.Properties['IntegrationUri'])).toContain(`"${functionId(name)}"`)
  })

  test.each(['Background', 'OperatorSessions'])('none leads to %s, and no service of AWS may invoke it', (name) => {
    const id = functionId(name)
    for (const [, { Properties: given }] of all('AWS::ApiGatewayV2::Integration')) {
      expect(JSON.stringify(given['IntegrationUri'])).not.toContain(id)
    }
    const permitted = all('AWS::Lambda::Permission').filter(([, resource]) => JSON.stringify(resource).includes(id))
    expect(permitted).toEqual([])
    expect(all('AWS::Lambda::EventSourceMapping')).toEqual([])
  })
})

describe('the background', () => {
  test('repeats a failed task twice, and forgets one that is an hour old', () => {
    const [[, config] = [], ...more] = all('AWS::Lambda::EventInvokeConfig')
    expect(more).toEqual([])
    expect(config?.Properties).toMatchObject({
      FunctionName: { Ref: functionId('Background') },
      MaximumRetryAttempts: 2,
      MaximumEventAgeInSeconds: 3_600,
    })
  })

  test('starts no tasks itself; those that do know its name', () => {
    const starters = ['Callback', 'Sessions', 'Refresh', 'Logout', 'BackchannelLogout', 'OperatorSessions', 'Api']
    for (const name of starters) {
      expect(variables(name)['COATCHECK_BACKGROUND']).toEqual({ Ref: functionId('Background') })
    }
    for (const name of ['Background', 'Login', 'Session', 'Register']) {
      expect(variables(name)).not.toHaveProperty('COATCHECK_BACKGROUND')
    }
  })
})

describe('grants', () => {
  let stack: Awaited<ReturnType<typeof startStrictStack>>
  let records: ReturnType<typeof openRecords>

  beforeAll(async () => {
    stack = await startStrictStack({ strict: { backchannelLogout: true } })
    records = openRecords(stack.stack)
  })
  afterAll(async () => {
    records.close()
    await stack.close()
  })

  /** Action and resource of everything that a function may do, but for its own log. */
  const granted = (name: string): Set<string> =>
    new Set(
      stack.stack
        .statements(`${name}Function`)
        .flatMap(({ Action, Resource }) =>
          [Action].flat().flatMap((action) => [Resource].flat().map((resource) => `${action} ${resource}`)),
        )
        .filter((grant) => !grant.startsWith('logs:')),
    )
  const used = (name: string): Set<string> => {
    const { functionName } = stack.stack.function(`${name}Function`).definition
    const calls = stack.stack.awsCalls.filter((call) => call.functionName === functionName)
    return new Set(calls.map(({ action, resource }) => `${action} ${resource}`))
  }
  const signedIn = async () => {
    const tab = stack.newBrowser()
    await signIn(tab, { user: 'Ada' })
    return tab
  }
  const idle = () => stack.stack.backgroundIsIdle()
  const revocationFails = () => stack.authorizationServer.plan('revoke', faults.reset)

  test('of session control are all used', async () => {
    const tab = await signedIn()
    await signedIn()
    revocationFails()
    await tab.fetch('/bff/sessions')
    expect((await tab.fetch('/bff/sessions?all=true', { method: 'DELETE' })).status).toBe(200)
    await idle()
    expect(granted('Sessions')).toEqual(used('Sessions'))
  })

  test('of back-channel logout are all used', async () => {
    await signedIn()
    revocationFails()
    const sid = stack.authorizationServer.grants.at(-1)?.id
    const reply = await sendLogoutToken(stack.origin, await logoutToken(stack.authorizationServer, { sid }))
    expect(reply.status).toBe(200)
    await idle()
    expect(granted('BackchannelLogout')).toEqual(used('BackchannelLogout'))
  })

  test('of ending sessions for an operator are all used', async () => {
    await signedIn()
    revocationFails()
    const order = { provider: 'demo', of: { subject: 'ada' }, end: true }
    await stack.stack.invoke('OperatorSessions', { ...order, of: { session: 'abcdefghijkl' } })
    await stack.stack.invoke('OperatorSessions', order)
    await idle()
    expect(granted('OperatorSessions')).toEqual(used('OperatorSessions'))
  })

  test('of the background are all used', async () => {
    const tab = await signedIn()
    await records.makeTokensDue()
    await tab.fetch('/bff/refresh', { method: 'POST' })
    await idle()
    await records.makeTokensDue()
    stack.authorizationServer.endGrants('ada')
    await tab.fetch('/bff/refresh', { method: 'POST' })
    await idle()
    expect(granted('Background')).toEqual(used('Background'))
  })
})
