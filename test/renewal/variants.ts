import type { GrantWire } from '../../shared/renewal.ts'
import type { Change, Item, Key, Step, Table } from '../../shared/table.ts'
import type { Variant } from './cluster.ts'
import type { Trouble } from './process.ts'

/** The protocol broken in one place each, from outside: what a table or a wire is made to do differently stands for the line that is missing. */

const address = ({ pk, sk }: Key): string => `${pk} ${sk}`

const sets = (change: Change, name: string): boolean => change.set?.[name] !== undefined

/** The same change without its conditions on these attributes. */
const without = (change: Change, ...names: string[]): Change => ({
  ...change,
  when: change.when.filter(([name]) => !names.includes(name)),
})

const changing =
  (rewrite: (change: Change) => Change): ((table: Table) => Table) =>
  (table) => ({ ...table, update: (key, change) => table.update(key, rewrite(change)) })

/** A claim of the lease, as opposed to a task's that takes it over. */
const claims = (change: Change): boolean =>
  sets(change, 'lease_until_ms') && change.when.some(([, operator]) => operator === 'absent or <')

const noLease = changing((change) => (claims(change) ? without(change, 'lease_until_ms', 'retry_at_ms') : change))

/** Its owner believes in the whole of it. */
const shortLease = (table: Table): Table => ({
  ...table,
  update: async (key, change) => {
    const untilMs = change.set?.['lease_until_ms']
    if (!claims(change) || typeof untilMs !== 'number') return await table.update(key, change)
    const claim = await table.update(key, { ...change, set: { lease_until_ms: untilMs - 8_500 } })
    return claim.changed ? { ...claim, item: { ...claim.item, lease_until_ms: untilMs } } : claim
  },
})

/** Whoever holds the lease then sends what it had read when it came, of whatever version. */
const readBeforeLease = (table: Table): Table => {
  const read = new Map<string, Item>()
  return {
    ...table,
    read: async (keys) => {
      const items = await table.read(keys)
      for (const item of items) if (item !== undefined && !read.has(address(item))) read.set(address(item), item)
      return items
    },
    update: async (key, change) => {
      if (!claims(change)) return await table.update(key, change)
      const claim = await table.update(key, without(change, 'version'))
      const earlier = read.get(address(key))?.['sealed']
      return claim.changed && earlier !== undefined ? { ...claim, item: { ...claim.item, sealed: earlier } } : claim
    },
  }
}

/** Whoever's save comes too late takes the grant for ended. */
const givesBack = (table: Table): Table => ({
  ...table,
  update: async (key, change) => {
    const changed = await table.update(key, change)
    return sets(change, 'sealed') && !changed.changed ? { changed: false, item: undefined } : changed
  },
})

/** Whoever holds the lease takes the routes' tokens for those that it had read when it came. */
const oldRoutes = (table: Table): Table => {
  const read = new Map<string, Item>()
  return {
    ...table,
    read: async (keys) => {
      const items = await table.read(keys)
      for (const item of items) if (item !== undefined && !read.has(address(item))) read.set(address(item), item)
      return items
    },
    update: async (key, change) => {
      const claim = await table.update(key, change)
      if (!claim.changed || !claims(change)) return claim
      const { routes, routes_version: version, ...item } = claim.item
      const earlier = read.get(address(key))
      if (earlier?.['routes'] !== undefined || routes === undefined || version === undefined) return claim
      return { changed: true, item }
    },
  }
}

/** A holder of the lease that looks again sees what it saw, and buries whatever is there. */
const believesRefusals = (table: Table): Table => {
  const leased = new Map<string, Item>()
  return {
    ...table,
    read: async (keys) => {
      const items = await table.read(keys)
      return keys.length === 1 ? keys.map((key, index) => leased.get(address(key)) ?? items[index]) : items
    },
    update: async (key, change) => {
      const changed = await table.update(key, change)
      if (changed.changed && sets(change, 'lease_until_ms')) leased.set(address(key), changed.item)
      return changed
    },
    remove: (key, when) => table.remove(key, leased.has(address(key)) ? [] : when),
  }
}

const everyDelivery = changing((change) =>
  sets(change, 'lease_until_ms') && !claims(change) ? without(change, 'lease_until_ms') : change,
)

const versionsFromOne = (table: Table): Table => {
  const fromOne = (step: Step): Step =>
    'put' in step && step.put.sk.startsWith('G#') ? { put: { ...step.put, version: 1 } } : step
  return { ...table, transact: (steps) => table.transact(steps.map(fromOne)) }
}

const sendsLate = (wire: GrantWire): Pick<GrantWire, 'refresh'> => ({
  refresh: (grant, tokens) => wire.refresh(grant, tokens, Infinity),
})

/** What is broken, how, at which kind of server it shows, and in which trouble soonest. */
export const variants: readonly {
  what: string
  variant: Variant
  where: 'strict' | 'grace' | 'shared'
  /** Whether it takes routes that have tokens of their own. */
  routes?: boolean
  trouble: Partial<Trouble>
}[] = [
  { what: 'no lease', variant: { table: noLease }, where: 'strict', trouble: {} },
  { what: 'a lease that is too short', variant: { table: shortLease }, where: 'strict', trouble: {} },
  {
    what: 'the refresh token read before the lease',
    variant: { table: readBeforeLease },
    where: 'strict',
    trouble: {},
  },
  {
    what: 'new tokens given back although the record is there',
    variant: { table: givesBack },
    where: 'grace',
    trouble: { stall: 0.1, server: 0.4 },
  },
  {
    what: 'a token of a route asked for without another look',
    variant: { table: oldRoutes },
    where: 'strict',
    routes: true,
    trouble: {},
  },
  {
    what: 'a refresh token sent however late',
    variant: { wire: sendsLate },
    where: 'strict',
    trouble: { secrets: 0.5, stall: 0.1 },
  },
  {
    what: 'a task carried out at every delivery',
    variant: { table: everyDelivery },
    where: 'strict',
    trouble: { duplicate: 0.5 },
  },
  {
    what: '`invalid_grant` believed without another look',
    variant: { table: believesRefusals },
    where: 'shared',
    trouble: {},
  },
  { what: 'a version that an earlier grant had', variant: { table: versionsFromOne }, where: 'shared', trouble: {} },
]
