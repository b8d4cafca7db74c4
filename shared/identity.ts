import type { Account, ReadAccount } from './account.ts'
import type { Stage } from './config.ts'
import { Failure } from './errors.ts'
import type { OAuth, Peer, TokenReply } from './oauth.ts'
import type { Claims } from './sessions.ts'

/** Who signed in: as the ID token says, else as the account endpoint does; and the claims that the stage lists. */

/**
 * The subject, where it can be told, and the claims. Only a grant that nobody shares can be of a user unknown.
 * @param resource what the access token is for, where that was asked for
 * @throws account_unresolved
 */
export type Identify = (
  provider: string,
  peer: Peer,
  reply: TokenReply,
  resource: string | undefined,
) => Promise<Partial<Account> & { claims: Claims }>

/** Runs, and does not mind what fails. */
export const ignoringFailure = async (run: () => Promise<void>): Promise<void> => {
  try {
    await run()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
  }
}

/** Tells users of the providers of a stage. */
export const createIdentify = ({
  stage,
  oauth,
  readAccount,
}: {
  stage: Stage
  oauth: Pick<OAuth, 'userInfo'>
  readAccount: ReadAccount
}): Identify => {
  /** The claims that the stage lists, from the ID token and, for those it lacks, from UserInfo. */
  const claimsOf = async (
    provider: string,
    peer: Peer,
    reply: TokenReply,
    resource: string | undefined,
  ): Promise<Claims> => {
    const wanted = stage.providers[provider]?.claims ?? []
    const known = reply.claims ?? {}
    const subject = known['sub']
    const missing = wanted.some((name) => known[name] === undefined)
    // An access token for another resource is not one for UserInfo.
    const ask = missing && peer.metadata.userinfo_endpoint !== undefined && resource === undefined
    let more: Claims = {}
    if (ask && typeof subject === 'string') {
      // Who signed in is known by now; a name that cannot be had is no reason to turn the user away.
      await ignoringFailure(async () => {
        more = await oauth.userInfo(peer, reply.access_token, subject)
      })
    }
    return Object.fromEntries(
      wanted.flatMap((name) => {
        const value = known[name] ?? more[name]
        return value === undefined ? [] : [[name, value] as const]
      }),
    )
  }

  return async (provider, peer, reply, resource) => {
    const { account, claims = [], grants } = stage.providers[provider] ?? {}
    const subject = reply.claims?.['sub']
    if (typeof subject === 'string') return { subject, claims: await claimsOf(provider, peer, reply, resource) }
    if (account !== undefined) return await readAccount(account, reply.access_token, claims)
    if (grants === 'per-user')
      throw new Failure('account_unresolved', {
        detail: 'grants are per-user, but neither ID token nor account tells it',
      })
    return { claims: {} }
  }
}
