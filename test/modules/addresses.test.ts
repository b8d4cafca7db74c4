import type { LookupAddress } from 'node:dns'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createMayConnect, isListable, isPublic, judgeLiteral } from '../../shared/addresses.ts'
import { createSend, HttpFault } from '../../shared/http.ts'

const vectors: { issuer_or_endpoint_url: { value: string; hostname?: string }[] } = JSON.parse(
  readFileSync(join(import.meta.dirname, '../fixtures/attack-strings.json'), 'utf8'),
)

/** An address of each kind that is not public, its first and its last where the range is easily missed by one. */
const notPublic: [kind: string, ...addresses: string[]][] = [
  ['this host', '0.0.0.0', '0.255.255.255', '::'],
  ['private use', '10.0.0.0', '10.255.255.255', '172.16.0.0', '172.31.255.255', '192.168.0.0', '192.168.255.255'],
  ['carrier-grade NAT', '100.64.0.0', '100.127.255.255', '100.100.100.200'],
  ['loopback', '127.0.0.1', '127.255.255.255', '::1'],
  ['link-local', '169.254.0.0', '169.254.169.254', '169.254.170.2', '169.254.100.1', '169.254.255.255', 'fe80::1'],
  ['link-local with a zone', 'fe80::1%eth0', '2606:4700::1%eth0'],
  ['site-local', 'fec0::1', 'feff::1'],
  ['unique-local', 'fc00::1', 'fd12:3456::1', 'fdff:ffff::1'],
  ['metadata and credentials of AWS', 'fd00:ec2::254', 'fd00:ec2::23', 'fd00:ec2:0:ffff::1'],
  ['protocol assignments', '192.0.0.0', '192.0.0.192', '192.0.0.255', '2001::1', '2001:1ff:ffff::1', '2001:20::1'],
  ['documentation', '192.0.2.1', '198.51.100.7', '203.0.113.9', '2001:db8::1', '3fff::1', '3fff:0fff::1'],
  ['6to4 relays', '192.88.99.1'],
  ['benchmarking', '198.18.0.0', '198.19.255.255'],
  ['multicast', '224.0.0.1', '239.255.255.255', 'ff02::1', 'ff0e::1'],
  ['reserved', '240.0.0.1', '255.255.255.255', '4000::1', '5f00::1', 'e000::1', '100::1', '1fff::1'],
  ['IPv4-mapped', '::ffff:8.8.8.8', '::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '0:0:0:0:0:ffff:7f00:1'],
  ['IPv4-compatible', '::8.8.8.8', '::169.254.169.254', '::7f00:1'],
  ['IPv4-translated', '::ffff:0:8.8.8.8'],
  ['NAT64', '64:ff9b::8.8.8.8', '64:ff9b::a9fe:a9fe', '64:ff9b:1::a00:1', '64:ff9b:1:ffff::1'],
  ['6to4', '2002:a9fe:a9fe::', '2002:808:808::1'],
  ['Teredo', '2001:0:4136:e378:8000:63bf:3fff:fdd2'],
  ['no address', '', 'localhost', '1', '2130706433', '0x7f.1', '127.1', '1.2.3', '1.2.3.4.5', '8.8.8.8 ', ':::'],
]

const publicOnes = [
  '1.1.1.1',
  '8.8.8.8',
  '9.255.255.255',
  '11.0.0.0',
  '100.63.255.255',
  '100.128.0.0',
  '126.255.255.255',
  '128.0.0.0',
  '169.253.255.255',
  '169.255.0.0',
  '172.15.255.255',
  '172.32.0.0',
  '192.0.1.0',
  '192.0.3.0',
  '192.167.255.255',
  '192.169.0.0',
  '198.17.255.255',
  '198.20.0.0',
  '223.255.255.255',
  '2001:200::1',
  '2001:4860:4860::8888',
  '2003::1',
  '2600:9000::1',
  '2606:4700::1111',
  '2a00:1450::1',
]

describe('an address', () => {
  test.each(notPublic)('of the kind %s is not public', (_kind, ...addresses) => {
    expect(addresses.filter(isPublic)).toEqual([])
  })

  test('beside those is', () => {
    expect(publicOnes.filter((address) => !isPublic(address))).toEqual([])
  })

  test('may be called where it is public or listed, on a local stage also on loopback', () => {
    const privateNetworks = ['10.1.0.0/16', 'fd12::/16']
    const deployed = createMayConnect({ privateNetworks, local: false })
    const local = createMayConnect({ privateNetworks: [], local: true })
    const asked = ['1.1.1.1', '10.1.2.3', '10.2.0.1', 'fd12::1', 'fd13::1', '127.0.0.1', '::1', '::ffff:127.0.0.1']
    expect(asked.filter(deployed)).toEqual(['1.1.1.1', '10.1.2.3', 'fd12::1'])
    expect(asked.filter(local)).toEqual(['1.1.1.1', '127.0.0.1', '::1', '::ffff:127.0.0.1'])
  })

  test.each([
    '169.254.169.254',
    '169.254.170.2',
    'fd00:ec2::254',
    '0.0.0.0',
    '::',
    'fe80::1',
    '224.0.0.1',
    '127.0.0.1',
  ])('%s may not be called whatever is listed', (address) => {
    const everything = { privateNetworks: ['0.0.0.0/0', '::/0'], local: false }
    expect(createMayConnect(everything)(address)).toBe(false)
  })
})

describe('a network', () => {
  test.each([
    '10.0.0.0/8',
    '10.1.2.3/32',
    '172.20.0.0/14',
    '192.168.7.0/24',
    '100.64.0.0/10',
    'fd12:3456::/32',
    'fc00::/7',
  ])('%s can be listed', (network) => expect(isListable(network)).toBe(true))

  test.each([
    '',
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/7',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
    '10/8',
    '0.0.0.0/0',
    '::/0',
    '127.0.0.0/8',
    '169.254.0.0/16',
    '169.254.169.254/32',
    '8.8.8.0/24',
    '172.0.0.0/8',
    'fc00::/6',
    'fe80::/10',
    'fd00::1%eth0/64',
    '::ffff:10.0.0.0/104',
    '64:ff9b::/96',
    'fd00::/129',
    'fd00::/1e1',
    'as.internal',
    '10.0.0.0/8 ',
    '10.0.0.0 /8',
    '10.0.0.0/0x8',
    '0xa.0.0.0/8',
    '10.0.0.0/٨',
  ])('%j cannot', (network) => expect(isListable(network)).toBe(false))
})

describe('a URL', () => {
  const mayConnect = createMayConnect({ privateNetworks: [], local: false })
  const isRefused = (url: string): boolean => {
    try {
      judgeLiteral(new URL(url).hostname, mayConnect)
      return false
    } catch {
      return true
    }
  }

  test('is judged by what the parser makes of it, however its address is spelled', () => {
    const literal = vectors.issuer_or_endpoint_url.filter(({ hostname = '' }) => /^[\d.]+$|^\[/.test(hostname))
    expect(literal.length).toBeGreaterThan(15)
    expect(literal.filter(({ value }) => !isRefused(value)).map(({ value }) => value)).toEqual(['http://1.1.1.1.'])
  })

  test.each([
    '0',
    '127.1',
    '169.254.43518',
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '①②⑦.0.0.1',
    '[::127.0.0.1]',
  ])('with the host %s is refused', (host) => expect(isRefused(`https://${host}/`)).toBe(true))
})

describe('a call', () => {
  const seen: string[] = []
  const server = createServer((request, response) => {
    seen.push(`${request.headers.host} ${request.socket.remotePort}`)
    response.end('here')
  })
  let port = 0
  beforeAll(async () => {
    await once(server.listen(0, '127.0.0.1'), 'listening')
    port = (server.address() as AddressInfo).port
  })
  afterAll(() => {
    server.close()
    server.closeAllConnections()
  })

  const local = createMayConnect({ privateNetworks: [], local: true })
  const deployed = createMayConnect({ privateNetworks: [], local: false })
  /** A resolver that answers one list after the other, and then for ever the last. */
  const resolver = (...answers: string[][]) => {
    const asked: string[] = []
    const resolve = (name: string, _options: unknown, callback: (error: null, found: LookupAddress[]) => void) => {
      const found = answers[Math.min(asked.length, answers.length - 1)] ?? []
      asked.push(name)
      callback(
        null,
        found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
      )
    }
    return { asked, resolve: resolve as never }
  }
  const get = (host: string, settings: Partial<Parameters<typeof createSend>[0]> = {}) => {
    const send = createSend({ keepAlive: false, mayConnect: local, ...settings })
    return () =>
      send({ method: 'GET', url: new URL(`http://${host}:${port}/`), headers: {}, timeoutMs: 2_000, maxBytes: 1_000 })
        .then(({ status }) => status)
        .catch((error: unknown) => (error instanceof HttpFault ? [error.kind, error.detail] : error))
  }

  test('goes to the address that was judged', async () => {
    const { asked, resolve } = resolver(['127.0.0.1'], ['10.0.0.1'])
    expect(await get('as.example.com', { resolve })()).toBe(200)
    expect([asked, seen.at(-1)?.split(' ')[0]]).toEqual([['as.example.com'], `as.example.com:${port}`])
  })

  test('is judged again with each new connection, so that a name that moves inside is refused', async () => {
    const { asked, resolve } = resolver(['127.0.0.1'], ['169.254.169.254'])
    const call = get('as.example.com', { resolve })
    expect(await call()).toBe(200)
    expect(await call()).toEqual([
      'address_refused',
      'as.example.com is at 169.254.169.254, an address that no deployed stage may call',
    ])
    expect(asked).toHaveLength(2)
  })

  test('over a connection that is kept goes where that went', async () => {
    const { asked, resolve } = resolver(['127.0.0.1'], ['169.254.169.254'])
    const call = get('as.example.com', { resolve, keepAlive: true })
    const before = seen.length
    expect([await call(), await call()]).toEqual([200, 200])
    expect(asked).toHaveLength(1)
    expect(new Set(seen.slice(before)).size).toBe(1)
  })

  test.each([
    ['public and private', ['1.1.1.1', '10.0.0.1']],
    ['private and public', ['10.0.0.1', '1.1.1.1']],
    ['private, of both families', ['2606:4700::1111', 'fd12::1']],
    ['mapped', ['::ffff:10.0.0.1']],
  ])('of a name whose addresses are %s is refused', async (_kind, addresses) => {
    const arrived = seen.length
    const outcome = await get('as.example.com', { resolve: resolver(addresses).resolve, mayConnect: deployed })()
    expect(outcome).toEqual([
      'address_refused',
      expect.stringMatching(
        /^as\.example\.com is at \S+, not a public address; list its network in private_networks if that is right$/,
      ),
    ])
    expect(seen).toHaveLength(arrived)
  })

  test.each(['127.0.0.1', '[::ffff:127.0.0.1]', 'localhost', '2130706433', '0x7f.1'])(
    'of %s is refused where the stage is deployed',
    async (host) => {
      const arrived = seen.length
      expect(await get(host, { mayConnect: deployed })()).toEqual(['address_refused', expect.any(String)])
      expect(await get(host, { mayConnect: deployed, keepAlive: true })()).toEqual([
        'address_refused',
        expect.any(String),
      ])
      expect(seen).toHaveLength(arrived)
    },
  )

  test('of a name that nobody knows is unreachable', async () => {
    const resolve = ((_name: string, _options: unknown, callback: (error: Error) => void) =>
      callback(Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' }))) as never
    expect(await get('as.example.com', { resolve })()).toEqual(['unreachable', undefined])
    expect(await get('as.example.com', { resolve: resolver([]).resolve })()).toEqual(['unreachable', undefined])
  })
})
