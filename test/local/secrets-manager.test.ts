import { randomUUID } from 'node:crypto'
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  type GetSecretValueCommandInput,
  ListSecretsCommand,
  PutSecretValueCommand,
  RestoreSecretCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateSecretString } from '../../infra/local/secret-generation.ts'
import { type SecretsManager, startSecretsManager } from '../../infra/local/secrets-manager.ts'
import { fc } from '../support/seeded.ts'

let server: SecretsManager
let client: SecretsManagerClient

beforeAll(async () => {
  server = await startSecretsManager({ gate: () => undefined })
  client = new SecretsManagerClient({
    endpoint: server.endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'AKIDCALLER', secretAccessKey: 'secret' },
    maxAttempts: 1,
  })
})

afterAll(async () => {
  client.destroy()
  await server.close()
})

const get = (SecretId: string, version: Partial<GetSecretValueCommandInput> = {}) =>
  client.send(new GetSecretValueCommand({ SecretId, ...version }))
const put = async (SecretId: string, SecretString: string, VersionStages?: string[]) => {
  const { VersionId } = await client.send(new PutSecretValueCommand({ SecretId, SecretString, VersionStages }))
  return String(VersionId)
}
const move = (SecretId: string, VersionStage: string, from?: string, to?: string) =>
  client.send(
    new UpdateSecretVersionStageCommand({ SecretId, VersionStage, RemoveFromVersionId: from, MoveToVersionId: to }),
  )
const stagesOf = async (SecretId: string) =>
  (await client.send(new DescribeSecretCommand({ SecretId }))).VersionIdsToStages
const refused = (name: string, message: RegExp | string) => ({
  name,
  message: typeof message === 'string' ? message : expect.stringMatching(message),
})

describe('a secret', () => {
  it('is found by its name, its ARN and its ARN without the random end', async () => {
    const arn = await server.createSecret({ Name: 'found/by-name', SecretString: 'value' })
    expect(arn).toMatch(/^arn:aws:secretsmanager:us-east-1:000000000000:secret:found\/by-name-[0-9A-Za-z]{6}$/)
    for (const secretId of ['found/by-name', arn, arn.slice(0, -7)])
      expect(await get(secretId)).toMatchObject({
        ARN: arn,
        Name: 'found/by-name',
        SecretString: 'value',
        VersionStages: ['AWSCURRENT'],
      })
    await expect(get('found')).rejects.toMatchObject(
      refused('ResourceNotFoundException', "Secrets Manager can't find the specified secret."),
    )
  })

  it('can be made without a value', async () => {
    await server.createSecret({ Name: 'empty' })
    await expect(get('empty')).rejects.toMatchObject(
      refused(
        'ResourceNotFoundException',
        "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
      ),
    )
    expect(await stagesOf('empty')).toBeUndefined()
    const first = await put('empty', 'first', ['AWSPENDING'])
    expect((await stagesOf('empty'))?.[first]?.toSorted()).toEqual(['AWSCURRENT', 'AWSPENDING'])
  })

  it('is made once: the same token and value again change nothing, anything else is refused', async () => {
    const input = { Name: 'once', SecretString: 'value', ClientRequestToken: randomUUID() }
    const { ARN } = await client.send(new CreateSecretCommand(input))
    expect((await client.send(new CreateSecretCommand(input))).ARN).toBe(ARN)
    for (const other of [{ SecretString: 'other' }, { ClientRequestToken: randomUUID() }])
      await expect(client.send(new CreateSecretCommand({ ...input, ...other }))).rejects.toMatchObject(
        refused('ResourceExistsException', 'The operation failed because the secret once already exists.'),
      )
  })

  it('cannot be used once its deletion is scheduled, nor its name taken', async () => {
    await server.createSecret({ Name: 'scheduled', SecretString: 'value' })
    const { DeletionDate } = await client.send(
      new DeleteSecretCommand({ SecretId: 'scheduled', RecoveryWindowInDays: 7 }),
    )
    expect(Number(DeletionDate)).toBeGreaterThan(Date.now() + 6 * 86_400_000)
    const marked = refused('InvalidRequestException', /marked for deletion/)
    await expect(get('scheduled')).rejects.toMatchObject(marked)
    await expect(put('scheduled', 'other')).rejects.toMatchObject(marked)
    await expect(server.createSecret({ Name: 'scheduled' })).rejects.toThrow(/already scheduled for deletion/)
    expect((await client.send(new DescribeSecretCommand({ SecretId: 'scheduled' }))).DeletedDate).toBeInstanceOf(Date)
  })

  it('is gone at once when its deletion is forced, even if it never was', async () => {
    await server.createSecret({ Name: 'forced', SecretString: 'value' })
    const force = { ForceDeleteWithoutRecovery: true }
    await client.send(new DeleteSecretCommand({ SecretId: 'forced', ...force }))
    await expect(get('forced')).rejects.toMatchObject(refused('ResourceNotFoundException', /specified secret/))
    await client.send(new DeleteSecretCommand({ SecretId: 'never', ...force }))
    await server.createSecret({ Name: 'forced' })
    await expect(
      client.send(new DeleteSecretCommand({ SecretId: 'forced', RecoveryWindowInDays: 7, ...force })),
    ).rejects.toMatchObject(refused('InvalidParameterException', /in conjunction/))
    await expect(
      client.send(new DeleteSecretCommand({ SecretId: 'forced', RecoveryWindowInDays: 6 })),
    ).rejects.toMatchObject(refused('InvalidParameterException', /between 7 and 30/))
  })
})

