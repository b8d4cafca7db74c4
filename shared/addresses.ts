import { lookup as lookupOfSystem } from 'node:dns'
import { BlockList, isIP } from 'node:net'
import type { LookupFunction } from 'node:net'

/**
 * Which IP addresses may be called. A name is judged by what it resolves to, when it is called, and the socket goes to the address that
 * was judged: whoever controls a name could otherwise answer with a public address first and a private one after.
 * @see IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), RFC 9728 section 7.7
 */

/** Whether a socket may go to an IP address. */
export type MayConnect = (address: string) => boolean

const blockListOf = (networks: readonly string[]): BlockList => {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', prefix = ''] = network.split('/')
    list.addSubnet(address, Number(prefix), isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }
  return list
}

const LOOPBACK = ['127.0.0.0/8', '::1/128']

/** What no stage may list: this host, the links around it, where metadata and credentials are served, and what is no host at all. */
const UNREACHABLE = [
  '0.0.0.0/8',
  '169.254.0.0/16',
  '192.0.0.0/24',
  '224.0.0.0/3',
  '::/128',
  'fe80::/10',
  'ff00::/8',
  // Instance metadata, DNS and time of AWS, and the credentials of its containers.
  'fd00:ec2::/32',
]

/** What `private_networks` of a stage may list: private use (RFC 1918, RFC 4193), carrier-grade NAT (RFC 6598), benchmarking (RFC 2544). */
export const PRIVATE_NETWORKS = [
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '198.18.0.0/15',
  'fc00::/7',
]

/** Documentation, former 6to4 relays; none is a host. */
const UNUSED = ['192.0.2.0/24', '192.88.99.0/24', '198.51.100.0/24', '203.0.113.0/24']

/**
 * Where IPv6 is public: the global unicast space without Teredo and other protocol assignments, documentation and 6to4. All else has no host
 * or stands for another address: IPv4-mapped, IPv4-compatible, and NAT64 with the well-known (64:ff9b::/96) or a local prefix.
 */
const GLOBAL = ['2000::/3']
const GLOBAL_UNUSED = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']

/** The classifier's lists, built when the first call goes out. */
const createLists = () => ({
  loopback: blockListOf(LOOPBACK),
  unreachable: blockListOf(UNREACHABLE),
  private4: blockListOf([...PRIVATE_NETWORKS.filter((network) => !network.includes(':')), ...UNUSED]),
  global6: blockListOf(GLOBAL),
  unused6: blockListOf(GLOBAL_UNUSED),
})
let built: ReturnType<typeof createLists> | undefined
const lists = () => (built ??= createLists())

/** Judges `text` by family; false for what is no address, and for one of a zone, which is never public. */
const inList = (list: BlockList, text: string): boolean => {
  const family = isIP(text)
  return family !== 0 && !text.includes('%') && list.check(text, family === 6 ? 'ipv6' : 'ipv4')
}

/** Whether anybody on the internet reaches the address; false for what is no address. */
export const isPublic = (address: string): boolean => {
  if (isIP(address) === 6) return inList(lists().global6, address) && !inList(lists().unused6, address)
  return (
    isIP(address) === 4 &&
    ![lists().loopback, lists().unreachable, lists().private4].some((list) => inList(list, address))
  )
}

/** Whether the text is a network in CIDR notation that a stage may list in `private_networks`. */
export const isListable = (text: string): boolean => {
  const [address = '', prefix = '', more] = text.split('/')
  const family = isIP(address)
  if (family === 0 || more !== undefined || !/^(?:0|[1-9]\d{0,2})$/.test(prefix) || address.includes('%')) return false
  if (Number(prefix) > (family === 6 ? 128 : 32)) return false
  return PRIVATE_NETWORKS.some((network) => {
    const [start = '', least = ''] = network.split('/')
    return isIP(start) === family && Number(prefix) >= Number(least) && inList(blockListOf([network]), address)
  })
}

/**
 * Sockets may go to public addresses and to those of the listed networks, on a `local` stage to loopback too. Metadata services and
 * the links around a function stay closed whatever is listed.
 */
export const createMayConnect = ({
  privateNetworks,
  local,
}: {
  privateNetworks: readonly string[]
  local: boolean
}): MayConnect => {
  const listed = blockListOf(privateNetworks)
  return (address) => {
    if (inList(lists().unreachable, address)) return false
    if (inList(lists().loopback, address)) return local
    return isPublic(address) || inList(listed, address)
  }
}

/** A socket was not opened, since one of the addresses may not be called; the message says it in words for an operator. */
export class AddressRefused extends Error {
  constructor(host: string, address: string) {
    const at = host === address ? 'is' : `is at ${address},`
    const closed = inList(lists().unreachable, address) || inList(lists().loopback, address)
    super(
      closed
        ? `${host} ${at} an address that no deployed stage may call`
        : `${host} ${at} not a public address; list its network in private_networks if that is right`,
    )
    this.name = 'AddressRefused'
  }
}

/** An IP address that stands for itself in a URL, as URLs are normalised, has nothing to look up and is judged here. @throws AddressRefused */
export const judgeLiteral = (hostname: string, mayConnect: MayConnect): void => {
  const literal = hostname.replace(/^\[(.*)\]$/, '$1')
  if (isIP(literal) !== 0 && !mayConnect(literal)) throw new AddressRefused(literal, literal)
}

/**
 * A `lookup` for sockets: the name is resolved once, and the socket gets its addresses only if it may go to every one of them. A name
 * with one address too many is refused whole: its answers are one party's word.
 */
export const judgedLookup =
  (mayConnect: MayConnect, resolve: typeof lookupOfSystem = lookupOfSystem): LookupFunction =>
  (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, [])
      const refused = found.find(({ address }) => !mayConnect(address))
      if (refused !== undefined) return callback(new AddressRefused(hostname, refused.address), [])
      const [first] = found
      if (first === undefined) callback(new Error('no address'), [])
      else if (options.all === true) callback(null, found)
      else callback(null, first.address, first.family)
    })
  }
