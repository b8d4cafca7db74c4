import http from 'node:http'
import { readTwoItems } from './floor.ts'

/** The floor of any proxy: the same read, and one bare request over a kept connection to the resource server. */

const target = new URL(process.env['FLOOR_TARGET'] ?? '')
const agent = new http.Agent({ keepAlive: true })

const call = (): Promise<{ status: number; type: string; body: Buffer }> =>
  new Promise((resolve, reject) => {
    const request = http.request(target, { agent, headers: { authorization: 'Bearer floor' } }, (response) => {
      const chunks: Uint8Array[] = []
      response.on('data', (chunk: Uint8Array) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const { statusCode = 0, headers } = response
        resolve({ status: statusCode, type: headers['content-type'] ?? '', body: Buffer.concat(chunks) })
      })
    })
    request.on('error', reject)
    request.end()
  })

/** A Lambda handler for an event of payload format 2.0. */
export const handler = async () => {
  await readTwoItems()
  const { status, type, body } = await call()
  return { statusCode: status, headers: { 'content-type': type }, body: body.toString('base64'), isBase64Encoded: true }
}
