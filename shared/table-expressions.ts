import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { Failure } from './errors.ts'
import type { Change, Condition, Item, Key, Value } from './table.ts'

/** Items and conditions of the table as DynamoDB writes them. */

const encode = (value: Value): AttributeValue => {
  if (typeof value === 'string') return { S: value }
  if (typeof value === 'number') return { N: String(value) }
  return { B: value }
}

/** Attributes of DynamoDB from ours. */
export const encodeItem = (item: Key | Item): Record<string, AttributeValue> =>
  Object.fromEntries(Object.entries<Value>({ ...item }).map(([name, value]) => [name, encode(value)]))

/** Ours from DynamoDB's; what we never write is left out. @throws store_unavailable for what has no key */
export const decodeItem = (attributes: Record<string, AttributeValue>): Item => {
  const item: Record<string, Value> = {}
  for (const [name, value] of Object.entries(attributes)) {
    if (value.S !== undefined) item[name] = value.S
    else if (value.N !== undefined) item[name] = Number(value.N)
    else if (value.B !== undefined) item[name] = value.B
  }
  const { pk, sk } = item
  if (typeof pk !== 'string' || typeof sk !== 'string')
    throw new Failure('store_unavailable', { detail: 'item without key' })
  return { ...item, pk, sk }
}

/** Collects the placeholders of one expression; every name has one, since any may be a reserved word. */
export const expressions = () => {
  const names: Record<string, string> = {}
  const values: Record<string, AttributeValue> = {}
  const nameOf = (attribute: string): string => {
    names[`#${attribute}`] = attribute
    return `#${attribute}`
  }
  const valueOf = (value: Value): string => {
    const placeholder = `:v${Object.keys(values).length}`
    values[placeholder] = encode(value)
    return placeholder
  }
  return {
    condition: (when: readonly Condition[]): string[] =>
      when.map(([name, operator, value]) =>
        operator === 'absent or <'
          ? `(attribute_not_exists(${nameOf(name)}) OR ${nameOf(name)} < ${valueOf(value)})`
          : `${nameOf(name)} ${operator} ${valueOf(value)}`,
      ),
    update: ({ set = {}, remove = [] }: Omit<Change, 'when'>): string => {
      const assignments = Object.entries(set).map(([name, value]) => `${nameOf(name)} = ${valueOf(value)}`)
      return [
        assignments.length > 0 ? `SET ${assignments.join(', ')}` : '',
        remove.length > 0 ? `REMOVE ${remove.map(nameOf).join(', ')}` : '',
      ]
        .filter((part) => part !== '')
        .join(' ')
    },
    used: () => ({
      ...(Object.keys(names).length > 0 && { ExpressionAttributeNames: names }),
      ...(Object.keys(values).length > 0 && { ExpressionAttributeValues: values }),
    }),
  }
}
