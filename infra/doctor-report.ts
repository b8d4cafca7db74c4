import type { Level } from './doctor-findings.ts'
import type { Report, Verdict } from './doctor-examination.ts'

/** A report as people read it. */

const WIDTH = 100
const INDENT = 26

const marks: Record<Level, string> = { ok: 'ok', note: 'note', todo: 'TO DO', stop: 'STOP' }

const verdicts: Record<Verdict, string> = {
  usable: 'Coatcheck can use it as it is.',
  work: 'Coatcheck can use it once this is done:',
  unusable: 'Coatcheck cannot use it:',
}

/** Control characters of another server's do nothing to a terminal. */
const plain = (text: string): string => text.replace(/[^\x20-\x7e]/g, '?')

const wrapped = (text: string, width: number): string[] => {
  const lines: string[] = []
  let line = ''
  for (const word of plain(text).split(' ')) {
    if (line !== '' && line.length + word.length >= width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** Settings of the stage file, a line each. */
const settings = (stage: Record<string, unknown>): string[] =>
  Object.entries(stage).map(([name, value], index, { length }) => {
    const spaced = JSON.stringify(value, null, 1).replace(/\n\s*/g, ' ')
    return plain(`  "${name}": ${spaced}${index + 1 < length ? ',' : ''}`)
  })

/** The report in lines of at most 100 characters, where words allow it. */
export const textOf = (report: Report): string => {
  const rows = report.findings.flatMap(({ topic, level, says, advice }) => {
    const [first = '', ...more] = wrapped(says, WIDTH - INDENT)
    const advised = advice === undefined ? [] : wrapped(`-> ${advice}`, WIDTH - INDENT)
    const head = `  ${marks[level].padEnd(7)}${topic.padEnd(INDENT - 9)}${first}`
    return [head, ...[...more, ...advised].map((line) => ' '.repeat(INDENT) + line)]
  })
  const todo = report.findings.flatMap(({ topic, level }) => (level === 'todo' || level === 'stop' ? [topic] : []))
  const what = [report.issuer ?? report.asked, ...(report.product === null ? [] : [report.product])]
    .map(plain)
    .join(', ')
  const verdict = report.verdict === 'usable' ? verdicts.usable : `${verdicts[report.verdict]} ${todo.join(', ')}.`
  const stage = report.stage === null ? [] : ['', 'In the stage file:', ...settings(report.stage)]
  return [what, verdict, '', ...rows, ...stage, ''].join('\n')
}
