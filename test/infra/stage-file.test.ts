import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkStage, readStageFile, StageFault, stageJsonSchema } from '../../infra/stage-file.ts'

const root = join(import.meta.dirname, '../..')
const good = {
  origin: 'https://app.example.com',
  providers: { main: { issuer: 'https://as.example.com' }, other: { issuer: 'https://other.example.com/tenant' } },
  apis: { orders: { provider: 'main', target: 'https://orders.example.com/v1' } },
}
const huge = 'x'.repeat(100_000)
const many = (count: number) => Array.from({ length: count }, (_, index) => `item-${index}`)

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'stage-files-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The good stage with one setting changed; `undefined` takes it away. */
const withSetting = (path: string, value: unknown): unknown => {
  const stage: unknown = structuredClone(good)
  const names = path.split('.')
  let inner: unknown = stage
  for (const name of names.slice(0, -1)) {
    if (typeof inner !== 'object' || inner === null) throw new Error(`no object at ${path}`)
    if (Reflect.get(inner, name) === undefined) Reflect.set(inner, name, {})
    inner = Reflect.get(inner, name)
  }
  if (typeof inner === 'object' && inner !== null) Reflect.set(inner, names.at(-1) ?? '', value)
  return JSON.parse(JSON.stringify(stage))
}
const faultsOf = (stage: unknown): string[] => {
  try {
    checkStage('prod', stage)
    return []
  } catch (error) {
    if (!(error instanceof StageFault)) throw error
    const [first, ...lines] = error.message.split('\n')
    expect(first).toBe('The stage prod cannot be used:')
    return lines.map((line) => line.replace(/^ {2}- /, ''))
  }
}

const notOrigins = [
  '',
  'app.example.com',
  'https://app.example.com/',
  'https://APP.example.com',
  'https://app.example.com:443',
  'http://app.example.com',
  'https://user@app.example.com',
  'https://*.example.com',
  'https://app.example.com.',
  'https://a_b.example',
  'https://a b',
  'null',
  'file://',
  'javascript:alert(1)',
  'https://app.example.com/../x',
  7,
  null,
  ['https://app.example.com'],
  huge,
]
const notUrls = [
  '',
  'as.example.com',
  'http://as.example.com',
  'ftp://as.example.com',
  'https://user:secret@as.example.com',
  'https://as.example.com?x',
  'https://as.example.com#x',
  'https://AS.example.com',
  'https://as.example.com:443',
  'https://as.example.com/a/../b',
  'https://as.example.com/%zz\u0000',
  'javascript:alert(1)',
  'https://*.example.com',
  1,
  null,
  {},
  huge,
]
const notSeconds = (least: number, most: number) => [least - 1, most + 1, -1, 1.5, '60', null, [], true, 1e99]
const notHeaders = [
  '',
  'a b',
  'a:',
  'a\r\nb',
  '-a',
  'ä',
  'x'.repeat(65),
  'Cookie',
  'host',
  'X-CSRF',
  'Sec-Token',
  1,
  null,
]
const topic = 'arn:aws:sns:eu-central-1:123456789012:alarms'
const notTopics = [`${topic}.fifo`, `${topic}:1`, `${topic}*`, `${topic}\n`, topic.replace('sns', 'sqs'), '', 1, huge]
const notSecrets = ['', 'a b', 'name\n', 'arn:aws:iam::1:role/x', 'x'.repeat(513), 1, null]
const notNames = ['', 'A', 'a_b', '-a', '9a', 'a/b', 'a.b', 'ä', 'x'.repeat(33), 1, null]

