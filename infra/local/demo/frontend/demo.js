import { startCalls } from './calls.js'
import { byId } from './dom.js'
import { startSession } from './session.js'
import { startTrace } from './trace.js'

const introduce = async () => {
  const response = await fetch('/__local/demo')
  const { issuer, users } = await response.json()
  byId('provider-name').textContent = `the authorization server at ${new URL(issuer).host}`
  if (users.length === 0) return
  const list = new Intl.ListFormat('en', { type: 'disjunction' }).format(users)
  byId('users').textContent = `There you are ${list}: one click, no password.`
}

startTrace()
startCalls()
void introduce()
void startSession()
