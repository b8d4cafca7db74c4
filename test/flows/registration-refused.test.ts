import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { StrictAuthorizationServer } from '../support/authorization-server.ts'
import { startDeploy } from '../support/custom-resource.ts'
import * as faults from '../support/faults.ts'
import type { Fault } from '../support/server.ts'
import { signIn } from '../support/sign-in.ts'
import { startStrictStack } from '../support/stacks.ts'

/** A registration that cannot be had, or not be believed, fails the deploy in words, and leaves nothing behind. */

let stack: Awaited<ReturnType<typeof startStrictStack>>
let deploy: Awaited<ReturnType<typeof startDeploy>>

beforeAll(async () => {
  deploy = await startDeploy()
  stack = await startStrictStack()
})

afterAll(async () => {
  await stack.close()
  await deploy.close()
})

const registrations = () => stack.authorizationServer.count('register')

type Options = NonNullable<Parameters<typeof startStrictStack>[0]>
const withInitialAccessToken: Options['stage'] = (stage) => ({
  ...stage,
  providers: { demo: { ...stage.providers['demo'], initial_access_token_secret: 'initial-access-token' } },
})

describe('a deploy that cannot register fails as a whole, in words', () => {
  test.each<[string, RegExp, Options]>([
    [
      'the metadata are a web page',
      /Registration-?demo.*no authorization server metadata: .* holds no JSON object \(content type: text\/html\)/,
      { before: (server) => server.always('metadata', faults.webPage()) },
    ],
    [
      'the metadata are of another issuer',
      /of another issuer/,
      { before: (server) => server.always('metadata', faults.changed({ issuer: 'https://evil.example' })) },
    ],
    [
      'S256 is missing',
      /does not announce PKCE with S256/,
      {
        before: (server) => server.always('metadata', faults.changed({ code_challenge_methods_supported: ['plain'] })),
      },
    ],
    [
      'registration is refused',
      /refused the registration: status 400, invalid_client_metadata: as the test wants it/,
      { before: (server) => server.plan('register', faults.refused('invalid_client_metadata')) },
    ],
    [
      'the server wants an initial access token',
      /refused the registration: status 401, invalid_token/,
      { strict: { initialAccessToken: 'right' } },
    ],
    [
      'the initial access token is wrong',
      /refused the registration: status 401, invalid_token/,
      {
        strict: { initialAccessToken: 'right' },
        stage: withInitialAccessToken,
        existingSecrets: { 'initial-access-token': 'wrong' },
      },
    ],
    [
      'the initial access token is nowhere',
      /initial-access-token/,
      { strict: { initialAccessToken: 'right' }, stage: withInitialAccessToken },
    ],
  ])('%s', async (_, words, options) => {
    let server: StrictAuthorizationServer | undefined
    const before = (started: StrictAuthorizationServer) => {
      server = started
      options.before?.(started)
    }
    await expect(startStrictStack({ ...options, before })).rejects.toThrow(words)
    expect(server?.clients()).toEqual([])
    expect(server?.count('register')).toBeLessThanOrEqual(1)
  })
})

