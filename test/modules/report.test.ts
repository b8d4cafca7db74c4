import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { bundleEntries } from '../../infra/flows.ts'
import { audit, auditEvents, reportFailure } from '../../lambdas/report.ts'
import { Failure } from '../../shared/errors.ts'
import { recordStage } from '../support/records-of-today.ts'

/** The lines that functions write, and whether the document about them is right. */

beforeAll(() => {
  vi.stubEnv('COATCHECK_STAGE', JSON.stringify(recordStage()))
})

describe('a line about a session', () => {
  const written: string[] = []
  const facts = { provider: 'demo', session: 'a-pseudonym' }

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const spied = (text: unknown) => Boolean(written.push(String(text)))
    vi.spyOn(process.stdout, 'write').mockImplementation(spied)
  })
  afterEach(() => {
    vi.restoreAllMocks()
    vi.useRealTimers()
    written.length = 0
  })

  const counts = () => written.filter((line) => line.includes('"_aws"')).length
  const lines = () => written.filter((line) => line.includes('"audit":true')).length

  test('comes once a minute and is counted each time', () => {
    for (let second = 0; second < 60; second += 1) {
      audit('api', 'renewed', facts, `request ${second}`)
      vi.advanceTimersByTime(1_000)
    }
    expect([lines(), counts()]).toEqual([1, 60])
    audit('api', 'renewed', facts, 'one more request')
    expect([lines(), counts()]).toEqual([2, 61])
  })

  test('comes at once where anything but the request differs', () => {
    audit('api', 'signed_out', { ...facts, session: 'one' })
    audit('api', 'signed_out', { ...facts, session: 'another' })
    audit('refresh', 'signed_out', { ...facts, session: 'one' })
    audit('api', 'signed_in', { ...facts, session: 'one' })
    expect(lines()).toBe(4)
  })

  test('is forgotten after a thousand others, so that memory stays small', () => {
    for (let session = 0; session < 1_001; session += 1) audit('api', 'revoked', { session: `session ${session}` })
    audit('api', 'revoked', { session: 'session 1000' })
    expect(lines()).toBe(1_001)
    audit('api', 'revoked', { session: 'session 0' })
    expect(lines()).toBe(1_002)
  })

  test('of no session comes every time', () => {
    for (let time = 0; time < 3; time += 1) reportFailure('login', new Failure('provider_unknown'))
    expect(lines()).toBe(3)
  })
})

describe('docs/audit.md', () => {
  const document = readFileSync(join(import.meta.dirname, '../../docs/audit.md'), 'utf8')
  const rows = (heading: string): string[][] => {
    const [, table = ''] = document.split(`\n${heading}\n`)
    const cells = (line: string) => line.split('|').slice(1, -1)
    return (table.split('\n\n')[0] ?? '')
      .split('\n')
      .slice(1)
      .map((line) => cells(line).map((cell) => cell.trim()))
  }
  const quoted = (text = ''): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, word = '']) => word)

  test('lists every event, and the functions that write it', () => {
    const events = rows('| event | is written when | by |')
    expect(events.flatMap(([event]) => quoted(event))).toEqual([...auditEvents, 'request failed'])
    const sources = Object.fromEntries(
      Object.entries(bundleEntries).map(([name, file]) => [
        name,
        readFileSync(join(import.meta.dirname, '../..', file), 'utf8'),
      ]),
    )
    /** What writes an event for several functions. */
    const shared: Record<string, string> = { renewed: 'reportRenewal(', signed_in: 'beginSession(' }
    for (const [event = '', , by] of events.slice(0, -1)) {
      const [name] = quoted(event)
      const writers = Object.keys(sources).filter((flow) => {
        const through = shared[name ?? '']
        return sources[flow]?.includes(`'${name}'`) || (through !== undefined && sources[flow]?.includes(through))
      })
      expect([name, new Set(quoted(by))]).toEqual([name, new Set(writers)])
    }
  })
})
