/** A secret under a name, so that a finding can be told without telling the secret. */
export type Canary = { name: string; value: string }

/** Where a secret shows: its name, the form in which it stands there, and the place. */
export type Leak = { name: string; form: string; place: string }

const partLength = 16

const base64Of = (value: string, shift: number): string => {
  const encoded = Buffer.from('\0'.repeat(shift) + value, 'utf8').toString('base64')
  const start = Math.ceil((shift * 8) / 6)
  const whole = Math.floor(((shift + Buffer.byteLength(value)) * 8) / 6)
  return encoded.slice(start, whole)
}

/** The forms in which a secret may hide: as it is, its start, URL-encoded, JSON, hex, base64 at any offset. */
const formsOf = (value: string): [form: string, text: string][] => {
  const hex = Buffer.from(value, 'utf8').toString('hex')
  const base64 = [0, 1, 2].map((shift) => base64Of(value, shift))
  return [
    ['as it is', value],
    ['in bytes', latin1(Buffer.from(value, 'utf8'))],
    [`its first ${partLength} characters`, value.slice(0, partLength)],
    [`its last ${partLength} characters`, value.slice(-partLength)],
    ['URL-encoded', encodeURIComponent(value)],
    ['form-encoded', new URLSearchParams({ '': value }).toString().slice(1)],
    ['in JSON', JSON.stringify(value).slice(1, -1)],
    ['in hex', hex],
    ['in hex', hex.toUpperCase()],
    ...base64.map((text): [string, string] => ['in base64', text]),
    ...base64.map((text): [string, string] => ['in base64url', text.replaceAll('+', '-').replaceAll('/', '_')]),
  ]
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

/** A value as text to search: JSON, but bytes as bytes wherever they stand in it. */
const textOf = (content: unknown): string => {
  if (typeof content === 'string') return content
  if (content instanceof Uint8Array) return latin1(content)
  const bytesAsText = function (this: Record<string, unknown>, key: string, value: unknown): unknown {
    const original = this[key]
    return original instanceof Uint8Array ? latin1(original) : value
  }
  return JSON.stringify(content, bytesAsText) ?? ''
}

/**
 * Every place that shows a secret, in whatever form; empty is good. Secrets shorter than 16 characters are refused,
 * since they would be found by chance.
 * @throws an Error for a secret that is too short
 */
export const leaksOf = (secrets: readonly (string | Canary)[], places: Record<string, unknown>): Leak[] => {
  const texts = Object.entries(places).map(([place, content]): [string, string] => [place, textOf(content)])
  return secrets.flatMap((secret, index) => {
    const { name, value } = typeof secret === 'string' ? { name: `secret ${index}`, value: secret } : secret
    if (value.length < partLength) throw new Error(`${name} is too short to search for`)
    return texts.flatMap(([place, text]) => {
      const found = formsOf(value).find(([, form]) => text.includes(form))
      return found ? [{ name, form: found[0], place }] : []
    })
  })
}
