import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { background } from '../../lambdas/background.ts'
import { confirmLogout } from '../../lambdas/logout.ts'
import { createEndings } from '../../shared/endings.ts'
import { createGrantRecords, decodeGrant } from '../../shared/grant-record.ts'
import { createGrants } from '../../shared/grants.ts'
import { parseRegistration } from '../../shared/registration-record.ts'
import { createSealer, parseSealingKeys } from '../../shared/seal.ts'
import { createSessions, decodeSession } from '../../shared/sessions.ts'
import type { Tasks } from '../../shared/tasks.ts'
import { keptLogin } from '../../shared/user-agent.ts'
import {
  recordsOfToday,
  recordStage,
  requestWith,
  tableOf,
  writtenMs,
  type StoredRecords,
} from '../support/records-of-today.ts'

/**
 * Records of every format that was ever written still open: `test/fixtures/records/v<n>/` holds one of each kind, sealed under the keys
 * beside them. Who changes a format writes the next folder with WRITE_RECORDS=v<n> and keeps the earlier ones.
 */

const folder = join(import.meta.dirname, '../fixtures/records')
const sealingSecret = readFileSync(join(folder, 'sealing-keys.json'), 'utf8')

const bytesAsText = function (this: Record<string, unknown>, name: string, value: unknown): unknown {
  const original = this[name]
  return original instanceof Uint8Array ? { base64: Buffer.from(original).toString('base64') } : value
}
const textAsBytes = (_: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && 'base64' in value && typeof value.base64 === 'string'
    ? new Uint8Array(Buffer.from(value.base64, 'base64'))
    : value

const kinds = ['session', 'grant', 'pointer', 'login', 'logout', 'tasks', 'provider'] as const

const stage = recordStage()
vi.stubEnv('COATCHECK_STAGE', JSON.stringify(stage))

const newVersion = process.env['WRITE_RECORDS']
if (newVersion !== undefined && !existsSync(join(folder, newVersion))) {
  const records = await recordsOfToday(sealingSecret)
  mkdirSync(join(folder, newVersion))
  for (const kind of kinds) {
    writeFileSync(join(folder, newVersion, `${kind}.json`), `${JSON.stringify(records[kind], bytesAsText, 2)}\n`)
  }
}

const stored = (version: string): StoredRecords => {
  const read = (kind: string): unknown =>
    JSON.parse(readFileSync(join(folder, version, `${kind}.json`), 'utf8'), textAsBytes)
  return Object.fromEntries(kinds.map((kind) => [kind, read(kind)])) as unknown as StoredRecords
}
const versions = readdirSync(folder).filter((name) => /^v\d+$/.test(name))

const sealer = createSealer(() => Promise.resolve(parseSealingKeys(sealingSecret)))
const now = () => writtenMs + 1_000
const unexpected = () => Promise.reject(new Error('an unexpected call'))
const tasks: Tasks = { start: unexpected }
const wire = { refresh: unexpected, exchange: unexpected, revoke: unexpected }

describe.each(versions)('of format %s', (version) => {
  const records = stored(version)

  test('a session opens', async () => {
    const { item, says } = records.session
    const sessions = createSessions({ table: tableOf({}), sealer, settings: stage.session, sharedGrants: [], now })
    const session = decodeSession(item)
    expect(session && { ...session, ...(await sessions.open(session)) }).toMatchObject(Object(says))
  })

  test('a session leads to its grant', async () => {
    const [session, grant] = [records.session.item, records.grant.item]
    expect(decodeSession(session)?.grantKey).toEqual({ pk: grant.pk, sk: grant.sk })
  })

  test('a grant opens', async () => {
    const { item, says } = records.grant
    const grant = decodeGrant(item)
    const opened = createGrantRecords({ sealer, settings: stage.renewal, now })
    const routes = grant && (await opened.openRoutes(grant))
    expect(grant && { ...grant, routes, tokens: await opened.open(grant) }).toMatchObject(Object(says))
  })

  test('a pointer from a session of the authorization server leads to ours', async () => {
    const { item, says } = records.pointer
    const removed: string[] = []
    const table = tableOf({
      write: () => Promise.resolve(),
      list: (pk) => Promise.resolve(pk === item.pk ? [item] : []),
      remove: ({ pk }) => Promise.resolve(void removed.push(pk)),
    })
    const endings = createEndings({
      table,
      grants: { end: unexpected, endShared: unexpected, giveBackRoutes: unexpected },
      tasks,
      now,
    })
    await endings.endServerSession('https://as.example', 'the-sid')
    expect(removed).toEqual([says])
  })

  test('a login goes on', async () => {
    const { state, cookie, says } = records.login
    expect((await keptLogin(requestWith(cookie), sealer, state, now() / 1_000)).login).toEqual(says)
  })

  test('a logout comes back', async () => {
    const endings = createEndings({
      table: tableOf({}),
      grants: { end: unexpected, endShared: unexpected, giveBackRoutes: unexpected },
      tasks,
      now,
    })
    const authorizationServer = { authorize: unexpected, finish: unexpected, ...wire, logoutUrl: unexpected }
    const flow = confirmLogout({ stage, authorizationServer, sealer, endings })
    const reply = await flow(requestWith('', { rawQuery: `state=${records.logout.state}` }))
    expect(reply.headers?.['location']).toBe(records.logout.says)
  })

  test.each(records.tasks.map(({ task, says }) => [task.kind, task, says] as const))(
    'a task that waits is carried out: %s',
    async (_, task, says) => {
      const done: unknown[] = []
      const keep = (value: unknown): void => void done.push(value)
      const revoke = (_holder: unknown, tokens: unknown) => Promise.resolve(Boolean(done.push(tokens)))
      const settings = stage.renewal
      const grants = createGrants({ table: tableOf({}), sealer, wire: { ...wire, revoke }, tasks, settings, now })
      const endings = createEndings({ table: tableOf({}), grants, tasks, now })
      const run = background({
        stage,
        grants: { ...grants, resume: (given) => Promise.resolve(keep(given)).then(() => ({ kind: 'held' as const })) },
        endings: {
          ...endings,
          release: ({ pk, sk }) => Promise.resolve(keep({ kind: 'release', pk, sk })),
          limit: (account) => Promise.resolve(keep({ kind: 'limit', account })).then(() => []),
        },
      })
      await run(task)
      expect(done).toEqual([says])
    },
  )

  test('the secret of a provider is read', () => {
    expect(parseRegistration(records.provider.secret)).toEqual(records.provider.says)
  })

  test('nothing opens under another key, as another kind, or in another place', async () => {
    const stranger = createSealer(() =>
      Promise.resolve(parseSealingKeys(JSON.stringify({ current: 'f1', f1: 'x'.repeat(64) }))),
    )
    const { pk, sk, sealed } = records.session.item
    if (!(sealed instanceof Uint8Array)) throw new Error('not sealed')
    expect(await sealer.open('session', [pk, sk], sealed)).toBeTypeOf('string')
    expect(await stranger.open('session', [pk, sk], sealed)).toBeUndefined()
    expect(await sealer.open('grant', [pk, sk], sealed)).toBeUndefined()
    expect(await sealer.open('session', [pk, `${sk}x`], sealed)).toBeUndefined()
  })
})

describe('what today’s code writes', () => {
  const newest = versions.toSorted((one, other) => Number(one.slice(1)) - Number(other.slice(1))).at(-1) ?? 'none'

  /** Which members there are and of what type; not what is random or sealed. */
  const shape = (value: unknown): unknown => {
    if (value instanceof Uint8Array) return 'bytes'
    if (Array.isArray(value)) return value.map(shape)
    if (typeof value !== 'object' || value === null) return typeof value
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shape(member)]))
  }

  test.each(kinds)('is stored as an example of the newest format: %s', async (kind) => {
    const today = JSON.parse(JSON.stringify(await recordsOfToday(sealingSecret), bytesAsText), textAsBytes)
    expect(shape(today[kind])).toEqual(shape(stored(newest)[kind]))
  })

  test('says its format in every record that may have to be told apart', async () => {
    const { session, grant, provider } = await recordsOfToday(sealingSecret)
    expect([session.item['format'], grant.item['format'], JSON.parse(provider.secret).format]).toEqual([1, 1, 1])
    for (const { item } of [session, grant]) expect((item['sealed'] as Uint8Array)[0]).toBe(1)
  })
})
