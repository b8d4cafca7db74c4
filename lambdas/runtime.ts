import { Logger } from '@aws-lambda-powertools/logger'
import { createAuthorizationServer } from '../shared/authorization-server.ts'
import { createCredentials } from '../shared/credentials.ts'
import { Failure } from '../shared/errors.ts'
import { createGrants } from '../shared/grants.ts'
import { createSend } from '../shared/http.ts'
import { createOAuth } from '../shared/oauth.ts'
import { createSealer, parseSealingKeys } from '../shared/seal.ts'
import type { SealingKeys } from '../shared/seal.ts'
import { createSecrets } from '../shared/secrets.ts'
import { createSessions } from '../shared/sessions.ts'
import { readStage } from '../shared/stage.ts'
import { createTable } from '../shared/table.ts'

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

const now = (): number => Date.now()

const variable = (name: string): string => {
  const value = process.env[name]
  if (value === undefined || value === '') throw new Failure('internal', { detail: `the environment lacks ${name}` })
  return value
}

/** What the stage file says. */
export const stage = /* @__PURE__ */ once(() => readStage(variable('COATCHECK_STAGE')))

/** The log, one JSON object a line. */
export const logger = /* @__PURE__ */ once(() => {
  const level = stage().logs.level
  return new Logger({
    serviceName: 'coatcheck',
    logLevel: level === 'warn' ? 'WARN' : level === 'error' ? 'ERROR' : level === 'debug' ? 'DEBUG' : 'INFO',
  })
})

/** Name or ARN of a provider's secret. */
export const providerSecret = (provider: string): string | undefined => {
  const secrets = JSON.parse(variable('COATCHECK_PROVIDER_SECRETS')) as Record<string, string>
  return Object.hasOwn(secrets, provider) ? secrets[provider] : undefined
}

export const secrets = /* @__PURE__ */ once(createSecrets)

const SEALING_KEYS_MAX_AGE_MS = 15 * 60_000

/** Seals under the keys of the sealing secret. */
export const sealer = /* @__PURE__ */ once(() => {
  let cached: { readMs: number; keys: Promise<SealingKeys> } | undefined
  return createSealer(async () => {
    if (cached === undefined || now() - cached.readMs > SEALING_KEYS_MAX_AGE_MS) {
      const read = secrets()
        .read(variable('COATCHECK_SEALING_SECRET'))
        .then((value) => parseSealingKeys(value ?? ''))
      cached = { readMs: now(), keys: read }
      read.catch(() => {
        cached = undefined
      })
    }
    return await cached.keys
  })
})

const table = /* @__PURE__ */ once(() => createTable(variable('COATCHECK_TABLE')))

const credentials = /* @__PURE__ */ once(() =>
  createCredentials({
    secrets: secrets(),
    secretOf: providerSecret,
    issuerOf: (name) => stage().providers[name]?.issuer,
    now,
  }),
)

/** Calls of authorization servers: a connection each, because none may be sent twice by accident. */
export const sendOnce = /* @__PURE__ */ once(() => createSend({ keepAlive: false }))

/** Calls of resource servers, over recent connections. */
export const send = /* @__PURE__ */ once(() => createSend({ keepAlive: true }))

export const authorizationServer = /* @__PURE__ */ once(() =>
  createAuthorizationServer({
    stage: stage(),
    credentials: credentials(),
    oauth: createOAuth({
      send: sendOnce(),
      timeoutMs: stage().renewal.authorization_server_timeout_seconds * 1_000,
      now,
    }),
    now,
  }),
)

export const grants = /* @__PURE__ */ once(() =>
  createGrants({ table: table(), sealer: sealer(), wire: authorizationServer(), settings: stage().renewal, now }),
)

export const sessions = /* @__PURE__ */ once(() =>
  createSessions({ table: table(), sealer: sealer(), settings: stage().session, now }),
)
