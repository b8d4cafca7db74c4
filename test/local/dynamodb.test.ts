import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DescribeTimeToLiveCommand,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  TransactionCanceledException,
  TransactWriteItemsCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  UpdateTimeToLiveCommand,
} from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from 'vitest'
import { dropConnection, loseReply } from '../../infra/local/aws-call.ts'
import { keyOf, N, S, TableName, useDynamoDb } from './dynamodb-client.ts'

const dynamo = useDynamoDb()

describe('reads and writes', () => {
  it('gives back what was put, one item and many, consistently', async () => {
    await dynamo
      .client()
      .send(new PutItemCommand({ TableName, Item: { ...keyOf('read'), bytes: { B: new Uint8Array([1, 2]) } } }))
    const { Item } = await dynamo
      .client()
      .send(new GetItemCommand({ TableName, Key: keyOf('read'), ConsistentRead: true }))
    expect(Item?.['bytes']?.B).toEqual(new Uint8Array([1, 2]))
    const { Responses } = await dynamo.client().send(
      new BatchGetItemCommand({
        RequestItems: { [TableName]: { Keys: [keyOf('read'), keyOf('read', 'none')], ConsistentRead: true } },
      }),
    )
    expect(Responses?.[TableName]).toEqual([Item])
  })

  it('lists the items of one partition in order', async () => {
    await dynamo.client().send(
      new BatchWriteItemCommand({
        RequestItems: {
          [TableName]: ['S#2', 'S#1', 'G#1'].map((sk) => ({ PutRequest: { Item: keyOf('list', sk) } })),
        },
      }),
    )
    const { Items } = await dynamo.client().send(
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
    await dynamo.client().send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification }))
    const { TimeToLiveDescription } = await dynamo.client().send(new DescribeTimeToLiveCommand({ TableName }))
    expect(TimeToLiveDescription).toEqual({ TimeToLiveStatus: 'ENABLED', AttributeName: 'ttl' })
    await expect(
      dynamo.client().send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification })),
    ).rejects.toThrow('TimeToLive is already enabled')
    await dynamo.client().send(new PutItemCommand({ TableName, Item: { ...keyOf('expired'), ttl: N(1) } }))
    const { Item } = await dynamo.client().send(new GetItemCommand({ TableName, Key: keyOf('expired') }))
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
    await dynamo.client().send(new PutItemCommand({ TableName, Item: { ...keyOf('lease'), version: N(1) } }))
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, () => dynamo.client().send(new UpdateItemCommand(claim('lease', 1)))),
    )
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
    expect(failures).toHaveLength(49)
    for (const failure of failures) {
      expect(failure).toBeInstanceOf(ConditionalCheckFailedException)
      expect(failure.Item).toEqual({ ...keyOf('lease'), version: N(2) })
    }
  })

  it('answers a lost race with the very item that the condition was judged against', async () => {
    await dynamo.client().send(new PutItemCommand({ TableName, Item: { ...keyOf('race'), version: N(0) } }))
    const races: { seen: number; found: number }[] = []
    const climb = async () => {
      let seen = 0
      for (let wins = 0; wins < 10;) {
        try {
          await dynamo.client().send(new UpdateItemCommand(claim('race', seen)))
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
    const { Item } = await dynamo.client().send(new GetItemCommand({ TableName, Key: keyOf('race') }))
    expect(Item?.['version']).toEqual(N(80))
  })

  it('leaves the item out of the refusal unless it is asked for', async () => {
    const there = { TableName, ConditionExpression: 'attribute_exists(gone)' }
    const Item = keyOf('there')
    await dynamo.client().send(new PutItemCommand({ TableName, Item }))
    await expect(dynamo.client().send(new PutItemCommand({ ...there, Item }))).rejects.toMatchObject({
      name: 'ConditionalCheckFailedException',
      message: 'The conditional request failed',
      Item: undefined,
    })
    const asked = { ...there, ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const }
    await expect(dynamo.client().send(new PutItemCommand({ ...asked, Item }))).rejects.toMatchObject({ Item })
    await expect(dynamo.client().send(new DeleteItemCommand({ ...asked, Key: Item }))).rejects.toMatchObject({ Item })
  })

  it('carries no item where there is none', async () => {
    await expect(dynamo.client().send(new UpdateItemCommand(claim('nobody', 1)))).rejects.toMatchObject({
      name: 'ConditionalCheckFailedException',
      Item: undefined,
    })
  })

  it('does not hold for a comparison with an attribute that is missing', async () => {
    await dynamo.client().send(new PutItemCommand({ TableName, Item: { ...keyOf('half'), a: S('x') } }))
    const ConditionExpression = 'begins_with(a, b)'
    await expect(
      dynamo.client().send(new PutItemCommand({ TableName, Item: keyOf('half'), ConditionExpression })),
    ).rejects.toThrow(ConditionalCheckFailedException)
  })
})

describe('transactions', () => {
  const put = (pk: string, extra = {}) => ({ Put: { TableName, Item: keyOf(pk), ...extra } })
  const exists = async (pk: string) =>
    (await dynamo.client().send(new GetItemCommand({ TableName, Key: keyOf(pk) }))).Item !== undefined

  it('writes all or nothing and says which condition failed', async () => {
    const unique = {
      ConditionExpression: 'attribute_not_exists(pk)',
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const,
    }
    await dynamo.client().send(new TransactWriteItemsCommand({ TransactItems: [put('t1', unique), put('t2', unique)] }))
    const again = dynamo
      .client()
      .send(new TransactWriteItemsCommand({ TransactItems: [put('t3', unique), put('t2', unique)] }))
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
    await expect(dynamo.client().send(new TransactWriteItemsCommand({ TransactItems: items }))).rejects.toMatchObject({
      CancellationReasons: [{ Code: 'None' }, { Code: 'ValidationError' }],
    })
    expect(await exists('t4')).toBe(false)
  })

  it('runs once for one token, also when its reply was lost', async () => {
    const retrying = dynamo.clientWith(3)
    const calls = dynamo.gated('once', () => {
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
    await expect(dynamo.client().send(new TransactWriteItemsCommand({ TransactItems }))).rejects.toMatchObject({
      name: 'ValidationException',
    })
  })
})

describe('the gate', () => {
  it('sees who does what to which table before it happens', async () => {
    const calls = dynamo.gated('seen', () => undefined)
    await dynamo.client().send(new PutItemCommand({ TableName, Item: keyOf('seen') }))
    expect(calls).toEqual([
      {
        accessKeyId: 'AKIDCALLER',
        service: 'dynamodb',
        action: 'dynamodb:PutItem',
        resources: [`arn:aws:dynamodb:us-east-1:000000000000:table/${TableName}`],
        input: { TableName, Item: keyOf('seen') },
        also: [],
      },
    ])
  })

  it('answers a fault instead of running the call', async () => {
    dynamo.gated('throttled', () => ({ status: 400, type: 'ThrottlingException', message: 'Rate exceeded' }))
    const putThrottled = dynamo.client().send(new PutItemCommand({ TableName, Item: keyOf('throttled') }))
    await expect(putThrottled).rejects.toMatchObject({ name: 'ThrottlingException', message: 'Rate exceeded' })
  })

  it('cuts the connection before the call runs', async () => {
    const calls = dynamo.gated('cut', (call) => {
      if (call.action === 'dynamodb:PutItem') throw dropConnection
      return undefined
    })
    await expect(dynamo.client().send(new PutItemCommand({ TableName, Item: keyOf('cut') }))).rejects.toThrow(
      /ECONNRESET|hang up/,
    )
    expect(await dynamo.client().send(new GetItemCommand({ TableName, Key: keyOf('cut') }))).not.toHaveProperty('Item')
    expect(calls).toHaveLength(2)
  })

  it('cuts the connection after the call has run, so that the retry meets its own write', async () => {
    const retrying = dynamo.clientWith(3)
    const calls = dynamo.gated('lost', () => {
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