/** Every setting, with values that nobody may write. */
const refused: Record<string, unknown[]> = {
  $schema: [1, null],
  origin: [undefined, ...notOrigins],
  providers: [undefined, null, [], 'main', {}],
  'providers.main': [null, [], 'https://as.example.com'],
  'providers.main.issuer': [undefined, ...notUrls],
  'providers.main.client_name': ['', 'x'.repeat(65), 'a\nb', 'a\u0000b', 'a\u202eb', 1, null, []],
  'providers.main.scopes': [[], 'openid', null, many(65)],
  'providers.main.scopes.0': [],
  'providers.main.resource': notUrls,
  'providers.main.claims': ['sub', null, many(65)],
  'providers.main.grants': ['', 'per_user', 'Per-User', 1, null, true],
  'providers.main.account': [null, [], 'https://as.example.com/me'],
  'providers.main.account.url': [undefined, ...notUrls],
  'providers.main.account.subject': [undefined, '', 'x'.repeat(65), 1, null],
  'providers.main.account.claims': [null, [], 'sub'],
  'providers.main.account.claims.main': ['', 'x'.repeat(65), 1, null],
  'providers.main.account.token_header': notHeaders,
  'providers.main.client': ['', 'Static', 'public', 1, null, true],
  'providers.main.client_logo_uri': notUrls,
  'providers.main.api_token': ['', 'on', 'Preferred', true, 1, null],
  'providers.main.rotation': [null, [], 'keys'],
  'providers.main.rotation.mode': ['', 'Keys', 'weekly', 1, null],
  'providers.main.profile': ['', 'Coder', 'keycloak', 1, null, []],
  'providers.main.rotation.every_days': [0, 1_001, -1, 1.5, '30', null, [], true, 1e99],
  'providers.main.initial_access_token_secret': notSecrets,
  'providers.main.certificate_secret': notSecrets,
  'providers.main.endpoint_origins': [null, 'https://a.example', many(9)],
  default_provider: [...notNames, 'nobody', '__proto__', 'constructor'],
  apis: [null, [], 'orders'],
  'apis.orders': [null, [], 'x'],
  'apis.orders.provider': [undefined, ...notNames, 'nobody'],
  'apis.orders.target': [undefined, ...notUrls],
  'apis.orders.methods': [[], 'GET', null],
  'apis.orders.navigation': ['true', 1, null],
  'apis.orders.token_header': notHeaders,
  'apis.orders.resource': notUrls,
  'apis.orders.exchange': [null, [], 'reports', {}, { requested_token_type: 'urn:ietf:params:oauth:token-type:jwt' }],
  'apis.orders.exchange.audience': ['', 'a b', 'a\n', 'ä', 'x'.repeat(513), 1, null],
  'apis.orders.exchange.resource': notUrls,
  'apis.orders.exchange.scope': ['', ' ', 'a  b', ' a', 'a ', '"', 'a\nb', 'x'.repeat(1_025), 1, null, []],
  'apis.orders.exchange.requested_token_type': ['', 'jwt', 'urn:ietf:params:oauth:token-type:refresh_token', 1, null],
  'apis.orders.timeout_seconds': notSeconds(1, 25),
  return_to_origins: [null, 'https://a.example', many(17)],
  private_networks: [null, '10.0.0.0/8', many(17)],
  session: [null, [], 1],
  'session.idle_seconds': notSeconds(60, 2_592_000),
  'session.absolute_seconds': notSeconds(60, 7_776_000),
  'session.max_parallel': [0, 1_001, -1, 1.5, '20', null, [], 1e99],
  renewal: [null, [], 'soon'],
  'renewal.leeway_seconds': notSeconds(1, 3_600),
  'renewal.authorization_server_timeout_seconds': notSeconds(1, 8),
  logs: [null, []],
  'logs.level': ['', 'INFO', 'trace', 1, null],
  alarms: [null, [], 'arn:aws:sns:eu-central-1:123456789012:alarms', {}],
  'alarms.topic_arn': [undefined, ...notTopics],
  'logs.retention_days': [0, 2, 10, 10_000, 1.5, '90', null],
  removal: ['', 'keep', 'Destroy', true, null],
}

