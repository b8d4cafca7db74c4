import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createSealer, parseSealingKeys } from '../../shared/seal.ts'
import { expectProblem, signedInRecords } from '../support/answers.ts'
import { createAwsFaults, failing } from '../support/aws-faults.ts'
import { leaksOf } from '../support/canaries.ts'
import { changed, gate, hung, insteadJson, lost, nothing, refused, webPage } from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import { startRecordingResourceServer, tokenOf } from '../support/resource-server.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/**
 * Routes with tokens of their own: for another resource by a refresh (RFC 8707), for another audience by an exchange (RFC 8693), each asked
 * for once however many calls of however many instances need it. The server rotates refresh tokens, and ends a grant whose token comes twice.
 */

const instances = 6
const exchangeType = 'urn:ietf:params:oauth:grant-type:token-exchange'
const [main, billing] = ['https://resource.example', 'https://billing.example']
const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startStrictStack>>
let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let records: ReturnType<typeof openRecords>
let tab: Browser

beforeAll(async () => {
  resourceServer = await startRecordingResourceServer()
  const at = (path: string) => `${resourceServer.url}/${path}`
  stack = await startStrictStack({
    strict: { resources: [main, billing], exchange: true },
    target: at('main'),
    gate: aws.gate,
    maxInstances: instances,
    stage: (stage) => ({
      ...stage,
      renewal: { authorization_server_timeout_seconds: 1 },
      apis: {
        ...stage.apis,
        same: { provider: 'demo', target: at('same'), resource: main },
        billing: { provider: 'demo', target: at('billing'), resource: billing },
        invoices: { provider: 'demo', target: at('invoices'), resource: billing },
        reports: { provider: 'demo', target: at('reports'), exchange: { audience: 'reports', scope: 'read' } },
        nowhere: { provider: 'demo', target: at('nowhere'), exchange: { audience: 'unknown' } },
      },
    }),
  })
  records = openRecords(stack.stack)
  await stack.stack.function('Api').warm(instances)
})
beforeEach(async () => {
  tab = stack.newBrowser()
  await signIn(tab)
})
afterEach(() => signOut())
afterAll(async () => {
  records.close()
  await stack.close()
  await resourceServer.close()
})

const server = () => stack.authorizationServer
const call = (api: string, browser = tab) => browser.fetch(`/api/${api}/x`)
const refreshes = () => server().tokenRequests('refresh_token').length
const exchanges = () => server().tokenRequests(exchangeType).length
const signOut = (browser = tab) => browser.fetch('/bff/logout', { method: 'POST' })
const isSignedIn = async () => (await tab.fetch('/bff/session')).json()['authenticated']
const formOf = (type: 'authorization_code' | 'refresh_token' | typeof exchangeType) =>
  new URLSearchParams(server().tokenRequests(type).at(-1)?.body.toString())
/** What happens to requests and tokens while `run` goes on. */
const during = async <T>(run: () => Promise<T>) => {
  const [refreshed, exchanged, calls] = [refreshes(), exchanges(), resourceServer.requests.length]
  const result = await run()
  const tokens = resourceServer.requests.slice(calls).map(tokenOf)
  return { result, refreshes: refreshes() - refreshed, exchanges: exchanges() - exchanged, tokens }
}
const many = (api: string, count: number) => Promise.all(Array.from({ length: count }, () => call(api)))
const statuses = (replies: { status: number }[]) => [...new Set(replies.map(({ status }) => status))]
/** The records as if that many seconds had gone by for the tokens of routes; the grant's own stays as it is. */
const dropRoutes = async () => {
  for (const { pk, sk } of await records.all('grant'))
    if (pk !== undefined && sk !== undefined) await records.set({ pk, sk }, { routes: { B: new Uint8Array([0]) } })
}

