import { readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'

/**
 * Where in the sources an error was thrown. A map is read when a stack has to be told, which is seldom; Node.js with
 * `--enable-source-maps` reads it at every cold start, 20 ms of CPU.
 */

const FRAMES = 3

/** By the URL of a file of the bundle. */
const maps = new Map<string, SourceMap | undefined>()

const mapOf = (url: string): SourceMap | undefined => {
  // The bundle's files are in one folder; what else is in a stack has no map that we made.
  if (url.slice(0, url.lastIndexOf('/')) !== import.meta.url.slice(0, import.meta.url.lastIndexOf('/')))
    return undefined
  if (maps.has(url)) return maps.get(url)
  let map: SourceMap | undefined
  try {
    map = new SourceMap(JSON.parse(readFileSync(new URL(`${url}.map`), 'utf8')))
  } catch {
    // The frames are told as they are.
  }
  maps.set(url, map)
  return map
}

/** The frame's place in the sources, or as it stands in the stack where this module runs without a bundle. */
const placeOf = (frame: string): string => {
  const [, file = '', line, column] = /\(?(\S+?):(\d+):(\d+)\)?$/.exec(frame) ?? []
  const map = mapOf(file)
  if (map === undefined) return frame.trim().replace(/^at /, '')
  const place = map.findOrigin(Number(line), Number(column))
  if (!('fileName' in place)) return frame.trim()
  return `${place.fileName.replace(/^.*?(?=(lambdas|shared|node_modules)\/)/, '')}:${place.lineNumber}`
}

/** The innermost frames of the error's stack, as files and lines of the sources; nothing of its message, which may be somebody else's. */
export const sourceFrames = (error: Error): string => {
  const stack = (error.stack ?? '').replace(error.message, '')
  const frames = stack.split('\n').filter((line) => line.startsWith('    at '))
  return frames.slice(0, FRAMES).map(placeOf).join(', ')
}
