import type { Stage } from './config.ts'

/** Which origins the servers of a provider are on, and which client certificate each of them is to see. */

/** Origins of a provider's authorization server and of the resource servers that are called with its tokens. */
const originsOf = (stage: Pick<Stage, 'providers' | 'apis'>, name: string): Set<string> => {
  const { issuer = '', endpoint_origins: others = [] } = stage.providers[name] ?? {}
  const targets = Object.values(stage.apis).filter(({ provider }) => provider === name)
  return new Set([new URL(issuer).origin, ...others, ...targets.map(({ target }) => new URL(target).origin)])
}

/** The secret with the client certificate for each origin that is to see one. */
export const certificateSecrets = (stage: Pick<Stage, 'providers' | 'apis'>): ReadonlyMap<string, string> =>
  new Map(
    Object.entries(stage.providers).flatMap(([name, { certificate_secret: secret }]) =>
      secret === undefined ? [] : [...originsOf(stage, name)].map((origin) => [origin, secret] as const),
    ),
  )

/** What is wrong with the certificates of a stage: each origin sees one or none, over TLS. */
export const certificateFaults = (
  stage: Pick<Stage, 'providers' | 'apis'>,
): { path: (string | number)[]; message: string }[] =>
  Object.entries(stage.providers).flatMap(([name, { certificate_secret: secret }]) => {
    if (secret === undefined) return []
    const path = ['providers', name, 'certificate_secret']
    const own = originsOf(stage, name)
    const plain = [...own].find((origin) => origin.startsWith('http:'))
    if (plain !== undefined) return [{ path, message: `needs https: ${plain} can be shown no certificate` }]
    for (const [other, { certificate_secret: theirs }] of Object.entries(stage.providers)) {
      const shared = [...originsOf(stage, other)].find((origin) => own.has(origin))
      if (shared !== undefined && theirs !== secret) {
        return [{ path, message: `must be that of ${other} too, which has servers on ${shared} as well` }]
      }
    }
    return []
  })
