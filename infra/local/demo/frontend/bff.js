import { element } from './dom.js'

/** Calls Coatcheck as a script has to: with the request proof, and without following redirects. */
export const call = async (method, path, json) => {
  const started = performance.now()
  const headers = { 'X-CSRF': '1', ...(json !== undefined && { 'Content-Type': 'application/json' }) }
  try {
    const request = { method, headers, body: json, redirect: 'manual' }
    const response = await fetch(path, request)
    const text = await response.text()
    return {
      status: response.status,
      redirected: response.type === 'opaqueredirect',
      ok: response.ok,
      headers: response.headers,
      text,
      body: parsed(text),
      durationMs: Math.round(performance.now() - started),
    }
  } catch {
    return undefined
  }
}

const parsed = (text) => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const isProblem = (reply) => /problem\+json/.test(reply.headers.get('content-type') ?? '')

/** What went wrong, for people: a problem of Coatcheck's own (RFC 9457), or no answer at all. */
export const problem = (reply) => {
  if (reply === undefined) {
    return element('p', { class: 'problem' }, element('b', {}, 'No answer. '), 'Is the local run still going?')
  }
  if (!isProblem(reply)) return undefined
  const { title, detail, code, request_id: requestId } = reply.body ?? {}
  const wait = reply.headers.get('retry-after')
  return element(
    'div',
    { class: 'problem' },
    element(
      'p',
      {},
      element('b', {}, title ?? `Status ${reply.status}`),
      detail && detail !== title ? ` ${detail}` : '',
    ),
    element(
      'p',
      { class: 'note' },
      [code && `Code ${code}`, wait && `try again in ${wait} s`, requestId && `request ${requestId}`]
        .filter(Boolean)
        .join(' · '),
    ),
  )
}
