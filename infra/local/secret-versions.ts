import { type AwsRefusal, refusal } from './aws-call.ts'

/** One value of a secret; `stages` are the staging labels attached to it. A rotation begins with a version that has no value yet. */
export interface Version {
  id: string
  value: string | undefined
  createdMs: number
  stages: string[]
}

/** A secret as it is kept; `deletedMs` is set while its deletion is scheduled. */
export interface Secret {
  arn: string
  name: string
  description: string | undefined
  createdMs: number
  changedMs: number
  deletedMs: number | undefined
  versions: Map<string, Version>
  rotation?: { lambdaArn: string; rules: Record<string, unknown>; rotatedMs: number | undefined }
}

/** The number of staging labels that one version can carry. */
export const maxStages = 20

/** The secret has this version, with these labels moved to it from wherever they were. */
export function addVersion(secret: Secret, version: Version, stages: string[]): void {
  secret.versions.set(version.id, version)
  for (const stage of new Set(stages)) attach(secret, stage, version)
  secret.changedMs = version.createdMs
}

/** The label is on this version only; AWSCURRENT leaves AWSPREVIOUS on the version that it came from. */
function attach(secret: Secret, stage: string, version: Version): void {
  const holder = detach(secret, stage)
  version.stages.push(stage)
  if (stage !== 'AWSCURRENT' || !holder || holder === version) return
  // What was pending is current now.
  version.stages = version.stages.filter((label) => label !== 'AWSPENDING')
  detach(secret, 'AWSPREVIOUS')
  holder.stages.push('AWSPREVIOUS')
}

function detach(secret: Secret, stage: string): Version | undefined {
  const holder = holderOf(secret, stage)
  if (holder) holder.stages = holder.stages.filter((label) => label !== stage)
  return holder
}

/**
 * The label has moved between two versions, or on or off one of them. A label that is attached elsewhere moves only where
 * the caller names the version that has it, and AWSCURRENT never comes off without a new holder.
 * Source: AWS Secrets Manager API, UpdateSecretVersionStage.
 */
export function moveStage(
  secret: Secret,
  stage: string,
  removeFrom: string | undefined,
  moveTo: string | undefined,
): void {
  const known = (id: string) => {
    const version = secret.versions.get(id)
    if (!version) throw invalidParameter(`Not a valid version: ${id}`)
    return version
  }
  const from = removeFrom === undefined ? undefined : known(removeFrom)
  const to = moveTo === undefined ? undefined : known(moveTo)
  const holder = holderOf(secret, stage)

  if (from && from !== holder)
    throw invalidParameter(
      `When you move staging label ${stage}, if you specify RemoveFromVersionId, it must be set to the version that ` +
        `currently has the staging label ${stage}.`,
    )
  if (!to) {
    if (!from) throw invalidParameter('You must specify MoveToVersionId or RemoveFromVersionId.')
    if (stage === 'AWSCURRENT')
      throw invalidParameter(
        "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.",
      )
    detach(secret, stage)
    return
  }
  if (holder === to) return
  if (holder && !from)
    throw invalidParameter(
      `The parameter RemoveFromVersionId can't be empty. Staging label ${stage} is currently attached to version ` +
        `${holder.id}, so you must explicitly reference that version in RemoveFromVersionId.`,
    )
  if (to.stages.length >= maxStages) throw tooManyStages()
  attach(secret, stage, to)
}

/** The version by its id, by a staging label, or by both where they agree; AWSCURRENT where neither is given. Its value is there. */
export function chooseVersion(secret: Secret, id: string | undefined, stage: string | undefined): Version {
  if (id === undefined) {
    const label = stage ?? 'AWSCURRENT'
    const version = holderOf(secret, label)
    if (version?.value !== undefined) return version
    throw refusal(
      'ResourceNotFoundException',
      `Secrets Manager can't find the specified secret value for staging label: ${label}`,
    )
  }
  const version = secret.versions.get(id)
  if (version?.value === undefined)
    throw refusal(
      'ResourceNotFoundException',
      `Secrets Manager can't find the specified secret value for VersionId: ${id}`,
    )
  if (stage !== undefined && !version.stages.includes(stage))
    throw refusal(
      'InvalidRequestException',
      'You provided a VersionStage that is not associated to the provided VersionId.',
    )
  return version
}

/** The version that has a staging label. */
export function holderOf(secret: Secret, stage: string): Version | undefined {
  return [...secret.versions.values()].find(({ stages }) => stages.includes(stage))
}

/** A refusal of what a parameter says. */
export function invalidParameter(message: string): AwsRefusal {
  return refusal('InvalidParameterException', message)
}

/** A refusal of more labels than a version can carry. */
export function tooManyStages(): AwsRefusal {
  return refusal('LimitExceededException', `A version can have ${maxStages} staging labels.`)
}
