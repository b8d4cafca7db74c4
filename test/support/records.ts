import {
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  paginateScan,
  UpdateItemCommand,
  type AttributeValue,
} from '@aws-sdk/client-dynamodb'
import { REGION } from '../../infra/local/aws-call.ts'
import { operatorAccessKeyId, type LocalStack } from '../../infra/local/stack.ts'

type StoredItem = Record<string, AttributeValue>

/**
 * The records of a running stack's table in an operator's hands. `age` sets plain attributes of every grant or session, which is how
 * a test meets an old token without waiting for it.
 */
export const openRecords = (stack: LocalStack) => {
  const credentials = { accessKeyId: operatorAccessKeyId, secretAccessKey: 'operator' }
  const client = new DynamoDBClient({ region: REGION, credentials, endpoint: stack.endpoints.dynamodb })
  const TableName = stack.physicalId('Table')

  const all = async (kind: 'grant' | 'session'): Promise<StoredItem[]> => {
    const found: StoredItem[] = []
    const prefix = kind === 'grant' ? 'G#' : 'S#'
    for await (const { Items = [] } of paginateScan({ client }, { TableName })) {
      found.push(...Items.filter(({ sk }) => sk?.S?.startsWith(prefix)))
    }
    return found
  }

  const set = async ({ pk, sk }: StoredItem, attributes: StoredItem): Promise<void> => {
    if (pk === undefined || sk === undefined) return
    const names = Object.keys(attributes)
    // What has been removed since it was read stays removed.
    const update = client.send(
      new UpdateItemCommand({
        TableName,
        Key: { pk, sk },
        ConditionExpression: 'attribute_exists(pk)',
        UpdateExpression: `SET ${names.map((_, index) => `#n${index} = :v${index}`).join(', ')}`,
        ExpressionAttributeNames: Object.fromEntries(names.map((name, index) => [`#n${index}`, name])),
        ExpressionAttributeValues: Object.fromEntries(
          Object.values(attributes).map((value, index) => [`:v${index}`, value]),
        ),
      }),
    )
    await update.catch((error: unknown) => {
      if (!(error instanceof ConditionalCheckFailedException)) throw error
    })
  }

  const age = async (kind: 'grant' | 'session', attributes: Record<string, number>): Promise<void> => {
    const numbers = Object.entries(attributes).map(([name, value]) => [name, { N: String(value) }] as const)
    const items = await all(kind)
    for (let start = 0; start < items.length; start += 25) {
      await Promise.all(items.slice(start, start + 25).map((item) => set(item, Object.fromEntries(numbers))))
    }
  }

  return {
    all,
    set,
    /** A record is gone, as if whoever removed it had been stopped right then. */
    remove: async ({ pk, sk }: StoredItem): Promise<void> => {
      if (pk !== undefined && sk !== undefined) await client.send(new DeleteItemCommand({ TableName, Key: { pk, sk } }))
    },
    age,
    /** Every access token has ended, as far as the stack knows. */
    expireTokens: () => age('grant', { expires: 0, fresh_until: 0 }),
    /** Every access token is due to be renewed, and still good. */
    makeTokensDue: () => age('grant', { fresh_until: 0 }),
    /** Every lease has run out, and so has the time for which an authorization server that failed is left alone. */
    endLeases: () => age('grant', { lease_until_ms: 0, retry_at_ms: 0 }),
    close: () => client.destroy(),
  }
}
