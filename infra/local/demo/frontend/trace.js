import { byId, element } from './dom.js'

const shown = new Map()
const list = byId('messages')
let announcing

const names = { browser: 'Browser', coatcheck: 'Coatcheck' }
const nameOf = (party) => names[party] ?? party.replace(/^./, (letter) => letter.toUpperCase())

const values = (title, record) => {
  const rows = Object.entries(record)
  if (rows.length === 0) return undefined
  const pairs = rows.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value)))
  return element('div', {}, element('h3', {}, title), element('dl', {}, ...pairs))
}

const outcome = ({ status, duration_ms: duration, response }) => {
  const code = status === null ? (response.failure ?? '') : String(status)
  const kind = status === null || status >= 400 ? 'bad' : status >= 300 ? 'moved' : 'good'
  return element(
    'span',
    { class: 'outcome' },
    code === '' ? '' : element('b', { class: kind }, code),
    duration === null ? '' : ` ${duration} ms`,
  )
}

const details = (entry) => [
  element('p', { class: 'line' }, element('code', {}, `${entry.method} ${entry.url}`)),
  entry.reference === '' ? undefined : element('p', { class: 'note' }, entry.reference),
  values('Request', entry.request),
  values('Response', entry.response),
]

const item = (entry) => {
  const { from, to, step, title } = entry
  const head = element(
    'summary',
    {},
    element('span', { class: 'parties' }, `${nameOf(from)} to ${from === to ? 'itself' : nameOf(to)}`),
    element('span', { class: 'title' }, title),
    outcome(entry),
    element('span', { class: 'arrow', 'aria-hidden': 'true' }, element('i', {}, entry.method)),
  )
  const more = entry.method === '' ? [] : [element('div', { class: 'details' }, ...details(entry).filter(Boolean))]
  return element(
    'li',
    { 'data-from': from.replace(' ', '-'), 'data-to': to.replace(' ', '-'), 'data-step': step },
    element('details', {}, head, ...more),
  )
}

const isCheckUp = ({ step, method }) => step === 'session' && method === 'GET'

const count = () => {
  clearTimeout(announcing)
  const calm = list.classList.contains('calm')
  const visible = [...shown.values()].filter(({ entry }) => !(calm && isCheckUp(entry))).length
  byId('trace-count').textContent = visible === 1 ? '1 message' : `${visible} messages`
}

/** Counts once it is quiet, so that a screen reader hears one number and not ten. */
const announce = () => {
  clearTimeout(announcing)
  announcing = setTimeout(count, 600)
}

const isAtEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 80

const later = (a, b) => a.at > b.at || (a.at === b.at && a.id > b.id)

/** Puts an entry where it belongs by the time at which it began, which is not the order in which entries arrive. */
const add = (entry, fresh) => {
  if (shown.has(entry.id)) return
  const follow = isAtEnd()
  const made = item(entry)
  made.classList.toggle('fresh', fresh)
  made.classList.toggle('check-up', isCheckUp(entry))
  const next = [...shown.values()]
    .filter((other) => later(other.entry, entry))
    .toSorted((a, b) => (later(a.entry, b.entry) ? 1 : -1))[0]
  list.insertBefore(made, next?.made ?? null)
  shown.set(entry.id, { entry, made })
  if (follow) list.scrollTop = list.scrollHeight
  announce()
}

const replaceAll = (entries) => {
  shown.clear()
  list.replaceChildren()
  for (const entry of entries) add(entry, false)
  count()
}

/** Shows the trace of the local run, live. */
export const startTrace = () => {
  const events = new EventSource('/__local/trace/events')
  events.addEventListener('entries', ({ data }) => replaceAll(JSON.parse(data)))
  events.addEventListener('entry', ({ data }) => add(JSON.parse(data), true))
  const checks = byId('session-checks')
  const filter = () => {
    list.classList.toggle('calm', !checks.checked)
    announce()
  }
  checks.addEventListener('change', filter)
  filter()
}
