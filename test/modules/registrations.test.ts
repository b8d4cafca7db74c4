import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { HttpFault } from '../../shared/http.ts'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from '../support/authorization-server.ts'
import * as faults from '../support/faults.ts'
import { startRegistrations, type Between } from '../support/registrations.ts'

/** Our registration stays equal to the stage over deploys, rollbacks, repeated events, crashes, and servers that forget it. */

let server: StrictAuthorizationServer
let ours: Awaited<ReturnType<typeof startRegistrations>>
let stage: { issuer: string; [setting: string]: unknown }

beforeEach(async () => {
  server = await startStrictAuthorizationServer()
  ours = await startRegistrations()
  stage = { issuer: server.issuer }
})
afterEach(async () => {
  await ours.close()
  await server.close()
})

const ids = () => server.clients().map(({ client_id }) => client_id)
const methods = () => ours.calls().map(({ method }) => method)
const withoutManagement = () =>
  server.always(
    'register',
    faults.changed({ registration_client_uri: undefined, registration_access_token: undefined }),
  )

describe('a deploy', () => {
  test('that changes nothing calls neither registration nor management, and writes nothing', async () => {
    const id = await ours.deploy(stage)
    const version = await ours.version()
    ours.forgetCalls()
    expect(await ours.deploy({ ...stage, claims: ['sub'] })).toBe(id)
    expect([methods(), await ours.version()]).toEqual([[], version])
  })

  test.each<[what: string, change: Record<string, unknown>, registered: Record<string, unknown>]>([
    ['the name', { client_name: 'Another name' }, { client_name: 'Another name' }],
    ['the scopes', { scopes: ['openid', 'read'] }, { scope: 'openid read' }],
    ['the logo', { client_logo_uri: 'http://localhost:3000/logo.svg' }, { logo_uri: 'http://localhost:3000/logo.svg' }],
  ])(
    'that changes %s updates the client, which stays the same, and nothing else of it changes',
    async (_, change, registered) => {
      await ours.deploy(stage)
      const [before] = server.clients()
      const kept = await ours.stored()
      ours.forgetCalls()
      await ours.deploy({ ...stage, ...change })
      const [after, ...more] = server.clients()
      expect([methods(), more]).toEqual([['GET', 'PUT'], []])
      expect(after).toEqual({ ...before, ...registered, registration_access_token: expect.any(String) })
      const { current, retiring } = (await ours.stored()) ?? {}
      expect(retiring).toEqual([])
      expect(current).toMatchObject({
        client_id: kept?.current.client_id,
        client_secret: kept?.current.client_secret,
        registered_at: kept?.current.registered_at,
        registration_access_token: after?.registration_access_token,
      })
      expect(current?.scope).toBe(registered['scope'] ?? kept?.current.scope)
    },
  )

  test('back to the stage before, as CloudFormation rolls back, updates it back', async () => {
    await ours.deploy(stage)
    const [before] = server.clients()
    await ours.deploy({ ...stage, client_name: 'Another name', client_logo_uri: 'http://localhost:3000/logo.svg' })
    await ours.deploy(stage)
    expect(server.clients()).toEqual([{ ...before, registration_access_token: expect.any(String) }])
  })

  test('that the server refuses says why, and leaves what was', async () => {
    await ours.deploy(stage)
    const kept = await ours.stored()
    const refusal = faults.refused('invalid_client_metadata')
    server.plan('client', (proceed) => proceed(), refusal, refusal)
    expect(await ours.tryDeploy({ ...stage, client_name: 'Another name' })).toMatch(
      /^registration_refused: .* update .*: status 400, invalid_client_metadata: as the test wants it$/,
    )
    expect(await ours.stored()).toEqual(kept)
    ours.forgetCalls()
    await ours.deploy(stage)
    expect(methods()).toEqual([])
  })

  test('whose answer is lost, with a new registration access token in it, is followed by a new client', async () => {
    await ours.deploy(stage)
    const [old] = ids()
    server.plan('client', (proceed) => proceed(), faults.lost)
    expect(await ours.tryDeploy({ ...stage, client_name: 'Another name' })).toMatch(/^server_unreachable/)
    await ours.deploy({ ...stage, client_name: 'Another name' })
    expect(await ours.stored()).toMatchObject({ retiring: [{ client_id: old, retired_at: expect.any(Number) }] })
    expect(server.clients().map(({ client_name: name }) => name)).toEqual(['Another name', 'Another name'])
  })

  test('after the server forgot our client registers anew, when there is something to change', async () => {
    await ours.deploy(stage)
    server.plan('client', faults.refused('invalid_token', 401))
    await ours.deploy({ ...stage, client_name: 'Another name' })
    const [old, current] = ids()
    expect(await ours.stored()).toMatchObject({ current: { client_id: current }, retiring: [{ client_id: old }] })
  })
})

