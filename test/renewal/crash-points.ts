import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { dropConnection, isRecord, loseReply, type AwsCall, type Gate } from '../../infra/local/aws-call.ts'
import type { Fault } from '../support/server.ts'

/** Every call that a flow makes of the outside, by name, and the end of the process at one of them. */

/** Before the call has run, or after it has run and before its answer is there. */
export type When = 'before' | 'after'

const textOf = (value: unknown): string => {
  const text = isRecord(value) ? value['S'] : undefined
  return typeof text === 'string' ? text : ''
}

const namesIn = (input: Record<string, unknown>): string[] =>
  isRecord(input['ExpressionAttributeNames']) ? Object.values(input['ExpressionAttributeNames']).map(String) : []

/** What a call of DynamoDB is for. */
const purposeOf = (operation: string, input: Record<string, unknown>): string => {
  const kind = textOf(isRecord(input['Key']) ? input['Key']['sk'] : undefined).slice(0, 2)
  const names = namesIn(input)
  switch (operation) {
    case 'BatchGetItem':
      return 'reads session and grant'
    case 'PutItem':
      return 'spends the login'
    case 'TransactWriteItems':
      return 'writes session and grant'
    case 'Query':
      return 'lists what the account has'
    case 'DeleteItem':
      return kind === 'S#' ? 'removes the session' : 'removes the grant'
    case 'UpdateItem':
      if (kind === 'S#') return 'moves the idle end'
      if (names.includes('sealed')) return 'saves the tokens'
      return names.includes('retry_at_ms') ? 'takes the lease' : 'takes over the lease'
    default:
      return operation
  }
}

/** The name of an AWS call; those of the background function say so. */
const nameOf = ({ accessKeyId, service, action, input }: AwsCall): string => {
  const operation = action.split(':')[1] ?? ''
  const who = accessKeyId.includes('BACKGROUND') ? 'background: ' : ''
  if (service === 'dynamodb') return who + purposeOf(operation, input)
  if (service === 'lambda') return `${who}queues the task ${String(input['kind'])}`
  return `${who}reads the ${String(input['SecretId']).includes('SealingKeys') ? 'sealing keys' : 'registration'}`
}

/** Crash points of a stack: its gate, faults for the other servers, and what to do at which. */
export const createCrashPoints = () => {
  let armed: { name: string; when: When; kill: () => void } | undefined
  let recorded: string[] | undefined

  const meet = (name: string): When | undefined => {
    recorded?.push(name)
    if (armed?.name !== name) return undefined
    const { when, kill } = armed
    armed = undefined
    // The process is gone before the call runs, which nobody could tell from right after: it hears of nothing any more.
    kill()
    return when
  }

  const gate: Gate = (call) => {
    if (call.accessKeyId === 'LOCALOPERATOR') return undefined
    const when = meet(nameOf(call))
    if (when === 'before') throw dropConnection
    if (when === 'after') throw loseReply
    return undefined
  }

  return {
    gate,
    /** Stands before an endpoint of another server under that name. */
    fault:
      (name: string): Fault =>
      async (proceed) => {
        const when = meet(name)
        if (when === undefined) return await proceed()
        if (when === 'after') await proceed()
        return { status: 0, send: (response) => void response.destroy() }
      },
    /** The names of the calls that were made while it ran, each once. */
    during: async (run: () => Promise<unknown>): Promise<string[]> => {
      const names: string[] = (recorded = [])
      await run()
      recorded = undefined
      return [...new Set(names)]
    },
    /** Kills at the next call of that name. */
    arm: (name: string, when: When, kill: () => void): void => {
      armed = { name, when, kill }
    },
    /** Whether that call was met; there is nothing armed any more. */
    disarm: (): boolean => {
      const met = armed === undefined
      armed = undefined
      return met
    },
  }
}

/** One row of the table in the documentation. */
export type Row = { name: string; before: string; after: string }

/** The rows under a heading of `docs/crash-points.md`. */
export const rowsOf = (heading: string): Row[] => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/crash-points.md'), 'utf8')
  const section = text.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? ''
  return section.split('\n').flatMap((line) => {
    const [, name = '', before = '', after = ''] = line.split('|').map((cell) => cell.trim())
    return name === '' || name === 'call' || /^-+$/.test(name) ? [] : [{ name, before, after }]
  })
}
