import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

const file = join(import.meta.dirname, '../../infra/doctor.ts')

/** Starts `npm run doctor` as an operator does; `said` resolves when it has ended. */
export const startDoctor = (args: readonly string[]) => {
  const child = spawn(process.execPath, [file, ...args])
  const said = async () => {
    const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
    return { code, stdout, stderr }
  }
  return { child, said: said() }
}

/** Runs it to its end, with this on its standard input. */
export const doctor = (args: readonly string[], input = '') => {
  const { child, said } = startDoctor(args)
  child.stdin.end(input)
  return said
}
