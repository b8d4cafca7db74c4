/**
 * The process of one measured function: it imports the bundle when told, answers events when told, and says what that cost. Nothing
 * else runs here, so the process's CPU time (user and system, all threads) is the function's.
 *
 * It imports nothing and runs with its types stripped beforehand, so that it costs and loads as little as it can.
 */

/** What the process is asked to do. `calls` is how often the event is answered, one after another. */
export type Order = { do: 'import'; file: string } | { do: 'answer'; event: string; calls: number }

/** What it cost, with all that the process has loaded; `statuses` are the answers' status codes. */
export interface Cost {
  cpuMs: number
  wallMs: number
  undici: boolean
  statuses: number[]
}

/** A report of the process: a cost, or what was thrown. */
export type Report = Cost | { error: string }

type Handler = (event: unknown, context: object) => Promise<{ statusCode: number }>

let handler: Handler | undefined

const measure = async (run: () => Promise<number[]>): Promise<Cost> => {
  const startMs = performance.now()
  const cpu = process.cpuUsage()
  const statuses = await run()
  const { user, system } = process.cpuUsage(cpu)
  const wallMs = performance.now() - startMs
  // Node's own list of what it has loaded of itself; not in its types.
  const loaded: unknown = Reflect.get(process, 'moduleLoadList')
  const undici = Array.isArray(loaded) && loaded.some((name) => String(name).includes('deps/undici/undici'))
  return { cpuMs: (user + system) / 1_000, wallMs, undici, statuses }
}

const run = (order: Order): Promise<Cost> => {
  if (order.do === 'import') {
    return measure(async () => {
      ;({ handler } = await import(order.file))
      return []
    })
  }
  const events: unknown[] = Array.from({ length: order.calls }, () => JSON.parse(order.event))
  return measure(async () => {
    const statuses: number[] = []
    for (const event of events) {
      const answer = await handler?.(event, { awsRequestId: 'bench', getRemainingTimeInMillis: () => 10_000 })
      statuses.push(answer?.statusCode ?? 0)
    }
    return statuses
  })
}

const report = (message: Report): void => void process.send?.(message)

process.on('disconnect', () => process.exit(0))
process.on('message', (order: Order) => {
  run(order).then(report, (error: unknown) =>
    report({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  )
})