describe('a new value', () => {
  it('is current, and the one before it previous', async () => {
    await server.createSecret({ Name: 'values', SecretString: 'one' })
    await put('values', 'two')
    const third = await put('values', 'three')
    expect(await get('values')).toMatchObject({ SecretString: 'three', VersionId: third })
    expect(await get('values', { VersionStage: 'AWSPREVIOUS' })).toMatchObject({ SecretString: 'two' })
    expect(Object.keys((await stagesOf('values')) ?? {})).toHaveLength(2)
  })

  it('can wait under a label of its own', async () => {
    await server.createSecret({ Name: 'pending', SecretString: 'one' })
    const pending = await put('pending', 'two', ['AWSPENDING'])
    expect((await get('pending')).SecretString).toBe('one')
    expect((await get('pending', { VersionId: pending, VersionStage: 'AWSPENDING' })).SecretString).toBe('two')
    await expect(get('pending', { VersionId: pending, VersionStage: 'AWSCURRENT' })).rejects.toMatchObject(
      refused('InvalidRequestException', /not associated to the provided VersionId/),
    )
    await expect(get('pending', { VersionId: randomUUID() })).rejects.toMatchObject(
      refused('ResourceNotFoundException', /specified secret value for VersionId: /),
    )
  })

  it('is stored once for one token, and never replaced', async () => {
    await server.createSecret({ Name: 'tokens', SecretString: 'one' })
    const input = { SecretId: 'tokens', SecretString: 'two', ClientRequestToken: randomUUID() }
    await client.send(new PutSecretValueCommand(input))
    await put('tokens', 'three')
    await client.send(new PutSecretValueCommand(input))
    expect((await get('tokens')).SecretString).toBe('three')
    await expect(client.send(new PutSecretValueCommand({ ...input, SecretString: 'other' }))).rejects.toMatchObject(
      refused('ResourceExistsException', 'A resource with the ID you requested already exists.'),
    )
  })
})

describe('a list of secrets', () => {
  it('has those whose description begins so, and no deleted one', async () => {
    for (const Name of ['listed', 'gone'])
      await server.createSecret({ Name, Description: 'Some of Ours', SecretString: 'x' })
    await server.createSecret({ Name: 'other' })
    await client.send(new DeleteSecretCommand({ SecretId: 'gone' }))
    const listed = (value: string) =>
      client.send(new ListSecretsCommand({ Filters: [{ Key: 'description', Values: [value] }] }))
    expect((await listed('some of')).SecretList?.map(({ Name }) => Name)).toEqual(['listed'])
    expect((await listed('of ours')).SecretList).toEqual([])
  })
})

