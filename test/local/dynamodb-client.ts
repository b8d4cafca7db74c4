import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll } from 'vitest'
import type { AwsCall, AwsServer, Gate } from '../../infra/local/aws-call.ts'
import { startDynamoDb } from '../../infra/local/dynamodb.ts'

export const TableName = 'sessions'
export const S = (text: string) => ({ S: text })
export const N = (number: number) => ({ N: String(number) })
export const keyOf = (pk: string, sk = 'x') => ({ pk: S(pk), sk: S(sk) })

/** A local DynamoDB with one table, for the tests of a file; clients, and a gate that tests may set for the keys they use. */
export const useDynamoDb = () => {
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

  return { client: () => client, endpoint: () => server.endpoint, clientWith, gated }
}
