import * as z from 'zod/mini'
import type { Stage } from './config.ts'
import { describe, plainUrl } from './config-values.ts'
import { tokenOfRoute } from './route-tokens.ts'

/** The settings by which a route has a token of its own, and what has to be true of them together. */

const TOKEN_TYPES = ['urn:ietf:params:oauth:token-type:access_token', 'urn:ietf:params:oauth:token-type:jwt'] as const

/** What the token of a user is exchanged for (RFC 8693 section 2.1). */
export const exchange = z.strictObject({
  audience: describe(
    z.optional(z.string().check(z.regex(/^[\x21-\x7e]{1,512}$/, 'must be one name: printable, no space'))),
    'Name of the resource server that the token is to be for, as the authorization server knows it.',
  ),
  resource: describe(z.optional(plainUrl), 'URL of the resource server that the token is to be for.'),
  scope: describe(
    z.optional(
      z
        .string()
        .check(
          z.regex(
            /^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/,
            'must be scopes with one space between two',
          ),
          z.maxLength(1_024),
        ),
    ),
    'Scopes of the token, with spaces between them.',
  ),
  requested_token_type: describe(
    z.optional(z.enum(TOKEN_TYPES)),
    'Kind of token to ask for. Left out: the server chooses.',
  ),
})

/** More tokens than that are not kept beside those of a grant. */
const MOST_TOKENS = 16

/** What is wrong with the tokens of the routes of a stage, each with what to write instead. */
export const routeFaults = (
  stage: Pick<Stage, 'apis' | 'providers'>,
): { path: (string | number)[]; message: string }[] => {
  const entries = Object.entries(stage.apis)
  const faults = entries.flatMap(([key, { resource, exchange: exchanged, provider }]) => {
    const fault = (setting: string, message: string) => [{ path: ['apis', key, setting], message }]
    if (exchanged !== undefined && resource !== undefined) {
      return fault('resource', 'must be left out beside exchange; what an exchanged token is for stands in exchange')
    }
    if (exchanged !== undefined && (exchanged.audience ?? exchanged.resource ?? exchanged.scope) === undefined) {
      return fault('exchange', 'must say what the token is for: audience, resource or scope')
    }
    if (resource !== undefined && stage.providers[provider]?.resource === undefined) {
      return fault('resource', `must not stand alone: provider ${provider} needs a resource for its other tokens`)
    }
    return []
  })
  const tokens = Map.groupBy(entries, ([, { provider }]) => provider)
  const many = [...tokens].flatMap(([provider, apis]) => {
    const names = new Set(apis.flatMap(([, api]) => tokenOfRoute(api)?.name ?? []))
    const message = `must not need more than ${MOST_TOKENS} different tokens of provider ${provider}`
    return names.size > MOST_TOKENS ? [{ path: ['apis'], message }] : []
  })
  return [...faults, ...many]
}
