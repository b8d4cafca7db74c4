// A process of its own that keeps the CDK loaded and synthesizes one stage after another, for every test file of a run:
// POST a stage, get the folder of its cloud assembly.
import { once } from 'node:events'
import { mkdir, mkdtemp } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'

const [folder = ''] = process.argv.slice(2)

/** Loading the CDK takes seconds; it begins before anyone asks. */
const cdk = import('../../infra/synthesize.ts')
let queue: Promise<unknown> = cdk.catch(() => undefined)

const synthesized = async (stage: unknown): Promise<{ assembly: string }> => {
  const { synthesize } = await cdk
  await mkdir(folder, { recursive: true })
  return synthesize({ stage, outdir: await mkdtemp(join(folder, 'assembly-')) })
}

const server = createServer((request, response) => {
  const answer = async (): Promise<void> => {
    const stage = await json(request)
    const mine = queue.then(() => synthesized(stage))
    queue = mine.catch(() => undefined)
    const made = JSON.stringify(await mine)
    response.writeHead(200).end(made)
  }
  answer().catch((error: unknown) => {
    response.writeHead(500).end(error instanceof Error ? (error.stack ?? error.message) : String(error))
  })
})

server.listen(0, '127.0.0.1')
await once(server, 'listening')
const address = server.address()
process.send?.(typeof address === 'object' && address ? address.port : 0)
process.on('disconnect', () => process.exit())
