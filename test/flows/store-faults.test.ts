import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dropConnection, loseReply, type Gate } from '../../infra/local/aws-call.ts'
import { sessionCookie } from '../support/answers.ts'
import { createAwsFaults, failing, throttled } from '../support/aws-faults.ts'
import type { Reply } from '../support/http.ts'
import { startRenewalStack } from '../support/renewal.ts'
import { signIn } from '../support/sign-in.ts'
import type { Browser } from '../support/user-agent.ts'

const aws = createAwsFaults()
let stack: Awaited<ReturnType<typeof startRenewalStack>>
let tab: Browser

beforeAll(async () => {
  stack = await startRenewalStack({ maxInstances: 4, gate: aws.gate })
})
beforeEach(async () => {
  tab = await stack.signedIn()
})
afterAll(() => stack.close())

const dropped: Gate = () => {
  throw dropConnection
}
const unanswered: Gate = () => {
  throw loseReply
}
/** Denied is what a wrong policy looks like; it is not the user's fault either. */
const denied: Gate = ({ action }) => ({
  status: 400,
  type: 'AccessDeniedException',
  message: `not authorized to ${action}`,
})
const faults: [how: string, fault: Gate][] = [
  ['throttled', throttled],
  ['broken', failing],
  ['cut off', dropped],
  ['denied', denied],
]

const call = () => tab.fetch('/api/demo/x')
const expectRetryLater = (reply: Reply): void => {
  expect([reply.status, reply.json()['code'], reply.setCookies]).toEqual([503, 'store_unavailable', []])
  expect(reply.headers['retry-after']).toBe('1')
  expect(tab.cookies.names(stack.origin)).toContain(sessionCookie)
}

describe('the table cannot be read', () => {
  test.each(faults)('because it is %s: 503 for a call, and the session lives on', async (_, fault) => {
    const calls = stack.resourceServer.requests.length
    aws.always('dynamodb:BatchGetItem', fault)
    expectRetryLater(await call())
    aws.always('dynamodb:BatchGetItem', undefined)
    expect(stack.resourceServer.requests).toHaveLength(calls)
    expect((await call()).status).toBe(200)
  })

  test('no endpoint says that nobody is signed in', async () => {
    aws.always('dynamodb:BatchGetItem', throttled)
    expectRetryLater(await tab.fetch('/bff/session'))
    expectRetryLater(await tab.fetch('/bff/refresh', { method: 'POST' }))
    expectRetryLater(await tab.fetch('/bff/sessions'))
    aws.always('dynamodb:BatchGetItem', undefined)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  })

  test('for a moment: nobody notices', async () => {
    aws.next('dynamodb:BatchGetItem', throttled, failing)
    expect((await call()).status).toBe(200)
    expect(aws.unmet()).toEqual([])
  })
})

describe('the table cannot be written', () => {
  test.each(faults)('because it is %s: signing out says to try again, and the session lives on', async (_, fault) => {
    aws.always('dynamodb:DeleteItem', fault)
    expectRetryLater(await tab.fetch('/bff/logout', { method: 'POST' }))
    aws.always('dynamodb:DeleteItem', undefined)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true })
  })

  test.each(faults)('because it is %s: without a lease nothing is refreshed', async (_, fault) => {
    await stack.records.expireTokens()
    const refreshes = stack.refreshes()
    aws.always('dynamodb:UpdateItem', fault)
    expectRetryLater(await call())
    aws.always('dynamodb:UpdateItem', undefined)
    expect(stack.refreshes()).toBe(refreshes)
    expect((await call()).status).toBe(200)
    expect(stack.refreshes()).toBe(refreshes + 1)
  })

  test('while the token still works: the call goes through', async () => {
    await stack.records.makeTokensDue()
    await stack.records.age('session', { seen: 0 })
    aws.always('dynamodb:UpdateItem', throttled)
    const reply = await call()
    aws.always('dynamodb:UpdateItem', undefined)
    expect(reply.status).toBe(200)
  })

  /** The lease is taken, and the next writes of the table meet these. */
  const atTheSave = async (...met: Gate[]) => {
    await stack.records.expireTokens()
    aws.next('dynamodb:UpdateItem', () => undefined, ...met)
    const refreshes = stack.refreshes()
    const reply = await call()
    expect(aws.unmet()).toEqual([])
    expect(stack.refreshes()).toBe(refreshes + 1)
    return reply
  }

  test('for a moment, just when tokens came: they are not lost', async () => {
    expect((await atTheSave(throttled, failing, dropped, throttled)).status).toBe(200)
    expect((await call()).status).toBe(200)
    expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: true })
  })

  test('and does not say that it was, just when tokens came: they are not lost and not revoked', async () => {
    const revoked = stack.authorizationServer.count('revoke')
    expect((await atTheSave(unanswered)).status).toBe(200)
    expect(stack.authorizationServer.count('revoke')).toBe(revoked)
    await stack.records.expireTokens()
    expect((await call()).status).toBe(200)
  })

  test('and does not say that it was, at a sign-in: no session stays that nobody has the ticket of', async () => {
    const before = await stack.records.all('session')
    aws.always('dynamodb:TransactWriteItems', unanswered)
    const page = await signIn(stack.newBrowser())
    aws.always('dynamodb:TransactWriteItems', undefined)
    expect(page.status).toBe(503)
    expect(await stack.records.all('session')).toHaveLength(before.length)
    expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: false })
  })

  test('when the lease’s answer is lost: it runs out, and all is well', async () => {
    await stack.records.expireTokens()
    aws.next('dynamodb:UpdateItem', unanswered)
    const refreshes = stack.refreshes()
    expect((await call()).status).toBe(200)
    expect(stack.refreshes()).toBe(refreshes + 1)
  })
})

describe('the secrets cannot be read', () => {
  test.each(faults)('because they are %s: a new instance answers 503, and the session lives on', async (_, fault) => {
    stack.stack.function('Api').kill()
    aws.always('secretsmanager:GetSecretValue', fault)
    expectRetryLater(await call())
    aws.always('secretsmanager:GetSecretValue', undefined)
    expect((await call()).status).toBe(200)
  })

  test('an instance that has read them goes on', async () => {
    expect((await call()).status).toBe(200)
    aws.always('secretsmanager:GetSecretValue', failing)
    const reply = await call()
    aws.always('secretsmanager:GetSecretValue', undefined)
    expect(reply.status).toBe(200)
  })
})
