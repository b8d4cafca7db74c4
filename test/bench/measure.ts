import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { transform } from 'esbuild'
import type { Cost, Order, Report } from './instance.ts'
import type { Subject } from './subjects.ts'

/** A fresh process for a subject. Both orders reject when an answer has not the subject's status. */
interface Instance {
  import: () => Promise<Cost>
  answer: (calls: number) => Promise<Cost>
  end: () => Promise<void>
}

/** One round: a sample of each subject, in their order. */
export type Round<T> = readonly T[]

/** What one answer cost a warm process. */
export interface WarmCall {
  cpuMs: number
  wallMs: number
  dynamoDbCalls: number
}

/** What the import of the bundle and the first answer cost a fresh process, and after which of them it had loaded undici. */
export interface ColdStart {
  cpuMs: number
  wallMs: number
  importCpuMs: number
  undici: 'at import' | 'at first answer' | 'no'
}

/** The median of the values; NaN of none. */
export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? NaN) + (sorted[Math.floor(middle)] ?? NaN)) / 2
}

/**
 * Measures subjects in processes of their own. Rounds take the subjects in alternating order, so that a machine that grows faster or
 * slower does so for all of them.
 * @param dynamoDbCalls counts the calls of DynamoDB so far, of whomever
 */
export const createMeasure = async (dynamoDbCalls: () => number) => {
  const folder = await mkdtemp(join(tmpdir(), 'coatcheck-bench-'))
  const script = join(folder, 'instance.mjs')
  const { code } = await transform(await readFile(join(import.meta.dirname, 'instance.ts'), 'utf8'), { loader: 'ts' })
  await writeFile(script, code)

  const start = (subject: Subject): Instance => {
    const child = fork(script, [], {
      env: subject.environment,
      execArgv: [],
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    let logged = ''
    child.stdout?.on('data', (chunk) => (logged += chunk))
    const order = async (what: Order): Promise<Cost> => {
      const answered = new AbortController()
      const gone = once(child, 'exit', { signal: answered.signal }).then(() => [{ error: 'the process has ended' }])
      child.send(what)
      const [report]: Report[] = await Promise.race([once(child, 'message', { signal: answered.signal }), gone])
      answered.abort()
      if (report === undefined || 'error' in report) throw new Error(`${subject.name}: ${report?.error}`)
      const wrong = report.statuses.find((status) => status !== subject.status)
      if (wrong !== undefined) throw new Error(`${subject.name} answers ${wrong}, not ${subject.status}\n${logged}`)
      return report
    }
    return {
      import: () => order({ do: 'import', file: pathToFileURL(subject.file).href }),
      answer: (calls) => order({ do: 'answer', event: JSON.stringify(subject.event), calls }),
      end: async () => {
        const ended = once(child, 'exit')
        child.disconnect()
        await ended
      },
    }
  }

  const inTurns = async <S, T>(subjects: readonly S[], rounds: number, run: (subject: S) => Promise<T>) => {
    const all: Round<T>[] = []
    for (let round = 0; round < rounds; round += 1) {
      const forwards = round % 2 === 0
      const results: T[] = []
      for (const subject of forwards ? subjects : subjects.toReversed()) results.push(await run(subject))
      all.push(forwards ? results : results.toReversed())
    }
    return all
  }

  return {
    /** Fresh processes: `runs` rounds. */
    coldStarts: (subjects: readonly Subject[], runs: number): Promise<Round<ColdStart>[]> =>
      inTurns(subjects, runs, async (subject) => {
        const instance = start(subject)
        const load = await instance.import()
        const answer = await instance.answer(1)
        await instance.end()
        return {
          cpuMs: load.cpuMs + answer.cpuMs,
          wallMs: load.wallMs + answer.wallMs,
          importCpuMs: load.cpuMs,
          undici: load.undici ? 'at import' : answer.undici ? 'at first answer' : 'no',
        }
      }),

    /** One process for each subject, which has answered `warmUp` times before, answers `calls` times a round: `rounds` rounds. */
    warmCalls: async (
      subjects: readonly Subject[],
      { rounds, calls, warmUp }: { rounds: number; calls: number; warmUp: number },
    ): Promise<Round<WarmCall>[]> => {
      const instances = subjects.map(start)
      for (const instance of instances) {
        await instance.import()
        await instance.answer(warmUp)
      }
      const all = await inTurns(instances, rounds, async (instance) => {
        const before = dynamoDbCalls()
        const { cpuMs, wallMs } = await instance.answer(calls)
        return {
          cpuMs: cpuMs / calls,
          wallMs: wallMs / calls,
          dynamoDbCalls: (dynamoDbCalls() - before) / calls,
        }
      })
      for (const instance of instances) await instance.end()
      return all
    },

    close: () => rm(folder, { recursive: true, force: true }),
  }
}
