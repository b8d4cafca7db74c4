import {
  type AttributeValue,
  BatchGetItemCommand,
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DescribeTimeToLiveCommand,
  DynamoDBClient,
  GetItemCommand,
  ListBackupsCommand,
  PutItemCommand,
  QueryCommand,
  TransactionCanceledException,
  TransactWriteItemsCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  UpdateTimeToLiveCommand,
  type WriteRequest,
} from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AwsCall, type AwsServer, dropConnection, type Gate, loseReply } from '../../infra/local/aws-call.ts'
import { startDynamoDb } from '../../infra/local/dynamodb.ts'

const TableName = 'sessions'
const S = (text: string) => ({ S: text })
const N = (number: number) => ({ N: String(number) })
const keyOf = (pk: string, sk = 'x') => ({ pk: S(pk), sk: S(sk) })

let gate: Gate = () => undefined
let server: AwsServer
let client: DynamoDBClient

const clientWith = (maxAttempts: number) =>
  new DynamoDBClient({
    endpoint: server.endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'AKIDCALLER', secretAccessKey: 'secret' },
    maxAttempts,
  })

/** The calls that the gate decides about while the test runs; calls of other tests go through. */
const gated = (pk: string, decide: Gate) => {
  const calls: AwsCall[] = []
  const before = gate
  gate = (call) => {
    if (!JSON.stringify(call.input).includes(`"${pk}"`)) return before(call)
    calls.push(call)
    return decide(call)
  }
  return calls
}

beforeAll(async () => {
  server = await startDynamoDb({ gate: (call) => gate(call) })
  await server.call('CreateTable', {
    TableName,
    BillingMode: 'PAY_PER_REQUEST',
    KeySchema: [
      { AttributeName: 'pk', KeyType: 'HASH' },
      { AttributeName: 'sk', KeyType: 'RANGE' },
    ],
    AttributeDefinitions: [
      { AttributeName: 'pk', AttributeType: 'S' },
      { AttributeName: 'sk', AttributeType: 'S' },
    ],
  })
  client = clientWith(1)
})

afterAll(async () => {
  client.destroy()
  await server.close()
})

describe('reads and writes', () => {
  it('gives back what was put, one item and many, consistently', async () => {
    await client.send(
      new PutItemCommand({ TableName, Item: { ...keyOf('read'), bytes: { B: new Uint8Array([1, 2]) } } }),
    )
    const { Item } = await client.send(new GetItemCommand({ TableName, Key: keyOf('read'), ConsistentRead: true }))
    expect(Item?.['bytes']?.B).toEqual(new Uint8Array([1, 2]))
    const { Responses } = await client.send(
      new BatchGetItemCommand({
        RequestItems: { [TableName]: { Keys: [keyOf('read'), keyOf('read', 'none')], ConsistentRead: true } },
      }),
    )
    expect(Responses?.[TableName]).toEqual([Item])
  })

  it('lists the items of one partition in order', async () => {
    await client.send(
      new BatchWriteItemCommand({
        RequestItems: {
          [TableName]: ['S#2', 'S#1', 'G#1'].map((sk) => ({ PutRequest: { Item: keyOf('list', sk) } })),
        },
      }),
    )
    const { Items } = await client.send(
      new QueryCommand({
        TableName,
        KeyConditionExpression: 'pk = :pk AND begins_with(sk, :prefix)',
        ExpressionAttributeValues: { ':pk': S('list'), ':prefix': S('S#') },
      }),
    )
    expect(Items?.map(({ sk }) => sk?.S)).toEqual(['S#1', 'S#2'])
  })

  it('keeps an expired item readable, as AWS does for days, and remembers the TTL setting', async () => {
    const TimeToLiveSpecification = { AttributeName: 'ttl', Enabled: true }
    await client.send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification }))
    const { TimeToLiveDescription } = await client.send(new DescribeTimeToLiveCommand({ TableName }))
    expect(TimeToLiveDescription).toEqual({ TimeToLiveStatus: 'ENABLED', AttributeName: 'ttl' })
    await expect(client.send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification }))).rejects.toThrow(
      'TimeToLive is already enabled',
    )
    await client.send(new PutItemCommand({ TableName, Item: { ...keyOf('expired'), ttl: N(1) } }))
    const { Item } = await client.send(new GetItemCommand({ TableName, Key: keyOf('expired') }))
    expect(Item).toBeDefined()
  })
})

