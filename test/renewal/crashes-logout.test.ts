import { expect } from 'vitest'
import { signedInRecords } from '../support/answers.ts'
import { insteadJson } from '../support/faults.ts'
import { signIn } from '../support/sign-in.ts'
import { describeFlow, isSignedOut, signsIn, startCrashStack, works } from './crash-cases.ts'
import type { CrashStack, Outcome } from './crash-cases.ts'

const stackOf = startCrashStack()

const logout = ({ tab }: CrashStack) => tab.fetch('/bff/logout', { method: 'POST' })

/** Nothing of the latest grant is left, neither in the table nor at the authorization server. */
const isForgotten = async (stack: CrashStack): Promise<void> => {
  expect(stack.authorizationServer.grants.at(-1)).toMatchObject({ live: false })
  expect(signedInRecords(await stack.items())).toEqual([])
}

const repeats: Outcome = async (stack) => {
  await works(stack)
  expect((await logout(stack)).status).toBe(200)
  await isForgotten(stack)
}

const isOver: Outcome = async (stack) => {
  expect(await stack.records.all('session')).toHaveLength(0)
  expect((await logout(stack)).status).toBe(200)
  await isForgotten(stack)
  await signsIn(stack)
  await logout(stack)
}

describeFlow(
  'logout',
  {
    functions: ['Logout'],
    arrange: async (stack) => {
      await signIn(stack.tab)
      return () => logout(stack)
    },
    outcomes: { repeat: repeats, over: isOver },
  },
  stackOf,
)

const isDoneLater: Outcome = async (stack) => {
  await isSignedOut(stack)
  await isForgotten(stack)
}

describeFlow(
  'revocation in the background',
  {
    functions: ['Logout', 'Background'],
    which: (name) => name.startsWith('background: ') || name === 'revocation',
    arrange: async (stack) => {
      await signIn(stack.tab)
      return () => {
        stack.authorizationServer.plan('revoke', insteadJson(503, {}))
        return logout(stack)
      }
    },
    outcomes: { 'done later': isDoneLater },
  },
  stackOf,
)
