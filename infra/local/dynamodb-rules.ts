import db from 'dynalite/db/index.js'
import { type AwsRefusal, isRecord, refusal } from './aws-call.ts'

type Input = Record<string, unknown>

/** Refuses input that AWS refuses and dynalite lets through. */
export function refuseLikeAws(operation: string, input: Input): void {
  if (['DeleteItem', 'PutItem', 'UpdateItem'].includes(operation)) {
    const onFailure = input['ReturnValuesOnConditionCheckFailure'] ?? 'NONE'
    if (onFailure !== 'ALL_OLD' && onFailure !== 'NONE')
      throw invalid(
        "1 validation error detected: Value at 'returnValuesOnConditionCheckFailure' failed to satisfy constraint: " +
          'Member must satisfy enum value set: [ALL_OLD, NONE]',
      )
    const returned = input['ReturnValues'] ?? 'NONE'
    if (operation === 'DeleteItem' && returned !== 'ALL_OLD' && returned !== 'NONE')
      throw invalid('ReturnValues can only be ALL_OLD or NONE')
  }
  for (const [member, value] of Object.entries(input)) {
    const bytes = member.endsWith('Expression') && typeof value === 'string' ? Buffer.byteLength(value) : 0
    if (bytes > 4096)
      throw invalid(
        `Invalid ${member}: Expression size has exceeded the maximum allowed size; expression size: ${bytes}`,
      )
  }
  if (operation !== 'BatchWriteItem') return
  const batch = batchOf(input)
  if (batch.length > 25) throw invalid('Too many items requested for the BatchWriteItem call')
  if (batch.some(([, { PutRequest, DeleteRequest }]) => PutRequest !== undefined && DeleteRequest !== undefined))
    throw invalid(
      'Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes',
    )
}

/** Refuses an empty key value in a parsed key condition; dynalite looks for none there. */
export function refuseEmptyKeys(conditions: unknown): void {
  for (const [name, condition] of Object.entries(isRecord(conditions) ? conditions : {})) {
    const values =
      isRecord(condition) && Array.isArray(condition['AttributeValueList']) ? condition['AttributeValueList'] : []
    if (values.some((value) => isRecord(value) && (value['S'] === '' || value['B'] === '')))
      throw invalid(
        'One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty ' +
          `string value. Key: ${name}`,
      )
  }
}

/** Refuses keys that are too long in bytes; dynalite counts characters. */
export function refuseLongKeys(values: unknown[]): void {
  for (const [at, value] of values.entries()) {
    const maxBytes = at === 0 ? 2048 : 1024
    if (isRecord(value) && typeof value['S'] === 'string' && Buffer.byteLength(value['S']) > maxBytes)
      throw invalid(
        `One or more parameter values were invalid: Size of ${at === 0 ? 'hash' : 'range'}key has exceeded the maximum ` +
          `size limit of ${maxBytes} bytes`,
      )
  }
}

/** A refusal of the input's content. */
export function invalid(message: string): AwsRefusal {
  return refusal('ValidationException', message)
}

/** The writes of a BatchWriteItem input, each with the name of its table. */
export function batchOf(input: Input): [string, Input][] {
  const tables = isRecord(input['RequestItems']) ? Object.entries(input['RequestItems']) : []
  return tables.flatMap(([tableName, writes]) =>
    Array.isArray(writes) ? writes.filter(isRecord).map((write): [string, Input] => [tableName, write]) : [],
  )
}

/**
 * Whether the item, undefined where there is none, meets the validated input's condition. A condition that compares two
 * attributes of which one is missing is not met; dynalite throws there, out of reach of any caller.
 */
export function meetsCondition(data: Input, item: unknown): boolean {
  try {
    return !db.checkConditional(data, item)
  } catch {
    return false
  }
}

/** The validated input with its condition taken out, as one that has been judged. */
export function withoutCondition(data: Input): Input {
  return { ...data, _condition: undefined, Expected: undefined }
}
