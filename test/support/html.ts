/** A form of a page: what a browser would send, before the user types or chooses a button. */
export type Form = {
  /** As written; empty where the form posts to its own page. */
  action: string
  method: 'GET' | 'POST'
  fields: [name: string, value: string][]
  buttons: { name: string; value: string; text: string }[]
  /** The visible words of the form, blanks collapsed. */
  text: string
}

/** A link of a page, `href` as written. */
export type Link = { href: string; text: string }

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00A0' }

const unescape = (text: string): string =>
  text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex, decimal, name) => {
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16))
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal))
    return entities[name] ?? whole
  })

const attributesOf = (tag: string): Record<string, string> => {
  const found: Record<string, string> = {}
  for (const [, name = '', double, single, bare] of tag.matchAll(
    /([\w:-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?/g,
  )) {
    found[name.toLowerCase()] = unescape(double ?? single ?? bare ?? '')
  }
  return found
}

const textOf = (html: string): string =>
  unescape(html.replace(/<(script|style)\b[\s\S]*?<\/\1>/gi, '').replace(/<[^>]*>/g, ' '))
    .replace(/\s+/g, ' ')
    .trim()

const elements = (html: string, name: string) =>
  [...html.matchAll(new RegExp(`<${name}\\b([^>]*)>([\\s\\S]*?)</${name}>`, 'gi'))].map(([, tag = '', inner = '']) => ({
    attributes: attributesOf(tag),
    inner,
  }))

/** The forms of a page in order; regular markup only: no form attributes, no nesting, no `>` in an attribute. */
export const formsOf = (html: string): Form[] =>
  elements(html, 'form').map(({ attributes, inner }) => {
    const fields: Form['fields'] = []
    const buttons: Form['buttons'] = []
    for (const [, tag = ''] of inner.matchAll(/<input\b([^>]*)>/gi)) {
      const { name = '', value, type = 'text', checked, disabled } = attributesOf(tag)
      const choice = type === 'radio' || type === 'checkbox'
      if (type === 'submit') buttons.push({ name, value: value ?? '', text: value ?? '' })
      else if (name !== '' && disabled === undefined && (!choice || checked !== undefined)) {
        fields.push([name, value ?? (choice ? 'on' : '')])
      }
    }
    for (const { attributes: tag, inner: label } of elements(inner, 'button')) {
      if ((tag['type'] ?? 'submit') !== 'submit') continue
      buttons.push({ name: tag['name'] ?? '', value: tag['value'] ?? '', text: textOf(label) })
    }
    for (const { attributes: tag, inner: options } of elements(inner, 'select')) {
      const choices = elements(options, 'option')
      const chosen = choices.find((option) => 'selected' in option.attributes) ?? choices[0]
      if (tag['name'] && chosen) fields.push([tag['name'], chosen.attributes['value'] ?? textOf(chosen.inner)])
    }
    return {
      action: attributes['action'] ?? '',
      method: (attributes['method'] ?? '').toLowerCase() === 'post' ? 'POST' : 'GET',
      fields,
      buttons,
      text: textOf(inner),
    }
  })

/** The links of a page in order. */
export const linksOf = (html: string): Link[] =>
  elements(html, 'a').flatMap(({ attributes, inner }) =>
    attributes['href'] === undefined ? [] : [{ href: attributes['href'], text: textOf(inner) }],
  )

/** The visible words of a page, entities decoded and blanks collapsed. */
export const visibleText = (html: string): string => textOf(html.replace(/<head\b[\s\S]*?<\/head>/i, ''))
