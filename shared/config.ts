import * as z from 'zod/mini'
import { provider } from './config-provider.ts'
import { describe, headerName, name, origin, plainUrl, privateNetwork, seconds, topicArn } from './config-values.ts'
import { exchange, routeFaults } from './config-route.ts'
import { certificateFaults } from './server-origins.ts'
import { applyProfiles, contradictions } from './profiles.ts'

/**
 * The one schema of every setting in the stage file that an operator writes. Functions take its types only: what they read back
 * from their environment has been checked, and the schema is slow to build. Nothing here identifies or protects by default:
 * `origin`, `issuer` and targets must be written down.
 */

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'] as const

const api = z.strictObject({
  provider: describe(name, 'The provider whose access token is attached to calls.'),
  target: describe(plainUrl, 'Base URL of the resource server; the rest of the path is appended segment by segment.'),
  methods: describe(
    z._default(z.array(z.enum(METHODS)).check(z.minLength(1)), [...METHODS]),
    'Methods that are forwarded; others are answered 405.',
  ),
  navigation: describe(
    z._default(z.boolean(), false),
    'Whether GET navigations and subresources (downloads, images) of our own pages may call it without the X-CSRF header.',
  ),
  token_header: describe(
    z.optional(headerName),
    'Header that carries the access token alone, such as X-Api-Token. Left out, or Authorization: Authorization: Bearer.',
  ),
  resource: describe(
    z.optional(plainUrl),
    'RFC 8707 resource indicator of this API, where it needs a token for another resource than its provider: asked for at authorization, and named at a refresh of its own.',
  ),
  exchange: describe(
    z.optional(exchange),
    "What the user's access token is exchanged for (RFC 8693), where this API needs a token of another audience. Left out: nothing is exchanged.",
  ),
  timeout_seconds: describe(z._default(seconds(1, 25), 20), 'How long the resource server may take, in seconds.'),
})

const session = z.strictObject({
  idle_seconds: describe(
    z._default(seconds(60, 2_592_000), 3_600),
    'A session ends after this long without a call, in seconds.',
  ),
  max_parallel: describe(
    z._default(
      z
        .int('must be a whole number from 1 to 1000')
        .check(z.gte(1, 'must be at least 1'), z.lte(1_000, 'must be at most 1000')),
      20,
    ),
    'Most sessions that one user may have at a time; a further sign-in ends the oldest.',
  ),
  absolute_seconds: describe(
    z._default(seconds(60, 7_776_000), 43_200),
    'A session ends this long after sign-in, whatever happens, in seconds.',
  ),
})

const renewal = z.strictObject({
  leeway_seconds: describe(
    z._default(seconds(1, 3_600), 60),
    'How long before its end an access token is renewed, in seconds; at most a quarter of its lifetime is used.',
  ),
  authorization_server_timeout_seconds: describe(
    z._default(seconds(1, 8), 5),
    'How long one call of the authorization server may take, in seconds.',
  ),
})

const logs = z.strictObject({
  level: describe(
    z._default(z.enum(['debug', 'info', 'warn', 'error']), 'info'),
    'Least severe log entry that is written.',
  ),
  retention_days: describe(
    z._default(
      z
        .int()
        .check(
          z.refine(
            (days) => [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653].includes(days),
            'must be a retention CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827 or 3653 days',
          ),
        ),
      90,
    ),
    'How long logs are kept, in days.',
  ),
})

const alarms = z.strictObject({
  topic_arn: describe(
    topicArn,
    "SNS topic that alarms notify, in the stack's region; CloudWatch must be allowed to publish to it. See docs/operations.md.",
  ),
})

