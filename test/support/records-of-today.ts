import { logout } from '../../lambdas/logout.ts'
import { parseStage, type Stage } from '../../shared/config.ts'
import { createGrantRecords, decodeGrant } from '../../shared/grant-record.ts'
import { createGrants } from '../../shared/grants.ts'
import type { Request } from '../../shared/message.ts'
import { newRegistration } from '../../shared/registration-record.ts'
import type { RouteTokens } from '../../shared/route-tokens.ts'
import { asAccount, asHandle, createSealer, hashHandle, parseSealingKeys, newHandle } from '../../shared/seal.ts'
import { createSessions, decodeSession, sessionKey } from '../../shared/sessions.ts'
import type { Item, Table } from '../../shared/table.ts'
import type { Task, Tasks } from '../../shared/tasks.ts'
import { keepLogin } from '../../shared/user-agent.ts'

/** When all records were written, in milliseconds since the epoch. */
export const writtenMs = 1_900_000_000_000

/** Everything that Coatcheck keeps or hands out for later, as today's code writes it, and what it says. */
export interface StoredRecords {
  session: { item: Item; says: unknown }
  grant: { item: Item; says: unknown }
  /** Where a session of the authorization server leads to ours. */
  pointer: { item: Item; says: unknown }
  login: { state: string; cookie: string; says: unknown }
  logout: { state: string; says: unknown }
  tasks: { task: Task; says: unknown }[]
  provider: { secret: string; says: unknown }
}

/** A stage like the one that the records are of. */
export const recordStage = (): Stage => {
  const result = parseStage({ origin: 'https://app.example', providers: { demo: { issuer: 'https://as.example' } } })
  if (!result.ok) throw new Error(result.faults.join('; '))
  return result.stage
}

/** A request with these cookies and nothing else of interest. */
export const requestWith = (cookies: string, more: Partial<Request> = {}): Request => ({
  method: 'GET',
  path: '/',
  pathParameters: {},
  rawQuery: '',
  headers: {},
  cookies,
  body: Buffer.alloc(0),
  id: 'a-request',
  ...more,
})

/** A table of which only these calls are expected. */
export const tableOf = (calls: Partial<Table>): Table => {
  const unexpected = () => Promise.reject(new Error('an unexpected call of the table'))
  const rest = { read: unexpected, create: unexpected, write: unexpected, update: unexpected }
  return { ...rest, remove: unexpected, transact: unexpected, list: unexpected, ...calls }
}

const says = {
  kept: { claims: { sub: 'ada', name: 'Ada Lovelace' }, user_agent: 'Mozilla/5.0 (a browser)' },
  tokens: {
    access_token: 'the-access-token',
    refresh_token: 'the-refresh-token',
    id_token: 'the.id.token',
    scope: 'openid profile',
    expires: writtenMs / 1_000 + 300,
    resources: ['https://api.example', 'https://billing.example'],
  },
}

/** Tokens that routes have of their own, and one that was refused. */
const routes: RouteTokens = {
  'resource https://billing.example': {
    access_token: 'the-token-for-billing',
    expires: writtenMs / 1_000 + 300,
    fresh_until: writtenMs / 1_000 + 240,
    exchanged: false,
  },
  'exchange ["reports",null,null,null]': {
    reason: 'access_refused',
    detail: 'invalid_target',
    until_ms: writtenMs + 5_000,
  },
}

const holder = { provider: 'demo', clientId: 'the-client' }

const given = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error('a record was not written')
  return value
}

