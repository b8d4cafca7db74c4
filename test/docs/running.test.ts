import { createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import type { RequestListener } from 'node:http'
import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launchChromium } from '../support/chromium.ts'
import { gate } from '../support/faults.ts'
import type { Reply } from '../support/http.ts'
import { openRecords } from '../support/records.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack, type StageFile } from '../support/stacks.ts'
import { departures, operations } from './contract.ts'
import { codeBlocks, section, table, textOf } from './documents.ts'

/** The examples of the documents, tried on a stack whose stage file and frontend are README's. */

const readme = textOf('README.md')
const storage = textOf('docs/storage.md')
const parsed = (text: string | undefined) => JSON.parse(text ?? '')

const frontend: RequestListener = (_, response) =>
  response.writeHead(200, { 'Content-Type': 'text/html' }).end(codeBlocks(readme, 'html')[0])

/** README's stage, with the servers that run here in place of those at example.com. */
const readmeStage = (base: StageFile): StageFile => {
  const stage: StageFile = parsed(codeBlocks(readme, 'json')[0])
  const { issuer, resource } = base.providers['demo'] ?? {}
  return {
    ...stage,
    origin: base.origin,
    providers: { main: { ...stage.providers['main'], issuer, resource } },
    apis: { orders: { ...stage.apis['orders'], target: base.apis['demo']?.['target'] } },
    removal: 'destroy',
  }
}

let running: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>

beforeAll(async () => {
  running = await startStrictStack({ stage: readmeStage, frontend })
  records = openRecords(running.stack)
})

afterAll(async () => {
  records?.close()
  await running?.close()
})

const signedIn = async () => {
  const tab = running.newBrowser()
  await signIn(tab, { user: 'Ada' })
  return tab
}

test("README's frontend signs in, calls the API and signs out in Chromium", { timeout: 60_000 }, async () => {
  const chromium = await launchChromium()
  try {
    const page = await chromium.newPage()
    const errors: Error[] = []
    page.on('pageerror', (error) => errors.push(error))
    await page.goto(running.origin)
    await page.getByText('You are signed out').waitFor()
    await page.getByRole('link', { name: 'Sign in' }).click()
    await page.getByText('Hello, Ada').waitFor()
    await page.getByRole('button', { name: 'Load my orders' }).click()
    await page.getByText('"subject":').waitFor()
    expect(parsed((await page.locator('#reply').textContent()) ?? '')).toMatchObject({ subject: 'ada' })
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByText('You are signed out').waitFor()
    expect(page.url()).toBe(`${running.origin}/`)
    expect(errors).toEqual([])
  } finally {
    await chromium.close()
  }
})

