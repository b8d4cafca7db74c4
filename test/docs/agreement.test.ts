import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readAssembly } from '../../infra/local/template.ts'
import { configurationDocument, schemaFile } from '../../infra/print-configuration.ts'
import { checkStage } from '../../infra/stage-file.ts'
import { reasons } from '../../shared/errors.ts'
import { synthesizeStage } from '../support/stacks.ts'
import { codesOf, operations } from './contract.ts'
import {
  anchorOf,
  codeBlocks,
  codeIn,
  documents,
  headings,
  linkTargets,
  root,
  section,
  table,
  textOf,
} from './documents.ts'

const httpApi = textOf('docs/http-api.md')
/** The first synthesis of a run loads the CDK. */
const seconds = (count: number) => ({ timeout: count * 1_000 })
const code = (cell = ''): string => codeIn(cell)[0] ?? cell

describe('every document', () => {
  test.each(documents)('%s links to what exists', (path) => {
    const broken = linkTargets(textOf(path)).filter((target) => {
      if (/^[a-z]+:/.test(target)) return false
      const [file = '', anchor] = target.split('#')
      const linked = file === '' ? path : normalize(join(dirname(path), file))
      if (!existsSync(join(root, linked))) return true
      return anchor !== undefined && !headings(textOf(linked)).map(anchorOf).includes(anchor)
    })
    expect(broken).toEqual([])
  })

  test.each(documents)('%s names only files that exist', (path) => {
    const named = codeIn(textOf(path)).filter((text) => /^(lambdas|shared|infra|test|docs)\/[\w./-]*$/.test(text))
    expect(named.filter((file) => !existsSync(join(root, file)) && file !== 'infra/stages/prod.json')).toEqual([])
  })

  test.each(documents)('%s has JSON that is JSON', (path) => {
    for (const block of codeBlocks(textOf(path), 'json')) expect(() => void JSON.parse(block)).not.toThrow()
  })
})

describe('the configuration', () => {
  const written = 'as written by npx node infra/print-configuration.ts'

  test(`docs/configuration.md says what the schema says, ${written}`, () => {
    expect(textOf('docs/configuration.md')).toBe(configurationDocument())
  })

  test(`infra/stages/stage.schema.json is the schema, ${written}`, () => {
    expect(textOf('infra/stages/stage.schema.json')).toBe(schemaFile())
  })

  test.each(['README.md', 'docs/configuration.md'])(
    'the stage file in %s can be deployed',
    seconds(60),
    async (path) => {
      const [stage = ''] = codeBlocks(textOf(path), 'json')
      const content: unknown = JSON.parse(stage)
      expect(checkStage(path, content).origin).toBe('https://app.example.com')
      expect(existsSync(join(await synthesizeStage(content), 'manifest.json'))).toBe(true)
    },
  )
})

