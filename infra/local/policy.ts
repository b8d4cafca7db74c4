import { ACCOUNT_ID, type AwsCall, type AwsFault, isRecord, tableArn } from './aws-call.ts'

/** A statement of an identity-based IAM policy with its CloudFormation functions already resolved. */
export interface Statement {
  Sid?: string
  Effect: 'Allow' | 'Deny'
  Action: string | string[]
  Resource: string | string[]
}

/** Who an access key stands for: a function, under the role whose statements apply to it. */
export interface Principal {
  functionName: string
  roleName: string
  statements: Statement[]
}

/**
 * The returned check answers what IAM would: undefined where the caller's statements allow the call, else AWS's own
 * refusal, naming function, action and resource. The `admin` key may do everything; keys may be added to `principals` later.
 * Throws an Error where a statement has a member (Condition, NotAction, ...) that is not evaluated here.
 */
export function createPolicyGate(options: {
  principals: ReadonlyMap<string, Principal>
  admin: string
}): (call: AwsCall) => AwsFault | undefined {
  const understood = new WeakSet<Principal>()
  const check = (principal: Principal) => {
    if (understood.has(principal)) return
    for (const statement of principal.statements) refuseUnknownMembers(statement, principal)
    understood.add(principal)
  }
  for (const principal of options.principals.values()) check(principal)

  return (call) => {
    if (call.accessKeyId === options.admin) return undefined
    const principal = options.principals.get(call.accessKeyId)
    if (!principal)
      return {
        status: 400,
        type: 'UnrecognizedClientException',
        message: 'The security token included in the request is invalid.',
      }
    check(principal)
    for (const { action, resource } of needsOf(call)) {
      const refused = judge(principal.statements, action, resource)
      if (refused === undefined) continue
      const user = `arn:aws:sts::${ACCOUNT_ID}:assumed-role/${principal.roleName}/${principal.functionName}`
      return {
        status: 400,
        type: 'AccessDeniedException',
        message: `User: ${user} is not authorized to perform: ${action} on resource: ${resource} ${refused}`,
      }
    }
    return undefined
  }
}

const evaluatedMembers = new Set(['Sid', 'Effect', 'Action', 'Resource'])

function refuseUnknownMembers(statement: Statement, principal: Principal): void {
  const where = `a statement of role ${principal.roleName} (function ${principal.functionName})`
  for (const member of Object.keys(statement))
    if (!evaluatedMembers.has(member)) throw new Error(`${where} has ${member}, which the local run does not evaluate`)
  if (statement.Effect !== 'Allow' && statement.Effect !== 'Deny')
    throw new Error(`${where} has the Effect ${String(statement.Effect)}`)
  for (const value of [statement.Action, statement.Resource].flat())
    if (typeof value !== 'string') throw new Error(`${where} has an unresolved value: ${JSON.stringify(value)}`)
}

/** Why the action is refused, in the words that end AWS's message; undefined where it is allowed. */
function judge(statements: Statement[], action: string, resource: string): string | undefined {
  const matching = statements.filter(
    ({ Action, Resource }) =>
      [Action].flat().some((pattern) => matches(pattern.toLowerCase(), action.toLowerCase())) &&
      [Resource].flat().some((pattern) => matches(pattern, resource)),
  )
  if (matching.some(({ Effect }) => Effect === 'Deny')) return 'with an explicit deny in an identity-based policy'
  if (matching.length === 0) return `because no identity-based policy allows the ${action} action`
  return undefined
}

function matches(pattern: string, value: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`, 's').test(value)
}

/** Members of a transaction's items and the actions that they need instead of an action of the transaction's own. */
const transactionActions: Record<string, string> = {
  ConditionCheck: 'dynamodb:ConditionCheckItem',
  Put: 'dynamodb:PutItem',
  Update: 'dynamodb:UpdateItem',
  Delete: 'dynamodb:DeleteItem',
}

/** What a call must be allowed to do: its action on each resource and what it leads to; for a transaction, the action of each of its items. */
export function needsOf(call: AwsCall): { action: string; resource: string }[] {
  const items = call.action === 'dynamodb:TransactWriteItems' ? call.input['TransactItems'] : undefined
  if (!Array.isArray(items))
    return [...call.resources.map((resource) => ({ action: call.action, resource })), ...(call.also ?? [])]
  return items.filter(isRecord).flatMap((item) =>
    Object.entries(item).map(([member, request]) => ({
      action: transactionActions[member] ?? call.action,
      resource: tableArn(isRecord(request) ? request['TableName'] : undefined),
    })),
  )
}
