import { Logger } from '@aws-lambda-powertools/logger'
import { createReadAccount } from '../shared/account.ts'
import { createMayConnect } from '../shared/addresses.ts'
import { createAuthorizationServer } from '../shared/authorization-server.ts'
import { createCertifiedSend } from '../shared/certificates.ts'
import { createCredentials } from '../shared/credentials.ts'
import { createEndings } from '../shared/endings.ts'
import { Failure } from '../shared/errors.ts'
import { createGrants } from '../shared/grants.ts'
import { createSend } from '../shared/http.ts'
import type { Send } from '../shared/http.ts'
import { createLogoutTokens } from '../shared/logout-token.ts'
import { createOAuth } from '../shared/oauth.ts'
import { createSealer } from '../shared/seal.ts'
import { createSealingKeys } from '../shared/sealing-keys.ts'
import { createSecrets, createSecretVersions } from '../shared/secrets.ts'
import { createSearch } from '../shared/session-search.ts'
import { createSessions } from '../shared/sessions.ts'
import { certificateSecrets } from '../shared/server-origins.ts'
import { readStage } from '../shared/stage.ts'
import { createTable } from '../shared/table.ts'
import { createTasks } from '../shared/tasks.ts'

/**
 * Composition: environment → stage → clients → modules, each built once a container and only when a flow asks for it, so that a bundle
 * holds no more than its flow uses. Building does no I/O.
 */

const once = <T>(build: () => T): (() => T) => {
  let built: { value: T } | undefined
  return () => {
    built ??= { value: build() }
    return built.value
  }
}

/** Milliseconds since the epoch. */
export const now = (): number => Date.now()

/** Resolves when that time has passed. */
export const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds))

const variable = (name: string): string => {
  const value = process.env[name]
  if (value === undefined || value === '') throw new Failure('internal', { detail: `the environment lacks ${name}` })
  return value
}

/** What the stage file says. */
export const stage = /* @__PURE__ */ once(() => readStage(variable('COATCHECK_STAGE')))

/** What CloudFormation calls the stack: unique in an account and region. */
export const stackName = /* @__PURE__ */ once(() => variable('COATCHECK_STACK'))

/** The log, one JSON object a line. */
export const logger = /* @__PURE__ */ once(() => {
  const level = stage().logs.level
  return new Logger({
    serviceName: 'coatcheck',
    logLevel: level === 'warn' ? 'WARN' : level === 'error' ? 'ERROR' : level === 'debug' ? 'DEBUG' : 'INFO',
  })
})

const secretNamed = (list: string, provider: string): string | undefined => {
  const secrets = JSON.parse(variable(list)) as Record<string, string>
  return Object.hasOwn(secrets, provider) ? secrets[provider] : undefined
}

/** Name or ARN of a provider's secret. */
export const providerSecret = (provider: string): string | undefined =>
  secretNamed('COATCHECK_PROVIDER_SECRETS', provider)

/** Name or ARN of the secret that an operator writes the static client of a provider into. */
export const writtenSecret = (provider: string): string | undefined => secretNamed('COATCHECK_CLIENT_SECRETS', provider)

/** The provider whose secret that is, by its ARN. */
export const providerOfSecret = (secret: string): string | undefined => {
  const secrets = JSON.parse(variable('COATCHECK_PROVIDER_SECRETS')) as Record<string, string>
  return Object.keys(secrets).find((provider) => secrets[provider] === secret)
}

export const secrets = /* @__PURE__ */ once(createSecrets)

/** The versions of secrets, for what changes them. */
export const secretVersions = /* @__PURE__ */ once(createSecretVersions)

/** Seals under the keys of the sealing secret. */
export const sealer = /* @__PURE__ */ once(() =>
  createSealer(createSealingKeys({ read: () => secrets().read(variable('COATCHECK_SEALING_SECRET')), now })),
)

const table = /* @__PURE__ */ once(() => createTable(variable('COATCHECK_TABLE')))

const credentialsKeptFor = (maxAgeMs: number) =>
  createCredentials({
    secrets: secrets(),
    secretOf: providerSecret,
    writtenSecretOf: writtenSecret,
    stage: stage(),
    maxAgeMs,
    now,
  })

export const credentials = /* @__PURE__ */ once(() => credentialsKeptFor(15 * 60_000))

/** The same for who publishes keys: a new one has to be seen soon. */
export const publishedCredentials = /* @__PURE__ */ once(() => credentialsKeptFor(60_000))

const mayConnect = /* @__PURE__ */ once(() =>
  createMayConnect({ privateNetworks: stage().private_networks, local: stage().origin.startsWith('http:') }),
)

const certificates = /* @__PURE__ */ once(() => certificateSecrets(stage()))

/** Calls to addresses that may be called, showing each server the certificate that is meant for it. */
const sendWith = (keepAlive: boolean): Send => {
  const plain = createSend({ keepAlive, mayConnect: mayConnect() })
  if (certificates().size === 0) return plain
  const secretOf = (origin: string) => certificates().get(origin)
  return createCertifiedSend({ send: plain, secretOf, read: (secret) => secrets().read(secret), now })
}

/** Calls of authorization servers: a connection each, because none may be sent twice by accident. */
export const sendOnce = /* @__PURE__ */ once(() => sendWith(false))

/** Calls of resource servers, over recent connections. */
export const send = /* @__PURE__ */ once(() => sendWith(true))

/** Answers to CloudFormation: the deploy names the URL, and from inside a VPC it may well be at a private address. */
export const sendAnywhere = /* @__PURE__ */ once(() => createSend({ keepAlive: false, mayConnect: () => true }))

/** Tells whose a token is. */
export const readAccount = /* @__PURE__ */ once(() =>
  createReadAccount({ send: sendOnce(), timeoutMs: stage().renewal.authorization_server_timeout_seconds * 1_000 }),
)

export const authorizationServer = /* @__PURE__ */ once(() => {
  const timeoutMs = stage().renewal.authorization_server_timeout_seconds * 1_000
  return createAuthorizationServer({
    stage: stage(),
    credentials: credentials(),
    oauth: createOAuth({ send: sendOnce(), timeoutMs, now }),
    readAccount: readAccount(),
    now,
    pause,
  })
})

/** What is done after the answer has gone out. */
export const tasks = /* @__PURE__ */ once(() => {
  // The background function itself has no name to start tasks with: what it cannot do fails, and Lambda repeats it.
  const name = process.env['COATCHECK_BACKGROUND']
  return name === undefined ? { start: () => Promise.reject(new Failure('server_failed')) } : createTasks(name)
})

/** Verifies what authorization servers say of logouts. */
export const logoutTokens = /* @__PURE__ */ once(() =>
  createLogoutTokens({ send: sendOnce(), timeoutMs: stage().renewal.authorization_server_timeout_seconds * 1_000 }),
)

export const grants = /* @__PURE__ */ once(() =>
  createGrants({
    table: table(),
    sealer: sealer(),
    wire: authorizationServer(),
    tasks: tasks(),
    settings: stage().renewal,
    now,
  }),
)

export const sessions = /* @__PURE__ */ once(() =>
  createSessions({
    table: table(),
    sealer: sealer(),
    settings: stage().session,
    sharedGrants: Object.entries(stage().providers).flatMap(([name, { grants: kept }]) =>
      kept === 'per-user' ? [name] : [],
    ),
    now,
  }),
)

export const endings = /* @__PURE__ */ once(() =>
  createEndings({ table: table(), grants: grants(), tasks: tasks(), now }),
)

/** Finds whom a pseudonym means. */
export const search = /* @__PURE__ */ once(() => createSearch({ table: table(), now }))
