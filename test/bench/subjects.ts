import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { listen } from '../../infra/local/edge.ts'
import { instanceEnvironment } from '../../infra/local/function-environment.ts'
import type { HttpApiEvent } from '../../infra/local/gateway-payload.ts'
import { operatorAccessKeyId, startLocalStack } from '../../infra/local/stack.ts'
import type { LocalStack } from '../../infra/local/stack.ts'
import { synthesize } from '../../infra/synthesize.ts'
import { ownGrantKey, sessionKey } from '../../shared/sessions.ts'
import { asAccount, asHandle, hashHandle } from '../../shared/seal.ts'
import { startStrictAuthorizationServer } from '../support/authorization-server.ts'
import { exchange } from '../support/http.ts'
import { signIn } from '../support/sign-in.ts'
import { createBrowser } from '../support/user-agent.ts'
import type { Browser } from '../support/user-agent.ts'

/** A function to measure, with everything that a process of its own needs. */
export interface Subject {
  name: string
  /** The bundle's file. */
  file: string
  environment: Record<string, string>
  event: HttpApiEvent
  /** The status that each answer must have. */
  status: number
}

/** How a request of a flow looks, beyond what every browser sends. */
interface Asked {
  method?: string
  path: string
  query?: string
  cookie?: string
  parameters?: Record<string, string>
  headers?: Record<string, string>
}

const resourcePath = '/orders/17'
const resource = JSON.stringify({ order: 17, lines: Array.from({ length: 20 }, (_, line) => ({ line, amount: 1 })) })

/** An event as API Gateway makes it of a browser's request that came through CloudFront. */
const eventOf = (
  origin: string,
  { method = 'GET', path, query = '', cookie, parameters, headers }: Asked,
): HttpApiEvent => {
  const userAgent =
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36'
  return {
    version: '2.0',
    routeKey: `ANY ${path}`,
    rawPath: path,
    rawQueryString: query,
    ...(cookie === undefined ? {} : { cookies: cookie.split('; ') }),
    headers: {
      accept: '*/*',
      'accept-encoding': 'gzip, deflate, br, zstd',
      'accept-language': 'en-GB,en;q=0.9',
      'content-length': '0',
      host: 'abcdefghij.execute-api.us-east-1.amazonaws.com',
      referer: `${origin}/`,
      'sec-ch-ua-platform': '"Linux"',
      'sec-fetch-dest': 'empty',
      'sec-fetch-mode': 'cors',
      'sec-fetch-site': 'same-origin',
      'user-agent': userAgent,
      via: '2.0 1234567890abcdef.cloudfront.net (CloudFront)',
      'x-amz-cf-id': 'bTnlZZsBIp_Zz0qg4u4hkI1Xk7sLm3Vqj2v0kQ4kq3XJt1bq3bV6Fw==',
      'x-amzn-trace-id': 'Root=1-69123456-0123456789abcdef01234567',
      'x-csrf': '1',
      'x-forwarded-for': '203.0.113.7, 130.176.0.1',
      'x-forwarded-port': '443',
      'x-forwarded-proto': 'https',
      ...(method === 'GET' ? {} : { origin }),
      ...headers,
    },
    requestContext: {
      accountId: '000000000000',
      apiId: 'abcdefghij',
      domainName: 'abcdefghij.execute-api.us-east-1.amazonaws.com',
      domainPrefix: 'abcdefghij',
      http: { method, path, protocol: 'HTTP/1.1', sourceIp: '130.176.0.1', userAgent },
      requestId: 'JKJaXmPLvHcESHA=',
      routeKey: `ANY ${path}`,
      stage: '$default',
      time: '12/Mar/2026:19:03:58 +0000',
      timeEpoch: 1_773_342_238_000,
    },
    ...(parameters === undefined ? {} : { pathParameters: parameters }),
    isBase64Encoded: false,
  }
}

/** A resource server that costs the caller nothing but the call. */
const startResourceServer = async () => {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': resource.length }).end(resource)
  }).listen(0, '127.0.0.1')
  server.keepAliveTimeout = 0
  await once(server, 'listening')
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { url, close }
}

/** Partition and sort key of the session's two items, as the floors read them from their environment. */
const keysOf = (cookie: string): string => {
  const [account, handle] = (cookie.split('=')[1] ?? '').split('.')
  const [ofAccount, ofHandle] = [asAccount(account ?? ''), asHandle(handle ?? '')]
  if (ofAccount === undefined || ofHandle === undefined) throw new Error('signing in left no session cookie')
  const session = sessionKey(ofAccount, hashHandle(ofHandle))
  return [session, ownGrantKey(session)].map(({ pk, sk }) => `${pk},${sk}`).join(' ')
}

const freePort = async (): Promise<number> => {
  const { port, close } = await listen(() => {}, 0)
  await close()
  return port
}