describe('where the server does not let us manage the registration', () => {
  test('a change is a new client; the old one goes on for its grants, and a rollback takes it back', async () => {
    withoutManagement()
    await ours.deploy(stage)
    await ours.deploy({ ...stage, client_name: 'Another name' })
    const [first, second] = ids()
    expect(await ours.stored()).toMatchObject({ current: { client_id: second }, retiring: [{ client_id: first }] })
    await ours.deploy(stage)
    expect(ids()).toHaveLength(2)
    const { current, retiring } = (await ours.stored()) ?? {}
    expect([current?.client_id, retiring?.map(({ client_id }) => client_id)]).toEqual([first, [second]])
    expect([current?.retired_at, retiring?.[0]?.retired_at]).toEqual([undefined, expect.any(Number)])
  })

  test.each([404, 405, 501])('status %i of its management URI is such a server', async (status) => {
    await ours.deploy(stage)
    server.plan('client', (proceed) => proceed(), faults.webPage(status))
    await ours.deploy({ ...stage, client_name: 'Another name' })
    expect(ids()).toHaveLength(2)
  })

  test('a client of an older Coatcheck that fits is kept, and from then on it is known what was asked', async () => {
    withoutManagement()
    await ours.deploy(stage)
    const { current, ...rest } = (await ours.stored()) ?? {}
    await ours.store({ ...rest, current: { ...current, requested: undefined, registered_at: undefined } })
    await ours.deploy(stage)
    expect(ids()).toHaveLength(1)
    expect((await ours.stored())?.current.requested).toBe(current?.requested)
  })
})

describe('another issuer', () => {
  let other: StrictAuthorizationServer
  let there: typeof stage
  beforeEach(async () => {
    other = await startStrictAuthorizationServer()
    there = { issuer: other.issuer }
  })
  afterEach(() => other.close())

  test('is another resource: its client is new, and the old one is given up when CloudFormation says so (DR-34)', async () => {
    const before = await ours.deploy(stage)
    const after = await ours.deploy(there)
    expect(after).not.toBe(before)
    expect([server.clients(), other.clients()].map(({ length }) => length)).toEqual([1, 1])
    expect(await ours.stored()).toMatchObject({
      issuer: there.issuer,
      retiring: [],
      former: [{ issuer: stage.issuer }],
    })
    await ours.remove(there, { id: before, of: stage })
    expect([server.clients(), other.clients()].map(({ length }) => length)).toEqual([0, 1])
    expect(await ours.stored()).toMatchObject({ issuer: there.issuer })
    expect(await ours.stored()).not.toHaveProperty('former')
  })

  test('that is rolled back finds its old client again', async () => {
    const before = await ours.deploy(stage)
    const kept = await ours.stored()
    const after = await ours.deploy(there)
    ours.forgetCalls()
    expect(await ours.deploy(stage)).toBe(before)
    expect(methods()).toEqual([])
    expect(await ours.stored()).toMatchObject({ ...kept, former: [{ issuer: there.issuer }] })
    await ours.remove(stage, { id: after, of: there })
    expect([server.clients(), other.clients()].map(({ length }) => length)).toEqual([1, 0])
    expect(await ours.stored()).toEqual(kept)
  })

  test('never gets what belongs to the first one', async () => {
    await ours.deploy(stage)
    await ours.deploy({ ...stage, client_name: 'Another name' })
    await ours.deploy(there)
    await ours.deploy({ ...there, client_name: 'Another name' })
    await ours.remove(there, { of: stage })
    await ours.remove(there)
    for (const [one, secrets] of [
      [other, server.secrets],
      [server, other.secrets],
    ] as const) {
      const seen = one.requests.map((request) =>
        JSON.stringify([request.headers, request.path, request.body.toString()]),
      )
      for (const secret of secrets) expect(seen.filter((text) => text.includes(secret))).toEqual([])
    }
    expect([server.clients(), other.clients()]).toEqual([[], []])
  })
})

describe('a deletion', () => {
  test('of the stack gives up every client, current and retiring, and forgets them', async () => {
    await ours.deploy(stage)
    server.plan('client', faults.refused('invalid_token', 401))
    await ours.deploy({ ...stage, client_name: 'Another name' })
    expect(ids()).toHaveLength(2)
    await ours.remove(stage)
    expect([ids(), await ours.stored(), ours.leftBehind]).toEqual([[], undefined, []])
    await ours.remove(stage)
  })

  test('of a provider that the stage no longer has gives up its clients as well', async () => {
    await ours.deploy(stage)
    server.plan('client', faults.refused('invalid_token', 401))
    await ours.deploy({ ...stage, client_name: 'Another name' })
    expect(ids()).toHaveLength(2)
    await ours.removeProvider(stage)
    expect([ids(), await ours.stored(), ours.leftBehind]).toEqual([[], undefined, []])
  })

  test('of a provider whose secret nobody knows is reported', async () => {
    await ours.deploy(stage)
    await ours.removeProvider(stage, { Provider: 'demo', Settings: JSON.stringify(stage) })
    expect(ours.leftBehind).toEqual(['unknown'])
    expect(ids()).toHaveLength(1)
  })

  test('of what was never created gives up nothing', async () => {
    await ours.deploy(stage)
    await ours.remove(stage, { id: 'failed-Registration' })
    expect(ids()).toHaveLength(1)
    expect(await ours.stored()).toBeDefined()
  })

  test('that the server does not carry out is reported, and what it takes to do it by hand is kept', async () => {
    await ours.deploy(stage)
    server.plan('client', faults.webPage(500))
    await ours.remove(stage)
    expect(ours.leftBehind).toEqual(ids())
    expect((await ours.stored())?.current.client_id).toBe(ids()[0])
  })
})