test('what the endpoints answer is what openapi.json says', async () => {
  const contract = operations()
  const tab = await signedIn()
  const stranger = running.newBrowser()
  const typed = { headers: [['Accept', 'text/html']] as [string, string][] }
  const api = '/api/{api}/{path}'
  const replies: [operation: string, status: number, ask: () => Promise<Reply>][] = [
    ['GET /bff/session', 200, () => tab.fetch('/bff/session')],
    ['GET /bff/session', 200, () => stranger.fetch('/bff/session')],
    ['GET /bff/login', 302, () => tab.raw({ path: '/bff/login', ...typed })],
    ['GET /bff/login', 400, () => tab.raw({ path: '/bff/login?return_to=//evil.example' })],
    ['GET /bff/login', 400, () => tab.raw({ path: '/bff/login?provider=a&provider=b' })],
    ['GET /bff/login', 403, () => tab.fetch('/bff/login')],
    ['GET /bff/login', 404, () => tab.raw({ path: '/bff/login?provider=nobody' })],
    ['GET /bff/login', 503, () => tab.raw({ path: '/bff/login', headers: [['Sec-Purpose', 'prefetch']] })],
    ['GET /bff/callback/{provider}', 400, () => tab.raw({ path: '/bff/callback/main?code=a&state=b' })],
    ['GET /bff/callback/{provider}', 400, () => tab.raw({ path: '/bff/callback/main?code=a&state=b', ...typed })],
    ['POST /bff/refresh', 200, () => tab.fetch('/bff/refresh', { method: 'POST' })],
    ['POST /bff/refresh', 401, () => stranger.fetch('/bff/refresh', { method: 'POST' })],
    ['POST /bff/refresh', 403, () => tab.fetch('/bff/refresh', { method: 'POST', csrf: false })],
    ['GET /bff/logout', 200, () => tab.raw({ path: '/bff/logout', ...typed })],
    ['GET /bff/logout', 400, () => tab.raw({ path: '/bff/logout?return_to=/bff/logout' })],
    ['POST /bff/logout', 403, () => tab.fetch('/bff/logout', { method: 'POST', csrf: false })],
    ['POST /bff/logout', 200, () => stranger.fetch('/bff/logout', { method: 'POST' })],
    [`GET ${api}`, 418, () => tab.fetch('/api/orders/status/418')],
    [`GET ${api}`, 400, () => tab.fetch('/api/orders/%5C')],
    [`GET ${api}`, 401, () => stranger.fetch('/api/orders/whoami')],
    [`POST ${api}`, 403, () => tab.fetch('/api/orders/whoami', { method: 'POST', csrf: false })],
    [`GET ${api}`, 404, () => tab.fetch('/api/nothing/whoami')],
    [`GET ${api}`, 431, () => tab.fetch('/api/orders/whoami', { headers: { cookie: `a=${'b'.repeat(8_200)}` } })],
  ]
  for (const [name, status, ask] of replies) {
    const operation = contract.get(name)
    if (operation === undefined) throw new Error(`openapi.json has no ${name}`)
    const reply = await ask()
    expect([name, reply.status, reply.text.slice(0, 200)]).toEqual([name, status, expect.any(String)])
    expect(departures(operation, reply)).toEqual([])
  }
  const logout = contract.get('POST /bff/logout') ?? { operationId: '', responses: {} }
  const reply = await tab.fetch('/bff/logout', { method: 'POST' })
  expect(reply.json()).toEqual({ logout_url: expect.stringContaining('client_id=') })
  expect(departures(logout, reply)).toEqual([])
})

/** Names and types of a record's attributes. */
const shapeOf = (item: Record<string, AttributeValue>): string[] =>
  Object.entries(item).map(([name, value]) => `${name}: ${Object.keys(value)[0]}`)

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

