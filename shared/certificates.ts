import { Failure } from './errors.ts'
import { HttpFault } from './http.ts'
import type { Certificate, Send } from './http.ts'
import { isCertificateOf } from './seal.ts'

/**
 * The client certificate (mutual TLS, RFC 8705) that the servers of a provider are shown: theirs, and nobody else's. It is read from a
 * secret when it is needed, and again when it is old or a server turned us away, so that a new one needs no deploy.
 */

const MAX_AGE_MS = 5 * 60_000

const CERTIFICATES = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,16384}-----END CERTIFICATE-----/g
const KEYS =
  /-----BEGIN (?:(?:RSA|EC) )?PRIVATE KEY-----[A-Za-z0-9+/=\s]{1,16384}-----END (?:(?:RSA|EC) )?PRIVATE KEY-----/g

/**
 * The certificate in a secret's value: PEM, our own certificate first, its chain behind it, and its private key anywhere.
 * @throws certificate_unusable, in words for the operator and without a character of the value
 */
export const parseCertificate = (secret: string, value: string | undefined): Certificate => {
  const refuse = (words: string): never => {
    throw new Failure('certificate_unusable', { detail: `the secret ${secret} ${words}` })
  }
  if (value === undefined || value.trim() === '') return refuse('with the client certificate has no value')
  if (value.includes('ENCRYPTED')) return refuse('must hold its private key without a pass phrase')
  const chain = value.match(CERTIFICATES) ?? []
  const [key, ...more] = value.match(KEYS) ?? []
  if (chain[0] === undefined) return refuse('must hold a certificate in PEM (-----BEGIN CERTIFICATE-----)')
  if (key === undefined || more.length > 0)
    return refuse('must hold one private key in PEM (-----BEGIN PRIVATE KEY-----)')
  if (!isCertificateOf(chain[0], key)) {
    return refuse('must hold first the certificate that its private key is for')
  }
  return { chain: chain.join('\n'), key }
}

/**
 * Calls by which each server is shown the certificate that is meant for it, within the time of the call.
 * @param secretOf name or ARN of the secret with the certificate for an origin, if it is to see one
 * @throws certificate_unusable, secrets_unavailable, HttpFault
 */
export const createCertifiedSend = ({
  send,
  secretOf,
  read,
  now,
}: {
  send: Send
  secretOf: (origin: string) => string | undefined
  read: (secret: string) => Promise<string | undefined>
  now: () => number
}): Send => {
  const cache = new Map<string, { readMs: number; certificate: Promise<Certificate> }>()

  const fresh = async (secret: string): Promise<Certificate> => {
    const entry = { readMs: now(), certificate: read(secret).then((value) => parseCertificate(secret, value)) }
    cache.set(secret, entry)
    try {
      return await entry.certificate
    } catch (error) {
      if (cache.get(secret) === entry) cache.delete(secret)
      throw error
    }
  }

  const certificateFor = async (secret: string): Promise<Certificate> => {
    const known = cache.get(secret)
    return known !== undefined && now() - known.readMs < MAX_AGE_MS ? await known.certificate : await fresh(secret)
  }

  return async (request) => {
    const secret = secretOf(request.url.origin)
    if (secret === undefined) return await send(request)
    const byMs = now() + request.timeoutMs
    // Reading takes of the call's own time: who holds a lease counts on it.
    const attempt = async (certificate: Certificate) => {
      const timeoutMs = byMs - now()
      if (timeoutMs <= 0) throw new HttpFault('unreachable')
      return await send({ ...request, certificate, timeoutMs })
    }
    const shown = await certificateFor(secret)
    try {
      return await attempt(shown)
    } catch (error) {
      if (!(error instanceof HttpFault) || error.cause === undefined) throw error
      if (error.kind !== 'unreachable' && error.kind !== 'broken') throw error
      const next = await fresh(secret)
      // A connection that only broke may have carried the request; the next call shows the new certificate.
      if (error.kind === 'broken' || (next.chain === shown.chain && next.key === shown.key)) throw error
      return await attempt(next)
    }
  }
}
