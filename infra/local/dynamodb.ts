import { createRequire } from 'node:module'
import db, { type Store, type Table } from 'dynalite/db/index.js'
import validations from 'dynalite/validations/index.js'
import {
  ACCOUNT_ID,
  type AwsOperation,
  AwsRefusal,
  type AwsServer,
  type Gate,
  isRecord,
  refusal,
  REGION,
  serveAws,
  tableArn,
} from './aws-call.ts'
import {
  batchOf,
  invalid,
  meetsCondition,
  refuseEmptyKeys,
  refuseLikeAws,
  refuseLongKeys,
  withoutCondition,
} from './dynamodb-rules.ts'
import { createTransactions } from './dynamodb-transactions.ts'

type Input = Record<string, unknown>
type Action = (store: Store, input: Input, callback: (error: Error | null, output: Input) => void) => void

const reads = ['BatchGetItem', 'DeleteTable', 'DescribeTable', 'GetItem', 'ListTables', 'Query', 'Scan']
const itemWrites = ['DeleteItem', 'PutItem', 'UpdateItem']

/** A key or an item, as the address of the item that it names: its table and nothing but its key attributes. */
export interface ItemAddress {
  TableName: string
  Key: Input
}

/** What a transaction needs of the table store. */
export interface Engine {
  /** The input in dynalite's own form, or a refusal as DynamoDB words it. */
  validate: (operation: string, input: Input) => Input
  /** Runs an operation on validated input. */
  run: (operation: string, input: Input) => Promise<Input>
  /** The address of the item that a key or an item names, or a refusal where there is no such table. */
  addressOf: (tableName: unknown, keyOrItem: unknown) => Promise<ItemAddress>
  /** Runs `write` while no other write touches these items. */
  exclusively: <T>(addresses: ItemAddress[], write: () => Promise<T>) => Promise<T>
}

/**
 * A DynamoDB answers on a free port of 127.0.0.1, empty and in memory: dynalite's parsers and store behind our server,
 * which adds what dynalite lacks (`ALL_OLD` for failed conditions, TransactWriteItems, TTL settings; expired items stay,
 * as they do for days at AWS) and refuses what only AWS refuses. Tables are active when CreateTable returns.
 */
export async function startDynamoDb(options: { gate: Gate }): Promise<AwsServer> {
  const store = db.create({ createTableMs: 0, deleteTableMs: 0 })
  Object.assign(store.tableDb, { awsAccountId: ACCOUNT_ID, awsRegion: REGION })
  const engine = createEngine(store)
  const operations: Record<string, AwsOperation> = { ...createTransactions(engine), ...createTimeToLive(engine) }
  for (const name of reads) operations[name] = (input) => engine.run(name, engine.validate(name, input))
  for (const name of itemWrites) operations[name] = (input) => writeItem(engine, name, input)
  operations['BatchWriteItem'] = (input) => writeBatch(engine, input)
  operations['CreateTable'] = async (input) => {
    const created = await engine.run('CreateTable', engine.validate('CreateTable', input))
    while (!(await isActive(store, String(input['TableName'])))) await new Promise(setImmediate)
    return created
  }
  return serveAws(
    { service: 'dynamodb', target: 'DynamoDB_20120810', json: '1.0', operations, resources },
    options.gate,
  )
}

function createEngine(store: Store): Engine {
  const load = createRequire(import.meta.url)
  const parts = new Map(
    [...reads, ...itemWrites, 'BatchWriteItem', 'CreateTable'].map((name) => {
      const file = `${name[0]?.toLowerCase()}${name.slice(1)}.js`
      const action: Action = load(`dynalite/actions/${file}`)
      const validation: { types: unknown; custom: unknown } = load(`dynalite/validations/${file}`)
      return [name, { action, ...validation }] as const
    }),
  )
  const part = (name: string) => {
    const found = parts.get(name)
    if (!found) throw new Error(`dynalite has no ${name}`)
    return found
  }
  const tails = new Map<string, Promise<void>>()

  return {
    validate: (operation, input) => {
      refuseLikeAws(operation, input)
      const { types, custom } = part(operation)
      try {
        const data = validations.checkTypes(structuredClone(input), types)
        validations.checkValidations(data, types, custom, store)
        refuseEmptyKeys(data['KeyConditions'])
        return data
      } catch (error) {
        // A plain error is dynalite stumbling over input of a shape that it did not expect.
        const refused = error instanceof AwsRefusal ? error : asRefusal(error)
        throw refused instanceof AwsRefusal ? refused : refusal('SerializationException', String(error))
      }
    },

    run: (operation, input) =>
      new Promise((resolve, reject) => {
        part(operation).action(store, input, (error, output) => (error ? reject(asRefusal(error)) : resolve(output)))
      }),

    addressOf: async (tableName, keyOrItem) => {
      const TableName = String(tableName)
      const { KeySchema } = await tableOf(store, TableName)
      const attributes = isRecord(keyOrItem) ? keyOrItem : {}
      const Key = Object.fromEntries(KeySchema.map(({ AttributeName: name }) => [name, attributes[name]]))
      refuseLongKeys(Object.values(Key))
      return { TableName, Key }
    },

    exclusively: async (addresses, write) => {
      const names = addresses.map((address) => JSON.stringify(address))
      const before = names.map((name) => tails.get(name))
      const { promise, resolve } = Promise.withResolvers<void>()
      for (const name of names) tails.set(name, promise)
      try {
        await Promise.all(before.filter((tail) => tail !== undefined))
        return await write()
      } finally {
        for (const name of names) if (tails.get(name) === promise) tails.delete(name)
        resolve()
      }
    },
  }
}