describe('the requests', () => {
  test('authorization names every resource, redeeming and refreshing the first', async () => {
    const browser = stack.newBrowser()
    const before = server().requests.length
    await signIn(browser)
    const authorization = server()
      .requests.slice(before)
      .find(({ endpoint }) => endpoint === 'authorize')
    expect(authorization?.query.getAll('resource')).toEqual([main, billing])
    expect(formOf('authorization_code').getAll('resource')).toEqual([main])
    await records.expireTokens()
    await call('demo', browser)
    expect(formOf('refresh_token').getAll('resource')).toEqual([main])
    await signOut(browser)
  })

  test('a route of another resource names that at a refresh, and its token is for that', async () => {
    const { result, refreshes: count, tokens } = await during(() => call('billing'))
    expect([result.status, count, formOf('refresh_token').getAll('resource')]).toEqual([200, 1, [billing]])
    expect(tokens.map(server().audienceOf)).toEqual([billing])
    const [again] = (await during(() => call('demo'))).tokens
    expect(server().audienceOf(again ?? ''), 'the grant’s own token is as it was').toBe(main)
  })

  test('an exchange is what the stage says, with the grant’s token, and a token of another kind', async () => {
    const { result, refreshes: count, tokens } = await during(() => call('reports'))
    expect([result.status, count, tokens.map(server().audienceOf)]).toEqual([200, 0, ['reports']])
    const { subject_token: subject, ...form } = Object.fromEntries(formOf(exchangeType))
    expect(form).toEqual({
      grant_type: exchangeType,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      audience: 'reports',
      scope: 'read',
    })
    expect((await during(() => call('demo'))).tokens).toEqual([subject])
  })

  test('the client is registered for it', () => {
    expect(server().clients().at(-1)?.grant_types).toContain(exchangeType)
  })
})

describe('a token of a route', () => {
  test('is kept, for every route that asks for the same', async () => {
    const first = await during(() => call('billing'))
    const more = await during(async () => [...(await many('billing', 3)), ...(await many('invoices', 3))])
    expect([statuses(more.result), more.refreshes, new Set(more.tokens)]).toEqual([[200], 0, new Set(first.tokens)])
    await call('reports')
    expect((await during(() => many('reports', 5))).exchanges).toBe(0)
  })

  test('is the grant’s own where the route names the provider’s resource', async () => {
    const own = await during(() => call('demo'))
    const same = await during(() => call('same'))
    expect([same.refreshes, same.tokens]).toEqual([0, own.tokens])
  })

  test.each([
    ['billing', 1, 0],
    ['reports', 0, 1],
  ])('of %s is asked for once by forty calls over many instances', async (api, refreshed, exchanged) => {
    const { result, tokens, ...counts } = await during(() => many(api, 40))
    expect([statuses(result), counts]).toEqual([[200], { refreshes: refreshed, exchanges: exchanged }])
    expect([tokens.length, new Set(tokens).size]).toEqual([40, 1])
  })

  test('of several routes at once, beside a renewal of the grant, uses each refresh token once', async () => {
    for (let round = 0; round < 3; round += 1) {
      await records.expireTokens()
      await dropRoutes()
      const {
        result,
        refreshes: count,
        exchanges: exchanged,
      } = await during(() =>
        Promise.all(['demo', 'billing', 'reports', 'invoices', 'demo', 'reports'].flatMap((api) => many(api, 4))),
      )
      expect([statuses(result.flat()), count, exchanged]).toEqual([[200], 2, 1])
    }
    expect(server().grants.at(-1)).toMatchObject({ live: true })
  })

  test('that has ended is replaced, and one that is refused is replaced once', async () => {
    for (const api of ['billing', 'reports']) {
      const [old] = (await during(() => call(api))).tokens
      resourceServer.plan('call', insteadJson(401, {}))
      const { result, tokens, ...counts } = await during(() => call(api))
      expect([result.status, tokens.length, tokens[0], counts.refreshes + counts.exchanges]).toEqual([200, 2, old, 1])
      expect(tokens[1]).not.toBe(old)
      resourceServer.always('call', insteadJson(401, {}))
      const twice = await during(() => call(api))
      resourceServer.always('call', undefined)
      expect([twice.result.status, twice.tokens.length, twice.refreshes + twice.exchanges]).toEqual([401, 2, 1])
    }
    expect(await isSignedIn()).toBe(true)
  })

  test.each(['billing', 'reports'])('of %s that ends soon is used on while one call replaces it', async (api) => {
    server().settings.accessTokenSeconds = 6
    const [old] = (await during(() => call(api))).tokens
    server().settings.accessTokenSeconds = 300
    const bursts: Awaited<ReturnType<typeof burst>>[] = []
    const burst = () => during(() => many(api, 5))
    const count = async () => {
      const latest = await burst()
      bursts.push(latest)
      return latest.refreshes + latest.exchanges
    }
    await expect.poll(count, { timeout: 6_000, interval: 200 }).toBe(1)
    for (const { result, tokens } of bursts)
      expect([statuses(result), new Set(tokens)]).toEqual([[200], new Set([old])])
    const after = await burst()
    expect([after.refreshes + after.exchanges, after.tokens.includes(old ?? '')]).toEqual([0, false])
  })
})

