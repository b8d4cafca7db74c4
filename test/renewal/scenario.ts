import { reasons } from '../../shared/errors.ts'
import type { Reply } from '../../shared/message.ts'
import { asAccount, asHandle, hashHandle } from '../../shared/seal.ts'
import { keepLogin } from '../../shared/user-agent.ts'
import { createCluster, issuer, resources, sealer, type Outcome, type Variant } from './cluster.ts'
import { peace, type Trouble } from './process.ts'
import { cookieOf, requestOf } from './requests.ts'
import { createServer, type Rotation } from './server.ts'
import { createStore } from './store.ts'
import { createWorld, type World } from './world.ts'

/** Browsers at work on a cluster in a world of trouble, and the invariants of `docs/renewal.md`, watched while they work. */

/** What a browser does, after a pause; `replay`: somebody uses a cookie that this browser had before. */
export interface Step {
  afterMs: number
  browser: number
  what: 'call' | 'burst' | 'keep-alive' | 'logout' | 'login' | 'replay'
  /** Which routes are called: one of them, or all in turn. */
  api?: 'demo' | 'billing' | 'reports' | 'all'
}

export interface Plan {
  seed: number
  rotation: Rotation
  /** Whether the sessions of an account share a grant, and the server keeps one an account. */
  shared: boolean
  accessTokenSeconds: number
  /** Whether routes are called that have tokens of their own. */
  routes?: boolean
  trouble: Partial<Trouble>
  steps: readonly Step[]
}

/** The first two are one user's. */
const owners = ['ada', 'ada', 'grace', 'alan']
const timeoutMs = 5_000
const leaseMs = timeoutMs + 5_000
const burst = 6
/** What a shared grant's replacement may take between server and table before its other sessions notice. */
const replacementMs = 1_000

/** A session as its browser knows it. */
interface Ticket {
  cookie: string
  browser: number
  /** A logout of it, or a login in its browser, has begun; it may end from now on. */
  ending: boolean
  /** A logout of it has been answered. */
  overSinceMs: number | undefined
}

