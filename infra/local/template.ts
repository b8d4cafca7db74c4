import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ACCOUNT_ID, isRecord, REGION } from './aws-call.ts'

/** One resource of a template; its properties still hold their intrinsic functions. */
export interface Resource {
  logicalId: string
  type: string
  properties: Record<string, unknown>
}

/** What a stack is made of, read from a cloud assembly; `resources` are in an order in which they can be created. */
export interface Assembly {
  stackName: string
  resources: Resource[]
  outputs: Record<string, unknown>
  /** The folder whose content is the asset with this S3 key, `<hash>.zip`. */
  assetFolder: (s3Key: string) => string
}

/** What other resources see of a created one: what `Ref` and `Fn::GetAtt` give. */
export interface ResourceValues {
  ref: string
  attributes?: Record<string, unknown>
}

/** Turns intrinsic functions into values, as far as the resources they name have been created. */
export interface Resolver {
  define: (logicalId: string, values: ResourceValues) => void
  /** The value without intrinsic functions; `where` names its owner in errors. */
  resolve: (value: unknown, where: string) => unknown
}

/**
 * The one stack of a cloud assembly folder (`cdk.out`). Throws an Error that names what is wrong: no assembly, several
 * stacks, a conditional resource, a reference to nothing, or a cycle.
 */
export function readAssembly(folder: string): Assembly {
  const manifestPath = join(folder, 'manifest.json')
  if (!existsSync(manifestPath)) throw new Error(`${folder} is no cloud assembly: it has no manifest.json`)
  const artifacts = Object.entries(record(readJson(manifestPath)['artifacts']))
  const stacks = artifacts.filter(([, artifact]) => record(artifact)['type'] === 'aws:cloudformation:stack')
  const [stack] = stacks
  if (!stack || stacks.length > 1) throw new Error(`${folder} has ${stacks.length} stacks; the local run takes one`)
  const [stackName, artifact] = stack
  const template = readJson(join(folder, String(record(record(artifact)['properties'])['templateFile'])))
  const files = record(readJson(join(folder, `${stackName}.assets.json`))['files'])
  return {
    stackName,
    resources: inCreationOrder(record(template['Resources'])),
    outputs: Object.fromEntries(
      Object.entries(record(template['Outputs'])).map(([name, output]) => [name, record(output)['Value']]),
    ),
    assetFolder: (s3Key) => {
      const source = record(record(files[s3Key.replace(/\.zip$/, '')])['source'])
      if (typeof source['path'] !== 'string') throw new Error(`The assembly has no asset ${s3Key}`)
      return join(folder, source['path'])
    },
  }
}

function readJson(path: string): Record<string, unknown> {
  return record(JSON.parse(readFileSync(path, 'utf8')))
}

function record(value: unknown): Record<string, unknown> {
  return isRecord(value) ? value : {}
}

function inCreationOrder(resources: Record<string, unknown>): Resource[] {
  const ordered = new Map<string, Resource>()
  const visit = (logicalId: string, path: string[]): void => {
    if (ordered.has(logicalId)) return
    if (path.includes(logicalId)) {
      throw new Error(`The template has a cycle: ${[...path.slice(path.indexOf(logicalId)), logicalId].join(' → ')}`)
    }
    const definition = record(resources[logicalId])
    const type = String(definition['Type'])
    if (type === 'AWS::CDK::Metadata') return
    if (definition['Condition'] !== undefined) {
      throw new Error(`${logicalId} has a Condition, which the local run does not evaluate`)
    }
    const dependsOn = [definition['DependsOn'] ?? []].flat().map(String)
    for (const needed of [...dependsOn, ...referencesIn(definition['Properties'])]) {
      if (!Object.hasOwn(resources, needed)) {
        throw new Error(`${logicalId} refers to ${needed}, which the template does not have`)
      }
      visit(needed, [...path, logicalId])
    }
    ordered.set(logicalId, { logicalId, type, properties: record(definition['Properties']) })
  }
  for (const logicalId of Object.keys(resources)) visit(logicalId, [])
  return [...ordered.values()]
}

const subVariable = /\$\{(!?)([^}]+)\}/g

