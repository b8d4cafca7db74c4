import { flows } from './flows.ts'

/** Every alarm of the stack: what it watches, what it means, and what to do then. docs/audit.md lists them. */

/** What is counted for an alarm; what several of them count is added up. */
export type Source =
  /** Outcomes that the functions count themselves, of all flows or of one. */
  | { outcomes: readonly string[]; flow?: string }
  /** What Lambda measures of these functions, as far as the stack has them. */
  | { measure: 'Errors' | 'Throttles' | 'AsyncEventsDropped'; of: readonly string[] }

/** What an alarm says. */
export interface Sentences {
  /** What it is called, behind the name of the stack. */
  name: string
  /** What it means. */
  means: string
  /** What to do next. */
  todo: string
  /** The heading in docs/operations.md under which there is more. */
  see: string
}

/** An alarm on how often something happens. */
export interface CountAlarm extends Sentences {
  watch: readonly Source[]
  /** So many in so much time are too many. */
  limit: { atLeast: number; minutes: number }
}

/** An alarm on what is measured every hour of each provider; it goes off when that is 1 or more twice in three hours. */
export interface GaugeAlarm extends Sentences {
  gauge: string
}

const endpoints = Object.keys(flows)
const counted = (...outcomes: string[]): Source[] => [{ outcomes }]

