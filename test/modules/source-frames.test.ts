import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../infra/bundle.ts'
import { sourceFrames } from '../../lambdas/source-frames.ts'

const root = join(import.meta.dirname, '../..')
let folder: string

/** What a bundle, minified as functions are, tells of the error that `readStage` throws, and of one in what it loads later. */
let told: string
let toldLater: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'source-frames-'))
  const entry = join(folder, 'entry.ts')
  await writeFile(
    entry,
    `import { sourceFrames } from '${root}/lambdas/source-frames.ts'
    import { readStage } from '${root}/shared/stage.ts'
    export const told = () => {
      try {
        readStage('no JSON')
      } catch (error) {
        return sourceFrames(error)
      }
    }
    export const toldLater = async () => {
      try {
        const { fail } = await import('./later.ts')
        fail()
      } catch (error) {
        return sourceFrames(error)
      }
    }`,
  )
  await mkdir(join(folder, 'lambdas'))
  await writeFile(join(folder, 'later.ts'), `export { fail } from './lambdas/fail.ts'`)
  await writeFile(join(folder, 'lambdas/fail.ts'), `\n\nexport const fail = () => {\n  throw new Error('later')\n}`)
  const bundles = await bundle({ entry }, join(folder, 'bundles'))
  const url = pathToFileURL(join(bundles.folderOf('entry'), 'index.mjs')).href
  // In a process of its own, which reads no source maps by itself.
  const script = `const { told, toldLater } = await import('${url}'); console.log(JSON.stringify([told(), await toldLater()]))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
  ;[told = '', toldLater = ''] = JSON.parse(stdout)
})

afterAll(() => rm(folder, { recursive: true }))

test('a frame of a minified bundle is told as its file and line in the sources', () => {
  expect(told).toMatch(/\bshared\/stage\.ts:\d+\b/)
  expect(told).not.toContain('index.mjs')
})

test('so is one in a file that the bundle loads when it is needed', () => {
  expect(toldLater).toMatch(/^lambdas\/fail\.ts:4\b/)
})

test('without a bundle frames are told as they are', () => {
  expect(sourceFrames(new Error('of a test'))).toMatch(/^\S*source-frames\.test\.ts:\d+:\d+/)
})

test('what a message says is no frame', () => {
  const frames = sourceFrames(new Error('first line\n    at secret (file:///var/task/index.mjs:1:1)'))
  expect(frames).not.toContain('secret')
})
