import { isListable } from '../shared/addresses.ts'
import { Failure } from '../shared/errors.ts'
import { ENDPOINTS, findMetadata, judgeMetadata } from '../shared/metadata.ts'
import type { Metadata, MetadataDocument } from '../shared/metadata.ts'
import { discoverResource } from '../shared/protected-resource.ts'
import type { ProtectedResource } from '../shared/protected-resource.ts'
import { certificateFinding, judge } from './doctor-findings.ts'
import type { Finding } from './doctor-findings.ts'
import { tryRegistration } from './doctor-registration.ts'
import type { Calls } from './doctor-send.ts'

/** A server is looked at from outside: what it is, what Coatcheck makes of it, what the stage file would say. */

/** What was asked for. */
export interface Question {
  /** An issuer, or the URL of a resource server, as it was written. */
  asked: string
  url: URL
  /** Origins besides the issuer's that the operator trusts. */
  endpointOrigins: readonly string[]
  /** Where Coatcheck would be, for the redirect URI of a registration that is tried. */
  origin: string
  register: boolean
  initialAccessToken: string | undefined
  /** Whether servers are shown a client certificate. */
  hasCertificate: boolean
}

/** `usable`: as it is. `work`: once what is to be done is done. */
export type Verdict = 'usable' | 'work' | 'unusable'

/** What was found out; `npm run doctor -- --json` prints it. */
export interface Report {
  asked: string
  verdict: Verdict
  issuer: string | null
  /** What the resource server calls itself (RFC 9728), where there is one. */
  resource: string | null
  /** What the server is, where it says so. */
  product: string | null
  /** Settings for the stage file. */
  stage: Record<string, unknown> | null
  findings: Finding[]
}

const stop = (topic: string, says: string, advice?: string): Finding => ({
  topic,
  level: 'stop',
  says,
  ...(advice === undefined ? {} : { advice }),
})

/** A server's failure in words, with why a connection failed where that is known. */
const wordsOf = (failure: Failure, calls: Calls): string => {
  const trouble = calls.trouble()
  const detail = failure.detail ?? failure.reason
  return trouble === undefined ? detail : `${detail}: ${trouble}`
}

/** The issuer as its metadata write it, if it is the one that was asked for but for a slash at the end. */
const ownIssuer = (document: MetadataDocument, asked: URL): string => {
  const { issuer } = document.value
  const bare = asked.href.replace(/\/$/, '')
  return issuer === bare || issuer === `${bare}/` ? issuer : asked.href
}

const aliasesOf = (document: MetadataDocument): Record<string, unknown> => {
  const { mtls_endpoint_aliases: aliases } = document.value
  return typeof aliases === 'object' && aliases !== null ? Object.fromEntries(Object.entries(aliases)) : {}
}

/** Origins of endpoints, of the issuer's scheme, that are neither the issuer's nor allowed. */
const foreignOrigins = (
  document: MetadataDocument,
  issuer: string,
  allowed: readonly string[],
  mutualTls: boolean,
): string[] => {
  const aliases = mutualTls ? aliasesOf(document) : {}
  const origins = ENDPOINTS.flatMap((name) => {
    const value = aliases[name] ?? document.value[name]
    if (typeof value !== 'string' || !URL.canParse(value)) return []
    const { protocol, origin } = new URL(value)
    return protocol === new URL(issuer).protocol ? [origin] : []
  })
  return [...new Set(origins)].filter((origin) => !allowed.includes(origin))
}

/** The network of an address as a stage may list it: 256 addresses of IPv4, one link of IPv6. */
const networkOf = (address: string): string => {
  const network = address.includes(':') ? `${address}/64` : address.replace(/\.\d+$/, '.0/24')
  return isListable(network) ? network : `${address}/${address.includes(':') ? 128 : 32}`
}

