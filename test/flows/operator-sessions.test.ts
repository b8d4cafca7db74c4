import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sessionCookie, signedInRecords } from '../support/answers.ts'
import { runCommand } from '../support/commands.ts'
import { gate, reset } from '../support/faults.ts'
import { openRecords } from '../support/records.ts'
import { authorize, navigation, signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'
import type { Browser } from '../support/user-agent.ts'

/** An operator looks at the sessions of users and ends them, by `npm run sessions`. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let records: ReturnType<typeof openRecords>
const said: string[] = []

beforeAll(async () => {
  stack = await startStrictStack({
    stage: (stage) => ({
      ...stage,
      // A further client at the same server: its users are the same.
      providers: { ...stage.providers, second: { ...stage.providers['demo'], client_name: 'Second' } },
    }),
  })
  records = openRecords(stack.stack)
})
afterAll(async () => {
  records.close()
  await stack.close()
})

const sessions = async (...args: string[]) => {
  const ran = await runCommand('sessions', [...args, '--endpoint', stack.stack.endpoints.lambda])
  said.push(ran.stdout, ran.stderr)
  return ran
}
const signedIn = async (user = 'Ada', provider = 'demo'): Promise<Browser> => {
  const tab = stack.newBrowser()
  await signIn(tab, { user, provider })
  return tab
}
const isSignedIn = async (tab: Browser): Promise<boolean> => {
  const { authenticated, provider } = (await tab.fetch('/bff/session')).json()
  const isOver = authenticated !== true
  if (isOver || provider === 'demo') expect((await tab.fetch('/api/demo/whoami')).status).toBe(isOver ? 401 : 200)
  return !isOver
}
const areSignedIn = (...tabs: Browser[]) => Promise.all(tabs.map(isSignedIn))
type Entry = Record<string, unknown>
const trail = (): Entry[] =>
  stack.logs
    .flatMap(({ line }) => (line.startsWith('{') ? [JSON.parse(line) as Entry] : []))
    .filter(({ audit }) => audit === true)
/** What the trail calls the session that began last, and its user. */
const lastSignIn = () => {
  const entry = trail().findLast(({ message }) => message === 'signed_in') ?? {}
  return { account: String(entry['account']), session: String(entry['session']) }
}
/** Grants of the server whose tokens still work. */
const liveGrants = () => stack.authorizationServer.grants.filter(({ live }) => live).length

const nobodyIsSignedIn = async (): Promise<void> => {
  for (const subject of ['ada', 'grace']) {
    await stack.stack.invoke('OperatorSessions', { provider: 'demo', of: { subject }, end: true })
  }
  expect(signedInRecords(await stack.items())).toEqual([])
}

describe('looking', () => {
  beforeEach(nobodyIsSignedIn)

  test('shows who is signed in where, as the audit trail calls them, and nothing that opens a session', async () => {
    const [one, two] = [await signedIn(), await signedIn('Ada', 'second')]
    const { account, session } = lastSignIn()
    await signedIn('Grace')
    const { code, stdout, stderr } = await sessions('demo', '--subject', 'ada')
    expect([code, stderr]).toEqual([0, ''])
    const [head, ...lines] = stdout.trimEnd().split('\n')
    expect(head).toBe(`account ${account}: 2 sessions`)
    const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
    expect(lines.toSorted((a, b) => Number(a.includes('  second  ')) - Number(b.includes('  second  ')))).toEqual([
      expect.stringMatching(
        new RegExp(`^[\\w-]{12}  demo  since ${time}, last seen ${time}, until ${time}  Mozilla/5.0 .*Chrome/147`),
      ),
      expect.stringMatching(new RegExp(`^${session}  second  since `)),
    ])
    for (const tab of [one, two]) {
      const [id = '', handle = ''] = (tab.cookies.get(stack.origin, sessionCookie) ?? '').split('.')
      expect(stdout).not.toContain(id)
      expect(stdout).not.toContain(handle)
    }
    expect(await areSignedIn(one, two)).toEqual([true, true])
  })

  test.each(['account', 'session'] as const)('finds a user by the pseudonym of the %s', async (kind) => {
    await signedIn()
    await signedIn()
    const { account, session } = lastSignIn()
    const { code, stdout } = await sessions('demo', `--${kind}=${kind === 'account' ? account : session}`)
    expect([code, stdout.split('\n')[0]]).toEqual([
      0,
      `account ${account}: ${kind === 'account' ? '2 sessions' : '1 session'}`,
    ])
    expect(stdout).toContain(session)
  })

  test('finds a pseudonym in a table of many pages', async () => {
    await signedIn()
    const { session } = lastSignIn()
    const large = { B: new Uint8Array(390_000) }
    for (let part = 0; part < 8; part += 1) await stack.putItem({ pk: { S: `J#${part}` }, sk: { S: '-' }, large })
    const scans = () => stack.stack.awsCalls.filter(({ action }) => action === 'dynamodb:Scan').length
    const before = scans()
    expect((await sessions('demo', '--session=abcdefghijkl')).stderr).toMatch(/^Nobody is signed in/)
    expect(scans() - before).toBeGreaterThanOrEqual(3)
    expect((await sessions('demo', `--session=${session}`)).stdout).toContain(`${session}  demo`)
  })

  test('leaves no trace in the trail', async () => {
    await signedIn()
    const before = trail().length
    await sessions('demo', '--subject', 'ada')
    expect(trail().slice(before)).toEqual([])
  })
})

describe('ending', () => {
  beforeEach(nobodyIsSignedIn)

  test('all of a user: over at once at every provider, revoked, in the trail; other users do not notice', async () => {
    const [one, two, other] = [await signedIn(), await signedIn('Ada', 'second'), await signedIn('Grace')]
    expect(await areSignedIn(one, two, other)).toEqual([true, true, true])
    const before = { trail: trail().length, live: liveGrants() }
    const { code, stdout } = await sessions('demo', '--subject', 'ada', '--end')
    const [, account, ...names] = /^account (\S+): 2 sessions ended.*\n(\S+) .*\n(\S+) .*\n$/.exec(stdout) ?? []
    expect([code, stdout]).toEqual([0, expect.stringContaining('asked to revoke their tokens')])
    expect(await areSignedIn(one, two, other)).toEqual([false, false, true])
    expect(before.live - liveGrants()).toBe(2)
    const [event, ...more] = trail().slice(before.trail)
    expect(event).toMatchObject({
      message: 'sessions_ended',
      flow: 'operator-sessions',
      by: 'operator',
      account,
      count: 2,
      request_id: expect.stringMatching(/^[\w-]{36}$/),
    })
    expect(String(event?.['sessions']).split(' ').toSorted()).toEqual(names.toSorted())
    expect(more.filter(({ message }) => message !== 'request failed')).toEqual([])
    expect(signedInRecords(await stack.items())).toHaveLength(2)
  })

  test('one session by the pseudonym that the trail has, and no other', async () => {
    const one = await signedIn()
    const { session } = lastSignIn()
    const two = await signedIn()
    const live = liveGrants()
    const { code, stdout } = await sessions('demo', `--session=${session}`, '--end')
    expect([code, stdout]).toEqual([0, expect.stringMatching(new RegExp(`: 1 session ended.*\\n${session}  demo `))])
    expect(await areSignedIn(one, two)).toEqual([false, true])
    expect(live - liveGrants()).toBe(1)
    expect(trail().findLast(({ message }) => message === 'sessions_ended')).toMatchObject({
      sessions: session,
      count: 1,
    })
  })

  test('all of a user by the pseudonym of the account', async () => {
    const tabs = [await signedIn(), await signedIn()]
    expect((await sessions('demo', `--account=${lastSignIn().account}`, '--end')).code).toBe(0)
    expect(await areSignedIn(...tabs)).toEqual([false, false])
  })

  test('meets a sign-in that was under way: it is lost', async () => {
    await signedIn()
    const tab = stack.newBrowser()
    const { callback } = await authorize(tab, { login_hint: 'ada' })
    expect((await sessions('demo', '--subject', 'ada', '--end')).code).toBe(0)
    const reply = await tab.raw({ path: callback.pathname + callback.search, headers: navigation })
    expect([reply.status, reply.text]).toEqual([400, expect.stringContaining('login_invalid')])
    expect((await signedIn().then(isSignedIn)) && signedInRecords(await stack.items()).length).toBe(2)
  })

  test('completes what was cut short when a session had gone and its grant had not', async () => {
    const tab = await signedIn()
    const [record] = await records.all('session')
    await records.remove(record ?? {})
    const live = liveGrants()
    expect(await isSignedIn(tab)).toBe(false)
    expect((await sessions('demo', '--subject', 'ada', '--end')).stderr).toMatch(/^There is nothing to end/)
    expect([live - liveGrants(), signedInRecords(await stack.items())]).toEqual([1, []])
  })

  test('is not held up by a server that fails: its tokens are revoked in the background', async () => {
    const tab = await signedIn()
    const live = liveGrants()
    stack.authorizationServer.plan('revoke', reset)
    expect((await sessions('demo', '--subject', 'ada', '--end')).code).toBe(0)
    expect(await isSignedIn(tab)).toBe(false)
    await stack.stack.backgroundIsIdle()
    expect(live - liveGrants()).toBe(1)
    expect(stack.authorizationServer.unmet()).toEqual([])
  })

  test('says that it is at work where the server takes its time', async () => {
    await signedIn()
    const held = gate()
    stack.authorizationServer.plan('revoke', held.fault)
    const endpoint = ['--endpoint', stack.stack.endpoints.lambda]
    const heard = (piece: string) => void (piece.includes('is at work') && held.release())
    const ran = await runCommand('sessions', ['demo', '--subject', 'ada', '--end', ...endpoint], { heard })
    expect(ran).toMatchObject({ code: 0, stderr: expect.stringMatching(/^\S+ is at work\n$/) })
  })
})

test('the command explains itself', async () => {
  const { code, stdout } = await sessions('--help')
  expect(code).toBe(0)
  for (const word of ['--subject', '--account', '--session', '--end', '--function', '--endpoint']) {
    expect(stdout).toContain(word)
  }
})

test.each([
  [[], /^Say which provider, as the stage file names it\. See npm run sessions -- --help\.$/],
  [['demo'], /^Say one of --subject, --account and --session\./],
  [['demo', 'second', '--subject', 'ada'], /^Say which provider/],
  [['demo', '--subject', 'ada', '--session=abcdefghijkl'], /^Say one of/],
  [['demo', '--subject', ''], /^A subject has at least one character/],
  [['demo', '--subject', 'x'.repeat(1_025)], /^A subject has at least one character, and at most 1,024/],
  [['demo', '--session', 'S#7zVYgQOhBv1l'], /^A pseudonym of the audit trail has 12 letters/],
  [['demo', '--account', '*'], /^A pseudonym of the audit trail/],
  [
    ['nobody', '--subject', 'ada'],
    /^There is no provider nobody in this account and region; there is only demo, second\.$/,
  ],
  [['__proto__', '--subject', 'ada'], /^There is no provider __proto__ /],
  [['demo', '--subject', 'nobody'], /^Nobody is signed in: no session of subject nobody at demo\.$/],
  [['demo', '--subject', 'nobody', '--end'], /^There is nothing to end: no session of subject nobody at demo\.$/],
  [['demo', '--session', 'abcdefghijkl', '--end'], /^There is nothing to end: no session of session abcdefghijkl/],
  [['demo', '--account', 'abcdefghijkl'], /^Nobody is signed in: no session of account abcdefghijkl/],
  [['demo', '--subject', 'ada', '--function', 'no-such-function'], /^ResourceNotFoundException: Function not found/],
  [['demo', '--subject', 'ada', '--colour'], /^Unknown option '--colour'; --help says what there is\.$/],
])('a mistake is a sentence and exit code 1: %j', async (args, sentence) => {
  const { code, stdout, stderr } = await sessions(...args)
  expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1])
  expect(stderr.trim()).toMatch(sentence)
})

