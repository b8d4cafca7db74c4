import { afterEach, describe, expect, test } from 'vitest'
import { examine, type Question } from '../../infra/doctor-examination.ts'
import { textOf } from '../../infra/doctor-report.ts'
import { createCalls } from '../../infra/doctor-send.ts'
import { startAuthorizationServer } from '../../infra/local/demo/authorization-server.ts'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import type { StrictOptions } from '../support/strict-options.ts'
import { leaksOf } from '../support/canaries.ts'
import { eras, type Era } from '../support/coder-era.ts'
import { startCoderServer } from '../support/coder-server.ts'
import * as faults from '../support/faults.ts'
import { json, startRecordingServer, type Fault } from '../support/server.ts'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const server of open.splice(0)) await server.close()
})
const kept = async <T extends { close(): Promise<void> }>(starting: Promise<T>): Promise<T> => {
  const server = await starting
  open.push(server)
  return server
}
const strict = (options?: StrictOptions) => kept(startStrictAuthorizationServer(options))

const told: string[] = []
const look = (asked: string, question: Partial<Question> = {}, calls = createCalls((line) => void told.push(line))) =>
  examine(
    {
      asked,
      url: new URL(asked),
      endpointOrigins: [],
      origin: 'https://app.example.com',
      register: false,
      initialAccessToken: undefined,
      hasCertificate: false,
      ...question,
    },
    calls,
    () => undefined,
  )
type Report = Awaited<ReturnType<typeof look>>
const about = ({ findings }: Report, topic: string) => findings.find((finding) => finding.topic === topic)
const levels = ({ findings }: Report) => Object.fromEntries(findings.map(({ topic, level }) => [topic, level]))

describe('a server that does everything', () => {
  test('is usable, and each topic says what is done with it', async () => {
    const { issuer } = await strict({ par: true, backchannelLogout: true })
    const report = await look(issuer)
    expect(report).toMatchObject({ asked: issuer, verdict: 'usable', issuer, resource: null, product: null })
    expect(report.stage).toEqual({ providers: { main: { issuer } } })
    const { rotation: _, ...rest } = levels(report)
    expect(rest).toEqual({
      metadata: 'ok',
      'sign-in': 'ok',
      user: 'ok',
      authentication: 'ok',
      registration: 'ok',
      refresh: 'ok',
      requests: 'ok',
      iss: 'ok',
      revocation: 'ok',
      'sign-out': 'ok',
      address: 'note',
    })
    expect(about(report, 'sign-in')?.says).toMatch(/PKCE S256; scopes openid profile email offline_access$/)
  })

  test('has registered a client and deleted it again, where that was asked for', async () => {
    const server = await strict({ clientSecretSeconds: 3_600 })
    const report = await look(server.issuer, { register: true })
    expect(about(report, 'registration')).toMatchObject({
      level: 'ok',
      says: expect.stringMatching(
        /^a client was registered with client_secret_basic; its secret expires at 20\d\d-.*; it can be read \(RFC 7592\); it was deleted again$/,
      ),
    })
    expect([server.count('register'), server.clients().length]).toEqual([1, 0])
    expect(leaksOf(server.secrets, { report, text: textOf(report) })).toEqual([])
  })

  test('is not usable yet where its secrets are over when they are issued', async () => {
    const server = await strict()
    server.plan('register', faults.changed({ client_secret_expires_at: 1 }))
    const report = await look(server.issuer, { register: true })
    expect([report.verdict, about(report, 'registration')]).toMatchObject([
      'work',
      { level: 'todo', says: expect.stringMatching(/its secret has expired already, at 1970-/) },
    ])
    expect(server.clients()).toEqual([])
  })

  test('is left alone without --register', async () => {
    const server = await strict()
    await look(server.issuer)
    expect(server.requests.filter(({ method }) => method !== 'GET')).toEqual([])
  })

  test('may be the demo server', async () => {
    const { issuer } = await kept(startAuthorizationServer({ port: 0, resource: 'https://resource.example' }))
    const report = await look(issuer, { register: true })
    expect([report.verdict, about(report, 'registration')?.says]).toEqual([
      'usable',
      expect.stringMatching(/it was deleted again$/),
    ])
  })
})

