import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createSecretKey,
  generateKeyPairSync,
  hkdfSync,
  randomBytes,
  randomInt,
  sign,
  X509Certificate,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { Failure } from './errors.ts'

/**
 * Everything cryptographic that is ours: random values, hashes, PKCE and sealing.
 *
 * A sealed value is AES-256-GCM over UTF-8 text. Layout: format (1 byte, 0x01), length of the key id (1 byte), key id,
 * salt (32 bytes), ciphertext, tag (16 bytes). Key and nonce of each value come from the sealing key and that salt by
 * HKDF-SHA-256 with the purpose as info, so neither can repeat and a value of one purpose opens for no other.
 * Associated data: format, purpose and the caller's context (for a record: its key in the table).
 */

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

/** The secret half of a session cookie: 256 random bits, base64url. */
export type Handle = Branded<'Handle'>
/** SHA-256 of a handle, base64url: what the table knows of it. */
export type HandleHash = Branded<'HandleHash'>
/** Names one (issuer, subject) pair: SHA-256, base64url. */
export type AccountId = Branded<'AccountId'>

export type Purpose = 'login' | 'logout' | 'session' | 'grant' | 'routes' | 'task'

/** Sealing keys by key id; `current` seals, all open. */
export interface SealingKeys {
  current: string
  keys: Readonly<Record<string, string>>
}

export interface Sealer {
  /** The keys are on their way, for a caller that will need them after something else; a failure shows when they are used. */
  prepare(): void
  /** The text is sealed under the current key. @throws secrets_unavailable */
  seal(purpose: Purpose, context: readonly string[], text: string): Promise<Uint8Array>
  /** The text, or undefined when the value was not sealed by us for this purpose and context. @throws secrets_unavailable */
  open(purpose: Purpose, context: readonly string[], sealed: Uint8Array): Promise<string | undefined>
}

const FORMAT = 1
const SALT_BYTES = 32
const TAG_BYTES = 16
const NONCE_BYTES = 12
const BASE64URL_256 = /^[A-Za-z0-9_-]{43}$/

const sha256 = (text: string): string => createHash('sha256').update(text).digest('base64url')

/** A fresh random value of that many bytes, base64url. */
export const random = (bytes: number): string => randomBytes(bytes).toString('base64url')

/** Where the versions of a record begin: no record of the same key had that number before. */
export const newVersion = (): number => randomInt(2 ** 47)

/** A fresh session handle. */
export const newHandle = (): Handle => random(32) as Handle

/** The text as a handle, when it has the form of one. */
export const asHandle = (text: string): Handle | undefined => (BASE64URL_256.test(text) ? (text as Handle) : undefined)

/** The text as an account, when it has the form of one. */
export const asAccount = (text: string): AccountId | undefined =>
  BASE64URL_256.test(text) ? (text as AccountId) : undefined

/** What the table knows of a handle. */
export const hashHandle = (handle: Handle): HandleHash => sha256(`handle ${handle}`) as HandleHash

/** Names a session of the authorization server (`sid`) or a logout token (`jti`) in the table. */
export const hashName = (kind: 'sid' | 'jti', issuer: string, name: string): string =>
  sha256(JSON.stringify([kind, issuer, name]))

/** Names the account of an issuer and a subject; a random one where the server tells no subject. */
export const accountOf = (issuer: string, subject: string | undefined): AccountId =>
  (subject === undefined ? random(32) : sha256(JSON.stringify(['account', issuer, subject]))) as AccountId

/** SHA-256 of a `state`, which names the login without giving the value away. */
export const hashState = (state: string): string => sha256(`state ${state}`)

/** A pseudonym of an account or a session for logs: cannot be turned back into a cookie or a table key. */
export const pseudonym = (text: string): string => sha256(`log ${text}`).slice(0, 12)

/** A new key pair for ES256 (RFC 7518 section 3.4): the numbers in base64url, the thumbprint of RFC 7638 as its name. */
export const newSigningKey = (): { kid: string; x: string; y: string; d: string } => {
  const {
    x = '',
    y = '',
    d = '',
  } = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
    format: 'jwk',
  })
  // These members in this order, and no white space.
  return { kid: sha256(JSON.stringify({ crv: 'P-256', kty: 'EC', x, y })), x, y, d }
}

