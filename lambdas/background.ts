import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { Grants } from '../shared/grants.ts'
import { asAccount } from '../shared/seal.ts'
import type { Task } from '../shared/tasks.ts'
import { taskEdge } from './edge.ts'
import { audit, endedSessions, holderOf, reportFailure } from './report.ts'
import type { Facts } from './report.ts'
import { endings, grants, stage } from './runtime.ts'

/** Carries out what requests started and did not wait for. A task that throws is repeated by Lambda, twice; each may run again. */
export const background =
  (deps: { stage: Stage; grants: Grants; endings: Endings }) =>
  async (task: Task, requestId?: string): Promise<void> => {
    const report = (event: 'renewed' | 'grant_ended' | 'revoked' | 'sessions_ended', facts: Facts): void =>
      audit('background', event, facts, requestId)
    switch (task.kind) {
      case 'renew': {
        const outcome = await deps.grants.resume(task)
        if (outcome.kind === 'renewed') report('renewed', { provider: outcome.grant.provider, ...holderOf(task) })
        if (outcome.kind === 'unavailable') reportFailure('background', new Failure(outcome.reason), requestId)
        if (outcome.kind === 'ended' && (await deps.endings.buryGrant(task))) report('grant_ended', holderOf(task))
        // Not repeated: the next call whose token is due starts another, with a lease of its own.
        return
      }
      case 'revoke':
        await deps.grants.revokeLater(task)
        return report('revoked', { provider: task.provider })
      case 'release':
        return await deps.endings.release(task)
      case 'limit': {
        const account = asAccount(task.account)
        if (account === undefined) throw new Failure('internal', { detail: 'a task without an account' })
        const ended = await deps.endings.limit(account, deps.stage.session.max_parallel)
        if (ended.length > 0) report('sessions_ended', endedSessions(ended))
      }
    }
  }

export const handler = taskEdge('background', (task, requestId) =>
  background({ stage: stage(), grants: grants(), endings: endings() })(task, requestId),
)