describe('a setting that cannot be used is named, with what to write instead', () => {
  const cases = Object.entries(refused).flatMap(([path, values]) =>
    values.map((value): [string, string, unknown] => [path, (JSON.stringify(value) ?? 'left out').slice(0, 60), value]),
  )
  test.each(cases)('%s: %s', (path, _, value) => {
    const faults = faultsOf(withSetting(path, value))
    const [name = '', what = ''] = (faults.find((fault) => fault.startsWith(path)) ?? '').split(/: (.*)/s)
    expect(`${name}.`).toMatch(new RegExp(`^${path.replaceAll(/[.$]/g, '\\$&')}\\.`))
    expect(what).toMatch(/^(must |is missing$|names )/)
    expect(what).not.toMatch(/xxxxxx|secret@|\p{Cc}/u)
  })

  test.each<[path: string, items: unknown[]]>([
    ['providers.main.scopes', ['a b', '', '"', '\\', 'ä', 1, null, huge]],
    ['providers.main.claims', ['', 'x'.repeat(65), 1, null]],
    ['providers.main.endpoint_origins', notOrigins],
    ['return_to_origins', notOrigins],
    ['private_networks', ['', '10.0.0.0', '0.0.0.0/0', '127.0.0.0/8', '169.254.0.0/16', '::/0', 1, null, huge]],
    ['apis.orders.methods', ['get', 'TRACE', 'CONNECT', 'OPTIONS', '*', '', 1, null]],
  ])('in the list %s too, by its place', (path, items) => {
    for (const item of items) {
      expect(faultsOf(withSetting(path, [item]))).toEqual([expect.stringMatching(`^${path}\\.0: must `)])
    }
  })

  test('every setting of the schema has been tried', () => {
    interface Schema {
      properties?: Record<string, Schema>
      additionalProperties?: Schema | false
    }
    const names = (schema: Schema, at: string[], instance: string): string[] => [
      ...(at.length > 0 ? [at.join('.')] : []),
      ...Object.entries(schema.properties ?? {}).flatMap(([name, inner]) =>
        names(inner, [...at, name], name === 'apis' ? 'orders' : 'main'),
      ),
      ...(typeof schema.additionalProperties === 'object'
        ? names(schema.additionalProperties, [...at, instance], instance)
        : []),
    ]
    expect(names(stageJsonSchema(), [], '').toSorted()).toEqual(
      Object.keys(refused)
        .filter((path) => !path.endsWith('.0'))
        .toSorted(),
    )
  })
})

describe('what does not belong together', () => {
  test.each<[path: string, name: string, what: RegExp]>([
    ['sesion', 'the stage', /has no setting named sesion/],
    ['providers.main.client_secret', 'providers.main:', /has no setting named client_secret/],
    ['apis.orders.cache', 'apis.orders:', /has no setting named cache/],
    ['session.idle', 'session:', /has no setting named idle/],
    ['constructor', 'the stage', /has no setting named constructor/],
  ])('an unknown setting %s', (path, name, what) => {
    const faults = faultsOf(withSetting(path, 'x'))
    expect(faults).toEqual([expect.stringMatching(what)])
    expect(faults[0]).toMatch(new RegExp(`^${name} `))
  })

  test.each(notNames.filter((name) => typeof name === 'string' && name !== ''))(
    'a provider or API named %s',
    (name) => {
      for (const kind of ['providers', 'apis'] as const) {
        const stage = {
          ...good,
          [kind]: { ...good[kind], [String(name)]: kind === 'providers' ? good.providers.main : good.apis.orders },
        }
        expect(faultsOf(stage)).toEqual([
          expect.stringMatching(`^${kind}\\..+: is no good name: it must be 1 to 32 of a-z`),
        ])
      }
    },
  )

  test('a name of JavaScript’s own is a name like any other, or none', () => {
    const stage = { ...good, providers: { ...good.providers, constructor: { issuer: 'https://c.example' } } }
    expect(checkStage('prod', stage).providers['constructor']).toMatchObject({ issuer: 'https://c.example' })
    const faults = faultsOf(
      JSON.parse(`{"origin": "https://a.example", "providers": {"__proto__": {"issuer": "https://c.example"}}}`),
    )
    expect(faults.length).toBeGreaterThan(0)
  })

  test.each<[why: string, change: object, fault: RegExp]>([
    [
      'a default provider that is none',
      { default_provider: 'nobody' },
      /^default_provider: names nobody, which is not one of the providers$/,
    ],
    [
      'an API of no provider',
      { apis: { orders: { ...good.apis.orders, provider: 'nobody' } } },
      /^apis\.orders\.provider: names nobody, which is not/,
    ],
    [
      'an idle end after the absolute end',
      { session: { idle_seconds: 3_600, absolute_seconds: 600 } },
      /^session\.idle_seconds: must not be more than absolute_seconds$/,
    ],
    [
      'an initial access token for a client that an operator registers',
      { providers: { main: { ...good.providers.main, client: 'static', initial_access_token_secret: 'token' } } },
      /^providers\.main\.initial_access_token_secret: must be left out where client is static/,
    ],
    ...['keys', 'in-place'].map((mode): [string, object, RegExp] => [
      `rotation by ${mode} for a client that an operator registers`,
      { providers: { main: { ...good.providers.main, client: 'static', rotation: { mode } } } },
      /^providers\.main\.rotation\.mode: must be left out where client is static/,
    ]),
    [
      'a client certificate on an origin of a provider with none',
      {
        providers: {
          ...good.providers,
          main: { ...good.providers.main, certificate_secret: 'mine' },
          twin: { issuer: 'https://as.example.com/twin' },
        },
      },
      /^providers\.main\.certificate_secret: must be that of twin too, which has servers on https:\/\/as\.example\.com/,
    ],
    [
      'a client certificate without TLS',
      {
        origin: 'http://localhost:8080',
        providers: { main: { issuer: 'http://localhost:8081', certificate_secret: 'mine' } },
        apis: {},
      },
      /^providers\.main\.certificate_secret: needs https: http:\/\/localhost:8081 can be shown no certificate$/,
    ],
    [
      'API tokens without an account endpoint',
      { providers: { main: { issuer: 'https://as.example.com', api_token: 'fallback' } } },
      /^providers\.main\.api_token: needs account, which tells whose a token is$/,
    ],
    [
      'http beside https',
      { providers: { main: { issuer: 'http://localhost:1' } } },
      /^providers\.main\.issuer: must use https, since the origin does$/,
    ],
    [
      'an http target beside https',
      { apis: { orders: { provider: 'main', target: 'http://127.0.0.1:1' } } },
      /^apis\.orders\.target: must use https, since the origin does$/,
    ],
  ])('%s', (_, change, fault) => {
    expect(faultsOf({ ...good, ...change })).toEqual([expect.stringMatching(fault)])
  })

  test('all faults are told at once', () => {
    const faults = faultsOf({ ...good, origin: 'x', removal: 'y', logs: { level: 'z' } })
    expect(faults.map((fault) => fault.split(':')[0])).toEqual(['origin', 'logs.level', 'removal'])
  })

  test.each([null, [], 'stage', 7, true])('the stage %j', (stage) => {
    expect(faultsOf(stage)).toEqual(['the stage must be an object in braces'])
  })
})

