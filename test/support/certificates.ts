import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'

/** X.509 certificates for tests, made on the spot: Node.js reads them but makes none. */

/** A certificate and its private key, in PEM. */
export type Identity = { certificate: string; key: string }

const der = (tag: number, ...content: Uint8Array[]): Buffer => {
  const body = Buffer.concat(content)
  const length =
    body.length < 128
      ? Buffer.from([body.length])
      : body.length < 256
        ? Buffer.from([0x81, body.length])
        : Buffer.from([0x82, body.length >> 8, body.length & 255])
  return Buffer.concat([Buffer.from([tag]), length, body])
}
const sequence = (...content: Uint8Array[]) => der(0x30, ...content)
const oid = (hex: string) => der(0x06, Buffer.from(hex, 'hex'))
const octets = (content: Uint8Array) => der(0x04, content)
const integer = (content: Uint8Array) => der(0x02, content)
const bits = (content: Uint8Array) => der(0x03, Buffer.from([0]), content)
const time = (ms: number) => der(0x18, Buffer.from(new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, '')))

const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
const nameOf = (text: string) => sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(text)))))
const extension = (id: string, critical: boolean, value: Uint8Array) =>
  sequence(oid(id), ...(critical ? [der(0x01, Buffer.from([0xff]))] : []), octets(value))
const pem = (label: string, content: Uint8Array) =>
  `-----BEGIN ${label}-----\n${(
    Buffer.from(content)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  ).join('\n')}\n-----END ${label}-----\n`

const keyIdOf = (spki: Uint8Array) => createHash('sha1').update(spki).digest()

type Authority = { name: string; key: KeyObject; keyId: Buffer }

const issue = (name: string, options: { authority?: Authority; isAuthority?: boolean; endsInSeconds?: number }) => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ format: 'der', type: 'spki' })
  const own: Authority = { name, key: privateKey, keyId: keyIdOf(spki) }
  const { authority = own, isAuthority = false, endsInSeconds = 3_600 } = options
  const alternativeNames = sequence(der(0x82, Buffer.from('localhost')), der(0x87, Buffer.from([127, 0, 0, 1])))
  const extensions = sequence(
    extension('551d13', true, isAuthority ? sequence(der(0x01, Buffer.from([0xff]))) : sequence()),
    extension('551d11', false, alternativeNames),
    extension('551d0e', false, octets(own.keyId)),
    extension('551d23', false, sequence(der(0x80, authority.keyId))),
  )
  const signed = sequence(
    der(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ecdsaWithSha256,
    nameOf(authority.name),
    sequence(time(Date.now() - 86_400_000), time(Date.now() + endsInSeconds * 1_000)),
    nameOf(name),
    spki,
    der(0xa3, extensions),
  )
  const certificate = pem('CERTIFICATE', sequence(signed, ecdsaWithSha256, bits(sign('sha256', signed, authority.key))))
  const key = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  return { own, identity: { certificate, key } }
}

/** A certification authority of its own, and what it certifies: servers on loopback, and clients by name. */
export const createAuthority = (name = 'Test authority') => {
  const { own, identity } = issue(name, { isAuthority: true })
  return {
    certificate: identity.certificate,
    /** `endsInSeconds` below 0 has run out. */
    issue: (subject: string, endsInSeconds?: number): Identity =>
      issue(subject, { authority: own, ...(endsInSeconds !== undefined && { endsInSeconds }) }).identity,
  }
}
