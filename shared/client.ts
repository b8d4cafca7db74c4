import * as z from 'zod/mini'

/** Our client at a provider as it is kept: the credentials, how to use them, and how to manage the registration. */

/** Ways to authenticate at the token endpoint, the one to ask for first; the last only where the stage chooses keys. */
export const AUTHENTICATION_METHODS = ['client_secret_basic', 'client_secret_post', 'none', 'private_key_jwt'] as const

/** Those in which the client certificate says it all (RFC 8705 section 2); for clients that an operator registered. */
export const CERTIFICATE_METHODS = ['tls_client_auth', 'self_signed_tls_client_auth'] as const

/** How our client says who it is (RFC 6749 section 2.3). */
export type AuthenticationMethod = (typeof AUTHENTICATION_METHODS)[number]

/** What a header can carry, and no more than anybody needs: identifiers, secrets and tokens of a registration. */
export const printable = () => z.string().check(z.regex(/^[\x20-\x7e]{1,4096}$/))

/** A client of the secret of a provider. Built when used, since that takes its time; members may be added if they are optional. */
export const clientSchema = () =>
  z.object({
    client_id: printable(),
    client_secret: z.optional(printable()),
    /** Seconds since the epoch; 0 never; left out where the server does not say. */
    client_secret_expires_at: z.optional(z.number()),
    token_endpoint_auth_method: z.enum([...AUTHENTICATION_METHODS, ...CERTIFICATE_METHODS]),
    id_token_signed_response_alg: z.optional(z.string()),
    registration_client_uri: z.optional(z.string()),
    registration_access_token: z.optional(printable()),
    redirect_uri: z.string(),
    /** What is requested at authorization. */
    scope: z.optional(z.string()),
    /** What was asked for at registration; the server may have granted less. */
    requested_scope: z.optional(z.string()),
    /** The client metadata that were last asked for, as canonical JSON, so that a change of the stage can be told. */
    requested: z.optional(z.string()),
    /** When the client was registered or its credentials were renewed, and when another one took its place: seconds since the epoch. */
    registered_at: z.optional(z.number()),
    retired_at: z.optional(z.number()),
    /** The note under which it was registered. */
    attempt: z.optional(z.string()),
  })

export type Client = z.infer<ReturnType<typeof clientSchema>>
