import { Failure } from '../../shared/errors.ts'
import type { Table } from '../../shared/table.ts'
import type { Store } from './store.ts'
import type { World } from './world.ts'

/** How much goes wrong: shares of all exchanges, unless told. */
export interface Trouble {
  /** The process ends before or after an exchange. */
  crash: number
  /** The process is held up for 3 to 15 seconds. */
  stall: number
  /** The table refuses an attempt, or does what it is told and its answer is lost or comes too late. */
  store: number
  /** The authorization server fails, before or after it has done what it is asked; by request. */
  server: number
  /** The Lambda API does not take a task, or its answer is lost; by task. */
  lambda: number
  /** A task is delivered a second time; by task. */
  duplicate: number
  /** Secrets Manager is slow or fails; by read of credentials. */
  secrets: number
}

/** Nothing goes wrong. */
export const peace: Trouble = { crash: 0, stall: 0, store: 0, server: 0, lambda: 0, duplicate: 0, secrets: 0 }

/** One instance of a function during one invocation: a clock of its own, and exchanges with the outside, at each of which it may stop. */
export interface Process {
  trouble: Trouble
  /** Its clock, in milliseconds since the epoch. */
  now(): number
  /** It gets there, is done, and its outcome comes back; each way takes that many milliseconds. */
  exchange<T>(thereMs: number, backMs: number, act: () => T): Promise<T>
  /** It stops for good. */
  crash(): void
  crashed: Promise<'crashed'>
  /** Whether what it began may be unfinished for a reason that nobody can do anything about. */
  excused(): boolean
  /** Whether the table has failed it. */
  metFaults(): boolean
  meetFault(): void
  /** Its invocation is answered: from here on it would be frozen. */
  answered(): void
  /** How many exchanges were under way when it was answered, or began after that. */
  leftBehind(): number
}

/** A process whose clock is that far from the world's. */
export const createProcess = (world: World, trouble: Trouble, skewMs: number): Process => {
  const death = Promise.withResolvers<'crashed'>()
  let [alive, stalled, answered, faults] = [true, false, false, false]
  let stalledUntilMs = 0
  let [pending, left] = [0, 0]

  const crash = (): void => {
    alive = false
    death.resolve('crashed')
  }

  const exchange = <T>(thereMs: number, backMs: number, act: () => T): Promise<T> => {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    if (answered) left += 1
    if (!alive || answered) return promise
    const fate = world.chance(trouble.crash) ? (world.chance(0.5) ? 'before' : 'after') : undefined
    if (fate === 'before') {
      crash()
      return promise
    }
    if (world.chance(trouble.stall)) {
      stalled = true
      stalledUntilMs = world.now() + world.between(3_000, 15_000)
    }
    pending += 1
    const arrive = (settle: () => void): void => {
      if (!alive) return
      if (stalledUntilMs > world.now()) return world.after(stalledUntilMs - world.now(), () => arrive(settle))
      pending -= 1
      settle()
    }
    world.after(thereMs, () => {
      let settle: () => void
      try {
        const outcome = act()
        settle = () => resolve(outcome)
      } catch (error) {
        settle = () => reject(error)
      }
      if (fate === 'after') crash()
      world.after(backMs, () => arrive(settle))
    })
    return promise
  }

  return {
    trouble,
    now: () => world.now() + skewMs,
    exchange,
    crash,
    crashed: death.promise,
    excused: () => !alive || stalled,
    metFaults: () => faults,
    meetFault: () => {
      faults = true
    },
    answered: () => {
      answered = true
      left += pending
    },
    leftBehind: () => left,
  }
}

const ATTEMPTS = 3
const REQUEST_LIMIT_MS = 1_500

/**
 * The table as the process has it: over a network, by a client that repeats what failed. `onLate` hears of a transaction that was given up
 * and that the table may carry out afterwards.
 */
export const createTableClient = (world: World, process: Process, store: Store, onLate: () => void): Table => {
  const send = async <T>(act: () => T, onGivenUp?: () => void): Promise<T> => {
    let late = false
    for (let attempt = 1; ; attempt += 1) {
      const fails = world.chance(process.trouble.store)
      if (!fails) return await process.exchange(world.between(0, 20), world.between(0, 20), act)
      process.meetFault()
      const how = world.random()
      if (how < 0.4) await process.exchange(5, 5, () => undefined)
      else if (how < 0.7) await process.exchange(5, REQUEST_LIMIT_MS, act)
      else {
        late = true
        world.after(world.between(REQUEST_LIMIT_MS, 4_000), act)
        await process.exchange(5, REQUEST_LIMIT_MS, () => undefined)
      }
      if (attempt < ATTEMPTS) continue
      if (late) onGivenUp?.()
      throw new Failure('store_unavailable', { retryAfterSeconds: 1 })
    }
  }
  return {
    read: (keys) => send(() => store.read(keys)),
    create: (item) => send(() => store.create(item)),
    write: (change) => send(() => store.write(change)),
    update: (key, change) => send(() => store.update(key, change)),
    remove: (key, when) => send(() => store.remove(key, when)),
    transact: (steps) => {
      // Repeated under the same token, a transaction that was carried out succeeds again.
      let written = false
      return send(() => (written ||= store.transact(steps)), onLate)
    },
    list: (pk, prefix) => send(() => store.list(pk, prefix)),
  }
}
