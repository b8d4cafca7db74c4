import { afterAll, beforeAll, expect, test } from 'vitest'
import { createFrontend } from '../../infra/local/demo/frontend.ts'
import { listen, type Listening } from '../../infra/local/edge.ts'
import { createTrace } from '../../infra/local/trace.ts'
import { exchange } from '../support/http.ts'

const issuer = 'http://127.0.0.1:9'
const trace = createTrace()
const frontend = createFrontend({ trace, provider: { name: 'demo', issuer, users: [{ name: 'Ada Lovelace' }] } })
let server: Listening
let origin: string

beforeAll(async () => {
  server = await listen(frontend, 0, '127.0.0.1')
  origin = `http://127.0.0.1:${server.port}`
})

afterAll(() => server.close())

const get = (path: string, method = 'GET') => exchange({ origin, method, path, headers: [] })

test('the page and everything that it names are there, under a policy without inline code', async () => {
  const page = await get('/')
  expect(page.status).toBe(200)
  expect(page.headers).toMatchObject({
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'content-security-policy': expect.stringContaining(`form-action 'self' ${issuer}`),
  })
  expect(page.headers['content-security-policy']).not.toContain('unsafe')
  expect(page.text).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=/)
  const named = [...page.text.matchAll(/(?:src|href)="(\/[^"]*\.\w+)"/g)].map(([, path = '']) => path)
  const scripts = await Promise.all(['/demo.js', '/session.js', '/calls.js', '/trace.js'].map((path) => get(path)))
  const imported = scripts.flatMap(({ text }) => [...text.matchAll(/from '\.(\/[^']+)'/g)].map(([, path = '']) => path))
  const replies = await Promise.all([...named, ...imported].map((path) => get(path)))
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
  expect(named).toContain('/style.css')
  expect(imported).toContain('/dom.js')
})

test('what is not there is a page that says so, and nothing outside its folder is there', async () => {
  for (const path of ['/nothing', '/index.html', '/../frontend.ts', '/..%2ffrontend.ts', '//etc/passwd']) {
    expect(await get(path)).toMatchObject({ status: 404, headers: { 'content-type': 'text/html; charset=utf-8' } })
  }
  expect(await get('/', 'POST')).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } })
})

test('it tells who can sign in where', async () => {
  expect((await get('/__local/demo')).json()).toEqual({ provider: 'demo', issuer, users: ['Ada Lovelace'] })
})

test('the trace is served as it is, and live', async () => {
  trace.note('registration', 'The client is registered')
  expect((await get('/__local/trace')).json()).toEqual({ entries: trace.list() })

  const events = await fetch(`${origin}/__local/trace/events`)
  const reader = events.body?.pipeThrough(new TextDecoderStream()).getReader()
  const readUntil = async (wanted: string): Promise<string> => {
    let text = ''
    while (!text.includes(wanted)) text += (await reader?.read())?.value ?? ''
    return text
  }
  expect(await readUntil('The client is registered')).toContain('event: entries\n')
  trace.note('other', 'Something new')
  expect(await readUntil('Something new')).toContain('event: entry\n')
  await reader?.cancel()
})
