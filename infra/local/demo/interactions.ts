import type { IncomingMessage, ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Interaction, Provider } from 'oidc-provider'
import type { DemoUser } from './authorization-server.ts'
import { html, page, sendPage } from './pages.ts'

const scopeWords: Record<string, string> = {
  openid: 'Know who you are',
  profile: 'See your name and user name',
  email: 'See your email address',
  offline_access: 'Keep access while you are away',
  'demo:read': 'Read from the demo resource server',
  'demo:write': 'Write to the demo resource server',
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/**
 * Serves the two pages where the user decides: who signs in (field `user`, or `cancel`), and whether the client may have
 * what it asks for (field `consent`: `allow` or `deny`). They are plain forms that post to their own address.
 */
export const createInteractions = (
  provider: Provider,
  issuer: string,
  users: readonly DemoUser[],
): ((request: IncomingMessage, response: ServerResponse) => Promise<void>) => {
  const clientName = async ({ params }: Interaction): Promise<string> => {
    const client = await provider.Client.find(textOf(params['client_id']))
    return client?.clientName ?? client?.clientId ?? 'The client'
  }

  const signInPage = async (interaction: Interaction): Promise<string> => {
    const hint = textOf(interaction.params['login_hint']).toLowerCase()
    const hinted = users.find(({ id, email }) => hint === id || hint === email)
    const offered = hinted ? [hinted, ...users.filter((user) => user !== hinted)] : users
    const signedIn = interaction.session?.accountId
    return page(
      issuer,
      'Who are you?',
      html`<p>${await clientName(interaction)} asks you to sign in. This is a demo: one click, no password.</p>
        <form method="post">
          ${offered.map(
            (user) =>
              html`<button name="user" value="${user.id}" ${user === hinted ? html` class="hinted" autofocus` : ''}>
                ${user.name}<small>${user.email}${user.id === signedIn ? ' · signed in now' : ''}</small>
              </button> `,
          )}<button class="plain" name="cancel" value="yes">Cancel</button>
        </form>`,
    )
  }

  const consentPage = async (interaction: Interaction): Promise<string> => {
    const { params, session } = interaction
    const user = users.find(({ id }) => id === session?.accountId)
    const scopes = textOf(params['scope']).split(' ').filter(Boolean)
    const name = await clientName(interaction)
    return page(
      issuer,
      `Allow ${name}?`,
      html`<p>
          You are ${user?.name ?? 'signed in'}. ${name}, at ${new URL(textOf(params['redirect_uri'])).origin}, asks to:
        </p>
        <ul>
          ${scopes.map((scope) => html`<li>${scopeWords[scope] ?? 'Use this scope'} <code>${scope}</code></li>`)}
        </ul>
        <form method="post">
          <button class="main" name="consent" value="allow">Allow</button>
          <button class="plain" name="consent" value="deny">Deny</button>
        </form>`,
    )
  }

  const grantWhatIsMissing = async ({ grantId, params, prompt, session }: Interaction): Promise<string> => {
    const known = grantId === undefined ? undefined : await provider.Grant.find(grantId)
    const owner = { accountId: session?.accountId, clientId: textOf(params['client_id']) }
    const grant = known ?? new provider.Grant(owner)
    const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details
    if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '))
    if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims)
    for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, scopes.join(' '))
    }
    return await grant.save()
  }

  const decide = async (interaction: Interaction, form: URLSearchParams) => {
    const user = users.find(({ id }) => id === form.get('user'))
    if (interaction.prompt.name === 'login' && user) return { login: { accountId: user.id } }
    if (interaction.prompt.name === 'consent' && form.get('consent') === 'allow') {
      return { consent: { grantId: await grantWhatIsMissing(interaction) } }
    }
    if (!form.has('cancel') && form.get('consent') !== 'deny') return undefined
    const description = form.has('cancel') ? 'The user cancelled the sign-in' : 'The user denied the request'
    return { error: 'access_denied', error_description: description }
  }

  return async (request, response) => {
    const interaction = await provider.interactionDetails(request, response).catch(() => undefined)
    if (!interaction) {
      const explanation = html`<p>
        It was finished, or it took too long. Go back to the page that sent you here and start again.
      </p>`
      sendPage(response, 400, page(issuer, 'This sign-in is over', explanation))
      return
    }
    const result =
      request.method === 'POST' ? await decide(interaction, new URLSearchParams(await text(request))) : undefined
    if (result) {
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: 'consent' in result })
      return
    }
    const show = interaction.prompt.name === 'consent' ? consentPage : signInPage
    sendPage(response, 200, await show(interaction))
  }
}
