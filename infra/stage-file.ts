import { readFileSync } from 'node:fs'
import path from 'node:path'
import * as z from 'zod/mini'
import { parseStage, stageSchema } from '../shared/config.ts'
import type { Stage } from '../shared/config.ts'

/** Stage files: found, read and checked, with messages that say what to change. */

z.config(z.locales.en())

const STAGES = path.join(import.meta.dirname, 'stages')

/** The stage cannot be used; the message is for the operator, line by line. */
export class StageFault extends Error {
  readonly faults: readonly string[]

  constructor(file: string, faults: readonly string[]) {
    super(
      [`The stage${file === '' ? '' : ` ${file}`} cannot be used:`, ...faults.map((fault) => `  - ${fault}`)].join(
        '\n',
      ),
    )
    this.name = 'StageFault'
    this.faults = faults
  }
}

/** The file of a stage: a name stands for `infra/stages/<name>.json`, anything ending in .json for itself. */
export const stagePath = (nameOrFile: string): string =>
  nameOrFile.endsWith('.json') ? path.resolve(nameOrFile) : path.join(STAGES, `${nameOrFile}.json`)

/** Settings that stand twice in one object of a JSON text, by path; `JSON.parse` keeps the last of them without a word. */
const repeated = (json: string): string[] => {
  const open: { keys: Set<string>; at: string }[] = []
  const found: string[] = []
  for (const [token, colon] of json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const inner = open.at(-1)
    if (token === '{' || token === '[') open.push({ keys: new Set(), at: '' })
    else if (token === '}' || token === ']') open.pop()
    else if (colon !== undefined && inner !== undefined) {
      inner.at = String(JSON.parse(token.slice(0, -colon.length)))
      if (inner.keys.has(inner.at)) found.push(open.map(({ at }) => at).join('.'))
      inner.keys.add(inner.at)
    }
  }
  return found
}

/** The JSON of a stage file, in which no setting stands twice. @throws StageFault where one does, SyntaxError */
export const parseStageText = (name: string, text: string): unknown => {
  const content: unknown = JSON.parse(text)
  const twice = repeated(text).map((setting) => `${setting}: stands twice`)
  if (twice.length > 0) throw new StageFault(name, twice)
  return content
}

/** The content of a stage file, not yet checked. @throws StageFault */
export const readStageFile = (nameOrFile: string): unknown => {
  const file = stagePath(nameOrFile)
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    throw new StageFault(nameOrFile, [
      `there is no readable file ${path.relative('', file)}; name it with -c stage=<name or file>`,
    ])
  }
  try {
    return parseStageText(nameOrFile, text)
  } catch (error) {
    if (error instanceof StageFault) throw error
    throw new StageFault(nameOrFile, [`it is not JSON: ${error instanceof Error ? error.message : 'unreadable'}`])
  }
}

/** The checked stage, with every default filled in. @throws StageFault */
export const checkStage = (name: string, content: unknown): Stage => {
  const result = parseStage(content)
  if (!result.ok) throw new StageFault(name, result.faults)
  return result.stage
}

/** The JSON schema of stage files, for editors and for `docs/configuration.md`. */
export const stageJsonSchema = (): object => ({
  ...z.toJSONSchema(stageSchema, { io: 'input' }),
  title: 'Coatcheck stage',
})
