import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createReadAccount } from '../../shared/account.ts'
import { parseStage } from '../../shared/config.ts'
import { createSend } from '../../shared/http.ts'
import * as faults from '../support/faults.ts'
import { json, startRecordingServer, type Answer, type Fault } from '../support/server.ts'

let server: Awaited<ReturnType<typeof startRecordingServer<'account'>>>
let answer: Answer

beforeAll(async () => {
  server = await startRecordingServer<'account'>(
    () => 'account',
    () => answer,
  )
})

afterAll(() => server.close())

const read = createReadAccount({ send: createSend({ keepAlive: false, mayConnect: () => true }), timeoutMs: 500 })
const wanted = ['sub', 'name', 'preferred_username', 'picture', 'roles']
const claims = { preferred_username: 'username', picture: 'avatar_url' }
const ada = { id: 'u-1', username: 'ada', name: 'Ada', avatar_url: '', roles: ['owner'], email: 'ada@example.com' }

const readAs = (body: object, subject = 'id') => {
  answer = json(200, body)
  return read({ url: `${server.url}/me`, subject, claims }, 'token', wanted)
}

describe('an account', () => {
  test('is the subject and the claims that were asked for, from the members that the stage names', async () => {
    expect(await readAs(ada)).toEqual({
      subject: 'u-1',
      claims: { sub: 'u-1', name: 'Ada', preferred_username: 'ada', roles: ['owner'] },
    })
    const { method, path, headers } = server.requests.at(-1) ?? {}
    expect([method, path, headers?.authorization]).toEqual(['GET', '/me', 'Bearer token'])
  })

  test('may be named by a number', async () => {
    expect(await readAs({ id: 583_231 })).toEqual({ subject: '583231', claims: { sub: '583231' } })
    expect((await readAs({ id: 0 })).subject).toBe('0')
  })

  test.each<[string, object]>([
    ['nothing', {}],
    ['null', { id: null }],
    ['an empty text', { id: '' }],
    ['blanks', { id: '  ' }],
    ['a control character', { id: 'u\u00001' }],
    ['a long text', { id: 'u'.repeat(256) }],
    ['an object', { id: { value: 'u-1' } }],
    ['a list', { id: ['u-1'] }],
    ['true', { id: true }],
    ['a fraction', { id: 1.5 }],
    ['a number that has lost digits', { id: 2 ** 53 }],
  ])('is not one whose subject is %s', async (_, body) => {
    await expect(readAs(body)).rejects.toMatchObject({ reason: 'account_unresolved' })
  })

  test.each(['constructor', '__proto__', 'toString'])('has no member %s that is not its own', async (name) => {
    await expect(readAs({ id: 'u-1' }, name)).rejects.toMatchObject({ reason: 'account_unresolved' })
  })

  test.each([401, 403])('is refused with status %i: the token is none there', async (status) => {
    server.plan('account', faults.insteadJson(status, { message: 'signed out' }))
    await expect(readAs(ada)).rejects.toMatchObject({ reason: 'account_refused' })
  })

  test.each<[string, Fault]>([
    ['404', faults.insteadJson(404, { id: 'u-1' })],
    ['500', faults.insteadJson(500, { id: 'u-1' })],
    ['201', faults.insteadJson(201, { id: 'u-1' })],
    ['a web page', faults.webPage(200)],
    ['JSON that is cut short', faults.rewritten((text) => text.slice(0, -1))],
    ['a list', faults.rewritten((text) => `[${text}]`)],
    ['nothing', faults.nothing],
    ['a redirect', faults.moved('/elsewhere', 302)],
    ['too much', faults.changed({ filler: 'f'.repeat(70_000) })],
    ['half of it', faults.truncated],
    ['a broken connection', faults.reset],
    ['nothing in time', faults.hung],
    ['a byte at a time', faults.dripping(50)],
  ])('cannot be read from %s', async (_, fault) => {
    server.plan('account', fault)
    const before = server.requests.length
    await expect(readAs(ada)).rejects.toMatchObject({ reason: 'account_unresolved' })
    expect(server.requests.length).toBe(before + 1)
  })
})

describe('the account endpoint of a stage', () => {
  const faultsOf = (account: object, provider: object = {}): string[] => {
    const result = parseStage({
      origin: 'https://app.example.com',
      providers: { coder: { issuer: 'https://coder.example.com', account, ...provider } },
    })
    return result.ok ? [] : result.faults
  }
  const url = 'https://coder.example.com/api/v2/users/me'

  test('is on the origin of the issuer or on one that is listed', () => {
    expect(faultsOf({ url, subject: 'id' })).toEqual([])
    expect(faultsOf({ url: 'https://api.example.com/me', subject: 'id' })).toEqual([
      "providers.coder.account.url: must be on the issuer's origin or on one of endpoint_origins",
    ])
    const listed = { endpoint_origins: ['https://api.example.com'] }
    expect(faultsOf({ url: 'https://api.example.com/me', subject: 'id' }, listed)).toEqual([])
  })

  test.each([
    [{ subject: 'id' }, 'providers.coder.account.url: '],
    [{ url }, 'providers.coder.account.subject: '],
    [{ url: 'http://coder.example.com/me', subject: 'id' }, 'providers.coder.account.url: must use https'],
    [{ url, subject: '' }, 'providers.coder.account.subject: '],
    [{ url, subject: 'id', member: 'x' }, 'providers.coder.account: has no setting named member'],
    [{ url: 'http://localhost:3000/me', subject: 'id' }, 'providers.coder.account.url: must use the scheme'],
  ])('is refused where it is %j', (account, fault) => {
    const listed = { endpoint_origins: ['http://localhost:3000'] }
    expect(faultsOf(account, listed).join('\n')).toContain(fault)
  })
})
