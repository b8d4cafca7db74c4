import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { obey } from '../../lambdas/register.ts'
import { openRotation } from '../../shared/rotation.ts'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from '../support/authorization-server.ts'
import * as faults from '../support/faults.ts'
import { startRegistrations, type ProviderSettings } from '../support/registrations.ts'

/** What an operator gets to know of a registration, whatever the server says of it. */

let server: StrictAuthorizationServer
let ours: Awaited<ReturnType<typeof startRegistrations>>
let stage: ProviderSettings

beforeEach(async () => {
  server = await startStrictAuthorizationServer()
  ours = await startRegistrations()
  stage = { issuer: server.issuer }
})
afterEach(async () => {
  await ours.close()
  await server.close()
})

test('is all that there is to know, and nothing secret', async () => {
  await ours.deploy(stage)
  const [client] = server.clients()
  const look = await ours.look(stage)
  expect(look).toEqual({
    provider: 'demo',
    issuer: server.issuer,
    standing: 'known',
    detail: null,
    client_id: client?.client_id,
    token_endpoint_auth_method: 'client_secret_basic',
    registered_at: expect.any(Number),
    secret_ends_at: 0,
    retiring: 0,
    attempts: 0,
    rotation_pending: false,
  })
  const { current } = (await ours.stored()) ?? {}
  for (const secret of [current?.client_secret, current?.registration_access_token]) {
    expect(secret).toEqual(expect.any(String))
    expect(JSON.stringify(look)).not.toContain(secret)
  }
})

test('changes nothing, here or there', async () => {
  await ours.deploy(stage)
  const [version, calls] = [await ours.version(), ours.calls().length]
  await ours.look(stage)
  expect(await ours.version()).toBe(version)
  expect(
    ours
      .calls()
      .slice(calls)
      .map(({ method }) => method),
  ).toEqual(['GET'])
})

test.each([
  ['a server that no longer knows it', faults.refused('invalid_token', 401), 'lost', /no longer knows client/],
  ['a server without management', faults.insteadJson(404, {}), 'unmanaged', /does not show registrations/],
  ['a server that refuses', faults.refused('access_denied', 403), 'differs', /refused to show/],
  ['a server that fails', faults.insteadJson(500, {}), 'differs', /refused to show/],
  ['a connection that breaks', faults.reset, 'unreachable', /no answer from/],
  ['another redirect URI', faults.changed({ redirect_uris: ['https://evil.example/'] }), 'differs', /redirect/],
  ['another client', faults.changed({ client_id: 'somebody-else' }), 'differs', /client/],
  ['a web page', faults.webPage(), 'differs', /is no JSON object/],
  ['nothing at all', faults.nothing, 'differs', /is no JSON object/],
  ['a flood', faults.insteadJson(200, { client_id: 'x'.repeat(100_000) }), 'differs', /too large/],
])('%s is told in words', async (_, fault, standing, detail) => {
  await ours.deploy(stage)
  server.plan('client', fault)
  expect(await ours.look(stage)).toMatchObject({ standing, detail: expect.stringMatching(detail) })
  expect(server.clients()).toHaveLength(1)
})

test('keeps credentials that the server brings by the way: those before may be void', async () => {
  await ours.deploy(stage)
  server.plan('client', faults.changed({ client_secret: 'another-secret', client_secret_expires_at: 1_900_000_000 }))
  expect(await ours.look(stage)).toMatchObject({ standing: 'known', secret_ends_at: 1_900_000_000 })
  expect((await ours.stored())?.current.client_secret).toBe('another-secret')
})

test('tells a stage that asks for something else by now', async () => {
  await ours.deploy(stage)
  expect(await ours.look({ ...stage, client_name: 'Other' })).toMatchObject({
    standing: 'differs',
    detail: 'the stage asks for something else than what was last asked for',
  })
})

test('tells nothing of a client at an issuer that the stage named before, and asks nobody about it', async () => {
  await ours.deploy(stage)
  const calls = ours.calls().length
  expect(await ours.look({ issuer: 'https://other.example.com' })).toMatchObject({ standing: 'none', client_id: null })
  expect(ours.calls()).toHaveLength(calls)
})

test('does not ask about a client that was put aside: what came would be kept for a client of the same id at another issuer', async () => {
  const other = await startStrictAuthorizationServer()
  await ours.deploy(stage)
  await ours.deploy({ issuer: other.issuer })
  // Two servers may well call two clients the same.
  const stored = await ours.stored()
  const [{ client_id } = { client_id: '' }] = server.clients()
  await ours.store({ ...stored, current: { ...stored?.current, client_id } })
  const before = await ours.stored()
  const calls = ours.calls().length
  server.plan('client', faults.changed({ client_secret: 'of the issuer before' }))
  const look = await ours.look(stage)
  expect((await ours.stored())?.current, 'the client at the other issuer').toEqual(before?.current)
  expect(look).toMatchObject({ standing: 'none', client_id: null })
  expect(ours.calls()).toHaveLength(calls)
  await other.close()
})

test('tells that nothing is registered, or that an operator registered it', async () => {
  expect(await ours.look(stage)).toMatchObject({ standing: 'none', client_id: null, retiring: 0 })
  expect(await ours.look({ ...stage, client: 'static' })).toMatchObject({ standing: 'static', client_id: null })
})

test('tells what a rotation left, and what retires', async () => {
  await ours.deploy(stage)
  const stored = await ours.stored()
  await ours.store({ ...stored, retiring: [{ ...stored?.current, client_id: 'before', retired_at: 1 }] })
  const rotation = openRotation(ours.versions, ours.secret, randomUUID(), randomUUID)
  await rotation.note('an-attempt')
  expect(await ours.look(stage)).toMatchObject({ retiring: 1, attempts: 1, rotation_pending: false })
})

describe('an order', () => {
  test.each(['nobody', 'constructor'])('for the provider %s, which there is not, is refused', async (provider) => {
    await expect(ours.look(stage, provider)).rejects.toMatchObject({ reason: 'provider_unknown', detail: provider })
  })

  test.each([
    undefined,
    null,
    'demo',
    [],
    {},
    { show: '' },
    { show: 7 },
    { show: ['demo'] },
    { show: '__proto__' },
    { show: 'x'.repeat(1_000_000) },
    { show: 'demo', repair: 'demo' },
    { show: 'demo', anew: true },
    { repair: 'demo', anew: 1 },
    { RequestType: 'Delete', show: 'demo' },
  ])('that is none is refused, and nothing happens: %#', async (order) => {
    await expect(obey(ours.deps(stage))(order)).rejects.toMatchObject({ reason: 'request_invalid' })
    expect(ours.calls()).toEqual([])
  })
})
