import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../infra/bundle.ts'
import { sourceFrames } from '../../lambdas/source-frames.ts'

const root = join(import.meta.dirname, '../..')
let folder: string

/** What a bundle, minified as functions are, tells of the error that `readStage` throws. */
let told: () => string

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
    }`,
  )
  const bundles = bundle({ entry }, join(folder, 'bundles'))
  const loaded: { told: () => string } = await import(pathToFileURL(join(bundles.folderOf('entry'), 'index.mjs')).href)
  told = loaded.told
})

afterAll(() => rm(folder, { recursive: true }))

test('a frame of a minified bundle is told as its file and line in the sources', () => {
  expect(told()).toMatch(/\bshared\/stage\.ts:\d+\b/)
  expect(told()).not.toContain('index.mjs')
})

test('without a bundle frames are told as they are', () => {
  expect(sourceFrames(new Error('of a test'))).toMatch(/^\S*source-frames\.test\.ts:\d+:\d+/)
})

test('what a message says is no frame', () => {
  const frames = sourceFrames(new Error('first line\n    at secret (file:///var/task/index.mjs:1:1)'))
  expect(frames).not.toContain('secret')
})
