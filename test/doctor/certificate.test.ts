import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { createAuthority } from '../support/certificates.ts'
import { changed } from '../support/faults.ts'
import { startTlsFront } from '../support/tls-front.ts'
import { doctor } from './command.ts'

/** A server that talks to nobody without a client certificate, and one that wants none. */

const authority = createAuthority()
const ours = authority.issue('operator')
const strangers = createAuthority('Other authority').issue('operator')

let folder: string
let front: Awaited<ReturnType<typeof startTlsFront>>
let other: typeof front
let server: Awaited<ReturnType<typeof startStrictAuthorizationServer>>

const file = (name: string, content: string): string => {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}
const ask = async (...args: string[]) => {
  const { code, stdout, stderr } = await doctor([front.url, '--json', ...args])
  return { code, stderr, report: stdout === '' ? {} : JSON.parse(stdout) }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'doctor-certificate-'))
  process.env['NODE_EXTRA_CA_CERTS'] = file('authority.pem', authority.certificate)
  front = await startTlsFront(authority.issue('localhost'), authority.certificate)
  other = await startTlsFront(authority.issue('localhost'))
  server = await startStrictAuthorizationServer({ publicUrl: front.url })
  front.forwardTo(server.own)
  other.forwardTo(server.own)
})
afterAll(async () => {
  await front.close()
  await other.close()
  await server.close()
  delete process.env['NODE_EXTRA_CA_CERTS']
  rmSync(folder, { recursive: true, force: true })
})

test('a server that wants a certificate is told from one that is down', async () => {
  const { code, report } = await ask()
  expect([code, report.findings[0].says]).toEqual([
    2,
    expect.stringMatching(/: it wants a client certificate \(certificate_secret; here --certificate\)/),
  ])
})

test('so is one that wants another', async () => {
  const { code, report } = await ask('--certificate', file('strange.pem', strangers.certificate + strangers.key))
  expect([code, report.findings[0].says]).toEqual([
    2,
    expect.stringMatching(/: (it does not take the client certificate|.*perhaps for the client certificate)/),
  ])
})

test('with the right one it is usable, and nobody else is shown it', async () => {
  const aliases = { registration_endpoint: `${other.url}/register` }
  server.always('metadata', changed({ mtls_endpoint_aliases: aliases }))
  const certificate = file('ours.pem', ours.certificate + ours.key)
  const { code, report, stderr } = await ask('--certificate', certificate, '--register')
  expect([code, stderr]).toEqual([1, ''])
  expect(report.stage.providers.main).toEqual({ issuer: front.url, endpoint_origins: [other.url] })
  expect(other.callers).toEqual([])

  const trusted = await ask('--certificate', certificate, '--register', '--endpoint-origin', other.url)
  expect(trusted.code).toBe(0)
  expect(other.callers.map(({ path, name }) => [path, name])).toContainEqual(['/register', 'operator'])
  expect(server.clients()).toEqual([])
  server.always('metadata', undefined)
})

test('a server that takes certificates besides is told of', async () => {
  server.always(
    'metadata',
    changed({ token_endpoint_auth_methods_supported: ['client_secret_basic', 'tls_client_auth'] }),
  )
  const { stdout } = await doctor([front.url, '--certificate', file('ours.pem', ours.certificate + ours.key)])
  expect(stdout).toContain('was shown; name a secret that holds it in certificate_secret')
  server.always('metadata', undefined)
})

test.each([
  ['nothing', '', /--certificate: the file .* has no value/],
  ['no key', ours.certificate, /--certificate: the file .* must hold one private key/],
  ['the key of another', ours.certificate + strangers.key, /--certificate: the file .* that its private key is for/],
])('a file with %s is not taken', async (name, content, words) => {
  const { code, stderr } = await ask('--certificate', file(`${name}.pem`, content))
  expect([code, stderr]).toEqual([64, expect.stringMatching(words)])
  const missing = await ask('--certificate', join(folder, 'missing.pem'))
  expect(missing.stderr).toMatch(/--certificate: there is no readable file/)
})
