/** What the messages of the exchange are called: which step they are, what happens, and where it is specified. */

/** A step of the exchange, as the page colours and filters it. */
export type Step =
  | 'discovery'
  | 'registration'
  | 'login'
  | 'authorize'
  | 'callback'
  | 'token'
  | 'refresh'
  | 'userinfo'
  | 'jwks'
  | 'revocation'
  | 'session'
  | 'logout'
  | 'api'
  | 'other'

/** What a message is: its step, a sentence for people, and where it is specified; empty for our own. */
export interface Meaning {
  step: Step
  title: string
  reference: string
}

/** A meaning from its parts. */
export const meaning = (step: Step, title: string, reference = ''): Meaning => ({ step, title, reference })

/** Of calls by the metadata member that names their endpoint. */
export const endpointMeanings: Readonly<Record<string, Meaning>> = {
  jwks_uri: meaning('jwks', 'Coatcheck fetches the keys of the authorization server', 'RFC 7517 section 5'),
  pushed_authorization_request_endpoint: meaning(
    'authorize',
    'Coatcheck pushes the authorization request',
    'RFC 9126 section 2.1',
  ),
  revocation_endpoint: meaning('revocation', 'Coatcheck revokes a token', 'RFC 7009 section 2.1'),
  userinfo_endpoint: meaning(
    'userinfo',
    'Coatcheck asks for claims about the user',
    'OpenID Connect Core 1.0 section 5.3',
  ),
}

/** Of calls of the registration endpoints, by method. */
export const registrationMeanings: Readonly<Record<string, Meaning>> = {
  POST: meaning('registration', 'Coatcheck registers itself as a client', 'RFC 7591 section 3.1'),
  GET: meaning('registration', 'Coatcheck reads its registration', 'RFC 7592 section 2.1'),
  PUT: meaning('registration', 'Coatcheck updates its registration', 'RFC 7592 section 2.2'),
  DELETE: meaning('registration', 'Coatcheck deletes its registration', 'RFC 7592 section 2.3'),
}

/** Of token requests, by `grant_type`. */
export const grantMeanings: Readonly<Record<string, Meaning>> = {
  authorization_code: meaning('token', 'Coatcheck redeems the code for tokens', 'RFC 6749 section 4.1.3'),
  refresh_token: meaning('refresh', 'Coatcheck refreshes the tokens', 'RFC 6749 section 6'),
  'urn:ietf:params:oauth:grant-type:token-exchange': meaning(
    'token',
    'Coatcheck exchanges a token for one of another audience',
    'RFC 8693 section 2.1',
  ),
}

/** Of the other calls that functions make. */
export const callMeanings = {
  discovery: meaning('discovery', 'Coatcheck reads the metadata of the authorization server', 'RFC 8414 section 3'),
  token: meaning('token', 'Coatcheck asks for a token', 'RFC 6749 section 3.2'),
  api: meaning('api', "Coatcheck calls the resource server with the user's token", 'RFC 6750 section 2.1'),
  other: meaning('other', 'Coatcheck makes a call'),
} as const

/** What a function leaves to the background function, by the kind of task. */
export const taskTitles: Readonly<Record<string, string>> = {
  renew: 'Coatcheck leaves the renewal of the tokens to its background function',
  revoke: 'Coatcheck leaves tokens to its background function, which revokes them later',
  release: 'Coatcheck leaves the rest of a sign-out to its background function',
  limit: 'Coatcheck lets its background function count the sessions of the account',
}

/** Where the browser goes by itself after a login has started. */
export const authorize = meaning(
  'authorize',
  'The browser carries the authorization request over',
  'RFC 6749 section 4.1.1',
)

const requests: readonly [request: RegExp, meaning: Meaning, from?: 'authorization server'][] = [
  [/^\S+ \/bff\/login$/, meaning('login', 'The browser starts a login', 'RFC 6749 section 4.1')],
  [/^\S+ \/bff\/api-token\//, meaning('login', 'The browser brings an API token')],
  [/^\S+ \/bff\/callback\//, meaning('callback', 'The browser comes back with the answer', 'RFC 6749 section 4.1.2')],
  [/^\S+ \/bff\/session$/, meaning('session', 'The browser asks who is signed in')],
  [/^\S+ \/bff\/refresh$/, meaning('session', 'The browser keeps its session alive')],
  [/^\S+ \/bff\/sessions/, meaning('session', 'The browser looks after its sessions')],
  [/^POST \/bff\/logout$/, meaning('logout', 'The browser signs out')],
  [/^GET \/bff\/logout$/, meaning('logout', 'The browser asks to sign out, or is back from it')],
  [
    /^POST \/bff\/backchannel-logout\//,
    meaning(
      'logout',
      'The authorization server says that somebody signed out',
      'OpenID Connect Back-Channel Logout 1.0 section 2.5',
    ),
    'authorization server',
  ],
  [/^\S+ \/bff\/jwks\.json$/, meaning('jwks', "Somebody fetches Coatcheck's public keys", 'RFC 7517 section 5')],
  [/^\S+ \/api\//, meaning('api', 'The browser calls an API with its session cookie')],
]

/** What a request to `/bff` or `/api` means, and who made it, as far as its path tells. */
export const requestMeaning = (
  method: string,
  path: string,
  query: string,
): Meaning & { from: 'browser' | 'authorization server' } => {
  const found = requests.find(([pattern]) => pattern.test(`${method} ${path}`))
  const [, said, from = 'browser'] = found ?? [undefined, meaning('other', 'The browser asks')]
  if (said.step !== 'callback' || !new URLSearchParams(query).has('error')) return { ...said, from }
  return { ...meaning('callback', 'The browser comes back with an error', 'RFC 6749 section 4.1.2.1'), from }
}
