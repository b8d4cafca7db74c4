import { createLocalJWKSet, errors, jwtVerify, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import { refuse } from './oauth-request.ts'

/** A client whose assertions are checked: by the key set that it published, at the address that it registered. */
type KeyClient = { client_id: string; jwks_uri?: unknown }

type KeySet = { kids: (string | undefined)[]; get: JWTVerifyGetKey }

const fetchKeySet = async (uri: string): Promise<KeySet> => {
  const reply = await fetch(uri, { redirect: 'error', signal: AbortSignal.timeout(5_000) })
  if (reply.status !== 200) throw new Error(`the key set is answered ${reply.status}`)
  const set: JSONWebKeySet = JSON.parse(await reply.text())
  if (set.keys.some((key) => 'd' in key)) throw new Error('the key set has a private key in it')
  return { kids: set.keys.map(({ kid }) => kid), get: createLocalJWKSet(set) }
}

/**
 * Authenticates clients by private_key_jwt, ES256 alone: the assertion is of the client, for this issuer, in time and new, and is signed
 * with a key of the set as the server fetched it. A key that the kept set does not have is refused: the set is fetched again when a test
 * ends its time, and not before.
 * @see RFC 7523 section 3; OpenID Connect Core 1.0 section 9
 */
export const createAssertions = ({ nowMs }: { nowMs: () => number }) => {
  const kept = new Map<string, Promise<KeySet>>()
  const fetched: KeySet['kids'][] = []
  const used = new Set<string>()

  const keySetOf = (uri: string): Promise<KeySet> => {
    const known = kept.get(uri)
    if (known !== undefined) return known
    const fresh = fetchKeySet(uri).then(
      (set) => {
        fetched.push(set.kids)
        return set
      },
      (error: unknown) => {
        kept.delete(uri)
        return refuse('invalid_client', `no key set: ${String(error)}`, 401)
      },
    )
    kept.set(uri, fresh)
    return fresh
  }

  return {
    /** The key ids of each fetched set, oldest first. */
    fetched: fetched as readonly KeySet['kids'][],
    /** The time of every kept set is over. */
    forget: (): void => kept.clear(),
    /** The assertion proves that its sender is the client. */
    check: async (assertion: string, client: KeyClient, issuer: string): Promise<void> => {
      const set = await keySetOf(String(client.jwks_uri))
      const claims = {
        algorithms: ['ES256'],
        issuer: client.client_id,
        subject: client.client_id,
        requiredClaims: ['iat', 'exp', 'jti'],
        currentDate: new Date(nowMs()),
      }
      const { payload } = await jwtVerify(assertion, set.get, claims).catch((error: unknown) => {
        const why = error instanceof errors.JOSEError ? error.code : String(error)
        return refuse('invalid_client', `the assertion is not right: ${why}`, 401)
      })
      const { aud, jti = '', exp = 0, iat = 0 } = payload
      if (aud !== issuer) refuse('invalid_client', 'the issuer is not its only audience', 401)
      if (exp - iat > 300) refuse('invalid_client', 'the assertion is good for too long', 401)
      const name = JSON.stringify([client.client_id, jti])
      if (used.has(name)) refuse('invalid_client', 'the assertion comes again', 401)
      used.add(name)
    },
  }
}
