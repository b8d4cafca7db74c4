import { Failure } from '../../shared/errors.ts'
import type { OAuth, TokenReply } from '../../shared/oauth.ts'
import type { Process } from './process.ts'
import type { World } from './world.ts'

/**
 * What becomes of a refresh token that was used: `strict` ends the grant when it comes again; `grace` gives the same successor again until
 * that one has been used; `reusable` has no successors.
 */
export type Rotation = 'strict' | 'grace' | 'reusable'

/** A grant as the authorization server knows it. */
export interface ServerGrant {
  id: number
  account: string
  live: boolean
  /** Why it is not: a used token came again, it was revoked, or a later login of the account took its place. */
  ended: 'reused' | 'revoked' | 'replaced' | undefined
  generation: number
}

/** One time that a refresh token came to the server. */
interface Presentation {
  process: Process
  sentMs: number
  /** The answer will not reach who asked, or not as one. */
  lost: boolean
  /** The access token that was given. */
  given: string | undefined
}

export interface Server {
  grants: ServerGrant[]
  /** An account signs in; the result is its code. */
  authorize(account: string): string
  /** Whose live access token that is. */
  accountOf(accessToken: string): string | undefined
  /** What an access token is for. */
  audienceOf(accessToken: string): string | undefined
  /** Exchanged tokens that live. */
  exchanged(): string[]
  /** The grant of a token. */
  grantOf(token: string): ServerGrant | undefined
  /** Wire calls of a process; `onFault` hears of each that failed. */
  client(process: Process, onFault: (what: 'refresh' | 'redeem' | 'exchange' | 'revoke') => void): OAuth
  /** Refresh requests so far. */
  refreshes(): number
}

export interface ServerOptions {
  world: World
  rotation: Rotation
  /** A login ends the account's earlier grants. */
  oneGrantPerUser: boolean
  accessTokenSeconds: number
  /** How long clients wait for an answer. */
  timeoutMs: number
  /** The least time between two presentations of one refresh token: most of a lease. */
  leastApartMs: number
  /** How much of that time a slow answer takes. */
  slowness: number
  /** When an access token was saved first. */
  savedMs: (accessToken: string) => number | undefined
  /** Hears of an account whose new grant nobody will know of. */
  onUnheard: (account: string) => void
  /** What must never happen has happened. */
  violation: (what: string) => void
}

