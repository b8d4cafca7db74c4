import { createHash } from 'node:crypto'
import { CfnOutput, Duration, RemovalPolicy, Stack } from 'aws-cdk-lib'
import type { StackProps } from 'aws-cdk-lib'
import { CfnStage, HttpApi, HttpMethod } from 'aws-cdk-lib/aws-apigatewayv2'
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations'
import { AttributeType, BillingMode, Table, TableEncryption } from 'aws-cdk-lib/aws-dynamodb'
import type { IFunction } from 'aws-cdk-lib/aws-lambda'
import { LogGroup } from 'aws-cdk-lib/aws-logs'
import type { RetentionDays } from 'aws-cdk-lib/aws-logs'
import { CfnSecret, Secret } from 'aws-cdk-lib/aws-secretsmanager'
import type { Construct } from 'constructs'
import type { Stage } from '../shared/config.ts'
import { addAlarms } from './alarms.ts'
import type { Bundles } from './bundle.ts'
import { addDashboard } from './dashboard.ts'
import { background, dynamoDb, flows, orders } from './flows.ts'
import { FlowFunction } from './flow-function.ts'
import type { Grant } from './flow-function.ts'
import { addRegistrations } from './registration.ts'
import { addRotation } from './rotation.ts'
import { StageFault } from './stage-file.ts'

/** The whole product: HTTP API → one function a flow → one table and a few secrets. */

/** A construct's name, from a flow's. */
const idOf = (name: string): string => name.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** A function's environment holds 4,096 bytes; the rest is for names, ARNs and Lambda's own. */
const STAGE_LIMIT_BYTES = 3_000

export interface CoatcheckStackProps extends StackProps {
  stage: Stage
  /** The built functions. */
  bundles: Bundles
}

