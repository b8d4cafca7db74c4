import { createRemoteJWKSet, jwtVerify } from 'jose'
import { errors, type Provider } from 'oidc-provider'

const exchangeType = 'urn:ietf:params:oauth:grant-type:token-exchange'
const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token'

/**
 * Teaches the demo authorization server to exchange tokens (RFC 8693): a JWT access token of its own becomes one for the audience that is
 * asked for, if that is one of those.
 */
export const exchangeTokens = (provider: Provider, issuer: string, audiences: readonly string[]): void => {
  const keys = createRemoteJWKSet(new URL(`${issuer}/jwks`))
  provider.registerGrantType(
    exchangeType,
    async (ctx) => {
      const { client, params } = ctx.oidc
      const audience = String(params['audience'])
      if (!audiences.includes(audience)) throw new errors.InvalidTarget()
      const { payload } = await jwtVerify(String(params['subject_token']), keys, { issuer })
      const token = new provider.AccessToken({
        accountId: payload.sub,
        client,
        gty: 'token_exchange',
        scope: 'demo:read',
      })
      token.resourceServer = new provider.ResourceServer(audience, {
        audience,
        scope: 'demo:read',
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      })
      ctx.body = {
        access_token: await token.save(),
        issued_token_type: accessTokenType,
        token_type: 'Bearer',
        expires_in: token.expiration,
      }
    },
    ['subject_token', 'subject_token_type', 'audience', 'scope', 'requested_token_type'],
  )
}