const from = { pk: 'A#x', sk: 'S#x' }
test.each([
  undefined,
  null,
  [],
  'demo',
  {},
  { provider: 'demo', of: { subject: 'ada' } },
  { provider: 'demo', of: {}, end: true },
  { provider: 'demo', of: { subject: 'ada' }, end: 'true' },
  { provider: 'demo', of: { subject: '' }, end: true },
  { provider: 'demo', of: { subject: 'x'.repeat(1_025) }, end: true },
  { provider: 'demo', of: { subject: 'x'.repeat(5_000_000) }, end: true },
  { provider: 'demo', of: { subject: ['ada'] }, end: true },
  { provider: 'demo', of: { subject: 'ada', session: 'abcdefghijkl' }, end: true },
  { provider: 'demo', of: { session: 'abcdefghijk' }, end: true },
  { provider: 'demo', of: { account: { toString: 'abcdefghijkl' } }, end: true },
  { provider: '__proto__', of: { subject: 'ada' }, end: true },
  { provider: 'demo', of: { subject: 'ada' }, end: true, more: 1 },
  { provider: 'demo', of: { account: 'abcdefghijkl' }, end: false, from: { ...from, pk: '' } },
  { provider: 'demo', of: { account: 'abcdefghijkl' }, end: false, from: { ...from, sk: 'x'.repeat(201) } },
  { provider: 'demo', of: { account: 'abcdefghijkl' }, end: false, from: { pk: 'A#x' } },
  { provider: 'demo', of: { account: 'abcdefghijkl' }, end: false, from: { ...from, ttl: 1 } },
  { kind: 'limit', account: 'x' },
])('an order that the command does not give is refused: %#', async (order) => {
  await expect(stack.stack.invoke('OperatorSessions', order ?? null)).rejects.toThrow(
    'request_invalid: the order is none',
  )
})

test('an order for a provider that the stage does not have is refused', async () => {
  const order = { provider: 'constructor', of: { subject: 'ada' }, end: true }
  await expect(stack.stack.invoke('OperatorSessions', order)).rejects.toThrow('provider_unknown: constructor')
})
