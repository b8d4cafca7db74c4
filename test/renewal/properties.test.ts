import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { fc } from '../support/seeded.ts'
import { peace } from './process.ts'
import { carryOut, type Plan, type Step } from './scenario.ts'
import { variants } from './variants.ts'
import type { World } from './world.ts'

const current = vi.hoisted((): { world: World | undefined } => ({ world: undefined }))
vi.mock('node:timers/promises', () => ({ setTimeout: (ms: number) => current.world?.delay(ms) }))
vi.mock('../../lambdas/report.ts', () => ({
  audit: () => undefined,
  endedSessions: () => ({}),
  holderOf: () => ({}),
  reportFailure: () => undefined,
  bestEffort: async (_flow: string, _request: unknown, run: () => Promise<unknown>) => run().catch(() => undefined),
}))
vi.spyOn(Math, 'random').mockImplementation(() => current.world?.random() ?? 0.5)

const use = (world: World): void => {
  current.world = world
}

const seeds = Number(process.env['SEEDS'] ?? 200)

const steps = (most: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.record({
      afterMs: fc.oneof(
        fc.integer({ min: 0, max: 30 }),
        fc.integer({ min: 0, max: 3_000 }),
        fc.integer({ min: 0, max: 25_000 }),
      ),
      browser: fc.integer({ min: 0, max: 3 }),
      what: fc.constantFrom('call', 'call', 'call', 'burst', 'burst', 'keep-alive', 'logout', 'login', 'replay'),
      api: fc.constantFrom('demo' as const, 'billing' as const, 'reports' as const, 'all' as const),
    }),
    { minLength: 4, maxLength: most, size: 'max' },
  )

const share = (most: number) => fc.constantFrom(0, 0, most / 4, most)
const someTrouble = fc.record({
  crash: share(0.04),
  stall: share(0.03),
  store: share(0.1),
  server: share(0.4),
  lambda: share(0.3),
  duplicate: share(0.5),
  secrets: share(0.2),
})

const plans = (of: Partial<Plan>, trouble: fc.Arbitrary<Plan['trouble']>): fc.Arbitrary<Plan> =>
  fc
    .record({
      seed: fc.integer(),
      rotation: fc.constant('strict' as const),
      shared: fc.constant(false),
      accessTokenSeconds: fc.constantFrom(20, 60),
      trouble,
      steps: steps(20),
    })
    .map((plan): Plan => Object.assign({}, plan, of))

const cases: [string, Partial<Plan>][] = [
  ['strict rotation', { rotation: 'strict' }],
  ['rotation with grace', { rotation: 'grace' }],
  ['no rotation', { rotation: 'reusable' }],
  ['one grant a user', { rotation: 'strict', shared: true }],
  ['strict rotation, routes with tokens of their own', { rotation: 'strict', routes: true }],
  ['rotation with grace, routes with tokens of their own', { rotation: 'grace', routes: true }],
  ['no rotation, routes with tokens of their own', { rotation: 'reusable', routes: true }],
  ['one grant a user, routes with tokens of their own', { rotation: 'strict', shared: true, routes: true }],
]

test.each(cases)(
  '%s, in peace',
  async (_, of) => {
    await fc.assert(
      fc.asyncProperty(plans({ ...of, trouble: peace }, fc.constant(peace)), async (plan) => {
        expect(await carryOut(plan, {}, use)).toEqual([])
      }),
      { numRuns: seeds },
    )
  },
  600_000,
)

test.each(cases)(
  '%s, in trouble',
  async (_, of) => {
    await fc.assert(
      fc.asyncProperty(plans(of, someTrouble), async (plan) => {
        expect(await carryOut(plan, {}, use)).toEqual([])
      }),
      { numRuns: seeds },
    )
  },
  600_000,
)

test('the variants are those of the documentation', () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/renewal.md'), 'utf8')
  const [, table = ''] = text.split('| variant | what it breaks |\n')
  const named = table.split('\n\n')[0]?.split('\n').slice(1)
  expect(named?.map((row) => row.split('|')[1]?.trim())).toEqual(variants.map(({ what }) => what))
})

test.each(variants)(
  'would find $what',
  async ({ variant, where, routes = false, trouble }) => {
    const of: Partial<Plan> = { routes, ...(where === 'shared' ? { shared: true } : { rotation: where }) }
    const found = await fc.check(
      fc.asyncProperty(plans(of, fc.constant(trouble)), async (plan) => {
        expect(await carryOut(plan, variant, use)).toEqual([])
      }),
      { numRuns: 1_000, endOnFailure: true },
    )
    expect(found.failed).toBe(true)
  },
  600_000,
)
