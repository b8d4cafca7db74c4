import { Duration, RemovalPolicy } from 'aws-cdk-lib'
import { Effect, PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam'
import { Architecture, Code, Function as LambdaFunction, LoggingFormat, Runtime } from 'aws-cdk-lib/aws-lambda'
import { LogGroup } from 'aws-cdk-lib/aws-logs'
import type { RetentionDays } from 'aws-cdk-lib/aws-logs'
import { Construct } from 'constructs'

/** What a function may do, and to what. */
export interface Grant {
  actions: readonly string[]
  resources: readonly string[]
}

export interface FlowFunctionProps {
  /** One sentence for the console. */
  description: string
  /** Folder of the built bundle. */
  bundle: string
  environment: Record<string, string>
  /** Longest run, in seconds. */
  timeoutSeconds: number
  logRetentionDays: number
  grants: readonly Grant[]
}

/** A flow as a Lambda function: its bundle, its log group, and a role that may do what it is granted here and nothing else. */
export class FlowFunction extends Construct {
  readonly function: LambdaFunction

  constructor(scope: Construct, id: string, props: FlowFunctionProps) {
    super(scope, id)
    const logGroup = new LogGroup(this, 'Log', {
      retention: props.logRetentionDays as RetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    })
    const statements = [
      { actions: ['logs:CreateLogStream', 'logs:PutLogEvents'], resources: [logGroup.logGroupArn] },
      ...props.grants.filter((grant) => grant.resources.length > 0),
    ].map(
      ({ actions, resources }) =>
        new PolicyStatement({ effect: Effect.ALLOW, actions: [...actions], resources: [...resources] }),
    )
    const role = new Role(this, 'Role', {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description: `What the ${id} function of Coatcheck may do`,
      inlinePolicies: { Flow: new PolicyDocument({ statements }) },
    })
    this.function = new LambdaFunction(this, 'Function', {
      description: props.description,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      handler: 'index.handler',
      code: Code.fromAsset(props.bundle),
      memorySize: 512,
      timeout: Duration.seconds(props.timeoutSeconds),
      environment: props.environment,
      role,
      logGroup,
      loggingFormat: LoggingFormat.TEXT,
    })
  }
}
