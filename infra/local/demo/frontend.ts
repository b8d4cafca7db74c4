import { readdirSync, readFileSync } from 'node:fs'
import type { RequestListener, ServerResponse } from 'node:http'
import { extname } from 'node:path'
import type { Trace } from '../trace.ts'

export interface FrontendOptions {
  trace: Trace
  /** The provider that the page introduces: its name in the stage file, its issuer, and who can sign in there. */
  provider: { name: string; issuer: string; users?: readonly { name: string }[] }
}

const folder = new URL('./frontend/', import.meta.url)

const types: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const heartbeatMs = 20_000

const notFound = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found · Coatcheck demo</title><link rel="stylesheet" href="/style.css"></head>
<body><header><p class="brand"><img src="/favicon.svg" alt="" width="28" height="28">Coatcheck <span>local demo</span></p></header>
<main><h1>There is no such page here</h1><p><a href="/">Go to the demo</a></p></main></body></html>
`

const json = 'application/json; charset=utf-8'

/**
 * Serves the demo frontend: its files, the redacted trace (`/__local/trace`, live at `/__local/trace/events`) and what the
 * page introduces (`/__local/demo`). `/bff` and `/api` are not its business.
 */
export const createFrontend = ({ trace, provider }: FrontendOptions): RequestListener => {
  const files = new Map(
    readdirSync(folder).map((name) => [
      name === 'index.html' ? '/' : `/${name}`,
      { type: types[extname(name)] ?? 'application/octet-stream', content: readFileSync(new URL(name, folder)) },
    ]),
  )

  const headers = {
    'cache-control': 'no-store',
    'content-security-policy': [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self'",
      "connect-src 'self'",
      "base-uri 'none'",
      "frame-ancestors 'none'",
      // Signing out by a form ends in a redirect to the authorization server.
      `form-action 'self' ${new URL(provider.issuer).origin}`,
    ].join('; '),
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'same-origin',
    'x-content-type-options': 'nosniff',
  }

  const send = (response: ServerResponse, status: number, type: string, content: string | Buffer): void => {
    const length = Buffer.byteLength(content)
    response.writeHead(status, { ...headers, 'content-type': type, 'content-length': length }).end(content)
  }

  const stream = (response: ServerResponse): void => {
    const write = (event: string, data: unknown) => response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
    response.writeHead(200, { ...headers, 'content-type': 'text/event-stream' })
    response.write('retry: 1000\n\n')
    write('entries', trace.list())
    const leave = trace.subscribe((entry) => write('entry', entry))
    const heartbeat = setInterval(() => response.write(': still here\n\n'), heartbeatMs)
    response.once('close', () => {
      clearInterval(heartbeat)
      leave()
    })
  }

  return (request, response) => {
    const path = (request.url ?? '/').replace(/[?#].*$/s, '')
    const file = files.get(path)
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      send(response, 405, 'text/plain; charset=utf-8', 'This address is only for reading.\n')
    } else if (file) send(response, 200, file.type, file.content)
    else if (path === '/__local/trace/events' && request.method === 'GET') stream(response)
    else if (path === '/__local/trace') send(response, 200, json, JSON.stringify({ entries: trace.list() }, null, 2))
    else if (path === '/__local/demo') {
      const users = (provider.users ?? []).map(({ name }) => name)
      send(response, 200, json, JSON.stringify({ provider: provider.name, issuer: provider.issuer, users }))
    } else send(response, 404, 'text/html; charset=utf-8', notFound)
  }
}