/** The alarms that count. */
export const countAlarms: readonly CountAlarm[] = [
  {
    name: 'store-unavailable',
    watch: counted('store_unavailable'),
    limit: { atLeast: 5, minutes: 1 },
    means: 'The table is out of reach: requests are answered 503, and no session is lost.',
    todo: 'Read `detail` in the log: a throttled table recovers by itself; a refused call means that a role or the table was changed by hand, so deploy again.',
    see: 'Reasons in the log',
  },
  {
    name: 'secrets-unavailable',
    watch: counted('secrets_unavailable'),
    limit: { atLeast: 5, minutes: 1 },
    means: 'Secrets are out of reach or cannot be used: functions that just started cannot work.',
    todo: 'Read `detail` in the log. Where it is a value of a secret that somebody changed, put the version before back.',
    see: 'Keys and credentials',
  },
  {
    name: 'server-out-of-reach',
    watch: counted('server_unreachable', 'server_timeout', 'server_failed', 'server_address_refused'),
    limit: { atLeast: 10, minutes: 5 },
    means: 'An authorization server does not answer: nobody can sign in there, and calls go on until their tokens end.',
    todo: 'Ask who runs it. Where the reason is `server_address_refused`, its name leads to a private address: list the network in `private_networks` if that is right.',
    see: 'Private networks',
  },
  {
    name: 'client-refused',
    watch: counted('client_rejected'),
    limit: { atLeast: 1, minutes: 5 },
    means:
      'An authorization server refuses our client (`invalid_client`): it was deleted there, or its credentials were changed. Sign-ins and renewals fail.',
    todo: 'Run `npm run registration -- <provider> --repair`. For a static client, write its new secret.',
    see: 'A client that the server no longer takes',
  },
  {
    name: 'not-registered',
    watch: counted('not_registered', 'registration_refused', 'registration_lost', 'registration_unmanaged'),
    limit: { atLeast: 1, minutes: 5 },
    means:
      'There is no usable registration at an authorization server, or it can no longer be managed: the deploy did not register our client, or the stage names another issuer since.',
    todo: 'Read `detail` in the log, then deploy again or repair the registration.',
    see: 'A client that the server no longer takes',
  },
  {
    name: 'server-answers-unusable',
    watch: counted(
      'metadata_invalid',
      'token_reply_invalid',
      'id_token_invalid',
      'userinfo_invalid',
      'account_refused',
      'account_unresolved',
      'server_refused',
    ),
    limit: { atLeast: 3, minutes: 5 },
    means: 'The answers of an authorization server cannot be used: it changed, or somebody is in between.',
    todo: 'Read `detail` in the log, which names what is wrong with them, and ask who runs the server what changed.',
    see: 'Reasons in the log',
  },
  {
    name: 'resource-server-out-of-reach',
    watch: counted(
      'resource_server_unreachable',
      'resource_server_timeout',
      'resource_server_address_refused',
      'resource_server_invalid',
    ),
    limit: { atLeast: 20, minutes: 5 },
    means:
      'A resource server does not answer, or not in a form that can be passed on: its calls fail, and sessions go on.',
    todo: 'Ask who runs it; compare the `target` and `timeout_seconds` of its API in the stage.',
    see: 'Reasons in the log',
  },
  {
    name: 'renewal-contention',
    watch: counted('renewal_pending'),
    limit: { atLeast: 50, minutes: 5 },
    means:
      'Many calls wait in vain for a renewal that another call is making, and are told to come back: the token endpoint is slow, or fails.',
    todo: 'Ask who runs the authorization server why. Sessions stay, and their next calls try again.',
    see: 'Reasons in the log',
  },
  {
    name: 'grants-end',
    watch: counted('grant_ended'),
    limit: { atLeast: 20, minutes: 5 },
    means:
      'Many refresh tokens are refused for good: their reuse was detected, an administrator ended them, or the server lost its state. Their users have to sign in again.',
    todo: 'Ask who runs the authorization server which it is. Reuse that nobody can explain may be tokens that were stolen.',
    see: 'Reasons in the log',
  },
  {
    name: 'callback-failures',
    watch: [{ outcomes: ['authorization_error', 'code_rejected', 'code_missing'], flow: 'callback' }],
    limit: { atLeast: 5, minutes: 15 },
    means:
      'People come back from the authorization server without being signed in: it sends an error instead of a code, or refuses its own codes.',
    todo: "Read `detail` in the log, the server's error code: `invalid_scope` asks for other `scopes`, `unauthorized_client` for a repair of the registration, `server_error` for who runs the server.",
    see: 'Reasons in the log',
  },
  {
    name: 'callbacks-tampered-with',
    watch: counted(
      'login_cookie_missing',
      'login_cookie_unreadable',
      'state_missing',
      'issuer_mismatch',
      'provider_mismatch',
    ),
    limit: { atLeast: 20, minutes: 5 },
    means:
      'Many callbacks do not belong to the login that their browser began: a proxy in front changes cookies or queries, or somebody tries. Nobody is signed in by them.',
    todo: 'Look whether the CDN passes all cookies and queries of `/bff/*` and caches none of it, and whether a sealing key was removed; otherwise limit the rate there.',
    see: 'Deploying',
  },
  {
    name: 'logout-tokens-invalid',
    watch: counted('logout_token_invalid'),
    limit: { atLeast: 10, minutes: 5 },
    means:
      'What is posted to the back-channel endpoint is no logout token: somebody tries, or the server changed its keys badly. No session is ended by it.',
    todo: 'Read `detail` in the log, which names the check, and ask who runs the authorization server whether those are its tokens.',
    see: 'Reasons in the log',
  },
  {
    name: 'requests-without-proof',
    watch: counted('csrf_header_missing', 'csrf_origin_wrong', 'csrf_site_wrong'),
    limit: { atLeast: 50, minutes: 5 },
    means:
      'Many requests do not prove that a page of ours made them: another site tries, or a release of the frontend forgot the header. All are refused.',
    todo: 'Look whether the frontend sends `X-CSRF: 1` and whether `origin` in the stage is what browsers see.',
    see: 'Deploying',
  },
  {
    name: 'api-tokens-rejected',
    watch: counted('api_token_rejected'),
    limit: { atLeast: 20, minutes: 5 },
    means: 'Many API tokens that were pasted are not accepted: somebody tries tokens out.',
    todo: 'Limit the rate of `/bff/api-token/*` at the CDN, or set `api_token` to `off`.',
    see: 'API tokens',
  },
  {
    name: 'records-unreadable',
    watch: counted('session_ended'),
    limit: { atLeast: 5, minutes: 5 },
    means:
      'Sessions end because their records no longer open: a sealing key was removed too early, or the table was tampered with.',
    todo: 'Where nobody removed a key on purpose, put the version of the sealing secret before back, and find out who changed it or the table.',
    see: 'Keys and credentials',
  },
  {
    name: 'certificate-unusable',
    watch: counted('certificate_unusable'),
    limit: { atLeast: 1, minutes: 5 },
    means:
      'The secret of `certificate_secret` holds no certificate, or not its key: servers that ask for it refuse us.',
    todo: 'Read `detail` in the log and write a certificate with its key into the secret.',
    see: 'A client certificate',
  },
  {
    name: 'rotation-failed',
    watch: [{ outcomes: ['rotation_failed'] }, { measure: 'Errors', of: ['rotate'] }],
    limit: { atLeast: 1, minutes: 60 },
    means: 'A rotation of client credentials did not happen; what was there goes on.',
    todo: 'Read the reason in the log of `Rotate` or `Upkeep`, remove the cause, and run `npm run rotate -- <provider>`, which says how it ends.',
    see: 'Rotation',
  },
  {
    name: 'client-left-behind',
    watch: counted('client_left_behind'),
    limit: { atLeast: 1, minutes: 60 },
    means:
      'A client of ours that nobody needs stays registered, because it could not be deleted at the authorization server.',
    todo: 'Delete it there by hand: the event `client_left_behind` in the log names the provider and the `client_id`.',
    see: 'Rotation',
  },
  {
    name: 'background-unavailable',
    watch: counted('background_unavailable'),
    limit: { atLeast: 1, minutes: 5 },
    means:
      'Work for the background is refused: early renewals and revocations are not queued, and calls renew by themselves.',
    todo: "Read `detail` in the log: a throttled Lambda asks for a higher limit of the account's concurrency; a refused call means that a role was changed by hand, so deploy again.",
    see: 'The background',
  },
  {
    name: 'tasks-dropped',
    watch: [{ measure: 'AsyncEventsDropped', of: ['background', 'upkeep'] }],
    limit: { atLeast: 1, minutes: 60 },
    means:
      'Lambda gave up on a task after three attempts or an hour: tokens were not revoked, a limit on sessions was not kept, or clients were not looked after.',
    todo: 'Read the log of `Background` and `Upkeep` for the reason. Upkeep runs again within the hour; tokens that were not revoked end as the server lets them.',
    see: 'The background',
  },
  {
    name: 'functions-crash',
    watch: [{ measure: 'Errors', of: endpoints }],
    limit: { atLeast: 3, minutes: 5 },
    means: 'Functions that answer requests crash, run out of memory or take longer than they may.',
    todo: 'Look for the function whose `Errors` rise and read the end of its log. Where it began with a deploy, deploy the version before.',
    see: 'Logs',
  },
  {
    name: 'functions-throttled',
    watch: [{ measure: 'Throttles', of: endpoints }],
    limit: { atLeast: 5, minutes: 5 },
    means: "Lambda starts no more instances, and requests fail: the account's concurrency is used up.",
    todo: 'Find out which function uses it up, of this stack or another, and have the limit of the account raised.',
    see: 'Logs',
  },
  {
    name: 'bug',
    watch: counted('internal'),
    limit: { atLeast: 1, minutes: 1 },
    means: 'A fault of Coatcheck: a request or task failed for a reason that it does not know.',
    todo: 'Read `detail` in the log, the name of the error and the place in the code, and report it. Where it began with a deploy, deploy the version before.',
    see: 'Reasons in the log',
  },
]

/** The alarms of each provider. */
export const gaugeAlarms: readonly GaugeAlarm[] = [
  {
    name: 'secret-near-expiry',
    gauge: 'secret_near_expiry',
    means:
      'The secret of our client at `<provider>` ends soon, and no rotation has replaced it: then sign-ins and renewals there fail.',
    todo: 'Run `npm run rotate -- <provider>` and read how it ends; where `rotation.mode` is `off`, choose another.',
    see: 'Rotation',
  },
  {
    name: 'orphaned-registrations',
    gauge: 'orphaned_registrations',
    means:
      'A client may be registered at `<provider>` whose id nobody knows, since a function died before it could keep it. It has no users.',
    todo: 'Run `npm run rotate -- <provider> --list`, which names the attempt; delete the client at the server, then `npm run rotate -- <provider> --forget <attempt>`.',
    see: 'Rotation',
  },
]