describe('the HTTP contract', () => {
  const contract = operations()

  test(
    'the endpoints of README, http-api.md and openapi.json are the routes of the template',
    seconds(60),
    async () => {
      const stage: unknown = JSON.parse(textOf('infra/stages/local.json'))
      const { resources } = readAssembly(await synthesizeStage(stage))
      const routes = resources.flatMap(({ type, properties }) =>
        type === 'AWS::ApiGatewayV2::Route' ? [String(properties['RouteKey']).replace('ANY ', '')] : [],
      )
      const pathsIn = (names: string[]): string[] =>
        [...new Set(names.map((name) => name.replace(/^\w+ /, '').split('?')[0] ?? ''))].toSorted()
      const readme = table(section(textOf('README.md'), 'The endpoints')).flatMap(([cell = '']) => codeIn(cell))
      const chapters = headings(section(httpApi, 'Endpoints'), 3).flatMap(codeIn)
      const withoutPlus = routes.map((route) => route.replace('+}', '}')).toSorted()
      expect(pathsIn(readme)).toEqual(routes.toSorted())
      expect(pathsIn(chapters.filter((name) => name.includes('/')))).toEqual(withoutPlus)
      expect(pathsIn([...contract.keys()])).toEqual(withoutPlus)
    },
  )

  const rows = Object.entries(reasons)

  test('openapi.json has every status and code of the table of reasons, and no other', () => {
    const documented = new Set([...contract.values()].flatMap(codesOf).map(([status, name]) => `${status} ${name}`))
    expect([...documented].toSorted()).toEqual(
      [...new Set(rows.map(([, row]) => `${row.status} ${row.code}`))].toSorted(),
    )
  })

  test('http-api.md lists them with their sentences', () => {
    const documented = table(section(httpApi, 'Failures')).map(([status, name, sentence]) => [
      status,
      code(name),
      sentence,
    ])
    const sentences = new Map(rows.map(([, row]) => [`${row.status} ${row.code}`, new Set<string>()]))
    for (const [, row] of rows) sentences.get(`${row.status} ${row.code}`)?.add(row.sentence)
    expect(documented.map(([status, name]) => `${status} ${name}`).toSorted()).toEqual([...sentences.keys()].toSorted())
    for (const [status, name, sentence] of documented) {
      expect([...(sentences.get(`${status} ${name}`) ?? [])]).toContain(sentence)
    }
  })

  test('http-api.md and openapi.json name the same failures for each endpoint', () => {
    for (const [name, operation] of contract) {
      const chapter = name.replace(/^\w+ \/api/, 'ANY /api')
      const [, listed = ''] = /\nFailures: ([^]*?)(?=\n\n|$)/.exec(section(httpApi, `\`${chapter}\``)) ?? []
      const codes = [...new Set(codesOf(operation).map(([, found]) => found))]
      expect([name, ...codeIn(listed).toSorted()]).toEqual([name, ...codes.toSorted()])
    }
  })

  test('operations.md says of each reason what the table says', () => {
    const documented = table(section(textOf('docs/operations.md'), 'Reasons in the log'))
    const told = documented.map(([reason, level, answer]) => `${code(reason)} ${level} ${answer?.replaceAll('`', '')}`)
    const known = rows.map(([reason, row]) => `${reason} ${row.level} ${row.status} ${row.code}`)
    expect(told.toSorted()).toEqual(known.toSorted())
  })
})

test('architecture.md tells the job of every module of lambdas and shared', () => {
  const told = new Set(linkTargets(textOf('docs/architecture.md')))
  const modules = globSync('{lambdas,shared}/*.ts', { cwd: root }).map((path) => `../${path.replaceAll('\\', '/')}`)
  expect(modules.filter((path) => !told.has(path))).toEqual([])
})

test('README can be read in one sitting', () => {
  expect(textOf('README.md').split('\n').length - 1).toBeLessThanOrEqual(150)
})

test('decisions.md says of each dependency why it is there', () => {
  const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  )
  const documented = table(section(textOf('docs/decisions.md'), 'Dependencies')).flatMap(([cell = '']) => codeIn(cell))
  const installed = Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies })
  expect(documented.toSorted()).toEqual(installed.toSorted())
})

describe('requirements.md', () => {
  const text = textOf('docs/requirements.md')
  const numbers = (letter: string, count: number) =>
    Array.from({ length: count }, (_, index) => `${letter}${index + 1}`)
  const chapters: [heading: string, ids: string[]][] = [
    ['A. The OAuth client', numbers('A', 20)],
    ['B. The backend-for-frontend', numbers('B', 11)],
    ['C. Operating it', numbers('C', 9)],
  ]

  test.each(chapters)('%s: each requirement has a place, a test and a status', (heading, ids) => {
    const rows = table(section(text, heading))
    expect(rows.map(([id]) => id)).toEqual(ids)
    for (const [id, , , where = '', shown = '', status = ''] of rows) {
      expect([id, status]).toEqual([id, expect.stringMatching(/^(met$|partly: |not yet: )/)])
      const places = [...codeIn(where), ...codeIn(shown)]
      expect([id, places.filter((path) => !existsSync(join(root, path)))]).toEqual([id, []])
      expect([id, status !== 'met' || (codeIn(where).length > 0 && codeIn(shown).length > 0)]).toEqual([id, true])
    }
  })
})
