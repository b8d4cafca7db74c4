/** The eras of Coder as an authorization server, by the first release of each that matters to a client. */
export const eras = ['2.31', '2.34', '2.37', '2.38'] as const

/** Up to 2.31; 2.32 to 2.36; 2.37; from 2.38 on. */
export type Era = (typeof eras)[number]

/** What an era does differently from the others. */
export const rulesOf = (era: Era) => {
  const since = (first: Era): boolean => eras.indexOf(era) >= eras.indexOf(first)
  return {
    /** As `buildinfo` and `X-Coder-Build-Version` tell it. */
    version: `v${era}.1+5c1cd3a`,
    authMethods: [
      ...(since('2.34') ? ['client_secret_basic'] : []),
      'client_secret_post',
      ...(since('2.38') ? ['none'] : []),
    ],
    basicAtTokenEndpoint: since('2.34'),
    publicClients: since('2.37'),
    pkceRequired: since('2.34'),
    pkceForm: since('2.37'),
    /** Which redirect URIs work: of the registered host and below the registered path, the first registered, any registered. */
    redirectUris: since('2.38') ? 'any' : since('2.34') ? 'first' : 'below',
    refusesUnknownParameters: !since('2.38'),
    sendsErrorsBack: since('2.38'),
    enforcesScopes: since('2.38'),
    authenticatesRefreshAndRevoke: since('2.38'),
    /** How a request is told that another one won: a status and a body, `undefined` for `invalid_grant`. */
    losesRacesWith500: !since('2.38'),
    noStore: since('2.37'),
    secretInQuery: !since('2.38'),
    csrfOnConsent: since('2.34'),
    registrationCanBeOff: since('2.37'),
    wellKnownWhenOff: !since('2.34'),
    statusWhenOff: since('2.38') ? 404 : 403,
  } as const
}

/** The rules of an era. */
export type Rules = ReturnType<typeof rulesOf>
