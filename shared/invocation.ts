import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda'

/** Asynchronous invocations of the function of that name; Lambda has queued the event when one resolves. */
export const createInvocation = (functionName: string): ((event: object) => Promise<void>) => {
  const client = new LambdaClient({
    maxAttempts: 2,
    requestHandler: { connectionTimeout: 1_000, requestTimeout: 2_000, throwOnRequestTimeout: true },
  })
  return async (event) => {
    await client.send(
      new InvokeCommand({
        FunctionName: functionName,
        InvocationType: 'Event',
        Payload: Buffer.from(JSON.stringify(event)),
      }),
    )
  }
}
