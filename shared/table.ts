import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  PutItemCommand,
  QueryCommand,
  ScanCommand,
  TransactionCanceledException,
  TransactWriteItemsCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import type { AttributeValue, TransactWriteItem, WriteRequest } from '@aws-sdk/client-dynamodb'
import { setTimeout as delay } from 'node:timers/promises'
import { causeName, Failure } from './errors.ts'
import { decodeItem, encodeItem, expressions } from './table-expressions.ts'

/** The one table, as a few calls that each are one round trip and each say what is atomic about them. */

export type Value = string | number | Uint8Array

export interface Key {
  pk: string
  sk: string
}

export type Item = Key & Readonly<Record<string, Value>>

/** `absent or <`: true when the attribute is missing or less than the value. */
export type Condition = readonly [attribute: string, operator: '=' | '<' | 'absent or <', value: Value]

export interface Change {
  set?: Readonly<Record<string, Value>>
  remove?: readonly string[]
  /** All must hold, and the item must exist. */
  when: readonly Condition[]
}

/** One part of a transaction. `when` is judged on the item as it is, which may not exist. */
export type Step =
  | { put: Item; when?: readonly Condition[] }
  | { remove: Key }
  | { check: Key; when: readonly Condition[] }

/** After a conditional write: the item as it is now, or the item that the condition was judged against (undefined: there is none). */
export type Changed = { changed: true; item: Item } | { changed: false; item: Item | undefined }

export interface Table {
  /** The items of up to 100 keys in their order, read consistently. */
  read(keys: readonly Key[]): Promise<(Item | undefined)[]>
  /** The item is there; false when its key was taken already. */
  create(item: Item): Promise<boolean>
  /** All is written and removed; not atomic across items, so each item must be harmless without the others. */
  write(change: { put?: readonly Item[]; remove?: readonly Key[] }): Promise<void>
  /** The item is changed if every condition holds, atomically. */
  update(key: Key, change: Change): Promise<Changed>
  /** The item is gone, if every condition held for it; what it was last, or undefined when nothing was removed. */
  remove(key: Key, when?: readonly Condition[]): Promise<Item | undefined>
  /** All steps are done, or none because a check failed; atomic. */
  transact(steps: readonly Step[]): Promise<boolean>
  /** Every item of a partition whose sort key begins so (all for ''), read consistently, in order of sort key. */
  list(pk: string, prefix: string): Promise<Item[]>
}

/** The table from one end to the other, for what looks at all of it. */
export interface Pages {
  /** The keys of some of all items, from where another page ended on, read consistently; and where this one ended, unless it was the last. */
  page(from: Key | undefined): Promise<{ keys: Key[]; next: Key | undefined }>
}

const sameKey = (one: Key, other: Key): boolean => one.pk === other.pk && one.sk === other.sk

const BATCH_ATTEMPTS = 4
/** Most writes in one BatchWriteItem. */
const BATCH_WRITES = 25
const TRANSACTION_ATTEMPTS = 4

/** Three attempts within about five seconds. Without the last setting the SDK only warns of a request that takes longer. */
const CLIENT_SETTINGS = {
  maxAttempts: 3,
  requestHandler: { connectionTimeout: 1_000, requestTimeout: 1_500, throwOnRequestTimeout: true },
}

/**
 * Calls on the table of that name.
 * @throws store_unavailable whenever DynamoDB does not answer as asked: throttled, failing, out of reach, refused
 */
