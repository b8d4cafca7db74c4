import type { Reply } from '../shared/message.ts'

/**
 * The few pages that people see: plain HTML that works without script, in light and dark, with one style sheet named by its hash in the
 * content security policy. Text goes in escaped; nothing of a request is ever shown but its id.
 */

const STYLE = `:root{color-scheme:light dark;--ink:#1d2129;--paper:#f6f5f2;--card:#fff;--line:#d9d5cc;--soft:#555b66;--accent:#7a1f3d;--on-accent:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#eceae5;--paper:#16181d;--card:#1f2229;--line:#3a3f4a;--soft:#aab0bc;--accent:#f0a6bd;--on-accent:#2a0a16}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif}
main{width:100%;max-width:32rem;padding:clamp(1.25rem,6vw,2.25rem);background:var(--card);border:1px solid var(--line);border-top:4px solid var(--accent);border-radius:.5rem}
h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25}
p{margin:0 0 1.25rem}
.actions{display:flex;flex-wrap:wrap;gap:.75rem 1.25rem;align-items:center;margin:1.5rem 0}
a,button{color:var(--accent);font:inherit}
.primary{display:inline-block;padding:.6rem 1.25rem;border:1px solid transparent;text-align:center;border-radius:.375rem;background:var(--accent);color:var(--on-accent);font-weight:600;text-decoration:none;cursor:pointer}
a:focus-visible,button:focus-visible,input:focus-visible{outline:3px solid var(--accent);outline-offset:3px}
dl{margin:1.5rem 0 0;padding-top:1rem;border-top:1px solid var(--line);display:grid;grid-template-columns:auto 1fr;gap:.15rem 1rem;color:var(--soft);font-size:.875rem}
dt,dd{margin:0}dd{overflow-wrap:anywhere;font-family:ui-monospace,monospace}
form{margin:0}
label{display:block;margin:0 0 .35rem;font-weight:600}
input{display:block;width:100%;padding:.6rem .75rem;border:1px solid var(--soft);border-radius:.375rem;background:var(--paper);color:var(--ink);font:1rem/1.4 ui-monospace,monospace}
.hint{margin:.35rem 0 1.25rem;color:var(--soft);font-size:.875rem}
.problem{padding:.6rem .9rem;border:1px solid var(--accent);border-left-width:4px;border-radius:.375rem}
main>:last-child{margin-bottom:0}
`
/** SHA-256 of STYLE; a test compares. */
export const STYLE_HASH = 'sha256-IU5iuGQ36SHtEmntp+AHpFgz9MXEVtOga/byOeVPTeM='

/** The style sheet, for the test that compares it with its hash. */
export const styleSheet = (): string => STYLE

const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

interface Page {
  status: number
  title: string
  text: string
  /** Between text and actions, already escaped. */
  content?: string
  /** Already escaped. */
  actions: string
  facts?: Record<string, string>
  /** Origins besides ours that a form on the page may lead to. */
  formTargets?: readonly string[]
  cookies?: string[]
}

const page = ({
  status,
  title,
  text,
  content = '',
  actions,
  facts = {},
  formTargets = [],
  cookies = [],
}: Page): Reply => {
  const rows = Object.entries(facts).map(([term, value]) => `<dt>${escape(term)}</dt><dd>${escape(value)}</dd>`)
  return {
    status,
    cookies,
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': [
        "default-src 'none'",
        `style-src '${STYLE_HASH}'`,
        `form-action ${["'self'", ...formTargets].join(' ')}`,
        "base-uri 'none'",
        "frame-ancestors 'none'",
      ].join('; '),
    },
    body: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
