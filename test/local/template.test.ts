import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createResolver, readAssembly } from '../../infra/local/template.ts'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function assemblyOf(template: unknown, artifacts: Record<string, unknown> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'coatcheck-assembly-'))
  folders.push(folder)
  const write = (name: string, content: unknown) => writeFileSync(join(folder, name), JSON.stringify(content))
  const stack = { type: 'aws:cloudformation:stack', properties: { templateFile: 'Web.template.json' } }
  write('manifest.json', { artifacts: { 'Web.assets': { type: 'cdk:asset-manifest' }, Web: stack, ...artifacts } })
  write('Web.assets.json', { files: { abc: { source: { path: 'asset.abc', packaging: 'zip' } } } })
  write('Web.template.json', template)
  return folder
}

const orderOf = (resources: Record<string, unknown>) =>
  readAssembly(assemblyOf({ Resources: resources })).resources.map(({ logicalId }) => logicalId)

describe('reading an assembly', () => {
  it('gives the stack, its resources, outputs and asset folders', () => {
    const folder = assemblyOf({
      Resources: { Table: { Type: 'AWS::DynamoDB::Table', Properties: { TableName: 't' } } },
      Outputs: { Url: { Value: { Ref: 'Table' } } },
    })
    const assembly = readAssembly(folder)
    expect(assembly).toMatchObject({
      stackName: 'Web',
      resources: [{ logicalId: 'Table', type: 'AWS::DynamoDB::Table', properties: { TableName: 't' } }],
      outputs: { Url: { Ref: 'Table' } },
    })
    expect(assembly.assetFolder('abc.zip')).toBe(join(folder, 'asset.abc'))
    expect(() => assembly.assetFolder('other.zip')).toThrow('The assembly has no asset other.zip')
  })

  it('refuses a folder that is none, and one with several stacks', () => {
    expect(() => readAssembly('/nowhere')).toThrow('/nowhere is no cloud assembly: it has no manifest.json')
    const two = assemblyOf({}, { Other: { type: 'aws:cloudformation:stack', properties: { templateFile: 'x' } } })
    expect(() => readAssembly(two)).toThrow(/has 2 stacks; the local run takes one/)
  })

  it('orders resources by what they refer to and depend on', () => {
    const order = orderOf({
      A: { Type: 'T', Properties: { x: { 'Fn::Join': ['', [{ Ref: 'B' }, { Ref: 'AWS::Region' }]] } } },
      B: {
        Type: 'T',
        Properties: { x: { 'Fn::Sub': ['${C.Arn}-${v}-${!D}', { v: { 'Fn::GetAtt': ['E', 'Arn'] } }] } },
      },
      C: { Type: 'T', DependsOn: ['F'] },
      E: { Type: 'T', DependsOn: 'F' },
      F: { Type: 'T' },
      CDKMetadata: { Type: 'AWS::CDK::Metadata', Condition: 'CDKMetadataAvailable' },
    })
    expect(order).toEqual(['F', 'C', 'E', 'B', 'A'])
  })

  it.each([
    [
      'a cycle',
      { A: { DependsOn: 'B' }, B: { Properties: { x: { Ref: 'A' } } } },
      'The template has a cycle: A → B → A',
    ],
    ['a reference to nothing', { A: { Properties: { Ref: 'B' } } }, 'A refers to B, which the template does not have'],
    ['a conditional resource', { A: { Condition: 'C' } }, 'A has a Condition, which the local run does not evaluate'],
  ])('refuses %s', (_, resources, message) => {
    expect(() => orderOf(resources)).toThrow(message)
  })
})

describe('resolving', () => {
  const resolver = createResolver('Web', 'arn:stack')
  resolver.define('Table', { ref: 'sessions', attributes: { Arn: 'arn:table', 'Data.Id': 7 } })

  it.each([
    ['a plain value', { a: [1, true, null, 'x'] }, { a: [1, true, null, 'x'] }],
    ['Ref', { Ref: 'Table' }, 'sessions'],
    ['Fn::GetAtt', { 'Fn::GetAtt': ['Table', 'Arn'] }, 'arn:table'],
    ['Fn::GetAtt with a dotted name', { 'Fn::GetAtt': 'Table.Data.Id' }, 7],
    ['Fn::Join', { 'Fn::Join': ['/', ['a', { Ref: 'Table' }]] }, 'a/sessions'],
    ['Fn::Join of a Fn::Split', { 'Fn::Join': ['-', { 'Fn::Split': ['/', 'a/b'] }] }, 'a-b'],
    ['Fn::Select', { 'Fn::Select': [1, { 'Fn::Split': [':', 'a:b'] }] }, 'b'],
    [
      'Fn::Sub',
      { 'Fn::Sub': '${Table}-${Table.Arn}-${AWS::Region}-${!Literal}' },
      'sessions-arn:table-us-east-1-${Literal}',
    ],
    ['Fn::Sub with variables', { 'Fn::Sub': ['${x}', { x: { Ref: 'AWS::AccountId' } }] }, '000000000000'],
    [
      'pseudo parameters',
      [{ Ref: 'AWS::Partition' }, { Ref: 'AWS::StackName' }, { Ref: 'AWS::StackId' }],
      ['aws', 'Web', 'arn:stack'],
    ],
    ['AWS::NoValue', { a: { Ref: 'AWS::NoValue' }, b: [{ Ref: 'AWS::NoValue' }, 1] }, { b: [1] }],
  ])('%s', (_, value, expected) => {
    expect(resolver.resolve(value, 'Login')).toEqual(expected)
  })

  it.each([
    [{ Ref: 'Other' }, 'Login refers to Other, which has no values in the local run'],
    [{ Ref: 'AWS::Moon' }, 'Login uses AWS::Moon, which the local run does not know'],
    [{ 'Fn::GetAtt': ['Table', 'StreamArn'] }, 'Login uses Table.StreamArn, which the local run does not provide'],
    [{ 'Fn::ImportValue': 'x' }, 'Login has an Fn::ImportValue that the local run cannot resolve: "x"'],
    [{ 'Fn::Select': [5, ['a']] }, 'Login has an Fn::Select that the local run cannot resolve: [5,["a"]]'],
  ])('refuses %j', (value, message) => {
    expect(() => resolver.resolve(value, 'Login')).toThrow(message)
  })
})
