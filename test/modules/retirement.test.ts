import { describe, expect, test } from 'vitest'
import type { Client } from '../../shared/client.ts'
import { isDue, isNearExpiry } from '../../shared/retirement.ts'

/** When the secret of a client is to be followed by another, and when somebody should look why it was not. */

const HOUR = 3_600
const DAY = 24 * HOUR
const now = 2_000_000_000

const client = (lifetime: number | undefined, left: number): Client => ({
  client_id: 'ours',
  token_endpoint_auth_method: 'client_secret_basic',
  client_secret: 'secret',
  redirect_uri: 'https://app.example.com/bff/callback/main',
  client_secret_expires_at: now + left,
  ...(lifetime !== undefined && { registered_at: now + left - lifetime }),
})

describe('a secret', () => {
  test.each<[lives: string, lifetime: number | undefined, due: number, near: number]>([
    ['a year', 365 * DAY, 30 * DAY, 10 * DAY],
    ['90 days', 90 * DAY, 30 * DAY, 10 * DAY],
    ['nobody knows how long', undefined, 10 * DAY, (10 * DAY) / 3],
    ['three days', 3 * DAY, DAY, 8 * HOUR],
    ['five hours', 5 * HOUR, 3 * HOUR, HOUR],
    ['two hours', 2 * HOUR, 3 * HOUR, 40 * 60],
  ])('that lives %s', (_, lifetime, due, near) => {
    expect([isDue(client(lifetime, due), now), isDue(client(lifetime, due - 1), now)]).toEqual([false, true])
    const judged = [near + 1, near, near - 1, 0, -DAY].map((left) => isNearExpiry(client(lifetime, left), now))
    expect(judged).toEqual([false, false, true, true, true])
  })

  test.each([0, undefined])('that never ends (%j) is neither due nor near its end', (ends) => {
    const { client_secret_expires_at: _, ...others } = client(DAY, 0)
    const forever = ends === undefined ? others : { ...others, client_secret_expires_at: ends }
    expect([isDue(forever, now), isNearExpiry(forever, now)]).toEqual([false, false])
  })

  test('that was rotated by Upkeep within the hour is never near its end, however short it lives', () => {
    for (let lifetime = 2 * HOUR; lifetime < 400 * DAY; lifetime *= 1.1) {
      const lead = Math.min(Math.max(lifetime / 3, 3 * HOUR), 30 * DAY, lifetime)
      const left = Math.floor(lead - HOUR)
      expect([lifetime, isNearExpiry(client(Math.ceil(lifetime), left), now)]).toEqual([lifetime, false])
    }
  })
})
