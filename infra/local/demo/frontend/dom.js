/** The element with this id, which the page has. */
export const byId = (id) => document.getElementById(id)

/** An element with attributes and children; strings become text, never markup. */
export const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children.filter((child) => child !== undefined))
  return made
}

/** Shows or hides the elements with these ids. */
export const show = (visible, ...ids) => {
  for (const id of ids) byId(id).hidden = !visible
}

/** A time span in seconds, as a clock reads it. */
export const clock = (seconds) => {
  const rest = Math.max(0, Math.floor(seconds))
  const two = (value) => String(value).padStart(2, '0')
  const [days, hours] = [Math.floor(rest / 86_400), Math.floor(rest / 3600) % 24]
  const minutes = two(Math.floor(rest / 60) % 60)
  if (days > 0) return `${days} d ${two(hours)}:${minutes}`
  return hours > 0 ? `${hours}:${minutes}:${two(rest % 60)}` : `${minutes}:${two(rest % 60)}`
}

/** Runs the action on an event, and marks the button while it runs; events that come meanwhile are ignored. */
export const onceAtATime = (target, event, button, action) => {
  let running = false
  const run = async () => {
    if (running) return
    running = true
    button.setAttribute('aria-disabled', 'true')
    await action()
    button.removeAttribute('aria-disabled')
    running = false
  }
  target.addEventListener(event, () => void run())
}
