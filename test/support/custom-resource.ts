import { randomUUID } from 'node:crypto'
import { startRecordingServer } from './server.ts'
import type { startStrictStack } from './stacks.ts'

/** A CloudFormation that sends the events of our custom resource and keeps the answers. */
export const startDeploy = async () => {
  const server = await startRecordingServer(
    () => 'answer',
    () => ({ status: 200 }),
  )
  return {
    /** Every answer as it arrived, oldest first. */
    answers: server.requests,
    /** The stack's register function gets an event; resolves with what it answered. */
    run: async (
      { stack }: Pick<Awaited<ReturnType<typeof startStrictStack>>, 'stack'>,
      RequestType: 'Create' | 'Update' | 'Delete',
      RequestId: string = randomUUID(),
    ): Promise<Record<string, unknown>> => {
      await stack.invoke('Register', {
        RequestType,
        RequestId,
        ResponseURL: `${server.url}/${RequestId}`,
        StackId: 'arn:aws:cloudformation:us-east-1:000000000000:stack/a/b',
        LogicalResourceId: 'Registration',
        ...(RequestType === 'Create' ? {} : { PhysicalResourceId: 'registration-demo' }),
        ResourceProperties: { Provider: 'demo' },
        ...(RequestType === 'Update' ? { OldResourceProperties: { Provider: 'demo' } } : {}),
      })
      return JSON.parse(server.requests.at(-1)?.body.toString() ?? '{}')
    },
    close: server.close,
  }
}
