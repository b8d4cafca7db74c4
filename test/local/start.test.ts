import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { helpText, parseOptions } from '../../infra/local/options.ts'

const script = join(import.meta.dirname, '../../infra/local/start.ts')

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'coatcheck-start-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

function start(args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [script, ...args], {
    env: { ...process.env, PORT: '0', TMPDIR: folder, ...env },
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk))
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk))
  const ended = once(child, 'close').then(([code]: unknown[]) => ({ code, ...output }))
  return { child, ended, lines: createInterface({ input: child.stdout }) }
}

function stageFile(name: string, content: string): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

describe('options', () => {
  it('are the demo at port 8080 unless told otherwise', () => {
    expect(parseOptions([], {})).toEqual({
      port: 8080,
      issuer: undefined,
      stage: undefined,
      accessTokenSeconds: undefined,
      refreshTokens: undefined,
      maxInstances: 16,
      initialAccessToken: undefined,
      verbose: false,
      help: false,
    })
  })

  it('are all explained in the help', () => {
    const names = ['issuer', 'stage', 'access-token-seconds', 'refresh-tokens', 'max-instances', 'verbose', 'help']
    const options = [...names.map((name) => `--${name}`), 'PORT']
    expect(options.filter((option) => !helpText.includes(`\n  ${option} `))).toEqual([])
  })

  it.each([
    [['--colour'], {}, /^Unknown option '--colour'\. See npm start -- --help\.$/],
    [['--stage'], {}, /^Option '--stage <value>' argument missing\. See npm start -- --help\.$/],
    [
      ['https://as.example.com'],
      {},
      /^Unexpected argument 'https:\/\/as\.example\.com'; options stand behind a -- of their own: npm start -- --issuer <url>\.$/,
    ],
    [
      ['--issuer', 'as.example.com'],
      {},
      /^--issuer takes the URL of an authorization server, .* not as\.example\.com\.$/,
    ],
    [['--issuer', 'https://a.b', '--access-token-seconds', '9'], {}, /^--access-token-seconds is for the demo/],
    [['--issuer', 'https://a.b', '--refresh-tokens', 'grace'], {}, /^--refresh-tokens is for the demo/],
    [['--refresh-tokens', 'never'], {}, /^--refresh-tokens takes strict, grace or reusable, not never\.$/],
    [['--access-token-seconds', '0'], {}, /^--access-token-seconds takes a whole number from 1 to 86400, not 0\.$/],
    [['--max-instances', 'many'], {}, /^--max-instances takes a whole number from 1 to 1000, not many\.$/],
    [[], { PORT: '80800' }, /^PORT takes a whole number from 0 to 65535, not 80800\.$/],
    [[], { PORT: 'http' }, /^PORT takes a whole number from 0 to 65535, not http\.$/],
  ])('%j with %j are refused in a sentence', (argv, env, message) => {
    expect(() => parseOptions(argv, env)).toThrow(message)
  })
})

describe('a start that fails', () => {
  it.each([
    ['an unknown option', () => ['--colour'], /^Unknown option '--colour'\. See npm start -- --help\.\n$/],
    [
      'no stage file',
      () => ['--stage', '/nowhere.json'],
      /^The stage file \/nowhere\.json cannot be read; give --stage the path of a JSON file\.\n$/,
    ],
    [
      'a stage file that is no JSON',
      () => ['--stage', stageFile('broken.json', '{"a"')],
      /^The stage file .*broken\.json is not valid JSON: .*\.\n$/,
    ],
    [
      'an issuer where the stage does not use the demo’s',
      () => [
        '--issuer',
        'http://127.0.0.1:1',
        '--stage',
        stageFile('own.json', '{"providers":{"a":{"issuer":"https://a.b"}}}'),
      ],
      /^--issuer stands in for the demo's http:\/\/127\.0\.0\.1:8081, which .*own\.json does not name; write the issuer there instead\.\n$/,
    ],
    [
      'a stage file with faults, by its name',
      () => ['--stage', stageFile('faulty.json', '{"providers":{"Demo":{"issuer":"https://a.b"}}}')],
      /^The stage \S*faulty\.json cannot be used:\n {2}- providers\.Demo: is no good name: .*\n$/,
    ],
    [
      'a stage file in which a setting stands twice',
      () => ['--stage', stageFile('twice.json', '{"providers":{"a":{"issuer":"https://a.b","issuer":"https://c.d"}}}')],
      /^The stage \S*twice\.json cannot be used:\n {2}- providers\.a\.issuer: stands twice\n$/,
    ],
    [
      'an issuer that can be none',
      () => ['--issuer', 'http://as.example.com'],
      /^--issuer http:\/\/as\.example\.com must use https; http is for localhost and 127\.0\.0\.1 only\.\n$/,
    ],
    [
      'a stage without its initial access token',
      () => [
        '--stage',
        stageFile('token.json', '{"providers":{"a":{"issuer":"http://a","initial_access_token_secret":"reg"}}}'),
      ],
      /^The stage names the secret reg; set INITIAL_ACCESS_TOKEN to its value\.\n$/,
    ],
  ])('says why in a sentence, with exit code 1: %s', async (_, args, message) => {
    const { code, stderr } = await start(args()).ended
    expect(stderr).toMatch(message)
    expect(code).toBe(1)
  })

  it('says that its port is taken, and how to take another', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const PORT = String((server.address() as AddressInfo).port)
    const { code, stderr } = await start([], { PORT }).ended
    server.close()
    expect(stderr).toBe(
      `Port ${PORT} is already in use; stop the program that uses it, or choose another port. For example: PORT=9000 npm start\n`,
    )
    expect(code).toBe(1)
  })

  it('passes on why the authorization server cannot be used', async () => {
    const server = createServer((_request, response) => response.writeHead(404).end('nothing here')).listen(
      0,
      '127.0.0.1',
    )
    await once(server, 'listening')
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const { code, stdout, stderr } = await start(['--issuer', issuer]).ended
    server.close()
    expect(stderr).toContain(issuer)
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(stdout.split('\n').filter((line) => line.includes('{'))).toEqual([])
    expect(code).toBe(1)
  }, 60_000)
})

describe('npm start', () => {
  it('runs the product, prints where to click and ends at Ctrl-C', async () => {
    const { child, ended, lines } = start(['--access-token-seconds', '30', '--max-instances', '2'])
    const said: string[] = []
    for await (const line of lines) {
      said.push(line)
      if (line.startsWith('ready ')) break
    }
    const url = said.at(-1)?.replace('ready ', '') ?? ''
    expect(url).toMatch(/^http:\/\/localhost:\d+$/)
    expect(said.join('\n')).toMatch(/Ada Lovelace/)
    expect(said.join('\n')).toContain(`${url}/__local/trace`)
    const session = await fetch(`${url}/bff/session`)
    expect(await session.json()).toMatchObject({ authenticated: false })
    const trace = await (await fetch(`${url}/__local/trace`)).text()
    expect(trace).toMatch(/"step": "registration"/)
    child.kill('SIGINT')
    const { code, stdout, stderr } = await ended
    expect({ code, stderr, last: stdout.trimEnd().split('\n').at(-1) }).toEqual({
      code: 0,
      stderr: '',
      last: 'stopped',
    })
  }, 60_000)
})
