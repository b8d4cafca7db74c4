import * as z from 'zod/mini'
import { isListable } from './addresses.ts'

/** The kinds of values that settings have, each with the words for what is wrong with one. */

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]'])

const parseUrl = (value: string): URL | undefined => (URL.canParse(value) ? new URL(value) : undefined)

const isSecureOrLoopback = (url: URL): boolean =>
  url.protocol === 'https:' || (url.protocol === 'http:' && LOOPBACK.has(url.hostname))

/** One host, as a name or an IP address: wildcards are understood nowhere, and a dot at the end makes another origin of it. */
const HOST = /^(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])$/

const host = z.refine<string>((value) => {
  const url = parseUrl(value)
  return url === undefined || HOST.test(url.hostname)
}, 'must name one host in letters, digits, hyphens and dots; wildcards are not understood')

/** The schema with what it means, for the JSON schema and the documents. */
export const describe = <T extends z.ZodMiniType>(schema: T, description: string): T =>
  schema.check(z.describe(description))

/** An origin as browsers write it, over https or on loopback. */
export const origin = z.string().check(
  z.refine(
    (value) => parseUrl(value)?.origin === value,
    'must be an origin as browsers write it: scheme, host and a port other than the default, in lower case, nothing behind it; for example https://app.example.com',
  ),
  z.refine((value) => {
    const url = parseUrl(value)
    return url === undefined || isSecureOrLoopback(url)
  }, 'must use https; http is for localhost and 127.0.0.1 only'),
  host,
)

/** An absolute, normalised URL without user information, query or fragment, over https or on loopback. */
export const plainUrl = z.string().check(
  z.refine((value) => parseUrl(value) !== undefined, 'must be an absolute URL, for example https://as.example.com'),
  z.refine((value) => {
    const url = parseUrl(value)
    return url === undefined || isSecureOrLoopback(url)
  }, 'must use https; http is for localhost and 127.0.0.1 only'),
  z.refine((value) => {
    const url = parseUrl(value)
    return url === undefined || (url.username === '' && url.password === '')
  }, 'must not contain a user name or password'),
  z.refine((value) => !/[?#]/.test(value), 'must not contain a query or a fragment'),
  host,
  z.refine((value) => {
    const url = parseUrl(value)
    return url === undefined || url.href === value || url.href === `${value}/`
  }, 'must be written the way URLs are normalised: lower-case host, no default port, no dot segments'),
)

/** A name that is part of a path. */
export const name = z
  .string()
  .check(z.regex(/^[a-z][a-z0-9-]{0,31}$/, 'must be 1 to 32 of a-z, 0-9 and -, starting with a letter'))

/** A whole number of seconds in that range. */
export const seconds = (minimum: number, maximum: number) =>
  z
    .int(`must be a whole number of seconds from ${minimum} to ${maximum}`)
    .check(z.gte(minimum, `must be at least ${minimum} seconds`), z.lte(maximum, `must be at most ${maximum} seconds`))

/** One scope (RFC 6749 section 3.3). */
export const scope = z
  .string()
  .check(z.regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/, 'must be one scope: printable, no space, no quote'))

/** The name of a member of a JSON object. */
export const memberName = z.string().check(z.minLength(1), z.maxLength(64))

/** A network of private addresses (CIDR, RFC 4632). */
export const privateNetwork = z
  .string()
  .check(
    z.refine(
      isListable,
      'must be a network such as 10.1.0.0/16, within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15 or fc00::/7',
    ),
  )

/** A topic that CloudWatch can notify (SNS, not FIFO). */
export const topicArn = z
  .string()
  .check(
    z.regex(
      /^arn:aws[\w-]*:sns:[a-z0-9-]+:\d{12}:[\w-]{1,256}$/,
      'must be the ARN of a standard SNS topic, for example arn:aws:sns:eu-central-1:123456789012:alarms',
    ),
  )

/** Headers that say how a message travels or who sends it, or that are ours. */
const TAKEN_HEADERS =
  /^(connection|content-.*|cookie|expect|host|keep-alive|origin|proxy-.*|referer|sec-.*|te|trailer|transfer-encoding|upgrade|x-csrf)$/i

/** The name of a request header that can carry a token. */
export const headerName = z.string().check(
  z.regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/, 'must be the name of a header: letters, digits and hyphens'),
  z.refine((value) => !TAKEN_HEADERS.test(value), 'must be a header that can carry a token; this one has its own use'),
)