describe('a file', () => {
  const file = (text: string): string => {
    const name = join(folder, `${Math.random().toString(36).slice(2)}.json`)
    writeFileSync(name, text)
    return name
  }
  const fault = (name: string): string => {
    try {
      readStageFile(name)
    } catch (error) {
      if (error instanceof StageFault) return error.message
      throw error
    }
    throw new Error(`${name} was read`)
  }

  test.each(['nowhere', '../../../../etc/passwd', '', 'a\u0000b', folder, 'x'.repeat(5_000)])(
    '%s that is not there',
    (name) => {
      expect(fault(name ?? '')).toMatch(/there is no readable file .*; name it with -c stage=<name or file>$/s)
    },
  )

  test.each(['', '{', '{"origin": }', "{'origin': 1}", '{"a": 1,}', '// comment\n{}', '\u0000'])(
    'with %j in it',
    (text) => {
      expect(fault(file(text))).toMatch(/cannot be used:\n {2}- it is not JSON: /)
    },
  )

  test('with settings that stand twice', () => {
    const text = `{"origin": "https://a.example", "providers": {"a": {"issuer": "x", "is\\u0073uer": "y"}, "b": {}, "a": {}},
      "list": [{"x": 1}, {"x": ["x", "x", {"y": "\\"y\\": {", "y": 1}]}], "origin": "https://b.example"}`
    const [, ...lines] = fault(file(text)).split('\n')
    expect(lines.map((line) => line.slice(4))).toEqual([
      'providers.a.issuer: stands twice',
      'providers.a: stands twice',
      'list..x..y: stands twice',
      'origin: stands twice',
    ])
  })

  test('of each stage of ours is good', () => {
    expect(checkStage('local', readStageFile('local'))).toMatchObject({
      origin: 'http://localhost:8080',
      removal: 'destroy',
    })
  })

  test('is known to editors: stage.schema.json is what `npx node infra/print-configuration.ts` writes', () => {
    const written: unknown = JSON.parse(readFileSync(join(root, 'infra/stages/stage.schema.json'), 'utf8'))
    expect(written).toEqual(JSON.parse(JSON.stringify(stageJsonSchema())))
  })

  test('that lacks settings gets the defaults, and what is given stays', () => {
    expect(checkStage('prod', good)).toMatchObject({
      session: { idle_seconds: 3_600, absolute_seconds: 43_200, max_parallel: 20 },
      renewal: { leeway_seconds: 60, authorization_server_timeout_seconds: 5 },
      removal: 'retain',
      return_to_origins: [],
      apis: {
        orders: { methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'], navigation: false, timeout_seconds: 20 },
      },
    })
  })
})
