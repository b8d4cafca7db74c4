import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createCertifiedSend, parseCertificate } from '../../shared/certificates.ts'
import { createSend, HttpFault } from '../../shared/http.ts'
import type { Certificate, Send } from '../../shared/http.ts'
import { judgeMetadata } from '../../shared/metadata.ts'
import { createAuthority } from '../support/certificates.ts'
import { startRecordingResourceServer } from '../support/resource-server.ts'
import { startTlsFront } from '../support/tls-front.ts'

const authority = createAuthority()
const [ours, theirs] = [authority.issue('ours'), authority.issue('theirs')]
const pemOf = ({ certificate, key }: typeof ours): string => certificate + key

let front: Awaited<ReturnType<typeof startTlsFront>>
let open: Awaited<ReturnType<typeof startTlsFront>>
let server: Awaited<ReturnType<typeof startRecordingResourceServer>>

beforeAll(async () => {
  setDefaultCACertificates([...getCACertificates('default'), authority.certificate])
  server = await startRecordingResourceServer()
  front = await startTlsFront(authority.issue('localhost'), authority.certificate)
  open = await startTlsFront(authority.issue('localhost'))
  for (const one of [front, open]) one.forwardTo(server.url)
})

afterAll(async () => {
  await front.close()
  await open.close()
  await server.close()
})

describe('the certificate in a secret', () => {
  const value = pemOf(ours)

  test('comes first, its chain behind it, its key wherever it stands, and words around them do not matter', () => {
    const chain = [ours.certificate.trim(), authority.certificate.trim()].join('\n')
    const bag = `Bag Attributes\n${ours.certificate}subject=ours\n${authority.certificate}`
    for (const text of [bag + ours.key, ours.key + bag, (bag + ours.key).replaceAll('\n', '\r\n')]) {
      const parsed = parseCertificate('s', text)
      expect([parsed.chain.replaceAll('\r', ''), parsed.key.replaceAll('\r', '')]).toEqual([chain, ours.key.trim()])
    }
  })

  test.each<[what: string, value: string | undefined, words: RegExp]>([
    ['missing', undefined, /^the secret operator\/certificate with the client certificate has no value$/],
    ['empty', '  \n', /has no value$/],
    ['only a key', ours.key, /must hold a certificate in PEM/],
    ['only a certificate', ours.certificate, /must hold one private key in PEM/],
    ['two keys', value + theirs.key, /must hold one private key/],
    [
      'the key of another',
      ours.certificate + theirs.key,
      /must hold first the certificate that its private key is for/,
    ],
    ['in the wrong order', authority.certificate + value, /must hold first the certificate/],
    ['half a certificate', `${ours.certificate.slice(0, 200)}\n${ours.key}`, /must hold a certificate/],
    [
      'not a certificate',
      `-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n${ours.key}`,
      /first the cert/,
    ],
    ['a key with a pass phrase', value.replaceAll('PRIVATE', 'ENCRYPTED PRIVATE'), /without a pass phrase/],
    ['JSON', JSON.stringify({ certificate: 'x' }), /must hold a certificate/],
    [
      'huge',
      `-----BEGIN CERTIFICATE-----${'A'.repeat(100_000)}-----END CERTIFICATE-----${ours.key}`,
      /must hold a cert/,
    ],
  ])('is named in words where it is %s, and nothing of it', (_, text, words) => {
    let refusal: unknown
    try {
      parseCertificate('operator/certificate', text)
    } catch (error) {
      refusal = error
    }
    expect(refusal).toMatchObject({ reason: 'certificate_unusable', detail: expect.stringMatching(words) })
    expect(String(refusal)).not.toMatch(/MI[A-Z]{2}/)
  })
})

const request = (url: string) => ({
  method: 'GET',
  url: new URL(url),
  headers: {},
  timeoutMs: 5_000,
  maxBytes: 1_000,
})

describe('calls over TLS', () => {
  const send = createSend({ keepAlive: true, mayConnect: () => true })
  const certified = (secrets: Record<string, string>, values: Record<string, string>) =>
    createCertifiedSend({
      send,
      secretOf: (origin) => secrets[origin],
      read: async (secret) => values[secret],
      now: () => Date.now(),
    })

  test('show the certificate to the origin that it is for, and to no other', async () => {
    const call = certified({ [front.url]: 'a' }, { a: pemOf(ours) })
    expect((await call(request(`${front.url}/one`))).status).toBe(200)
    expect((await call(request(`${open.url}/two`))).status).toBe(200)
    expect([front.callers.at(-1), open.callers.at(-1)]).toMatchObject([
      { path: '/one', name: 'ours' },
      { path: '/two', name: '' },
    ])
  })

  test('share a connection only with calls that show the same', async () => {
    const [first, second] = [ours, theirs].map((one) => certified({ [open.url]: 'a' }, { a: pemOf(one) }))
    const plain = certified({}, {})
    for (const call of [first, second, plain, first, second, plain]) await call?.(request(open.url))
    const seen = open.callers.slice(-6)
    expect(seen.map(({ name }) => name)).toEqual(['ours', 'theirs', '', 'ours', 'theirs', ''])
    const connections = new Map(seen.map(({ name, connection }) => [name, connection]))
    expect(new Set(connections.values()).size).toBe(3)
    for (const { name, connection } of seen) expect(connection).toBe(connections.get(name))
  })

  test('to a server that wants a certificate and is shown none were not processed', async () => {
    await expect(send(request(front.url))).rejects.toMatchObject({ kind: 'unreachable' })
  })

  test('to a server with a certificate of an authority that nobody trusts are not made', async () => {
    const before = open.callers.length
    const stranger = await startTlsFront(createAuthority('Stranger').issue('localhost'))
    await expect(certified({ [stranger.url]: 'a' }, { a: pemOf(ours) })(request(stranger.url))).rejects.toMatchObject({
      kind: 'unreachable',
    })
    expect([stranger.callers, open.callers.length]).toEqual([[], before])
    await stranger.close()
  })
})

