import { signIn } from '../support/sign-in.ts'
import { call, cleanLogin, describeFlow, goesOn, startCrashStack, works, type CrashStack } from './crash-cases.ts'

const stackOf = startCrashStack()

const signedInWithEndedToken = async (stack: CrashStack): Promise<void> => {
  await signIn(stack.tab)
  await stack.records.expireTokens()
}

describeFlow(
  'call with an ended token',
  {
    functions: ['Api'],
    arrange: async (stack) => {
      await signedInWithEndedToken(stack)
      return () => call(stack)
    },
    outcomes: { 'goes on': goesOn, 'clean login': cleanLogin },
  },
  stackOf,
)

describeFlow(
  'keep-alive with an ended token',
  {
    functions: ['Refresh'],
    arrange: async (stack) => {
      await signedInWithEndedToken(stack)
      return () => stack.tab.fetch('/bff/refresh', { method: 'POST' })
    },
    outcomes: { 'goes on': goesOn, 'clean login': cleanLogin },
  },
  stackOf,
)

/** The valid token serves until it ends, and the rest follows after that. */
const thenEnds = (check: (stack: CrashStack) => Promise<void>) => async (stack: CrashStack) => {
  await works(stack)
  await stack.stack.backgroundIsIdle()
  await stack.records.expireTokens()
  await check(stack)
}

describeFlow(
  'call with a token that ends soon',
  {
    functions: ['Api', 'Background'],
    arrange: async (stack) => {
      await signIn(stack.tab)
      await stack.records.makeTokensDue()
      return () => call(stack)
    },
    outcomes: { 'goes on': thenEnds(goesOn), 'clean login': thenEnds(cleanLogin) },
  },
  stackOf,
)
