import { dropConnection, loseReply, type Gate } from '../../infra/local/aws-call.ts'
import type { When } from '../renewal/crash-points.ts'
import { openRotations } from '../support/rotation.ts'
import type { Fault } from '../support/server.ts'
import type { StrictOptions } from '../support/strict-options.ts'
import { startStrictStack } from '../support/stacks.ts'

const MANAGEMENT: Record<string, string> = { PUT: 'updates the client', DELETE: 'deletes a client' }

/** A kill at one exchange of a rotation with the outside; the first is 0. */
export type Kill = { index: number; when: When }

/**
 * A stack whose credentials rotate in that mode, for more sessions than a person may have, and whose rotation can be killed at any exchange
 * with the outside. Its first deploy is over.
 */
export const startRotatingStack = async ({
  mode,
  strict,
  retryDelaysMs,
  maxInstances,
}: {
  mode: 'successor' | 'in-place' | 'keys'
  strict?: StrictOptions
  /** When AWS repeats a rotation that failed; the emulator's own times unless told. */
  retryDelaysMs?: readonly number[]
  maxInstances?: number
}) => {
  let exchanges: string[] = []
  let armed: Kill | undefined
  let kills = 0
  let kill = (): void => {}

  /** What is to happen at this exchange. */
  const meet = (name: string): When | undefined => {
    exchanges.push(name)
    if (exchanges.length - 1 !== armed?.index) return undefined
    const { when } = armed
    armed = undefined
    kills += 1
    kill()
    return when
  }
  const gate: Gate = (call) => {
    if (!call.accessKeyId.includes('ROTATE')) return undefined
    const when = meet(call.action.replace('secretsmanager:', ''))
    if (when === 'before') throw dropConnection
    if (when === 'after') throw loseReply
    return undefined
  }
  const fault =
    (nameOf: (method: string) => string): Fault =>
    async (proceed, { method }) => {
      const when = meet(nameOf(method))
      if (when === undefined) return await proceed()
      if (when === 'after') await proceed()
      return { status: 0, send: (response) => void response.destroy() }
    }

  const stack = await startStrictStack({
    gate,
    ...(strict !== undefined && { strict }),
    ...(maxInstances !== undefined && { maxInstances }),
    ...(retryDelaysMs !== undefined && { rotationRetryDelaysMs: retryDelaysMs }),
    stage: (stage) => ({
      ...stage,
      providers: { demo: { ...stage.providers['demo'], rotation: { mode } } },
      session: { max_parallel: 1_000 },
    }),
  })
  kill = () => stack.stack.function('Rotate').kill()
  const rotations = openRotations(stack)
  await stack.stack.rotationIsIdle()
  const { authorizationServer } = stack
  authorizationServer.always(
    'register',
    fault(() => 'registers a client'),
  )
  authorizationServer.always(
    'client',
    fault((method) => MANAGEMENT[method] ?? 'reads the client'),
  )

  return {
    ...stack,
    rotations,
    /** The exchanges of the last rotation, by name: calls of AWS, and what `rotate` says of the authorization server. */
    exchanges: (): readonly string[] => exchanges,
    /** How many of the kills that were asked for have happened. */
    kills: () => kills,
    /**
     * A rotation, killed as told; resolves with its token when it is done or given up. Where nobody else calls the token endpoint
     * meanwhile (`isAlone`), what the rotation asks there is an exchange too.
     */
    rotate: async ({ dies, isAlone = false }: { dies?: Kill | undefined; isAlone?: boolean } = {}): Promise<string> => {
      exchanges = []
      armed = dies
      if (isAlone)
        authorizationServer.always(
          'token',
          fault(() => 'tries the client'),
        )
      const token = await rotations.rotate()
      if (isAlone) authorizationServer.always('token', undefined)
      return token
    },
    close: async (): Promise<void> => {
      rotations.close()
      await stack.close()
    },
  }
}
