import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { transformSync } from 'esbuild'
import {
  type Endpoints,
  type FunctionDefinition,
  instanceEnvironment,
  refuseBadConfiguration,
} from './function-environment.ts'
import type { FunctionErrorBody, InstanceMessage, InvokeMessage } from './instance.ts'
import type { HttpObservation } from './trace.ts'

/** What a function's instances get besides its definition, and where their words go. */
export interface FunctionPoolOptions {
  definition: FunctionDefinition
  endpoints: Endpoints
  maxInstances: number
  onLog?: (functionName: string, line: string) => void
  onHttp?: (observation: HttpObservation) => void
}

/** How many instances there are now and have been, and the process ids of the busy and the idle ones. */
export interface FunctionStats {
  started: number
  starting: number
  busy: number
  idle: number
  waiting: number
  invocations: number
  busyPids: number[]
  idlePids: number[]
}

/** The instances of one function. */
export interface FunctionPool {
  definition: FunctionDefinition
  /**
   * Resolves with the handler's result after a round through JSON; rejects with a `FunctionError`. Where `signal` says that nobody waits for
   * it any more, an event that is in line yet is not handled.
   */
  invoke: (event: unknown, signal?: AbortSignal) => Promise<unknown>
  /** This many instances, at most `maxInstances`, are there and have done their cold start, so that as many events can meet. */
  warm: (instances: number) => Promise<void>
  stats: () => FunctionStats
  /** Every instance is gone at once, busy or not, as if it had crashed. */
  kill: () => void
  /** Every instance has ended, its last output is reported, and no invocation is left waiting. */
  close: () => Promise<void>
}

/** A failed invocation as Lambda reports it: `errorType` such as `Runtime.ExitError`, `Sandbox.Timedout` or the thrown error's name. */
export class FunctionError extends Error {
  readonly errorType: string
  readonly errorMessage: string
  readonly functionName: string

  constructor(
    functionName: string,
    { errorType, errorMessage }: Pick<FunctionErrorBody, 'errorType' | 'errorMessage'>,
  ) {
    super(`${errorType}: ${errorMessage}`)
    this.name = 'FunctionError'
    this.errorType = errorType
    this.errorMessage = errorMessage
    this.functionName = functionName
  }
}

interface Invocation {
  requestId: string
  event: string
  resolve: (payload: unknown) => void
  reject: (error: Error) => void
}

interface Instance {
  child: ChildProcess
  state: 'starting' | 'idle' | 'busy'
  /** Resolved once it has started, or failed to. */
  settled: PromiseWithResolvers<void>
  current?: Invocation
  timer?: NodeJS.Timeout
}

const payloadLimitBytes = 6 * 1024 * 1024
const initLimitMs = 10_000
/** Instances share this machine's cores: too many cold starts at a time, and none is done within the limit. */
const startsAtOnce = 2 * availableParallelism()

/**
 * A function is ready to be invoked; instances start when they are needed. An idle instance is reused, another starts cold
 * when all are busy, and beyond `maxInstances` invocations wait in line. Throws where Lambda refuses the configuration:
 * environment over 4 KB, reserved variable names, a runtime that is not this Node.js.
 */