describe('conditions', () => {
  const claim = (pk: string, seen: number): UpdateItemCommandInput => ({
    TableName,
    Key: keyOf(pk),
    UpdateExpression: 'SET version = :next',
    ConditionExpression: 'version = :seen',
    ExpressionAttributeValues: { ':seen': N(seen), ':next': N(seen + 1) },
    ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
  })

  it('lets exactly one of fifty claims win and shows every loser the item that beat it', async () => {
    await client.send(new PutItemCommand({ TableName, Item: { ...keyOf('lease'), version: N(1) } }))
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, () => client.send(new UpdateItemCommand(claim('lease', 1)))),
    )
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
    expect(failures).toHaveLength(49)
    for (const failure of failures) {
      expect(failure).toBeInstanceOf(ConditionalCheckFailedException)
      expect(failure.Item).toEqual({ ...keyOf('lease'), version: N(2) })
    }
  })

  it('answers a lost race with the very item that the condition was judged against', async () => {
    await client.send(new PutItemCommand({ TableName, Item: { ...keyOf('race'), version: N(0) } }))
    const races: { seen: number; found: number }[] = []
    const climb = async () => {
      let seen = 0
      for (let wins = 0; wins < 10;) {
        try {
          await client.send(new UpdateItemCommand(claim('race', seen)))
          wins += 1
          seen += 1
        } catch (error) {
          if (!(error instanceof ConditionalCheckFailedException)) throw error
          const found = Number(error.Item?.['version']?.N)
          races.push({ seen, found })
          seen = found
        }
      }
    }
    await Promise.all(Array.from({ length: 8 }, climb))
    expect(races.filter(({ seen, found }) => !(found > seen))).toEqual([])
    const { Item } = await client.send(new GetItemCommand({ TableName, Key: keyOf('race') }))
    expect(Item?.['version']).toEqual(N(80))
  })

  it('leaves the item out of the refusal unless it is asked for', async () => {
    const there = { TableName, ConditionExpression: 'attribute_exists(gone)' }
    const Item = keyOf('there')
    await client.send(new PutItemCommand({ TableName, Item }))
    await expect(client.send(new PutItemCommand({ ...there, Item }))).rejects.toMatchObject({
      name: 'ConditionalCheckFailedException',
      message: 'The conditional request failed',
      Item: undefined,
    })
    const asked = { ...there, ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const }
    await expect(client.send(new PutItemCommand({ ...asked, Item }))).rejects.toMatchObject({ Item })
    await expect(client.send(new DeleteItemCommand({ ...asked, Key: Item }))).rejects.toMatchObject({ Item })
  })

  it('carries no item where there is none', async () => {
    await expect(client.send(new UpdateItemCommand(claim('nobody', 1)))).rejects.toMatchObject({
      name: 'ConditionalCheckFailedException',
      Item: undefined,
    })
  })

  it('does not hold for a comparison with an attribute that is missing', async () => {
    await client.send(new PutItemCommand({ TableName, Item: { ...keyOf('half'), a: S('x') } }))
    const ConditionExpression = 'begins_with(a, b)'
    await expect(
      client.send(new PutItemCommand({ TableName, Item: keyOf('half'), ConditionExpression })),
    ).rejects.toThrow(ConditionalCheckFailedException)
  })
})

describe('transactions', () => {
  const put = (pk: string, extra = {}) => ({ Put: { TableName, Item: keyOf(pk), ...extra } })
  const exists = async (pk: string) =>
    (await client.send(new GetItemCommand({ TableName, Key: keyOf(pk) }))).Item !== undefined

  it('writes all or nothing and says which condition failed', async () => {
    const unique = {
      ConditionExpression: 'attribute_not_exists(pk)',
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const,
    }
    await client.send(new TransactWriteItemsCommand({ TransactItems: [put('t1', unique), put('t2', unique)] }))
    const again = client.send(new TransactWriteItemsCommand({ TransactItems: [put('t3', unique), put('t2', unique)] }))
    await expect(again).rejects.toBeInstanceOf(TransactionCanceledException)
    await expect(again).rejects.toMatchObject({
      CancellationReasons: [{ Code: 'None' }, { Code: 'ConditionalCheckFailed', Item: keyOf('t2') }],
    })
    expect(await exists('t3')).toBe(false)
  })

  it('undoes what it wrote when a later write cannot be made', async () => {
    const impossible = {
      Update: {
        TableName,
        Key: keyOf('t5'),
        UpdateExpression: 'SET a = absent + :one',
        ExpressionAttributeValues: { ':one': N(1) },
      },
    }
    const items = [put('t4'), impossible]
    await expect(client.send(new TransactWriteItemsCommand({ TransactItems: items }))).rejects.toMatchObject({
      CancellationReasons: [{ Code: 'None' }, { Code: 'ValidationError' }],
    })
    expect(await exists('t4')).toBe(false)
  })

  it('runs once for one token, also when its reply was lost', async () => {
    const retrying = clientWith(3)
    const calls = gated('once', () => {
      if (calls.length === 1) throw loseReply
      return undefined
    })
    const unique = { ConditionExpression: 'attribute_not_exists(pk)' }
    await retrying.send(new TransactWriteItemsCommand({ TransactItems: [put('once', unique)] }))
    expect(calls).toHaveLength(2)
    retrying.destroy()
  })

  it.each([
    ['no items', []],
    ['more than 100 items', Array.from({ length: 101 }, (_, at) => put(`many-${at}`))],
    ['two writes of one item', [put('same'), { Delete: { TableName, Key: keyOf('same') } }]],
    ['an item with two operations', [{ ...put('two'), Delete: { TableName, Key: keyOf('two') } }]],
    [
      'a check without a condition',
      [{ ConditionCheck: { TableName, Key: keyOf('a'), ConditionExpression: undefined } }],
    ],
  ])('refuses %s', async (_, TransactItems) => {
    await expect(client.send(new TransactWriteItemsCommand({ TransactItems }))).rejects.toMatchObject({
      name: 'ValidationException',
    })
  })
})