describe('a server that lacks something', () => {
  test.each<[topic: string, level: string, says: RegExp, change: Record<string, unknown>]>([
    ['registration', 'todo', /dynamic client registration is off/, { registration_endpoint: undefined }],
    ['refresh', 'todo', /no refresh tokens/, { grant_types_supported: ['authorization_code'] }],
    ['refresh', 'note', /not announced/, { grant_types_supported: undefined }],
    ['user', 'todo', /no ID token/, { scopes_supported: ['read'] }],
    ['user', 'todo', /no ID token/, { jwks_uri: undefined }],
    [
      'authentication',
      'todo',
      /none that Coatcheck has/,
      { token_endpoint_auth_methods_supported: ['tls_client_auth'] },
    ],
    ['authentication', 'ok', /announces none/, { token_endpoint_auth_methods_supported: undefined }],
    ['authentication', 'note', /public client/, { token_endpoint_auth_methods_supported: ['none'] }],
    ['authentication', 'todo', /private_key_jwt/, { token_endpoint_auth_methods_supported: ['private_key_jwt'] }],
    ['rotation', 'note', /by hand/, { registration_endpoint: undefined }],
    ['certificate', 'note', /takes client certificates/, { mtls_endpoint_aliases: {} }],
    [
      'certificate',
      'note',
      /takes client certificates/,
      { token_endpoint_auth_methods_supported: ['client_secret_basic', 'self_signed_tls_client_auth'] },
    ],
    ['revocation', 'note', /live on/, { revocation_endpoint: undefined }],
    ['iss', 'note', /not announced/, { authorization_response_iss_parameter_supported: undefined }],
    ['requests', 'note', /no PAR/, {}],
    ['sign-out', 'note', /^RP-initiated; without/, {}],
    ['sign-out', 'note', /^here only/, { end_session_endpoint: undefined }],
    [
      'sign-out',
      'note',
      /^back-channel; without/,
      { end_session_endpoint: undefined, backchannel_logout_supported: true },
    ],
  ])('%s: %s, %s', async (topic, level, says, change) => {
    const server = await strict()
    server.always('metadata', faults.changed(change))
    const report = await look(server.issuer)
    expect(about(report, topic)).toMatchObject({ level, says: expect.stringMatching(says) })
    expect(report.verdict).toBe(Object.values(levels(report)).includes('todo') ? 'work' : 'usable')
    expect(about(report, topic)?.advice !== undefined).toBe(level === 'todo')
  })

  test('has endpoints elsewhere: they are to be listed, and nothing is sent there unasked', async () => {
    const elsewhere = await strict()
    const server = await strict()
    server.always('metadata', faults.changed({ registration_endpoint: `${elsewhere.issuer}/register` }))
    const report = await look(server.issuer, { register: true, initialAccessToken: 'a-token-for-the-issuer' })
    expect(about(report, 'endpoints')).toMatchObject({ level: 'todo', says: expect.stringContaining(elsewhere.issuer) })
    expect(about(report, 'registration')).toMatchObject({ level: 'todo', says: expect.stringMatching(/^not tried/) })
    expect(report.stage).toEqual({
      providers: { main: { issuer: server.issuer, endpoint_origins: [elsewhere.issuer] } },
    })
    expect(elsewhere.requests).toEqual([])
    const trusted = await look(server.issuer, { register: true, endpointOrigins: [elsewhere.issuer] })
    expect([trusted.verdict, elsewhere.count('register')]).toEqual(['usable', 1])
  })

  test.each<[how: string, options: StrictOptions, question: Partial<Question>, says: RegExp]>([
    ['wants a token', { initialAccessToken: 'right' }, {}, /401.*wants an initial access token/],
    ['wants another token', { initialAccessToken: 'right' }, { initialAccessToken: 'wrong-token-of-ours' }, /401/],
  ])('registers nobody who %s', async (_, options, question, says) => {
    const report = await look((await strict(options)).issuer, { register: true, ...question })
    expect(about(report, 'registration')).toMatchObject({ level: 'todo', says: expect.stringMatching(says) })
    expect([report.verdict, JSON.stringify(report)]).toEqual([
      'work',
      expect.not.stringContaining('wrong-token-of-ours'),
    ])
  })

  test('and registers with the right one', async () => {
    const { issuer } = await strict({ initialAccessToken: 'right' })
    expect(await look(issuer, { register: true, initialAccessToken: 'right' })).toMatchObject({ verdict: 'usable' })
  })

  test('deletes no client: whose it is then is told', async () => {
    const server = await strict()
    server.plan('client', (proceed) => proceed(), faults.refused('server_error', 500))
    const finding = about(await look(server.issuer, { register: true }), 'registration')
    expect(finding).toMatchObject({
      level: 'todo',
      advice: expect.stringContaining(server.clients()[0]?.client_id ?? '-'),
    })
  })
})

