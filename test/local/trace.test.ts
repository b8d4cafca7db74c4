import { expect, test } from 'vitest'
import { createTrace, type BrowserObservation, type HttpObservation, type TraceEntry } from '../../infra/local/trace.ts'

const issuer = 'https://as.example'
const startedAtMs = Date.UTC(2026, 10, 21, 12)
const json = { 'content-type': 'application/json; charset=utf-8' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }

const outgoing = (observation: Partial<HttpObservation>): HttpObservation => ({
  functionName: 'callback',
  method: 'POST',
  url: `${issuer}/token`,
  requestHeaders: {},
  requestBody: '',
  status: 200,
  responseHeaders: json,
  responseBody: '{}',
  startedAtMs,
  durationMs: 12,
  ...observation,
})

const browser = (observation: Partial<BrowserObservation>): BrowserObservation => ({
  method: 'GET',
  path: '/bff/session',
  query: '',
  status: 200,
  startedAtMs,
  durationMs: 3,
  ...observation,
})

const metadata = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  jwks_uri: `${issuer}/keys`,
  userinfo_endpoint: `${issuer}/me`,
  revocation_endpoint: `${issuer}/revoke`,
  registration_endpoint: `${issuer}/register`,
  code_challenge_methods_supported: ['S256'],
  something_else: true,
}

const discovery = outgoing({
  functionName: 'register',
  method: 'GET',
  url: `${issuer}/.well-known/oauth-authorization-server`,
  responseBody: JSON.stringify(metadata),
})

const summary = ({ step, from, to, reference }: TraceEntry) => [step, from, to, reference]

test('a whole exchange reads as the steps of its RFCs', () => {
  const trace = createTrace()
  const registration = { client_id: 'client', registration_client_uri: `${issuer}/register/client` }
  trace.observeOutgoing(discovery)
  trace.observeOutgoing(
    outgoing({ url: `${issuer}/register`, status: 201, responseBody: JSON.stringify(registration) }),
  )
  trace.observeOutgoing(outgoing({ method: 'PUT', url: `${issuer}/register/client` }))
  trace.observeBrowser(
    browser({ path: '/bff/login', status: 302, location: `${issuer}/authorize?client_id=client&response_type=code` }),
  )
  trace.observeOutgoing(outgoing({ requestBody: 'grant_type=authorization_code&code=x', startedAtMs: startedAtMs + 5 }))
  trace.observeOutgoing(outgoing({ method: 'GET', url: `${issuer}/keys`, startedAtMs: startedAtMs + 6 }))
  trace.observeBrowser(browser({ path: '/bff/callback/demo', query: 'code=x', startedAtMs: startedAtMs + 4 }))
  trace.observeOutgoing(outgoing({ requestBody: 'grant_type=refresh_token', startedAtMs: startedAtMs + 10 }))
  trace.observeOutgoing(
    outgoing({ functionName: 'api', url: 'https://api.example/echo', startedAtMs: startedAtMs + 11 }),
  )
  trace.observeBrowser(browser({ path: '/api/demo/echo', startedAtMs: startedAtMs + 9, method: 'POST' }))
  trace.observeOutgoing(outgoing({ url: `${issuer}/revoke`, requestBody: 'token=x', startedAtMs: startedAtMs + 13 }))
  expect(trace.list().map(summary)).toEqual([
    ['discovery', 'coatcheck', 'authorization server', 'RFC 8414 section 3'],
    ['registration', 'coatcheck', 'authorization server', 'RFC 7591 section 3.1'],
    ['registration', 'coatcheck', 'authorization server', 'RFC 7592 section 2.2'],
    ['login', 'browser', 'coatcheck', 'RFC 6749 section 4.1'],
    ['authorize', 'browser', 'authorization server', 'RFC 6749 section 4.1.1'],
    ['callback', 'browser', 'coatcheck', 'RFC 6749 section 4.1.2'],
    ['token', 'coatcheck', 'authorization server', 'RFC 6749 section 4.1.3'],
    ['jwks', 'coatcheck', 'authorization server', 'RFC 7517 section 5'],
    ['api', 'browser', 'coatcheck', ''],
    ['refresh', 'coatcheck', 'authorization server', 'RFC 6749 section 6'],
    ['api', 'coatcheck', 'resource server', 'RFC 6750 section 2.1'],
    ['revocation', 'coatcheck', 'authorization server', 'RFC 7009 section 2.1'],
  ])
})