/** An authorization server that nobody has signed in at yet. */
export const createServer = (options: ServerOptions): Server => {
  const { world, rotation, oneGrantPerUser, accessTokenSeconds, timeoutMs, slowness, leastApartMs } = options
  const { savedMs, onUnheard, violation } = options
  const saved = (accessToken: string): boolean => savedMs(accessToken) !== undefined
  const grants: ServerGrant[] = []
  const codes = new Map<string, ServerGrant>()
  const accessTokens = new Map<string, { grant: ServerGrant; endsMs: number; audience: string; revoked: boolean }>()
  const isExchanged = (token: string): boolean => token.startsWith('xt-')
  const presentations = new Map<string, Presentation[]>()
  let [count, refreshes] = [0, 0]

  const refreshTokenOf = ({ id, generation }: ServerGrant): string =>
    rotation === 'reusable' ? `rt-${id}` : `rt-${id}-${generation}`

  const grantOf = (token: string): ServerGrant | undefined => {
    const [, id] = /^[arx]t-(\d+)/.exec(token) ?? []
    return grants.find((grant) => String(grant.id) === id)
  }

  const end = (grant: ServerGrant, why: ServerGrant['ended']): void => {
    grant.ended ??= why
    grant.live = false
  }

  const issue = (grant: ServerGrant, audience: string, kind = 'at'): TokenReply => {
    count += 1
    const accessToken = `${kind}-${grant.id}-${count}`
    const endsMs = world.now() + accessTokenSeconds * 1_000
    accessTokens.set(accessToken, { grant, endsMs, audience, revoked: false })
    return {
      access_token: accessToken,
      refresh_token: refreshTokenOf(grant),
      id_token: undefined,
      scope: undefined,
      expires_in_seconds: accessTokenSeconds,
      claims: { sub: grant.account },
    }
  }

  const redeem = (code: string, audience: string, heard: boolean): TokenReply => {
    const grant = codes.get(code)
    codes.delete(code)
    if (grant === undefined) throw new Failure('code_rejected')
    for (const other of grants) if (oneGrantPerUser && other.account === grant.account) end(other, 'replaced')
    grant.live = true
    grants.push(grant)
    if (!heard) onUnheard(grant.account)
    return issue(grant, audience)
  }

  /** Whether new tokens of its grant were saved after that time, by whomever. */
  const isSavedSince = (token: string, sinceMs: number): boolean => {
    const grant = grantOf(token)
    return [...accessTokens].some(([one, of]) => of.grant === grant && (savedMs(one) ?? 0) > sinceMs)
  }

  /**
   * A refresh token comes a second time only where the first time led to nothing, for a reason that nobody can do anything about; and then
   * not before the lease of the first is over. One that is not replaced belongs to whatever is saved anew.
   */
  const judge = (token: string, presentation: Presentation): void => {
    const others = presentations.get(token) ?? []
    presentations.set(token, [...others, presentation])
    for (const other of others) {
      const [first, second] = other.sentMs <= presentation.sentMs ? [other, presentation] : [presentation, other]
      const isSaved = first.given !== undefined && saved(first.given)
      const refused = first === other && first.given === undefined
      if (refused || (rotation === 'reusable' && isSavedSince(token, first.sentMs))) continue
      const excused = first.lost || first.process.excused() || (!isSaved && first.process.metFaults())
      if (!excused) violation(`I1: ${token} came twice for no good reason`)
      else if (second.sentMs - first.sentMs < leastApartMs) violation(`I2: ${token} came twice under one lease`)
    }
  }

  const refresh = (token: string, audience: string, presentation: Presentation): TokenReply => {
    refreshes += 1
    judge(token, presentation)
    const grant = grantOf(token)
    if (grant === undefined || !grant.live) throw new Failure('code_rejected')
    const generation = Number(/^rt-\d+-(\d+)$/.exec(token)?.[1] ?? grant.generation)
    if (generation === grant.generation) {
      grant.generation += 1
    } else if (rotation !== 'grace' || generation !== grant.generation - 1) {
      end(grant, 'reused')
      throw new Failure('code_rejected')
    }
    const reply = issue(grant, audience)
    presentation.given = reply.access_token
    return reply
  }

  const isGood = (token: string): boolean => {
    const known = accessTokens.get(token)
    if (known === undefined || known.revoked || known.endsMs <= world.now()) return false
    return isExchanged(token) || known.grant.live
  }

  /** A token that has been saved, and is far from its end, is not asked for again; a request may be held up until another one's is there. */
  const exchange = (subject: string, audience: string, lost: boolean): TokenReply => {
    const known = accessTokens.get(subject)
    if (known === undefined || !isGood(subject)) throw new Failure('server_refused')
    for (const [token, other] of accessTokens) {
      const same = isExchanged(token) && other.grant === known.grant && other.audience === audience
      const leftMs = other.endsMs - world.now()
      // Renewed at a quarter of its life; clocks differ by a second, and count whole ones.
      if (!lost && same && isGood(token) && saved(token) && leftMs > accessTokenSeconds * 250 + 2_500)
        violation(`I12: ${audience} was asked for again, though ${token} was there`)
    }
    return issue(known.grant, audience, 'xt')
  }

  const revoke = (token: string | undefined): void => {
    const known = accessTokens.get(token ?? '')
    if (known !== undefined) known.revoked = true
    const grant = grantOf(token ?? '')
    if (grant !== undefined && token?.startsWith('rt-')) end(grant, 'revoked')
  }

  /** A request that may go wrong in every way; `lose` is called when its answer is lost. */
  const send = async <T>(process: Process, act: () => T, lose: () => void): Promise<T> => {
    if (!world.chance(process.trouble.server)) {
      const slow = world.chance(0.1) ? timeoutMs * slowness : 100
      return await process.exchange(world.between(1, slow / 2), world.between(1, slow / 2), act)
    }
    const failing =
      (reason: 'server_unreachable' | 'server_failed' | 'server_timeout' | 'token_reply_invalid') => () => {
        throw new Failure(reason, { retryAfterSeconds: 1 })
      }
    switch (Math.floor(world.between(0, 6))) {
      case 0:
        return await process.exchange(5, 5, failing('server_unreachable'))
      case 1:
        return await process.exchange(5, 5, failing('server_failed'))
      case 2:
        return await process.exchange(5, timeoutMs, failing('server_timeout'))
      case 3:
        return await process.exchange(5, 5, () => {
          throw new Failure('client_rejected')
        })
      case 4: {
        lose()
        await process.exchange(5, 5, act)
        return await process.exchange(0, 1, failing(world.chance(0.5) ? 'server_failed' : 'token_reply_invalid'))
      }
      default: {
        lose()
        // Done early or late, perhaps after the one who asked has given up.
        world.after(world.between(1, timeoutMs * 1.6), () => {
          try {
            act()
          } catch {
            // nobody hears of it
          }
        })
        return await process.exchange(1, timeoutMs, failing('server_timeout'))
      }
    }
  }

  return {
    grants,
    authorize: (account) => {
      const id = grants.length + codes.size + Math.floor(world.random() * 1e6) * 1_000
      const code = `code-${id}`
      codes.set(code, { id, account, live: false, ended: undefined, generation: 1 })
      return code
    },
    accountOf: (token) => (isGood(token) ? grantOf(token)?.account : undefined),
    audienceOf: (token) => accessTokens.get(token)?.audience,
    exchanged: () => [...accessTokens.keys()].filter((token) => isExchanged(token) && isGood(token)),
    grantOf,
    refreshes: () => refreshes,
    client: (process, onFault) => ({
      checkCallback: (_, parameters) => parameters,
      push: () => Promise.reject(new Error('no PAR here')),
      userInfo: () => Promise.reject(new Error('no UserInfo here')),
      exchange: (_, subject, { audience = '' }) => {
        let lost = false
        const lose = (): void => {
          lost = true
          onFault('exchange')
        }
        return send(process, () => exchange(subject, audience, lost), lose)
      },
      redeem: (_, parameters, { resource = '' }) => {
        let heard = true
        const lose = (): void => {
          heard = false
          onFault('redeem')
        }
        return send(process, () => redeem(parameters.get('code') ?? '', resource, heard), lose)
      },
      refresh: (_, token, resource = '') => {
        const presentation: Presentation = { process, sentMs: world.now(), lost: false, given: undefined }
        const lose = (): void => {
          presentation.lost = true
          onFault('refresh')
        }
        return send(process, () => refresh(token, resource, presentation), lose)
      },
      revoke: async (_, tokens) => {
        await send(
          process,
          () => revoke(tokens.refresh_token ?? tokens.access_token),
          () => onFault('revoke'),
        )
      },
    }),
  }
}
