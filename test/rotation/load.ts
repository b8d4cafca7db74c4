import { expect } from 'vitest'
import { startPeople } from '../support/people.ts'
import type { startRotatingStack } from './rotating-stack.ts'

/** How often credentials rotate while people use them. */
export const WANTED = 20

/** Credentials rotate that often, one after the other, while people sign in, call and renew; and nobody has noticed. */
export const rotateUnderLoad = async (
  stack: Awaited<ReturnType<typeof startRotatingStack>>,
  rotate: (rotation: number) => Promise<void>,
): Promise<void> => {
  const people = startPeople(stack)
  for (let rotation = 0; rotation < WANTED; rotation += 1) await rotate(rotation)
  await people.stop()
  expect(people.failed).toEqual([])
  for (const tab of people.tabs) await people.call(tab)
  expect(people.failed, 'every session that ever began').toEqual([])
  expect(people.tabs.length).toBeGreaterThan(WANTED / 2)
  expect(stack.authorizationServer.tokenRequests('refresh_token').length).toBeGreaterThan(WANTED / 2)
}
