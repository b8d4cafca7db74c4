import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startAuthorizationServer } from '../../infra/local/demo/authorization-server.ts'
import { codeBlocks, textOf } from '../docs/documents.ts'
import { startStrictAuthorizationServer, type StrictAuthorizationServer } from '../support/authorization-server.ts'
import { gate } from '../support/faults.ts'
import { doctor, startDoctor } from './command.ts'

let server: StrictAuthorizationServer
let folder: string
beforeAll(async () => {
  server = await startStrictAuthorizationServer({ initialAccessToken: 'the-right-token' })
  folder = mkdtempSync(join(tmpdir(), 'doctor-'))
})
afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true, force: true })
})

const document = textOf('docs/doctor.md')

test('docs/doctor.md shows what the command prints', async () => {
  const demo = await startAuthorizationServer({ port: 0, resource: 'https://resource.example' })
  try {
    const [shown = ''] = codeBlocks(document, 'text')
    const [command = '', ...lines] = shown.split('\n')
    expect(command).toBe('$ npm run doctor -- http://127.0.0.1:8081 --register')
    const { code, stdout, stderr } = await doctor([demo.issuer, '--register'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.replaceAll(demo.issuer, 'http://127.0.0.1:8081')).toBe(lines.join('\n'))
    expect(stdout.split('\n').length).toBeLessThanOrEqual(24)
  } finally {
    await demo.close()
  }
})

describe('the command', () => {
  test('prints JSON, as the document says, and exits by the verdict', async () => {
    const { code, stdout } = await doctor([server.issuer, '--json'])
    const report: Record<string, unknown> = JSON.parse(stdout)
    const [shown = ''] = codeBlocks(document, 'json')
    expect(Object.keys(report)).toEqual(Object.keys(JSON.parse(shown)))
    expect([code, report['verdict']]).toEqual([0, 'usable'])
    const refused = await doctor([server.issuer, '--json', '--register'])
    expect([refused.code, JSON.parse(refused.stdout).verdict]).toEqual([1, 'work'])
    const nothing = await doctor(['http://127.0.0.1:1', '--json'])
    expect([nothing.code, JSON.parse(nothing.stdout).verdict]).toEqual([2, 'unusable'])
  })

  test('takes the initial access token from a file or its input, and never shows it', async () => {
    const file = join(folder, 'token')
    writeFileSync(file, 'the-right-token\n')
    for (const [from, input] of [
      [file, ''],
      ['-', 'the-right-token'],
    ] as const) {
      const said = await doctor([server.issuer, '--register', '--initial-access-token-file', from], input)
      expect([said.code, said.stderr]).toEqual([0, ''])
      expect(said.stdout).not.toContain('the-right-token')
    }
    expect(server.clients()).toHaveLength(0)
  })

  test('that is interrupted deletes its client first', async () => {
    const held = gate()
    server.plan('client', held.fault)
    const { child, said } = startDoctor([server.issuer, '--register', '--initial-access-token-file', '-'])
    child.stdin.end('the-right-token')
    await held.reached
    const [client] = server.clients()
    child.kill('SIGINT')
    await once(child.stderr, 'data')
    held.release()
    const { code, stderr } = await said
    expect([code, stderr]).toEqual([130, `the client ${client?.client_id} is deleted first\n`])
    expect(server.clients()).toHaveLength(0)
  })

  test('helps', async () => {
    const { code, stdout } = await doctor(['--help'])
    expect(code).toBe(0)
    for (const name of ['--register', '--json', '--origin', '--endpoint-origin', '--initial-access-token-file', '64']) {
      expect([stdout, document]).toEqual([expect.stringContaining(name), expect.stringContaining(name)])
    }
  })

  test.each<[args: string[], words: RegExp]>([
    [[], /^Say one URL/],
    [['https://a.example', 'https://b.example'], /^Say one URL/],
    [['http://as.example.com'], /^The URL must use https/],
    [['as.example.com'], /^The URL must be an absolute URL/],
    [['https://as.example.com?x'], /^The URL must not contain a query/],
    [['https://u:p@as.example.com'], /^The URL must not contain a user name/],
    [['https://as.example.com', '--registr'], /^Unknown option '--registr'/],
    [['https://as.example.com', '--origin', 'https://app.example.com/'], /^--origin must be an origin/],
    [['https://as.example.com', '--endpoint-origin', 'x'], /^--endpoint-origin must be an origin/],
    [['https://as.example.com', '--initial-access-token-file', 'x'], /is for --register\./],
    [['https://as.example.com', '--register', '--initial-access-token-file', '/nowhere'], /no readable file/],
    [['https://as.example.com', '--register', '--initial-access-token-file', '-'], /must hold one token/],
  ])('says of %j what to write, and exits with 64', async (args, words) => {
    const { code, stdout, stderr } = await doctor(args)
    expect([code, stdout, stderr]).toEqual([64, '', expect.stringMatching(words)])
    expect(stderr).toMatch(/See npm run doctor -- --help\.\n$/)
  })
})
