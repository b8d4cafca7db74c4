import { CfnOutput, CustomResource } from 'aws-cdk-lib'
import type { Stack } from 'aws-cdk-lib'
import { Effect, Policy, PolicyStatement } from 'aws-cdk-lib/aws-iam'
import type { Stage } from '../shared/config.ts'
import { register } from './flows.ts'
import { FlowFunction } from './flow-function.ts'
import type { FlowFunctionProps, Grant } from './flow-function.ts'

interface RegistrationProps extends Pick<FlowFunctionProps, 'environment' | 'logRetentionDays'> {
  stage: Stage
  /** Folder of a built bundle. */
  folderOf: (name: string) => string
  /** The secret of each provider. */
  secretArns: Readonly<Record<string, string>>
  /** What it takes to read what operators keep for registering at providers. */
  operatorSecrets: (providers: readonly string[]) => Grant
}

const ACTIONS = ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage']

/**
 * Our client at each provider, registered before the deploy ends and looked at again whenever the stage changes. A provider that is taken
 * out of the stage takes its client along: CloudFormation deletes in the order of dependencies, the registration before the right to its
 * secret and the secret itself.
 */
export const addRegistrations = (stack: Stack, props: RegistrationProps): Record<string, CustomResource> => {
  const { stage, secretArns, environment, logRetentionDays } = props
  const { function: handler } = new FlowFunction(stack, 'Register', {
    description: register.description,
    bundle: props.folderOf('register'),
    environment,
    timeoutSeconds: 60,
    logRetentionDays,
    grants: [props.operatorSecrets(Object.keys(stage.providers))],
  })
  new CfnOutput(stack, 'RegisterFunction', {
    value: handler.functionName,
    description: 'Repairs a registration: see docs/operations.md',
  })
  return Object.fromEntries(
    Object.entries(stage.providers).map(([name, settings]) => {
      const secret = secretArns[name] ?? ''
      const actions = ACTIONS.map((action) => `secretsmanager:${action}`)
      const right = new Policy(stack, `RegisterSecret-${name}`, {
        roles: handler.role === undefined ? [] : [handler.role],
        statements: [new PolicyStatement({ effect: Effect.ALLOW, actions, resources: [secret] })],
      })
      // The function is changed after that: a right takes a while to be known everywhere.
      handler.node.addDependency(right)
      const registration = new CustomResource(stack, `Registration-${name}`, {
        serviceToken: handler.functionArn,
        resourceType: 'Custom::CoatcheckRegistration',
        properties: { Provider: name, Origin: stage.origin, Settings: JSON.stringify(settings), Secret: secret },
      })
      registration.node.addDependency(right)
      return [name, registration] as const
    }),
  )
}
