import { api } from '../../lambdas/api.ts'
import { background } from '../../lambdas/background.ts'
import { callback } from '../../lambdas/callback.ts'
import { logout } from '../../lambdas/logout.ts'
import { refresh } from '../../lambdas/refresh.ts'
import { createAuthorizationServer } from '../../shared/authorization-server.ts'
import { parseStage, type Stage } from '../../shared/config.ts'
import type { Credentials } from '../../shared/credentials.ts'
import { createEndings } from '../../shared/endings.ts'
import { Failure } from '../../shared/errors.ts'
import { createGrants } from '../../shared/grants.ts'
import type { Send } from '../../shared/http.ts'
import type { GrantWire } from '../../shared/renewal.ts'
import type { Request } from '../../shared/message.ts'
import { newRegistration } from '../../shared/registration-record.ts'
import type { Sealer } from '../../shared/seal.ts'
import { createSessions } from '../../shared/sessions.ts'
import type { Table } from '../../shared/table.ts'
import type { Task, Tasks } from '../../shared/tasks.ts'
import { createProcess, createTableClient, type Process, type Trouble } from './process.ts'
import type { Server } from './server.ts'
import type { Store } from './store.ts'
import type { World } from './world.ts'

/** The flows as they are, in as many processes as are called for, on doubles of all that is outside. */

/** What a broken variant of the protocol replaces. */
export interface Variant {
  table?: (table: Table) => Table
  wire?: (wire: GrantWire) => Pick<GrantWire, 'refresh'>
}

export const issuer = 'https://as.example'
/** What access tokens are for: the grant's own first, then that of a route. */
export const resources = ['https://rs.example', 'https://billing.example'] as const
/** What tokens are exchanged for. */
const audience = 'https://reports.example'

/** How an invocation ended: an answer of the flow, a failure that `edge` would answer, or a process that stopped. */
export type Outcome<T> = { kind: 'answered'; value: T } | { kind: 'failed'; failure: Failure } | { kind: 'crashed' }

const baseStage = (shared: boolean): Stage => {
  const parsed = parseStage({
    origin: 'https://app.example',
    providers: {
      demo: { issuer, claims: ['sub'], grants: shared ? 'per-user' : 'per-session', resource: resources[0] },
    },
    apis: {
      demo: { provider: 'demo', target: resources[0] },
      billing: { provider: 'demo', target: resources[1], resource: resources[1] },
      reports: { provider: 'demo', target: audience, exchange: { audience } },
    },
  })
  if (!parsed.ok) throw new Error(parsed.faults.join())
  return parsed.stage
}

/** Seals nothing, but opens only what was sealed for the same purpose and context. */
export const sealer: Sealer = {
  prepare: () => undefined,
  seal: async (purpose, context, text) => Buffer.from(JSON.stringify([purpose, context, text])),
  open: async (purpose, context, sealed) => {
    const [sealedFor, sealedIn, text]: [string, string[], string] = JSON.parse(Buffer.from(sealed).toString())
    return sealedFor === purpose && JSON.stringify(sealedIn) === JSON.stringify(context) ? text : undefined
  },
}

const registration = newRegistration(
  {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    revocation_endpoint: `${issuer}/revoke`,
  },
  { client_id: 'client', token_endpoint_auth_method: 'none', redirect_uri: 'https://app.example', scope: 'openid' },
)

const createCredentials = (world: World, process: Process): Credentials => {
  const read = (): ReturnType<Credentials['of']> => {
    if (!world.chance(process.trouble.secrets)) return Promise.resolve(registration)
    const fails = world.chance(0.5)
    return process.exchange(1, world.between(1, 9_000), () => {
      if (fails) throw new Failure('secrets_unavailable', { retryAfterSeconds: 1 })
      return registration
    })
  }
  return { of: read, again: read }
}

/** The resource servers: they answer with whose token it was, or 401. */
const createSend =
  (world: World, process: Process, server: Server, violation: (what: string) => void): Send =>
  ({ headers, url }) =>
    process.exchange(world.between(1, 50), world.between(1, 50), () => {
      const token = (headers['authorization'] ?? '').replace('Bearer ', '')
      if (server.audienceOf(token) !== url.origin) violation('I11: a call was made with a token of another audience')
      const account = server.accountOf(token)
      return { status: account === undefined ? 401 : 200, headers: [], body: Buffer.from(account ?? '') }
    })