describe('what makes a registration fail, and its words', () => {
  const json = { 'Content-Type': 'application/json' }
  const huge = faults.instead({ status: 200, headers: json, body: `{"a":"${'a'.repeat(300_000)}"}` })

  beforeEach(async () => {
    stack.authorizationServer.always('metadata', undefined)
    stack.authorizationServer.always('register', undefined)
    await stack.putSecretValue('Provider', 'no registration yet')
  })

  const expectFailed = async (words: RegExp): Promise<void> => {
    const answer = await deploy.run(stack, 'Create')
    expect([answer['Status'], answer['Reason']]).toEqual(['FAILED', expect.stringMatching(words)])
    expect(answer['Reason']).toMatch(/^[\x20-\x7e]{1,1000}$/)
    expect(await stack.secretValue('Provider')).toBe('no registration yet')
  }

  test.each<[string, Fault, RegExp]>([
    [
      '404',
      faults.webPage(404),
      /oauth-authorization-server answered 404; \/\.well-known\/openid-configuration answered 404/,
    ],
    ['a redirect', faults.moved('/elsewhere', 302), /answered 302/],
    ['500', faults.webPage(500), /answered 500/],
    ['nothing', faults.nothing, /holds no JSON object/],
    ['JSON cut short', faults.rewritten((text) => text.slice(0, -9)), /holds no JSON object/],
    ['a list', faults.rewritten((text) => `[${text}]`), /holds no JSON object/],
    [
      'JSON that is called a web page',
      faults.instead({ status: 200, headers: { 'Content-Type': 'text/html' }, body: '{}' }),
      /text\/html/,
    ],
    ['too much', huge, /over 262144 bytes/],
    ['half an answer', faults.truncated, /no answer from http:/],
    ['a broken connection', faults.reset, /no answer from http:/],
    ['nothing in time', faults.hung, /no answer from http:/],
    ['no issuer', faults.changed({ issuer: undefined }), /lack or misspell issuer/],
    [
      'an issuer with a slash more',
      faults.rewritten((text) => text.replace(/("issuer":"[^"]+)"/, '$1/"')),
      /of another issuer/,
    ],
    ['no token endpoint', faults.changed({ token_endpoint: undefined }), /lack or misspell token_endpoint/],
    [
      'a token endpoint elsewhere',
      faults.changed({ token_endpoint: 'http://127.0.0.1:1/token' }),
      /token_endpoint is on another origin, http:\/\/127\.0\.0\.1:1; list it in endpoint_origins/,
    ],
    ['keys elsewhere', faults.changed({ jwks_uri: 'http://169.254.169.254/keys' }), /jwks_uri is on another origin/],
    ['an endpoint that is none', faults.changed({ revocation_endpoint: 'none' }), /revocation_endpoint is not a URL/],
    [
      'an endpoint that is a script',
      faults.changed({ authorization_endpoint: 'javascript:alert(1)' }),
      /authorization_endpoint is not http/,
    ],
    ['no PKCE', faults.changed({ code_challenge_methods_supported: undefined }), /does not announce PKCE with S256/],
    ['no code flow', faults.changed({ response_types_supported: ['token'] }), /does not support response_type code/],
    [
      'no registration',
      faults.changed({ registration_endpoint: undefined }),
      /dynamic client registration is off or not supported/,
    ],
    [
      'no authentication that we know',
      faults.changed({ token_endpoint_auth_methods_supported: ['tls_client_auth'] }),
      /offers none of client_secret_basic/,
    ],
  ])('metadata: %s', async (_, fault, words) => {
    stack.authorizationServer.always('metadata', fault)
    const before = registrations()
    await expectFailed(words)
    expect(registrations()).toBe(before)
  })

  const uris = (...more: string[]) => ({ redirect_uris: [`${stack.origin}/bff/callback/demo`, ...more] })
  test.each<[string, Fault, RegExp]>([
    [
      'an error',
      faults.refused('invalid_redirect_uri', 400, 'no <b>http</b>\r\nhere\u202e'),
      /status 400, invalid_redirect_uri: no <b>http<\/b> {2}here/,
    ],
    ['a web page', faults.webPage(201), /is no JSON object \(content type: /],
    ['403 in a web page', faults.webPage(403), /status 403 without an OAuth error/],
    ['500', faults.webPage(500), /status 500/],
    ['202', faults.insteadJson(202, {}), /status 202/],
    ['an error with status 200', faults.insteadJson(200, { error: 'x' }), /lacks or misspells/],
    ['nothing', faults.nothing, /is no JSON object \(content type: /],
    ['too much', huge, /registration reply is too large/],
    ['a redirect', faults.moved('/elsewhere'), /status 307/],
    ['a broken connection', faults.reset, /no answer from http:/],
    ['half an answer', faults.truncated, /no answer from http:/],
    ['no client_id', faults.changed({ client_id: undefined }), /misspells client_id/],
    ['an empty client_id', faults.changed({ client_id: '' }), /misspells client_id/],
    ['a number for a client_id', faults.changed({ client_id: 7 }), /misspells client_id/],
    ['a header in the client_id', faults.changed({ client_id: 'a\r\nb' }), /misspells client_id/],
    ['a client_id of 10 KB', faults.changed({ client_id: 'c'.repeat(10_000) }), /misspells client_id/],
    ['no secret', faults.changed({ client_secret: undefined }), /issued no secret for client_secret_basic/],
    ['a secret beyond ASCII', faults.changed({ client_secret: 'sécret' }), /misspells client_secret/],
    [
      'words for an expiry',
      faults.changed({ client_secret_expires_at: 'never' }),
      /misspells client_secret_expires_at/,
    ],
    ['no redirect URIs', faults.changed({ redirect_uris: undefined }), /misspells redirect_uris/],
    [
      'another redirect URI',
      faults.changed({ redirect_uris: ['https://evil.example/'] }),
      /registered other redirect URIs/,
    ],
    [
      'one redirect URI more',
      (proceed, request) => faults.changed(uris('https://evil.example/'))(proceed, request),
      /registered other redirect URIs/,
    ],
    [
      'no code grant',
      faults.changed({ grant_types: ['refresh_token'] }),
      /did not register the authorization_code grant/,
    ],
    [
      'a method that nobody asked for',
      faults.changed({ token_endpoint_auth_method: 'tls_client_auth' }),
      /authentication method that was not asked for/,
    ],
    [
      'a management URI elsewhere',
      faults.changed({ registration_client_uri: 'https://evil.example/c' }),
      /management URI is not on the issuer/,
    ],
    [
      'a management token with a line break',
      faults.changed({ registration_access_token: 'a\nb' }),
      /misspells registration_access_token/,
    ],
  ])('the reply: %s', async (_, fault, words) => {
    stack.authorizationServer.always('register', fault)
    const before = registrations()
    await expectFailed(words)
    expect(registrations(), 'it is asked once').toBe(before + 1)
    expect(stack.authorizationServer.count('other'), 'redirects are not followed').toBe(0)
  })

  test('the next try after a failure registers', async () => {
    stack.authorizationServer.always('register', faults.refused('invalid_client_metadata'))
    await expectFailed(/invalid_client_metadata/)
    stack.authorizationServer.always('register', undefined)
    expect(await deploy.run(stack, 'Create')).toMatchObject({ Status: 'SUCCESS' })
    expect((await signIn(stack.newBrowser())).status).toBe(200)
  })
})
