import { Duration } from 'aws-cdk-lib'
import type { CustomResource, Stack } from 'aws-cdk-lib'
import { Rule, Schedule } from 'aws-cdk-lib/aws-events'
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets'
import { ServicePrincipal } from 'aws-cdk-lib/aws-iam'
import type { IFunction } from 'aws-cdk-lib/aws-lambda'
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
  /** The secrets that operators write static clients into. */
  clientArns: readonly string[]
  /** What it takes to read what operators keep for registering at providers. */
  operatorSecrets: (providers: readonly string[]) => Grant
  /** What it takes to read the certificates that are shown at providers. */
  certificates: (providers: readonly string[]) => Grant
  /** The registration of each provider. There is nothing to rotate before it. */
  registrations: Readonly<Record<string, CustomResource>>
}

const secretsManager = (...actions: string[]): string[] => actions.map((action) => `secretsmanager:${action}`)
/** What it takes to change a registration without losing what others write. */
const CHANGING = secretsManager('DescribeSecret', 'GetSecretValue', 'PutSecretValue', 'UpdateSecretVersionStage')

/** The function that rotates our credentials, and for each provider the schedule by which Secrets Manager invokes it. */
const addRotate = (stack: Stack, names: readonly string[], props: RotationProps): IFunction => {
  const { secretArns, registrations, environment, logRetentionDays } = props
  const { function: rotate } = new FlowFunction(stack, 'Rotate', {
    description: 'Rotates the credentials of our clients, invoked by Secrets Manager',
    bundle: props.folderOf('rotate'),
    environment,
    timeoutSeconds: 60,
    logRetentionDays,
    grants: [
      { actions: CHANGING, resources: names.flatMap((name) => secretArns[name] ?? []) },
      props.operatorSecrets(names),
    ],
  })
  for (const name of names) {
    const secretId = secretArns[name] ?? ''
    const principal = new ServicePrincipal('secretsmanager.amazonaws.com')
    rotate.addPermission(`Secret-${name}`, { principal, sourceArn: secretId, sourceAccount: stack.account })
    const schedule = new CfnRotationSchedule(stack, `Rotation-${name}`, {
      secretId,
      rotationLambdaArn: rotate.functionArn,
      rotationRules: { automaticallyAfterDays: props.stage.providers[name]?.rotation.every_days ?? 30 },
      // A deploy has just registered a client, or kept a good one.
      rotateImmediatelyOnUpdate: false,
    })
    schedule.node.addDependency(rotate)
    const registration = registrations[name]
    if (registration !== undefined) schedule.node.addDependency(registration)
  }
  return rotate
}

/**
 * What an operator registers, an operator rotates: everything here is for the clients that are ours, some of which may be left from before
 * a provider's client became static.
 * @returns the functions that do it, by the names of their bundles
 */
export const addRotation = (stack: Stack, props: RotationProps): Record<string, IFunction> => {
  const { secretArns, environment, logRetentionDays } = props
  const providers = Object.entries(props.stage.providers)
  const all = providers.map(([name]) => name)
  const rotated = providers
    .filter(([, { client, rotation }]) => client !== 'static' && rotation.mode !== 'off')
    .map(([name]) => name)
  const rotate = rotated.length === 0 ? undefined : addRotate(stack, rotated, props)
  const arnsOf = (names: readonly string[]): string[] => names.flatMap((name) => secretArns[name] ?? [])
  const { function: upkeep } = new FlowFunction(stack, 'Upkeep', {
    description: 'Deletes clients that have retired, and rotates credentials before they expire',
    bundle: props.folderOf('upkeep'),
    environment,
    timeoutSeconds: 120,
    logRetentionDays,
    grants: [
      { actions: CHANGING, resources: arnsOf(all) },
      { actions: secretsManager('GetSecretValue'), resources: props.clientArns },
      { actions: secretsManager('RotateSecret'), resources: arnsOf(rotated) },
      // Who rotates a secret must be allowed to invoke its function.
      { actions: ['lambda:InvokeFunction'], resources: rotate === undefined ? [] : [rotate.functionArn] },
      props.certificates(all),
    ],
  })
  new Rule(stack, 'EveryHour', {
    description: 'Coatcheck: looks after the clients',
    schedule: Schedule.rate(Duration.hours(1)),
    targets: [new LambdaFunction(upkeep)],
  })
  return { upkeep, ...(rotate && { rotate }) }
}
