// `npm run sessions`: an operator looks at a user's sessions, or ends them. Neither cookies nor tokens are ever shown.
import * as z from 'zod/mini'
import { orders } from './flows.ts'
import { argumentsOf, plain, Refusal, runCommand, tell } from './operator.ts'
import { ordersTo } from './operator-functions.ts'
import type { GiveOrder } from './operator-functions.ts'

const help = `Who is signed in, and the end of it.

  npm run sessions -- <provider> --subject <sub>
      The sessions of the user whom the authorization server of that provider calls so.
  npm run sessions -- <provider> --account <pseudonym>
      The same, by the account as the audit trail has it; where the server tells no subject, the only way.
  npm run sessions -- <provider> --session <pseudonym>
      One session, as the audit trail has it. To find a pseudonym, all records are looked at.

  --end                    They are over at once, and their tokens are revoked. With --subject or --account,
                           so are sign-ins that are under way.
  --function <name>        where several stacks have a provider of that name: the output OperatorSessionsFunction
  --endpoint <url>         the local run, as npm start says it

Credentials and region come from where the AWS CLI has them (AWS_PROFILE, AWS_REGION, ...). They need
lambda:InvokeFunction on that function, and lambda:ListFunctions to find it.
`

const PSEUDONYM = /^[\w-]{12}$/

/** Seconds since the epoch, as far as dates are written with four digits. */
const timeSchema = () => z.int().check(z.minimum(0), z.maximum(253_402_300_799))
const keySchema = () => z.object({ pk: z.string(), sk: z.string() })
const sessionSchema = () =>
  z.object({
    session: z.string().check(z.regex(PSEUDONYM)),
    provider: z.string(),
    user_agent: z.nullable(z.string()),
    created_at: timeSchema(),
    last_seen_at: timeSchema(),
    ends_at: timeSchema(),
  })
const outcomeSchema = () =>
  z.object({
    account: z.nullable(z.string().check(z.regex(PSEUDONYM))),
    sessions: z.array(sessionSchema()),
    looked_at: z.int(),
    next: z.nullable(keySchema()),
  })

/** Whose sessions, or which one. */
type Meant = { subject: string } | { account: string } | { session: string }

/** Repeats an order as long as it says where to go on. */
const outcomeOf = async (give: GiveOrder, order: Readonly<Record<string, unknown>>) => {
  let lookedAt = 0
  let from: { pk: string; sk: string } | undefined
  for (;;) {
    const outcome = await give({ ...order, ...(from !== undefined && { from }) }, outcomeSchema())
    if (outcome.next === null) return outcome
    from = outcome.next
    lookedAt += outcome.looked_at
    tell(`looked at ${lookedAt} records so far`)
  }
}

const time = (seconds: number): string => new Date(seconds * 1_000).toISOString().replace('.000', '')

const tableOf = (sessions: readonly z.infer<ReturnType<typeof sessionSchema>>[]): string[] =>
  sessions.map(
    ({ session, provider, created_at: created, last_seen_at: seen, ends_at: ends, user_agent: agent }) =>
      `${session}  ${plain(provider)}  since ${time(created)}, last seen ${time(seen)}, until ${time(ends)}  ${
        agent === null ? '(its sealing key is gone)' : plain(agent)
      }`,
  )

const meantBy = (values: { subject?: string; account?: string; session?: string }): [Meant, words: string] => {
  const { subject, account, session } = values
  const given = [subject, account, session].filter((value) => value !== undefined)
  if (given.length !== 1)
    throw new Refusal('Say one of --subject, --account and --session. See npm run sessions -- --help.')
  for (const value of [account, session]) {
    if (value !== undefined && !PSEUDONYM.test(value))
      throw new Refusal('A pseudonym of the audit trail has 12 letters, digits, hyphens and underscores.')
  }
  if (session !== undefined) return [{ session }, `session ${session}`]
  if (account !== undefined) return [{ account }, `account ${account}`]
  if (subject === undefined || subject === '' || subject.length > 1_024)
    throw new Refusal('A subject has at least one character, and at most 1,024.')
  return [{ subject }, `subject ${subject}`]
}

const run = async (argv: string[]): Promise<string> => {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const { values, positionals } = argumentsOf({
    args: argv,
    allowPositionals: true,
    options: {
      subject: text,
      account: text,
      session: text,
      end: flag,
      function: text,
      endpoint: text,
      help: { ...flag, short: 'h' },
    },
  })
  if (values.help === true) return help
  const [provider, ...more] = positionals
  if (provider === undefined || more.length > 0)
    throw new Refusal('Say which provider, as the stage file names it. See npm run sessions -- --help.')
  const [of, words] = meantBy(values)
  const end = values.end === true
  const description = orders['operator-sessions']?.description ?? ''
  const give = await ordersTo(description, provider, values)
  const { account, sessions } = await outcomeOf(give, { provider, of, end })
  if (account === null || sessions.length === 0)
    throw new Refusal(
      `${end ? 'There is nothing to end' : 'Nobody is signed in'}: no session of ${words} at ${provider}.`,
    )
  const count = `${sessions.length} session${sessions.length === 1 ? '' : 's'}`
  const lines = [
    `account ${account}: ${count}${end ? ' ended; the authorization server is asked to revoke their tokens' : ''}`,
    ...tableOf(sessions),
  ]
  return `${lines.join('\n')}\n`
}

await runCommand(run)
