import type { Gate } from '../../infra/local/aws-call.ts'

/** DynamoDB has no capacity for the call. */
export const throttled: Gate = () => ({
  status: 400,
  type: 'ProvisionedThroughputExceededException',
  message: 'The level of configured provisioned throughput for the table was exceeded.',
})

/** The service is broken. */
export const failing: Gate = () => ({ status: 500, type: 'InternalServerError', message: 'Internal server error' })

/**
 * A gate for a stack, and faults to put before the calls of an IAM action: `next` for each of its next calls, `always` for all
 * until it is taken away.
 */
export const createAwsFaults = () => {
  const planned: { action: string; fault: Gate }[] = []
  const standing = new Map<string, Gate>()
  const gate: Gate = (call) => {
    const index = planned.findIndex(({ action }) => action === call.action)
    const fault = index === -1 ? standing.get(call.action) : planned.splice(index, 1)[0]?.fault
    return fault?.(call)
  }
  return {
    gate,
    next: (action: string, ...faults: Gate[]): void => {
      planned.push(...faults.map((fault) => ({ action, fault })))
    },
    always: (action: string, fault: Gate | undefined): void => {
      if (fault) standing.set(action, fault)
      else standing.delete(action)
    },
    /** The actions with planned faults that no call met. */
    unmet: (): string[] => planned.map(({ action }) => action),
  }
}