test('public values are shown, of others only that they are there', () => {
  const trace = createTrace()
  trace.observeOutgoing(
    outgoing({
      requestHeaders: { ...form, authorization: `Basic ${'b'.repeat(40)}`, 'user-agent': 'x' },
      requestBody:
        'grant_type=authorization_code&redirect_uri=https%3A%2F%2Fapp.example%2Fbff%2Fcallback%2Fdemo&code=abc',
      responseBody: JSON.stringify({ access_token: 'a'.repeat(43), token_type: 'Bearer', expires_in: 300 }),
    }),
  )
  expect(trace.list()).toEqual([
    {
      id: 1,
      at: '2026-11-21T12:00:00.000Z',
      step: 'token',
      title: 'Coatcheck redeems the code for tokens',
      reference: 'RFC 6749 section 4.1.3',
      from: 'coatcheck',
      to: 'authorization server',
      method: 'POST',
      url: `${issuer}/token`,
      request: {
        'content-type': 'application/x-www-form-urlencoded',
        authorization: 'Basic ••• (40 characters)',
        grant_type: 'authorization_code',
        redirect_uri: 'https://app.example/bff/callback/demo',
        code: '••• (3 characters)',
      },
      status: 200,
      response: {
        'content-type': 'application/json',
        access_token: '••• (43 characters)',
        token_type: 'Bearer',
        expires_in: '300',
      },
      duration_ms: 12,
    },
  ])
})

test('metadata is shown as far as it matters, and the rest is counted', () => {
  const trace = createTrace()
  trace.observeOutgoing(discovery)
  expect(trace.list()[0]?.response).toMatchObject({
    issuer,
    token_endpoint: `${issuer}/token`,
    code_challenge_methods_supported: 'S256',
    'other members': '1',
  })
})

test('an error that comes back is told with its code', () => {
  const trace = createTrace()
  trace.observeBrowser(browser({ path: '/bff/callback/demo', query: 'error=access_denied&error_description=No' }))
  trace.observeOutgoing(
    outgoing({ requestBody: 'grant_type=refresh_token', status: 400, responseBody: '{"error":"invalid_grant"}' }),
  )
  const { status: _status, ...unanswered } = outgoing({ error: 'connect ECONNREFUSED 127.0.0.1:1', responseBody: '' })
  trace.observeOutgoing(unanswered)
  const [callback, refresh, refused] = trace.list()
  expect(callback).toMatchObject({
    title: 'The browser comes back with an error',
    request: { error: 'access_denied', error_description: '••• (2 characters)' },
  })
  expect(refresh).toMatchObject({ status: 400, response: { error: 'invalid_grant' } })
  expect(refused).toMatchObject({ status: null, response: { failure: 'ECONNREFUSED' } })
})

test('listeners hear each entry until they leave; the oldest entries make room', () => {
  const trace = createTrace({ limit: 2, now: () => startedAtMs })
  const heard: number[] = []
  const leave = trace.subscribe(({ id }) => heard.push(id))
  trace.note('registration', 'The client is registered')
  trace.observeBrowser(browser({}))
  leave()
  trace.observeBrowser(browser({}))
  expect(heard).toEqual([1, 2])
  expect(trace.list().map(({ id }) => id)).toEqual([2, 3])
})