<p>${escape(text)}</p>
${content}
<div class="actions">${actions}</div>
${rows.length === 0 ? '' : `<dl>${rows.join('')}</dl>`}
</main>
</body>
</html>
`,
  }
}

const link = (href: string, text: string, primary = false): string =>
  `<a href="${escape(href)}"${primary ? ' class="primary"' : ''}>${escape(text)}</a>`

const TITLES: Record<number, string> = {
  401: 'Please sign in',
  404: 'There is nothing here',
  500: 'Something went wrong',
  502: 'The sign-in service had a problem',
  503: 'That is not available right now',
  504: 'That took too long',
}

const titleOf = (status: number, code: string): string => {
  if (code.startsWith('login')) return 'Sign-in did not finish'
  if (status === 502 && code.startsWith('resource_server')) return 'The API had a problem'
  return TITLES[status] ?? 'That did not go through'
}

/** What a sign-in remedies, with the words of its link. */
const SIGN_IN: Record<string, string> = { session_required: 'Sign in', access_not_granted: 'Sign in again' }

/** The way on from a failure: the login that it was part of, or one that remedies it. */
const remedy = (code: string, tryAgain: string | undefined): { href: string; text: string } | undefined => {
  const text = SIGN_IN[code]
  if (text !== undefined) return { href: tryAgain ?? '/bff/login', text }
  return tryAgain === undefined ? undefined : { href: tryAgain, text: 'Sign in again' }
}

/** The page of a request that failed: what happened, how to go on, and the id to tell an operator. */
export const errorPage = (error: {
  status: number
  code: string
  sentence: string
  requestId: string
  tryAgain: string | undefined
}): Reply => {
  const way = remedy(error.code, error.tryAgain)
  return page({
    status: error.status,
    title: titleOf(error.status, error.code),
    text: error.sentence,
    actions: `${way === undefined ? '' : link(way.href, way.text, true)}${link('/', 'Go to the front page', way === undefined)}`,
    facts: { Code: error.code, Request: error.requestId },
  })
}

/** The page that asks before signing out, since a link alone must not do it. `action` is a path of ours. */
export const signOutPage = (action: string, formTargets: readonly string[]): Reply =>
  page({
    status: 200,
    title: 'Sign out?',
    text: 'You will be signed out in this browser.',
    actions: `<form method="post" action="${escape(action)}"><button class="primary">Sign out</button></form>${link('/', 'Stay signed in')}`,
    formTargets,
  })

/** Where an API token is asked for: which login of which provider it is for, and what was wrong with the one before. */
export interface TokenQuestion {
  provider: string
  /** The host whose token it is to be. */
  host: string
  /** Of the login, which the form brings back. */
  state: string
  /** Where one may sign in without a token, a path of ours; undefined where there is no other way. */
  otherWay: string | undefined
  /** Origins that the form may lead to in the end. */
  formTargets: readonly string[]
  problem?: { status: number; sentence: string }
}

/** The page to paste an API token into. The token itself is never on it. */
export const apiTokenPage = ({ provider, host, state, otherWay, formTargets, problem }: TokenQuestion): Reply =>
  page({
    status: problem?.status ?? 200,
    title: 'Sign in with an API token',
    text:
      otherWay === undefined
        ? `There is no other way to sign in here: ${host} offers none that can be used. Create an API token there and paste it below.`
        : `Create an API token at ${host} and paste it below.`,
    content: `${problem === undefined ? '' : `<p class="problem" role="alert" id="problem">${escape(problem.sentence)}</p>`}
<form method="post" action="/bff/api-token/${escape(provider)}">
<input type="hidden" name="state" value="${escape(state)}">
<label for="token">API token</label>
<input id="token" name="token" type="password" required maxlength="4096" autocomplete="off" autocapitalize="none" spellcheck="false"${
      problem === undefined ? ' aria-describedby="hint"' : ' aria-invalid="true" aria-describedby="problem hint"'
    }>
<p class="hint" id="hint">It is kept encrypted until you sign out, never shown again, and used for your requests only.</p>
<button class="primary">Sign in</button>
</form>`,
    actions: `${otherWay === undefined ? '' : link(otherWay, 'Sign in without a token')}${link('/', 'Go to the front page')}`,
    formTargets,
  })

/** The page after signing out. */
export const signedOutPage = (): Reply =>
  page({
    status: 200,
    title: 'You are signed out',
    text: 'This browser no longer has a session here.',
    actions: `${link('/bff/login', 'Sign in again', true)}${link('/', 'Go to the front page')}`,
  })
