import { causeName, Failure } from './errors.ts'

/**
 * What a request starts and does not wait for: it is handed to the background function by an asynchronous invocation, which Lambda
 * queues, and repeats twice when it fails. (A promise left behind in the function itself would be frozen with it.)
 */
export type Task =
  /** The lease on a grant was taken for this task; it renews the grant. */
  | { kind: 'renew'; pk: string; sk: string; version: number; lease_until_ms: number }
  /** Tokens of an ended grant that could not be revoked at once; sealed, for they wait in a queue. */
  | { kind: 'revoke'; provider: string; client_id: string; sealed: string }
  /** A session's record has gone, but its grant could not be ended with it. */
  | { kind: 'release'; pk: string; sk: string }
  /** An account has a new session; the oldest beyond the limit end. */
  | { kind: 'limit'; account: string }

export interface Tasks {
  /** The task is queued. @throws background_unavailable */
  start(task: Task): Promise<void>
}

/** Tasks for the function of that name. */
export const createTasks = (functionName: string): Tasks => {
  let invoke: ((task: Task) => Promise<void>) | undefined
  return {
    async start(task) {
      try {
        // Few instances start a task in their first answer, and the client is a fifth of what all would have to load.
        invoke ??= (await import('./invocation.ts')).createInvocation(functionName)
        await invoke(task)
      } catch (error) {
        const refused =
          error instanceof Error && error.name === 'AccessDeniedException' ? error.message : causeName(error)
        throw new Failure('background_unavailable', { detail: refused, cause: error })
      }
    },
  }
}
