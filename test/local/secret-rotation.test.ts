import { randomUUID } from 'node:crypto'
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  RotateSecretCommand,
  type RotateSecretCommandInput,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { RotationEvent } from '../../infra/local/secret-rotation.ts'
import { type SecretsManager, startSecretsManager } from '../../infra/local/secrets-manager.ts'

const lambdaArn = 'arn:aws:lambda:us-east-1:000000000000:function:rotate'

let server: SecretsManager
let client: SecretsManagerClient
let arn: string
let events: RotationEvent[]
let log: string[]
let step: (event: RotationEvent) => Promise<unknown>

beforeEach(async () => {
  ;[events, log, step] = [[], [], rotateAsTold]
  server = await startSecretsManager({
    gate: () => undefined,
    rotation: {
      retryDelaysMs: [1, 1],
      onLog: (message) => log.push(message),
      invoke: (functionArn, event) => {
        events.push(event)
        return functionArn === lambdaArn ? step(event) : Promise.reject(new Error(functionArn))
      },
    },
  })
  client = new SecretsManagerClient({
    endpoint: server.endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'AKIDCALLER', secretAccessKey: 'secret' },
    maxAttempts: 1,
  })
  arn = await server.createSecret({ Name: randomUUID(), SecretString: 'first' })
})

afterEach(async () => {
  client.destroy()
  await server.close()
})

const put = (token: string, value: string) =>
  client.send(
    new PutSecretValueCommand({
      SecretId: arn,
      ClientRequestToken: token,
      SecretString: value,
      VersionStages: ['AWSPENDING'],
    }),
  )
const describeSecret = () => client.send(new DescribeSecretCommand({ SecretId: arn }))
const labels = async (): Promise<Record<string, string[]>> => (await describeSecret()).VersionIdsToStages ?? {}
const holderOf = async (label: string) => Object.entries(await labels()).find(([, all]) => all.includes(label))?.[0]
const value = async () => (await client.send(new GetSecretValueCommand({ SecretId: arn }))).SecretString

async function rotateAsTold({ Step, ClientRequestToken: token }: RotationEvent): Promise<void> {
  if (Step === 'createSecret') await put(token, 'second')
  if (Step === 'finishSecret')
    await client.send(
      new UpdateSecretVersionStageCommand({
        SecretId: arn,
        VersionStage: 'AWSCURRENT',
        MoveToVersionId: token,
        RemoveFromVersionId: await holderOf('AWSCURRENT'),
      }),
    )
}

const rotate = async (input: Partial<RotateSecretCommandInput> = {}) => {
  const sent = client.send(new RotateSecretCommand({ SecretId: arn, RotationLambdaARN: lambdaArn, ...input }))
  const { VersionId } = await sent
  return VersionId ?? ''
}

describe('a rotation', () => {
  it('goes through the four steps and is asynchronous', async () => {
    const first = String(await holderOf('AWSCURRENT'))
    const token = await rotate()
    await server.rotationIsIdle()
    expect(events.map(({ Step }) => Step)).toEqual(['createSecret', 'setSecret', 'testSecret', 'finishSecret'])
    expect(new Set(events.map(({ SecretId, ClientRequestToken }) => `${SecretId} ${ClientRequestToken}`))).toEqual(
      new Set([`${arn} ${token}`]),
    )
    expect(await value()).toBe('second')
    expect(await labels()).toEqual({ [token]: ['AWSCURRENT'], [first]: ['AWSPREVIOUS'] })
    expect(await describeSecret()).toMatchObject({ RotationEnabled: true, RotationLambdaARN: lambdaArn })
  })

  it('has a pending version without a value before createSecret', async () => {
    const seen: unknown[] = []
    step = async (event) => {
      if (event.Step === 'createSecret') {
        seen.push((await labels())[event.ClientRequestToken])
        const { ClientRequestToken: VersionId } = event
        await client
          .send(new GetSecretValueCommand({ SecretId: arn, VersionId, VersionStage: 'AWSPENDING' }))
          .catch((error: Error) => seen.push(error.name))
      }
      return await rotateAsTold(event)
    }
    await rotate()
    await server.rotationIsIdle()
    expect(seen).toEqual([['AWSPENDING'], 'ResourceNotFoundException'])
  })

  it('is repeated as a whole, under the same token, where a step fails', async () => {
    let failures = 2
    step = async (event) => {
      if (event.Step === 'testSecret' && failures-- > 0) throw new Error('not yet')
      return await rotateAsTold(event)
    }
    await rotate()
    await server.rotationIsIdle()
    expect(events.map(({ Step }) => Step.slice(0, 6))).toEqual([
      'create',
      'setSec',
      'testSe',
      'create',
      'setSec',
      'testSe',
      'create',
      'setSec',
      'testSe',
      'finish',
    ])
    expect(new Set(events.map(({ ClientRequestToken }) => ClientRequestToken)).size).toBe(1)
    expect(await value()).toBe('second')
  })

  it('that is given up leaves AWSPENDING, and the next request takes it up again and says so', async () => {
    step = () => Promise.reject(new Error('broken'))
    const token = await rotate()
    await server.rotationIsIdle()
    expect(log.at(-1)).toBe('rotation failed, given up: broken')
    expect(await value()).toBe('first')
    expect(await holderOf('AWSPENDING')).toBe(token)

    step = rotateAsTold
    await expect(rotate()).rejects.toMatchObject({
      name: 'InvalidRequestException',
      message: "A previous rotation isn't complete. That rotation will be reattempted.",
    })
    await server.rotationIsIdle()
    expect(await holderOf('AWSCURRENT')).toBe(token)
    expect(await rotate()).not.toBe(token)
  })

  it('fails where the function creates or promotes nothing', async () => {
    step = () => Promise.resolve()
    await rotate()
    await server.rotationIsIdle()
    expect(log.at(-1)).toMatch(/^rotation failed, given up: Pending secret version .* was not created by Lambda/)
    step = async (event) => (event.Step === 'createSecret' ? await put(event.ClientRequestToken, 'x') : undefined)
    await rotate().catch(() => undefined)
    await server.rotationIsIdle()
    expect(log.at(-1)).toMatch(/did not become AWSCURRENT/)
  })
})

describe('RotateImmediately=false', () => {
  it('takes only testSecret, on a version without a value that goes away again', async () => {
    const before = await labels()
    await rotate({ RotateImmediately: false, RotationRules: { AutomaticallyAfterDays: 30 } })
    await server.rotationIsIdle()
    expect(events.map(({ Step }) => Step)).toEqual(['testSecret'])
    expect(await labels()).toEqual(before)
    expect(await value()).toBe('first')
    expect((await describeSecret()).NextRotationDate).toBeInstanceOf(Date)
  })
})

it.each([
  [{ RotationLambdaARN: undefined }, 'InvalidRequestException'],
  [{ ClientRequestToken: 'short' }, 'InvalidParameterException'],
  [{ RotationRules: { AutomaticallyAfterDays: 1_001 } }, 'InvalidParameterException'],
  [{ RotationRules: { AutomaticallyAfterDays: 1, ScheduleExpression: 'rate(4 hours)' } }, 'InvalidParameterException'],
  [{ RotationRules: { ScheduleExpression: 'hourly' } }, 'InvalidParameterException'],
  [{ SecretId: 'nobody' }, 'ResourceNotFoundException'],
])('RotateSecret with %j is refused: %s', async (input, name) => {
  await expect(rotate(input)).rejects.toMatchObject({ name })
  expect(events).toEqual([])
})