/** Every position of an exchange where something secret may be. */
const positions: Record<string, (secret: string) => (HttpObservation | BrowserObservation)[]> = {
  'token request parameters': (secret) =>
    ['code', 'code_verifier', 'refresh_token', 'client_secret', 'client_assertion', 'token', 'unknown'].map((name) =>
      outgoing({
        requestHeaders: form,
        requestBody: new URLSearchParams([
          ['grant_type', 'x'],
          [name, secret],
        ]).toString(),
      }),
    ),
  'a value that should be public but does not look it': (secret) =>
    ['grant_type', 'redirect_uri', 'scope', 'error', 'client_name', 'expires_in'].map((name) =>
      outgoing({ requestHeaders: form, requestBody: new URLSearchParams([[name, `{${secret}}`]]).toString() }),
    ),
  'token reply members': (secret) =>
    ['access_token', 'refresh_token', 'id_token', 'error_description', 'sub', 'unknown'].map((name) =>
      outgoing({ responseBody: JSON.stringify({ [name]: secret, list: [secret], nested: { deep: secret } }) }),
    ),
  'registration reply members': (secret) => [
    outgoing({
      url: `${issuer}/register`,
      responseBody: JSON.stringify({
        client_secret: secret,
        registration_access_token: secret,
        registration_client_uri: `${issuer}/register/${secret}?token=${secret}#${secret}`,
        redirect_uris: [`https://app.example/?x=${secret}`],
      }),
    }),
    outgoing({ method: 'GET', url: `${issuer}/register/${secret}?token=${secret}` }),
  ],
  'member names': (secret) => [
    outgoing({ responseBody: JSON.stringify({ [secret]: 1 }) }),
    outgoing({ requestBody: `${secret}=1` }),
    browser({ query: `${secret}=1` }),
  ],
  headers: (secret) => [
    outgoing({
      requestHeaders: { Authorization: `Bearer ${secret}`, cookie: `a=${secret}`, 'x-api-key': secret, [secret]: '1' },
      responseHeaders: {
        'set-cookie': `a=${secret}`,
        location: `${issuer}/${secret}?code=${secret}#access_token=${secret}`,
        'www-authenticate': `Bearer realm="${secret}", error_description="${secret}"`,
        'content-type': `application/json; x=${secret}`,
        'x-anything': secret,
      },
    }),
    outgoing({ requestHeaders: { authorization: secret } }),
  ],
  'bodies that are no JSON': (secret) => [outgoing({ requestBody: secret, responseBody: `<p>${secret}</p>` })],
  'bodies that are lists or truncated': (secret) => [
    outgoing({ requestBody: JSON.stringify([secret]), responseBody: `{"access_token":"${secret}` }),
  ],
  URLs: (secret) => [
    outgoing({ url: `https://user:${secret}@as.example/${secret}/me?access_token=${secret}#${secret}` }),
    browser({ path: `/api/demo/${secret}`, query: `q=${secret}` }),
    browser({ path: '/bff/callback/demo', query: `code=${secret}&state=${secret}&iss=${secret}` }),
  ],
  'the authorization request': (secret) => [
    browser({
      path: '/bff/login',
      query: `return_to=/${secret}?${secret}&login_hint=${secret}`,
      status: 302,
      location: `${issuer}/authorize?client_id=c&state=${secret}&nonce=${secret}&code_challenge=${secret}&login_hint=${secret}`,
    }),
  ],
  'API calls': (secret) => [
    outgoing({
      functionName: 'api',
      url: `https://api.example/orders/${secret}?q=${secret}`,
      requestHeaders: { ...json, authorization: `Bearer ${secret}` },
      requestBody: JSON.stringify({ scope: secret, client_name: secret }),
      responseBody: JSON.stringify({ scope: secret, error: secret }),
    }),
  ],
  failures: (secret) => [outgoing({ error: `could not send ${secret}` })],
}

test.each(Object.keys(positions))('no secret gets through in %s', (position) => {
  const secret = 'Zx9-canary_Q7.tB4kLm2VwPd8~sYhR3nJfEuA6'
  const trace = createTrace()
  for (const learned of [false, true]) {
    if (learned) trace.observeOutgoing(discovery)
    for (const observation of positions[position]?.(secret) ?? []) {
      if ('path' in observation) trace.observeBrowser(observation)
      else trace.observeOutgoing(observation)
    }
  }
  const shown = JSON.stringify(trace.list())
  const disguises = [
    secret.slice(0, 16),
    encodeURIComponent(secret).slice(0, 16),
    Buffer.from(secret).toString('base64').slice(0, 16),
    Buffer.from(secret).toString('base64url').slice(0, 16),
    Buffer.from(secret).toString('hex').slice(0, 16),
  ]
  for (const disguise of disguises) expect(shown).not.toContain(disguise)
  expect(trace.list().length).toBeGreaterThan(2)
})

test.each([
  ['renew', 'Coatcheck leaves the renewal of the tokens to its background function'],
  ['limit', 'Coatcheck lets its background function count the sessions of the account'],
  ['of another kind', 'Coatcheck makes a call'],
])('a task to %s is left to the background function, and is no message to the authorization server', (kind, title) => {
  const trace = createTrace()
  const url = 'http://127.0.0.1:4000/2015-03-31/functions/coatcheck-local-Background/invocations'
  trace.observeOutgoing(outgoing({ url, requestBody: JSON.stringify({ kind, account: 'a'.repeat(43) }), status: 202 }))
  expect(trace.list()).toEqual([
    expect.objectContaining({ title, from: 'coatcheck', to: 'coatcheck', method: '', url: '', request: {} }),
  ])
})

test('a logout token comes from the authorization server, not from the browser', () => {
  const trace = createTrace()
  trace.observeBrowser(browser({ method: 'POST', path: '/bff/backchannel-logout/demo' }))
  expect(trace.list().map(summary)).toEqual([
    ['logout', 'authorization server', 'coatcheck', 'OpenID Connect Back-Channel Logout 1.0 section 2.5'],
  ])
})
