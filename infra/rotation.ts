import type { CustomResource, Stack } from 'aws-cdk-lib'
import { ServicePrincipal } from 'aws-cdk-lib/aws-iam'
import { CfnRotationSchedule } from 'aws-cdk-lib/aws-secretsmanager'
import type { Stage } from '../shared/config.ts'
import { FlowFunction } from './flow-function.ts'
import type { FlowFunctionProps, Grant } from './flow-function.ts'

interface RotationProps extends Pick<FlowFunctionProps, 'environment' | 'logRetentionDays'> {
  stage: Stage
  /** Folder of a built bundle. */
  folderOf: (name: string) => string
  /** The secret of each provider. */
  secretArns: Readonly<Record<string, string>>
  /** What it takes to read what operators keep for registering at providers. */
  operatorSecrets: (providers: readonly string[]) => Grant
  /** The registration of each provider. There is nothing to rotate before it. */
  registrations: Readonly<Record<string, CustomResource>>
}

/**
 * The stack has the function that rotates our credentials, and for each provider the schedule by which Secrets Manager invokes it; neither
 * where no provider's credentials rotate.
 */
export const addRotation = (stack: Stack, props: RotationProps): void => {
  const { secretArns, registrations, environment, logRetentionDays } = props
  const rotated = Object.entries(props.stage.providers).filter(
    // What an operator registers, an operator rotates.
    ([, { client, rotation }]) => client !== 'static' && rotation.mode !== 'off',
  )
  if (rotated.length === 0) return
  const names = rotated.map(([name]) => name)
  const actions = ['DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage']
  const { function: rotate } = new FlowFunction(stack, 'Rotate', {
    description: 'Rotates the credentials of our clients, invoked by Secrets Manager',
    bundle: props.folderOf('rotate'),
    environment,
    timeoutSeconds: 60,
    logRetentionDays,
    grants: [
      {
        actions: actions.map((action) => `secretsmanager:${action}`),
        resources: names.flatMap((name) => secretArns[name] ?? []),
      },
      props.operatorSecrets(names),
    ],
  })
  for (const [name, settings] of rotated) {
    const secretId = secretArns[name] ?? ''
    const principal = new ServicePrincipal('secretsmanager.amazonaws.com')
    rotate.addPermission(`Secret-${name}`, { principal, sourceArn: secretId, sourceAccount: stack.account })
    const schedule = new CfnRotationSchedule(stack, `Rotation-${name}`, {
      secretId,
      rotationLambdaArn: rotate.functionArn,
      rotationRules: { automaticallyAfterDays: settings.rotation.every_days },
      // A deploy has just registered a client, or kept a good one.
      rotateImmediatelyOnUpdate: false,
    })
    schedule.node.addDependency(rotate)
    const registration = registrations[name]
    if (registration !== undefined) schedule.node.addDependency(registration)
  }
}