describe('a server that gives none', () => {
  test.each<[string, string, Fault | undefined, number, string]>([
    ['does not know the audience', 'nowhere', undefined, 403, 'access_refused'],
    ['refuses an exchange', 'reports', refused('access_denied', 403), 403, 'access_refused'],
    ['refuses the subject token', 'reports', refused('invalid_request'), 403, 'access_refused'],
    ['calls the subject token an invalid grant', 'reports', refused('invalid_grant'), 403, 'access_refused'],
    ['refuses a resource', 'billing', refused('invalid_target'), 403, 'access_refused'],
    ['is down', 'reports', webPage(503), 503, 'authorization_server_unavailable'],
    ['hangs', 'reports', hung, 503, 'authorization_server_unavailable'],
    ['answers nothing', 'reports', nothing, 503, 'authorization_server_unavailable'],
    ['gives no token', 'reports', changed({ access_token: undefined }), 503, 'authorization_server_unavailable'],
    ['gives an odd token', 'reports', changed({ access_token: 'a\nb' }), 503, 'authorization_server_unavailable'],
    [
      'gives a huge token',
      'reports',
      changed({ access_token: 'a'.repeat(20_000) }),
      503,
      'authorization_server_unavailable',
    ],
    [
      'gives a token of no kind',
      'reports',
      changed({ issued_token_type: undefined }),
      503,
      'authorization_server_unavailable',
    ],
    [
      'gives a refresh token instead',
      'reports',
      changed({ issued_token_type: 'urn:ietf:params:oauth:token-type:refresh_token' }),
      503,
      'authorization_server_unavailable',
    ],
    [
      'gives a token that is none to carry',
      'reports',
      changed({ token_type: 'N_A' }),
      503,
      'authorization_server_unavailable',
    ],
    ['gives an odd lifetime', 'reports', changed({ expires_in: -1 }), 503, 'authorization_server_unavailable'],
  ])('since it %s says so of %s, and the session goes on', async (_, api, fault, status, code) => {
    if (fault !== undefined) server().plan('token', fault)
    const reply = await call(api)
    expectProblem(reply, status, code)
    expect(reply.headers['retry-after'] !== undefined).toBe(status === 503)
    expect([(await call('demo')).status, await isSignedIn()]).toEqual([200, true])
    expect(server().unmet()).toEqual([])
  })

  test('is asked once by many calls, and not again for a while', async () => {
    const { result, exchanges: count } = await during(() => many('nowhere', 20))
    expect([statuses(result), count]).toEqual([[403], 1])
    const again = await during(() => many('nowhere', 5))
    expect([statuses(again.result), again.exchanges]).toEqual([[403], 0])
    const others = await during(() => Promise.all([call('reports'), call('billing'), call('demo')]))
    expect(statuses(others.result)).toEqual([200])
  })

  test('while a token is valid yet, costs no call anything', async () => {
    const [old] = (await during(() => call('reports'))).tokens
    server().plan('token', refused('access_denied', 403))
    resourceServer.plan('call', insteadJson(401, {}))
    expect((await call('reports')).status, 'refused by both').toBe(403)
    expect(old).toMatch(/^xt-/)
    expect(await isSignedIn()).toBe(true)
  })
})

describe('an answer that is lost', () => {
  test('to an exchange is asked for again a moment later', async () => {
    server().plan('token', lost)
    expectProblem(await call('reports'), 503, 'authorization_server_unavailable')
    await expect.poll(async () => (await call('reports')).status, { timeout: 4_000 }).toBe(200)
  })

  test('to a refresh for a route makes nobody send the refresh token again under the lease', async () => {
    server().plan('token', lost)
    const { result, refreshes: count } = await during(() => many('billing', 10))
    expect([statuses(result), count]).toEqual([[503], 1])
    expect((await call('demo')).status, 'the grant’s own token is still good').toBe(200)
    expect((await call('reports')).status, 'its answer may still come').toBe(503)
    await records.endLeases()
    expectProblem(await call('billing'), 401, 'session_required')
  })

  test('by a save of an exchanged token that fails gives the token back', async () => {
    const before = server().exchanged().length
    aws.always('dynamodb:UpdateItem', (update) =>
      String(update.input['UpdateExpression']).includes('#routes_version') ? failing(update) : undefined,
    )
    const reply = await call('reports')
    aws.always('dynamodb:UpdateItem', undefined)
    expect(reply.status).toBe(503)
    expect(server().exchanged().length).toBe(before)
  })
})

