import {
  type AttributeValue,
  BatchGetItemCommand,
  BatchWriteItemCommand,
  DeleteItemCommand,
  GetItemCommand,
  ListBackupsCommand,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
  type WriteRequest,
} from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from 'vitest'
import { keyOf, N, S, TableName, useDynamoDb } from './dynamodb-client.ts'

const dynamo = useDynamoDb()

describe('refusals', () => {
  const update = (change: object) => () =>
    dynamo.client().send(
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
      dynamo.client().send(new PutItemCommand({ TableName, Item, ...change }))
  const get =
    (...Keys: Record<string, AttributeValue>[]) =>
    () =>
      dynamo.client().send(new BatchGetItemCommand({ RequestItems: { [TableName]: { Keys } } }))
  const write =
    (...writes: WriteRequest[]) =>
    () =>
      dynamo.client().send(new BatchWriteItemCommand({ RequestItems: { [TableName]: writes } }))
  const query = (pk: AttributeValue) => () =>
    dynamo.client().send(
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
      () => dynamo.client().send(new GetItemCommand({ TableName, Key: keyOf('a'), ProjectionExpression: 'data' })),
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
    await expect(dynamo.client().send(new GetItemCommand({ TableName: 'other', Key }))).rejects.toMatchObject(wanted)
    await expect(dynamo.client().send(new DeleteItemCommand({ TableName: 'other', Key }))).rejects.toMatchObject(wanted)
    const RequestItems = { other: { Keys: [Key] } }
    await expect(dynamo.client().send(new BatchGetItemCommand({ RequestItems }))).rejects.toMatchObject(wanted)
  })

  it('names an operation that it does not have', async () => {
    await expect(dynamo.client().send(new ListBackupsCommand({}))).rejects.toMatchObject({
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
    const response = await fetch(dynamo.endpoint(), {
      method: 'POST',
      headers: { 'x-amz-target': 'DynamoDB_20120810.ListTables', 'x-amz-date': 'now', ...headers },
      body: '{}',
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ __type: type })
  })
})
