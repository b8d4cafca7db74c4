import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectProblem } from '../support/answers.ts'
import { headerLinesOf, startRecordingResourceServer, tokenOf } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startCoderStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** A resource server that takes tokens in other places too must not find one there: the session's token is the only one. */

let stack: Awaited<ReturnType<typeof startCoderStack>>
let recorder: Awaited<ReturnType<typeof startRecordingResourceServer>>
let tab: Browser

beforeAll(async () => {
  recorder = await startRecordingResourceServer()
  stack = await startCoderStack({
    stage: (stage) => ({ ...stage, apis: { ...stage.apis, other: { provider: 'demo', target: recorder.url } } }),
  })
  tab = stack.newBrowser()
  await signIn(tab, { user: 'Ada' })
})

afterAll(async () => {
  await stack.close()
  await recorder.close()
})

const call = (path: string, headers: [string, string][] = []) =>
  tab.raw({ path, headers: [['X-CSRF', '1'], ...headers] })

describe('at Coder, where a query parameter, a header and a cookie beat the bearer token', () => {
  const calls = () => stack.authorizationServer.count('account')

  test.each(['coder_session_token', 'access_token'])('a query with %s is refused', async (name) => {
    const before = calls()
    const token = stack.authorizationServer.sessionOf('grace')
    expectProblem(await call(`/api/demo/users/me?${name}=${token}`), 400, 'request_invalid')
    expect(calls()).toBe(before)
  })

  test('a header and a cookie of its own stay here', async () => {
    const token = stack.authorizationServer.sessionOf('grace')
    tab.cookies.set(`coder_session_token=${token}; Path=/; Secure; SameSite=Strict`, stack.origin)
    const reply = await call('/api/demo/users/me', [['Coder-Session-Token', token]])
    expect(reply.json()).toMatchObject({ username: 'ada' })
    tab.cookies.forget(stack.origin, (name) => name === 'coder_session_token')
  })
})

describe('at any resource server', () => {
  test.each([
    'access_token=a',
    'ACCESS_TOKEN=a',
    'access%5Ftoken=a',
    '%61ccess_token',
    'a=b&access_token=a',
    'a=b;access_token=a',
    'access_token[]=a',
    'access_token%5B0%5D=a',
    'access.token=a',
    'access-token=a',
    'access+token=a',
    '+access_token=a',
    'accessToken=a',
    'session_token=a',
    'private_token=a',
    'x-auth-token=a',
  ])('the query %s is refused', async (query) => {
    const before = recorder.requests.length
    expectProblem(await call(`/api/other/x?${query}`), 400, 'request_invalid')
    expect(recorder.requests.length).toBe(before)
  })

  test.each([
    'page_token=a',
    'next_token=a&continuationToken=b',
    'q=access_token',
    'q=access_token%3Da',
    'access_token_id=a',
    'token=a',
    'a=b;c&d=%2B+&e=%26access_token%3D',
  ])('the query %s arrives as it is', async (query) => {
    expect((await call(`/api/other/x?${query}`)).status).toBe(200)
    expect(recorder.lastCall().path).toBe(`/x?${query}`)
  })

  test('headers that are credentials stay here, others arrive', async () => {
    const names = ['Coder-Session-Token', 'Private-Token', 'X-Access-Token', 'Session-Token', 'AccessToken']
    const others = ['X-CSRF-Token', 'Page-Token', 'Coder-Session-Token-Id']
    await call(
      '/api/other/x',
      [...names, ...others].map((name): [string, string] => [name, 'mine']),
    )
    const arrived = headerLinesOf(recorder.lastCall())
    expect(arrived.filter(([, value]) => value === 'mine').map(([name]) => name)).toEqual(
      others.map((name) => name.toLowerCase()),
    )
    expect(tokenOf(recorder.lastCall())).toMatch(/^\w{10}-\w{22}$/)
  })
})
