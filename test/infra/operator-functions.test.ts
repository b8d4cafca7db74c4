import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { orders as functionsOfOrders, register } from '../../infra/flows.ts'
import { REGION } from '../../infra/local/aws-call.ts'
import { runCommand } from '../support/commands.ts'
import { json, startRecordingServer, type Answer } from '../support/server.ts'

/** What operators' commands do with accounts and functions that are not as expected. Lambda is the test's, and answers as it is told. */

const description = functionsOfOrders['operator-sessions']?.description
const stageOf = (...providers: string[]) =>
  JSON.stringify({ providers: Object.fromEntries(providers.map((name) => [name, {}])) })
const deployed = (FunctionName: string, stage: string, Description = description) => ({
  FunctionName,
  Description,
  Environment: { Variables: { COATCHECK_STAGE: stage } },
})
const session = {
  session: 'abcdefghijkl',
  provider: 'main',
  user_agent: 'Firefox',
  created_at: 1_795_282_800,
  last_seen_at: 1_795_282_860,
  ends_at: 1_795_326_000,
}
const outcome = { account: 'mnopqrstuvwx', sessions: [session], looked_at: 0, next: null }

let lambda: Awaited<ReturnType<typeof startRecordingServer<'list' | 'invoke'>>>
let functions: object[][]
let answers: (Answer | { outcome: object })[]

beforeAll(async () => {
  lambda = await startRecordingServer<'list' | 'invoke'>(
    (method) => (method === 'GET' ? 'list' : 'invoke'),
    ({ endpoint, query }) => {
      if (endpoint === 'list') {
        const page = Number(query.get('Marker') ?? 0)
        return json(200, {
          Functions: functions[page] ?? [],
          NextMarker: page + 1 < functions.length ? `${page + 1}` : null,
        })
      }
      const next = answers.shift() ?? { outcome: {} }
      return 'outcome' in next ? json(200, next.outcome) : next
    },
  )
})
afterAll(() => lambda.close())
beforeEach(() => {
  functions = [[deployed('one', stageOf('main'))]]
  answers = [{ outcome }]
})

const sessions = (...args: string[]) =>
  runCommand('sessions', ['main', '--subject', 'ada', ...args, '--endpoint', lambda.url])
const invoked = () => lambda.requests.filter(({ endpoint }) => endpoint === 'invoke')
const orders = () => invoked().map(({ body }) => JSON.parse(body.toString()))

describe('the function', () => {
  test('is found among all that an account has, by its description and the stage in its environment', async () => {
    functions = [
      [{}, { FunctionName: 'bare' }, deployed('other', stageOf('main'), 'something else')],
      [deployed('broken', '{'), deployed('none', '{}'), deployed('list', '{"providers":["main"]}')],
      [deployed('second', stageOf('second')), deployed('mine', stageOf('x', 'main'))],
    ]
    expect((await sessions()).code).toBe(0)
    expect(invoked().at(-1)?.path).toContain('/functions/mine/invocations')
  })

  test('is not guessed where several stacks have a provider of that name; the operator says which', async () => {
    functions = [[deployed('one', stageOf('main'))], [deployed('two', stageOf('main'))]]
    const before = invoked().length
    expect(await sessions('--end')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Several stacks have a provider main; add --function and one of one two\n',
    })
    expect(invoked()).toHaveLength(before)
    expect((await sessions('--function', 'two')).code).toBe(0)
    expect(invoked().at(-1)?.path).toContain('/functions/two/invocations')
  })

  test.each([
    [[], 'There is no provider main in this account and region; there is no stack of Coatcheck.\n'],
    [
      [[deployed('one', stageOf('b', 'a'))]],
      'There is no provider main in this account and region; there is only a, b.\n',
    ],
  ])('that is not there is told: %#', async (there, stderr) => {
    functions = there
    expect(await sessions()).toEqual({ code: 1, stdout: '', stderr })
  })
})

describe('a search that takes several calls', () => {
  test('goes on where the one before ended, and says how far it is', async () => {
    const before = orders().length
    const key = { pk: 'A#x', sk: 'S#y' }
    answers = [
      { outcome: { account: null, sessions: [], looked_at: 4_000, next: key } },
      { outcome: { account: null, sessions: [], looked_at: 2_500, next: { ...key, ttl: 1 } } },
      { outcome },
    ]
    const ran = await runCommand('sessions', ['main', '--session', 'abcdefghijkl', '--endpoint', lambda.url])
    expect(ran).toMatchObject({ code: 0, stderr: 'looked at 4000 records so far\nlooked at 6500 records so far\n' })
    const order = { provider: 'main', of: { session: 'abcdefghijkl' }, end: false }
    expect(orders().slice(before)).toEqual([order, { ...order, from: key }, { ...order, from: key }])
  })
})

const failed = (body: string): Answer => ({ status: 200, headers: { 'x-amz-function-error': 'Unhandled' }, body })
const refused = (status: number, type: string): Answer => ({
  status,
  headers: { 'x-amzn-errortype': type },
  body: '{"Message":"said so"}',
})
const other = 'one answered something else; is the stack of this version?\n'

