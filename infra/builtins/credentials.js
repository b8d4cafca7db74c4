/**
 * Stands in for `@aws-sdk/credential-provider-node` in bundles: Lambda gives a function the credentials of its role in the environment,
 * and no function should look for others.
 * @see AWS Lambda, "Defined runtime environment variables"
 */
export const defaultProvider = () => async () => {
  const {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_SESSION_TOKEN: sessionToken,
  } = process.env
  if (!accessKeyId || !secretAccessKey) throw new Error('the environment holds no credentials')
  return { accessKeyId, secretAccessKey, sessionToken }
}
