import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { apiTokenPage, errorPage, signedOutPage, signOutPage, STYLE_HASH, styleSheet } from '../../lambdas/pages.ts'
import { formsOf, linksOf, visibleText } from '../support/html.ts'
import { fc } from '../support/seeded.ts'

const error = { status: 400, code: 'login_invalid', sentence: 'A sentence.', requestId: 'req=1', tryAgain: undefined }
const question = {
  provider: 'demo',
  host: 'as.example',
  state: 's1',
  otherWay: '/bff/login?method=oauth',
  formTargets: [],
}
const problem = { status: 403, sentence: 'A sentence.' }
const textOf = ({ body }: { body?: string | Uint8Array }): string => (typeof body === 'string' ? body : '')
const policyOf = ({ headers = {} }: { headers?: Record<string, string> }) => headers['content-security-policy']

test('the policy allows the style sheet of the page, by its hash, and no other', () => {
  expect(STYLE_HASH).toBe(`sha256-${createHash('sha256').update(styleSheet()).digest('base64')}`)
  for (const page of [errorPage(error), signedOutPage(), signOutPage('/bff/logout', []), apiTokenPage(question)]) {
    const styles = [...textOf(page).matchAll(/<style>([\s\S]*?)<\/style>/g)].map(([, style]) => style)
    expect(styles).toEqual([styleSheet()])
    expect(policyOf(page)).toContain(`; style-src '${STYLE_HASH}';`)
    expect(textOf(page)).not.toMatch(/\sstyle=|\son\w+=|<script|<link|<img/i)
  }
})

test('the confirmation may lead to the given origins, the other pages’ forms nowhere else', () => {
  const page = signOutPage('/bff/logout', ['https://as.example', 'http://127.0.0.1:8081'])
  expect(policyOf(page)).toBe(
    `default-src 'none'; style-src '${STYLE_HASH}'; form-action 'self' https://as.example http://127.0.0.1:8081; ` +
      "base-uri 'none'; frame-ancestors 'none'",
  )
  expect(policyOf(signedOutPage())).toContain("; form-action 'self'; ")
})

describe('the error page', () => {
  test('says what happened, with the code and the id for an operator', () => {
    const page = errorPage(error)
    expect(page).toMatchObject({ status: 400, headers: { 'content-type': 'text/html; charset=utf-8' } })
    expect(visibleText(textOf(page))).toBe(
      'Sign-in did not finish A sentence. Go to the front page Code login_invalid Request req=1',
    )
  })

  test.each([
    [401, 'session_required', 'Please sign in'],
    [403, 'csrf_rejected', 'That did not go through'],
    [404, 'route_not_allowed', 'There is nothing here'],
    [502, 'authorization_server_invalid', 'The sign-in service had a problem'],
    [502, 'resource_server_unavailable', 'The API had a problem'],
    [503, 'provider_not_ready', 'That is not available right now'],
    [418, 'whatever', 'That did not go through'],
  ])('has a title for status %i', (status, code, title) => {
    expect(textOf(errorPage({ ...error, status, code }))).toContain(`<title>${title}</title>`)
  })

  test('offers to try again only where that is known to lead somewhere', () => {
    const tryAgain = '/bff/login?provider=demo&return_to=%2Fa'
    expect(linksOf(textOf(errorPage({ ...error, tryAgain })))).toEqual([
      { href: tryAgain, text: 'Sign in again' },
      { href: '/', text: 'Go to the front page' },
    ])
    expect(linksOf(textOf(errorPage(error)))).toEqual([{ href: '/', text: 'Go to the front page' }])
  })

  test.each([
    ['session_required', 401, 'Sign in'],
    ['access_not_granted', 403, 'Sign in again'],
  ])('offers the sign-in that %s asks for', (code, status, text) => {
    expect(linksOf(textOf(errorPage({ ...error, code, status })))[0]).toEqual({ href: '/bff/login', text })
  })
})

describe('the page that asks for an API token', () => {
  test('has a labelled field that nothing remembers, and says what it is for', () => {
    const page = textOf(apiTokenPage(question))
    expect(page).toMatch(
      /<label for="token">API token<\/label>\s*<input id="token" name="token" type="password" required/,
    )
    expect(page).toMatch(/autocomplete="off" autocapitalize="none" spellcheck="false" aria-describedby="hint">/)
    expect(formsOf(page)[0]).toMatchObject({ action: '/bff/api-token/demo', method: 'POST' })
    expect(formsOf(page)[0]?.fields).toEqual([
      ['state', 's1'],
      ['token', ''],
    ])
    expect(linksOf(page).map(({ href }) => href)).toEqual(['/bff/login?method=oauth', '/'])
  })

  test('says what was wrong where a reader hears it first, and names it at the field', () => {
    const page = apiTokenPage({ ...question, problem })
    expect(page.status).toBe(403)
    expect(textOf(page)).toContain('<p class="problem" role="alert" id="problem">A sentence.</p>')
    expect(textOf(page)).toContain('aria-invalid="true" aria-describedby="problem hint"')
  })

  test('says where there is no other way, and lets the form lead to the given origins', () => {
    const page = apiTokenPage({ ...question, otherWay: undefined, formTargets: ['https://app.example'] })
    expect(visibleText(textOf(page))).toContain('There is no other way to sign in here: as.example offers none')
    expect(linksOf(textOf(page)).map(({ href }) => href)).toEqual(['/'])
    expect(policyOf(page)).toContain("form-action 'self' https://app.example; ")
  })
})

/** The elements of a page with their attributes' names, so that any that does not belong there shows. */
const skeletonOf = (page: string): string[] =>
  [...page.matchAll(/<\/?(\w+)((?:\s+[\w-]+(?:="[^"]*")?)*)\s*>/g)].map(([, name = '', attributes = '']) =>
    [name, ...[...attributes.matchAll(/([\w-]+)(?:="[^"]*")?/g)].map(([, attribute]) => attribute)].join(' '),
  )

test('whatever a value holds, it stays text: no element, no attribute, no entity of its own', () => {
  const hostile = fc.oneof(
    fc.string({ unit: fc.constantFrom(...'< > " \' & / = ; - ! a script'.split(' '), ' ') }),
    fc.constantFrom('</dd><script>alert(1)</script>', '" onclick="x', "' autofocus onfocus='x", '&lt;b&gt;', '<!--'),
  )
  const written = hostile.map((text) => text.replace(/[\r\n]/g, '')).filter((text) => text !== '')
  const plain = errorPage({ ...error, tryAgain: '/bff/login' })
  fc.assert(
    fc.property(written, (text) => {
      const page = textOf(
        errorPage({ status: 400, code: text, sentence: text, requestId: text, tryAgain: `/bff/login?${text}` }),
      )
      expect(skeletonOf(page)).toEqual(skeletonOf(textOf(plain)))
      expect(linksOf(page)[0]?.href).toBe(`/bff/login?${text}`)
      const form = textOf(signOutPage(`/bff/logout?${text}`, []))
      expect(skeletonOf(form)).toEqual(skeletonOf(textOf(signOutPage('/bff/logout', []))))
      expect(formsOf(form)[0]?.action).toBe(`/bff/logout?${text}`)
      const given = { provider: text, host: text, state: text, otherWay: `/bff/login?${text}`, formTargets: [] }
      const asking = textOf(apiTokenPage({ ...given, problem: { status: 403, sentence: text } }))
      expect(skeletonOf(asking)).toEqual(skeletonOf(textOf(apiTokenPage({ ...question, problem }))))
    }),
  )
})
