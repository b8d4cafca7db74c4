// `npm start`: the whole product on this machine. Loads little before it can be stopped and has said something.
import { helpText, parseOptions } from './options.ts'
import type { Closing } from './run.ts'

const closing: Closing = []
let stopping = false

process.on('SIGINT', () => void stop())
process.on('SIGTERM', () => void stop())
try {
  const options = parseOptions(process.argv.slice(2), process.env)
  if (options.help) process.stdout.write(helpText)
  else {
    process.stdout.write('Starting Coatcheck; Ctrl-C stops it.\n')
    const { run } = await import('./run.ts')
    await run(options, closing)
  }
} catch (error) {
  // A Ctrl-C that ends a child process fails here first; its own handler has to get its turn.
  await new Promise((done) => setTimeout(done, 50))
  if (!stopping) {
    process.stderr.write(`${sentence(error)}\n`)
    await closeAll()
    process.exit(1)
  }
}

/** Everything has ended, and the process with it; the second time, at once. */
async function stop(): Promise<void> {
  if (stopping) process.exit(130)
  stopping = true
  await closeAll()
  process.stdout.write('stopped\n')
  process.exit(0)
}

async function closeAll(): Promise<void> {
  for (const close of closing.splice(0).toReversed()) await close()
}

function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && error.code === 'EADDRINUSE') return `${error.message} For example: PORT=9000 npm start`
  if ('code' in error && error.code === 'EACCES')
    return `This user may not listen there (${error.message}); choose a PORT above 1023.`
  return error.message
}
