import { createHash } from 'node:crypto'
import type { ServerResponse } from 'node:http'

/** Text that is markup already; everything else is escaped by `html`. */
export interface Markup {
  readonly markup: string
}

type Content = Markup | string | readonly Content[]

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

const render = (content: Content): string => {
  if (typeof content === 'string') return content.replace(/[&<>"']/g, (character) => escapes[character] ?? '')
  return 'markup' in content ? content.markup : content.map(render).join('')
}

/** Builds markup in which every interpolated string is escaped for elements and quoted attributes. */
export const html = (literals: TemplateStringsArray, ...values: Content[]): Markup => ({
  markup: String.raw({ raw: literals }, ...values.map(render)),
})

const style = `
:root { color-scheme: light dark; --ground: #eef1ee; --card: #fff; --ink: #17201b; --soft: #56625b; --line: #d5dcd7; --edge: #7b8a81;
  --accent: #1d6b4a; --accent-ink: #fff; --focus: #1d6b4a }
@media (prefers-color-scheme: dark) { :root { --ground: #101512; --card: #1a211d; --ink: #e9efeb; --soft: #a3b0a8;
  --line: #344039; --edge: #77877d; --accent: #74d3a5; --accent-ink: #0c1f16; --focus: #74d3a5 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
main { width: 100%; max-width: 27rem; background: var(--card); border: 1px solid var(--line); border-radius: 1rem;
  padding: 2rem; box-shadow: 0 1px 2px #0001, 0 12px 32px #0001 }
.site { margin: 0 0 1.5rem; padding-bottom: 1rem; border-bottom: 1px solid var(--line); font-size: .875rem;
  color: var(--soft) }
.site strong { display: block; color: var(--ink) }
h1 { margin: 0 0 .5rem; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em }
p { margin: 0 0 1.25rem; color: var(--soft); overflow-wrap: anywhere }
ul { margin: 0 0 1.5rem; padding: 0; list-style: none; border: 1px solid var(--line); border-radius: .75rem }
li { padding: .625rem .875rem; display: flex; justify-content: space-between; flex-wrap: wrap;
  gap: 0 1rem }
li + li { border-top: 1px solid var(--line) }
code { font: .8125rem/1.6 ui-monospace, monospace; color: var(--soft); overflow-wrap: anywhere }
form { display: grid; gap: .625rem; margin: 0 }
button { font: inherit; font-weight: 600; min-height: 3rem; padding: .625rem 1rem; border-radius: .75rem; cursor: pointer;
  border: 1px solid var(--edge); background: transparent; color: var(--ink); text-align: start }
button:hover { border-color: var(--accent) }
button small { display: block; font-weight: 400; font-size: .875rem; color: var(--soft) }
button.hinted { border: 2px solid var(--accent) }
button.main { background: var(--accent); border-color: var(--accent); color: var(--accent-ink); text-align: center }
button.plain { text-align: center; font-weight: 500 }
main > :last-child { margin-bottom: 0 }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px }
`

// One piece, for no formatter to put a blank where the hash has none.
const styleElement: Markup = { markup: `<style>${style}</style>` }
const styleHash = createHash('sha256').update(style).digest('base64')

/**
 * The headers of every page of the demo authorization server. There is no form-action: browsers apply it to the whole
 * chain of redirects after a form post, and that chain ends at the client.
 */
export const pageHeaders: Readonly<Record<string, string>> = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; frame-ancestors 'none'`,
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/** A whole page of the demo authorization server: plain HTML that needs no script. */
export const page = (issuer: string, title: string, content: Markup): string =>
  html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} · Demo authorization server</title>
        ${styleElement}
      </head>
      <body>
        <main>
          <p class="site"><strong>Demo authorization server</strong>${issuer}</p>
          <h1>${title}</h1>
          ${content}
        </main>
      </body>
    </html> `.markup

/** Answers with a page and its headers; where an answer has begun already, it is cut off. */
export const sendPage = (response: ServerResponse, status: number, text: string): void => {
  if (response.headersSent) response.destroy()
  else response.writeHead(status, pageHeaders).end(text)
}
