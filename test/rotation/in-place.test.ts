import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { rotate } from '../../lambdas/rotate.ts'
import { upkeep } from '../../lambdas/upkeep.ts'
import { Failure } from '../../shared/errors.ts'
import { HttpFault } from '../../shared/http.ts'
import { type RegistrationProfile, startProfileServer } from '../support/registration-profiles.ts'
import { type Between, type ProviderSettings, startRegistrations } from '../support/registrations.ts'

/** The client gets another secret by an update of its registration, at a certified server of each kind. */

let server: Awaited<ReturnType<typeof startProfileServer>>
let ours: Awaited<ReturnType<typeof startRegistrations>>
let settings: ProviderSettings

const start = async (profile: RegistrationProfile): Promise<void> => {
  server = await startProfileServer(profile)
  settings = {
    issuer: server.issuer,
    rotation: { mode: 'in-place' },
    initial_access_token_secret: await storeToken(),
  }
  vi.stubEnv('COATCHECK_STAGE', JSON.stringify(ours.deps(settings).stage))
  await ours.deploy(settings)
}
const storeToken = async (): Promise<string> => {
  const name = 'initial-access-token'
  await ours.createSecret(name, server.initialAccessToken)
  return name
}

beforeEach(async () => {
  ours = await startRegistrations()
  vi.spyOn(process.stdout, 'write').mockReturnValue(true)
})
afterEach(async () => {
  vi.restoreAllMocks()
  await ours.close()
  await server.close()
})

const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret']

/** The steps of a rotation, of which AWS has labelled a version without a value so far. */
const run = async (token: string, between: Between = {}, names = steps): Promise<void> => {
  const deps = ours.deps(settings, between)
  const labels = async (secret: string) => {
    const real = await ours.versions.labels(secret)
    return real[token] === undefined ? { ...real, [token]: ['AWSPENDING'] } : real
  }
  const death = between.dies?.at ?? Number.POSITIVE_INFINITY
  const step = rotate({
    ...deps,
    versions: { ...deps.versions, labels },
    providerOf: () => 'demo',
    pause: () => (ours.callNames().length >= death ? Promise.reject(new Error('dead')) : Promise.resolve()),
  })
  await ours.dying(between.dies, async () => {
    for (const Step of names) await step({ Step, SecretId: ours.secret, ClientRequestToken: token })
  })
}
const words = (error: unknown): string =>
  error instanceof Failure ? `${error.reason}: ${error.detail ?? ''}` : String(error)
const tryRun = (...given: Parameters<typeof run>): Promise<string> => run(...given).then(() => 'done', words)
const current = async () => {
  const client = (await ours.stored())?.current
  if (client === undefined) throw new Error('there is no registration')
  return client
}
const updates = (): number => ours.calls().filter(({ method }) => method === 'PUT').length
const holders = async (label: string): Promise<string[]> =>
  Object.entries(await ours.versions.labels(ours.secret)).flatMap(([id, all]) => (all.includes(label) ? [id] : []))

const kinds = [true, false].map((rotatesRegistrationToken) => ({ rotatesRegistrationToken }))

describe.each(kinds)('a server whose registration access token is renewed: $rotatesRegistrationToken', (kind) => {
  test('that issues another secret: it is current, and the one before is void', async () => {
    await start({ secret: 'update-rotates', ...kind })
    const before = await current()
    const token = randomUUID()
    await run(token)
    const after = await current()
    expect(await ours.version()).toBe(token)
    expect(after.client_id).toBe(before.client_id)
    expect(after.client_secret).not.toBe(before.client_secret)
    expect(after.registration_access_token === before.registration_access_token).toBe(!kind.rotatesRegistrationToken)
    expect(await server.tokenEndpointSays(before)).toBe('invalid_client')
    expect(await server.tokenEndpointSays(after)).toBe('invalid_grant')
    expect((await ours.stored())?.retiring).toEqual([])
    await run(token)
    expect([updates(), await ours.version()]).toEqual([1, token])
  })

  test('that extends the secret it has: its new end is current', async () => {
    await start({ secret: 'update-extends', ...kind })
    const before = await current()
    server.settings.secretSeconds = 7_200
    const token = randomUUID()
    await run(token)
    const after = await current()
    expect(await ours.version()).toBe(token)
    expect(after.client_secret).toBe(before.client_secret)
    expect(after.client_secret_expires_at ?? 0).toBeGreaterThan((before.client_secret_expires_at ?? 0) + 3_000)
  })

  test('that keeps the secret: the rotation fails in words, and nothing is lost', async () => {
    await start({ secret: 'never-expires', ...kind })
    const before = await current()
    expect(await tryRun(randomUUID())).toMatch(/^rotation_failed: the server keeps the secret.*successor/)
    const after = await current()
    expect([after.client_id, after.client_secret]).toEqual([before.client_id, before.client_secret])
    expect(after.registration_access_token === before.registration_access_token).toBe(!kind.rotatesRegistrationToken)
    expect(await holders('AWSPENDING')).toEqual([])
    expect(await ours.repair(settings)).toMatchObject({ done: 'updated' })
  })

  test('and a process that ends before or after any exchange: what is current is what the server takes', async () => {
    await start({ secret: 'update-rotates', ...kind })
    await run(randomUUID())
    const count = ours.callNames().length
    expect(count).toBeGreaterThan(10)
    const lost: string[] = []
    for (let at = 1; at <= count; at += 1) {
      for (const when of ['before', 'after'] as const) {
        const before = await current()
        const token = randomUUID()
        ours.forgetCalls()
        await tryRun(token, { dies: { at, when } })
        const again = await tryRun(token)
        const told = `${when} exchange ${at}: ${again}`
        const isLost = again.startsWith('registration_lost')
        if (isLost) lost.push(`${when} ${at}`)
        const done = isLost ? (await ours.repair(settings))['done'] : again
        const { client_secret: secret } = await current()
        const found = {
          updates: updates(),
          done,
          isOfRotation: (await ours.version()) === token,
          isNew: secret !== before.client_secret,
          server: await server.tokenEndpointSays(await current()),
        }
        const right = { done: isLost ? 'registered' : 'done', isOfRotation: !isLost, isNew: true }
        expect({ told, ...found }).toEqual({ told, updates: 1, ...right, server: 'invalid_grant' })
      }
    }
    const [, at = 0] = /^after (\d+)$/.exec(lost[0] ?? '') ?? []
    const point = [`after ${at}`, `before ${Number(at) + 1}`]
    expect(lost, 'the one point that cannot be covered').toEqual(kind.rotatesRegistrationToken ? point : [])
  }, 120_000)
})