export class CoatcheckStack extends Stack {
  constructor(scope: Construct, id: string, { stage, bundles, ...props }: CoatcheckStackProps) {
    super(scope, id, { description: 'Coatcheck: a token-exchange backend-for-frontend', ...props })
    const removalPolicy = stage.removal === 'retain' ? RemovalPolicy.RETAIN : RemovalPolicy.DESTROY
    // What functions do not need has no place in their environment.
    const { $schema: _, alarms: __, ...settings } = stage
    const stageText = JSON.stringify(settings)
    if (Buffer.byteLength(stageText) > STAGE_LIMIT_BYTES) {
      throw new StageFault('file', [
        `it comes to ${Buffer.byteLength(stageText)} bytes with defaults; a function's environment has room for ${STAGE_LIMIT_BYTES}`,
      ])
    }

    const table = new Table(this, 'Table', {
      partitionKey: { name: 'pk', type: AttributeType.STRING },
      sortKey: { name: 'sk', type: AttributeType.STRING },
      billingMode: BillingMode.PAY_PER_REQUEST,
      encryption: TableEncryption.AWS_MANAGED,
      timeToLiveAttribute: 'ttl',
      deletionProtection: stage.removal === 'retain',
      removalPolicy,
    })

    const sealingSecret = new Secret(this, 'SealingKeys', {
      description: 'Coatcheck: keys that seal cookies and records, by key id',
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ current: 'k1' }),
        generateStringKey: 'k1',
        passwordLength: 64,
        excludePunctuation: true,
      },
      removalPolicy,
    })

    const secretArns = Object.fromEntries(
      Object.keys(stage.providers).map((name) => {
        const secret = new Secret(this, `Provider-${name}`, {
          description: `Coatcheck: registration and credentials at ${name}`,
          removalPolicy,
        })
        // It has no value until our client is registered; a generated one would look like credentials.
        if (secret.node.defaultChild instanceof CfnSecret) secret.node.defaultChild.generateSecretString = undefined
        return [name, secret.secretArn] as const
      }),
    )
    const clientArns = this.clientSecrets(stage, removalPolicy)
    const certificateArns = this.existing(Object.values(stage.providers).map((provider) => provider.certificate_secret))
    const credentialArns = [...Object.values(secretArns), ...Object.values(clientArns)]

    const environment = {
      COATCHECK_STAGE: stageText,
      COATCHECK_STACK: this.stackName,
      COATCHECK_TABLE: table.tableName,
      COATCHECK_SEALING_SECRET: sealingSecret.secretArn,
      COATCHECK_PROVIDER_SECRETS: this.toJsonString(secretArns),
      ...(Object.keys(clientArns).length > 0 && { COATCHECK_CLIENT_SECRETS: this.toJsonString(clientArns) }),
    }
    const logRetentionDays = stage.logs.retention_days
    const read = (resources: readonly string[]): Grant => ({ actions: ['secretsmanager:GetSecretValue'], resources })

    const accessLog = new LogGroup(this, 'AccessLog', {
      retention: logRetentionDays as RetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    })
    const api = new HttpApi(this, 'HttpApi', { description: 'Coatcheck', createDefaultStage: true })
    if (api.defaultStage?.node.defaultChild instanceof CfnStage) {
      // Neither paths with their queries nor headers: a callback's query holds a code, a cookie header the ticket.
      api.defaultStage.node.defaultChild.accessLogSettings = {
        destinationArn: accessLog.logGroupArn,
        format: JSON.stringify({
          request_id: '$context.requestId',
          route: '$context.routeKey',
          status: '$context.status',
          duration_ms: '$context.responseLatency',
          integration_error: '$context.integrationErrorMessage',
        }),
      }
    }

    const keys = read([sealingSecret.secretArn])
    const shared = { environment, logRetentionDays }
    const { function: worker } = new FlowFunction(this, 'Background', {
      ...shared,
      description: background.description,
      bundle: bundles.folderOf('background'),
      timeoutSeconds: background.timeoutSeconds,
      grants: [
        { actions: background.table, resources: [table.tableArn] },
        keys,
        read([...credentialArns, ...certificateArns]),
      ],
    })
    worker.configureAsyncInvoke({ retryAttempts: 2, maxEventAge: Duration.hours(1) })

    const functions: Record<string, IFunction> = { background: worker }
    // Who ends a grant that sessions share marks it first.
    const perUser = Object.values(stage.providers).some((provider) => provider.grants === 'per-user')
    for (const [name, flow] of Object.entries({ ...flows, ...orders })) {
      const marking = perUser && flow.table.includes('dynamodb:DeleteItem') ? dynamoDb('UpdateItem') : []
      const { function: handler } = new FlowFunction(this, idOf(name), {
        ...shared,
        description: flow.description,
        bundle: bundles.folderOf(name),
        environment: { ...environment, ...(flow.tasks && { COATCHECK_BACKGROUND: worker.functionName }) },
        timeoutSeconds: flow.timeoutSeconds,
        grants: [
          {
            actions: [...new Set([...flow.table, ...marking])],
            resources: flow.table.length === 0 ? [] : [table.tableArn],
          },
          ...(flow.sealing ? [keys] : []),
          read([...(flow.providers ? credentialArns : []), ...(flow.calls ? certificateArns : [])]),
          { actions: ['lambda:InvokeFunction'], resources: flow.tasks ? [worker.functionArn] : [] },
        ],
      })
      functions[name] = handler
      if (Object.hasOwn(orders, name)) {
        new CfnOutput(this, `${idOf(name)}Function`, { value: handler.functionName, description: flow.description })
      }
      for (const route of flow.routes) {
        const integration = new HttpLambdaIntegration(`${name}-integration`, handler)
        api.addRoutes({ path: route, methods: [HttpMethod.ANY], integration })
      }
    }

    const forClients = {
      ...shared,
      stage,
      folderOf: (name: string) => bundles.folderOf(name),
      secretArns,
      operatorSecrets: (providers: readonly string[]) => this.operatorSecrets(stage, providers),
    }
    const rotation = addRotation(this, {
      ...forClients,
      clientArns: Object.values(clientArns),
      certificates: (providers) =>
        read(this.existing(providers.map((name) => stage.providers[name]?.certificate_secret))),
      registrations: addRegistrations(this, forClients),
    })
    addDashboard(this, { api, alarms: addAlarms(this, { stage, functions: { ...functions, ...rotation } }) })
    new CfnOutput(this, 'ApiUrl', { value: api.apiEndpoint, description: 'Origin of /bff and /api behind your domain' })
    new CfnOutput(this, 'TableName', { value: table.tableName })
    new CfnOutput(this, 'SealingKeysSecret', {
      value: sealingSecret.secretArn,
      description: 'For npm run keys: the secret of the keys that seal cookies and records',
    })
  }

  /** ARNs of secrets that the stage names: each once. */
  private existing(names: readonly (string | undefined)[]): string[] {
    return [...new Set(names.filter((name) => name !== undefined))].map((name) =>
      name.startsWith('arn:')
        ? name
        : // Secrets Manager ends each ARN in a hyphen and six characters of its own.
          `arn:${this.partition}:secretsmanager:${this.region}:${this.account}:secret:${name}-??????`,
    )
  }

  /** A secret for each client that an operator registers. It is named for its issuer, so that no other one is ever sent what is in it. */
  private clientSecrets(stage: Stage, removalPolicy: RemovalPolicy): Record<string, string> {
    const named = Object.entries(stage.providers).filter(([, { client }]) => client === 'static')
    return Object.fromEntries(
      named.map(([name, { issuer }]) => {
        const id = `Client-${name}-${createHash('sha256').update(issuer).digest('hex').slice(0, 8)}`
        const secret = new Secret(this, id, {
          description: `Coatcheck: write {"client_id": "...", "client_secret": "..."} of your client at ${issuer} here; see docs/operations.md`,
          removalPolicy,
        })
        if (secret.node.defaultChild instanceof CfnSecret) secret.node.defaultChild.generateSecretString = undefined
        new CfnOutput(this, `ClientSecret-${name}`, {
          value: secret.secretArn,
          description: `Write your client at ${issuer} into this secret`,
        })
        return [name, secret.secretArn] as const
      }),
    )
  }

  /** Reading what operators keep for registering at these providers. */
  private operatorSecrets(stage: Stage, providers: readonly string[]): Grant {
    const named = providers.flatMap((name) => stage.providers[name] ?? [])
    return {
      actions: ['secretsmanager:GetSecretValue'],
      resources: this.existing(
        named.flatMap((provider) => [provider.initial_access_token_secret, provider.certificate_secret]),
      ),
    }
  }
}
