import type { Changed, Condition, Item, Key, Step, Table } from '../../shared/table.ts'

/** A table in memory. Each call is one atomic step of DynamoDB and refuses what DynamoDB refuses, with an Error that no product code expects. */

const refuse = (why: string): never => {
  throw new Error(`ValidationException: ${why}`)
}

const address = ({ pk, sk }: Key): string => {
  if (pk === '' || sk === '' || Buffer.byteLength(pk) > 2_048 || Buffer.byteLength(sk) > 1_024) refuse('a key')
  return JSON.stringify([pk, sk])
}

const checked = (item: Item): Item => {
  for (const [name, value] of Object.entries(item)) {
    if (name === '' || value === undefined) refuse(`the attribute ${name}`)
    if (typeof value === 'number' && !Number.isFinite(value)) refuse(`the number ${name}`)
  }
  return { ...item }
}

const distinct = (keys: readonly Key[], most: number): void => {
  if (keys.length === 0 || keys.length > most) refuse(`${keys.length} items at once`)
  if (new Set(keys.map(address)).size !== keys.length) refuse('one item twice')
}

const holds = (item: Item | undefined, [name, operator, value]: Condition): boolean => {
  const stored = item?.[name]
  if (stored === undefined) return operator === 'absent or <'
  // DynamoDB compares values of one type only; of another they are neither equal nor less.
  if (typeof stored !== typeof value) return false
  return operator === '=' ? stored === value : stored < value
}

/** The calls of `Table`, each done at once. */
export type Store = {
  [Name in keyof Table]: (...input: Parameters<Table[Name]>) => Awaited<ReturnType<Table[Name]>>
} & {
  all(): Item[]
}

/** An empty table. `onWrite` sees each item as it is written. */
export const createStore = (onWrite: (item: Item) => void = () => undefined): Store => {
  const items = new Map<string, Item>()
  const get = (key: Key): Item | undefined => {
    const item = items.get(address(key))
    return item && { ...item }
  }
  const put = (item: Item): void => {
    items.set(address(item), checked(item))
    onWrite(item)
  }
  const meets = (key: Key, when: readonly Condition[]): boolean => when.every((condition) => holds(get(key), condition))

  const update = (key: Key, { set = {}, remove = [], when }: Parameters<Table['update']>[1]): Changed => {
    if (Object.keys(set).length + remove.length === 0) refuse('an update of nothing')
    if ('pk' in set || 'sk' in set || remove.some((name) => name in set)) refuse('what an update sets')
    const before = get(key)
    if (before === undefined || !meets(key, when)) return { changed: false, item: before }
    const kept = Object.entries(before).filter(([name]) => !remove.includes(name))
    const item = { ...Object.fromEntries(kept), ...set, pk: key.pk, sk: key.sk }
    put(item)
    return { changed: true, item: { ...item } }
  }

  const keyOf = (step: Step): Key => ('put' in step ? step.put : 'remove' in step ? step.remove : step.check)

  return {
    all: () => [...items.values()].map((item) => structuredClone(item)),

    read: (keys) => {
      distinct(keys, 100)
      return keys.map(get)
    },

    create: (item) => {
      if (items.has(address(item))) return false
      put(item)
      return true
    },

    write: ({ put: written = [], remove = [] }) => {
      distinct([...written, ...remove], 25)
      written.forEach(put)
      for (const key of remove) items.delete(address(key))
    },

    update,

    remove: (key, when = []) => {
      const item = get(key)
      if (item === undefined || !meets(key, when)) return undefined
      items.delete(address(key))
      return item
    },

    transact: (steps) => {
      distinct(steps.map(keyOf), 100)
      if (!steps.every((step) => !('when' in step) || meets(keyOf(step), step.when ?? []))) return false
      for (const step of steps) {
        if ('put' in step) put(step.put)
        else if ('remove' in step) items.delete(address(step.remove))
      }
      return true
    },

    list: (pk, prefix) =>
      [...items.values()]
        .filter((item) => item.pk === pk && item.sk.startsWith(prefix))
        .toSorted((one, other) => (one.sk < other.sk ? -1 : 1))
        .map((item) => structuredClone(item)),
  }
}
