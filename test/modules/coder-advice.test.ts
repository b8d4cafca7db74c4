import { afterEach, describe, expect, test } from 'vitest'
import { coderAdvice, coderVersion } from '../../shared/coder-advice.ts'
import { Failure } from '../../shared/errors.ts'
import { createSend } from '../../shared/http.ts'
import type { IncomingReply } from '../../shared/http.ts'
import { discover } from '../../shared/metadata.ts'
import { register } from '../../shared/registration.ts'
import { eras, type Era } from '../support/coder-era.ts'
import { startCoderServer, type CoderServer } from '../support/coder-server.ts'

const send = createSend({ keepAlive: false, mayConnect: () => true })
const wanted = {
  client_name: 'Coatcheck',
  redirect_uri: 'http://localhost:8080/bff/callback/main',
  post_logout_redirect_uri: 'http://localhost:8080/bff/logout',
  backchannel_logout_uri: 'http://localhost:8080/bff/backchannel-logout/main',
  jwks_uri: undefined,
  scopes: undefined,
  initial_access_token: undefined,
}

let server: CoderServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

/** What an operator reads who wants a client at a Coder of that era. */
const outcome = async (era: Era, change: (server: CoderServer) => void): Promise<string> => {
  server = await startCoderServer({ era })
  change(server)
  try {
    const metadata = await discover(send, server.issuer, [])
    return `registered ${(await register(send, metadata, wanted)).token_endpoint_auth_method}`
  } catch (error) {
    return error instanceof Failure ? `${error.reason}: ${error.detail}` : String(error)
  }
}

describe('a Coder', () => {
  test.each(eras)('of %s that is on registers', async (era) => {
    expect(await outcome(era, () => undefined)).toMatch(/^registered client_secret_(basic|post)$/)
  })

  test.each([
    [
      '2.31',
      /^registration_refused: .*status 403.*this is Coder 2\.31\.1, and its OAuth2 provider is off; add oauth2 to CODER_EXPERIMENTS$/,
    ],
    [
      '2.34',
      /^metadata_invalid: no authorization server metadata: .*answered 403.* web page.*this is Coder 2\.34\.1, and its OAuth2 provider is off; add oauth2 to CODER_EXPERIMENTS$/,
    ],
    [
      '2.37',
      /^metadata_invalid: .*this is Coder 2\.37\.1, and its OAuth2 provider is off; add oauth2 to CODER_EXPERIMENTS$/,
    ],
    [
      '2.38',
      /^metadata_invalid: .*answered 404.*this is Coder 2\.38\.1, and its OAuth2 provider is off; set CODER_OAUTH2_PROVIDER_ENABLE=true$/,
    ],
  ] as const)('of %s that is no authorization server says how it becomes one', async (era, words) => {
    expect(await outcome(era, ({ settings }) => void (settings.enabled = false))).toMatch(words)
  })

  test.each(['2.37', '2.38'] as const)('of %s that registers nobody is told from one that is off', async (era) => {
    const words = /^registration_refused: the server has no registration endpoint: dynamic client registration is off/
    expect(await outcome(era, ({ settings }) => void (settings.registration = false))).toMatch(words)
  })

  const reply = (
    status: number,
    body: object | string,
    version: string | undefined = 'v2.38.0+1a2b',
  ): IncomingReply => ({
    status,
    headers: [
      ['Content-Type', typeof body === 'string' ? 'text/html' : 'application/json'],
      ...(version === undefined ? [] : ([['X-Coder-Build-Version', version]] as [string, string][])),
    ],
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
  })

  test('whose registration was turned off meanwhile says who turns it on', () => {
    const refusal = { error: 'invalid_request', error_description: 'Dynamic client registration is disabled' }
    expect(coderAdvice(reply(403, refusal))).toBe(
      'this is Coder 2.38.0, and dynamic client registration is off; an owner turns it on with coder oauth2-provider dcr enable',
    )
  })

  test('that knows no OAuth yet answers with its page', () => {
    expect(coderAdvice(reply(200, '<html>', 'v2.10.0'))).toBe(
      'this is Coder 2.10.0, which has no OAuth2 provider yet; update it',
    )
  })

  test.each(['', 'v', 'latest', '<script>', 'v99999999.1.1'])('of the version %j is told both ways', (version) => {
    expect(coderVersion(reply(404, {}, version))).toBe('of an unknown version')
    expect(coderAdvice(reply(404, { message: 'Route not found.' }, version))).toMatch(
      /Coder of an unknown version.*CODER_OAUTH2_PROVIDER_ENABLE=true, or before 2\.38 add oauth2 to CODER_EXPERIMENTS$/,
    )
  })

  test('is not seen where there is none, nor blamed for other failures', () => {
    const { headers, ...rest } = reply(403, {})
    expect(coderAdvice({ ...rest, headers: headers.slice(0, 1) })).toBeUndefined()
    for (const status of [400, 401, 429, 500, 503]) expect(coderAdvice(reply(status, { error: 'x' }))).toBeUndefined()
  })
})