describe('storage.md', () => {
  const example = (heading: string) => parsed(codeBlocks(section(storage, heading), 'json')[0])
  const ofKind = async (prefix: string) =>
    (await running.items()).find(({ pk, sk }) => [pk?.S, sk?.S].some((name) => name?.startsWith(prefix))) ?? {}
  const number = (item: Record<string, AttributeValue>, name: string): number => Number(item[name]?.N)

  test('shows the attributes that records have, in every state', async () => {
    const tab = await signedIn()
    const [session, grant, login] = await Promise.all(['S#', 'G#', 'C#'].map(ofKind))
    expect(shapeOf(session ?? {}).toSorted()).toEqual(shapeOf(example('Session')).toSorted())
    expect(shapeOf(grant ?? {}).toSorted()).toEqual(shapeOf(example('Grant')).toSorted())
    expect(shapeOf(login ?? {}).toSorted()).toEqual(shapeOf(example('Spent login')).toSorted())
    expect(number(session ?? {}, 'ttl')).toBe(number(session ?? {}, 'absolute_end') + 3_600)
    expect(grant?.['ttl']).toEqual(session?.['ttl'])

    await records.expireTokens()
    const held = gate()
    running.authorizationServer.plan('token', held.fault)
    const call = tab.fetch('/api/orders/whoami')
    await held.reached
    const renewing = await records.all('grant')
    held.release()
    expect((await call).status).toBe(200)
    const leased = renewing.filter((item) => 'lease_until_ms' in item)
    expect(leased.map(shapeOf).map((shape) => shape.toSorted())).toEqual([
      shapeOf(example('Grant that is being renewed')).toSorted(),
    ])
  })

  test('tells how cookies, hashes and sealed values are made', async () => {
    const tab = await signedIn()
    const set = tab.history.flatMap(({ setCookies }) => setCookies)
    const [, account = '', handle = ''] =
      /__Host-Http-session=([\w-]{43})\.([\w-]{43});/.exec(set.findLast((line) => line.includes('session=')) ?? '') ??
      []
    const state = new URL(tab.history.map(({ url }) => url).findLast((url) => url.includes('state=')) ?? '')
    const suffix = hash(`state ${state.searchParams.get('state')}`)
    expect(set.find((line) => line.startsWith('__Host-Http-login.'))).toMatch(
      new RegExp(`^__Host-Http-login\\.[0-9a-z]{6,7}-${suffix.slice(0, 22)}=[\\w-]+; .*Max-Age=600`),
    )
    expect(account).toBe(hash(JSON.stringify(['account', running.authorizationServer.issuer, 'ada'])))

    const item = await ofKind(`S#${hash(`handle ${handle}`)}`)
    expect(item['pk']?.S).toBe(`A#${account}`)
    const keys = parsed(await running.secretValue('SealingKeys'))
    const sealed = Buffer.from(item['sealed']?.B ?? [])
    const salt = 2 + (sealed[1] ?? 0)
    expect([sealed[0], sealed.toString('utf8', 2, salt)]).toEqual([1, keys.current])
    const secret = keys[keys.current]
    const derived = Buffer.from(hkdfSync('sha256', secret, sealed.subarray(salt, salt + 32), 'coatcheck 1 session', 44))
    const decipher = createDecipheriv('aes-256-gcm', derived.subarray(0, 32), derived.subarray(32))
      .setAAD(Buffer.from(JSON.stringify([1, 'session', item['pk']?.S, item['sk']?.S])))
      .setAuthTag(sealed.subarray(-16))
    const text = decipher.update(sealed.subarray(salt + 32, -16), undefined, 'utf8') + decipher.final('utf8')
    expect(parsed(text)).toEqual({ claims: expect.objectContaining({ sub: 'ada' }), user_agent: expect.any(String) })
  })

  test('shows the secrets as they are', async () => {
    const [sealing = '', provider = ''] = codeBlocks(section(storage, 'Secrets'), 'json')
    expect(Object.keys(parsed(await running.secretValue('SealingKeys')))).toEqual(Object.keys(parsed(sealing)))
    expect(parsed(await running.secretValue('SealingKeys')).k1).toMatch(/^[A-Za-z0-9]{64}$/)
    const stored = parsed(await running.secretValue('Provider'))
    expect(Object.keys(stored)).toEqual(Object.keys(parsed(provider)))
    expect(Object.keys(parsed(provider).current)).toEqual(expect.arrayContaining(Object.keys(stored.current)))
  })
})

test("architecture.md's round trips are those that a stack makes", async () => {
  const rows = table(section(textOf('docs/architecture.md'), 'Round trips'))
  const documented = Object.fromEntries(rows.map(([name, calls = '']) => [name ?? '', Number.parseInt(calls, 10)]))
  const tab = running.newBrowser()
  const background = running.stack.function('Background').definition.functionName
  const counted: Record<string, number> = {}
  const count = async (name: string, run: () => Promise<unknown>): Promise<void> => {
    const before = running.stack.awsCalls.length
    await run()
    const calls = running.stack.awsCalls
      .slice(before)
      .filter(({ action, functionName }) => action.startsWith('dynamodb:') && functionName !== background)
    counted[name] = calls.length - (name === 'callback' ? (counted['login'] ?? 0) : 0)
  }
  await count('login', () => tab.raw({ path: '/bff/login', headers: [['Accept', 'text/html']] }))
  await count('callback', () => signIn(tab))
  await count('session', () => tab.fetch('/bff/session'))
  await count('refresh', () => tab.fetch('/bff/refresh', { method: 'POST' }))
  await count('api', () => tab.fetch('/api/orders/whoami'))
  await records.expireTokens()
  await count('api, renewing first', () => tab.fetch('/api/orders/whoami'))
  await count('logout', () => tab.fetch('/bff/logout', { method: 'POST' }))
  expect(counted).toEqual(documented)
})