const addressFindings = (calls: Calls): { findings: Finding[]; networks: string[] } => {
  const findings: Finding[] = []
  const networks = new Set<string>()
  for (const [host, addresses] of calls.privateAddresses) {
    const listed = [...addresses].map(networkOf)
    if (listed.every(isListable)) {
      listed.forEach((network) => networks.add(network))
      const says = `${host} is at ${[...addresses].join(', ')}, seen from here, which is not public`
      const advice = `list its network in private_networks, such as ${listed.join(', ')}, and run the functions in reach of it`
      findings.push({ topic: 'address', level: 'todo', says, advice })
    } else {
      const says = `${host} is this machine: for a local stage (npm start) only`
      findings.push({ topic: 'address', level: 'note', says })
    }
  }
  return { findings, networks: [...networks] }
}

const requestOf = ({ origin, initialAccessToken }: Question) => ({
  client_name: 'Coatcheck doctor',
  redirect_uri: `${origin}/bff/callback/main`,
  post_logout_redirect_uri: `${origin}/bff/logout`,
  backchannel_logout_uri: `${origin}/bff/backchannel-logout/main`,
  scopes: undefined,
  initial_access_token: initialAccessToken,
  jwks_uri: undefined,
})

interface Found {
  issuer: string
  metadata: Metadata
  /** What to list in `endpoint_origins`. */
  origins: string[]
  findings: Finding[]
}

/** The authorization server at its issuer, or what stands against it. @throws Failure */
const examineServer = async (
  calls: Calls,
  asked: URL,
  document: MetadataDocument,
  question: Question,
  onClient: (id: string) => void,
): Promise<Found> => {
  const issuer = ownIssuer(document, asked)
  const trusted = [new URL(issuer).origin, ...question.endpointOrigins]
  const foreign = foreignOrigins(document, issuer, trusted, question.hasCertificate)
  const metadata = judgeMetadata(document.value, issuer, [...trusted, ...foreign], question.hasCertificate)
  const wanted = requestOf(question)
  const { pathname } = document.url
  const kind = pathname.includes('oauth-authorization-server') ? 'RFC 8414' : 'OpenID Connect Discovery'
  const findings: Finding[] = [{ topic: 'metadata', level: 'ok', says: `at ${pathname} (${kind})` }]
  if (foreign.length > 0) {
    findings.push({
      topic: 'endpoints',
      level: 'todo',
      says: `some are on other origins: ${foreign.join(', ')}`,
      advice: 'list those in endpoint_origins if they are right; credentials and tokens go there',
    })
  }
  const certificate = certificateFinding(metadata, question.hasCertificate, 'mtls_endpoint_aliases' in document.value)
  const judged = [...judge(metadata, wanted, calls.coder() !== undefined), ...certificate]
  const endpoint = metadata.registration_endpoint
  if (!question.register || endpoint === undefined)
    return { issuer, metadata, origins: foreign, findings: [...findings, ...judged] }
  // An operator's token goes where the operator said, not where a resource server says.
  const named = question.initialAccessToken === undefined ? trusted : [question.url.origin, ...question.endpointOrigins]
  const tried: Finding[] = named.includes(new URL(endpoint).origin)
    ? await tryRegistration(calls.send, metadata, wanted, onClient)
    : [
        {
          topic: 'registration',
          level: 'todo',
          says: `not tried, since it is on another origin, ${new URL(endpoint).origin}`,
          advice: `name that origin with --endpoint-origin if it is right`,
        },
      ]
  const merged = judged.flatMap((one) => (one.topic === 'registration' ? tried : [one]))
  return { issuer, metadata, origins: foreign, findings: [...findings, ...merged] }
}

/** Settings that follow from what was found. */
const stageOf = (
  found: Found,
  resource: ProtectedResource | undefined,
  isCoder: boolean,
  question: Question,
  networks: string[],
) => {
  const asked = question.asked.replace(/\/$/, '')
  const isApi = resource !== undefined && asked !== found.issuer.replace(/\/$/, '')
  const origins = [...question.endpointOrigins, ...found.origins]
  return {
    providers: {
      main: {
        issuer: found.issuer,
        // Coder takes tokens without a resource everywhere, and with one only for itself.
        ...(isCoder ? { profile: 'coder' } : resource === undefined ? {} : { resource: resource.resource }),
        ...(origins.length === 0 ? {} : { endpoint_origins: origins }),
      },
    },
    ...(isApi ? { apis: { main: { provider: 'main', target: asked } } } : {}),
    ...(networks.length === 0 ? {} : { private_networks: networks }),
  }
}