export const createTable = (tableName: string): Table & Pages => {
  const client = new DynamoDBClient(CLIENT_SETTINGS)

  const guarded = async <T>(run: () => Promise<T>): Promise<T> => {
    try {
      return await run()
    } catch (error) {
      if (error instanceof Failure || error instanceof ConditionalCheckFailedException) throw error
      const refused =
        error instanceof Error && error.name === 'AccessDeniedException' ? error.message : causeName(error)
      throw new Failure('store_unavailable', { detail: refused, cause: error, retryAfterSeconds: 1 })
    }
  }

  const transactItem = (step: Step): TransactWriteItem => {
    if ('remove' in step) return { Delete: { TableName: tableName, Key: encodeItem(step.remove) } }
    const { condition, used } = expressions()
    const ConditionExpression = condition(step.when ?? []).join(' AND ')
    if ('check' in step)
      return { ConditionCheck: { TableName: tableName, Key: encodeItem(step.check), ConditionExpression, ...used() } }
    const put = { TableName: tableName, Item: encodeItem(step.put) }
    return { Put: ConditionExpression === '' ? put : { ...put, ConditionExpression, ...used() } }
  }

  return {
    read: (keys) =>
      guarded(async () => {
        const found: Item[] = []
        let pending: Record<string, AttributeValue>[] = keys.map(encodeItem)
        for (let attempt = 0; pending.length > 0; attempt += 1) {
          if (attempt === BATCH_ATTEMPTS)
            throw new Failure('store_unavailable', { detail: 'unprocessed keys', retryAfterSeconds: 1 })
          const reply = await client.send(
            new BatchGetItemCommand({ RequestItems: { [tableName]: { Keys: pending, ConsistentRead: true } } }),
          )
          found.push(...(reply.Responses?.[tableName] ?? []).map(decodeItem))
          pending = reply.UnprocessedKeys?.[tableName]?.Keys ?? []
        }
        return keys.map((key) => found.find((item) => sameKey(item, key)))
      }),

    create: (item) =>
      guarded(async () => {
        try {
          await client.send(
            new PutItemCommand({
              TableName: tableName,
              Item: encodeItem(item),
              ConditionExpression: 'attribute_not_exists(pk)',
            }),
          )
          return true
        } catch (error) {
          if (error instanceof ConditionalCheckFailedException) return false
          throw error
        }
      }),

    write: ({ put = [], remove = [] }) =>
      guarded(async () => {
        const all: WriteRequest[] = [
          ...put.map((item) => ({ PutRequest: { Item: encodeItem(item) } })),
          ...remove.map((key) => ({ DeleteRequest: { Key: encodeItem(key) } })),
        ]
        for (let start = 0; start < all.length; start += BATCH_WRITES) {
          let pending = all.slice(start, start + BATCH_WRITES)
          for (let attempt = 0; pending.length > 0; attempt += 1) {
            if (attempt === BATCH_ATTEMPTS)
              throw new Failure('store_unavailable', { detail: 'unprocessed items', retryAfterSeconds: 1 })
            const reply = await client.send(new BatchWriteItemCommand({ RequestItems: { [tableName]: pending } }))
            pending = reply.UnprocessedItems?.[tableName] ?? []
          }
        }
      }),

    update: (key, change) =>
      guarded(async () => {
        const { condition, update, used } = expressions()
        try {
          const reply = await client.send(
            new UpdateItemCommand({
              TableName: tableName,
              Key: encodeItem(key),
              UpdateExpression: update(change),
              ConditionExpression: ['attribute_exists(pk)', ...condition(change.when)].join(' AND '),
              ...used(),
              ReturnValues: 'ALL_NEW',
              ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
            }),
          )
          return { changed: true, item: decodeItem(reply.Attributes ?? {}) }
        } catch (error) {
          if (!(error instanceof ConditionalCheckFailedException)) throw error
          return { changed: false, item: error.Item === undefined ? undefined : decodeItem(error.Item) }
        }
      }),

    remove: (key, when = []) =>
      guarded(async () => {
        const { condition, used } = expressions()
        const conditions = condition(when)
        try {
          const reply = await client.send(
            new DeleteItemCommand({
              TableName: tableName,
              Key: encodeItem(key),
              ...(conditions.length > 0 && { ConditionExpression: conditions.join(' AND ') }),
              ...used(),
              ReturnValues: 'ALL_OLD',
            }),
          )
          return reply.Attributes === undefined ? undefined : decodeItem(reply.Attributes)
        } catch (error) {
          if (error instanceof ConditionalCheckFailedException) return undefined
          throw error
        }
      }),

    transact: (steps) =>
      guarded(async () => {
        for (let attempt = 1; ; attempt += 1) {
          try {
            await client.send(new TransactWriteItemsCommand({ TransactItems: steps.map(transactItem) }))
            return true
          } catch (error) {
            if (!(error instanceof TransactionCanceledException)) throw error
            const codes = (error.CancellationReasons ?? []).map((reason) => reason.Code)
            if (codes.includes('ConditionalCheckFailed')) return false
            // Another write of the same item was under way (TransactionConflict), or capacity was short.
            if (attempt === TRANSACTION_ATTEMPTS) throw error
            await delay(30 * attempt * (0.5 + Math.random()))
          }
        }
      }),

    list: (pk, prefix) =>
      guarded(async () => {
        const found: Item[] = []
        let start: Record<string, AttributeValue> | undefined
        do {
          const reply = await client.send(
            new QueryCommand({
              TableName: tableName,
              ConsistentRead: true,
              // An empty prefix is none: DynamoDB refuses empty key values.
              KeyConditionExpression: prefix === '' ? 'pk = :pk' : 'pk = :pk AND begins_with(sk, :prefix)',
              ExpressionAttributeValues: { ':pk': { S: pk }, ...(prefix !== '' && { ':prefix': { S: prefix } }) },
              ...(start !== undefined && { ExclusiveStartKey: start }),
            }),
          )
          found.push(...(reply.Items ?? []).map(decodeItem))
          start = reply.LastEvaluatedKey
        } while (start !== undefined)
        return found
      }),

    page: (from) =>
      guarded(async () => {
        const reply = await client.send(
          new ScanCommand({
            TableName: tableName,
            ConsistentRead: true,
            ProjectionExpression: 'pk, sk',
            ...(from !== undefined && { ExclusiveStartKey: encodeItem(from) }),
          }),
        )
        const { Items = [], LastEvaluatedKey: last } = reply
        return { keys: Items.map(decodeItem), next: last === undefined ? undefined : decodeItem(last) }
      }),
  }
}
