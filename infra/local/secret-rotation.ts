import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { isRecord, refusal } from './aws-call.ts'
import { addVersion, holderOf, invalidParameter, moveStage, type Secret } from './secret-versions.ts'

/** What a rotation function is invoked with, once a step. */
export interface RotationEvent {
  Step: 'createSecret' | 'setSecret' | 'testSecret' | 'finishSecret'
  SecretId: string
  ClientRequestToken: string
}

/** How Secrets Manager reaches rotation functions. */
export interface RotationOptions {
  /** Invokes the function of the ARN; rejects where it fails, or where its policy does not let Secrets Manager in for this secret. */
  invoke: (functionArn: string, event: RotationEvent) => Promise<unknown>
  /** Before each repetition of a failed rotation, in milliseconds. AWS takes minutes; here somebody is waiting. */
  retryDelaysMs?: readonly number[]
  onLog?: (message: string) => void
}

/** Rotations as Secrets Manager runs them: asynchronous, step by step, the whole repeated where a step fails. */
export interface Rotations {
  /** RotateSecret: the rotation is configured, where the input says so, and begun. Throws `AwsRefusal`. */
  rotate: (secret: Secret, input: Record<string, unknown>, token: string) => void
  /** Resolves when no rotation is under way any more. */
  idle: () => Promise<void>
  close: () => Promise<void>
}

const steps = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const
const defaultRetryDelaysMs = [100, 200, 400, 800]
const dayMs = 86_400_000

/**
 * Rotations of the secrets of one emulator. Source: AWS Secrets Manager API reference, RotateSecret; user guide, "Lambda
 * rotation functions" and "Troubleshoot rotation".
 */
export function createRotations(options: RotationOptions): Rotations {
  const { invoke, retryDelaysMs = defaultRetryDelaysMs, onLog } = options
  const running = new Map<Secret, Promise<void>>()
  const closing = new AbortController()

  const run = async (work: () => Promise<void>): Promise<void> => {
    for (const retryDelayMs of [...retryDelaysMs, undefined]) {
      if (closing.signal.aborted) return
      try {
        return await work()
      } catch (error) {
        const next = retryDelayMs === undefined ? 'given up' : `again in ${retryDelayMs} ms`
        onLog?.(`rotation failed, ${next}: ${error instanceof Error ? error.message : String(error)}`)
        if (retryDelayMs !== undefined) await delay(retryDelayMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }
  const begin = (secret: Secret, work: () => Promise<void>): void => {
    if (running.has(secret)) return
    running.set(
      secret,
      run(work).finally(() => running.delete(secret)),
    )
  }

  const takeSteps = async (secret: Secret, lambdaArn: string, token: string): Promise<void> => {
    for (const Step of steps) {
      await invoke(lambdaArn, { Step, SecretId: secret.arn, ClientRequestToken: token })
      if (secret.versions.get(token)?.value === undefined)
        throw new Error(
          `Pending secret version ${token} for Secret ${secret.arn} was not created by Lambda ${lambdaArn}. ` +
            'Remove the AWSPENDING staging label and restart rotation.',
        )
    }
    if (holderOf(secret, 'AWSCURRENT')?.id !== token)
      throw new Error(`the version ${token} did not become AWSCURRENT of ${secret.arn}`)
    if (secret.rotation) secret.rotation.rotatedMs = Date.now()
  }

  /** What RotateImmediately=false does: one step on a version that goes away again. */
  const tryOut = async (secret: Secret, lambdaArn: string, token: string): Promise<void> => {
    if (!secret.versions.has(token)) {
      addVersion(secret, { id: token, value: undefined, createdMs: Date.now(), stages: [] }, ['AWSPENDING'])
    }
    await invoke(lambdaArn, { Step: 'testSecret', SecretId: secret.arn, ClientRequestToken: token })
    if (holderOf(secret, 'AWSPENDING')?.id === token) moveStage(secret, 'AWSPENDING', token, undefined)
    secret.versions.delete(token)
  }

  return {
    rotate: (secret, input, token) => {
      const { RotationLambdaARN: arn, RotationRules: rules, RotateImmediately: isNow } = input
      if (rules !== undefined) refuseBadRules(rules)
      const lambdaArn = typeof arn === 'string' ? arn : secret.rotation?.lambdaArn
      if (lambdaArn === undefined)
        throw refusal(
          'InvalidRequestException',
          'No Lambda rotation function ARN is associated with this secret. Configure a Lambda rotation function first.',
        )
      secret.rotation = {
        lambdaArn,
        rules: isRecord(rules) ? rules : (secret.rotation?.rules ?? {}),
        rotatedMs: secret.rotation?.rotatedMs,
      }
      const pending = holderOf(secret, 'AWSPENDING')
      if (pending && !pending.stages.includes('AWSCURRENT')) {
        begin(secret, () => takeSteps(secret, lambdaArn, pending.id))
        throw refusal(
          'InvalidRequestException',
          "A previous rotation isn't complete. That rotation will be reattempted.",
        )
      }
      if (isNow === false || isNow === 'false') return begin(secret, () => tryOut(secret, lambdaArn, token))
      if (!secret.versions.has(token))
        addVersion(secret, { id: token, value: undefined, createdMs: Date.now(), stages: [] }, ['AWSPENDING'])
      begin(secret, () => takeSteps(secret, lambdaArn, token))
    },

    idle: async () => {
      while (running.size > 0) await Promise.all(running.values())
    },

    close: async () => {
      closing.abort()
      await Promise.all(running.values())
    },
  }
}

function refuseBadRules(rules: unknown): void {
  const { AutomaticallyAfterDays: days, ScheduleExpression: schedule } = isRecord(rules) ? rules : {}
  if (days !== undefined && schedule !== undefined)
    throw invalidParameter('Use either AutomaticallyAfterDays or ScheduleExpression, not both.')
  if (days !== undefined && !(typeof days === 'number' && Number.isInteger(days) && days >= 1 && days <= 1000))
    throw invalidParameter('AutomaticallyAfterDays must be between 1 and 1000.')
  if (schedule !== undefined && !(typeof schedule === 'string' && /^(rate|cron)\(.+\)$/.test(schedule)))
    throw invalidParameter('ScheduleExpression is rate(...) or cron(...).')
}

/** What DescribeSecret says of a secret's rotation. */
export function describeRotation({ rotation }: Secret): Record<string, unknown> {
  if (!rotation) return { RotationEnabled: false }
  const { lambdaArn, rules, rotatedMs } = rotation
  const days = rules['AutomaticallyAfterDays']
  return {
    RotationEnabled: true,
    RotationLambdaARN: lambdaArn,
    RotationRules: rules,
    LastRotatedDate: rotatedMs === undefined ? undefined : rotatedMs / 1000,
    NextRotationDate: typeof days === 'number' ? ((rotatedMs ?? Date.now()) + days * dayMs) / 1000 : undefined,
  }
}

/** The token of a rotation request, or a new one. */
export const rotationToken = (input: Record<string, unknown>): string => {
  const token = input['ClientRequestToken'] ?? randomUUID()
  if (typeof token !== 'string' || token.length < 32 || token.length > 64)
    throw invalidParameter('ClientRequestToken must be 32-64 characters long.')
  return token
}
