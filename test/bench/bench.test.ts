import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Result } from './report.ts'

const run = (...options: string[]) =>
  promisify(execFile)(process.execPath, [join(import.meta.dirname, 'run.ts'), ...options])

// Times are measured here, never judged: this machine may be busy.
describe('a quick run of the benchmark', () => {
  let result: Result

  beforeAll(async () => {
    const { stdout } = await run('--quick', '--json')
    result = JSON.parse(stdout)
  }, 300_000)

  const rowsOf = (groups: { name: string }[][]) => groups.map((group) => group.map(({ name }) => name))

  test('weighs every function and both floors, and says what is in them', () => {
    const names = ['login', 'callback', 'session', 'refresh', 'logout', 'api', 'register', 'floor', 'floor-proxy']
    expect(result.bundles.map(({ name }) => name)).toEqual(expect.arrayContaining(names))
    for (const { bytes, gzipBytes, biggest } of result.bundles) {
      expect(gzipBytes).toBeLessThan(bytes)
      expect(biggest.reduce((sum, part) => sum + part.bytes, 0)).toBeLessThanOrEqual(bytes)
      expect(biggest.map(({ from }) => from)).toContain('@smithy/core')
    }
  })

  test('compares the session check and the API call with their floors, warm and cold', () => {
    const groups = [
      ['session', 'floor'],
      ['api', 'floor', 'floor + call'],
    ]
    expect(rowsOf(result.warm)).toEqual(groups)
    expect(rowsOf(result.cold)).toEqual(groups)
    for (const row of [...result.warm, ...result.cold].flat()) {
      expect(row.cpuMs).toBeGreaterThan(0)
      expect(row.cpuRatio).toBeGreaterThan(0)
    }
  })

  test('a session check and an API call are one call of DynamoDB each', () => {
    expect(result.warm.flat().map(({ dynamoDbCalls }) => dynamoDbCalls)).toEqual([1, 1, 1, 1, 1])
  })

  test('no function loads undici before it calls an authorization server', () => {
    const loaded = Object.fromEntries(result.undici.map((row) => [row.name, row.loaded]))
    expect(loaded).toMatchObject({ login: 'no', session: 'no', refresh: 'no', api: 'no' })
    expect(Object.values(loaded)).not.toContain('at import')
  })
})

test('an option that does not exist is answered with where to find those that do', async () => {
  await expect(run('--fast')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--help') })
  expect((await run('--help')).stdout).toContain('--quick')
})