describe('a server whose registration access token stays', () => {
  beforeEach(() => start({ secret: 'update-rotates', rotatesRegistrationToken: false }))

  test('and whose answer to the update is lost: the registration is read at once', async () => {
    const send: Between['send'] = async (request, direct) => {
      const reply = await direct(request)
      if (request.method === 'PUT') throw new HttpFault('broken')
      return reply
    }
    const token = randomUUID()
    await run(token, { send })
    expect([await ours.version(), updates()]).toEqual([token, 1])
    expect(await server.tokenEndpointSays(await current())).toBe('invalid_grant')
  })

  test.each([
    ['a repair', async () => void (await ours.repair(settings))],
    ['a deploy', async () => void (await ours.deploy({ ...settings, client_name: 'Another name' }))],
  ])('and %s between the update and its end: what the server takes is kept', async (_, meanwhile) => {
    const token = randomUUID()
    const versions = { move: () => Promise.reject(new Error('dead')) }
    await tryRun(token, { versions })
    expect(await server.tokenEndpointSays(await current())).toBe('invalid_client')
    await meanwhile()
    expect(await tryRun(token)).toMatch(/^rotation_failed: the registration was changed by a deploy since/)
    expect(await server.tokenEndpointSays(await current())).toBe('invalid_grant')
    expect(await holders('AWSPENDING')).toEqual([])
  })

  test('and a change of the secret between the update and its end: the credentials that came are kept with it', async () => {
    const token = randomUUID()
    await tryRun(token, { versions: { move: () => Promise.reject(new Error('dead')) } })
    const stored = await ours.stored()
    await ours.store({ ...stored, current: { ...stored?.current, requested: 'something else' } })
    expect(await tryRun(token)).toMatch(/^rotation_failed: /)
    const after = await current()
    expect(after.requested).toBe('something else')
    expect(await server.tokenEndpointSays(after)).toBe('invalid_grant')
  })

  test('and rotation that is turned off before its end: the client stays, with what the server takes', async () => {
    await tryRun(randomUUID(), { versions: { move: () => Promise.reject(new Error('dead')) } })
    const { client_id: id } = await current()
    await upkeep(ours.deps({ ...settings, rotation: { mode: 'off' } }))()
    const after = await current()
    expect([after.client_id, await server.tokenEndpointSays(after)]).toEqual([id, 'invalid_grant'])
    expect(await holders('AWSPENDING')).toEqual([])
  })

  test('and Secrets Manager that fails for a moment: what the server will not say again is kept', async () => {
    let failures = 2
    const token = randomUUID()
    const add: NonNullable<Between['versions']>['add'] = async (...given) => {
      if (given[1].id === token && (failures -= 1) >= 0) throw new Failure('secrets_unavailable')
      return await ours.versions.add(...given)
    }
    await run(token, { versions: { add } })
    expect([await ours.version(), updates()]).toEqual([token, 1])
  })

  test('and credentials that the server changed itself: the test of a rotation reads them', async () => {
    const token = randomUUID()
    await run(token)
    const { client_id, redirect_uri, registration_client_uri: url = '', registration_access_token } = await current()
    const grant_types = ['authorization_code', 'refresh_token']
    const update = { client_id, redirect_uris: [redirect_uri], grant_types }
    const headers = { authorization: `Bearer ${registration_access_token}`, 'content-type': 'application/json' }
    expect((await fetch(url, { method: 'PUT', headers, body: JSON.stringify(update) })).status).toBe(200)
    expect(await server.tokenEndpointSays(await current())).toBe('invalid_client')
    await run(token, {}, ['testSecret'])
    expect(await server.tokenEndpointSays(await current())).toBe('invalid_grant')
  })
})