describe('an event that comes twice', () => {
  test('after it was done does nothing', async () => {
    await ours.deploy(stage)
    const version = await ours.version()
    ours.forgetCalls()
    await ours.deploy(stage)
    expect([methods(), await ours.version()]).toEqual([[], version])
  })

  test('at the same time leaves one client: the slower one gives its own back (DR-13)', async () => {
    const { promise: bothAreThere, resolve } = Promise.withResolvers<void>()
    let arrived = 0
    const send: Between['send'] = async (request, direct) => {
      const reply = await direct(request)
      if (request.method !== 'POST') return reply
      arrived += 1
      if (arrived === 2) resolve()
      await bothAreThere
      return reply
    }
    await Promise.all([ours.deploy(stage, { send }), ours.deploy(stage, { send })])
    expect(server.count('register')).toBe(2)
    expect(ids()).toEqual([(await ours.stored())?.current.client_id])
    expect(ours.leftBehind).toEqual([])
  })

  test('after a crash before anything was kept leaves one client too many, and no more (DR-14)', async () => {
    const crash = () => Promise.reject(new Error('killed'))
    const send: Between['send'] = (request, direct) => (request.method === 'DELETE' ? crash() : direct(request))
    expect(await ours.tryDeploy(stage, { send, versions: { replace: crash } })).toBe('Error: killed')
    await ours.deploy(stage)
    await ours.deploy(stage)
    expect(ids()).toHaveLength(2)
    expect((await ours.stored())?.current.client_id).toBe(ids()[1])
  })

  test('after a client could not be kept, which is given back at once', async () => {
    const replace = () => Promise.reject(new Error('out of order'))
    expect(await ours.tryDeploy(stage, { versions: { replace } })).toBe('Error: out of order')
    expect([server.count('register'), ids()]).toEqual([1, []])
    await ours.deploy(stage)
    expect(ids()).toHaveLength(1)
  })

  test('while a rotation changes the secret loses neither of the two changes', async () => {
    await ours.deploy(stage)
    const send: Between['send'] = async (request, direct) => {
      if (request.method === 'PUT') {
        const registration = await ours.stored()
        if (registration !== undefined) {
          const current = { ...registration.current, client_id: 'successor' }
          await ours.store({ ...registration, current, retiring: [registration.current] })
        }
      }
      return await direct(request)
    }
    await ours.deploy({ ...stage, client_name: 'Another name' }, { send })
    const [client] = server.clients()
    expect(await ours.stored()).toMatchObject({
      current: { client_id: 'successor' },
      retiring: [{ client_id: client?.client_id, registration_access_token: client?.registration_access_token }],
    })
  })
})

describe('a repair', () => {
  test('brings a registration back to the stage that somebody has changed at the server', async () => {
    await ours.deploy(stage)
    const [client] = server.clients()
    if (client !== undefined) client['client_name'] = 'changed by hand'
    expect(await ours.repair(stage)).toEqual({ provider: 'demo', done: 'updated', client_id: client?.client_id })
    expect(server.clients()).toMatchObject([{ client_name: 'Coatcheck' }])
  })

  test('registers anew where the server no longer knows our client', async () => {
    await ours.deploy(stage)
    await ours.remove(stage, { id: 'failed-Registration' })
    server.plan('client', faults.refused('invalid_token', 401))
    expect(await ours.repair(stage)).toEqual({ provider: 'demo', done: 'registered', client_id: ids()[1] })
  })

  test('cannot tell where there is no management, and registers anew when it is told to', async () => {
    withoutManagement()
    await ours.deploy(stage)
    expect(await ours.repair(stage)).toEqual({ provider: 'demo', done: 'unmanaged', client_id: ids()[0] })
    expect(await ours.repair(stage, { anew: true })).toEqual({
      provider: 'demo',
      done: 'registered',
      client_id: ids()[1],
    })
  })

  test.each([{ repair: 7 }, { anew: 'yes' }, { more: 1 }, { repair: 'elsewhere' }])('is refused: %j', async (order) => {
    await expect(ours.repair(stage, order)).rejects.toThrow(/request_invalid: say|provider_unknown/)
    expect(ours.calls()).toEqual([])
  })
})

test('what is thrown by the network is thrown in words', async () => {
  const send = () => Promise.reject(new HttpFault('unreachable'))
  expect(await ours.tryDeploy(stage, { send })).toMatch(/^server_unreachable: /)
})