/** What was violated when the plan was carried out to its end, each once; empty is good. `use` hears of the world before it begins. */
export const carryOut = async (plan: Plan, variant: Variant, use: (world: World) => void): Promise<string[]> => {
  const world = createWorld(plan.seed)
  use(world)
  const violations = new Set<string>()
  const violation = (what: string): void => void violations.add(what)
  /** Since when, by the world's time. */
  const savedTokens = new Map<string, number>()
  const store = createStore((item) => {
    for (const sealed of item.sk.startsWith('G#') ? [item['sealed'], item['routes']] : []) {
      if (!(sealed instanceof Uint8Array)) continue
      for (const [token] of Buffer.from(sealed)
        .toString()
        .matchAll(/[ax]t-\d+-\d+/g))
        savedTokens.set(token, savedTokens.get(token) ?? world.now())
    }
    if (typeof item['ttl'] !== 'number') violation(`I10: ${item.sk.slice(0, 2)} without ttl`)
  })
  let trouble: Trouble = peace
  let losses = 0
  const server = createServer({
    world,
    rotation: plan.rotation,
    oneGrantPerUser: plan.shared,
    accessTokenSeconds: plan.accessTokenSeconds,
    timeoutMs,
    // One lease serves for all tokens of a grant: whoever waits may have to wait for each.
    slowness: plan.routes === true ? 0.35 : 0.9,
    leastApartMs: leaseMs * 0.55,
    savedMs: (token) => savedTokens.get(token),
    onUnheard: (account) => {
      if (plan.shared) standOnNothing(account)
    },
    violation,
  })
  const cluster = createCluster({
    world,
    store,
    server,
    trouble: () => trouble,
    shared: plan.shared,
    variant,
    violation,
    onLoss: () => (losses += 1),
  })
  const tickets: Ticket[] = []
  /** The sessions that an account has now may end. */
  const standOnNothing = (account: string): void => {
    for (const ticket of tickets) ticket.ending ||= owners[ticket.browser] === account
  }
  const current: (Ticket | undefined)[] = owners.map(() => undefined)
  /** Accounts of which somebody signs in, and since when. */
  const loginsUnderWay = new Map<string, number>()
  /** Whether a shared grant was replaced at the server, and late or never in the table: its other sessions stand on nothing then. */
  const replacedLate = (owner: string, sinceMs = loginsUnderWay.get(owner) ?? Infinity): boolean =>
    plan.shared && world.now() - sinceMs > replacementMs

  /** The grant that a session stands on, as far as the table still knows, and otherwise the account's latest. */
  const mayEnd = (ticket: Ticket): boolean => {
    const owner = owners[ticket.browser] ?? ''
    if (ticket.ending) return true
    const own = server.grants.filter(({ account }) => account === owner)
    if (plan.shared)
      return replacedLate(owner) || own.every(({ live }) => !live) || own.some(({ ended }) => ended === 'reused')
    return plan.rotation === 'strict' && own.some(({ ended }) => ended === 'reused')
  }

  /** Whether a sign-in ended the tokens of the account a moment ago: a call repeats once, and may meet two that have just ended. */
  const lastLoginMs = new Map<string, number>()
  const replacedLately = ({ browser }: Ticket): boolean =>
    plan.shared && world.now() - (lastLoginMs.get(owners[browser] ?? '') ?? -Infinity) < replacementMs

  const judgeFailure = (ticket: Ticket, outcome: Outcome<Reply>): void => {
    if (outcome.kind !== 'failed') return
    const { reason, retryAfterSeconds, cookies } = outcome.failure
    const { status } = reasons[reason]
    const cleared = cookies.some((line) => line.includes('Max-Age=0'))
    if (status === 401 && !mayEnd(ticket)) violation(`I5: a session ended by itself (${reason})`)
    if (status === 401 && cleared && current[ticket.browser] === ticket) current[ticket.browser] = undefined
    if (status !== 401 && cleared) violation(`I6: ${reason} took the cookie away`)
    if (status === 503 && retryAfterSeconds === undefined) violation(`I6: ${reason} without Retry-After`)
    // The refusal of a token that a sign-in or the server has ended meanwhile.
    if (status === 403 && (mayEnd(ticket) || replacedLately(ticket))) return
    if (status !== 401 && status !== 503) violation(`I6: a call ended with ${status} (${reason})`)
    if (status === 503 && trouble === peace && plan.trouble === peace)
      violation(`a call ended with 503 (${reason}) in peace`)
  }

  const call = async (ticket: Ticket, name: string = 'demo'): Promise<Outcome<Reply>> => {
    const overBefore = ticket.overSinceMs !== undefined
    const request = requestOf(`/api/${name}/x`, {
      cookies: ticket.cookie,
      pathParameters: { api: name, path: 'x' },
    })
    const outcome = await cluster.api(request)
    if (outcome.kind === 'answered') {
      const { status, body = '' } = outcome.value
      const account = Buffer.from(body).toString()
      if (status === 200 && account !== owners[ticket.browser])
        violation('I3: a call was made with another account’s token')
      if (overBefore) violation('I4: a call was made for a session that was over')
      if (status === 401 && !mayEnd(ticket) && !replacedLately(ticket)) {
        violation('I5: a call was made with a token that was refused')
      }
    }
    judgeFailure(ticket, outcome)
    return outcome
  }

  const keepAlive = async (ticket: Ticket): Promise<void> => {
    const overBefore = ticket.overSinceMs !== undefined
    const outcome = await cluster.refresh(requestOf('/bff/refresh', { method: 'POST', cookies: ticket.cookie }))
    if (outcome.kind === 'answered' && overBefore) violation('I4: a session that was over was kept alive')
    judgeFailure(ticket, outcome)
  }

  const logout = async (ticket: Ticket): Promise<void> => {
    ticket.ending = true
    const outcome = await cluster.logout(requestOf('/bff/logout', { method: 'POST', cookies: ticket.cookie }))
    if (outcome.kind !== 'answered') return
    ticket.overSinceMs = world.now()
    if (current[ticket.browser] === ticket) current[ticket.browser] = undefined
  }

  const login = async (browser: number): Promise<void> => {
    const owner = owners[browser] ?? ''
    // Which of two logins at once a server takes for the later one nobody can know.
    if (plan.shared && loginsUnderWay.has(owner)) return
    const old = current[browser]
    if (old !== undefined) old.ending = true
    const [account, handle] = (old?.cookie.split('=')[1] ?? '').split('.')
    const state = `state-${Math.floor(world.random() * 1e9)}`
    const oldHandle = asHandle(handle ?? '')
    const oldAccount = asAccount(account ?? '')
    const lines = await keepLogin(requestOf('/', {}), sealer, state, {
      provider: 'demo',
      issuer,
      client_id: 'client',
      redirect_uri: 'https://app.example',
      code_verifier: 'verifier',
      nonce: undefined,
      resource: resources[0],
      route_resources: resources.slice(1),
      return_to: 'https://app.example/',
      started_ms: world.now() - 600,
      expires: Math.floor(world.now() / 1_000) + 600,
      replaces: oldHandle && oldAccount && { account: oldAccount, session: hashHandle(oldHandle) },
    })
    const code = server.authorize(owner)
    const startedMs = world.now()
    loginsUnderWay.set(owner, startedMs)
    lastLoginMs.set(owner, startedMs)
    const outcome = await cluster.callback(
      requestOf('/bff/callback/demo', {
        headers: { 'sec-fetch-mode': 'navigate' },
        pathParameters: { provider: 'demo' },
        rawQuery: new URLSearchParams({ state, code }).toString(),
        cookies: [old?.cookie, cookieOf(lines, '__Host-Http-login.')].filter(Boolean).join('; '),
      }),
    )
    const cookie = outcome.kind === 'answered' ? cookieOf(outcome.value.cookies, '__Host-Http-session=') : undefined
    loginsUnderWay.delete(owner)
    lastLoginMs.set(owner, world.now())
    if (plan.shared && (cookie === undefined || replacedLate(owner, startedMs))) standOnNothing(owner)
    if (cookie === undefined && plan.trouble === peace) violation('a login failed in peace')
    if (cookie === undefined) return
    const ticket = { cookie, browser, ending: false, overSinceMs: undefined }
    tickets.push(ticket)
    current[browser] = ticket
  }

  const take = (step: Step): Promise<unknown> => {
    const ticket = current[step.browser]
    if (step.what === 'replay') {
      const old = tickets.findLast(({ browser, overSinceMs }) => browser === step.browser && overSinceMs !== undefined)
      return old === undefined ? Promise.resolve() : call(old)
    }
    if (step.what === 'login' || ticket === undefined) return login(step.browser)
    if (step.what === 'logout') return logout(ticket)
    if (step.what === 'keep-alive') return keepAlive(ticket)
    const { api = 'demo' } = plan.routes === true ? step : {}
    const names = api === 'all' ? ['demo', 'billing', 'reports'] : [api]
    const calls = step.what === 'burst' ? burst : 1
    return Promise.all(Array.from({ length: calls }, (_, index) => call(ticket, names[index % names.length])))
  }

  /** Runs to its end, and no further than that. */
  const finish = async (work: Promise<unknown>): Promise<void> => {
    const state = { over: false }
    void work.finally(() => (state.over = true))
    await world.pass(0)
    while (!state.over && (await world.step()));
    if (!state.over) violation('I7: something is stuck')
  }

  for (const browser of owners.keys()) await finish(login(browser))
  trouble = { ...peace, ...plan.trouble }
  const work: Promise<unknown>[] = []
  for (const step of plan.steps) {
    await world.pass(step.afterMs)
    work.push(take(step))
  }
  await finish(Promise.all(work))
  trouble = peace
  await world.pass()
  await world.pass(leaseMs * 2)

  // Whoever is signed in can work, or signs in again and can work then.
  for (const [browser, ticket] of current.entries()) {
    const attempts = async (): Promise<string> => {
      const mine = current[browser]
      if (mine === undefined) return 'signed out'
      const outcome = await call(mine)
      if (outcome.kind === 'answered' && outcome.value.status === 200) return 'works'
      return current[browser] === undefined
        ? 'signed out'
        : `${outcome.kind} ${outcome.kind === 'failed' ? outcome.failure.reason : ''}`
    }
    let state = ''
    await finish(attempts().then((result) => (state = result)))
    if (state !== 'works' && state !== 'signed out')
      violation(`I7: after all is calm a session is neither usable nor over: ${state}`)
    if (ticket === undefined || state === 'signed out') {
      await finish(login(browser))
      await finish(attempts().then((result) => (state = result)))
      if (state !== 'works') violation(`I7: a new login does not help: ${state}`)
    }
  }

  // Once everybody has left, nothing is left.
  for (const ticket of tickets) if (ticket.overSinceMs === undefined) await finish(logout(ticket))
  await world.pass()
  if (losses === 0) {
    const left = store.all().filter(({ pk, sk }) => pk.startsWith('A#') && sk !== 'X')
    if (left.length > 0) violation(`I8: left in the table: ${left.map(({ sk }) => sk.slice(0, 2)).join()}`)
    if (server.grants.some(({ live }) => live)) violation('I8: tokens of an ended grant live on')
    // Where sessions share a grant, a sign-in takes its place without a look at what was exchanged for it.
    if (!plan.shared && server.exchanged().length > 0) violation('I8: exchanged tokens of an ended grant live on')
  }
  return [...violations]
}
