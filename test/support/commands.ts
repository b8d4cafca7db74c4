import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

/** What a command of an operator left behind. */
export type Ran = { code: number; stdout: string; stderr: string }

const root = join(import.meta.dirname, '../..')

/** A command of an operator runs, as `infra/<name>.ts`; `heard` is called with each piece that it says on stderr meanwhile. */
export const runCommand = async (
  name: string,
  args: readonly string[],
  { env = process.env, heard }: { env?: NodeJS.ProcessEnv; heard?: (piece: string) => void } = {},
): Promise<Ran> => {
  const child = spawn(process.execPath, [join(root, `infra/${name}.ts`), ...args], { env })
  child.stderr.on('data', (piece: Buffer) => heard?.(piece.toString()))
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code, stdout, stderr }
}
