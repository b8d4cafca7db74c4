import path from 'node:path'
import { App } from 'aws-cdk-lib'
import { readStageFile, StageFault } from './stage-file.ts'
import { synthesize } from './synthesize.ts'

/** The CDK app: `npx cdk deploy -c stage=<name or file>`. */

try {
  const stage: unknown = new App({ autoSynth: false }).node.tryGetContext('stage')
  if (typeof stage !== 'string' || stage === '') {
    throw new StageFault('', ['none is named: add -c stage=<name>, for example -c stage=local'])
  }
  await synthesize({ stage: readStageFile(stage), name: path.basename(stage, '.json') })
} catch (error) {
  if (!(error instanceof StageFault)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
