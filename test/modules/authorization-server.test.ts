import { describe, expect, test } from 'vitest'
import { createAuthorizationServer } from '../../shared/authorization-server.ts'
import { parseStage } from '../../shared/config.ts'
import { Failure } from '../../shared/errors.ts'
import type { Grant, Tokens } from '../../shared/grant-record.ts'
import type { OAuth, TokenReply } from '../../shared/oauth.ts'
import { newRegistration } from '../../shared/registration-record.ts'

/** Which resource is named at which request (RFC 8707), whatever the stage has become since the user signed in. */

const issuer = 'https://as.example'
const unexpected = () => Promise.reject(new Error('an unexpected call'))

const reply: TokenReply = {
  access_token: 'at',
  refresh_token: 'rt',
  id_token: undefined,
  scope: undefined,
  expires_in_seconds: 300,
  claims: undefined,
}

/** The authorization server under a stage with that resource, and the resources that it is asked for. */
const under = (resource: string | undefined) => {
  const parsed = parseStage({
    origin: 'https://app.example',
    providers: { main: { issuer, ...(resource !== undefined && { resource }) } },
  })
  if (!parsed.ok) throw new Error(parsed.faults.join('; '))
  const client = {
    client_id: 'c',
    token_endpoint_auth_method: 'none' as const,
    redirect_uri: 'https://app.example/bff/callback/main',
  }
  const metadata = { issuer, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token` }
  const registration = newRegistration(metadata, client)
  const asked: (string | undefined)[] = []
  const oauth: OAuth = {
    checkCallback: (_, parameters) => parameters,
    push: unexpected,
    exchange: unexpected,
    userInfo: unexpected,
    revoke: unexpected,
    redeem: (_peer, _parameters, login) => Promise.resolve((asked.push(login.resource), reply)),
    refresh: (_peer, _token, named) => Promise.resolve((asked.push(named), reply)),
  }
  const server = createAuthorizationServer({
    stage: parsed.stage,
    credentials: { of: () => Promise.resolve(registration), again: unexpected },
    oauth,
    readAccount: unexpected,
    now: () => 1_000_000,
    pause: unexpected,
  })
  return { server, asked }
}

const signIn = async ({ server }: ReturnType<typeof under>, resource: string | undefined): Promise<Tokens> => {
  const login = { state: 's', issuer, clientId: 'c', redirectUri: 'r', codeVerifier: 'v', nonce: undefined, resource }
  return (await server.finish('main', new URLSearchParams({ code: 'c' }), login)).tokens
}
const grant: Grant = {
  key: { pk: 'A#a', sk: 'G#g' },
  version: 1,
  provider: 'main',
  clientId: 'c',
  freshUntil: 0,
  expires: 0,
  leaseUntilMs: 0,
  retryAtMs: 0,
  ttl: 0,
  sealed: new Uint8Array(),
  generation: 1,
  routes: undefined,
  routesVersion: 0,
}
const refresh = async ({ server }: ReturnType<typeof under>, tokens: Tokens): Promise<Tokens> => {
  const outcome = await server.refresh(grant, tokens, Infinity)
  if (outcome.kind !== 'refreshed') throw new Error(outcome.kind)
  return outcome.tokens
}

describe('the resource of a grant', () => {
  const [old, other] = ['https://old.example', 'https://new.example']

  test.each([
    [old, old],
    [old, other],
    [old, undefined],
    [undefined, other],
    [undefined, undefined],
  ])('is %s at every refresh, where the stage says %s by then', async (granted, later) => {
    const [before, after] = [under(granted), under(later)]
    const tokens = await signIn(before, granted)
    await refresh(after, await refresh(after, tokens))
    expect([before.asked, after.asked]).toEqual([[granted], [granted, granted]])
  })

  test('is the one of the login where the stage changed between authorization and callback', async () => {
    const after = under(other)
    await refresh(after, await signIn(after, old))
    expect(after.asked).toEqual([old, old])
  })

  test.each([[other], [undefined]])('is that of the stage, %s, where the record does not tell it yet', async (now) => {
    const after = under(now)
    const { resources: _, ...tokens } = await signIn(under(old), old)
    await refresh(after, tokens)
    expect(after.asked).toEqual([now])
  })
})

describe('a client that the server refuses', () => {
  const tokens: Tokens = { access_token: 'at', refresh_token: 'rt', id_token: undefined, scope: undefined, expires: 0 }

  /** A refresh under that mode of rotation, where the secret is another one from that re-reading on. */
  const refused = async (mode: string, renewedAt: number, sendByMs = Infinity) => {
    const parsed = parseStage({
      origin: 'https://app.example',
      providers: { main: { issuer, rotation: { mode } } },
    })
    if (!parsed.ok) throw new Error(parsed.faults.join('; '))
    const metadata = { issuer, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token` }
    const registrationOf = (secret: string) =>
      newRegistration(metadata, {
        client_id: 'c',
        client_secret: secret,
        token_endpoint_auth_method: 'client_secret_basic',
        redirect_uri: 'https://app.example/bff/callback/main',
      })
    const waits: number[] = []
    let read = 0
    let sent = 0
    let nowMs = 0
    const server = createAuthorizationServer({
      stage: parsed.stage,
      credentials: {
        of: () => Promise.resolve(registrationOf('void')),
        again: () => Promise.resolve(registrationOf((read += 1) >= renewedAt ? 'new' : 'void')),
      },
      oauth: {
        checkCallback: (_, parameters) => parameters,
        push: unexpected,
        exchange: unexpected,
        userInfo: unexpected,
        revoke: unexpected,
        redeem: unexpected,
        refresh: ({ client }) => {
          sent += 1
          if (client.client_secret !== 'new') throw new Failure('client_rejected')
          return Promise.resolve(reply)
        },
      },
      readAccount: unexpected,
      now: () => nowMs,
      pause: (milliseconds) => {
        waits.push(milliseconds)
        nowMs += milliseconds
        return Promise.resolve()
      },
    })
    const outcome = await server.refresh(grant, tokens, sendByMs)
    return [outcome.kind === 'unavailable' ? outcome.reason : outcome.kind, waits, sent]
  }

  test.each([
    ['successor', 1, ['refreshed', [], 2]],
    ['successor', 2, ['client_rejected', [], 2]],
    ['in-place', 1, ['refreshed', [], 2]],
    ['in-place', 2, ['refreshed', [300], 3]],
    ['in-place', 3, ['refreshed', [300, 700], 4]],
    ['in-place', 4, ['refreshed', [300, 700, 1_000], 5]],
    ['in-place', 5, ['client_rejected', [300, 700, 1_000], 5]],
  ])('in mode %s is read again, and has its new secret at re-reading %s: %j', async (mode, renewedAt, outcome) => {
    expect(await refused(mode, renewedAt)).toEqual(outcome)
  })

  test('is not sent for once the time for that is over', async () => {
    expect(await refused('in-place', 4, 1_500)).toEqual(['renewal_pending', [300, 700, 1_000], 4])
  })
})
