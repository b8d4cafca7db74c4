import { publicJwk } from '../shared/client-keys.ts'
import type { Stage } from '../shared/config.ts'
import type { Credentials } from '../shared/credentials.ts'
import { Failure } from '../shared/errors.ts'
import { json } from '../shared/message.ts'
import { edge } from './edge.ts'
import type { Endpoint } from './edge.ts'
import { publishedCredentials, stage } from './runtime.ts'

/** How long others may keep the keys. A new one signs when this is over, and the minute that an instance of ours keeps them. */
const KEPT_SECONDS = 300

/** The public keys of our clients at all providers (RFC 7517 section 5), by which authorization servers check what we sign (RFC 7523). */
export const jwks =
  (deps: { stage: Stage; credentials: Pick<Credentials, 'of'> }): Endpoint =>
  async () => {
    const keysOf = async (provider: string) => {
      try {
        return ((await deps.credentials.of(provider)).keys ?? []).map(publicJwk)
      } catch (error) {
        // A provider without a client has no keys; one whose secret cannot be read does, and a part would pass for the whole.
        if (error instanceof Failure && error.reason === 'not_registered') return []
        throw error
      }
    }
    const keys = await Promise.all(Object.keys(deps.stage.providers).map(keysOf))
    return json(200, { keys: keys.flat() }, { cacheSeconds: KEPT_SECONDS })
  }

export const handler = edge('jwks', {
  GET: (request) => jwks({ stage: stage(), credentials: publishedCredentials() })(request),
})
