import { Failure } from './errors.ts'
import { parseRegistration } from './registration-record.ts'
import type { Registration } from './registration-record.ts'
import { CURRENT } from './secrets.ts'
import type { SecretVersions } from './secrets.ts'
import { random } from './seal.ts'
import { parseStaticKnowledge } from './static-client.ts'
import type { StaticKnowledge } from './static-client.ts'

/** The secret of a provider, changed so that nothing is lost that a rotation or another deploy writes meanwhile. */

/** What was current when it was read: a registration, what is known beside a static client, or neither. */
export interface Kept {
  version: string
  registration: Registration | undefined
  known: StaticKnowledge | undefined
}

export interface ProviderSecret {
  /** What is current; a secret without any value gets an empty one, so that only one of two writers can be the first. */
  read(): Promise<Kept>
  /** That (undefined: nothing) is current in the place of what was read; false when what was read is no longer current. */
  replace(kept: Kept, content: Registration | StaticKnowledge | undefined): Promise<boolean>
  /** The registration that is current is changed, again where somebody else was faster. */
  change(next: (known: Registration | undefined) => Registration | undefined): Promise<void>
}

const NONE = '{}'
/** The same for everybody, so that writing it twice is writing it once. */
const FIRST_VERSION = 'coatcheck-before-the-first-registration'
const ATTEMPTS = 5

/** Every call throws secrets_unavailable where Secrets Manager fails. */
export const createProviderSecret = (versions: SecretVersions, secret: string): ProviderSecret => {
  const current = () => versions.find(secret, { label: CURRENT })

  const read: ProviderSecret['read'] = async () => {
    let found = await current()
    if (found === undefined) {
      await versions.add(secret, { id: FIRST_VERSION, value: NONE }, CURRENT)
      found = await current()
    }
    if (found === undefined) throw new Failure('secrets_unavailable', { detail: 'the secret keeps no value' })
    const { id: version, value } = found
    return { version, registration: parseRegistration(value), known: parseStaticKnowledge(value) }
  }

  const replace: ProviderSecret['replace'] = (kept, content) => {
    const value = content === undefined ? NONE : JSON.stringify(content)
    return versions.replace(secret, { id: random(24), value }, kept.version)
  }

  return {
    read,
    replace,
    async change(next) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        const kept = await read()
        const registration = next(kept.registration)
        if (registration === kept.registration || (await replace(kept, registration))) return
      }
      throw new Failure('secrets_unavailable', { detail: 'the secret is changed by others all the time' })
    },
  }
}
