import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { chromium, type Browser, type LaunchOptions } from 'playwright-core'

const run = promisify(execFile)
const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))

/** Pages may reach this machine and nothing else. */
const offTheNetwork = [
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-domain-reliability',
  '--disable-gpu',
  '--no-pings',
]

/**
 * Unpacks the npm package's Chromium with its own libraries and fonts, once a version, beside the installed modules.
 * It unpacks aside and renames, so that parallel runs never meet half a browser. Its name for Lambda makes the package
 * bring the system libraries that a bare machine lacks.
 */
const unpacked = async (): Promise<LaunchOptions> => {
  const { version } = JSON.parse(await readFile(join(modules, '@sparticuz/chromium/package.json'), 'utf8'))
  const home = join(modules, '.cache', `chromium-${version}`)
  if (!existsSync(home)) {
    await mkdir(dirname(home), { recursive: true })
    const aside = await mkdtemp(`${home}-`)
    const unpack = "await (await import('@sparticuz/chromium')).default.executablePath()"
    const env = { ...process.env, TMPDIR: aside, AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x' }
    await run(process.execPath, ['--input-type=module', '--eval', unpack], { cwd: dirname(modules), env })
    const fonts = `<fontconfig><dir>${home}/fonts</dir><cachedir>${home}/fonts-cache</cachedir></fontconfig>`
    await writeFile(join(aside, 'fonts.conf'), fonts)
    await rename(aside, home).catch(() => rm(aside, { recursive: true }))
  }
  const env = { LD_LIBRARY_PATH: join(home, 'al2023/lib'), FONTCONFIG_FILE: join(home, 'fonts.conf'), HOME: home }
  return { executablePath: join(home, 'chromium'), env: { ...process.env, ...env } }
}

/** The browsers to try, best first: the one that is asked for, the one from npm, one that is installed. */
const candidates = (): (() => Promise<LaunchOptions>)[] => {
  const asked = process.env['CHROMIUM_PATH']
  if (asked) return [async () => ({ executablePath: asked })]
  const installed = [async () => ({ channel: 'chrome' }), async () => ({ channel: 'chromium' })]
  return process.platform === 'linux' && process.arch === 'x64' ? [unpacked, ...installed] : installed
}

/**
 * Starts a headless Chromium that reaches only this machine. On Linux x64 it comes from npm and needs no system
 * packages; elsewhere an installed Chrome is used, and `CHROMIUM_PATH` names another one.
 * @throws an Error that says what to do when no browser starts; nothing is skipped silently.
 */
export const launchChromium = async (): Promise<Browser> => {
  const root = process.getuid?.() === 0
  const failures: string[] = []
  for (const candidate of candidates()) {
    try {
      const options = await candidate()
      return await chromium.launch({ args: [...offTheNetwork, ...(root ? ['--no-sandbox'] : [])], ...options })
    } catch (error) {
      failures.push(String(error).split('\n').slice(0, 12).join('\n'))
    }
  }
  throw new Error(
    `No Chromium starts here. Install Chrome, or name a Chromium with CHROMIUM_PATH.\n${failures.join('\n')}`,
  )
}
