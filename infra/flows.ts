import path from 'node:path'

/** Every function of the product: what it is, where it is reached, how long it may take, and what it may do. */

const flowFile = (name: string): string => path.join('lambdas', `${name}.ts`)

/** The names of these calls, as policies write them. */
export const dynamoDb = (...actions: string[]): string[] => actions.map((action) => `dynamodb:${action}`)
/** Ending sessions and grants. */
const ENDING = ['DeleteItem', 'Query']
/** Renewing a grant, and ending the sessions of one that turns out to be over. */
const RENEWING = ['BatchGetItem', 'UpdateItem', 'BatchWriteItem', ...ENDING]

/** One flow as a function: where it is reached and what it may do. */
interface Flow {
  /** One sentence for the console; operators' commands find their function by it. */
  description: string
  routes: readonly string[]
  timeoutSeconds: number
  /** What it does with the table. */
  table: readonly string[]
  /** Whether it seals or opens cookies or records. */
  sealing: boolean
  /** Whether it reads the providers' secrets. */
  providers: boolean
  /** Whether it calls servers, which may want to see our certificate. */
  calls: boolean
  /** Whether it hands tasks to the background. */
  tasks: boolean
}

/** What each flow is, where it is reached, how long it may take (seconds), and what it may do. */
export const flows: Readonly<Record<string, Flow>> = {
  login: {
    description: 'Starts a login: redirects to the authorization server',
    routes: ['/bff/login'],
    timeoutSeconds: 15,
    table: [],
    sealing: true,
    providers: true,
    calls: true,
    tasks: false,
  },
  callback: {
    description: 'The hosted callback URL: redeems the code and starts the session',
    routes: ['/bff/callback/{provider}'],
    timeoutSeconds: 25,
    table: dynamoDb('PutItem', 'ConditionCheckItem', ...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  'api-token': {
    description: 'Signs in with an API token that the user brings',
    routes: ['/bff/api-token/{provider}'],
    timeoutSeconds: 25,
    table: dynamoDb('PutItem', 'ConditionCheckItem', ...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  session: {
    description: 'Tells who is signed in and for how long',
    routes: ['/bff/session'],
    timeoutSeconds: 10,
    table: dynamoDb('BatchGetItem'),
    sealing: true,
    providers: false,
    calls: false,
    tasks: false,
  },
  sessions: {
    description: "Lists and ends a user's own sessions",
    routes: ['/bff/sessions', '/bff/sessions/{id}'],
    timeoutSeconds: 25,
    table: dynamoDb('BatchGetItem', ...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  refresh: {
    description: 'Keeps a session alive and renews its grant when due',
    routes: ['/bff/refresh'],
    timeoutSeconds: 25,
    table: dynamoDb(...RENEWING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  logout: {
    description: 'Ends a session and revokes its tokens',
    routes: ['/bff/logout'],
    timeoutSeconds: 25,
    table: dynamoDb(...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  'backchannel-logout': {
    description: 'Ends sessions on the word of the authorization server',
    routes: ['/bff/backchannel-logout/{provider}'],
    timeoutSeconds: 25,
    table: dynamoDb('BatchGetItem', 'BatchWriteItem', ...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
  jwks: {
    description: 'Publishes the public keys of our clients',
    routes: ['/bff/jwks.json'],
    timeoutSeconds: 10,
    table: [],
    sealing: false,
    providers: true,
    calls: false,
    tasks: false,
  },
  api: {
    description: 'Calls a resource server with the token of the session',
    routes: ['/api/{api}/{path+}'],
    timeoutSeconds: 29,
    table: dynamoDb(...RENEWING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
}

/** Flows that only operators reach, who are allowed to invoke their functions. */
export const orders: Readonly<Record<string, Flow>> = {
  'operator-sessions': {
    description: "Lists and ends a user's sessions for an operator (npm run sessions)",
    routes: [],
    timeoutSeconds: 60,
    table: dynamoDb('Scan', 'BatchWriteItem', ...ENDING),
    sealing: true,
    providers: true,
    calls: true,
    tasks: true,
  },
}

/** The function behind the others: what they start and do not wait for. */
export const background = {
  description: 'Renews grants ahead of time, and repeats what could not be done at once',
  timeoutSeconds: 30,
  table: dynamoDb(...RENEWING),
}

/** The custom resource, which operators call too. */
export const register = { description: 'Registers our client at the authorization servers (custom resource)' }

/** Entry files by bundle name. */
export const bundleEntries: Readonly<Record<string, string>> = Object.fromEntries(
  [...Object.keys(flows), ...Object.keys(orders), 'background', 'register', 'rotate', 'upkeep'].map((name) => [
    name,
    flowFile(name),
  ]),
)
