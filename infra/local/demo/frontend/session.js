import { call, problem } from './bff.js'
import { byId, clock, element, onceAtATime, show } from './dom.js'

const tabs = new BroadcastChannel('coatcheck')
let session
let readAt = 0

const claimNames = { sub: 'Subject', name: 'Name', preferred_username: 'User name', email: 'Email', picture: 'Picture' }

const claimRow = ([name, value]) => {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  const label = claimNames[name]
  const head = label
    ? element('th', { scope: 'row' }, label, element('code', {}, name))
    : element('th', { scope: 'row' }, name)
  return element('tr', {}, head, element('td', {}, text))
}

const serverTime = (now) => {
  const time = new Date(typeof now === 'number' ? now * 1000 : now)
  return Number.isNaN(time.getTime()) ? '' : time.toLocaleTimeString()
}

const secondsLeft = (seconds) => seconds - (performance.now() - readAt) / 1000

const tick = () => {
  if (!session?.authenticated) return
  const { expires_in: end, idle_expires_in: idle, access_token_expires_in: token } = session
  const left = typeof token === 'number' ? secondsLeft(token) : undefined
  byId('session-clock').textContent = clock(secondsLeft(end))
  byId('idle-clock').textContent = clock(secondsLeft(idle ?? end))
  byId('token-clock').textContent = left === undefined ? 'unknown' : left > 0 ? clock(left) : 'at next call'
  if (Math.min(secondsLeft(end), secondsLeft(idle ?? end)) < -1) void readSession()
}

const paint = () => {
  const signedIn = session?.authenticated === true
  const claims = session?.claims ?? {}
  byId('ticket').setAttribute('aria-busy', 'false')
  byId('ticket').classList.toggle('signed-in', signedIn)
  byId('state').textContent = signedIn ? `Signed in through ${session.provider}` : 'Nobody is signed in'
  byId('who').textContent = signedIn
    ? `Signed in as ${claims.name ?? claims.preferred_username ?? claims.sub ?? 'someone'}`
    : 'Signed out'
  document.title = `${byId('who').textContent} · Coatcheck demo`
  show(signedIn, 'clocks', 'clock-note', 'keep-alive', 'sign-out', 'switch', 'claims-card')
  show(!signedIn, 'signed-out-text', 'sign-in')
  if (!signedIn) return
  byId('clock-note').textContent =
    `By the server's clock, which read ${serverTime(session.now)}. Coatcheck renews the access token when a call needs it.`
  byId('claims').replaceChildren(...Object.entries(claims).map(claimRow))
  const readable = document.cookie === '' ? 0 : document.cookie.split(';').length
  byId('script-cookies').textContent = readable === 0 ? 'nothing' : `${readable} cookies, none of them ours`
  tick()
}

const take = (reply) => {
  if (typeof reply?.body?.authenticated !== 'boolean') return false
  session = reply.body
  readAt = performance.now()
  paint()
  return true
}

const tellOtherTabs = () => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a BroadcastChannel knows no target
  tabs.postMessage('changed')
}

const say = (...content) => byId('session-message').replaceChildren(...content.filter(Boolean))

const failure = (reply) =>
  problem(reply) ?? element('p', { class: 'problem' }, `Coatcheck answered with status ${reply.status}.`)

/** Asks Coatcheck who is signed in, and shows it. */
export const readSession = async () => {
  const reply = await call('GET', '/bff/session')
  const known = take(reply)
  say(known ? undefined : failure(reply))
  if (!known && session === undefined) {
    byId('ticket').setAttribute('aria-busy', 'false')
    byId('state').textContent = 'Unknown'
    byId('who').textContent = 'The session could not be read'
  }
}

const keepAlive = async () => {
  const reply = await call('POST', '/bff/refresh')
  if (take(reply)) say(element('p', { class: 'done' }, `Kept alive in ${reply.durationMs} ms.`))
  else {
    await readSession()
    say(failure(reply))
  }
}

const signOut = async () => {
  const reply = await call('POST', '/bff/logout?return_to=/')
  if (!reply?.ok) {
    say(failure(reply))
    return
  }
  tellOtherTabs()
  const target = reply.body?.logout_url
  if (typeof target === 'string') {
    location.assign(target)
    return
  }
  await readSession()
  byId('who').focus()
}

/** Brings the ticket to life: who is signed in, the clocks, keep alive and sign out. */
export const startSession = async () => {
  onceAtATime(byId('keep-alive'), 'click', byId('keep-alive'), keepAlive)
  onceAtATime(byId('sign-out'), 'click', byId('sign-out'), signOut)
  tabs.addEventListener('message', () => void readSession())
  addEventListener('pageshow', ({ persisted }) => persisted && void readSession())
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible' && performance.now() - readAt > 5000) void readSession()
  })
  setInterval(tick, 250)
  await readSession()
  if (session?.authenticated) tellOtherTabs()
}