export const stageSchema = z
  .strictObject({
    $schema: describe(z.optional(z.string()), 'Where editors find the JSON schema.'),
    origin: describe(origin, 'Origin that browsers see; the frontend, /bff and /api are all on it.'),
    providers: describe(
      z
        .record(name, provider)
        .check(z.refine((value) => Object.keys(value).length > 0, 'must name at least one provider')),
      'Authorization servers by name; the name is part of the callback URL.',
    ),
    default_provider: describe(z.optional(name), 'Provider of a login that names none. Left out: the first one.'),
    apis: describe(z._default(z.record(name, api), {}), 'Allow-list of resource servers by name: /api/<name>/...'),
    return_to_origins: describe(
      z._default(z.array(origin).check(z.maxLength(16)), []),
      'Origins besides our own that a login or logout may return to.',
    ),
    private_networks: describe(
      z._default(z.array(privateNetwork).check(z.maxLength(16)), []),
      'Networks of private addresses, such as 10.1.0.0/16, that authorization servers and resource servers may be in; public addresses always may be called.',
    ),
    session: describe(z.prefault(session, {}), 'When sessions end.'),
    renewal: describe(z.prefault(renewal, {}), 'How grants are renewed.'),
    logs: describe(z.prefault(logs, {}), 'Logging.'),
    alarms: describe(
      z.optional(alarms),
      'Whom alarms notify. Left out: the stack has its alarms, and they notify nobody. Functions do not get to see this setting.',
    ),
    removal: describe(
      z._default(z.enum(['retain', 'destroy']), 'retain'),
      'What happens to the table and the secrets when the stack is deleted.',
    ),
  })
  .check(
    z.superRefine((stage, context) => {
      const complain = (path: (string | number)[], message: string) =>
        context.addIssue({ code: 'custom', message, path, input: stage })
      if (stage.default_provider !== undefined && !Object.hasOwn(stage.providers, stage.default_provider)) {
        complain(['default_provider'], `names ${stage.default_provider}, which is not one of the providers`)
      }
      for (const [key, value] of Object.entries(stage.apis)) {
        if (!Object.hasOwn(stage.providers, value.provider)) {
          complain(['apis', key, 'provider'], `names ${value.provider}, which is not one of the providers`)
        }
      }
      for (const [key, { issuer, account: asked, endpoint_origins: origins }] of Object.entries(stage.providers)) {
        if (asked === undefined) continue
        if (![new URL(issuer).origin, ...origins].includes(new URL(asked.url).origin)) {
          complain(['providers', key, 'account', 'url'], "must be on the issuer's origin or on one of endpoint_origins")
        } else if (new URL(asked.url).protocol !== new URL(issuer).protocol) {
          complain(['providers', key, 'account', 'url'], 'must use the scheme of the issuer')
        }
      }
      for (const { path, message } of [...contradictions(stage), ...certificateFaults(stage), ...routeFaults(stage)])
        complain(path, message)
      if (stage.session.idle_seconds > stage.session.absolute_seconds) {
        complain(['session', 'idle_seconds'], 'must not be more than absolute_seconds')
      }
      if (stage.origin.startsWith('https:')) {
        for (const [key, value] of Object.entries(stage.providers)) {
          if (value.issuer.startsWith('http:')) {
            complain(['providers', key, 'issuer'], 'must use https, since the origin does')
          }
        }
        for (const [key, value] of Object.entries(stage.apis)) {
          if (value.target.startsWith('http:')) {
            complain(['apis', key, 'target'], 'must use https, since the origin does')
          }
        }
      }
    }),
  )

export type Stage = z.infer<typeof stageSchema>
export type AccountEndpoint = NonNullable<Stage['providers'][string]['account']>
export type Api = Stage['apis'][string]
export type Exchange = NonNullable<Api['exchange']>
export type Renewal = Stage['renewal']
export type SessionSettings = Stage['session']

/** What `parseStage` found: the stage with every default filled in, or one line per fault, each with its path. */
export type StageResult = { ok: true; stage: Stage } | { ok: false; faults: string[] }

const KINDS: Readonly<Record<string, string>> = {
  string: 'text in quotes',
  boolean: 'true or false',
  array: 'a list in square brackets',
  object: 'an object in braces',
  record: 'an object in braces',
  number: 'a number without quotes',
  int: 'a whole number',
}

/** What to write instead, for the faults whose words the schema does not give itself. */
const complaint = (issue: z.core.$ZodIssue): string => {
  switch (issue.code) {
    case 'unrecognized_keys':
      return `has no setting named ${issue.keys.join(', ')}`
    case 'invalid_key':
      return `is no good name: it ${issue.issues[0]?.message ?? issue.message}`
    case 'invalid_value':
      return `must be one of ${issue.values.join(', ')}`
    case 'invalid_type':
      if (issue.message.endsWith('received undefined')) return 'is missing'
      return issue.message.startsWith('must') ? issue.message : `must be ${KINDS[issue.expected] ?? issue.expected}`
    case 'too_small':
    case 'too_big': {
      if (issue.message.startsWith('must')) return issue.message
      const amount = issue.code === 'too_small' ? `at least ${issue.minimum}` : `at most ${issue.maximum}`
      if (issue.origin === 'string') return `must have ${amount} characters`
      return issue.origin === 'array' ? `must have ${amount} of them` : `must be ${amount}`
    }
    default:
      return issue.message
  }
}

/** The stage is checked against the schema, with every default of profiles and schema filled in. Faults name the setting and what to write instead. */
export const parseStage = (value: unknown): StageResult => {
  const result = stageSchema.safeParse(applyProfiles(value))
  if (result.success) return { ok: true, stage: result.data }
  const faults = new Map<string, string>()
  for (const issue of result.error.issues) {
    const path = issue.path.map(String).join('.')
    // One a setting: what is of the wrong kind is often of the wrong length too.
    if (!faults.has(path)) faults.set(path, `${path === '' ? 'the stage' : `${path}:`} ${complaint(issue)}`)
  }
  return { ok: false, faults: [...faults.values()] }
}
