import { readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'

/**
 * Where in the sources an error was thrown. The bundle's map is read when a stack has to be told, which is seldom; Node.js with
 * `--enable-source-maps` reads it at every cold start, 20 ms of CPU.
 */

const FRAMES = 3

let map: SourceMap | undefined

/** The frame's place in the sources, or as it stands in the stack where this module runs without a bundle. */
const placeOf = (frame: string): string => {
  const [, file, line, column] = /\(?(\S+?):(\d+):(\d+)\)?$/.exec(frame) ?? []
  if (map === undefined || file !== import.meta.url) return frame.trim().replace(/^at /, '')
  const place = map.findOrigin(Number(line), Number(column))
  if (!('fileName' in place)) return frame.trim()
  return `${place.fileName.replace(/^.*?(?=(lambdas|shared|node_modules)\/)/, '')}:${place.lineNumber}`
}

/** The innermost frames of the error's stack, as files and lines of the sources; nothing of its message, which may be somebody else's. */
export const sourceFrames = (error: Error): string => {
  try {
    map ??= new SourceMap(JSON.parse(readFileSync(new URL(`${import.meta.url}.map`), 'utf8')))
  } catch {
    // The frames are told as they are.
  }
  const stack = (error.stack ?? '').replace(error.message, '')
  const frames = stack.split('\n').filter((line) => line.startsWith('    at '))
  return frames.slice(0, FRAMES).map(placeOf).join(', ')
}