/**
 * The whole product runs here, emulators and servers in this process, so that processes of their own can be measured against it. Users
 * sign in through it as they would anywhere; `floors` are the folders of the floors' bundles.
 */
export const startSubjects = async (floors: { read: string; proxy: string }) => {
  const folder = await mkdtemp(join(tmpdir(), 'coatcheck-bench-'))
  const authorizationServer = await startStrictAuthorizationServer({ accessTokenSeconds: 3_600 })
  const resourceServer = await startResourceServer()
  const closeServers = async (): Promise<void> => {
    resourceServer.close()
    await authorizationServer.close()
    await rm(folder, { recursive: true, force: true })
  }
  let dynamoDbCalls = 0
  const start = async (): Promise<LocalStack> => {
    const port = await freePort()
    const written: unknown = JSON.parse(
      await readFile(join(import.meta.dirname, '../../infra/stages/local.json'), 'utf8'),
    )
    const stage = {
      ...(typeof written === 'object' ? written : {}),
      origin: `http://localhost:${port}`,
      providers: { demo: { issuer: authorizationServer.issuer } },
      apis: { demo: { provider: 'demo', target: resourceServer.url } },
    }
    const { assembly } = await synthesize({ stage, outdir: folder })
    return startLocalStack({
      assembly,
      port,
      frontend: (_, response) => response.end('<!doctype html><title>Frontend</title>'),
      gate: ({ service }) => {
        if (service === 'dynamodb') dynamoDbCalls += 1
        return undefined
      },
    })
  }
  const stack = await start().catch(async (error: unknown) => {
    await closeServers()
    throw error
  })

  const cookiesOf = (tab: Browser, path: string): string => tab.cookies.header(`${stack.url}${path}`, 'strict')

  const flow = (name: string, status: number, asked: Asked): Subject => {
    const { definition } = stack.function(`${name}Function`)
    return {
      name: name.toLowerCase(),
      file: join(definition.taskRoot, 'index.mjs'),
      environment: instanceEnvironment(definition, stack.endpoints),
      event: eventOf(stack.url, asked),
      status,
    }
  }

  /** The `Cookie` header of a browser that has just signed in. */
  const signedIn = async (): Promise<string> => {
    const tab = createBrowser({ origin: stack.url })
    await signIn(tab)
    return cookiesOf(tab, '/')
  }

  /** What the browser asks of us after the authorization server has sent it back. */
  const callbackOf = async (tab: Browser): Promise<Asked> => {
    const login = await tab.raw({ path: '/bff/login' })
    const authorize = new URL(login.headers['location'] ?? '')
    const path = `${authorize.pathname}${authorize.search}`
    const answer = await exchange({ origin: authorize.origin, method: 'GET', path, headers: [] })
    const { pathname, search } = new URL(answer.headers['location'] ?? '')
    const cookie = cookiesOf(tab, pathname)
    return { path: pathname, query: search.slice(1), cookie, parameters: { provider: 'demo' } }
  }

  const checkAndCall = (cookie: string) => ({
    session: flow('Session', 200, { path: '/bff/session', cookie }),
    api: flow('Api', 200, {
      path: `/api/demo${resourcePath}`,
      cookie,
      parameters: { api: 'demo', path: resourcePath.slice(1) },
    }),
  })

  return {
    /** The session check and the API call of a session that has just begun, and the floors that read the same two items. */
    ofNewSession: async () => {
      const cookie = await signedIn()
      const ours = checkAndCall(cookie)
      const floor = (name: string, folderOfBundle: string): Subject => ({
        ...ours.api,
        name,
        file: join(folderOfBundle, 'index.mjs'),
        environment: {
          ...ours.api.environment,
          // A bare function reads no source maps.
          NODE_OPTIONS: '',
          AWS_ACCESS_KEY_ID: operatorAccessKeyId,
          FLOOR_TABLE: stack.physicalId('Table'),
          FLOOR_KEYS: keysOf(cookie),
          FLOOR_TARGET: `${resourceServer.url}${resourcePath}`,
        },
      })
      return { ...ours, floor: floor('floor', floors.read), floorProxy: floor('floor + call', floors.proxy) }
    },

    /** Every function that answers browsers, with a request that it grants. */
    ofEveryFlow: async (): Promise<Subject[]> => {
      const headers = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }
      const posted = { method: 'POST', cookie: await signedIn() }
      const { session, api } = checkAndCall(await signedIn())
      return [
        flow('Login', 302, { path: '/bff/login', headers }),
        flow('Callback', 303, { ...(await callbackOf(createBrowser({ origin: stack.url }))), headers }),
        session,
        flow('Refresh', 200, { path: '/bff/refresh', ...posted }),
        flow('Logout', 200, { path: '/bff/logout', ...posted }),
        api,
      ]
    },

    /** How many calls of DynamoDB there have been so far. */
    dynamoDbCalls: (): number => dynamoDbCalls,

    close: async (): Promise<void> => {
      await stack.close()
      await closeServers()
    },
  }
}
