import { afterAll, beforeAll, expect, test } from 'vitest'
import * as faults from './faults.ts'
import { exchange } from './http.ts'
import { json, startRecordingServer, type Fault } from './server.ts'

let done = 0

const start = () =>
  startRecordingServer(
    (_, path) => (path === '/back' ? 'back' : 'call'),
    ({ endpoint }) => {
      done += 1
      if (endpoint === 'back') return { status: 302, headers: { Location: 'http://localhost/callback?code=1&state=2' } }
      return json(200, { answer: 'as it should be', number: 1 })
    },
  )

let server: Awaited<ReturnType<typeof start>>

beforeAll(async () => {
  server = await start()
})

afterAll(() => server.close())

const call = (path = '/', signal?: AbortSignal) =>
  exchange({ origin: server.url, method: 'GET', path, headers: [], signal })

const met = async (fault: Fault, path = '/') => {
  const before = done
  server.plan(path === '/back' ? 'back' : 'call', fault)
  const reply = await call(path).catch((error: unknown) => ({ error: String(error) }))
  return { reply, wasDone: done > before }
}

test.each([
  ['a refusal', faults.refused('slow_down', 429), { status: 429 }, false],
  ['a web page', faults.webPage(502), { status: 502, headers: { 'content-type': 'text/html' } }, false],
  ['nothing', faults.nothing, { status: 200, text: '' }, false],
  ['a redirect', faults.moved('/elsewhere'), { status: 307, headers: { location: '/elsewhere' } }, false],
  ['a broken connection', faults.reset, { error: expect.stringContaining('socket hang up') }, false],
  ['a lost answer', faults.lost, { error: expect.stringContaining('socket hang up') }, true],
  ['half an answer', faults.truncated, { error: expect.stringContaining('aborted') }, true],
  ['an answer by bytes', faults.dripping(1), { text: '{"answer":"as it should be","number":1}' }, true],
  ['a late answer', faults.delayed(10), { status: 200 }, true],
  [
    'changed members',
    faults.changed({ number: undefined, more: 2 }),
    { text: '{"answer":"as it should be","more":2}' },
    true,
  ],
  [
    'another text',
    faults.rewritten((text) => text.replace('1', '1e309')),
    { text: expect.stringContaining('1e309') },
    true,
  ],
])('%s', async (_, fault, expected, wasDone) => {
  expect(await met(fault)).toMatchObject({ reply: expected, wasDone })
})

test('parameters of a redirect are changed on the way', async () => {
  const { reply } = await met(faults.sentBackWith('access_denied', 'no'), '/back')
  const location = 'http://localhost/callback?state=2&error=access_denied&error_description=no'
  expect(reply).toMatchObject({ headers: { location } })
})

test('no answer at all, until the caller gives up', async () => {
  server.plan('call', faults.hung)
  const seen = server.count('call')
  const given = new AbortController()
  const reply = call('/', given.signal)
  await server.reached('call', seen + 1)
  given.abort()
  await expect(reply).rejects.toThrow('aborted')
})

test('a gate holds a request until it opens, and tells when one is there', async () => {
  const gate = faults.gate({ after: true })
  server.always('call', gate.fault)
  const before = done
  const reply = call()
  await gate.reached
  expect(done).toBe(before + 1)
  gate.release()
  expect((await reply).status).toBe(200)
  server.always('call', undefined)
})