/** The ES256 signature of a text, base64url. */
export const signWith = (key: { kty: 'EC'; crv: 'P-256'; x: string; y: string; d: string }, text: string): string =>
  sign('sha256', Buffer.from(text), {
    key: createPrivateKey({ key, format: 'jwk' }),
    dsaEncoding: 'ieee-p1363',
  }).toString('base64url')

/** Whether that is a certificate, and this its private key (both PEM). */
export const isCertificateOf = (certificate: string, key: string): boolean => {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
  } catch {
    return false
  }
}

/** A PKCE verifier of 128 characters (RFC 7636 section 4.1). */
export const newCodeVerifier = (): string => random(96)

/** The S256 challenge of a verifier (RFC 7636 section 4.2). */
export const codeChallenge = (verifier: string): string => sha256(verifier)

const associatedData = (purpose: Purpose, context: readonly string[]): Uint8Array =>
  Buffer.from(JSON.stringify([FORMAT, purpose, ...context]))

const derive = (material: string, salt: Uint8Array, purpose: Purpose): { key: KeyObject; nonce: Uint8Array } => {
  const bytes = new Uint8Array(hkdfSync('sha256', material, salt, `coatcheck ${FORMAT} ${purpose}`, 32 + NONCE_BYTES))
  // As a key object, because a cipher takes twice as long to begin with bytes.
  return { key: createSecretKey(bytes.subarray(0, 32)), nonce: bytes.subarray(32) }
}

/** The sealing keys in a secret's value: `{"current": "<id>", "<id>": "<key>", ...}`. @throws secrets_unavailable when it is not that */
export const parseSealingKeys = (value: string): SealingKeys => {
  const keys: Record<string, string> = {}
  let current: string | undefined
  try {
    for (const [id, key] of Object.entries(JSON.parse(value) as Record<string, unknown>)) {
      if (typeof key !== 'string') continue
      if (id === 'current') current = key
      else if (key.length >= 32 && Buffer.byteLength(id) <= 255) keys[id] = key
    }
  } catch {
    // falls through: a value that is not JSON has no keys
  }
  if (current === undefined || !Object.hasOwn(keys, current)) {
    throw new Failure('secrets_unavailable', {
      detail: 'the sealing secret holds no current key of at least 32 characters',
    })
  }
  return { current, keys }
}

/** Seals and opens under the keys that `readKeys` gives, which may cache them but looks further for an id that it is told. */
export const createSealer = (readKeys: (wanted?: string) => Promise<SealingKeys>): Sealer => ({
  prepare() {
    readKeys().catch(() => undefined)
  },

  async seal(purpose, context, text) {
    const { current, keys } = await readKeys()
    const material = keys[current]
    if (material === undefined) throw new Failure('secrets_unavailable', { detail: `no sealing key ${current}` })
    const salt = randomBytes(SALT_BYTES)
    const { key, nonce } = derive(material, salt, purpose)
    const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(associatedData(purpose, context))
    const id = Buffer.from(current)
    return Buffer.concat([
      Uint8Array.of(FORMAT, id.length),
      id,
      salt,
      cipher.update(text, 'utf8'),
      cipher.final(),
      cipher.getAuthTag(),
    ])
  },

  async open(purpose, context, sealed) {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength)
    const idLength = bytes[1] ?? 0
    const start = 2 + idLength + SALT_BYTES
    if (bytes[0] !== FORMAT || bytes.length < start + TAG_BYTES) return undefined
    const id = bytes.toString('utf8', 2, 2 + idLength)
    const { keys } = await readKeys(id)
    const material = Object.hasOwn(keys, id) ? keys[id] : undefined
    if (material === undefined) return undefined
    const { key, nonce } = derive(material, bytes.subarray(2 + idLength, start), purpose)
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(associatedData(purpose, context))
      .setAuthTag(bytes.subarray(-TAG_BYTES))
    try {
      return decipher.update(bytes.subarray(start, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
    } catch {
      return undefined
    }
  },
})
