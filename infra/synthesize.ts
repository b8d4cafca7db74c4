import { App } from 'aws-cdk-lib'
import { bundle } from './bundle.ts'
import type { Bundles } from './bundle.ts'
import { bundleEntries, CoatcheckStack } from './stack.ts'
import { checkStage } from './stage-file.ts'

let built: Bundles | undefined

/**
 * The cloud assembly of a stage is in `outdir`, or where the CDK command wants it. Bundles are built once a process.
 * @param stage content of a stage file
 * @param name of the stage; the stack is called after it
 * @throws StageFault
 */
export const synthesize = async ({
  stage,
  outdir,
  name = 'local',
}: {
  stage: unknown
  outdir?: string
  name?: string
}): Promise<{ assembly: string }> => {
  const checked = checkStage(name, stage)
  built ??= bundle(bundleEntries)
  const app = new App({ ...(outdir === undefined ? {} : { outdir }), analyticsReporting: false })
  new CoatcheckStack(app, `coatcheck-${name}`, { stage: checked, bundles: built })
  return { assembly: app.synth().directory }
}
