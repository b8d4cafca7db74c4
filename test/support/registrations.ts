import { randomUUID } from 'node:crypto'
import {
  CreateSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager'
import { vi } from 'vitest'
import { dropConnection, loseReply, REGION } from '../../infra/local/aws-call.ts'
import { startSecretsManager } from '../../infra/local/secrets-manager.ts'
import { obey, register } from '../../lambdas/register.ts'
import { parseStage, type Stage } from '../../shared/config.ts'
import { Failure } from '../../shared/errors.ts'
import { createSend, HttpFault, type OutgoingRequest, type Send } from '../../shared/http.ts'
import { parseRegistration, type Registration } from '../../shared/registration-record.ts'
import { lookAt, type Look } from '../../shared/registration-look.ts'
import { attemptsIn } from '../../shared/rotation.ts'
import { createSecrets, createSecretVersions, type SecretVersions } from '../../shared/secrets.ts'

/** A provider's settings as a stage file has them. */
export type ProviderSettings = { issuer: string; [setting: string]: unknown }

/** What stands between the custom resource and the world in one event: a crash is an error that is thrown here. */
export type Between = {
  /**
   * The process ends before this call of Secrets Manager or the authorization server (the first is 1), or before its answer arrives;
   * `lost`: only that answer does not arrive.
   */
  dies?: { at: number; when: 'before' | 'after' | 'lost' }

  send?: (request: OutgoingRequest, send: Send) => ReturnType<Send>
  versions?: Partial<SecretVersions>
}

/** What a call of the authorization server is for. */
const purposeOf = (method: string, { pathname }: URL): string => {
  if (pathname.includes('/.well-known/')) return 'discovery'
  const does: Record<string, string> = {
    POST: 'registers a client',
    PUT: 'updates the client',
    DELETE: 'deletes a client',
  }
  return does[method] ?? 'reads the client'
}

/**
 * The registrations of a stage whose one provider, `demo`, changes as the test says: the flow of the custom resource runs here, with a
 * Secrets Manager and whatever authorization server the settings name, and CloudFormation's part is the test's.
 */
export const startRegistrations = async () => {
  let death: Between['dies']
  let names: string[] = []
  /** The next call: whether it is made, and whether its answer arrives. */
  const fate = (name: string): { isMade: boolean; isAnswered: boolean } => {
    names.push(name)
    if (death === undefined || names.length < death.at) return { isMade: true, isAnswered: true }
    const isFirst = names.length === death.at
    if (death.when === 'lost') return { isMade: true, isAnswered: !isFirst }
    return { isMade: isFirst && death.when === 'after', isAnswered: false }
  }
  const secretsManager = await startSecretsManager({
    gate: ({ action }) => {
      const { isMade, isAnswered } = fate(action.replace('secretsmanager:', ''))
      if (!isMade) throw dropConnection
      if (!isAnswered) throw loseReply
      return undefined
    },
  })
  vi.stubEnv('AWS_REGION', REGION)
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
  vi.stubEnv('AWS_ENDPOINT_URL_SECRETS_MANAGER', secretsManager.endpoint)
  const client = new SecretsManagerClient({})
  const secret = `Provider-${randomUUID()}`
  await client.send(new CreateSecretCommand({ Name: secret }))
  const writtenSecret = `Client-${randomUUID()}`
  await client.send(new CreateSecretCommand({ Name: writtenSecret }))
  const versions = createSecretVersions()
  const direct = createSend({ keepAlive: false, mayConnect: () => true })
  const calls: { method: string; url: string; authorization: string | undefined }[] = []
  const leftBehind: string[] = []

  const stageOf = (settings: ProviderSettings, provider = 'demo'): Stage => {
    const result = parseStage({ origin: 'http://localhost:3000', providers: { [provider]: settings } })
    if (!result.ok) throw new Error(result.faults.join('; '))
    return result.stage
  }

  const deps = (settings: ProviderSettings, between: Between = {}) => ({
    stage: stageOf(settings),
    secrets: createSecrets(),
    versions: { ...versions, ...between.versions },
    secretOf: (provider: string) => (provider === 'demo' ? secret : undefined),
    writtenSecretOf: (provider: string) => (provider === 'demo' ? writtenSecret : undefined),
    send: (async (request) => {
      const { method, url, headers } = request
      const { isMade, isAnswered } = fate(purposeOf(method, url))
      if (!isMade) throw new Error('dead')
      calls.push({ method, url: url.href, authorization: headers['authorization'] })
      const reply = await (between.send === undefined ? direct(request) : between.send(request, direct))
      if (!isAnswered) throw between.dies?.when === 'lost' ? new HttpFault('broken') : new Error('dead')
      return reply
    }) satisfies Send,
    now: Date.now,
    leftBehind: (_provider: string, clientId: string) => void leftBehind.push(clientId),
  })

  const properties = (settings: ProviderSettings) => ({
    Provider: 'demo',
    Settings: JSON.stringify(settings),
    Secret: secret,
  })
  const words = (error: unknown): string =>
    error instanceof Failure ? `${error.reason}: ${error.detail ?? ''}` : String(error)
  /** What the resource is known by, and which settings it was made with. */
  let resource: { id: string; settings: ProviderSettings } | undefined

  const deploy = async (settings: ProviderSettings, between?: Between): Promise<string> => {
    const before = resource
    death = between?.dies
    names = []
    const outcome = await register(deps(settings, between))({
      type: before === undefined ? 'Create' : 'Update',
      requestId: randomUUID(),
      id: before?.id,
      properties: properties(settings),
      oldProperties: before === undefined ? {} : properties(before.settings),
    }).finally(() => (death = undefined))
    resource = { id: outcome.id, settings }
    return outcome.id
  }

  return {
    versions,
    secret,
    /** What flows get where the stage has these settings. */
    deps,
    /** The calls that the last deploy, or what ran in `dying`, made, of Secrets Manager and of authorization servers. */
    callNames: (): readonly string[] => names,
    /** Every call of an authorization server so far, but those of discovery. */
    calls: () => calls.filter(({ url }) => !url.includes('/.well-known/')),
    forgetCalls: () => void calls.splice(0),
    leftBehind: leftBehind as readonly string[],
    /** Runs something else than a deploy, which dies like that. */
    dying: async <T>(dies: Between['dies'], run: () => Promise<T>): Promise<T> => {
      death = dies
      names = []
      return await run().finally(() => (death = undefined))
    },
    /** The stage with these settings is deployed; resolves with the physical id. */
    deploy,
    /** The same, and what an operator reads where it fails. */
    tryDeploy: (settings: ProviderSettings, between?: Between): Promise<string> =>
      deploy(settings, between).catch(words),
    /** CloudFormation deletes a resource: the one that is there, or one of before. */
    remove: async (
      settings: ProviderSettings,
      { id = resource?.id, of = settings }: { id?: string | undefined; of?: ProviderSettings } = {},
    ): Promise<void> => {
      const event = { requestId: randomUUID(), properties: properties(of), oldProperties: {} }
      await register(deps(settings))({ type: 'Delete', id, ...event })
    },
    /** The same for a provider that the stage does not have any more; `properties` is what CloudFormation has of it. */
    removeProvider: async (
      settings: ProviderSettings,
      given: Record<string, string> = properties(settings),
    ): Promise<void> => {
      const without = { ...deps(settings), stage: stageOf(settings, 'other'), secretOf: () => undefined }
      const event = { requestId: randomUUID(), properties: given, oldProperties: {} }
      await register(without)({ type: 'Delete', id: resource?.id, ...event })
    },
    repair: async (
      settings: ProviderSettings,
      order: Record<string, unknown> = {},
    ): Promise<Record<string, unknown>> => ({ ...(await obey(deps(settings))({ repair: 'demo', ...order })) }),
    /** What an operator gets to know of the registration. */
    look: (settings: ProviderSettings, provider = 'demo'): Promise<Look> => lookAt(deps(settings), provider),
    /** An operator writes down a client. */
    write: (SecretString: string) => client.send(new PutSecretValueCommand({ SecretId: writtenSecret, SecretString })),
    /** What the secret holds. */
    stored: async (): Promise<Registration | undefined> =>
      parseRegistration((await client.send(new GetSecretValueCommand({ SecretId: secret }))).SecretString ?? ''),
    store: async (value: unknown): Promise<void> => {
      await client.send(new PutSecretValueCommand({ SecretId: secret, SecretString: JSON.stringify(value) }))
    },
    /** How many registrations were begun whose end nobody knows. */
    attempts: async (): Promise<number> => attemptsIn(await versions.labels(secret)).length,
    /** An operator keeps something in a secret of its own. */
    createSecret: async (name: string, value: string): Promise<void> => {
      await client.send(new CreateSecretCommand({ Name: name, SecretString: value }))
    },
    /** The version that is current. */
    version: async (): Promise<string | undefined> => {
      const { VersionIdsToStages = {} } = await client.send(new DescribeSecretCommand({ SecretId: secret }))
      return Object.keys(VersionIdsToStages).find((id) => VersionIdsToStages[id]?.includes('AWSCURRENT'))
    },
    close: async (): Promise<void> => {
      client.destroy()
      await secretsManager.close()
      vi.unstubAllEnvs()
    },
  }
}
