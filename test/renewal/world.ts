/**
 * A world of its own time: nothing happens in it but what was asked for, one thing at a time, in an order that follows from the seed.
 * Between two things everything that waits for promises runs to its next wait.
 */
export interface World {
  /** Milliseconds since the epoch. */
  now(): number
  /** At least 0, less than 1. */
  random(): number
  /** True in that share of the cases. */
  chance(share: number): boolean
  between(least: number, most: number): number
  /** Runs that many milliseconds from now. */
  after(ms: number, run: () => void): void
  /** Resolves that many milliseconds from now. */
  delay(ms: number): Promise<void>
  /** Everything happens that is to happen in the time from now; all there is where no time is given. */
  pass(ms?: number): Promise<void>
  /** What comes next happens; false where nothing is to happen any more. */
  step(): Promise<boolean>
}

/** @see Tommy Ettinger's mulberry32 */
const generator = (seed: number): (() => number) => {
  let state = Math.trunc(seed) + 1
  return () => {
    state = Math.trunc(state + 0x6d2b79f5)
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Whoever waits for promises has run as far as it can. */
const settled = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

/** A world in which nothing is planned yet. */
export const createWorld = (seed: number): World => {
  const random = generator(seed)
  const planned: { atMs: number; order: number; run: () => void }[] = []
  let nowMs = Date.UTC(2030, 0, 1)

  const after = (ms: number, run: () => void): void => {
    const item = { atMs: nowMs + ms, order: random(), run }
    let index = planned.length
    for (let other = planned[index - 1]; index > 0 && other !== undefined; other = planned[index - 1]) {
      if (other.atMs < item.atMs || (other.atMs === item.atMs && other.order <= item.order)) break
      index -= 1
    }
    planned.splice(index, 0, item)
  }

  const step = async (): Promise<boolean> => {
    const next = planned.shift()
    if (next === undefined) return false
    nowMs = Math.max(nowMs, next.atMs)
    next.run()
    await settled()
    return true
  }

  return {
    now: () => Math.floor(nowMs),
    random,
    chance: (share) => random() < share,
    between: (least, most) => least + random() * (most - least),
    after,
    delay: (ms) => new Promise((resolve) => after(ms, resolve)),
    step,
    async pass(ms = Infinity) {
      const endMs = nowMs + ms
      await settled()
      while ((planned[0]?.atMs ?? Infinity) <= endMs && (await step()));
      if (ms !== Infinity) nowMs = Math.max(nowMs, endMs)
    },
  }
}