/** Today's records, sealed under those keys, which is what a sealing secret holds. */
export const recordsOfToday = async (sealingSecret: string): Promise<StoredRecords> => {
  const stage = recordStage()
  const sealer = createSealer(() => Promise.resolve(parseSealingKeys(sealingSecret)))
  const now = () => writtenMs
  const written: Item[] = []
  const table = tableOf({
    transact: (steps) => {
      written.push(...steps.flatMap((step) => ('put' in step ? [step.put] : [])))
      return Promise.resolve(true)
    },
    update: (_key, { set = {} }) => Promise.resolve({ changed: true, item: { ...item('G#'), ...set } }),
  })
  const item = (prefix: string): Item => given(written.find(({ sk }) => sk.startsWith(prefix)))
  const started: Task[] = []
  const tasks: Tasks = { start: (task) => Promise.resolve(void started.push(task)) }
  const notNow = () => Promise.reject(new Error('not now'))
  const wire = { refresh: notNow, exchange: notNow, revoke: () => Promise.resolve(false) }
  const grants = createGrants({ table, sealer, wire, tasks, settings: stage.renewal, now })
  const sessions = createSessions({ table, sealer, settings: stage.session, sharedGrants: [], now })

  const account = given(asAccount('a'.repeat(43)))
  await sessions.start({
    ...says.kept,
    account,
    handle: newHandle(),
    provider: 'demo',
    sharedGrant: false,
    grant: (key, ttl) => grants.place(key, { ...holder, tokens: says.tokens, ttl }),
    serverSession: { issuer: 'https://as.example', sid: 'the-sid' },
    loginStartedMs: writtenMs,
    endsBy: undefined,
    replaces: undefined,
  })
  const session = given(decodeSession(item('S#')))
  const grant = given(decodeGrant(item('G#')))

  const revocable = { ...says.tokens, exchanged: ['the-exchanged-token'] }
  await grants.giveBack(holder, revocable)
  await grants.access({ ...grant, freshUntil: 0 }).then(({ renewal }) => renewal)
  started.push({ kind: 'release', pk: session.key.pk, sk: session.key.sk }, { kind: 'limit', account })

  const state = 'the-state-of-a-login'
  const handle = given(asHandle('h'.repeat(43)))
  const login = {
    provider: 'demo',
    issuer: 'https://as.example',
    client_id: 'the-client',
    redirect_uri: 'https://app.example/bff/callback/demo',
    code_verifier: 'v'.repeat(128),
    nonce: 'the-nonce',
    resource: 'https://api.example',
    route_resources: ['https://billing.example'],
    return_to: 'https://app.example/there',
    started_ms: writtenMs,
    expires: writtenMs / 1_000 + 600,
    replaces: { account, session: hashHandle(handle) },
  }
  const [cookie = ''] = await keepLogin(requestWith(''), sealer, state, login)

  let logoutState: string | undefined
  const logoutUrl = (_provider: string, sent: string) => Promise.resolve((logoutState = sent))
  const unexpected = () => Promise.reject(new Error('an unexpected call'))
  const authorizationServer = { authorize: unexpected, finish: unexpected, ...wire, logoutUrl }
  const ends = { list: unexpected, end: () => Promise.resolve(session), release: unexpected, endAll: unexpected }
  const endings = { ...ends, buryGrant: unexpected, limit: unexpected, endServerSession: unexpected }
  await logout({
    stage,
    authorizationServer,
    sealer,
    endings: { ...endings, endAccount: unexpected, onceFor: unexpected },
  })(
    requestWith(`__Host-Http-session=${account}.${handle}`, {
      method: 'POST',
      rawQuery: 'return_to=/bye',
      headers: { 'x-csrf': '1' },
    }),
  )

  const client = {
    client_id: 'the-client',
    client_secret: 'the-client-secret',
    client_secret_expires_at: 0,
    token_endpoint_auth_method: 'client_secret_basic' as const,
    id_token_signed_response_alg: 'RS256',
    registration_client_uri: 'https://as.example/register/the-client',
    registration_access_token: 'the-registration-access-token',
    redirect_uri: 'https://app.example/bff/callback/demo',
    scope: 'openid profile',
    requested_scope: 'openid profile email',
  }
  const metadata = {
    issuer: 'https://as.example',
    authorization_endpoint: 'https://as.example/authorize',
    token_endpoint: 'https://as.example/token',
    jwks_uri: 'https://as.example/jwks',
  }
  const registration = newRegistration(metadata, client, [{ ...client, client_id: 'the-client-before' }])
  const records = createGrantRecords({ sealer, settings: stage.renewal, now })
  const plainGrant = { provider: grant.provider, clientId: grant.clientId, expires: grant.expires, ttl: grant.ttl }
  const { key, grantKey, provider, created, seen, idleEnd, absoluteEnd } = session
  return {
    session: {
      item: item('S#'),
      says: { ...(await sessions.open(session)), key, grantKey, provider, created, seen, idleEnd, absoluteEnd },
    },
    grant: {
      item: { ...item('G#'), ...(await records.routes(grant, routes)), besides: 1 },
      says: { ...plainGrant, tokens: await records.open(grant), routes },
    },
    pointer: { item: item('A#'), says: sessionKey(account, hashHandle(handle)).pk },
    login: { state, cookie: given(cookie.split(';')[0]), says: login },
    logout: { state: given(logoutState), says: 'https://app.example/bye' },
    tasks: started.map((task) => ({ task, says: task.kind === 'revoke' ? revocable : task })),
    provider: { secret: JSON.stringify(registration), says: registration },
  }
}