export function createFunctionPool({
  definition,
  endpoints,
  maxInstances,
  onLog,
  onHttp,
}: FunctionPoolOptions): FunctionPool {
  refuseBadConfiguration(definition)
  const { functionName, timeoutSeconds } = definition
  const environment = instanceEnvironment(definition, endpoints)
  const instances = new Set<Instance>()
  const idle: Instance[] = []
  const queue: Invocation[] = []
  const counts = { started: 0, invocations: 0 }
  let closed = false

  const failure = (errorType: string, errorMessage: string) =>
    new FunctionError(functionName, { errorType, errorMessage })

  const schedule = (): void => {
    while (queue.length > 0 && idle.length > 0) {
      const instance = idle.pop()
      const invocation = queue.shift()
      if (instance && invocation) hand(instance, invocation)
    }
    let starting = [...instances].filter(({ state }) => state === 'starting').length
    while (starting < Math.min(queue.length, startsAtOnce) && instances.size < maxInstances) {
      start()
      starting += 1
    }
  }

  const hand = (instance: Instance, invocation: Invocation): void => {
    instance.state = 'busy'
    instance.current = invocation
    instance.timer = setTimeout(() => {
      const { requestId } = invocation
      end(
        instance,
        failure(
          'Sandbox.Timedout',
          `RequestId: ${requestId} Error: Task timed out after ${timeoutSeconds.toFixed(2)} seconds`,
        ),
      )
    }, timeoutSeconds * 1000)
    const message: InvokeMessage = {
      type: 'invoke',
      requestId: invocation.requestId,
      event: invocation.event,
      deadlineMs: Date.now() + timeoutSeconds * 1000,
      invokedFunctionArn: definition.arn,
    }
    // A failed send means that the process is gone; its exit is what fails the invocation.
    instance.child.send(message, () => {})
  }

  const finish = (instance: Instance, settle: (invocation: Invocation) => void): void => {
    clearTimeout(instance.timer)
    const { current } = instance
    delete instance.current
    instance.state = 'idle'
    idle.push(instance)
    if (current) settle(current)
    schedule()
  }

  /** The instance is gone; its invocation fails with the error, or the oldest waiting one does if it never became ready. */
  const end = (instance: Instance, error: Error): void => {
    if (!instances.delete(instance)) return
    clearTimeout(instance.timer)
    instance.settled.resolve()
    instance.child.kill('SIGKILL')
    if (idle.includes(instance)) idle.splice(idle.indexOf(instance), 1)
    const failed = instance.state === 'starting' ? queue.shift() : instance.current
    failed?.reject(error)
    if (!closed) schedule()
  }

  const receive = (instance: Instance, message: InstanceMessage): void => {
    if (message.type === 'http') onHttp?.(message.observation)
    else if (!instances.has(instance)) return
    else if (message.type === 'ready') {
      instance.settled.resolve()
      finish(instance, () => {})
    } else if (message.type === 'init-error') end(instance, new FunctionError(functionName, message.error))
    else if (message.type === 'error')
      finish(instance, ({ reject }) => reject(new FunctionError(functionName, message.error)))
    else {
      const tooLarge = Buffer.byteLength(message.payload) > payloadLimitBytes
      finish(instance, ({ resolve, reject }) => {
        if (!tooLarge) return resolve(JSON.parse(message.payload))
        const text = `Response payload size exceeded maximum allowed payload size (${payloadLimitBytes} bytes).`
        return reject(failure('Function.ResponseSizeTooLarge', text))
      })
    }
  }

  const start = (): void => {
    const child = spawn(process.execPath, [instanceScript()], {
      cwd: definition.taskRoot,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
    })
    const instance: Instance = { child, state: 'starting', settled: Promise.withResolvers() }
    instances.add(instance)
    counts.started += 1
    instance.timer = setTimeout(
      () => end(instance, failure('Sandbox.Timedout', 'Init timed out after 10 seconds')),
      initLimitMs,
    )
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on('line', (line) => onLog?.(functionName, line))
    }
    child.on('message', (message) => receive(instance, message as InstanceMessage))
    child.on('error', (error) => end(instance, failure('Runtime.ExitError', error.message)))
    child.on('exit', (code, signal) => {
      const requestId = instance.current?.requestId ?? '(none)'
      const how = signal ? `signal: ${signal}` : `exit status ${code}`
      end(instance, failure('Runtime.ExitError', `RequestId: ${requestId} Error: Runtime exited with error: ${how}`))
    })
  }

  const invoke = async (event: unknown, signal?: AbortSignal): Promise<unknown> => {
    if (closed) throw failure('ResourceNotFoundException', 'the function is gone')
    const text = JSON.stringify(event)
    if (Buffer.byteLength(text) > payloadLimitBytes) {
      throw failure(
        'RequestTooLargeException',
        `Request must be smaller than ${payloadLimitBytes} bytes for the InvokeFunction operation`,
      )
    }
    counts.invocations += 1
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const invocation = { requestId: randomUUID(), event: text, resolve, reject }
    queue.push(invocation)
    signal?.addEventListener('abort', () => {
      const place = queue.indexOf(invocation)
      if (place === -1) return
      queue.splice(place, 1)
      reject(failure('TooManyRequestsException', 'no instance was free in time; --max-instances permits more'))
    })
    schedule()
    return promise
  }

  const pids = (state: Instance['state']) =>
    [...instances].filter((instance) => instance.state === state).map(({ child }) => child.pid ?? 0)

  const close = async (): Promise<void> => {
    closed = true
    const children = [...instances].map(({ child }) => child)
    const ended = children.map((child) => new Promise((resolve) => child.once('close', resolve)))
    const gone = failure('Runtime.ExitError', 'the function is being closed')
    for (const waiting of queue.splice(0)) waiting.reject(gone)
    for (const instance of instances) end(instance, gone)
    await Promise.all(ended)
  }

  return {
    definition,
    invoke,
    warm: async (wanted) => {
      const ready = () => Promise.all([...instances].map(({ settled }) => settled.promise))
      for (let missing = Math.min(wanted, maxInstances) - instances.size; missing > 0; missing -= startsAtOnce) {
        for (let started = 0; started < Math.min(missing, startsAtOnce); started += 1) start()
        await ready()
      }
      await ready()
    },
    stats: () => ({
      ...counts,
      starting: pids('starting').length,
      busy: pids('busy').length,
      idle: pids('idle').length,
      waiting: queue.length,
      busyPids: pids('busy'),
      idlePids: pids('idle'),
    }),
    kill: () => {
      for (const instance of instances)
        end(instance, failure('Runtime.ExitError', 'Runtime exited with error: signal: killed'))
    },
    close,
  }
}

let script: string | undefined

/** `instance.ts` with its types stripped once: stripping in each instance would double its cold start. */
function instanceScript(): string {
  if (script) return script
  const folder = join(import.meta.dirname, '../../node_modules/.cache/coatcheck')
  mkdirSync(folder, { recursive: true })
  const typed = readFileSync(join(import.meta.dirname, 'instance.ts'), 'utf8')
  const { code } = transformSync(typed, { loader: 'ts', target: 'node24', sourcemap: 'inline' })
  const draft = join(folder, `instance.${process.pid}.${randomBytes(4).toString('hex')}.mjs`)
  writeFileSync(draft, code)
  script = join(folder, 'instance.mjs')
  renameSync(draft, script)
  return script
}
