import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The root of the repository. */
export const root = join(import.meta.dirname, '../..')

/** Every document that people read, by its path from the root. */
export const documents: readonly string[] = globSync(['*.md', 'docs/*.md'], { cwd: root }).map((path) =>
  path.replaceAll('\\', '/'),
)

/** The text of a file, by its path from the root. */
export const textOf = (path: string): string => readFileSync(join(root, path), 'utf8')

/** The code blocks of a language, in their order. */
export const codeBlocks = (text: string, language: string): string[] =>
  [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].flatMap(([, name, code = '']) => (name === language ? [code] : []))

const withoutCode = (text: string): string => text.replace(/^```[\s\S]*?^```$/gm, '')

/** The part under a heading, up to the next one of its rank or a higher one. */
export const section = (text: string, heading: string): string => {
  const lines = text.split('\n')
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '') === heading)
  if (start === -1) throw new Error(`there is no heading ${heading}`)
  const rank = /^#+/.exec(lines[start] ?? '')?.[0].length ?? 0
  const rest = lines.slice(start + 1)
  const end = rest.findIndex((line) => /^#+ /.test(line) && (/^#+/.exec(line)?.[0].length ?? 0) <= rank)
  return rest.slice(0, end === -1 ? undefined : end).join('\n')
}

/** The headings of a rank. */
export const headings = (text: string, rank = 0): string[] =>
  withoutCode(text)
    .split('\n')
    .flatMap((line) => {
      const [, marks = '', title = ''] = /^(#+) (.*)$/.exec(line) ?? []
      return marks !== '' && (rank === 0 || marks.length === rank) ? [title] : []
    })

/** The cells of the first table in a text, row by row, without its head. */
export const table = (text: string): string[][] => {
  const lines = text.split('\n')
  const start = lines.findIndex((line) => /^\|(?:\s*:?-+:?\s*\|)+$/.test(line))
  const rows = lines.slice(start + 1)
  const end = rows.findIndex((line) => !line.startsWith('|'))
  return rows.slice(0, end === -1 ? undefined : end).map((line) =>
    line
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim()),
  )
}

/** What stands in backticks. */
export const codeIn = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)

/** Targets of links and pictures, outside code. */
export const linkTargets = (text: string): string[] =>
  [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)

/** The anchor that a heading gets where Markdown is shown as a page. */
export const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{Letter}\p{Number} _-]/gu, '')
    .replaceAll(' ', '-')
