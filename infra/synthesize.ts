import { App } from 'aws-cdk-lib'
import { bundle } from './bundle.ts'
import type { Bundles } from './bundle.ts'
import { bundleEntries } from './flows.ts'
import { CoatcheckStack } from './stack.ts'
import { checkStage, StageFault } from './stage-file.ts'

let built: Promise<Bundles> | undefined

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
  if (!/^[a-z0-9-]{1,64}$/i.test(name)) {
    throw new StageFault(name, [
      'its name goes into the name of the stack: it must be up to 64 letters, digits and hyphens',
    ])
  }
  const checked = checkStage(name, stage)
  built ??= bundle(bundleEntries)
  const bundles = await built
  const app = new App({ ...(outdir === undefined ? {} : { outdir }), analyticsReporting: false })
  new CoatcheckStack(app, `coatcheck-${name}`, { stage: checked, bundles })
  return { assembly: app.synth().directory }
}