describe('staging labels', () => {
  const rotated = async (Name: string) => {
    await server.createSecret({ Name, SecretString: 'old' })
    const old = String((await get(Name)).VersionId)
    const next = await put(Name, 'new', ['AWSPENDING'])
    return { Name, old, next }
  }

  it('AWSCURRENT moves with both ends named, leaves AWSPREVIOUS behind and takes AWSPENDING away', async () => {
    const { Name, old, next } = await rotated('move')
    await move(Name, 'AWSCURRENT', old, next)
    expect(await stagesOf(Name)).toEqual({ [old]: ['AWSPREVIOUS'], [next]: ['AWSCURRENT'] })
  })

  it('come off a version', async () => {
    const { Name, old, next } = await rotated('off')
    await move(Name, 'AWSPENDING', next)
    expect(await stagesOf(Name)).toEqual({ [old]: ['AWSCURRENT'] })
  })

  it('moving a label where it already is changes nothing', async () => {
    const { Name, old, next } = await rotated('repeat')
    await move(Name, 'AWSCURRENT', old, next)
    const before = await stagesOf(Name)
    await move(Name, 'AWSCURRENT', undefined, next)
    expect(await stagesOf(Name)).toEqual(before)
  })

  it('are refused otherwise', async () => {
    const { Name, old, next } = await rotated('refused')
    const no = (message: RegExp) => refused('InvalidParameterException', message)
    await expect(move(Name, 'AWSCURRENT', undefined, next)).rejects.toMatchObject(
      no(new RegExp(`RemoveFromVersionId can't be empty. Staging label AWSCURRENT .* version ${old}, so`)),
    )
    await expect(move(Name, 'AWSCURRENT', next, old)).rejects.toMatchObject(no(/must be set to the version that/))
    await expect(move(Name, 'AWSCURRENT', old)).rejects.toMatchObject(no(/can't be completely removed/))
    await expect(move(Name, 'AWSCURRENT', old, randomUUID())).rejects.toMatchObject(no(/Not a valid version/))
    await expect(move(Name, 'AWSPENDING', old, next)).rejects.toMatchObject(no(/must be set to the version that/))
    await expect(move(Name, 'AWSCURRENT')).rejects.toMatchObject(no(/must specify/))
    expect(await stagesOf(Name)).toEqual({ [old]: ['AWSCURRENT'], [next]: ['AWSPENDING'] })
  })

  it('are at most twenty on one version', async () => {
    const labels = Array.from({ length: 20 }, (_, at) => `label-${at}`)
    await server.createSecret({ Name: 'labels', SecretString: 'one' })
    const version = await put('labels', 'two', labels)
    const tooMany = refused('LimitExceededException', /20 staging labels/)
    await expect(put('labels', 'three', [...labels, 'one-more'])).rejects.toMatchObject(tooMany)
    await expect(move('labels', 'one-more', undefined, version)).rejects.toMatchObject(tooMany)
  })
})

describe('limits', () => {
  it.each([
    ['a value of more than 64 KiB', { SecretString: 'é'.repeat(32_769) }, 'ValidationException'],
    ['an empty value', { SecretString: '' }, 'ValidationException'],
    ['no value', {}, 'InvalidRequestException'],
    ['a short token', { SecretString: 'a', ClientRequestToken: 'short' }, 'InvalidParameterException'],
    ['no label at all', { SecretString: 'a', VersionStages: [] }, 'InvalidParameterException'],
  ])('refuse %s', async (_, input, name) => {
    const SecretId = await server.createSecret({ Name: `limits-${randomUUID()}` })
    await expect(client.send(new PutSecretValueCommand({ SecretId, ...input }))).rejects.toMatchObject({ name })
  })

  it('take a value of exactly 64 KiB', async () => {
    await server.createSecret({ Name: 'full', SecretString: 'x'.repeat(65_536) })
    expect((await get('full')).SecretString).toHaveLength(65_536)
  })

  it.each(['spa ce', 'star*', 'x'.repeat(513)])('refuse the name %j', async (Name) => {
    await expect(server.createSecret({ Name })).rejects.toMatchObject(refused('ValidationException', /Invalid name/))
  })

  it('name an operation that is not there', async () => {
    await expect(client.send(new RestoreSecretCommand({ SecretId: 'any' }))).rejects.toMatchObject(
      refused('UnknownOperationException', /RestoreSecret/),
    )
  })
})

describe('a generated value', () => {
  it('has 32 characters of every type by default', () => {
    const value = generateSecretString({})
    expect(value).toMatch(/^[!-~]{32}$/)
    for (const type of [/[a-z]/, /[A-Z]/, /[0-9]/, /[^0-9A-Za-z]/]) expect(value).toMatch(type)
  })

  it('goes into the template under its key', () => {
    const value: unknown = JSON.parse(
      generateSecretString({
        SecretStringTemplate: '{"kid":"one"}',
        GenerateStringKey: 'key',
        ExcludePunctuation: true,
        PasswordLength: 43,
      }),
    )
    expect(value).toEqual({ kid: 'one', key: expect.stringMatching(/^[0-9A-Za-z]{43}$/) })
  })

  it('keeps to what its properties allow', () => {
    fc.assert(
      fc.property(
        fc.record({
          PasswordLength: fc.integer({ min: 5, max: 100 }),
          ExcludePunctuation: fc.constantFrom(true, false, 'true', 'false'),
          ExcludeNumbers: fc.boolean(),
          ExcludeUppercase: fc.boolean(),
          IncludeSpace: fc.boolean(),
          RequireEachIncludedType: fc.boolean(),
          ExcludeCharacters: fc.string().filter((characters) => !characters.includes('a')),
        }),
        (properties) => {
          const value = generateSecretString(properties)
          expect(value).toHaveLength(properties.PasswordLength)
          expect(value.split('').filter((character) => properties.ExcludeCharacters.includes(character))).toEqual([])
          expect(/[0-9]/.test(value) && properties.ExcludeNumbers).toBe(false)
          expect(/[A-Z]/.test(value) && properties.ExcludeUppercase).toBe(false)
          expect(/ /.test(value) && !properties.IncludeSpace).toBe(false)
          expect(/[^0-9A-Za-z ]/.test(value) && String(properties.ExcludePunctuation) === 'true').toBe(false)
        },
      ),
      { numRuns: 200 },
    )
  })

  it.each([
    { PasswordLength: 0 },
    { PasswordLength: 3 },
    { PasswordLength: 4097 },
    { ExcludeLowercase: true, ExcludeUppercase: true, ExcludeNumbers: true, ExcludePunctuation: true },
    { SecretStringTemplate: '{}' },
    { SecretStringTemplate: '[]', GenerateStringKey: 'key' },
  ])('is refused for %j', (properties) => {
    expect(() => generateSecretString(properties)).toThrow(/allows no password|needs GenerateStringKey/)
  })
})
