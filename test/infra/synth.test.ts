import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const nowhere = 'http://127.0.0.1:9'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'synth-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs a command with no account, no home and no way out. */
const run = (file: string, args: string[], environment: Record<string, string> = {}) => {
  const { PATH = '', SystemRoot = '' } = process.env
  const offline = {
    HTTP_PROXY: nowhere,
    HTTPS_PROXY: nowhere,
    http_proxy: nowhere,
    https_proxy: nowhere,
    AWS_EC2_METADATA_DISABLED: 'true',
  }
  const env = { PATH, SystemRoot, HOME: folder, CI: 'true', ...offline, ...environment }
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const child = execFile(process.execPath, [file, ...args], { cwd: root, env }, (_, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    )
  })
}
const synth = (stage: string) =>
  run(join(root, 'node_modules/aws-cdk/bin/cdk'), [
    'synth',
    '--quiet',
    '-c',
    `stage=${stage}`,
    '--output',
    join(folder, 'out'),
  ])
const app = (stage: string | undefined) =>
  run('infra/app.ts', [], stage === undefined ? {} : { CDK_CONTEXT_JSON: JSON.stringify({ stage }) })

test('npx cdk synth -c stage=local needs no account and no network', { timeout: 120_000 }, async () => {
  const { code, err } = await synth('local')
  expect([code, err]).toEqual([0, expect.not.stringContaining('rror')])
  expect(existsSync(join(folder, 'out/coatcheck-local.template.json'))).toBe(true)
})

test.each<[why: string, stage: string | undefined, words: RegExp]>([
  [
    'no stage',
    undefined,
    /^The stage cannot be used:\n {2}- none is named: add -c stage=<name>, for example -c stage=local\n$/,
  ],
  [
    'a stage that is not there',
    'prod',
    /^The stage prod cannot be used:\n {2}- there is no readable file infra\/stages\/prod\.json; name it with/,
  ],
  [
    'a path out of the folder',
    '../../etc/passwd',
    /^The stage \.\.\/\.\.\/etc\/passwd cannot be used:\n {2}- there is no readable file /,
  ],
  ['a file that is no JSON', 'README.md.json', /cannot be used:\n {2}- there is no readable file README\.md\.json/],
])('%s: a message, and no stack trace', { timeout: 60_000 }, async (_, stage, words) => {
  const { code, err, out } = await app(stage)
  expect([code, out]).toEqual([1, ''])
  expect(err).toMatch(words)
  expect(err).not.toMatch(/\n\s+at |Error:|node_modules/)
})

test('faults in the file: each on a line of its own, and no stack trace', { timeout: 60_000 }, async () => {
  const file = join(folder, 'broken.json')
  writeFileSync(file, '{"origin": "http://app.example.com", "providers": {}, "apps": {}}')
  const { code, err } = await app(file)
  expect([
    code,
    err
      .split('\n')
      .slice(1, -1)
      .map((line) => line.replace(/:? .*/, '')),
  ]).toEqual([1, ['', '', '']])
  expect(err).toContain('  - origin: must use https')
  expect(err).toContain('  - providers: must name at least one provider')
  expect(err).toContain('  - the stage has no setting named apps')
})

test('a stage that does not fit into a function’s environment says so', { timeout: 60_000 }, async () => {
  const file = join(folder, 'large.json')
  const provider = {
    issuer: 'https://as.example.com',
    claims: Array.from({ length: 64 }, (_, index) => `a-claim-with-a-long-name-${index}`),
  }
  writeFileSync(file, JSON.stringify({ origin: 'https://app.example.com', providers: { a: provider, b: provider } }))
  const { code, err } = await app(file)
  expect(code).toBe(1)
  expect(err).toMatch(
    /^The stage .*cannot be used:\n {2}- it comes to \d+ bytes with defaults; a function's environment has room for 3000\n$/,
  )
})

test('a stage whose name no stack can have says so', { timeout: 60_000 }, async () => {
  const file = join(folder, 'my stage.json')
  writeFileSync(file, '{"origin": "https://app.example.com", "providers": {"a": {"issuer": "https://as.example.com"}}}')
  const { code, err } = await app(file)
  expect([code, err]).toEqual([
    1,
    expect.stringMatching(/^The stage my stage cannot be used:\n {2}- its name goes into the name of the stack: .*\n$/),
  ])
})
