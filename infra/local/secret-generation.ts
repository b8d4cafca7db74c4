import { randomInt } from 'node:crypto'
import { isRecord } from './aws-call.ts'
import { invalidParameter } from './secret-versions.ts'

const lower = 'abcdefghijklmnopqrstuvwxyz'
const digits = '0123456789'

function pick(alphabet: string): string {
  return alphabet.charAt(randomInt(alphabet.length))
}

/** A template's boolean: CloudFormation takes `"true"` for `true`. */
function isOn(value: unknown, fallback: boolean): boolean {
  return value === undefined ? fallback : value === true || value === 'true'
}

/**
 * A new value for a secret by the template's `GenerateSecretString`: a random password, or a JSON object with one in it.
 * Source: CloudFormation AWS::SecretsManager::Secret GenerateSecretString.
 */
export function generateSecretString(properties: Record<string, unknown>): string {
  const { ExcludeCharacters: given } = properties
  const excluded = typeof given === 'string' ? given : ''
  const length = Number(properties['PasswordLength'] ?? 32)
  const types = [
    isOn(properties['ExcludeLowercase'], false) ? '' : lower,
    isOn(properties['ExcludeUppercase'], false) ? '' : lower.toUpperCase(),
    isOn(properties['ExcludeNumbers'], false) ? '' : digits,
    isOn(properties['ExcludePunctuation'], false) ? '' : '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~',
    isOn(properties['IncludeSpace'], false) ? ' ' : '',
  ].map((type) => Array.from(type, (character) => (excluded.includes(character) ? '' : character)).join(''))
  const included = types.filter((type) => type !== '')
  const required = isOn(properties['RequireEachIncludedType'], true) ? included : []
  if (included.length === 0 || !(length >= Math.max(1, required.length) && length <= 4096))
    throw invalidParameter(`GenerateSecretString allows no password of ${length} characters.`)

  const characters: string[] = []
  for (const type of [...required, ...Array.from({ length: length - required.length }, () => included.join(''))])
    characters.splice(randomInt(characters.length + 1), 0, pick(type))
  const password = characters.join('')

  const { SecretStringTemplate: template, GenerateStringKey: key } = properties
  if (template === undefined && key === undefined) return password
  const object: unknown = JSON.parse(String(template))
  if (!isRecord(object) || typeof key !== 'string')
    throw invalidParameter('SecretStringTemplate is a JSON object and needs GenerateStringKey.')
  return JSON.stringify({ ...object, [key]: password })
}
