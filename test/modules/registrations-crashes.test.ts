import { afterEach, describe, expect, test } from 'vitest'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from '../support/authorization-server.ts'
import * as faults from '../support/faults.ts'
import { startRegistrations, type Between, type ProviderSettings } from '../support/registrations.ts'

/** A deploy is killed before and after each of its calls, and CloudFormation repeats the event: what is left, and what is lost. */

type Ours = Awaited<ReturnType<typeof startRegistrations>>

let running: { close: () => Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(running.map((one) => one.close()))
  running = []
})

const start = async () => {
  const server = await startStrictAuthorizationServer()
  const ours = await startRegistrations()
  running.push(ours, server)
  return { server, ours, stage: { issuer: server.issuer } }
}

/** The clients at the server that no secret knows. */
const orphans = async (server: StrictAuthorizationServer, ours: Ours): Promise<string[]> => {
  const known = JSON.stringify(await ours.stored())
  return server.clients().flatMap(({ client_id: id }) => (known.includes(JSON.stringify(id)) ? [] : [id]))
}

/** Carries it out on a fresh stack with a death at each call in turn, and again without one. */
const eachDeath = async (
  run: (begun: Awaited<ReturnType<typeof start>>, dies: Between | undefined) => Promise<string>,
  check: (begun: Awaited<ReturnType<typeof start>>, death: string) => Promise<void>,
): Promise<number> => {
  const calm = await start()
  await run(calm, undefined)
  const calls = calm.ours.callCount()
  for (let at = 1; at <= calls; at += 1) {
    for (const when of ['before', 'after', 'lost'] as const) {
      const begun = await start()
      await run(begun, { dies: { at, when } })
      await check(begun, `killed ${when} call ${at} of ${calls}`)
      await Promise.all(running.splice(2).map((one) => one.close()))
    }
  }
  return calls
}

const isUsable = async (
  { server, ours }: Awaited<ReturnType<typeof start>>,
  settings: ProviderSettings,
): Promise<void> => {
  const current = (await ours.stored())?.current
  const there = server.clients().find(({ client_id: id }) => id === current?.client_id)
  expect(there).toMatchObject({
    client_secret: current?.client_secret,
    registration_access_token: current?.registration_access_token,
    client_name: settings['client_name'] ?? 'Coatcheck',
  })
}

describe('a deploy that is killed and comes again', { timeout: 240_000 }, () => {
  test('registers, with at most one client too many, and only where the first was not kept (DR-14)', async () => {
    const counts: number[] = []
    const calls = await eachDeath(
      ({ ours, stage }, between) => ours.tryDeploy(stage, between),
      async (begun, death) => {
        await begun.ours.deploy(begun.stage)
        await isUsable(begun, begun.stage)
        const left = (await orphans(begun.server, begun.ours)).length
        counts.push(left)
        // A note may be one too many where it is not known how far the server came; never one too few.
        expect([death, await begun.ours.attempts()]).toEqual([
          death,
          expect.toSatisfy((noted) => noted >= left && noted <= 1),
        ])
      },
    )
    expect(counts).toHaveLength(3 * calls)
    expect(Math.max(...counts)).toBe(1)
  })

  test('updates; where a new registration access token was lost with the answer, a new client follows', async () => {
    const renamed = ({ issuer }: ProviderSettings) => ({ issuer, client_name: 'Another name' })
    const found: [orphans: number, clients: number][] = []
    await eachDeath(
      async ({ ours, stage }, between) => {
        await ours.deploy(stage)
        return await ours.tryDeploy(renamed(stage), between)
      },
      async (begun) => {
        const settings = renamed(begun.stage)
        await begun.ours.deploy(settings)
        await isUsable(begun, settings)
        found.push([(await orphans(begun.server, begun.ours)).length, begun.server.clients().length])
      },
    )
    expect(found.filter(([left]) => left > 0)).toEqual([])
    // The server's answer to the update was lost, or we were killed between that and its being current: the loss that cannot be avoided.
    expect(found.filter(([, clients]) => clients === 2)).toHaveLength(7)
  })

  test('follows with a new client where it cannot update, and forgets none of the old ones', async () => {
    const unmanaged = { registration_client_uri: undefined, registration_access_token: undefined }
    const counts: number[] = []
    await eachDeath(
      async ({ server, ours, stage }, between) => {
        server.always('register', faults.changed(unmanaged))
        await ours.deploy(stage)
        return await ours.tryDeploy({ ...stage, scopes: ['openid'] }, between)
      },
      async ({ server, ours, stage }) => {
        await ours.deploy({ ...stage, scopes: ['openid'] })
        const { current, retiring } = (await ours.stored()) ?? {}
        expect([current?.scope, retiring?.map(({ client_id: id }) => id)]).toEqual([
          'openid',
          [server.clients()[0]?.client_id],
        ])
        counts.push((await orphans(server, ours)).length)
      },
    )
    expect(Math.max(...counts)).toBe(1)
  })
})
