// What `npm test` runs: the static checks side by side, then Vitest. Ends with the line `N passed, N failed, N skipped`,
// in which each static check is one test. Arguments go to Vitest, which then runs alone: `npm test -- flows/login`.
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { countsFile, type Counts } from './support/counts.ts'

const root = resolve(import.meta.dirname, '..')
const path = [join(root, 'node_modules/.bin'), process.env['PATH'] ?? ''].join(delimiter)

const staticChecks: [name: string, command: string, ...args: string[]][] = [
  ['types', 'tsc', '-p', '.'],
  ['lint', 'oxlint'],
  ['format', 'oxfmt', '--check', '.'],
  ['unused code', 'knip'],
]

const run = (command: string, args: string[], env: Record<string, string>, show: boolean) => {
  const { promise, resolve: done } = Promise.withResolvers<{ ok: boolean; output: string }>()
  const stdio = show ? 'inherit' : 'pipe'
  const child = spawn(command, args, { cwd: root, stdio, env: { ...process.env, PATH: path, ...env } })
  let output = ''
  child.stdout?.on('data', (chunk) => (output += chunk))
  child.stderr?.on('data', (chunk) => (output += chunk))
  child.on('error', (error) => done({ ok: false, output: `${command} does not start: ${error.message}` }))
  child.on('close', (code) => done({ ok: code === 0, output }))
  return promise
}

const report = (name: string, ok: boolean, startMs: number, output = ''): void => {
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1)
  console.log(`${ok ? 'pass' : 'FAIL'}  ${name.padEnd(12)} ${seconds} s`)
  if (!ok && output !== '') console.log(output.trimEnd())
}

const checkStatically = async (): Promise<boolean[]> => {
  const startMs = performance.now()
  return Promise.all(
    staticChecks.map(async ([name, command, ...args]) => {
      const { ok, output } = await run(command, args, {}, false)
      report(name, ok, startMs, output)
      return ok
    }),
  )
}

const vitest = async (args: string[]): Promise<Counts> => {
  const startMs = performance.now()
  const folder = await mkdtemp(join(tmpdir(), 'test-counts-'))
  const file = join(folder, 'counts.json')
  const reporters = ['--reporter=default', `--reporter=${join(root, 'test/support/counts.ts')}`]
  const { ok } = await run('vitest', ['run', ...reporters, ...args], { [countsFile]: file }, true)
  const written = await readFile(file, 'utf8').catch(() => '{"passed":0,"failed":0,"skipped":0}')
  await rm(folder, { recursive: true })
  const counts: Counts = JSON.parse(written)
  report('vitest', ok, startMs)
  return ok || counts.failed > 0 ? counts : { ...counts, failed: 1 }
}

const only = process.argv.slice(2)
const checks = only.length > 0 ? [] : await checkStatically()
const counts = await vitest(only)
const failed = counts.failed + checks.filter((ok) => !ok).length
const passed = counts.passed + checks.filter((ok) => ok).length
process.exitCode = failed > 0 ? 1 : 0
console.log(`${passed} passed, ${failed} failed, ${counts.skipped} skipped`)
