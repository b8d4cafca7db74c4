import { writeFileSync } from 'node:fs'
import type { Reporter } from 'vitest/node'

/** How many tests ended how; a file that does not load and an error outside any test each count as one failure. */
export type Counts = { passed: number; failed: number; skipped: number }

/** The environment variable that names the file to which the counts go. */
export const countsFile = 'TEST_COUNTS_FILE'

/** A Vitest reporter that leaves the counts of a run, as JSON, where `test/run.ts` asked for them. */
export default class CountsReporter implements Reporter {
  onTestRunEnd: NonNullable<Reporter['onTestRunEnd']> = (files, errors) => {
    const target = process.env[countsFile]
    if (target === undefined) return
    const counts: Counts = { passed: 0, failed: errors.length, skipped: 0 }
    for (const file of files) {
      counts.failed += file.errors().length
      for (const suite of file.children.allSuites()) counts.failed += suite.errors().length
      for (const test of file.children.allTests()) {
        const { state } = test.result()
        counts[state === 'pending' ? 'skipped' : state] += 1
      }
    }
    writeFileSync(target, JSON.stringify(counts))
  }
}
