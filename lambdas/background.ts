import type { Stage } from '../shared/config.ts'
import type { Endings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import type { Grants } from '../shared/grants.ts'
import { asAccount, pseudonym } from '../shared/seal.ts'
import type { Task } from '../shared/tasks.ts'
import { taskEdge } from './edge.ts'
import { audit, reportFailure } from './report.ts'
import { endings, grants, stage } from './runtime.ts'

/** Carries out what requests started and did not wait for. A task that throws is repeated by Lambda, twice; each may run again. */
export const background =
  (deps: { stage: Stage; grants: Grants; endings: Endings }) =>
  async (task: Task): Promise<void> => {
    switch (task.kind) {
      case 'renew': {
        const outcome = await deps.grants.resume(task)
        const account = pseudonym(task.pk.slice(2))
        if (outcome.kind === 'renewed') audit('background', 'renewed', { provider: outcome.grant.provider, account })
        if (outcome.kind === 'unavailable') reportFailure('background', new Failure(outcome.reason))
        if (outcome.kind === 'ended') {
          await deps.endings.buryGrant(task)
          audit('background', 'grant_ended', { account })
        }
        // Not repeated: the next call whose token is due starts another, with a lease of its own.
        return
      }
      case 'revoke':
        return await deps.grants.revokeLater(task)
      case 'release':
        return await deps.endings.release(task)
      case 'limit': {
        const account = asAccount(task.account)
        if (account === undefined) throw new Failure('internal', { detail: 'a task without an account' })
        await deps.endings.limit(account, deps.stage.session.max_parallel)
      }
    }
  }

export const handler = taskEdge('background', (task) =>
  background({ stage: stage(), grants: grants(), endings: endings() })(task),
)