/** A single write; a condition's failure carries the very item that it was judged against, where `ALL_OLD` is asked for. */
async function writeItem(engine: Engine, name: string, input: Input): Promise<Input> {
  const data = engine.validate(name, input)
  const address = await engine.addressOf(data['TableName'], data['Key'] ?? data['Item'])
  const isConditional = 'ConditionExpression' in data || 'Expected' in data
  if (!isConditional) return engine.exclusively([address], () => engine.run(name, data))

  return engine.exclusively([address], async () => {
    const { Item } = await engine.run('GetItem', { ...address })
    if (meetsCondition(data, Item)) return engine.run(name, withoutCondition(data))
    const wantsOld = Item !== undefined && input['ReturnValuesOnConditionCheckFailure'] === 'ALL_OLD'
    throw refusal('ConditionalCheckFailedException', 'The conditional request failed', wantsOld ? { Item } : {})
  })
}

async function writeBatch(engine: Engine, input: Input): Promise<Input> {
  const data = engine.validate('BatchWriteItem', input)
  const addresses = await Promise.all(
    batchOf(data).map(([tableName, { PutRequest: put, DeleteRequest: del }]) =>
      engine.addressOf(tableName, isRecord(put) ? put['Item'] : isRecord(del) ? del['Key'] : undefined),
    ),
  )
  return engine.exclusively(addresses, () => engine.run('BatchWriteItem', data))
}

/** Time to live is only recorded: nothing is ever deleted by it here. */
function createTimeToLive(engine: Engine): Record<string, AwsOperation> {
  const attributes = new Map<string, string>()
  const tableName = async (input: Input) => {
    const { Table: table } = await engine.run('DescribeTable', engine.validate('DescribeTable', input))
    return isRecord(table) ? String(table['TableName']) : ''
  }
  return {
    UpdateTimeToLive: async (input) => {
      const name = await tableName(input)
      const specification = input['TimeToLiveSpecification']
      const { AttributeName: attribute, Enabled: enabled } = isRecord(specification) ? specification : {}
      if (typeof attribute !== 'string' || attribute === '' || typeof enabled !== 'boolean')
        throw invalid('TimeToLiveSpecification needs AttributeName and Enabled')
      if (enabled === attributes.has(name)) throw invalid(`TimeToLive is already ${enabled ? 'enabled' : 'disabled'}`)
      if (enabled) attributes.set(name, attribute)
      else attributes.delete(name)
      return { TimeToLiveSpecification: { AttributeName: attribute, Enabled: enabled } }
    },
    DescribeTimeToLive: async (input) => {
      const attribute = attributes.get(await tableName(input))
      if (attribute === undefined) return { TimeToLiveDescription: { TimeToLiveStatus: 'DISABLED' } }
      return { TimeToLiveDescription: { TimeToLiveStatus: 'ENABLED', AttributeName: attribute } }
    },
  }
}

function tableOf(store: Store, name: string): Promise<Table> {
  return new Promise((resolve, reject) => {
    store.getTable(name, true, (error, table) => (error ? reject(asRefusal(error)) : resolve(table)))
  })
}

function isActive(store: Store, name: string): Promise<boolean> {
  return tableOf(store, name).then(
    () => true,
    () => false,
  )
}

/** dynalite's error as a refusal; anything else stays as it is. */
function asRefusal(error: unknown): unknown {
  if (!(error instanceof Error) || !('body' in error) || !isRecord(error.body)) return error
  const type = String(error.body['__type']).split('#').at(-1) ?? ''
  const { message, Message } = error.body
  return refusal(type, typeof message === 'string' ? message : String(Message))
}

function resources(operation: string, input: Input): string[] {
  if (operation === 'ListTables') return ['*']
  if (operation === 'TransactWriteItems') {
    const items = Array.isArray(input['TransactItems']) ? input['TransactItems'].filter(isRecord) : []
    const requests = items.flatMap((item) => Object.values(item))
    return [...new Set(requests.map((request) => tableArn(isRecord(request) ? request['TableName'] : undefined)))]
  }
  if (isRecord(input['RequestItems'])) return Object.keys(input['RequestItems']).map(tableArn)
  const index = input['IndexName']
  return [typeof index === 'string' ? `${tableArn(input['TableName'])}/index/${index}` : tableArn(input['TableName'])]
}
