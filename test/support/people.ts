import { signIn } from './sign-in.ts'
import type { Browser } from './user-agent.ts'

/** People who sign in and call, as fast as they can, until they are stopped; and what did not work for them. */
export const startPeople = (stack: { newBrowser: () => Browser }) => {
  const tabs: Browser[] = []
  const failed: string[] = []
  const stop = new AbortController()
  let turn = 0
  const call = async (tab: Browser | undefined): Promise<void> => {
    const reply = await tab?.fetch('/api/demo/whoami')
    if (reply !== undefined && reply.status !== 200) failed.push(`call ${reply.status} ${reply.text}`)
  }
  const begin = async (): Promise<void> => {
    const tab = stack.newBrowser()
    try {
      const { status, visible } = await signIn(tab, { user: 'ada' })
      if (status === 200) tabs.push(tab)
      else failed.push(`sign-in ${status} ${visible}`)
    } catch (error) {
      failed.push(`sign-in ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  const repeat = async (run: () => Promise<void>): Promise<void> => {
    while (!stop.signal.aborted) await run()
  }
  const running = [
    repeat(begin),
    repeat(async () => {
      turn += 1
      await (tabs.length === 0 ? begin() : call(tabs[turn % tabs.length]))
    }),
    repeat(async () => await (tabs.length === 0 ? begin() : call(tabs[0]))),
  ]
  return {
    /** Every browser that signed in; more come until all are stopped. */
    tabs,
    failed,
    call,
    /** Resolves when what was under way is done. */
    stop: async (): Promise<void> => {
      stop.abort()
      await Promise.all(running)
    },
  }
}