describe('a Coder', () => {
  const coder = (era: Era) => kept(startCoderServer({ era }))

  test.each(eras)('of %s is usable with its profile', async (era) => {
    const { issuer, clients } = await coder(era)
    const report = await look(issuer, { register: true })
    expect([report.verdict, report.product]).toEqual(['usable', `Coder ${era}.1`])
    expect(report.stage).toEqual({ providers: { main: { issuer, profile: 'coder' } } })
    expect(report.resource).toBe(issuer)
    expect(clients).toHaveLength(0)
  })

  test.each(eras)('of %s that is off says how it is turned on', async (era) => {
    const server = await coder(era)
    server.settings.enabled = false
    const report = await look(server.issuer, { register: true })
    expect(report.verdict).toBe(era === '2.31' ? 'work' : 'unusable')
    expect(textOf(report).replace(/\s+/g, ' ')).toContain(
      era === '2.38' ? 'set CODER_OAUTH2_PROVIDER_ENABLE=true' : 'add oauth2 to CODER_EXPERIMENTS',
    )
  })

  test.each(['2.37', '2.38'] as const)('of %s that registers nobody says who changes that', async (era) => {
    const server = await coder(era)
    server.settings.registration = false
    const report = await look(server.issuer)
    expect(about(report, 'registration')).toMatchObject({
      level: 'todo',
      advice: expect.stringContaining('coder oauth2-provider dcr enable'),
    })
  })

  test('is not found below its access URL, but named', async () => {
    const { issuer } = await coder('2.38')
    const report = await look(`${issuer}/api/v2`)
    expect(about(report, 'server')).toMatchObject({ level: 'stop', says: expect.stringContaining(issuer) })
  })
})

describe('a resource server', () => {
  const resourceServer = async (members: (url: string) => object) =>
    kept(
      startRecordingServer(
        (_, path) => (path === '/.well-known/oauth-protected-resource/v1' ? 'metadata' : 'other'),
        ({ endpoint }, url) =>
          endpoint === 'metadata' ? json(200, { resource: `${url}/v1`, ...members(url) }) : { status: 404 },
      ),
    )

  test('leads to the authorization server that it trusts', async () => {
    const { issuer } = await strict()
    const { url } = await resourceServer(() => ({ authorization_servers: [issuer, 'https://other.example.com'] }))
    const report = await look(`${url}/v1`)
    expect(report).toMatchObject({ asked: `${url}/v1`, verdict: 'usable', issuer, resource: `${url}/v1` })
    expect(about(report, 'resource')?.says).toMatch(/also trusts https:\/\/other\.example\.com$/)
    expect(report.stage).toEqual({
      providers: { main: { issuer, resource: `${url}/v1` } },
      apis: { main: { provider: 'main', target: `${url}/v1` } },
    })
  })

  test('does not choose who gets the operator’s initial access token', async () => {
    const { issuer, requests } = await strict({ initialAccessToken: 'right' })
    const { url } = await resourceServer(() => ({ authorization_servers: [issuer] }))
    const report = await look(`${url}/v1`, { register: true, initialAccessToken: 'right' })
    expect(about(report, 'registration')?.advice).toMatch(/--endpoint-origin/)
    expect(JSON.stringify(requests)).not.toContain('right')
    const named = { register: true, initialAccessToken: 'right', endpointOrigins: [new URL(issuer).origin] }
    expect(await look(`${url}/v1`, named)).toMatchObject({ verdict: 'usable' })
  })

  test.each([
    ['names none', {}, /names no authorization server$/],
    ['is another', { resource: 'https://other.example.com' }, /of another resource, https:\/\/other\.example\.com/],
    ['names one that is none', { authorization_servers: ['http://127.0.0.1:1'] }, /nothing listens there/],
  ])('that %s cannot be used', async (_, members, says) => {
    const { url } = await resourceServer(() => members)
    const report = await look(`${url}/v1`)
    expect([report.verdict, about(report, 'server')?.says]).toEqual(['unusable', expect.stringMatching(says)])
  })
})

