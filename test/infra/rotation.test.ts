import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { synthesizeStage } from '../support/stacks.ts'

type Properties = Record<string, unknown>
type Resource = { Type: string; Properties: Properties; DependsOn?: string[] }

const synthesized = async (
  rotations: Record<string, object | undefined>,
  settings: object = {},
): Promise<[id: string, Resource][]> => {
  const folder = await synthesizeStage({
    origin: 'https://app.example.com',
    providers: Object.fromEntries(
      Object.entries(rotations).map(([name, rotation]) => [
        name,
        { ...settings, issuer: `https://${name}.example.com`, ...(rotation !== undefined && { rotation }) },
      ]),
    ),
  })
  const file = readdirSync(folder).find((name) => name.endsWith('.template.json')) ?? ''
  const template: { Resources: Record<string, Resource> } = JSON.parse(readFileSync(join(folder, file), 'utf8'))
  return Object.entries(template.Resources)
}

const all = (resources: [string, Resource][], type: string) =>
  resources.filter(([, resource]) => resource.Type === type)
const idOf = (resources: [string, Resource][], type: string, prefix: string): string =>
  all(resources, type).find(([id]) => id.startsWith(prefix))?.[0] ?? 'none'

describe('each provider whose credentials rotate', () => {
  test('has a schedule that begins after its registration and does not rotate at once', async () => {
    const resources = await synthesized({ main: undefined, often: { every_days: 7 }, never: { mode: 'off' } })
    const lambda = idOf(resources, 'AWS::Lambda::Function', 'Rotate')
    const schedules = all(resources, 'AWS::SecretsManager::RotationSchedule')
    expect(schedules.map(([, { Properties: given }]) => given)).toEqual(
      (
        [
          ['main', 30],
          ['often', 7],
        ] as const
      ).map(([name, days]) => ({
        SecretId: { Ref: idOf(resources, 'AWS::SecretsManager::Secret', `Provider${name}`) },
        RotationLambdaARN: { 'Fn::GetAtt': [lambda, 'Arn'] },
        RotationRules: { AutomaticallyAfterDays: days },
        RotateImmediatelyOnUpdate: false,
      })),
    )
    for (const [index, name] of ['main', 'often'].entries()) {
      const depended = schedules[index]?.[1].DependsOn ?? []
      expect(depended).toContain(idOf(resources, 'Custom::CoatcheckRegistration', `Registration${name}`))
      expect(
        depended.some((id) => resources.some(([known, { Type }]) => known === id && Type.endsWith('Permission'))),
      ).toBe(true)
    }
  })

  test('lets Secrets Manager of this account in, for this secret and nothing else', async () => {
    const resources = await synthesized({ main: undefined, never: { mode: 'off' } })
    const lambda = idOf(resources, 'AWS::Lambda::Function', 'Rotate')
    const permissions = all(resources, 'AWS::Lambda::Permission').filter(([, one]) =>
      JSON.stringify(one).includes(lambda),
    )
    expect(permissions.map(([, { Properties: given }]) => given)).toEqual([
      {
        Action: 'lambda:InvokeFunction',
        FunctionName: { 'Fn::GetAtt': [lambda, 'Arn'] },
        Principal: 'secretsmanager.amazonaws.com',
        SourceAccount: { Ref: 'AWS::AccountId' },
        SourceArn: { Ref: idOf(resources, 'AWS::SecretsManager::Secret', 'Providermain') },
      },
    ])
  })
})

test('once an hour, and by that rule only, clients are looked after', async () => {
  const resources = await synthesized({ main: undefined, never: { mode: 'off' } })
  const upkeep = idOf(resources, 'AWS::Lambda::Function', 'Upkeep')
  const rule = idOf(resources, 'AWS::Events::Rule', 'EveryHour')
  expect(all(resources, 'AWS::Events::Rule').map(([, { Properties: given }]) => given)).toEqual([
    {
      Description: expect.any(String),
      ScheduleExpression: 'rate(1 hour)',
      State: 'ENABLED',
      Targets: [{ Arn: { 'Fn::GetAtt': [upkeep, 'Arn'] }, Id: 'Target0' }],
    },
  ])
  const permissions = all(resources, 'AWS::Lambda::Permission').filter(([, one]) =>
    JSON.stringify(one).includes(upkeep),
  )
  expect(permissions.map(([, { Properties: given }]) => given)).toEqual([
    {
      Action: 'lambda:InvokeFunction',
      FunctionName: { 'Fn::GetAtt': [upkeep, 'Arn'] },
      Principal: 'events.amazonaws.com',
      SourceArn: { 'Fn::GetAtt': [rule, 'Arn'] },
    },
  ])
})

test('clients of ours from before a static one are looked after, and nothing is rotated', async () => {
  const resources = await synthesized({ main: undefined }, { client: 'static' })
  expect(idOf(resources, 'AWS::Lambda::Function', 'Rotate')).toBe('none')
  expect(idOf(resources, 'AWS::Lambda::Function', 'Upkeep')).not.toBe('none')
  const role = JSON.stringify(all(resources, 'AWS::IAM::Role').find(([id]) => id.startsWith('Upkeep')))
  expect(role).toContain(idOf(resources, 'AWS::SecretsManager::Secret', 'Providermain'))
  const written = idOf(resources, 'AWS::SecretsManager::Secret', 'Clientmain')
  expect(role).toContain(`{"Action":"secretsmanager:GetSecretValue","Effect":"Allow","Resource":{"Ref":"${written}"}}`)
  expect(role.split(written)).toHaveLength(2)
  expect(role).not.toContain('RotateSecret')
})

test('without rotation there is neither function nor schedule', async () => {
  const resources = await synthesized({ main: { mode: 'off' } })
  expect(idOf(resources, 'AWS::Lambda::Function', 'Rotate')).toBe('none')
  expect(all(resources, 'AWS::SecretsManager::RotationSchedule')).toEqual([])
})
