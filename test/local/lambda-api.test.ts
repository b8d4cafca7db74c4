import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InvokeCommand, LambdaClient, paginateListFunctions } from '@aws-sdk/client-lambda'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AwsCall, dropConnection, type Gate, loseReply, REGION } from '../../infra/local/aws-call.ts'
import { createFunctionPool, type FunctionPool } from '../../infra/local/functions.ts'
import { type LambdaApi, startLambdaApi } from '../../infra/local/lambda-api.ts'

/** Lambda's own API, as commands of operators and functions meet it. */

const source = `
export const handler = async (event) => {
  if (event.fail) throw new RangeError(event.fail)
  if (event.exit) process.exit(1)
  if (event.size) return 'x'.repeat(event.size)
  return event.nothing ? undefined : { given: event }
}`

let folder: string
let api: LambdaApi
let client: LambdaClient
const pools: FunctionPool[] = []
const calls: AwsCall[] = []
let gate: Gate = () => undefined

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'coatcheck-lambda-'))
  writeFileSync(join(folder, 'index.mjs'), source)
  for (let number = 1; number <= 23; number += 1) {
    const functionName = `function-${number}`
    const definition = {
      logicalId: `Function${number}`,
      functionName,
      description: `The function ${number}`,
      arn: `arn:aws:lambda:us-east-1:000000000000:function:${functionName}`,
      logGroupName: `/aws/lambda/${functionName}`,
      runtime: 'nodejs24.x',
      handler: 'index.handler',
      taskRoot: folder,
      memoryMegabytes: 128,
      timeoutSeconds: 5,
      environment: { NUMBER: String(number) },
    }
    const endpoints = {
      dynamodb: 'http://127.0.0.1:1',
      secretsManager: 'http://127.0.0.1:2',
      lambda: 'http://127.0.0.1:3',
    }
    pools.push(createFunctionPool({ definition, endpoints, maxInstances: 2 }))
  }
  api = await startLambdaApi({
    gate: (call) => {
      calls.push(call)
      return gate(call)
    },
    functions: () => pools,
  })
  const credentials = { accessKeyId: 'AKIDCALLER', secretAccessKey: 'secret' }
  client = new LambdaClient({ endpoint: api.endpoint, region: REGION, credentials, maxAttempts: 1 })
})
afterAll(async () => {
  client.destroy()
  await api.close()
  await Promise.all(pools.map((pool) => pool.close()))
  rmSync(folder, { recursive: true })
})

const invoke = async (payload: string | undefined, more: object = {}) => {
  const Payload = payload === undefined ? {} : { Payload: Buffer.from(payload) }
  const reply = await client.send(new InvokeCommand({ FunctionName: 'function-1', ...Payload, ...more }))
  return { ...reply, told: Buffer.from(reply.Payload ?? []).toString() }
}

describe('an invocation that waits for the response', () => {
  it.each([
    ['{"a":1}', '{"given":{"a":1}}'],
    ['[1]', '{"given":[1]}'],
    ['"text"', '{"given":"text"}'],
    [undefined, '{"given":{}}'],
    ['{"nothing":true}', 'null'],
  ])('with %s gets %s', async (payload, told) => {
    expect(await invoke(payload)).toMatchObject({ StatusCode: 200, ExecutedVersion: '$LATEST', told })
  })

  it('of a function that throws is a success, marked as a failure of the function', async () => {
    const reply = await invoke('{"fail":"too far"}')
    expect([reply.StatusCode, reply.FunctionError]).toEqual([200, 'Unhandled'])
    expect(JSON.parse(reply.told)).toEqual({ errorType: 'RangeError', errorMessage: 'too far', trace: [] })
  })

  it.each([
    ['{"exit":true}', 'Runtime.ExitError'],
    [`{"size":${6 * 1024 * 1024}}`, 'Function.ResponseSizeTooLarge'],
  ])('that fails otherwise says how: %s', async (payload, errorType) => {
    const reply = await invoke(payload)
    expect(reply.FunctionError).toBe('Unhandled')
    expect(JSON.parse(reply.told)).toMatchObject({ errorType })
  })

  it('may name the function by its ARN', async () => {
    const FunctionName = 'arn:aws:lambda:us-east-1:000000000000:function:function-1'
    expect((await invoke('{}', { FunctionName })).told).toBe('{"given":{}}')
  })

  it('is asked for where the caller does not say which kind it wants', async () => {
    const credential = `AKIDCALLER/20261122/${REGION}/lambda/aws4_request`
    const asked = request(`${api.endpoint}/2015-03-31/functions/function-1/invocations`, {
      method: 'POST',
      headers: {
        authorization: `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=host, Signature=0`,
        'x-amz-date': '20261122T000000Z',
      },
    }).end('{"b":2}')
    const told = await new Promise<string>((resolve, reject) => {
      asked.on('response', (response) => resolve(text(response))).on('error', reject)
    })
    expect(told).toBe('{"given":{"b":2}}')
  })
})