test.each<[string, Answer | { outcome: object }, string]>([
  ['is no JSON', { status: 200, body: '{' }, other],
  ['is empty', { status: 200, body: '' }, other],
  ['is null', { status: 200, body: 'null' }, other],
  ['is a list', { status: 200, body: '[]' }, other],
  ['lacks members', { outcome: { account: null, sessions: [] } }, other],
  ['has sessions that are none', { outcome: { ...outcome, sessions: [{ ...session, session: 'a b' }] } }, other],
  ['has times that are none', { outcome: { ...outcome, sessions: [{ ...session, ends_at: '1795326000' }] } }, other],
  ['has times that no calendar has', { outcome: { ...outcome, sessions: [{ ...session, ends_at: 9e15 }] } }, other],
  ['has an account that is none', { outcome: { ...outcome, account: 'x'.repeat(1_000_000) } }, other],
  [
    'is a failure',
    failed('{"errorType":"Error","errorMessage":"store_unavailable: throttled"}'),
    'one failed: store_unavailable: throttled\n',
  ],
  ['is a failure that says nothing', failed('{'), 'one failed: Unhandled\n'],
  ['is a failure in many lines', failed('{"errorMessage":"a\\nb\\u001b[2Jc"}'), 'one failed: a b [2Jc\n'],
  ['is a refusal', refused(403, 'AccessDeniedException'), 'AccessDeniedException: said so\n'],
  ['is that there are too many', refused(429, 'TooManyRequestsException'), 'TooManyRequestsException: said so\n'],
])('an answer that %s is told in a line, and nothing else is', async (_, answer, stderr) => {
  answers = [answer]
  const before = invoked().length
  expect(await sessions('--end')).toEqual({ code: 1, stdout: '', stderr })
  expect(invoked(), 'an order is given once').toHaveLength(before + 1)
})

const look = {
  issuer: 'https://as.example.com',
  standing: 'known',
  detail: null,
  client_id: 'c1',
  token_endpoint_auth_method: 'private_key_jwt',
  registered_at: null,
  secret_ends_at: null,
  retiring: 0,
  attempts: 2,
  rotation_pending: true,
}

describe('the registration', () => {
  const registration = (...args: string[]) =>
    runCommand('registration-command', ['main', ...args, '--endpoint', lambda.url])
  beforeEach(() => {
    functions = [[deployed('one', stageOf('main'), register.description)]]
  })

  test('is told with what rotations left', async () => {
    answers = [{ outcome: look }]
    expect(await registration()).toEqual({
      code: 0,
      stderr: '',
      stdout: [
        'main at https://as.example.com: known there, and as the stage asks',
        '  client c1, private_key_jwt',
        '  a rotation was begun and is not done; npm run rotate takes it up again',
        '  perhaps orphans: 2; see npm run rotate -- main --list',
        '',
      ].join('\n'),
    })
  })

  test.each([
    ['unmanaged', 0],
    ['static', 0],
    ['lost', 1],
    ['differs', 1],
    ['unreachable', 1],
    ['none', 1],
  ])('that is %s has the exit code %d', async (standing, code) => {
    answers = [{ outcome: { ...look, standing, client_id: null } }]
    expect(await registration()).toMatchObject({ code, stderr: '' })
  })

  test('cannot steer the terminal by what the server said', async () => {
    answers = [{ outcome: { ...look, standing: 'differs', detail: 'a\u001b[2J\nb', client_id: 'c\r\n1' } }]
    const { stdout } = await registration()
    expect(stdout.split('\n').slice(1, 3)).toEqual(['  a [2J b', '  client c 1, private_key_jwt'])
  })

  test.each([
    [[], { ...look, standing: 'fine' }],
    [[], { ...look, registered_at: 'now' }],
    [[], { ...look, secret_ends_at: 9e15 }],
    [[], {}],
    [['--repair'], { done: 'perhaps' }],
    [['--repair'], { done: 'updated', client_id: 7 }],
    [['--repair'], look],
  ])('is not told from an answer that is none: %j %j', async (args, answer) => {
    answers = [{ outcome: answer }]
    expect(await registration(...args)).toEqual({ code: 1, stdout: '', stderr: other })
  })
})

test('what a browser called itself cannot steer the terminal, nor look like another line', async () => {
  answers = [{ outcome: { ...outcome, sessions: [{ ...session, user_agent: 'a\u001b[2J\r\nb\u202ec\u2028d' }] } }]
  const { stdout } = await sessions()
  expect(stdout.split('\n')).toEqual([
    'account mnopqrstuvwx: 1 session',
    'abcdefghijkl  main  since 2026-11-21T17:40:00Z, last seen 2026-11-21T17:41:00Z, until 2026-11-22T05:40:00Z  a [2J b c d',
    '',
  ])
})

test('a session whose sealing key is gone is told of all the same', async () => {
  answers = [{ outcome: { ...outcome, sessions: [{ ...session, user_agent: null }] } }]
  expect((await sessions()).stdout).toContain('(its sealing key is gone)')
})

const nowhere = { PATH: process.env['PATH'], HOME: '/nonexistent', AWS_EC2_METADATA_DISABLED: 'true' }
test.each([
  ['no region', nowhere, [], 'Say which region: set AWS_REGION, or a profile that has one.\n'],
  [
    'no credentials',
    { ...nowhere, AWS_REGION: REGION },
    [],
    'There are no AWS credentials: set AWS_PROFILE or sign in as for the AWS CLI.\n',
  ],
  [
    'an endpoint that is none',
    process.env,
    ['--endpoint', 'demo'],
    '--endpoint takes the URL that npm start prints.\n',
  ],
  [
    'an endpoint where nobody is',
    process.env,
    ['--endpoint', 'http://127.0.0.1:1'],
    'AWS cannot be reached (ECONNREFUSED); for the local run, take --endpoint from what npm start prints.\n',
  ],
])('%s is a sentence', async (_, env, args, stderr) => {
  expect(await runCommand('sessions', ['main', '--subject', 'ada', ...args], { env })).toEqual({
    code: 1,
    stdout: '',
    stderr,
  })
})
