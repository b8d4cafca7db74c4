import { expect, test } from 'vitest'
import { accountOf, createSealer, newHandle } from '../../shared/seal.ts'
import { createSessions } from '../../shared/sessions.ts'
import type { Table } from '../../shared/table.ts'

const unused = () => Promise.reject(new Error('not expected here'))
const emptyTable = (read: Table['read']): Table => ({
  read,
  create: unused,
  write: unused,
  update: unused,
  remove: unused,
  transact: unused,
  list: unused,
})
const ticket = () => ({ account: accountOf('https://as.example.com', 'ada'), handle: newHandle() })
const settings = { idle_seconds: 3_600, max_parallel: 20, absolute_seconds: 43_200 }

test('the sealing keys are read while the table is read, not after it', async () => {
  const asked = Promise.withResolvers<void>()
  const sealer = createSealer(() => {
    asked.resolve()
    return new Promise(() => {})
  })
  // The table answers once the keys have been asked for, which would never be if they waited for the table.
  const table = emptyTable(async (keys) => {
    await asked.promise
    return keys.map(() => undefined)
  })
  const sessions = createSessions({ table, sealer, settings, sharedGrants: [], now: Date.now })
  expect(await sessions.find(ticket())).toBeUndefined()
})

test('keys that cannot be read do not matter to a ticket without a session', async () => {
  const sealer = createSealer(() => Promise.reject(new Error('Secrets Manager is out of reach')))
  const table = emptyTable(async (keys) => keys.map(() => undefined))
  const sessions = createSessions({ table, sealer, settings, sharedGrants: [], now: Date.now })
  expect(await sessions.find(ticket())).toBeUndefined()
})
