import { createMayConnect, isPublic, PRIVATE_NETWORKS } from '../shared/addresses.ts'
import { coderVersion } from '../shared/coder-advice.ts'
import { createSend, HttpFault } from '../shared/http.ts'
import type { Certificate, Send } from '../shared/http.ts'

/** How the doctor calls servers: as functions do, also in private networks and on this machine, and it remembers what it saw. */

export interface Calls {
  send: Send
  /** Addresses that are not public, by the host that is there. */
  privateAddresses: ReadonlyMap<string, ReadonlySet<string>>
  /** The version of Coder that last answered. */
  coder(): string | undefined
  /** Why the last call found no server, in words; undefined where it did. */
  trouble(): string | undefined
}

const SLOW_MS = 1_000

/** What is shown, and to whom: the key never leaves, but who we are is told to nobody else. */
export interface Shown {
  certificate: Certificate
  origins: ReadonlySet<string>
}

const TROUBLES: readonly (readonly [code: RegExp, words: string])[] = [
  [
    /ALERT_(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|ACCESS_DENIED)/,
    'it wants a client certificate (certificate_secret; here --certificate)',
  ],
  [/ALERT_\w*(CERTIFICATE|UNKNOWN_CA)/, 'it does not take the client certificate'],
  [/^(ENOTFOUND|EAI_)/, 'nobody knows that name'],
  [/^ECONNREFUSED$/, 'nothing listens there'],
  [/^(EHOSTUNREACH|ENETUNREACH)$/, 'there is no way there from this machine'],
  [/^(ECONNRESET|EPIPE)$/, 'the connection was closed'],
  [/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/, 'its certificate is not one that functions trust'],
  [/^(EPROTO|ERR_SSL|ERR_TLS)/, 'it does not speak TLS as we do'],
]

/** Why a connection failed, as its first cause tells it. */
const wordsOf = (fault: HttpFault, isShown: boolean): string | undefined => {
  if (fault.kind === 'timeout') return 'it did not answer in time'
  if (fault.kind === 'broken') {
    // Some servers say no more than this.
    const perhaps = isShown ? ', perhaps for the client certificate' : ''
    return `the connection broke before the answer was there${perhaps}`
  }
  let { cause } = fault
  if (cause instanceof AggregateError) cause = cause.errors[0]
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
  const words = TROUBLES.find(([pattern]) => pattern.test(code))?.[1]
  return words === undefined ? undefined : `${words} (${code})`
}

/** Calls whose slow ones are told to `progress` while they last; a certificate is shown where it may be. */
export const createCalls = (
  progress: (line: string) => void,
  { slowMs = SLOW_MS, shown }: { slowMs?: number; shown?: Shown | undefined } = {},
): Calls => {
  const privateAddresses = new Map<string, Set<string>>()
  let host = ''
  let coder: string | undefined
  let trouble: string | undefined
  const judge = createMayConnect({ privateNetworks: PRIVATE_NETWORKS, local: true })
  const mayConnect = (address: string): boolean => {
    if (!isPublic(address)) privateAddresses.set(host, (privateAddresses.get(host) ?? new Set()).add(address))
    return judge(address)
  }
  const send = createSend({ keepAlive: false, mayConnect })
  return {
    async send(request) {
      host = request.url.hostname
      const certificate = shown?.origins.has(request.url.origin) === true ? shown.certificate : undefined
      trouble = undefined
      const timer = setTimeout(() => progress(`waiting for ${request.url.origin}${request.url.pathname}`), slowMs)
      try {
        const reply = await send({ ...request, certificate })
        coder = coderVersion(reply) ?? coder
        return reply
      } catch (error) {
        if (error instanceof HttpFault) trouble = wordsOf(error, certificate !== undefined)
        throw error
      } finally {
        clearTimeout(timer)
      }
    },
    privateAddresses,
    coder: () => coder,
    trouble: () => trouble,
  }
}
