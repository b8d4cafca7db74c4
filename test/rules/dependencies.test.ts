import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'

/** Lambda is met at one edge a kind of event: API Gateway's and CloudFormation's. */
const edges = ['lambdas/edge.ts', 'lambdas/custom-resource.ts']

/** The one module of `lambdas` and `shared` that may touch each outside thing: what to look for, and who may have it. */
const owners: [thing: string, pattern: RegExp, ...owners: string[]][] = [
  ['the DynamoDB client', /^@aws-sdk\/client-dynamodb$/, 'shared/table.ts', 'shared/table-expressions.ts'],
  ['the Secrets Manager client', /^@aws-sdk\/client-secrets-manager$/, 'shared/secrets.ts'],
  ['node:crypto', /^(node:)?crypto$/, 'shared/seal.ts'],
  ['the OAuth library', /^oauth4webapi$/, 'shared/oauth.ts'],
  ['HTTP of Node.js', /^(node:)?(https?|http2|tls)$/, 'shared/http.ts'],
  ['names and addresses of Node.js', /^(node:)?(dns|net)(\/|$)/, 'shared/addresses.ts'],
  ['middy', /^@middy\//, ...edges],
  ['the Lambda event types', /^aws-lambda$/, ...edges],
  ['the logger', /^@aws-lambda-powertools\//, 'lambdas/runtime.ts'],
]

/** What is in the text of a module rather than in its imports. */
const textOwners: [thing: string, pattern: RegExp, owner: string][] = [
  ['process.env', /\bprocess\.env\b|\bfrom ['"](node:)?process['"]/, 'lambdas/runtime.ts'],
  ['the crypto of the Web', /\bglobalThis\.crypto\b|\bcrypto\.(subtle|getRandomValues|randomUUID)\b/, 'shared/seal.ts'],
  ['the fetch of the Web', /(?<![.\w])fetch\(|\bglobalThis\.fetch\b/, 'shared/http.ts'],
]

/** The doctor asks servers as functions do. */
const isDoctor = (module: string) => /^infra\/doctor[\w-]*\.ts$/.test(module)

/** What the rest of `infra` may read of `shared`. */
const configuration = new Set(['shared/config.ts'])

/** The longest file that one can hold in mind; tests are lists and may be a little longer. */
const longestLines = { product: 300, test: 400 }

type Import = { module: string; target: string; local: boolean; typeOnly: boolean }

const root = join(import.meta.dirname, '../..')
const modules = globSync('{lambdas,shared,infra,test}/**/*.ts', { cwd: root }).map((path) => path.replaceAll('\\', '/'))
const text = new Map(modules.map((module) => [module, readFileSync(join(root, module), 'utf8')]))

const withoutComments = (source: string): string =>
  source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[\s;])\/\/.*$/gm, '$1')

const importPattern = /(?:\b(?:im|ex)port\s+(type)\s[^'";]*?)?(?:\bfrom|\bimport|\brequire)\s*\(?\s*['"]([^'"\n]+)['"]/g

/** Every import, export-from and dynamic import of a source, types too, local ones as paths from the root. */
const importsOf = (module: string, source: string): Import[] =>
  [...withoutComments(source).matchAll(importPattern)].map(([, type, name = '']) => {
    const local = name.startsWith('.')
    const target = local ? normalize(join(dirname(module), name)).replaceAll('\\', '/') : name
    return { module, target, local, typeOnly: type !== undefined }
  })

const imports = modules.flatMap((module) => importsOf(module, text.get(module) ?? ''))
const within = (folder: string) => (path: string) => path.startsWith(`${folder}/`)

/** A flow is what Lambda starts: a module of `lambdas` with a handler. */
const isFlow = (module: string) =>
  within('lambdas')(module) && /^export (const|async function|function) handler\b/m.test(text.get(module) ?? '')

/** The imports that break a rule, each as a sentence. */
const broken = (rule: (entry: Import) => boolean): string[] =>
  imports.filter(rule).map(({ module, target }) => `${module} imports ${target}`)

test('imports are found in every form in which they are written', () => {
  const source = `import a from './a.ts'
    import type { B } from "./b.ts"
    import { c,
      d } from 'c'
    import 'node:e'
    export { f } from '../f.ts'
    const g = await import('./g.ts')
    // import h from 'h'
    /* import i from 'i' */`
  const found = importsOf('shared/x.ts', source)
  const targets = ['shared/a.ts', 'shared/b.ts', 'c', 'node:e', 'f.ts', 'shared/g.ts']
  expect(found.map(({ target }) => target)).toEqual(targets)
  expect(found.filter(({ typeOnly }) => typeOnly).map(({ target }) => target)).toEqual(['shared/b.ts'])
})

describe('the direction of dependencies: lambdas, shared, npm', () => {
  test('shared imports nothing of lambdas, infra or test', () => {
    expect(
      broken(({ module, target, local }) => within('shared')(module) && local && !within('shared')(target)),
    ).toEqual([])
  })

  test('lambdas import nothing of infra or test', () => {
    const allowed = (target: string) => within('shared')(target) || within('lambdas')(target)
    expect(broken(({ module, target, local }) => within('lambdas')(module) && local && !allowed(target))).toEqual([])
  })

  test('no flow imports another flow, and no module imports a flow', () => {
    expect(modules.filter(isFlow)).toEqual(expect.arrayContaining(['lambdas/login.ts', 'lambdas/callback.ts']))
    const product = (module: string) => !within('test')(module)
    expect(broken(({ module, target }) => product(module) && isFlow(target))).toEqual([])
  })

  test('infra names flows by path and reads only the configuration of shared, but for the doctor', () => {
    const allowed = (module: string, target: string) =>
      within('infra')(target) || configuration.has(target) || (isDoctor(module) && within('shared')(target))
    expect(broken(({ module, target, local }) => within('infra')(module) && local && !allowed(module, target))).toEqual(
      [],
    )
  })

  test('shared knows no Lambda, no API Gateway, no CDK', () => {
    const platform = /^(aws-lambda|aws-cdk-lib|constructs|cdk-nag|@middy\/|@types\/aws-lambda)/
    expect(broken(({ module, target }) => within('shared')(module) && platform.test(target))).toEqual([])
  })

  test('no module imports a development dependency at run time', () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    const allowed = (name: string) =>
      name.startsWith('node:') ||
      name === 'aws-lambda' ||
      Object.keys(dependencies).some((known) => name === known || name.startsWith(`${known}/`))
    const shipped = (module: string) => within('shared')(module) || within('lambdas')(module)
    expect(broken(({ module, target, local }) => shipped(module) && !local && !allowed(target))).toEqual([])
  })

  test('there is no cycle, but for types', () => {
    const arrows = Map.groupBy(
      imports.filter(({ local, typeOnly }) => local && !typeOnly),
      ({ module }) => module,
    )
    const done = new Set<string>()
    const cycles: string[] = []
    const walk = (module: string, trail: string[]): void => {
      if (trail.includes(module)) cycles.push([...trail.slice(trail.indexOf(module)), module].join(' > '))
      if (done.has(module) || trail.includes(module)) return
      for (const { target } of arrows.get(module) ?? []) walk(target, [...trail, module])
      done.add(module)
    }
    for (const module of modules) walk(module, [])
    expect(cycles).toEqual([])
  })
})

describe('each outside thing has one importing module', () => {
  const product = (module: string) => within('lambdas')(module) || within('shared')(module)

  test.each(owners)('%s', (_, pattern, ...allowed) => {
    expect(
      broken(({ module, target }) => product(module) && !allowed.includes(module) && pattern.test(target)),
    ).toEqual([])
  })

  test.each(textOwners)('%s', (_, pattern, owner) => {
    const users = modules.filter((module) => product(module) && pattern.test(withoutComments(text.get(module) ?? '')))
    expect(users.filter((module) => module !== owner)).toEqual([])
  })

  test('and each owner exists', () => {
    const missing = [...owners, ...textOwners].flatMap(([, , ...names]) => names).filter((owner) => !text.has(owner))
    expect([...new Set(missing)]).toEqual([])
  })
})

describe('the shape of modules', () => {
  test('no file is longer than one can hold in mind', () => {
    const lines = (module: string) => (text.get(module) ?? '').split('\n').length - 1
    const most = (module: string) => (module.endsWith('.test.ts') ? longestLines.test : longestLines.product)
    const long = modules.filter((module) => lines(module) > most(module))
    expect(long.map((module) => `${module}: ${lines(module)} lines`)).toEqual([])
  })

  test('there are no barrels and no files for things without a place', () => {
    expect(modules.filter((module) => /(^|\/)(index|utils?|helpers?|common|misc)\.ts$/.test(module))).toEqual([])
    const reExports = modules.filter((module) =>
      /^export\s+(type\s+)?(\*|\{[^}]*\})\s+from\b/m.test(text.get(module) ?? ''),
    )
    expect(reExports).toEqual([])
  })

  test('nothing is taken from Node.js without its prefix', () => {
    const bare =
      /^(assert|buffer|child_process|crypto|events|fs|http|https|net|os|path|process|stream|url|util|zlib)(\/|$)/
    expect(broken(({ target, local }) => !local && bare.test(target))).toEqual([])
  })
})
