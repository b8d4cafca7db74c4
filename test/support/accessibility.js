// Runs inside a page: an expression that answers with what keeps people out, in words. Written out and without a library,
// since the pages' own policy lets no script in. What it looks for is in WCAG 2.2: 1.3.1, 1.4.3, 1.4.10, 1.4.11, 2.4.2,
// 2.4.6, 3.1.1, 4.1.2.
;(() => {
  const faults = []
  const check = (ok, fault) => void (ok || faults.push(fault))
  const name = (element) =>
    `<${element.localName}> ${(element.textContent ?? '').trim().replace(/\s+/g, ' ').slice(0, 40)}`
  const isShown = (element) =>
    element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0
  const all = (selector) => [...document.querySelectorAll(selector)].filter(isShown)

  check(/^[a-z]{2}(-|$)/.test(document.documentElement.lang), 'no language')
  check(document.title.trim() !== '', 'no title')
  check(document.querySelector('meta[name=viewport]')?.content === 'width=device-width, initial-scale=1', 'no viewport')
  check(all('h1').length === 1, `${all('h1').length} first headings`)
  check(all('main').length === 1, `${all('main').length} main landmarks`)

  let level = 0
  for (const heading of all('h1, h2, h3, h4, h5, h6')) {
    const next = Number(heading.localName[1])
    check(next <= level + 1, `${name(heading)} skips a level`)
    check(heading.textContent.trim() !== '', 'an empty heading')
    level = next
  }

  const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id)
  for (const id of ids.filter((one, index) => ids.indexOf(one) !== index)) faults.push(`#${id} is there twice`)
  for (const attribute of ['aria-labelledby', 'aria-describedby']) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(/\s+/))
        check(ids.includes(id), `${attribute} misses #${id}`)
    }
  }
  for (const field of all('input:not([type=hidden]), select, textarea')) {
    const label = [...(field.labels ?? [])].map(({ textContent }) => textContent.trim()).join('')
    check(label !== '' || field.ariaLabel, `${name(field)} has no label`)
  }
  for (const control of all('a[href], button, summary')) {
    check(control.textContent.trim() !== '' || control.ariaLabel, `${name(control)} has no name`)
  }
  for (const image of document.querySelectorAll('img')) check(image.hasAttribute('alt'), `${image.src} has no text`)
  for (const region of all('section, [role=region]')) {
    check(region.ariaLabel || region.hasAttribute('aria-labelledby'), `${name(region)} has no label`)
  }

  const { clientWidth, scrollWidth } = document.documentElement
  check(scrollWidth <= clientWidth, `${scrollWidth} px wide in ${clientWidth} px`)

  const parse = (colour) => {
    const [r = 0, g = 0, b = 0, alpha = 1] = (colour.match(/[\d.]+/g) ?? []).map(Number)
    return { rgb: [r, g, b], alpha }
  }
  const over = (front, back) => {
    const { rgb, alpha } = front
    return rgb.map((value, index) => value * alpha + back[index] * (1 - alpha))
  }
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255]
  const groundOf = (element) => {
    if (!element) return canvas
    const colour = parse(getComputedStyle(element).backgroundColor)
    return colour.alpha === 1 ? colour.rgb : over(colour, groundOf(element.parentElement))
  }
  const luminance = (rgb) => {
    const [r, g, b] = rgb
      .map((value) => value / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].toSorted((a, b) => a - b)
    return (light + 0.05) / (dark + 0.05)
  }

  let texts = 0
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const { parentElement: element, textContent } = walker.currentNode
    if (textContent.trim() === '' || !isShown(element) || element.closest('option, script, style, noscript')) continue
    texts += 1
    check(element.closest('main, header, aside, footer, nav, .skip'), `${name(element)} is outside of every landmark`)
    const ground = groundOf(element)
    const ratio = contrast(over(parse(getComputedStyle(element).color), ground), ground)
    check(ratio >= 4.5, `${name(element)} has a contrast of ${ratio.toFixed(2)}`)
  }
  check(texts >= 2, `only ${texts} texts were looked at`)

  for (const control of all('button, .button, .primary, input:not([type=radio], [type=checkbox]), select, textarea')) {
    const style = getComputedStyle(control)
    const around = groundOf(control.parentElement)
    const edges = [style.borderTopColor, style.backgroundColor].map((colour) =>
      contrast(over(parse(colour), around), around),
    )
    check(Math.max(...edges) >= 3, `${name(control)} does not stand out`)
    check(control.getBoundingClientRect().height >= 18, `${name(control)} is too small`)
  }
  return faults
})()
