import { BatchGetItemCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb'

/**
 * The least that a function can do which looks up a session: two keys in one `BatchGetItem` through the SDK, and JSON out. What
 * Coatcheck's functions cost is told as a multiple of this.
 */

const tableName = process.env['FLOOR_TABLE'] ?? ''
const Keys = (process.env['FLOOR_KEYS'] ?? '').split(' ').map((key) => {
  const [pk = '', sk = ''] = key.split(',')
  return { pk: { S: pk }, sk: { S: sk } }
})
const client = new DynamoDBClient({})

/** The sort keys of the two items. */
export const readTwoItems = async (): Promise<string[]> => {
  const { Responses } = await client.send(
    new BatchGetItemCommand({ RequestItems: { [tableName]: { Keys, ConsistentRead: true } } }),
  )
  return (Responses?.[tableName] ?? []).map((item) => item['sk']?.S ?? '')
}

/** A Lambda handler for an event of payload format 2.0. */
export const handler = async () => ({
  statusCode: 200,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(await readTwoItems()),
})
