import { setTimeout as delay } from 'node:timers/promises'
import { json, type Answer, type Fault } from './server.ts'

/** Answers this and does nothing of what was asked. */
export const instead =
  (answer: Answer): Fault =>
  () =>
    answer

/** Answers JSON with this status and does nothing of what was asked. */
export const insteadJson = (status: number, members: object, headers: Record<string, string> = {}): Fault =>
  instead(json(status, members, headers))

/** Refuses as RFC 6749 §5.2 and RFC 7591 §3.2.2 do. */
export const refused = (error: string, status = 400, description = 'as the test wants it'): Fault =>
  insteadJson(status, { error, error_description: description })

/** A web page where JSON belongs. */
export const webPage = (status = 200): Fault =>
  instead({
    status,
    headers: { 'Content-Type': 'text/html' },
    body: '<!doctype html><title>Hello</title><h1>Hello</h1>',
  })

/** A 200 with nothing in it. */
export const nothing: Fault = instead({ status: 200, headers: { 'Content-Type': 'application/json' } })

/** Sends the caller to another URL. */
export const moved = (location: string, status = 307): Fault => instead({ status, headers: { Location: location } })

/** Does what was asked and changes members of the JSON answer; `undefined` takes one away. */
export const changed =
  (members: Record<string, unknown>, status?: number): Fault =>
  async (proceed) => {
    const answer = await proceed()
    const body = JSON.stringify({ ...JSON.parse(String(answer.body)), ...members })
    return { ...answer, status: status ?? answer.status, body }
  }

/** Does what was asked and rewrites the text of the answer, such as JSON that `JSON.stringify` cannot write. */
export const rewritten =
  (rewrite: (text: string) => string): Fault =>
  async (proceed) => {
    const answer = await proceed()
    return { ...answer, body: rewrite(String(answer.body)) }
  }

/** Does what was asked and changes the parameters with which the browser is sent back. */
export const sentBack =
  (change: (parameters: URLSearchParams) => void): Fault =>
  async (proceed) => {
    const answer = await proceed()
    const location = new URL(String(answer.headers?.['Location']))
    change(location.searchParams)
    return { ...answer, headers: { ...answer.headers, Location: location.href } }
  }

/** Sends the browser back with an error in place of a code (RFC 6749 §4.1.2.1). */
export const sentBackWith = (error: string, description?: string): Fault =>
  sentBack((parameters) => {
    parameters.delete('code')
    parameters.set('error', error)
    if (description !== undefined) parameters.set('error_description', description)
  })

/** The connection breaks before anything is done. */
export const reset: Fault = instead({ status: 0, send: (response) => void response.destroy() })

/** Everything is done, and the connection breaks before the answer. */
export const lost: Fault = async (proceed) => {
  await proceed()
  return { status: 0, send: (response) => void response.destroy() }
}

/** Everything is done, and half of the answer arrives. */
export const truncated: Fault = async (proceed) => {
  const answer = await proceed()
  const body = Buffer.from(answer.body ?? '')
  const send: Answer['send'] = (response) => {
    response.writeHead(answer.status, { ...answer.headers, 'Content-Length': body.length })
    response.write(body.subarray(0, body.length / 2), () => response.destroy())
  }
  return { ...answer, send }
}

/** Everything is done, and the answer comes a byte at a time. */
export const dripping =
  (everyMs = 100): Fault =>
  async (proceed) => {
    const answer = await proceed()
    const send: Answer['send'] = (response) => {
      response.writeHead(answer.status, answer.headers)
      const bytes = [...Buffer.from(answer.body ?? '')]
      const timer = setInterval(() => {
        const byte = bytes.shift()
        if (byte === undefined) response.end()
        else response.write(Buffer.from([byte]))
      }, everyMs)
      response.on('close', () => clearInterval(timer))
    }
    return { ...answer, send }
  }

/** Never answers, and does nothing. */
export const hung: Fault = instead({ status: 0, send: () => undefined })

/** Waits, then does what was asked. */
export const delayed =
  (ms: number): Fault =>
  async (proceed) => {
    await delay(ms)
    return proceed()
  }

/** A fault that holds requests, before or after they are done, until `release`; `reached` resolves when one is held. */
export const gate = ({ after = false }: { after?: boolean } = {}) => {
  const arrival = Promise.withResolvers<void>()
  const opening = Promise.withResolvers<void>()
  const fault: Fault = async (proceed) => {
    const early = after ? await proceed() : undefined
    arrival.resolve()
    await opening.promise
    return early ?? proceed()
  }
  return { fault, reached: arrival.promise, release: () => opening.resolve() }
}
