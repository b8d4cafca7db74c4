import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { rotate } from '../../lambdas/rotate.ts'
import { upkeep } from '../../lambdas/upkeep.ts'
import { newClientKey } from '../../shared/client-keys.ts'
import { attemptsIn, openRotation } from '../../shared/rotation.ts'
import { parseStaticKnowledge } from '../../shared/static-client.ts'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from '../support/authorization-server.ts'
import { insteadJson } from '../support/faults.ts'
import { startRegistrations, type ProviderSettings } from '../support/registrations.ts'

/** A rotation that meets a deploy, an end or a failure that comes at a bad time. */

let server: StrictAuthorizationServer
let ours: Awaited<ReturnType<typeof startRegistrations>>
let stage: ProviderSettings

beforeEach(async () => {
  server = await startStrictAuthorizationServer()
  ours = await startRegistrations()
  stage = { issuer: server.issuer }
})
afterEach(async () => {
  vi.restoreAllMocks()
  await ours.close()
  await server.close()
})

const clients = () => server.clients().map(({ client_id: id }) => id)
const holdersOf = async (label: string): Promise<string[]> =>
  Object.entries(await ours.versions.labels(ours.secret)).flatMap(([id, labels]) =>
    labels.includes(label) ? [id] : [],
  )

/** A step of a rotation that AWS has begun under that token, without a version of its own so far. */
const step = async (name: string, token: string, settings: ProviderSettings): Promise<void> => {
  const deps = ours.deps(settings)
  const labels = async (secret: string) => {
    const real = await ours.versions.labels(secret)
    return real[token] === undefined ? { ...real, [token]: ['AWSPENDING'] } : real
  }
  const run = rotate({
    ...deps,
    versions: { ...ours.versions, labels },
    providerOf: () => 'demo',
    pause: () => Promise.resolve(),
  })
  await run({ Step: name, SecretId: ours.secret, ClientRequestToken: token })
}
const anHourPasses = (settings: ProviderSettings): Promise<void> => upkeep(ours.deps(settings))()

test('what the stage has for another issuer is not sent to the one before', async () => {
  await ours.deploy(stage)
  ours.forgetCalls()
  const other = { issuer: 'http://127.0.0.1:1' }
  await expect(step('createSecret', randomUUID(), other)).rejects.toMatchObject({
    detail: expect.stringContaining('another issuer'),
  })
  expect(ours.calls()).toEqual([])
  expect(await ours.attempts()).toBe(0)
})

test('attempts beyond ten share a label, since a secret can have no more than 20', async () => {
  await ours.deploy(stage)
  const rotation = openRotation(ours.versions, ours.secret, randomUUID(), randomUUID)
  for (let attempt = 0; attempt < 15; attempt += 1) await rotation.note(`attempt-${attempt}`)
  const ids = attemptsIn(await ours.versions.labels(ours.secret)).map(({ id }) => id)
  expect(ids).toHaveLength(11)
  expect(ids).toContain('further')
  await rotation.settle('attempt-14')
  expect(await ours.attempts(), 'which of them it was nobody knows').toBe(11)
})

test('the client that waits goes with the stack', async () => {
  await ours.deploy(stage)
  await step('createSecret', randomUUID(), stage)
  expect(clients()).toHaveLength(2)
  await ours.remove(stage)
  expect(clients()).toEqual([])
})

test('where rotation is turned off meanwhile, what waits is given back and no longer waits', async () => {
  await ours.deploy(stage)
  const [before] = clients()
  await step('createSecret', randomUUID(), stage)
  await anHourPasses({ ...stage, rotation: { mode: 'off' } })
  expect([clients(), await holdersOf('AWSPENDING'), await ours.attempts()]).toEqual([[before], [], 0])
  expect((await ours.stored())?.current.client_id).toBe(before)
})

test('where it is a further key that waits, its client is not given back: it is the one in use', async () => {
  await ours.deploy(stage)
  const registration = await ours.stored()
  const [before] = clients()
  const from = await ours.version()
  if (registration === undefined || from === undefined) throw new Error('nothing is registered')
  const rotation = openRotation(ours.versions, ours.secret, randomUUID(), randomUUID)
  await rotation.keep({ registration: { ...registration, keys: [newClientKey(1)] }, from, attempt: undefined })
  await anHourPasses({ ...stage, rotation: { mode: 'off' } })
  expect([clients(), await holdersOf('AWSPENDING')]).toEqual([[before], []])
})

