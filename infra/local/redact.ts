/**
 * What may be shown of an HTTP exchange. Everything is hidden unless this list says that it is public; a value that does
 * not look like what its name promises is hidden too.
 */
type Shape = 'code' | 'word' | 'words' | 'number' | 'boolean' | 'url' | 'text'

const publicMembers: Readonly<Record<string, Shape>> = {
  // RFC 6749, RFC 7636, RFC 8707, RFC 9207, OpenID Connect Core 1.0
  client_id: 'word',
  code_challenge_method: 'word',
  error: 'code',
  expires_in: 'number',
  grant_type: 'word',
  iss: 'url',
  prompt: 'words',
  redirect_uri: 'url',
  resource: 'url',
  response_mode: 'word',
  response_type: 'words',
  scope: 'words',
  token_type: 'word',
  token_type_hint: 'word',
  // RFC 7591, RFC 7592, OpenID Connect RP-Initiated Logout 1.0
  application_type: 'word',
  backchannel_logout_session_required: 'boolean',
  backchannel_logout_uri: 'url',
  client_id_issued_at: 'number',
  client_name: 'text',
  client_secret_expires_at: 'number',
  grant_types: 'words',
  id_token_signed_response_alg: 'word',
  logo_uri: 'url',
  post_logout_redirect_uri: 'url',
  post_logout_redirect_uris: 'url',
  redirect_uris: 'url',
  registration_client_uri: 'url',
  require_auth_time: 'boolean',
  response_types: 'words',
  software_id: 'word',
  software_version: 'word',
  subject_type: 'word',
  token_endpoint_auth_method: 'word',
  // RFC 8414, OpenID Connect Discovery 1.0
  authorization_endpoint: 'url',
  authorization_response_iss_parameter_supported: 'boolean',
  code_challenge_methods_supported: 'words',
  end_session_endpoint: 'url',
  grant_types_supported: 'words',
  issuer: 'url',
  jwks_uri: 'url',
  pushed_authorization_request_endpoint: 'url',
  registration_endpoint: 'url',
  response_types_supported: 'words',
  revocation_endpoint: 'url',
  scopes_supported: 'words',
  token_endpoint: 'url',
  token_endpoint_auth_methods_supported: 'words',
  userinfo_endpoint: 'url',
  // Coatcheck's own
  provider: 'word',
  return_to: 'url',
}

const shapes: Readonly<Record<Shape, (value: string) => string | undefined>> = {
  code: (value) => (/^[a-z_]{1,64}$/.test(value) ? value : undefined),
  word: (value) => (/^[\w.:/+-]{1,100}$/.test(value) ? value : undefined),
  words: (value) => (/^[\w.:/+ -]{0,500}$/.test(value) ? value : undefined),
  number: (value) => (/^\d{1,15}$/.test(value) ? value : undefined),
  boolean: (value) => (/^(true|false)$/.test(value) ? value : undefined),
  url: (value) => publicUrl(value),
  text: (value) => (/^[\p{L}\p{N} .,()'-]{1,64}$/u.test(value) ? value : undefined),
}

const schemes = new Set(['basic', 'bearer', 'dpop'])

/** Three dots and the length: enough to see that a value is there, and that it changed its size. */
export const hidden = (value: string): string => `••• (${value.length} characters)`

const plainSegment = (segment: string): boolean =>
  /^[\w.~-]{0,19}$/.test(segment) || /^\.?[a-z]+([._-][a-z]+)*$/.test(segment)

/** A URL or path without its query, user and fragment; a path segment that looks like an identifier is hidden. */
export const publicUrl = (value: string): string | undefined => {
  const relative = value.startsWith('/') && !value.startsWith('//')
  const url = URL.parse(value, relative ? 'http://relative.invalid' : undefined)
  if (!url || !/^https?:$/.test(url.protocol)) return undefined
  if (value === url.origin) return value
  const path = url.pathname
    .split('/')
    .map((segment) => (plainSegment(segment) ? segment : '•••'))
    .join('/')
  return `${relative ? '' : url.origin}${path}${url.search === '' ? '' : '?•••'}`
}

const memberValue = (name: string, value: unknown): string => {
  const shape = Object.hasOwn(publicMembers, name) ? publicMembers[name] : undefined
  const values = Array.isArray(value) ? value : [value]
  const simple = values.every((item) => ['string', 'number', 'boolean'].includes(typeof item))
  if (!simple) return Array.isArray(value) ? `••• (${value.length} members)` : '•••'
  const shown = values.map((item) => (shape ? shapes[shape](String(item)) : undefined))
  return shown.every((item) => item !== undefined) ? shown.join(', ') : hidden(values.map(String).join(' '))
}

/**
 * The members of a form, query or JSON object: names, with the values of the public ones. Names that are not of the usual
 * kind, and members past the fortieth, are only counted.
 */
export const publicParts = (members: Iterable<readonly [string, unknown]>): Record<string, string> => {
  const shown: Record<string, string> = {}
  let others = 0
  for (const [name, value] of members) {
    const usual = /^[a-z][a-z_]{0,59}$/.test(name) && Object.keys(shown).length < 40
    if (usual && value !== null && value !== undefined) shown[name] = memberValue(name, value)
    else others += 1
  }
  return others === 0 ? shown : { ...shown, 'other members': String(others) }
}

/** The public members only, and how many others there are: for documents that are long, such as metadata. */
export const onlyPublicParts = (members: readonly (readonly [string, unknown])[]): Record<string, string> => {
  const known = members.filter(([name]) => Object.hasOwn(publicMembers, name))
  const others = members.length - known.length
  return { ...publicParts(known), ...(others > 0 && { 'other members': String(others) }) }
}

const headerValues: Readonly<Record<string, (value: string) => string | undefined>> = {
  authorization: (value) => {
    const [scheme = '', credentials = ''] = value.split(/ (.*)/s)
    return schemes.has(scheme.toLowerCase()) ? `${scheme} ${hidden(credentials)}` : hidden(value)
  },
  'content-type': (value) => /^[\w.+-]+\/[\w.+-]+/.exec(value)?.[0],
  cookie: hidden,
  location: publicUrl,
  'retry-after': (value) => shapes.number(value),
  'set-cookie': hidden,
  'www-authenticate': (value) => {
    const scheme = value.split(' ')[0] ?? ''
    const error = /\berror="([a-z_]{1,64})"/.exec(value)?.[1]
    return schemes.has(scheme.toLowerCase()) ? `${scheme}${error ? ` error="${error}"` : ''}` : undefined
  },
}

/** The headers that say something about the exchange, credentials and cookies hidden; all others are left out. */
export const publicHeaders = (headers: Record<string, string>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) => {
      const lower = name.toLowerCase()
      const show = Object.hasOwn(headerValues, lower) ? headerValues[lower] : undefined
      return show ? [[lower, show(value) ?? hidden(value)] as const] : []
    }),
  )
