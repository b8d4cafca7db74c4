import { expect } from 'vitest'
import { signedInRecords } from '../support/answers.ts'
import { authorize, comeBack, navigation, signIn } from '../support/sign-in.ts'
import { describeFlow, isSignedOut, signsIn, startCrashStack, works } from './crash-cases.ts'
import type { CrashStack, Outcome } from './crash-cases.ts'

const stackOf = startCrashStack()

/** A login that is begun leaves nothing in the table, whether or not it succeeds. */
const beginLogin = async (stack: CrashStack) => {
  const records = async () => signedInRecords(await stack.items())
  const before = await records()
  return async () => {
    const reply = await stack.tab.raw({ path: '/bff/login', headers: navigation })
    expect(await records()).toEqual(before)
    return reply
  }
}

const loginRepeats: Outcome = async (stack, request) => {
  expect(await request()).toMatchObject({ status: 302 })
  await signsIn(stack)
}

describeFlow('login', { functions: ['Login'], arrange: beginLogin, outcomes: { repeat: loginRepeats } }, stackOf)

const callbackRepeats: Outcome = async (stack, request) => {
  expect(await request()).toMatchObject({ status: 200, url: `${stack.origin}/` })
  await works(stack)
}

const signInAgain: Outcome = async (stack, request) => {
  await works(stack)
  expect(await request()).toMatchObject({ status: 400 })
  await works(stack)
  await signsIn(stack)
}

const oldSessionIsOver: Outcome = async (stack, request) => {
  expect(await request()).toMatchObject({ status: 400 })
  await isSignedOut(stack)
  await signsIn(stack)
}

describeFlow(
  'callback',
  {
    functions: ['Callback'],
    which: (name) => !name.startsWith('background: '),
    arrange: async (stack) => {
      await signIn(stack.tab)
      const pending = await authorize(stack.tab)
      return () => comeBack(stack.tab, pending)
    },
    outcomes: {
      repeat: callbackRepeats,
      'sign in again': signInAgain,
      'sign in again, old session over': oldSessionIsOver,
    },
  },
  stackOf,
)
