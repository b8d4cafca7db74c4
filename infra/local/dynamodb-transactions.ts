import { type AwsOperation, AwsRefusal, isRecord, refusal } from './aws-call.ts'
import { meetsCondition, withoutCondition } from './dynamodb-rules.ts'
import type { Engine, ItemAddress } from './dynamodb.ts'

type Input = Record<string, unknown>

/** The members of a transaction's items, and the operation whose rules each follows; a check looks and writes nothing. */
const operationOf: Record<string, string> = {
  Put: 'PutItem',
  Update: 'UpdateItem',
  Delete: 'DeleteItem',
  ConditionCheck: 'DeleteItem',
}

/**
 * TransactWriteItems: all of up to 100 writes or none, with one cancellation reason an item. A repeated
 * `ClientRequestToken` runs once. Transactions wait for each other, where AWS answers TransactionConflict.
 */
export function createTransactions(engine: Engine): Record<string, AwsOperation> {
  const done = new Map<string, string>()

  const writeAll = async (writes: { member: string; operation: string; data: Input; wantsOld: boolean }[]) => {
    const addresses = await Promise.all(
      writes.map(({ data }) => engine.addressOf(data['TableName'], data['Key'] ?? data['Item'])),
    )
    if (new Set(addresses.map((address) => JSON.stringify(address))).size < writes.length)
      throw refusal('ValidationException', 'Transaction request cannot include multiple operations on one item')

    await engine.exclusively(addresses, async () => {
      const items = await Promise.all(addresses.map((address) => readOld(engine, address)))
      const reasons = writes.map(({ data, wantsOld }, at) => judge(data, items[at], wantsOld))
      if (reasons.some(({ Code }) => Code !== 'None')) throw cancelled(reasons)

      for (const [at, { member, operation, data }] of writes.entries()) {
        if (member === 'ConditionCheck') continue
        try {
          await engine.run(operation, withoutCondition(data))
        } catch (error) {
          if (!(error instanceof AwsRefusal)) throw error
          for (const [undone, { TableName, Key }] of addresses.slice(0, at).entries()) {
            const Item = items[undone]
            await (isRecord(Item)
              ? engine.run('PutItem', { TableName, Item })
              : engine.run('DeleteItem', { TableName, Key }))
          }
          throw cancelled(reasons.with(at, { Code: 'ValidationError', Message: error.message }))
        }
      }
    })
  }

  return {
    TransactWriteItems: async (input) => {
      const items = input['TransactItems']
      if (!Array.isArray(items) || items.length < 1 || items.length > 100)
        throw refusal('ValidationException', "'transactItems' must have length between 1 and 100")
      const { ClientRequestToken: token, ...content } = input
      const request = JSON.stringify(content)
      const sameToken = typeof token === 'string' ? done.get(token) : undefined
      if (sameToken === request) return {}
      if (sameToken !== undefined)
        throw refusal('IdempotentParameterMismatchException', 'The token was used with other parameters')
      await writeAll(items.map((item) => readItem(engine, item)))
      if (typeof token === 'string') done.set(token, request)
      return {}
    },
  }
}

/** The item as it is before the transaction, undefined where there is none, or why its key cannot name one. */
async function readOld(engine: Engine, address: ItemAddress): Promise<Input | AwsRefusal | undefined> {
  try {
    const { Item } = await engine.run('GetItem', { ...address })
    return isRecord(Item) ? Item : undefined
  } catch (error) {
    if (error instanceof AwsRefusal) return error
    throw error
  }
}

/** The cancellation reason that an item of the transaction has, `None` where its condition holds. */
function judge(data: Input, item: Input | AwsRefusal | undefined, wantsOld: boolean): Input {
  if (item instanceof AwsRefusal) return { Code: 'ValidationError', Message: item.message }
  if (meetsCondition(data, item)) return { Code: 'None' }
  const old = wantsOld && item ? { Item: item } : {}
  return { Code: 'ConditionalCheckFailed', Message: 'The conditional request failed', ...old }
}

function readItem(engine: Engine, item: unknown) {
  const [entry, ...others] = Object.entries(isRecord(item) ? item : {})
  const [member, request] = entry ?? []
  const operation = member === undefined ? undefined : operationOf[member]
  if (member === undefined || operation === undefined || !isRecord(request) || others.length > 0)
    throw refusal('ValidationException', 'TransactItems can only contain one of Check, Put, Update or Delete')
  const required = { ConditionCheck: 'ConditionExpression', Update: 'UpdateExpression' }[member]
  if (required !== undefined && typeof request[required] !== 'string')
    throw refusal('ValidationException', `${required} must not be null in a transaction's ${member}`)
  const wantsOld = request['ReturnValuesOnConditionCheckFailure'] === 'ALL_OLD'
  return { member, operation, data: engine.validate(operation, request), wantsOld }
}

function cancelled(reasons: Input[]): AwsRefusal {
  const codes = reasons.map(({ Code }) => Code).join(', ')
  return refusal(
    'TransactionCanceledException',
    `Transaction cancelled, please refer cancellation reasons for specific reasons [${codes}]`,
    { CancellationReasons: reasons },
  )
}
