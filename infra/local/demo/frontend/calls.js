import { call, problem } from './bff.js'
import { byId, element, onceAtATime, show } from './dom.js'
import { readSession } from './session.js'

const requests = {
  whoami: () => ({ method: 'GET', path: '/api/demo/whoami' }),
  echo: () => ({ method: 'POST', path: '/api/demo/echo?from=demo', json: byId('body').value }),
  status: () => ({ method: 'GET', path: `/api/demo/status/${byId('code').value}` }),
}

const chosen = () => requests[new FormData(byId('call')).get('call')]()

const describe = () => {
  const { method, path } = chosen()
  byId('request-line').textContent = `${method} ${path}`
  const kind = new FormData(byId('call')).get('call')
  show(kind === 'echo', 'body-field')
  show(kind === 'status', 'code-field')
}

const pretty = ({ body, text }) => (body === undefined ? text : JSON.stringify(body, null, 2))

const kindOf = (status) => (status < 300 ? 'good' : status < 400 ? 'moved' : 'bad')

const summary = ({ method, path }, reply) =>
  reply.redirected
    ? element(
        'p',
        { class: 'outcome moved' },
        element('b', {}, '3xx'),
        ` a redirect, which was not followed · ${reply.durationMs} ms`,
      )
    : element(
        'p',
        { class: `outcome ${kindOf(reply.status)}` },
        element('b', {}, String(reply.status)),
        ` ${method} ${path} · ${reply.durationMs} ms`,
      )

const send = async () => {
  const request = chosen()
  const reply = await call(request.method, request.path, request.json)
  const failure = problem(reply)
  const body =
    reply?.text && !failure
      ? element('pre', { tabindex: '0', role: 'region', 'aria-label': 'Body of the reply' }, pretty(reply))
      : undefined
  byId('reply-status').replaceChildren(...[reply && summary(request, reply), failure].filter(Boolean))
  byId('reply-body').replaceChildren(...[body].filter(Boolean))
  await readSession()
}

/** Brings the panel to life that calls the resource server through Coatcheck. */
export const startCalls = () => {
  const form = byId('call')
  form.addEventListener('input', describe)
  form.addEventListener('submit', (event) => event.preventDefault())
  onceAtATime(form, 'submit', form.querySelector('button'), send)
  describe()
}
