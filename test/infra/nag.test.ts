import { App } from 'aws-cdk-lib'
import { AwsSolutionsChecks } from 'cdk-nag'
import { expect, test } from 'vitest'
import { bundle } from '../../infra/bundle.ts'
import { bundleEntries } from '../../infra/flows.ts'
import { CoatcheckStack } from '../../infra/stack.ts'
import { checkStage } from '../../infra/stage-file.ts'

/** Findings of the AwsSolutions rules that are meant to be, each with its reason. Anything else fails. */
const accepted: Record<string, string> = {
  'AwsSolutions-DDB3':
    'Sessions are disposable: a restored table would bring back ended sessions and spent refresh tokens.',
  'AwsSolutions-SMG4':
    'Sealing keys rotate by key id and client credentials by the registration; neither can be rotated by a schedule alone.',
  'AwsSolutions-APIG4':
    'The routes are how users get authorized. Each checks its session, its login cookie or its request proof itself.',
}

test('the stack has no finding of cdk-nag that is not accepted for a reason', async () => {
  const app = new App({ context: { 'aws:cdk:bundling-stacks': [] } })
  const stage = checkStage('nag', {
    origin: 'https://app.example.com',
    providers: { main: { issuer: 'https://as.example.com' } },
    apis: { orders: { provider: 'main', target: 'https://orders.example.com' } },
  })
  const stack = new CoatcheckStack(app, 'coatcheck-nag', { stage, bundles: await bundle(bundleEntries) })
  const { violations } = new AwsSolutionsChecks(app).validateScope(stack)
  expect([...new Set(violations.map(({ ruleName }) => ruleName))].toSorted()).toEqual(Object.keys(accepted).toSorted())
})