const resourceFinding = (
  { resource, authorizationServers: [, ...others] }: ProtectedResource,
  isCoder: boolean,
): Finding => {
  const more = others.length === 0 ? '' : `; it also trusts ${others.join(', ')}`
  if (isCoder)
    return { topic: 'resource', level: 'ok', says: `none is named; the tokens are good for ${resource}${more}` }
  return { topic: 'resource', level: 'ok', says: `tokens are asked for ${resource} (RFC 8707)${more}` }
}

interface Target {
  issuer: URL
  document: MetadataDocument
  resource: ProtectedResource | undefined
}

const isAbout = (error: unknown, ...reasons: Failure['reason'][]): error is Failure =>
  error instanceof Failure && reasons.includes(error.reason)

/** The authorization server that the URL leads to: its own, or the first that the resource server there trusts. @throws Failure */
const locate = async (calls: Calls, url: URL): Promise<Target> => {
  const { send } = calls
  let nothing: Failure
  try {
    const document = await findMetadata(send, url.href)
    const said = await discoverResource(send, url, { challenge: false }).catch((error: unknown) => {
      if (error instanceof Failure) return undefined
      throw error
    })
    return { issuer: url, document, resource: said?.kind === 'found' ? said.metadata : undefined }
  } catch (error) {
    if (!isAbout(error, 'metadata_invalid', 'server_failed')) throw error
    // What Coder says is clear enough.
    if (calls.coder() !== undefined) throw error
    nothing = error
  }
  const said = await discoverResource(send, url, { challenge: true })
  if (said.kind === 'missing') {
    throw new Failure(nothing.reason, {
      detail: `${nothing.detail}. Nor any of a resource: ${said.complaint}`,
      cause: nothing,
    })
  }
  const [first] = said.metadata.authorizationServers
  if (first === undefined)
    throw new Failure('metadata_invalid', { detail: 'the resource names no authorization server' })
  return { issuer: new URL(first), document: await findMetadata(send, first), resource: said.metadata }
}

/** What there is at the URL, and what that means. */
export const examine = async (question: Question, calls: Calls, onClient: (id: string) => void): Promise<Report> => {
  const report = (findings: Finding[], rest: Partial<Report> = {}): Report => {
    const coder = calls.coder()
    const levels = new Set(findings.map(({ level }) => level))
    return {
      asked: question.asked,
      verdict: levels.has('stop') ? 'unusable' : levels.has('todo') ? 'work' : 'usable',
      issuer: null,
      resource: null,
      product: coder === undefined ? null : `Coder ${coder}`,
      stage: null,
      ...rest,
      findings,
    }
  }
  let target: Target | undefined
  try {
    target = await locate(calls, question.url)
    const { issuer, document, resource } = target
    const found = await examineServer(calls, issuer, document, question, onClient)
    const isCoder = calls.coder() !== undefined
    const { findings, networks } = addressFindings(calls)
    return report(
      [...found.findings, ...(resource === undefined ? [] : [resourceFinding(resource, isCoder)]), ...findings],
      {
        issuer: found.issuer,
        resource: resource?.resource ?? null,
        stage: stageOf(found, resource, isCoder, question, networks),
      },
    )
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const isAnother = /of another (issuer|resource)/.test(error.detail ?? '')
    const advice = isAnother ? 'if that is the server you mean, ask about that URL' : undefined
    return report([stop('server', wordsOf(error, calls), advice), ...addressFindings(calls).findings], {
      resource: target?.resource?.resource ?? null,
    })
  }
}
