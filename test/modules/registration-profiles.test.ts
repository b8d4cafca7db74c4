import { afterEach, describe, expect, test } from 'vitest'
import type { RegistrationRequest } from '../../shared/client-metadata.ts'
import type { Client } from '../../shared/client.ts'
import { createSend } from '../../shared/http.ts'
import { discover } from '../../shared/metadata.ts'
import { read, register, unregister, update } from '../../shared/registration.ts'
import { eras, type Era } from '../support/coder-era.ts'
import { startCoderServer } from '../support/coder-server.ts'
import { registrationProfiles, startProfileServer, type RegistrationProfile } from '../support/registration-profiles.ts'

/** Registrations at servers of every behaviour: a certified server in each of its ways, and Coder in each of its eras. */

const send = createSend({ keepAlive: false, mayConnect: () => true })
const wanted: RegistrationRequest = {
  client_name: 'Coatcheck',
  redirect_uri: 'http://localhost:3000/bff/callback/main',
  post_logout_redirect_uri: 'http://localhost:3000/bff/logout',
  backchannel_logout_uri: 'http://localhost:3000/bff/backchannel-logout/main',
  scopes: undefined,
  initial_access_token: undefined,
  jwks_uri: undefined,
}
const renamed = { ...wanted, client_name: 'Another name' }

let running: { close: () => Promise<void> } | undefined
let kept: Client[] = []
afterEach(async () => {
  await running?.close()
  running = undefined
  kept = []
})
const persist = async (client: Client): Promise<void> => void kept.push(client)

const nameOf = (profile: RegistrationProfile): string =>
  `secret ${profile.secret}, registration access token ${profile.rotatesRegistrationToken ? 'rotates' : 'stays'}`

const registered = async (profile: RegistrationProfile, secretSeconds?: number) => {
  const server = await startProfileServer(profile, { ...(secretSeconds !== undefined && { secretSeconds }) })
  running = server
  const metadata = await discover(send, server.issuer, [])
  const client = await register(send, metadata, { ...wanted, initial_access_token: server.initialAccessToken })
  return { server, metadata, client }
}
const named = registrationProfiles.map((profile) => [nameOf(profile), profile] as const)

describe.each(named)('%s', (_, profile) => {
  const start = () => registered(profile)
  const expires = profile.secret !== 'never-expires'

  test('registers, and says when the secret ends', async () => {
    const { server, client } = await start()
    const end = expires ? Date.now() / 1_000 + 3_600 : 0
    expect(Math.abs((client.client_secret_expires_at ?? NaN) - end)).toBeLessThan(60)
    expect(await server.tokenEndpointSays(client)).toBe('invalid_grant')
  })

  test('reads, and nothing is new', async () => {
    const { client } = await start()
    expect(await read(send, client, persist)).toEqual(client)
    expect(kept).toEqual([])
  })

  test('updates, keeps what came first, and goes on being managed', async () => {
    const { server, metadata, client } = await start()
    server.settings.secretSeconds = 7_200
    const updated = await update(send, metadata, client, renamed, persist)
    const secretIsNew = profile.secret === 'update-rotates'
    expect([updated.client_id, updated.client_secret !== client.client_secret]).toEqual([client.client_id, secretIsNew])
    expect(updated.registration_access_token !== client.registration_access_token).toBe(
      profile.rotatesRegistrationToken,
    )
    expect(updated.client_secret_expires_at !== client.client_secret_expires_at).toBe(expires)
    expect(kept).toHaveLength(expires || profile.rotatesRegistrationToken ? 1 : 0)
    for (const one of kept) {
      expect([one.client_secret, one.registration_access_token, one.client_secret_expires_at]).toEqual([
        updated.client_secret,
        updated.registration_access_token,
        updated.client_secret_expires_at,
      ])
    }
    expect(await server.tokenEndpointSays(updated)).toBe('invalid_grant')
    expect(await server.tokenEndpointSays(client)).toBe(secretIsNew ? 'invalid_client' : 'invalid_grant')
    expect((await server.provider.Client.find(client.client_id))?.clientName).toBe('Another name')
    expect(await update(send, metadata, updated, wanted, persist)).toMatchObject({ client_id: client.client_id })
  })

  test('a second update with the registration access token of before says that it is void, if it is', async () => {
    const { metadata, client } = await start()
    await update(send, metadata, client, renamed, persist)
    const again = update(send, metadata, client, renamed, persist).then(() => 'updated', String)
    expect(await again).toMatch(
      profile.rotatesRegistrationToken ? /registration_lost: .* is void: status 401, invalid_token/ : /^updated$/,
    )
  })

  test('an answer that is lost is made good by a read, unless the registration access token was in it (DR-23c, DR-23d)', async () => {
    const { server, metadata, client } = await start()
    const losing: typeof send = async (request) => {
      const reply = await send(request)
      return request.method === 'PUT' ? Promise.reject(new Error('lost')) : reply
    }
    await expect(update(losing, metadata, client, renamed, persist)).rejects.toThrow('lost')
    const found = await read(send, client, persist).then(server.tokenEndpointSays, String)
    expect(found).toMatch(profile.rotatesRegistrationToken ? /registration_lost/ : /^invalid_grant$/)
  })

  test('is given up, and then is gone', async () => {
    const { server, client } = await start()
    expect(await unregister(send, client)).toBe(true)
    expect(await server.tokenEndpointSays(client)).toBe('invalid_client')
    expect(await read(send, client, persist).catch(String)).toMatch(/registration_lost/)
    expect(await unregister(send, client)).toBe(true)
  })
})