describe('refusals', () => {
  const update = (change: object) => () =>
    client.send(
      new UpdateItemCommand({
        TableName,
        Key: keyOf('refused'),
        UpdateExpression: 'SET a = :a',
        ExpressionAttributeValues: { ':a': N(1) },
        ...change,
      }),
    )
  const put =
    (Item: Record<string, AttributeValue>, change = {}) =>
    () =>
      client.send(new PutItemCommand({ TableName, Item, ...change }))
  const get =
    (...Keys: Record<string, AttributeValue>[]) =>
    () =>
      client.send(new BatchGetItemCommand({ RequestItems: { [TableName]: { Keys } } }))
  const write =
    (...writes: WriteRequest[]) =>
    () =>
      client.send(new BatchWriteItemCommand({ RequestItems: { [TableName]: writes } }))
  const query = (pk: AttributeValue) => () =>
    client.send(
      new QueryCommand({
        TableName,
        KeyConditionExpression: 'pk = :pk',
        ExpressionAttributeValues: { ':pk': pk },
      }),
    )

  it.each([
    ['a reserved word to set', update({ UpdateExpression: 'SET ttl = :a' }), /reserved keyword: ttl/],
    ['a reserved word in a condition', update({ ConditionExpression: 'status = :a' }), /reserved keyword: status/],
    [
      'a reserved word to read',
      () => client.send(new GetItemCommand({ TableName, Key: keyOf('a'), ProjectionExpression: 'data' })),
      /reserved keyword: data/,
    ],
    ['an unused name', update({ ExpressionAttributeNames: { '#b': 'b' } }), /unused in expressions: keys: {#b}/],
    ['an unused value', update({ ExpressionAttributeValues: { ':a': N(1), ':b': N(1) } }), /unused .*keys: {:b}/],
    ['an undefined name', update({ UpdateExpression: 'SET #a = :a' }), /attribute name: #a/],
    ['an undefined value', update({ UpdateExpression: 'SET a = :b, b = :a' }), /attribute value: :b/],
    ['empty names', update({ ExpressionAttributeNames: {} }), /must not be empty/],
    ['an empty expression', update({ UpdateExpression: '' }), /can not be empty/],
    ['a long expression', update({ UpdateExpression: `SET ${'a'.repeat(4090)} = :a` }), /maximum allowed size/],
    ['a change of the key', update({ UpdateExpression: 'SET pk = :a' }), /part of the key/],
    ['an unknown ALL_OLD', update({ ReturnValuesOnConditionCheckFailure: 'ALL_NEW' }), /ALL_OLD, NONE/],
    ['no table name', update({ TableName: undefined }), /null at 'tableName'/],
    ['a missing sort key', update({ Key: { pk: S('a') } }), /does not match the schema/],
    ['a key with one attribute more', update({ Key: { ...keyOf('a'), b: S('b') } }), /does not match the schema/],
    ['a key of a wrong type', update({ Key: { pk: N(1), sk: S('x') } }), /does not match the schema/],
    ['an empty key', update({ Key: keyOf('') }), /empty string value. Key: pk/],
    ['a put without its sort key', put({ pk: S('a') }), /Missing the key sk/],
    ['a put with a key of a wrong type', put({ pk: N(1), sk: S('x') }), /Type mismatch for key pk/],
    ['a put with an empty key', put(keyOf('a', '')), /empty string value. Key: sk/],
    ['a key of too many bytes', put(keyOf('é'.repeat(1025))), /2048 bytes/],
    ['an item of more than 400 KB', put({ ...keyOf('big'), a: S('x'.repeat(400 * 1024)) }), /maximum allowed size/],
    [
      'more than 100 keys',
      get(...Array.from({ length: 101 }, (_, at) => keyOf(`k${at}`))),
      /less than or equal to 100/,
    ],
    ['one key twice', get(keyOf('a'), keyOf('a')), /duplicates/],
    ['an empty key in a batch', get(keyOf('')), /empty string value/],
    [
      'more than 25 writes',
      write(...Array.from({ length: 26 }, (_, at) => ({ DeleteRequest: { Key: keyOf(`k${at}`) } }))),
      /Too many items requested/,
    ],
    [
      'two writes of one key',
      write({ PutRequest: { Item: keyOf('a') } }, { DeleteRequest: { Key: keyOf('a') } }),
      /duplicates/,
    ],
    [
      'a put that is also a delete',
      write({ PutRequest: { Item: keyOf('a') }, DeleteRequest: { Key: keyOf('b') } }),
      /more than one datatypes/,
    ],
    ['a query for an empty key', query(S('')), /empty string value. Key: pk/],
    ['a query for a key of a wrong type', query(N(1)), /does not match schema type/],
  ])('refuses %s', async (_, send, message) => {
    await expect(send()).rejects.toMatchObject({ name: 'ValidationException', message: expect.stringMatching(message) })
  })

  it('knows only its own tables', async () => {
    const Key = keyOf('a')
    const wanted = { name: 'ResourceNotFoundException', message: 'Requested resource not found' }
    await expect(client.send(new GetItemCommand({ TableName: 'other', Key }))).rejects.toMatchObject(wanted)
    await expect(client.send(new DeleteItemCommand({ TableName: 'other', Key }))).rejects.toMatchObject(wanted)
    const RequestItems = { other: { Keys: [Key] } }
    await expect(client.send(new BatchGetItemCommand({ RequestItems }))).rejects.toMatchObject(wanted)
  })

  it('names an operation that it does not have', async () => {
    await expect(client.send(new ListBackupsCommand({}))).rejects.toMatchObject({
      name: 'UnknownOperationException',
      message: expect.stringContaining('ListBackups'),
    })
  })

  it.each([
    ['no signature', {}, 'MissingAuthenticationTokenException'],
    ['half a signature', { authorization: 'AWS4-HMAC-SHA256 Credential=a/b/c/d/e' }, 'IncompleteSignatureException'],
    [
      'a signature for another region',
      { authorization: 'AWS4-HMAC-SHA256 Credential=a/b/eu-west-1/dynamodb/e, SignedHeaders=host, Signature=0' },
      'InvalidSignatureException',
    ],
  ])('refuses a call with %s', async (_, headers, type) => {
    const response = await fetch(server.endpoint, {
      method: 'POST',
      headers: { 'x-amz-target': 'DynamoDB_20120810.ListTables', 'x-amz-date': 'now', ...headers },
      body: '{}',
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ __type: type })
  })
})

describe('the gate', () => {
  it('sees who does what to which table before it happens', async () => {
    const calls = gated('seen', () => undefined)
    await client.send(new PutItemCommand({ TableName, Item: keyOf('seen') }))
    expect(calls).toEqual([
      {
        accessKeyId: 'AKIDCALLER',
        service: 'dynamodb',
        action: 'dynamodb:PutItem',
        resources: [`arn:aws:dynamodb:us-east-1:000000000000:table/${TableName}`],
        input: { TableName, Item: keyOf('seen') },
      },
    ])
  })

  it('answers a fault instead of running the call', async () => {
    gated('throttled', () => ({ status: 400, type: 'ThrottlingException', message: 'Rate exceeded' }))
    const putThrottled = client.send(new PutItemCommand({ TableName, Item: keyOf('throttled') }))
    await expect(putThrottled).rejects.toMatchObject({ name: 'ThrottlingException', message: 'Rate exceeded' })
  })

  it('cuts the connection before the call runs', async () => {
    const calls = gated('cut', (call) => {
      if (call.action === 'dynamodb:PutItem') throw dropConnection
      return undefined
    })
    await expect(client.send(new PutItemCommand({ TableName, Item: keyOf('cut') }))).rejects.toThrow(
      /ECONNRESET|hang up/,
    )
    expect(await client.send(new GetItemCommand({ TableName, Key: keyOf('cut') }))).not.toHaveProperty('Item')
    expect(calls).toHaveLength(2)
  })

  it('cuts the connection after the call has run, so that the retry meets its own write', async () => {
    const retrying = clientWith(3)
    const calls = gated('lost', () => {
      if (calls.length === 1) throw loseReply
      return undefined
    })
    const once = {
      ConditionExpression: 'attribute_not_exists(pk)',
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const,
    }
    const Item = keyOf('lost')
    await expect(retrying.send(new PutItemCommand({ TableName, Item, ...once }))).rejects.toMatchObject({
      name: 'ConditionalCheckFailedException',
      Item,
    })
    expect(calls).toHaveLength(2)
    retrying.destroy()
  })
})