describe('a certificate that was replaced', () => {
  const alert = () => new HttpFault('unreachable', new Error('tls'))
  const values = { a: pemOf(ours) }
  let nowMs = 0

  /** A server that fails like this until it sees that certificate, and what it was shown. */
  const serverWanting = (wanted: string, fault: () => HttpFault) => {
    const shown: (Certificate | undefined)[] = []
    const send: Send = ({ certificate }) => {
      shown.push(certificate)
      return certificate?.chain === wanted.trim()
        ? Promise.resolve({ status: 200, headers: [], body: Buffer.alloc(0) })
        : Promise.reject(fault())
    }
    let reads = 0
    const read = (): Promise<string | undefined> => {
      reads += 1
      return Promise.resolve(values.a)
    }
    const call = createCertifiedSend({ send, secretOf: () => 'a', read, now: () => nowMs })
    return { call: () => call(request('https://as.example.com')), shown, reads: () => reads }
  }

  test('is picked up by the call that was turned away with the old one, once', async () => {
    values.a = pemOf(ours)
    const { call, shown, reads } = serverWanting(theirs.certificate, alert)
    await expect(call()).rejects.toMatchObject({ kind: 'unreachable' })
    expect([shown.length, reads()]).toEqual([1, 2])
    values.a = pemOf(theirs)
    expect((await call()).status).toBe(200)
    expect(shown.length).toBe(3)
  })

  test('is picked up by the next call where this one may have been processed, or only waited', async () => {
    for (const fault of ['broken', 'timeout'] as const) {
      values.a = pemOf(ours)
      const { call, shown } = serverWanting(
        theirs.certificate,
        () => new HttpFault(fault, fault === 'broken' ? 1 : undefined),
      )
      await call().catch(() => undefined)
      values.a = pemOf(theirs)
      await expect(call()).rejects.toMatchObject({ kind: fault })
      expect(shown.length).toBe(2)
    }
  })

  test('is picked up when the known one is five minutes old', async () => {
    values.a = pemOf(ours)
    const { call, reads } = serverWanting(ours.certificate, alert)
    await call()
    nowMs += 299_000
    await call()
    expect(reads()).toBe(1)
    nowMs += 1_000
    await call()
    expect(reads()).toBe(2)
  })

  test('that cannot be used says so, and the next call reads again', async () => {
    values.a = 'nothing'
    const { call } = serverWanting(ours.certificate, alert)
    await expect(call()).rejects.toMatchObject({ reason: 'certificate_unusable' })
    values.a = pemOf(ours)
    expect((await call()).status).toBe(200)
  })

  test('is read within the time of the call', async () => {
    const sent: number[] = []
    const send: Send = ({ timeoutMs }) => {
      sent.push(timeoutMs)
      return Promise.resolve({ status: 200, headers: [], body: Buffer.alloc(0) })
    }
    const slow = (takesMs: number) =>
      createCertifiedSend({
        send,
        secretOf: () => 'a',
        read: () => {
          nowMs += takesMs
          return Promise.resolve(pemOf(ours))
        },
        now: () => nowMs,
      })
    await slow(2_000)(request('https://as.example.com'))
    await expect(slow(5_000)(request('https://as.example.com'))).rejects.toMatchObject({ kind: 'unreachable' })
    expect(sent).toEqual([3_000])
  })
})

describe('endpoints for clients with a certificate', () => {
  const issuer = 'https://as.example.com'
  const metadata = {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    code_challenge_methods_supported: ['S256'],
  }
  const judged = (aliases: unknown, mutualTls = true, origins = ['https://mtls.example.com']) =>
    judgeMetadata({ ...metadata, mtls_endpoint_aliases: aliases }, issuer, origins, mutualTls)

  test('stand in for the others, but for those of the browser', () => {
    const aliases = {
      token_endpoint: 'https://mtls.example.com/token',
      revocation_endpoint: 'https://mtls.example.com/revoke',
      authorization_endpoint: 'https://mtls.example.com/authorize',
      issuer: 'https://evil.example',
    }
    expect(judged(aliases)).toMatchObject({
      issuer,
      token_endpoint: aliases.token_endpoint,
      revocation_endpoint: aliases.revocation_endpoint,
      authorization_endpoint: metadata.authorization_endpoint,
    })
    expect(judged(aliases, false)).toMatchObject(metadata)
  })

  test.each<[what: string, aliases: unknown, words: RegExp]>([
    [
      'on an origin that nobody allowed',
      { token_endpoint: 'https://evil.example/t' },
      /token_endpoint is on another origin/,
    ],
    ['without TLS', { token_endpoint: 'http://mtls.example.com/t' }, /token_endpoint is not https/],
    ['no URL', { token_endpoint: 'token' }, /token_endpoint is not a URL/],
    ['no text', { token_endpoint: 7 }, /lack or misspell token_endpoint/],
    ['no object', 'https://mtls.example.com', /mtls_endpoint_aliases is not an object/],
    ['null', null, /mtls_endpoint_aliases is not an object/],
  ])('are refused in words where they are %s', (_, aliases, words) => {
    expect(() => judged(aliases)).toThrow(words)
  })
})