function referencesIn(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(referencesIn)
  if (!isRecord(value)) return []
  const intrinsic = intrinsicOf(value)
  if (!intrinsic) return Object.values(value).flatMap(referencesIn)
  const [name, argument] = intrinsic
  if (name === 'Ref') return isPseudo(String(argument)) ? [] : [String(argument)]
  if (name === 'Fn::GetAtt') return [getAttOf(argument)[0]]
  if (name !== 'Fn::Sub') return referencesIn(argument)
  const [text, variables] = subOf(argument)
  const named = [...text.matchAll(subVariable)]
    .filter(([, literal]) => !literal)
    .map(([, , variable = '']) => variable.split('.')[0] ?? '')
    .filter((variable) => !isPseudo(variable) && !Object.hasOwn(variables, variable))
  return [...named, ...referencesIn(variables)]
}

function intrinsicOf(value: Record<string, unknown>): [name: string, argument: unknown] | undefined {
  const [entry, ...others] = Object.entries(value)
  return entry && others.length === 0 && (entry[0] === 'Ref' || entry[0].startsWith('Fn::')) ? entry : undefined
}

function isPseudo(name: string): boolean {
  return name.startsWith('AWS::')
}

function getAttOf(argument: unknown): [logicalId: string, attribute: string] {
  const parts = Array.isArray(argument) ? argument.map(String) : String(argument).split('.')
  return [parts[0] ?? '', parts.slice(1).join('.')]
}

function subOf(argument: unknown): [text: string, variables: Record<string, unknown>] {
  return Array.isArray(argument) ? [String(argument[0]), record(argument[1])] : [String(argument), {}]
}

const noValue = Symbol('AWS::NoValue')

/** A resolver that knows the pseudo parameters of a stack, and each resource once it is defined. */
export function createResolver(stackName: string, stackId: string): Resolver {
  const created = new Map<string, ResourceValues>()
  const pseudo: Record<string, unknown> = {
    'AWS::Region': REGION,
    'AWS::AccountId': ACCOUNT_ID,
    'AWS::Partition': 'aws',
    'AWS::URLSuffix': 'amazonaws.com',
    'AWS::StackName': stackName,
    'AWS::StackId': stackId,
    'AWS::NotificationARNs': [],
    'AWS::NoValue': noValue,
  }

  const resolve = (value: unknown, where: string): unknown => {
    if (Array.isArray(value)) return value.map((item) => resolve(item, where)).filter((item) => item !== noValue)
    if (!isRecord(value)) return value
    const intrinsic = intrinsicOf(value)
    if (intrinsic) return evaluate(...intrinsic, where)
    const members = Object.entries(value).map(([name, member]) => [name, resolve(member, where)])
    return Object.fromEntries(members.filter(([, member]) => member !== noValue))
  }

  const valuesOf = (logicalId: string, where: string): ResourceValues => {
    const values = created.get(logicalId)
    if (!values) throw new Error(`${where} refers to ${logicalId}, which has no values in the local run`)
    return values
  }
  const ref = (name: string, where: string): unknown => {
    if (!isPseudo(name)) return valuesOf(name, where).ref
    if (!Object.hasOwn(pseudo, name)) throw new Error(`${where} uses ${name}, which the local run does not know`)
    return pseudo[name]
  }
  const getAtt = (logicalId: string, attribute: string, where: string): unknown => {
    const { attributes = {} } = valuesOf(logicalId, where)
    if (!Object.hasOwn(attributes, attribute)) {
      throw new Error(`${where} uses ${logicalId}.${attribute}, which the local run does not provide`)
    }
    return attributes[attribute]
  }

  const evaluate = (name: string, argument: unknown, where: string): unknown => {
    if (name === 'Ref') return ref(String(argument), where)
    if (name === 'Fn::GetAtt') return getAtt(...getAttOf(argument), where)
    if (name === 'Fn::Sub') {
      const [text, variables] = subOf(argument)
      return text.replaceAll(subVariable, (_, literal: string, variable: string) => {
        if (literal) return `\${${variable}}`
        if (Object.hasOwn(variables, variable)) return String(resolve(variables[variable], where))
        return String(variable.includes('.') ? getAtt(...getAttOf(variable), where) : ref(variable, where))
      })
    }
    const parameters = Array.isArray(argument) ? argument.map((item) => resolve(item, where)) : []
    const [first, second] = parameters
    if (name === 'Fn::Join' && Array.isArray(second)) return second.join(String(first))
    if (name === 'Fn::Split' && typeof second === 'string') return second.split(String(first))
    if (name === 'Fn::Select' && Array.isArray(second) && Number(first) in second) return second[Number(first)]
    throw new Error(`${where} has an ${name} that the local run cannot resolve: ${JSON.stringify(argument)}`)
  }

  return { resolve, define: (logicalId, values) => void created.set(logicalId, values) }
}
