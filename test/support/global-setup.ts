import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  interface ProvidedContext {
    /** Where stages are synthesized. */
    synthesizer: string
  }
}

/** Every test file can synthesize stages at one warm process, which ends with the run and takes its folders along. */
export default async ({ provide }: TestProject) => {
  const folder = await mkdtemp(join(tmpdir(), 'assemblies-'))
  const synthesizer = fork(join(import.meta.dirname, 'synthesizer.ts'), [folder], { stdio: 'inherit' })
  const [port] = await once(synthesizer, 'message')
  provide('synthesizer', `http://127.0.0.1:${port}`)
  return async () => {
    if (synthesizer.connected) {
      const ended = once(synthesizer, 'exit')
      synthesizer.disconnect()
      await ended
    }
    await rm(folder, { recursive: true, force: true })
  }
}