describe('what AWS refuses', () => {
  it.each([
    ['a payload over 6 MB', `"${'x'.repeat(6 * 1024 * 1024)}"`, {}, 'RequestEntityTooLargeException'],
    [
      'an event over 256 KB',
      `"${'x'.repeat(256 * 1024)}"`,
      { InvocationType: 'Event' },
      'RequestEntityTooLargeException',
    ],
    ['a payload that is no JSON', '{"a"', {}, 'InvalidRequestContentException'],
    ['an unknown function', '{}', { FunctionName: 'nobody' }, 'ResourceNotFoundException'],
    ['a kind that is not emulated', '{}', { InvocationType: 'DryRun' }, 'InvalidParameterValueException'],
  ])('is refused: %s', async (_, payload, more, name) => {
    await expect(invoke(payload, more)).rejects.toMatchObject({ name })
  })

  it('takes the largest payload that AWS takes', async () => {
    const { told } = await invoke(`{"nothing":"${'x'.repeat(6 * 1024 * 1024 - 14)}"}`)
    expect(told).toBe('null')
  })
})

describe('the gate', () => {
  it('is asked with action and function, and what it refuses does not run', async () => {
    const before = pools[1]?.stats().invocations
    gate = () => ({ status: 403, type: 'AccessDeniedException', message: 'not you' })
    await expect(invoke('{}', { FunctionName: 'function-2' })).rejects.toMatchObject({ name: 'AccessDeniedException' })
    gate = () => undefined
    expect(pools[1]?.stats().invocations).toBe(before)
    expect(calls.at(-1)).toMatchObject({
      accessKeyId: 'AKIDCALLER',
      action: 'lambda:InvokeFunction',
      resources: ['arn:aws:lambda:us-east-1:000000000000:function:function-2'],
    })
  })

  it.each([
    ['before the function ran', dropConnection, 0],
    ['after it', loseReply, 1],
  ])('can break the connection %s', async (_, thrown, runs) => {
    const before = pools[2]?.stats().invocations ?? 0
    gate = () => {
      throw thrown
    }
    await expect(invoke('{}', { FunctionName: 'function-3' })).rejects.toMatchObject({ code: 'ECONNRESET' })
    gate = () => undefined
    expect((pools[2]?.stats().invocations ?? 0) - before).toBe(runs)
  })
})

it('lists all functions, page by page, with what an operator tells them apart by', async () => {
  const pages = []
  for await (const { Functions = [] } of paginateListFunctions({ client }, {})) pages.push(Functions)
  expect(pages.length).toBeGreaterThan(1)
  expect(pages.flat().map(({ FunctionName: name }) => name)).toEqual(pools.map((pool) => pool.definition.functionName))
  expect(pages.flat().at(-1)).toMatchObject({
    Description: 'The function 23',
    Environment: { Variables: { NUMBER: '23' } },
  })
  expect(calls.at(-1)).toMatchObject({ action: 'lambda:ListFunctions', resources: ['*'] })
})
