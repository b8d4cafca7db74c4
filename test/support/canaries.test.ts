import { expect, test } from 'vitest'
import { leaksOf } from './canaries.ts'

const value = 's3cret/value+with ünusual=characters?and&more'
const canary = { name: 'the token', value }

test.each([
  ['as it is', `{"token":"${value}"}`],
  ['its first 16 characters', `token=${value.slice(0, 20)}...`],
  ['its last 16 characters', `...${value.slice(-18)}`],
  ['URL-encoded', `/callback?code=${encodeURIComponent(value)}`],
  ['form-encoded', new URLSearchParams({ code: value }).toString()],
  ['in hex', Buffer.from(value).toString('hex')],
  ['in base64', Buffer.from(value).toString('base64')],
  ['in base64', Buffer.from(`client:${value} and more`).toString('base64')],
  ['in base64url', Buffer.from(`{"a":"${value}"}`).toString('base64url')],
])('a secret is found %s', (form, text) => {
  expect(leaksOf([canary], { log: text, page: 'nothing' })).toMatchObject([{ name: 'the token', place: 'log' }])
  expect(leaksOf([canary], { log: text })[0]?.form.replace('url', '')).toBe(form.replace('url', ''))
})

test('values that are not text are searched too', () => {
  expect(leaksOf([canary], { items: [{ token: { S: value } }] })).toHaveLength(1)
  expect(leaksOf([canary], { items: [{ sealed: { B: Uint8Array.from(Buffer.from(value)) } }] })).toHaveLength(1)
  expect(leaksOf([canary], { items: { deep: [Buffer.from(`..${value}..`)] } })).toHaveLength(1)
  expect(leaksOf([canary], { body: Buffer.from(value.slice(0, 17)) })).toHaveLength(1)
})

test('a text without the secret is clean', () => {
  expect(leaksOf([canary], { log: 's3cret/value is only the start of it' })).toEqual([])
})

test('a secret that would be found by chance is refused', () => {
  expect(() => leaksOf(['short'], {})).toThrow('too short')
})
