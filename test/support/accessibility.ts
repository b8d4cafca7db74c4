import { readFile } from 'node:fs/promises'
import type { Page } from 'playwright-core'

const script = await readFile(new URL('./accessibility.js', import.meta.url), 'utf8')

/** Everything in the page that keeps people out of it, in words; empty is good. */
export const accessibilityFaults = async (page: Page): Promise<string[]> => page.evaluate<string[]>(script)

/** Where the focus is and how it shows, in the page. */
const focused = `(() => {
  const element = document.activeElement
  if (!element || element === document.body) return undefined
  const drawn = element.type === 'radio' ? element.nextElementSibling : element
  const { outlineStyle, outlineWidth } = getComputedStyle(drawn)
  const name = (element.labels?.[0] ?? element).innerText.trim().replace(/\\s+/g, ' ').slice(0, 40)
  return { name, isVisible: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 }
})()`

/** What the keyboard reaches. */
export type Focused = { name: string; isVisible: boolean }

/**
 * Presses Tab until the control of that name has the focus; resolves with everything that had it on the way.
 * @throws an Error where the keyboard does not get there
 */
export const tabTo = async (page: Page, name: string, most = 40): Promise<Focused[]> => {
  const visited: Focused[] = []
  while (visited.length < most) {
    await page.keyboard.press('Tab')
    const now = await page.evaluate<Focused | undefined>(focused)
    if (now) visited.push(now)
    if (now?.name === name) return visited
  }
  throw new Error(`the keyboard does not reach ${name}, only ${visited.map((one) => one.name).join(', ')}`)
}
