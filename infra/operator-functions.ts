import { InvokeCommand, LambdaClient, paginateListFunctions } from '@aws-sdk/client-lambda'
import type { FunctionConfiguration } from '@aws-sdk/client-lambda'
import * as z from 'zod/mini'
import { accessAt, Refusal, tell } from './operator.ts'

/** Functions of a deployed stack that do something for an operator, who needs no key and no secret of the stack for it. */

/** Longer than any of these functions may take. */
const PATIENCE_MS = 90_000

/** Whoever waits longer than that is told what for. */
const QUIET_MS = 2_000

/** What Lambda says of a function that failed. */
const functionError = () => z.object({ errorType: z.optional(z.string()), errorMessage: z.string() })

/** The providers of the stage that a function has in its environment. */
const providersOf = ({ Environment: environment }: FunctionConfiguration): string[] => {
  try {
    const stage = z.object({ providers: z.record(z.string(), z.unknown()) })
    return Object.keys(stage.parse(JSON.parse(environment?.Variables?.['COATCHECK_STAGE'] ?? '')).providers)
  } catch {
    return []
  }
}

/** The one function of that description in the stack of a provider. @throws Refusal where there is none, or several */
const functionOf = async (client: LambdaClient, description: string, provider: string): Promise<string> => {
  const named: FunctionConfiguration[] = []
  for await (const { Functions: page = [] } of paginateListFunctions({ client }, {})) {
    named.push(...page.filter((one) => one.Description === description))
  }
  const found = named.flatMap((one) =>
    one.FunctionName !== undefined && providersOf(one).includes(provider) ? one.FunctionName : [],
  )
  const [name, ...more] = found
  if (name === undefined) {
    const others = [...new Set(named.flatMap(providersOf))].toSorted()
    const known = others.length === 0 ? 'no stack of Coatcheck' : `only ${others.join(', ')}`
    throw new Refusal(`There is no provider ${provider} in this account and region; there is ${known}.`)
  }
  if (more.length > 0)
    throw new Refusal(`Several stacks have a provider ${provider}; add --function and one of ${found.join(' ')}`)
  return name
}

const parsed = (payload: Uint8Array | undefined): unknown => {
  try {
    return JSON.parse(Buffer.from(payload ?? []).toString())
  } catch {
    return undefined
  }
}

/** Gives an order to a function and resolves with its outcome. */
export type GiveOrder = <T>(order: Readonly<Record<string, unknown>>, outcome: z.ZodMiniType<T>) => Promise<T>

/**
 * Orders go to the function of that description in the stack of the provider, or to the one that is named.
 * @throws Refusal where there is no such function; orders also where it failed, with its own words, or answered something else
 */
export const ordersTo = async (
  description: string,
  provider: string,
  { endpoint, function: named }: { endpoint?: string; function?: string },
): Promise<GiveOrder> => {
  const client = new LambdaClient({
    ...(await accessAt(endpoint)),
    // An order is carried out once: whether to repeat it is the operator's to say.
    maxAttempts: 1,
    requestHandler: { connectionTimeout: 5_000, requestTimeout: PATIENCE_MS, throwOnRequestTimeout: true },
  })
  const FunctionName = named ?? (await functionOf(client, description, provider))
  return async (order, outcome) => {
    const waiting = setTimeout(() => tell(`${FunctionName} is at work`), QUIET_MS)
    const invoke = new InvokeCommand({ FunctionName, Payload: Buffer.from(JSON.stringify(order)) })
    const reply = await client.send(invoke).finally(() => clearTimeout(waiting))
    const told = parsed(reply.Payload)
    if (reply.FunctionError !== undefined) {
      const { data } = functionError().safeParse(told)
      throw new Refusal(`${FunctionName} failed: ${data?.errorMessage ?? reply.FunctionError}`)
    }
    const { success, data } = outcome.safeParse(told)
    if (!success) throw new Refusal(`${FunctionName} answered something else; is the stack of this version?`)
    return data
  }
}