/** Processes of all functions over one table and one authorization server. */
export const createCluster = (options: {
  world: World
  store: Store
  server: Server
  trouble: () => Trouble
  shared: boolean
  variant: Variant
  violation: (what: string) => void
  /** Hears of every process that stopped, every task that got lost and every sign-in that the table may write after it was given up. */
  onLoss: () => void
}) => {
  const { world, store, server, shared, variant, violation, onLoss } = options
  const stage = baseStage(shared)

  const build = (process: Process, inBackground: boolean) => {
    const plain = createTableClient(world, process, store, onLoss)
    const table = variant.table?.(plain) ?? plain
    const now = () => process.now()
    const authorizationServer = createAuthorizationServer({
      stage,
      credentials: createCredentials(world, process),
      oauth: server.client(process, onLoss),
      readAccount: () => Promise.reject(new Failure('internal')),
      now,
      pause: () => Promise.reject(new Failure('internal')),
    })
    const wire = { ...authorizationServer, ...variant.wire?.(authorizationServer) }
    const tasks: Tasks = {
      start: (task) => (inBackground ? Promise.reject(new Failure('server_failed')) : startTask(process, task)),
    }
    const grants = createGrants({ table, sealer, wire, tasks, settings: stage.renewal, now })
    const sharedGrants = shared ? ['demo'] : []
    const sessions = createSessions({ table, sealer, settings: stage.session, sharedGrants, now })
    const endings = createEndings({ table, grants, tasks, now })
    return {
      stage,
      authorizationServer,
      sealer,
      tasks,
      grants,
      sessions,
      endings,
      send: createSend(world, process, server, violation),
    }
  }

  const invoke = async <T>(
    limitMs: number,
    run: (deps: ReturnType<typeof build>) => Promise<T>,
    inBackground = false,
  ): Promise<Outcome<T>> => {
    const process = createProcess(world, options.trouble(), world.between(-500, 500))
    let over = false
    world.after(limitMs, () => over || process.crash())
    const answer = run(build(process, inBackground)).then(
      (value): Outcome<T> => ({ kind: 'answered', value }),
      (error: unknown): Outcome<T> => {
        if (error instanceof Failure) return { kind: 'failed', failure: error }
        violation(`an error that is no failure: ${error instanceof Error ? error.stack : String(error)}`)
        return { kind: 'crashed' }
      },
    )
    const outcome = await Promise.race([answer, process.crashed.then((): Outcome<T> => ({ kind: 'crashed' }))])
    over = true
    if (outcome.kind === 'crashed') onLoss()
    else {
      process.answered()
      world.after(60_000, () => {
        if (process.leftBehind() > 0) violation('I9: an answer left work behind')
      })
    }
    return outcome
  }

  /** As Lambda does it: queued, sometimes delivered twice, repeated twice where it fails. */
  const deliver = async (task: Task, attempt = 1): Promise<void> => {
    const { kind } = await invoke(30_000, (deps) => background(deps)(task), true)
    if (kind === 'answered') return
    if (attempt === 3) return onLoss()
    await world.delay(attempt * 60_000)
    await deliver(task, attempt + 1)
  }

  const startTask = async (process: Process, task: Task): Promise<void> => {
    const copy: Task = structuredClone(task)
    const queue = (): void => {
      const times = world.chance(process.trouble.duplicate) ? 2 : 1
      for (let time = 0; time < times; time += 1)
        world.after(world.between(5, 800) * time ** 3 + 10, () => void deliver(copy))
    }
    const how = world.chance(process.trouble.lambda) ? world.random() : 1
    await process.exchange(5, 5, () => {
      if (how > 0.5) queue()
    })
    if (how === 1) return
    onLoss()
    throw new Failure('background_unavailable')
  }

  return {
    stage,
    api: (request: Request) => invoke(29_000, (deps) => api(deps)(request)),
    refresh: (request: Request) => invoke(25_000, (deps) => refresh(deps)(request)),
    logout: (request: Request) => invoke(25_000, (deps) => logout(deps)(request)),
    callback: (request: Request) => invoke(25_000, (deps) => callback(deps)(request)),
  }
}
