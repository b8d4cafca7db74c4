/** The part of oidc-provider 9 that the demo authorization server uses; the package ships no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  export interface Client {
    clientId: string
    clientName?: string
    redirectUris: string[]
    grantTypeAllowed(grantType: string): boolean
  }

  export interface Grant {
    openid?: { scope?: string; claims?: string[] }
    resources?: Record<string, string>
    addOIDCScope(scope: string): void
    addOIDCClaims(claims: string[]): void
    addResourceScope(resource: string, scope: string): void
    save(): Promise<string>
  }

  /** The Koa context, as far as the configuration functions below need it. */
  export interface Context {
    status: number
    type: string
    body: unknown
    set(header: string, value: string): void
    oidc: {
      provider: Provider
      params: Record<string, unknown>
      client?: Client
      result?: { consent?: { grantId?: string } }
      session: { accountId?: string; grantIdFor(clientId: string): string | undefined }
    }
  }

  export interface Interaction {
    uid: string
    grantId?: string
    params: Record<string, unknown>
    session?: { accountId?: string }
    prompt: {
      name: string
      reasons: string[]
      details: {
        missingOIDCScope?: string[]
        missingOIDCClaims?: string[]
        missingResourceScopes?: Record<string, string[]>
      }
    }
  }

  export interface ProviderError extends Error {
    error?: string
    error_description?: string
    error_detail?: string
  }

  export const errors: { InvalidTarget: new () => ProviderError }

  export type InteractionResult =
    | { login: { accountId: string; remember?: boolean } }
    | { consent: { grantId: string } }
    | { error: string; error_description?: string }

  export class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    Client: { find(id: string): Promise<Client | undefined> }
    InitialAccessToken: new (values: { policies: string[] }) => { save(): Promise<string> }
    Grant: {
      new (owner: { accountId: string | undefined; clientId: string }): Grant
      find(id: string): Promise<Grant | undefined>
    }
    callback(): RequestListener
    AccessToken: new (values: Record<string, unknown>) => {
      resourceServer: unknown
      expiration: number
      save(): Promise<string>
    }
    ResourceServer: new (identifier: string, info: Record<string, unknown>) => unknown
    registerGrantType(name: string, handler: (ctx: Context) => Promise<void>, params: readonly string[]): void
    on(event: string, listener: (ctx: Context, error?: ProviderError) => void): this
    interactionDetails(request: IncomingMessage, response: ServerResponse): Promise<Interaction>
    interactionFinished(
      request: IncomingMessage,
      response: ServerResponse,
      result: InteractionResult,
      options?: { mergeWithLastSubmission?: boolean },
    ): Promise<void>
  }
}

declare module 'oidc-provider/lib/adapters/memory_adapter.js' {
  export interface Store {
    get(key: string): unknown
    set(key: string, value: unknown, options?: { maxAge: number }): void
    delete(key: string): void
  }

  const MemoryAdapter: new (model: string, store: Store) => object
  export default MemoryAdapter
}

declare module 'oidc-provider/lib/helpers/weak_cache.js' {
  import type { Context, Provider } from 'oidc-provider'

  /** What a provider keeps to itself; the token endpoint looks its grant types up here. */
  export default function instance(provider: Provider): {
    grantTypeHandlers: Map<string, (ctx: Context) => Promise<void>>
  }
}