describe('a session of a sign-in that did not ask for the resource', () => {
  /** What its record says of the tokens becomes something else. */
  const rewrite = async (change: (tokens: Record<string, unknown>) => Record<string, unknown>) => {
    const sealer = createSealer(async () => parseSealingKeys(await stack.secretValue('SealingKeys')))
    for (const { pk, sk, sealed } of await records.all('grant')) {
      if (pk?.S === undefined || sk?.S === undefined || !(sealed?.B instanceof Uint8Array)) continue
      const context = [pk.S, sk.S]
      const tokens = change(JSON.parse((await sealer.open('grant', context, sealed.B)) ?? ''))
      await records.set({ pk, sk }, { sealed: { B: await sealer.seal('grant', context, JSON.stringify(tokens)) } })
    }
  }

  test.each<[string, (tokens: Record<string, unknown>) => Record<string, unknown>]>([
    ['since the stage named another', (tokens) => ({ ...tokens, resources: [main] })],
    ['since the stage named none', (tokens) => ({ ...tokens, resources: [] })],
    ['which an earlier release kept', (tokens) => ({ ...tokens, resources: undefined })],
  ])('%s, is asked to sign in again, and nothing is sent', async (_, change) => {
    await rewrite(change)
    const { result, refreshes: count, tokens } = await during(() => call('billing'))
    expectProblem(result, 403, 'access_not_granted')
    expect([count, tokens]).toEqual([0, []])
    expect([(await call('demo')).status, (await call('reports')).status, await isSignedIn()]).toEqual([200, 200, true])
    await signIn(tab)
    expect((await call('billing')).status).toBe(200)
  })

  test('that has no refresh token cannot have it', async () => {
    await rewrite((tokens) => ({ ...tokens, refresh_token: undefined }))
    expectProblem(await call('billing'), 403, 'access_refused')
    expect((await call('reports')).status).toBe(200)
  })
})

describe('the end of a session', () => {
  let before: string[]
  beforeEach(() => {
    before = server().exchanged()
  })

  test('revokes what was exchanged, and the grant', async () => {
    await Promise.all([call('reports'), call('billing')])
    expect(server().exchanged()).toHaveLength(before.length + 1)
    const revoked = server().count('revoke')
    await signOut()
    expect([server().exchanged(), server().count('revoke') - revoked]).toEqual([before, 2])
    expect(server().grants.at(-1)?.live).toBe(false)
  })

  test('revokes one that was replaced ahead of its end, too', async () => {
    await call('reports')
    resourceServer.plan('call', insteadJson(401, {}))
    await call('reports')
    expect(server().exchanged()).toHaveLength(before.length + 2)
    await signOut()
    expect(server().exchanged()).toEqual(before)
  })

  test('revokes it later where the server is down', async () => {
    await call('reports')
    server().always('revoke', webPage(503))
    expect((await signOut()).status).toBe(200)
    server().always('revoke', undefined)
    await stack.stack.backgroundIsIdle()
    expect(server().exchanged()).toEqual(before)
    expect(server().grants.at(-1)?.live).toBe(false)
  })

  test('revokes it too where the server ended the grant', async () => {
    await call('reports')
    server().endGrants('ada')
    await records.expireTokens()
    expectProblem(await call('demo'), 401, 'session_required')
    expect(server().exchanged()).toEqual(before)
  })

  test.each([true, false])('is not held up by an exchange under way, done or not: %s', async (after) => {
    const held = gate({ after })
    server().plan('token', held.fault)
    const calling = call('reports')
    await held.reached
    await signOut()
    held.release()
    expectProblem(await calling, 401, 'session_required')
    expect(server().exchanged()).toEqual(before)
  })

  test('leaves nothing', async () => {
    await signOut()
    await stack.stack.backgroundIsIdle()
    const kept = signedInRecords(await stack.items()).length
    await signIn(tab)
    await Promise.all([call('reports'), call('billing'), call('demo')])
    await signOut()
    expect(signedInRecords(await stack.items())).toHaveLength(kept)
  })
})

test('no token shows in logs or records', async () => {
  await Promise.all([call('reports'), call('billing')])
  expect(leaksOf(server().secrets, { logs: stack.logs, items: await stack.items() })).toEqual([])
})
