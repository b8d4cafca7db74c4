import middy from '@middy/core'
import type { CloudFormationCustomResourceEvent } from 'aws-lambda'
import { causeName, Failure } from '../shared/errors.ts'
import { logger, sendAnywhere } from './runtime.ts'

/** Between CloudFormation's custom resource events and a flow: the answer goes to the event's ResponseURL, whatever happens. */

export interface ResourceEvent {
  type: 'Create' | 'Update' | 'Delete'
  /** Stays the same when CloudFormation repeats the event. */
  requestId: string
  /** What the resource is known by so far; none while it is created. */
  id: string | undefined
  properties: Readonly<Record<string, string>>
  /** What they were before an update. */
  oldProperties: Readonly<Record<string, string>>
}

export interface ResourceOutcome {
  /** Physical id; a changed one makes CloudFormation delete the old resource. */
  id: string
  attributes: Record<string, string>
}

const RESPONSE_TIMEOUT_MS = 10_000
const REASON_LIMIT_CHARACTERS = 1_000

const stringProperties = (properties: Record<string, unknown>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(properties).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])),
  )

const isOfCloudFormation = (event: unknown): event is CloudFormationCustomResourceEvent =>
  typeof event === 'object' && event !== null && 'ResponseURL' in event && typeof event.ResponseURL === 'string'

/** What the operator reads when a deploy fails: our own words, with what the other server said already cut to size. */
const reasonOf = (error: unknown): string =>
  error instanceof Failure ? (error.detail ?? error.reason) : `internal error: ${causeName(error)}`

/** What CloudFormation knows a resource by that could not be created; it is deleted under this name, and is nothing. */
const FAILED = 'failed-'

/** Whether a resource was never created. */
export const isFailedCreate = (id: string | undefined): boolean => id?.startsWith(FAILED) ?? false

/**
 * A Lambda handler for a custom resource, and for orders: events of an operator, who reads the outcome where he sent them.
 * @see CloudFormation, "Custom resource response objects"
 */
export const customResource = (
  flow: string,
  run: (event: ResourceEvent) => Promise<ResourceOutcome>,
  obey: (order: unknown) => Promise<object>,
) =>
  middy().handler(async (event: unknown) => {
    if (!isOfCloudFormation(event)) {
      try {
        return await obey(event)
      } catch (error) {
        logger().error('order failed', { flow, reason: reasonOf(error) })
        throw new Error(reasonOf(error), { cause: error })
      }
    }
    const answer = async (
      status: 'SUCCESS' | 'FAILED',
      reason: string,
      { id, attributes }: ResourceOutcome,
    ): Promise<void> => {
      const body = JSON.stringify({
        Status: status,
        Reason: reason.slice(0, REASON_LIMIT_CHARACTERS),
        PhysicalResourceId: id,
        StackId: event.StackId,
        RequestId: event.RequestId,
        LogicalResourceId: event.LogicalResourceId,
        Data: attributes,
      })
      await sendAnywhere()({
        method: 'PUT',
        url: new URL(event.ResponseURL),
        // The presigned URL is signed for an empty content type.
        headers: { 'content-type': '' },
        body: Buffer.from(body),
        timeoutMs: RESPONSE_TIMEOUT_MS,
        maxBytes: 65_536,
      })
    }
    try {
      const outcome = await run({
        type: event.RequestType,
        requestId: event.RequestId,
        id: event.RequestType === 'Create' ? undefined : event.PhysicalResourceId,
        properties: stringProperties(event.ResourceProperties),
        oldProperties: event.RequestType === 'Update' ? stringProperties(event.OldResourceProperties) : {},
      })
      await answer('SUCCESS', '', outcome)
    } catch (error) {
      logger().error('custom resource failed', { flow, reason: reasonOf(error) })
      const id = event.RequestType === 'Create' ? `${FAILED}${event.LogicalResourceId}` : event.PhysicalResourceId
      await answer('FAILED', reasonOf(error), { id, attributes: {} })
    }
  })
