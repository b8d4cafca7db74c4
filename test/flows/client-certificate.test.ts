import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectErrorPage } from '../support/answers.ts'
import { leaksOf } from '../support/canaries.ts'
import { createAuthority } from '../support/certificates.ts'
import { changed } from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import { startRecordingResourceServer } from '../support/resource-server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import { startTlsFront } from '../support/tls-front.ts'

/**
 * Mutual TLS (RFC 8705): the authorization server shows browsers one origin, and clients with a certificate another, which takes nobody
 * else. So does the resource server. A third server is of another provider and must see no certificate.
 */

const authority = createAuthority()
const ours = authority.issue('coatcheck')
const secret = 'operator/certificate'

let folder: string
let fronts: Record<'browsers' | 'clients' | 'api' | 'other', Awaited<ReturnType<typeof startTlsFront>>>
let resourceServer: Awaited<ReturnType<typeof startRecordingResourceServer>>
let stack: Awaited<ReturnType<typeof startStrictStack>>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'authority-'))
  await writeFile(join(folder, 'authority.pem'), authority.certificate)
  process.env['NODE_EXTRA_CA_CERTS'] = join(folder, 'authority.pem')
  setDefaultCACertificates([...getCACertificates('default'), authority.certificate])
  const front = (clients?: string) => startTlsFront(authority.issue('localhost'), clients)
  fronts = {
    browsers: await front(),
    clients: await front(authority.certificate),
    api: await front(authority.certificate),
    other: await front(),
  }
  resourceServer = await startRecordingResourceServer()
  fronts.api.forwardTo(resourceServer.url)
  fronts.other.forwardTo(resourceServer.url)
  const { url } = fronts.clients
  stack = await startStrictStack({
    strict: { publicUrl: fronts.browsers.url, par: true },
    target: fronts.api.url,
    existingSecrets: { [secret]: ours.certificate + ours.key },
    before: (server) => {
      for (const name of ['browsers', 'clients'] as const) fronts[name].forwardTo(server.own)
      const endpoints = ['token', 'revocation', 'registration', 'userinfo', 'pushed_authorization_request']
      const paths = ['token', 'revoke', 'register', 'userinfo', 'par']
      const aliases = endpoints.map((endpoint, index) => [`${endpoint}_endpoint`, `${url}/${paths[index]}`])
      server.always('metadata', changed({ mtls_endpoint_aliases: Object.fromEntries(aliases) }))
    },
    stage: (stage) => ({
      ...stage,
      providers: {
        demo: { ...stage.providers['demo'], certificate_secret: secret, endpoint_origins: [url] },
      },
    }),
  })
})

afterAll(async () => {
  await stack?.close()
  for (const front of Object.values(fronts)) await front.close()
  await resourceServer.close()
  delete process.env['NODE_EXTRA_CA_CERTS']
  await rm(folder, { recursive: true })
})

const pathsOf = (name: keyof typeof fronts, caller: string): string[] =>
  fronts[name].callers.filter(({ name: shown }) => shown === caller).map(({ path }) => path.split('?')[0] ?? '')

describe('with a client certificate', () => {
  test('a client is registered, signs in, calls, renews and signs out, and shows it to both servers', async () => {
    const tab = stack.newBrowser()
    await signIn(tab)
    expect((await tab.fetch('/bff/session')).json()).toMatchObject({ authenticated: true, claims: { sub: 'ada' } })
    expect((await tab.fetch('/api/demo/notes')).status).toBe(200)
    const records = openRecords(stack.stack)
    await records.expireTokens()
    expect((await tab.fetch('/api/demo/notes')).status).toBe(200)
    records.close()
    expect((await tab.fetch('/bff/logout', { method: 'POST' })).status).toBe(200)
    expect(pathsOf('clients', 'coatcheck')).toEqual(
      expect.arrayContaining(['/register', '/par', '/token', '/token', '/revoke']),
    )
    expect(fronts.clients.callers.filter(({ name }) => name !== 'coatcheck')).toEqual([])
    expect(pathsOf('api', 'coatcheck')).toEqual(['/notes', '/notes'])
  })

  test('browsers show none', () => {
    expect(pathsOf('browsers', '')).toContain('/authorize')
    expect(pathsOf('browsers', '')).not.toContain('/token')
  })

  test('nothing of the key shows in logs, records or pages', async () => {
    const key = ours.key.split('\n')[1] ?? ''
    const places = { logs: stack.logs, items: await stack.items(), registration: await stack.secretValue('Provider') }
    expect(leaksOf([{ name: 'the key', value: key.slice(30) }], places)).toEqual([])
  })
})

describe('a certificate that cannot be used', () => {
  test('fails the deploy in words', async () => {
    await expect(
      startStrictStack({
        strict: { publicUrl: fronts.other.url },
        existingSecrets: { [secret]: ours.certificate },
        stage: (stage) => ({
          ...stage,
          providers: { demo: { ...stage.providers['demo'], certificate_secret: secret } },
          apis: {},
        }),
      }),
    ).rejects.toThrow(/the secret operator\/certificate must hold one private key in PEM/)
  })

  test('by a client that it authenticates is told to the operator, and the browser learns that it is not set up', async () => {
    const other = await startStrictStack({
      stage: (stage) => ({ ...stage, providers: { demo: { ...stage.providers['demo'], client: 'static' } } }),
    })
    const written = { client_id: 'c1', token_endpoint_auth_method: 'self_signed_tls_client_auth' }
    await other.putSecretValue('Clientdemo', JSON.stringify(written))
    expectErrorPage(await signIn(other.newBrowser()), 503, 'provider_not_ready')
    expect(JSON.stringify(other.logs)).toContain('the stage must name a certificate_secret, for self_signed_tls_client')
    await other.close()
  })
})
