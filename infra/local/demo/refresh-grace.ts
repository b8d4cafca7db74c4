import type { Context, Provider } from 'oidc-provider'
import instance from 'oidc-provider/lib/helpers/weak_cache.js'

/** How long a used refresh token still gets the answer that it got. */
const GRACE_SECONDS = 60

const record = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {}

/**
 * A refresh token that was used answers its own client with the same successor tokens again, for a minute from its first use; also
 * where the calls come at once. The provider has to rotate refresh tokens; later a used one ends its grant as it does there.
 */
export const repeatRefreshAnswers = (provider: Provider): void => {
  const handlers = instance(provider).grantTypeHandlers
  const refresh = handlers.get('refresh_token')
  if (refresh === undefined) throw new Error('the provider does not refresh tokens')
  const answers = new Map<string, { givenMs: number; body: Promise<unknown> }>()

  const forgetOld = (): void => {
    for (const [key, { givenMs }] of answers) if (Date.now() - givenMs >= GRACE_SECONDS * 1000) answers.delete(key)
  }

  /** The client has authenticated by the time this is asked. */
  handlers.set('refresh_token', async (ctx: Context) => {
    forgetOld()
    const key = JSON.stringify([ctx.oidc.client?.clientId, ctx.oidc.params['refresh_token']])
    const earlier = answers.get(key)
    if (earlier !== undefined) {
      const answer = record(await earlier.body)
      const age = Math.floor((Date.now() - earlier.givenMs) / 1000)
      ctx.body = { ...answer, expires_in: Math.max(0, Number(answer['expires_in']) - age) }
      return
    }
    const first = { givenMs: Date.now(), body: refresh(ctx).then(() => ctx.body) }
    answers.set(key, first)
    try {
      await first.body
    } catch (error) {
      answers.delete(key)
      throw error
    }
  })
}
