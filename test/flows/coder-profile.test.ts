import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectProblem, signedInRecords } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import { eras } from '../support/coder-era.ts'
import { startDeploy } from '../support/custom-resource.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startCoderStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** A stage that says no more than `"profile": "coder"`, at a server of Coder's kind of each era: everything that a user and an operator do. */

let deploy: Awaited<ReturnType<typeof startDeploy>>
beforeAll(async () => {
  deploy = await startDeploy()
})
afterAll(() => deploy.close())

describe.each(eras)('with Coder %s', (era) => {
  const hasDcrSwitch = era === '2.37' || era === '2.38'
  let stack: Awaited<ReturnType<typeof startCoderStack>>
  let records: ReturnType<typeof openRecords>
  let one: Browser
  let other: Browser

  beforeAll(async () => {
    stack = await startCoderStack({ coder: { era } })
    records = openRecords(stack.stack)
  })
  beforeEach(async () => {
    Object.assign(coder().settings, { enabled: true, registration: true, beforeWrite: undefined })
    one = stack.newBrowser()
    other = stack.newBrowser()
  })
  afterAll(async () => {
    records.close()
    await stack.close()
  })

  const coder = () => stack.authorizationServer
  const whoami = async (tab: Browser) => {
    const reply = await tab.fetch('/api/demo/users/me')
    return reply.status === 200 ? reply.json()['username'] : reply.status
  }
  const signOut = (tab: Browser) => tab.fetch('/bff/logout', { method: 'POST' })
  const isSignedIn = async (tab: Browser) => (await tab.fetch('/bff/session')).json()['authenticated']
  const live = () =>
    coder()
      .pairs()
      .filter((pair) => pair.live).length
  const refreshes = () => coder().tokenRequests('refresh_token').length

  test('the deploy registers one client with one redirect URI and a method that this Coder has', () => {
    const [client, ...others] = coder().clients()
    expect(others).toEqual([])
    expect(client?.metadata).toEqual({
      client_name: 'Coatcheck demo',
      redirect_uris: [`${stack.origin}/bff/callback/demo`],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: era === '2.31' ? 'client_secret_post' : 'client_secret_basic',
    })
  })

  test('a user signs in, calls, is renewed, and signs out, and Coder finds fault with nothing', async () => {
    const before = coder().requests.length
    const home = await one.navigate('/')
    const start = await one.navigate('/bff/login?prompt=login&login_hint=ada&return_to=/here', { from: home })
    const page = await one.submit(await one.submit(start, 'Ada'), 'Allow')
    expect(page.url).toBe(`${stack.origin}/here`)
    const ada = coder().users.find(({ username }) => username === 'ada')
    expect((await one.fetch('/bff/session')).json()).toMatchObject({
      authenticated: true,
      claims: { sub: ada?.id, name: 'Ada', preferred_username: 'ada', email: 'ada@example.com' },
    })
    expect(await whoami(one)).toBe('ada')
    await records.expireTokens()
    expect([await whoami(one), refreshes()]).toEqual(['ada', 1])
    expect((await signOut(one)).status).toBe(200)
    expect(coder().pairs().at(-1)).toMatchObject({ live: false, endedBy: 'revocation' })

    const sent = coder().requests.slice(before)
    expect(sent.filter(({ status }) => status >= 400)).toEqual([])
    const authorization = sent.find(({ endpoint }) => endpoint === 'authorize')
    expect([...(authorization?.query.keys() ?? [])].toSorted()).toEqual(
      ['client_id', 'code_challenge', 'code_challenge_method', 'redirect_uri', 'response_type', 'state'].toSorted(),
    )
    const forms = sent.flatMap(({ endpoint, body }) =>
      endpoint === 'token' ? [[...new URLSearchParams(body.toString()).keys()].toSorted()] : [],
    )
    const credentials = era === '2.31' ? ['client_id', 'client_secret'] : []
    expect(forms).toEqual([
      [...credentials, 'code', 'code_verifier', 'grant_type', 'redirect_uri'],
      [...credentials, 'grant_type', 'refresh_token'],
    ])
    const tokens = sent.flatMap(({ endpoint, headers }) =>
      endpoint === 'account' ? [[typeof headers['coder-session-token'], headers.authorization]] : [],
    )
    expect(tokens).toEqual([
      ['string', undefined],
      ['string', undefined],
      ['string', undefined],
    ])
  })

  test('nothing that a page sends takes the place of the token', async () => {
    await signIn(one, { user: 'Ada' })
    const grace = coder().sessionOf('grace')
    const asGrace = (headers: Record<string, string>) => one.fetch('/api/demo/users/me', { headers })
    const replies = await Promise.all([
      asGrace({ 'Coder-Session-Token': grace }),
      asGrace({ Authorization: `Bearer ${grace}` }),
      asGrace({ Connection: 'coder-session-token' }),
    ])
    expect(replies.map((reply) => reply.json()['username'])).toEqual(['ada', 'ada', 'ada'])
    for (const name of ['coder_session_token', 'access_token'])
      expectProblem(await one.fetch(`/api/demo/users/me?${name}=${grace}`), 400, 'request_invalid')
    await signOut(one)
  })

  test('two browsers of one user share what Coder keeps one of', async () => {
    await signIn(one, { user: 'Ada' })
    await records.age('grant', { placed_ms: 0 })
    await signIn(other, { user: 'Ada' })
    expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['ada', 'ada'])
    expect([live(), signedInRecords(await stack.items()).filter((key) => key.startsWith('G#'))]).toEqual([
      1,
      ['G#demo'],
    ])
    const before = refreshes()
    await records.expireTokens()
    expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['ada', 'ada'])
    expect(refreshes()).toBe(before + 1)
    await signOut(one)
    expect([await isSignedIn(one), await whoami(other), live()]).toEqual([false, 'ada', 1])
    await signOut(other)
    expect([live(), signedInRecords(await stack.items())]).toEqual([0, []])
  })

  test('a renewal that loses to a sign-in, however Coder says so, costs neither browser its session', async () => {
    await signIn(one, { user: 'Ada' })
    await records.age('grant', { placed_ms: 0, expires: 0, fresh_until: 0 })
    const arrived = Promise.withResolvers<void>()
    const letGo = Promise.withResolvers<void>()
    coder().settings.beforeWrite = async (type) => {
      if (type !== 'refresh_token') return
      arrived.resolve()
      await letGo.promise
    }
    const before = refreshes()
    const call = whoami(one)
    await arrived.promise
    await signIn(other, { user: 'Ada' })
    letGo.resolve()
    expect(await call).toBe('ada')
    const answers = coder().tokenRequests('refresh_token').slice(before)
    expect(answers.map(({ status }) => status)).toEqual([era === '2.38' ? 400 : 500])
    expect(await Promise.all([whoami(one), whoami(other)])).toEqual(['ada', 'ada'])
    await Promise.all([signOut(one), signOut(other)])
  })

  test('a session outlives that the OAuth 2 provider is switched off, and a grant that Coder ends ends it', async () => {
    await signIn(one, { user: 'Ada' })
    coder().settings.enabled = false
    expect(await whoami(one), 'the token is still good').toBe('ada')
    await records.expireTokens()
    const reply = await one.fetch('/api/demo/users/me')
    expectProblem(reply, 503, 'authorization_server_unavailable')
    expect(await isSignedIn(one)).toBe(true)
    coder().settings.enabled = true
    await records.endLeases()
    expect(await whoami(one)).toBe('ada')
    coder().endGrants({})
    expectProblem(await one.fetch('/api/demo/users/me'), 401, 'session_required')
    expect([await isSignedIn(one), signedInRecords(await stack.items())]).toEqual([false, []])
  })

  describe('a deploy says what to switch on', () => {
    /** The words of a deploy that finds no client. */
    const registered = async (): Promise<string> => {
      const secret = await stack.secretValue('Provider')
      await stack.putSecretValue('Provider', 'no registration yet')
      const answer = await deploy.run(stack, 'Create')
      await stack.putSecretValue('Provider', secret)
      expect([answer['Status'], String(answer['Reason']).length < 1_000]).toEqual(['FAILED', true])
      return String(answer['Reason'])
    }

    test('where the OAuth 2 provider is off', async () => {
      coder().settings.enabled = false
      const words = await registered()
      const found =
        era === '2.31' ? 'the server refused the registration: status 403' : `answered ${era === '2.38' ? 404 : 403}`
      const toDo = era === '2.38' ? 'set CODER_OAUTH2_PROVIDER_ENABLE=true' : 'add oauth2 to CODER_EXPERIMENTS'
      expect(words).toMatch(new RegExp(`${found}.*this is Coder ${era}\\.1, and its OAuth2 provider is off; ${toDo}$`))
    })

    test.each(hasDcrSwitch ? [era] : [])('where nobody may register, which %s lets an operator choose', async () => {
      coder().settings.registration = false
      expect(await registered()).toMatch(/registration endpoint.* "coder oauth2-provider dcr enable"/)
    })
  })

  test('no secret of Coder shows in logs or records', async () => {
    await signIn(one, { user: 'Ada' })
    expect(leaksOf(coder().secrets, { logs: stack.logs, items: await stack.items() })).toEqual([])
  })
})