test.each(named.filter(([, { secret }]) => secret !== 'never-expires'))(
  '%s: a registration whose secret has ended can still be managed',
  async (_, profile) => {
    const { server, metadata, client } = await registered(profile, -1)
    expect(await server.tokenEndpointSays(client)).toBe('invalid_client')
    server.settings.secretSeconds = 3_600
    const updated = await update(send, metadata, client, renamed, persist)
    expect(await server.tokenEndpointSays(updated)).toBe('invalid_grant')
  },
)

describe.each(eras)('Coder of the era %s', (era: Era) => {
  const start = async () => {
    const server = await startCoderServer({ era })
    running = server
    const metadata = await discover(send, server.issuer, [])
    return { server, metadata, client: await register(send, metadata, wanted) }
  }

  test('registers without an end of the secret, and asks for no scope', async () => {
    const { client } = await start()
    expect(client).toMatchObject({
      client_secret: expect.stringMatching(/^coder_/),
      token_endpoint_auth_method: era === '2.31' ? 'client_secret_post' : 'client_secret_basic',
    })
    expect([client.client_secret_expires_at, client.scope]).toEqual([undefined, undefined])
  })

  test('shows neither secret nor token again, and ours stay', async () => {
    const { client } = await start()
    expect(await read(send, client, persist)).toEqual(client)
    expect(kept).toEqual([])
  })

  test('keeps the method at an update, which would reset what is left out', async () => {
    const { server, metadata, client } = await start()
    const updated = await update(send, metadata, client, renamed, persist)
    expect(updated).toEqual({ ...client, requested: expect.stringContaining('Another name') })
    expect(server.clients()[0]?.metadata).toMatchObject({
      client_name: 'Another name',
      token_endpoint_auth_method: client.token_endpoint_auth_method,
    })
    expect(kept).toEqual([])
  })

  test('is updated while registration is off, and given up', async () => {
    const { server, metadata, client } = await start()
    server.settings.registration = false
    await update(send, metadata, client, renamed, persist)
    expect(await unregister(send, client)).toBe(true)
    expect(server.clients()).toEqual([])
    expect(await read(send, client, persist).catch(String)).toMatch(
      /registration_lost: .*Invalid registration access token/,
    )
  })

  test('that is switched off is said to be', async () => {
    const { server, metadata, client } = await start()
    server.settings.enabled = false
    const words = era === '2.38' ? /status 404 .*: Route not found/ : /status 403 .*oauth2' experiment/
    expect(await register(send, metadata, wanted).catch(String)).toMatch(words)
    expect(await update(send, metadata, client, renamed, persist).catch(String)).toMatch(words)
  })
})
