import { describe, expect, test } from 'vitest'
import type { Client } from '../../shared/client.ts'
import { parseStage } from '../../shared/config.ts'
import { createCredentials } from '../../shared/credentials.ts'
import { Failure } from '../../shared/errors.ts'
import { newRegistration, type Registration } from '../../shared/registration-record.ts'
import { staticKnowledge } from '../../shared/static-client.ts'

/** Which credentials somebody gets whose credentials the server has refused, with a rotation under way or not. */

const issuer = 'https://as.example'
const metadata = { issuer, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token` }
const clientWith = (client_secret: string, members: Partial<Client> = {}): Client => ({
  client_id: 'c',
  client_secret,
  token_endpoint_auth_method: 'client_secret_basic',
  redirect_uri: 'https://app.example/bff/callback/main',
  ...members,
})
const registrationWith = (secret: string, members?: Partial<Client>): Registration =>
  newRegistration(metadata, clientWith(secret, members))
const waiting = (registration: object, attempt?: string): string =>
  JSON.stringify({ ...registration, rotation: { from: 'v1', attempt } })

/** A secret whose values the test changes, with the labels that were read. */
const startSecret = (provider: object = {}) => {
  const parsed = parseStage({ origin: 'https://app.example', providers: { main: { issuer, ...provider } } })
  if (!parsed.ok) throw new Error(parsed.faults.join('; '))
  const values = new Map<string, string>([['AWSCURRENT', JSON.stringify(registrationWith('one'))]])
  const reads: string[] = []
  let nowMs = 1_000_000
  let isDown = false
  const credentials = createCredentials({
    secrets: {
      read: async (secret, label = secret === 'written' ? 'written' : 'AWSCURRENT') => {
        reads.push(label)
        if (isDown && label === 'AWSPENDING') throw new Failure('secrets_unavailable')
        return values.get(label)
      },
    },
    secretOf: () => 'secret',
    writtenSecretOf: () => 'written',
    stage: parsed.stage,
    maxAgeMs: 60_000,
    now: () => nowMs,
  })
  return {
    values,
    reads,
    credentials,
    pass: (milliseconds: number) => void (nowMs += milliseconds),
    fail: (isFailing: boolean) => void (isDown = isFailing),
    /** The secret that is used after a refusal of what is used now. */
    afterRefusal: async (): Promise<string | undefined> => {
      const refused = await credentials.of('main')
      return (await credentials.again('main', refused)).current.client_secret
    },
  }
}

describe('a server refuses the credentials that are current', () => {
  test('and nothing has changed, and nothing waits: they are what there is', async () => {
    const secret = startSecret()
    expect(await secret.afterRefusal()).toBe('one')
    expect(secret.reads).toEqual(['AWSCURRENT', 'AWSCURRENT', 'AWSPENDING'])
  })

  test('and others are current since: those are used, and nothing that waits is read', async () => {
    const secret = startSecret()
    await secret.credentials.of('main')
    secret.values.set('AWSCURRENT', JSON.stringify(registrationWith('two')))
    secret.values.set('AWSPENDING', waiting(registrationWith('three')))
    expect(await secret.afterRefusal()).toBe('two')
    expect(secret.reads).not.toContain('AWSPENDING')
  })

  test('and others of the same client wait: they are used from then on, with all else as it is', async () => {
    const secret = startSecret()
    const pending = {
      ...registrationWith('two', { redirect_uri: 'https://elsewhere.example/' }),
      retiring: [clientWith('x')],
    }
    secret.values.set(
      'AWSPENDING',
      waiting({ ...pending, metadata: { ...metadata, token_endpoint: 'https://else.example/' } }),
    )
    expect(await secret.afterRefusal()).toBe('two')
    expect(await secret.credentials.of('main')).toMatchObject({
      metadata,
      retiring: [],
      current: { client_secret: 'two', redirect_uri: 'https://app.example/bff/callback/main' },
    })
    expect(secret.reads, 'nothing more on the way of those who come after').toHaveLength(3)
  })

  test('and those that waited have been overtaken: what is current is used', async () => {
    const secret = startSecret()
    secret.values.set('AWSPENDING', waiting(registrationWith('two')))
    await secret.afterRefusal()
    secret.values.set('AWSCURRENT', JSON.stringify(registrationWith('three')))
    expect(await secret.afterRefusal()).toBe('three')
  })

  test('and those that wait as well: both are tried, and no others', async () => {
    const secret = startSecret()
    secret.values.set('AWSPENDING', waiting(registrationWith('two')))
    const used: (string | undefined)[] = []
    for (let refusal = 0; refusal < 4; refusal += 1) {
      used.push(await secret.afterRefusal())
      secret.pass(1_000)
    }
    expect(used).toEqual(['two', 'one', 'two', 'one'])
  })

  test('again and again: what waits is read once a second', async () => {
    const secret = startSecret()
    for (let refusal = 0; refusal < 30; refusal += 1) {
      await secret.afterRefusal()
      secret.pass(100)
    }
    expect(secret.reads.filter((label) => label === 'AWSPENDING')).toHaveLength(3)
    secret.values.set('AWSPENDING', waiting(registrationWith('two')))
    secret.pass(1_000)
    expect(await secret.afterRefusal()).toBe('two')
  })

  test('of several who ask at once: all get what waits, which is read once, and so do those who come after', async () => {
    const secret = startSecret()
    secret.values.set('AWSPENDING', waiting(registrationWith('two')))
    const refused = await secret.credentials.of('main')
    secret.reads.length = 0
    const given = await Promise.all([1, 2, 3].map(() => secret.credentials.again('main', refused)))
    given.push(await secret.credentials.of('main'))
    expect(given.map(({ current }) => current.client_secret)).toEqual(['two', 'two', 'two', 'two'])
    expect(secret.reads).toEqual(['AWSCURRENT', 'AWSPENDING'])
  })

  test('and what waits cannot be read: that is said, and it is read later', async () => {
    const secret = startSecret()
    secret.values.set('AWSPENDING', waiting(registrationWith('two')))
    secret.fail(true)
    await expect(secret.afterRefusal()).rejects.toMatchObject({ reason: 'secrets_unavailable' })
    secret.fail(false)
    secret.pass(1_000)
    expect(await secret.afterRefusal()).toBe('two')
  })
})

const elsewhere = 'https://other.example'

test.each([
  ['a second client that was registered', waiting(registrationWith('two', { client_id: 'd' }), 'attempt')],
  ['a second client without its attempt', waiting(registrationWith('two', { client_id: 'd' }))],
  ['our client, of an attempt to register', waiting(registrationWith('two'), 'attempt')],
  ['a client of keys', waiting(registrationWith('two', { token_endpoint_auth_method: 'private_key_jwt' }))],
  ['another issuer', waiting(newRegistration({ ...metadata, issuer: elsewhere }, clientWith('two')))],
  ['a registration of no rotation', JSON.stringify(registrationWith('two'))],
  ['a rotation of nothing', JSON.stringify({ rotation: { from: 'v1' } })],
  ['no object', '[]'],
  ['null', 'null'],
  ['no JSON', 'not JSON'],
  ['nothing', ''],
  ['something long', 'x'.repeat(65_536)],
])('what waits is %s: it is not used', async (_, value) => {
  const secret = startSecret()
  secret.values.set('AWSPENDING', value)
  expect(await secret.afterRefusal()).toBe('one')
})

test('where an operator writes the client down, nothing that waits is read', async () => {
  const secret = startSecret({ client: 'static' })
  secret.values.set('AWSCURRENT', JSON.stringify(staticKnowledge(metadata, [])))
  secret.values.set('written', JSON.stringify({ client_id: 'c', client_secret: 'one' }))
  secret.values.set('AWSPENDING', waiting(registrationWith('two')))
  expect(await secret.afterRefusal()).toBe('one')
  expect(secret.reads).not.toContain('AWSPENDING')
})
