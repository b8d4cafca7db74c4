import * as fc from 'fast-check'

/** fast-check with the seed that `SEED` says, or always the same: a run that fails can be had again, and other runs by asking for them. */

fc.configureGlobal({ seed: Number(process.env['SEED'] ?? 1) })

export { fc }