describe('a server that cannot be used', () => {
  test.each<[how: string, fault: Fault, says: RegExp]>([
    ['answers with a page', faults.webPage(), /answered with a web page; .*Nor any of a resource: .*web page/],
    ['forbids', faults.webPage(403), /answered 403/],
    ['is unwell', faults.webPage(503), /answered 503/],
    [
      'leads elsewhere',
      faults.moved('https://evil.example/'),
      /a redirect to https:\/\/evil\.example, and none is followed/,
    ],
    [
      'is another issuer',
      faults.changed({ issuer: 'https://evil.example' }),
      /of another issuer, https:\/\/evil\.example$/,
    ],
    ['has no S256', faults.changed({ code_challenge_methods_supported: ['plain'] }), /PKCE with S256/],
    ['says it twice', faults.rewritten((text) => text.replace('{', '{"issuer": "x",')), /"issuer" stands twice/],
    ['never stops', faults.instead({ status: 200, body: Buffer.alloc(1_000_000, ' ') }), /are over 262144 bytes/],
    ['breaks off', faults.reset, /no answer .*: the connection broke before the answer was there$/],
    ['sends half', faults.truncated, /the connection broke/],
    [
      'has an endpoint without TLS',
      faults.changed({ token_endpoint: 'https://as.example.com' }),
      /token_endpoint is not http$/,
    ],
  ])('%s', async (_, fault, says) => {
    const server = await strict()
    server.always('metadata', fault)
    server.always('other', fault)
    const report = await look(server.issuer)
    expect([report.verdict, about(report, 'server')?.says]).toEqual(['unusable', expect.stringMatching(says)])
    expect([report.issuer, report.stage]).toEqual([null, null])
  })

  test('hangs: that is told while it lasts, and in the end', { timeout: 20_000 }, async () => {
    const server = await strict()
    server.always('metadata', faults.hung)
    const lines: string[] = []
    const calls = createCalls((line) => void lines.push(line), { slowMs: 10 })
    const report = await look(server.issuer, {}, calls)
    expect(about(report, 'server')?.says).toBe(`no answer from ${server.issuer}: it did not answer in time`)
    expect(lines).toEqual([`waiting for ${server.issuer}/.well-known/oauth-authorization-server`])
  })

  test.each([
    ['http://127.0.0.1:1', /nothing listens there \(ECONNREFUSED\)$/],
    ['https://as.invalid', /nobody knows that name \((ENOTFOUND|EAI_AGAIN)\)$/],
    ['https://169.254.169.254', /an address that no deployed stage may call$/],
  ])('is at %s', async (url, says) => {
    const report = await look(url)
    expect([report.asked, report.verdict, about(report, 'server')?.says]).toEqual([
      url,
      'unusable',
      expect.stringMatching(says),
    ])
  })
})

describe('a server in a private network', () => {
  test.each([
    [['10.20.3.4'], ['10.20.3.0/24']],
    [['fd12:3456::1'], ['fd12:3456::1/64']],
    [
      ['100.64.0.1', '192.168.1.1'],
      ['100.64.0.0/24', '192.168.1.0/24'],
    ],
  ])('at %j is usable once that is listed', async (addresses, networks) => {
    const { issuer } = await strict()
    const calls = createCalls(() => undefined)
    const privateAddresses = new Map([['as.example.internal', new Set(addresses)]])
    const report = await look(issuer, {}, { ...calls, privateAddresses })
    expect([report.verdict, report.stage?.['private_networks']]).toEqual(['work', networks])
    expect(about(report, 'address')?.advice).toContain(networks.join(', '))
  })
})

test('the issuer is written as its metadata write it', async () => {
  const server = await strict()
  server.always('metadata', faults.changed({ issuer: `${server.issuer}/` }))
  expect(await look(server.issuer)).toMatchObject({ verdict: 'usable', issuer: `${server.issuer}/` })
})

test('nothing of a server reaches the terminal but plain characters', async () => {
  const server = await strict()
  const evil = '\u001b]0;owned\u0007\u202e\u009b31m'
  server.always(
    'metadata',
    faults.changed({ token_endpoint_auth_methods_supported: [evil, 'client_secret_basic'], scopes_supported: [evil] }),
  )
  server.always('register', faults.refused(evil, 400, evil))
  const text = textOf(await look(server.issuer, { register: true }))
  expect(text).toMatch(/^[\x20-\x7e\n]+$/)
  expect(Math.max(...text.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(100)
})
