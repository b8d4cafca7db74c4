import { openRecords } from './records.ts'
import { startRecordingResourceServer, tokenOf } from './resource-server.ts'
import { signIn } from './sign-in.ts'
import { startStrictStack, type StackOptions } from './stacks.ts'

/** How long a lease lasts in stacks for renewal: the authorization server has two seconds, and five are for the save and the clocks. */
export const leaseMs = 7_000

/**
 * A stack whose grants tests make old: a strict authorization server with refresh token rotation that has `serverSeconds`
 * (two unless told) to answer, a resource server that records, and the records in an operator's hands.
 */
export const startRenewalStack = async ({
  serverSeconds = 2,
  ...options
}: Pick<StackOptions, 'maxInstances' | 'gate'> & { serverSeconds?: number } = {}) => {
  const resourceServer = await startRecordingResourceServer()
  const stack = await startStrictStack({
    ...options,
    target: resourceServer.url,
    stage: (stage) => ({ ...stage, renewal: { authorization_server_timeout_seconds: serverSeconds } }),
  })
  const { authorizationServer } = stack
  const records = openRecords(stack.stack)
  return {
    ...stack,
    resourceServer,
    records,
    /** A tab of a browser of its own, signed in. */
    signedIn: async () => {
      const tab = stack.newBrowser()
      await signIn(tab)
      return tab
    },
    /** How often tokens have been asked to be refreshed. */
    refreshes: () => authorizationServer.tokenRequests('refresh_token').length,
    /** The token of every call since that many, in order of arrival. */
    tokensSince: (count: number) => resourceServer.requests.slice(count).map(tokenOf),
    close: async () => {
      records.close()
      await stack.close()
      await resourceServer.close()
    },
  }
}
