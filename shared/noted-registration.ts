import type { RegistrationRequest } from './client-metadata.ts'
import type { Client } from './client.ts'
import { HttpFault } from './http.ts'
import type { Send } from './http.ts'
import type { Metadata } from './metadata.ts'
import { register } from './registration.ts'
import type { Rotation } from './rotation.ts'

/** Where attempts to register are noted: a note that stays names a client that may be at the server without being kept. */
export type Notes = Pick<Rotation, 'note' | 'settle'>

/**
 * A client is registered under a note that is written before. The note stays for the caller to settle once the client is kept or given
 * back; where it is certain that none was registered, it is gone.
 * @throws what `register` throws
 */
export const registerNoted = async (
  send: Send,
  metadata: Metadata,
  wanted: RegistrationRequest & { attempt: string },
  notes: Notes,
  now: () => number,
): Promise<Client> => {
  await notes.note(wanted.attempt)
  let isPossible = false
  const watched: Send = async (request) => {
    if (request.method === 'DELETE') {
      // What the server registered otherwise than asked is given back at once.
      const reply = await send(request)
      isPossible = reply.status !== 204
      return reply
    }
    try {
      isPossible = true
      const reply = await send(request)
      isPossible = reply.status < 400 || reply.status >= 500
      return reply
    } catch (error) {
      isPossible = !(error instanceof HttpFault && ['unreachable', 'address_refused'].includes(error.kind))
      throw error
    }
  }
  try {
    return await register(watched, metadata, wanted, now)
  } catch (error) {
    if (!isPossible) await notes.settle(wanted.attempt)
    throw error
  }
}