test('while rotations fail, the time that is left is told, and what has retired goes', async () => {
  await ours.deploy(stage)
  const stored = await ours.stored()
  const now = Math.floor(Date.now() / 1_000)
  const old = { ...stored?.current, client_id: 'old', registration_client_uri: undefined, retired_at: 1 }
  const current = { ...stored?.current, client_secret_expires_at: now + 86_400 }
  await ours.store({ ...stored, current, retiring: [old] })
  // A rotation that made nothing: AWS leaves its label on a version without a value.
  const deps = ours.deps(stage)
  const labels = async (secret: string) => ({
    ...(await ours.versions.labels(secret)),
    'failed-before': ['AWSPENDING'],
  })
  const begun: string[] = []
  const rotateAgain = async (secret: string) => begun.push(secret) > 0
  const written: string[] = []
  vi.spyOn(process.stdout, 'write').mockImplementation((line) => written.push(String(line)) > 0)
  vi.stubEnv('COATCHECK_STAGE', JSON.stringify(deps.stage))
  await upkeep({ ...deps, versions: { ...ours.versions, labels, rotate: rotateAgain } })()
  expect(written.join('\n')).toMatch(/"secret_days_left":(1|0\.99)/)
  expect((await ours.stored())?.retiring).toEqual([])
  expect(begun).toEqual([ours.secret])
})

test('sessions that began under a client with keys go on when an operator writes another client down', async () => {
  await ours.deploy(stage)
  const keys = [newClientKey(1), newClientKey(1)]
  await ours.store({ ...(await ours.stored()), keys })
  await ours.deploy({ ...stage, client: 'static' })
  const value = (await ours.versions.find(ours.secret, { label: 'AWSCURRENT' }))?.value ?? ''
  expect(parseStaticKnowledge(value)?.keys).toEqual(keys)
  await ours.deploy(stage)
  expect((await ours.stored())?.keys).toEqual(keys)
})

describe('clients of ours from before an operator wrote another one down', () => {
  const day = 86_400
  let theirs: ProviderSettings
  const hourAfter = (seconds: number): Promise<void> =>
    upkeep({ ...ours.deps(theirs), now: () => Date.now() + seconds * 1_000 })()
  const retiring = async () =>
    parseStaticKnowledge((await ours.versions.find(ours.secret, { label: 'AWSCURRENT' }))?.value ?? '')?.retiring

  beforeEach(async () => {
    theirs = { ...stage, client: 'static' }
    vi.stubEnv('COATCHECK_STAGE', JSON.stringify(ours.deps(theirs).stage))
    vi.spyOn(process.stdout, 'write').mockReturnValue(true)
    await ours.deploy(stage)
    await ours.deploy(theirs)
    await ours.write(JSON.stringify({ client_id: 'another', client_secret: 's' }))
  })

  test.each([
    ['is what the operator wrote down', (id: string) => ({ client_id: id, client_secret: 's' })],
    ['is one that the operator keeps', (id: string) => ({ client_id: 'another', retiring: [{ client_id: id }] })],
    ['may be, as nothing that can be read was written', () => ({ client: 'misspelt' })],
  ])('stay where one of them %s, and are deleted once it is not', async (_, written) => {
    const [before = ''] = clients()
    await ours.write(JSON.stringify(written(before)))
    await hourAfter(0)
    await hourAfter(400 * day)
    expect([clients(), (await retiring())?.length]).toEqual([[before], 1])
    await ours.write(JSON.stringify({ client_id: 'another', client_secret: 's' }))
    await hourAfter(400 * day)
    expect([clients(), await retiring()]).toEqual([[], []])
  })

  test('go when no session of them can be left, and nothing is written before and after that', async () => {
    const [before] = clients()
    await hourAfter(0)
    const version = await ours.version()
    expect(await retiring()).toMatchObject([{ client_id: before, retired_at: expect.any(Number) }])
    await hourAfter(60)
    expect([clients(), await ours.version()]).toEqual([[before], version])
    await hourAfter(400 * day)
    expect([clients(), await retiring()]).toEqual([[], []])
    const last = await ours.version()
    ours.forgetCalls()
    await hourAfter(400 * day)
    expect([ours.calls(), await ours.version()]).toEqual([[], last])
  })

  test('stay with their credentials while the server does not let us', async () => {
    await hourAfter(0)
    const [{ retired_at: since = 0 } = {}] = (await retiring()) ?? []
    const overSeconds = ours.deps(theirs).stage.session.absolute_seconds + 2 * 3_600 + 60
    server.plan('client', insteadJson(500, {}))
    await hourAfter(since + overSeconds - Date.now() / 1_000)
    expect([clients().length, (await retiring())?.length]).toEqual([1, 1])
    await hourAfter(since + overSeconds - Date.now() / 1_000)
    expect([clients(), await retiring()]).toEqual([[], []])
  })

  test('and a deploy meanwhile: it wins, and the next hour does the rest', async () => {
    await hourAfter(0)
    const replace: typeof ours.versions.replace = () => Promise.resolve(false)
    const deps = ours.deps(theirs, { versions: { replace } })
    const before = await retiring()
    await upkeep({ ...deps, now: () => Date.now() + 400 * day * 1_000 })()
    expect([clients(), await retiring()]).toEqual([[], before])
    await hourAfter(400 * day)
    expect(await retiring()).toEqual([])
  })
})
