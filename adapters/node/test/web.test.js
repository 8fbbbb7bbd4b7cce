'use strict'

// The middleware for Express 4 and 5 and the hooks for Fastify, over HTTP.

const assert = require('node:assert/strict')
const http = require('node:http')
const http2 = require('node:http2')
const net = require('node:net')
const { test } = require('node:test')
const { setTimeout: sleep } = require('node:timers/promises')

const { Gate, Limiter } = require('keytally')

const { PEPPER } = require('./support')

const REFUSED = '{"error": "Rate limit exceeded. Please try again later."}'

/** The frameworks: each starts a server with checks and routes. */
const FRAMEWORKS = {
  'express 4': express('express4'),
  'express 5': express('express'),
  'fastify 5': fastify(),
}

function express(name) {
  return {
    ...require('keytally/express'),
    async start(t, checks, routes, { trustProxy = false } = {}) {
      const app = require(name)()
      app.set('trust proxy', trustProxy)
      // An error is a part of some tests.
      app.set('env', 'test')
      for (const check of checks) app.use(check)
      for (const [path, route] of Object.entries(routes)) {
        app.all(path, (request, response, next) => {
          Promise.resolve(route(request, response)).then(
            (body) => body !== undefined && response.send(body),
            next,
          )
        })
      }
      return listen(t, http.createServer(app))
    },
    status: (response, status) => response.status(status),
    set: (response, name, value) => response.set(name, value),
    raw: (response) => response,
  }
}

function fastify() {
  return {
    ...require('keytally/fastify'),
    async start(t, checks, routes, { trustProxy = false, http2 = false } = {}) {
      const app = require('fastify')({ trustProxy, http2 })
      for (const check of checks) app.addHook('onRequest', check)
      for (const [path, route] of Object.entries(routes)) {
        app.all(path, async (request, reply) => {
          const body = await route(request, reply)
          return body === undefined ? reply.hijack() : body
        })
      }
      await app.ready()
      return listen(t, app.server)
    },
    status: (reply, status) => reply.code(status),
    set: (reply, name, value) => reply.header(name, value),
    raw: (reply) => reply.raw,
  }
}

/** Starts a server, and returns a function that sends a request to it. */
async function listen(t, server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.closeAllConnections?.())
  t.after(() => server.close())
  const { port } = server.address()
  const send = (path = '/contacts', headers = {}, method = 'GET') =>
    new Promise((resolve, reject) => {
      const request = http.request({ port, path, method, headers, agent: false }, (response) => {
        const parts = []
        response.on('data', (part) => parts.push(part))
        response.on('end', () => {
          const { statusCode: status, headers: fields, rawHeaders } = response
          resolve({ status, headers: fields, rawHeaders, body: Buffer.concat(parts).toString() })
        })
        response.on('error', reject)
      })
      request.on('error', reject)
      request.end()
    })
  return Object.assign(send, { port })
}

/** Runs a test with each framework. */
function each(name, run) {
  for (const [framework, web] of Object.entries(FRAMEWORKS)) {
    test(`${name} in ${framework}`, (t) => run(t, web))
  }
}

function gateWith(options) {
  return Gate.inMemory({ pepper: PEPPER, keys: 100, ...options })
}

const CONTACTS = { '/contacts': () => '[]' }

/** Waits until a condition holds. */
async function until(condition) {
  for (let turn = 0; turn < 500 && !condition(); turn++) await sleep(10)
  assert.ok(condition(), `${condition} did not become true`)
}

each('responses follow the contract', async (t, web) => {
  const gate = gateWith({ plans: { default: '2/minute, 1000/hour' } })
  const key = gate.issue(42).expose()
  const send = await web.start(t, [web.requireKey(gate)], {
    '/contacts': (request) => `account ${request.verdict.account}`,
  })
  const admitted = await send('/contacts', { 'X-API-Key': key })
  assert.deepEqual([admitted.status, admitted.body], [200, 'account 42'])
  assert.equal(admitted.headers['x-ratelimit-limit'], '1000')
  assert.equal(admitted.headers['x-ratelimit-remaining'], '999')
  assert.match(admitted.headers['x-ratelimit-reset'], /^[0-9]+$/)
  assert.match(admitted.headers.ratelimit, /^"minute";r=1;t=[0-9]+, "hour";r=999;t=[0-9]+$/)
  assert.equal(admitted.headers['ratelimit-policy'], '"minute";q=2;w=60, "hour";q=1000;w=3600')
  await send('/contacts', { 'X-API-Key': key })
  const denied = await send('/contacts', { 'X-API-Key': key })
  assert.deepEqual([denied.status, denied.body], [429, REFUSED])
  assert.equal(denied.headers['content-type'], 'application/json')
  assert.equal(denied.headers['content-length'], String(REFUSED.length))
  assert.match(denied.headers['retry-after'], /^[1-9][0-9]*$/)
  const missing = await send()
  assert.deepEqual([missing.status, missing.body], [401, '{"error": "Missing X-API-Key header"}'])
  assert.equal(missing.headers['x-ratelimit-limit'], undefined)
  assert.match(missing.headers['www-authenticate'], /^ApiKey realm="api"/)
  const wrong = await send('/contacts', { 'X-API-Key': 'kt_live_mistyped' })
  assert.deepEqual([wrong.status, wrong.body], [401, '{"error": "Invalid API key"}'])
})

each('a head request is refused without a body', async (t, web) => {
  const gate = gateWith()
  const send = await web.start(t, [web.requireKey(gate)], CONTACTS)
  const refused = await send('/contacts', {}, 'HEAD')
  assert.deepEqual([refused.status, refused.body], [401, ''])
  assert.equal(refused.headers['content-length'], '37')
})

each('a client that accepts problem documents gets one', async (t, web) => {
  const send = await web.start(t, [web.limit(Limiter.inMemory('1/minute'), { cost: 2 })], CONTACTS)
  const refused = await send('/contacts', { Accept: 'text/html, application/problem+json' })
  assert.equal(refused.headers['content-type'], 'application/problem+json')
  const { status, title } = JSON.parse(refused.body)
  assert.deepEqual([refused.status, status, typeof title], [429, 429, 'string'])
})

each('two keys in one request are invalid', async (t, web) => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const reasons = []
  const onVerdict = (verdict) => reasons.push(verdict.reason)
  const keyFrom = ['X-API-Key', 'Authorization: Bearer']
  const send = await web.start(t, [web.requireKey(gate, { onVerdict, keyFrom })], CONTACTS)
  const sent = { 'X-API-Key': [key, key] }
  assert.equal((await send('/contacts', sent)).status, 401)
  const other = gate.issue(42).expose()
  const both = await send('/contacts', { 'X-API-Key': key, Authorization: `Bearer ${other}` })
  assert.equal(both.status, 401)
  assert.equal(
    both.headers['www-authenticate'],
    'ApiKey realm="api", header="X-API-Key", Bearer realm="api"',
  )
  assert.deepEqual(reasons, ['duplicate', 'duplicate'])
  const same = await send('/contacts', { 'X-API-Key': key, Authorization: `bearer  ${key} ` })
  assert.equal(same.status, 200)
  assert.equal((await send('/contacts', { Authorization: `Basic ${key}` })).status, 401)
})

each('a missing key is named by the headers of the list', async (t, web) => {
  const send = await web.start(
    t,
    [web.requireKey(gateWith(), { keyFrom: ['Authorization: Bearer'] })],
    CONTACTS,
  )
  const refused = await send()
  assert.deepEqual([refused.status, refused.body], [401, '{"error": "Missing API key"}'])
  assert.equal(refused.headers['www-authenticate'], 'Bearer realm="api"')
})

each('exempt paths and methods need no key', async (t, web) => {
  const check = web.requireKey(gateWith(), {
    exempt: ['/health', '/static/*'],
    exemptMethods: ['OPTIONS'],
  })
  const send = await web.start(t, [check], {
    '/health': () => 'ok',
    '/contacts': () => '[]',
    '/static/a.css': () => 'a',
  })
  assert.equal((await send('/health?full=1')).status, 200)
  assert.equal((await send('/static/a.css')).status, 200)
  assert.equal((await send('/contacts', {}, 'OPTIONS')).status, 200)
  const refused = [
    '/contacts', '//health', '/%2fhealth', '/static/../contacts', '/static/%2e%2e/contacts',
    '/static/..%5ccontacts', '/static/..;/contacts', '/static/%252e%252e/contacts',
  ] // prettier-ignore
  for (const path of refused) assert.equal((await send(path)).status, 401, path)
})

each('groups, own costs and scopes are charged', async (t, web) => {
  const plans = {
    default: '100/minute; team: 5000/hour; group write: 1/minute; group tokens: 50/m',
  }
  const gate = gateWith({ plans, scopes: ['write'] })
  const key = gate.issue(42, { scopes: ['write'] }).expose()
  const other = gate.issue(43).expose()
  const options = {
    group: (request) => (request.method === 'GET' ? [] : 'write'),
    costs: async () => ({ tokens: 20 }),
    need: (request) => (request.method === 'GET' ? undefined : ['write']),
  }
  const send = await web.start(t, [web.requireKey(gate, options)], CONTACTS)
  const headers = { 'X-API-Key': key }
  const read = await send('/contacts', headers)
  assert.match(read.headers.ratelimit, /"tokens-minute";r=30/)
  assert.doesNotMatch(read.headers.ratelimit, /write/)
  assert.equal((await send('/contacts', headers, 'POST')).status, 200)
  const denied = await send('/contacts', headers, 'POST')
  assert.equal(denied.status, 429)
  const forbidden = await send('/contacts', { 'X-API-Key': other }, 'POST')
  assert.deepEqual([forbidden.status, forbidden.body], [403, '{"error": "Forbidden"}'])
})

each('several checks charge a request once, all or none', async (t, web) => {
  const gate = gateWith({ plans: { default: '2/minute' } })
  const key = gate.issue(42)
  const addresses = Limiter.inMemory('9/minute')
  const checks = [web.limit(addresses), web.requireKey(gate), web.requireKey(gate, { cost: 2 })]
  const send = await web.start(t, checks, CONTACTS)
  const headers = { 'X-API-Key': key.expose() }
  const admitted = await send('/contacts', headers)
  assert.equal(admitted.status, 200)
  assert.equal(admitted.headers['ratelimit-policy'], '"minute";q=2;w=60, "minute-2";q=9;w=60')
  assert.match(admitted.headers.ratelimit, /^"minute";r=0;t=[0-9]+, "minute-2";r=8;t=[0-9]+$/)
  assert.equal(admitted.headers['x-ratelimit-remaining'], '0')
  const denied = await send('/contacts', headers)
  assert.equal(denied.status, 429)
  // The gate's denial gave back what the limiter of addresses was charged.
  assert.equal(addresses.peek('127.0.0.1').remaining, 8)
  assert.match(denied.headers.ratelimit, /"minute-2";r=8/)
})

each('fields replace those of the application', async (t, web) => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const send = await web.start(t, [web.requireKey(gate)], {
    '/contacts': (_, response) => {
      web.set(response, 'X-RateLimit-Limit', '7')
      web.set(response, 'Retry-After', '9')
      return '[]'
    },
    '/raw': (_, response) => {
      web.raw(response).writeHead(200, Object.freeze({ 'x-ratelimit-LIMIT': '7', 'X-Own': '1' }))
      web.raw(response).end('raw')
    },
  })
  const headers = { 'X-API-Key': key }
  for (const path of ['/contacts', '/raw']) {
    const { rawHeaders } = await send(path, headers)
    const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase())
    assert.equal(names.filter((name) => name === 'x-ratelimit-limit').length, 1, path)
    assert.equal(rawHeaders[2 * names.indexOf('x-ratelimit-limit') + 1], '1000', path)
  }
  assert.equal((await send('/contacts', headers)).headers['retry-after'], '9')
})

each('without headers, a response has no rate-limit fields', async (t, web) => {
  const gate = gateWith()
  const send = await web.start(t, [web.requireKey(gate, { headers: false })], CONTACTS)
  const { headers } = await send('/contacts', { 'X-API-Key': gate.issue(42).expose() })
  assert.equal(headers['x-ratelimit-limit'], undefined)
})

each('shadow mode admits, and names the outcome', async (t, web) => {
  const seen = []
  const onVerdict = (verdict) => seen.push(verdict.outcome)
  const gate = gateWith()
  const send = await web.start(t, [web.requireKey(gate, { shadow: true, onVerdict })], CONTACTS)
  const { status, headers } = await send()
  assert.deepEqual([status, headers['x-keytally-shadow']], [200, 'missing_key'])
  assert.deepEqual(seen, ['missing_key'])
})

each('a cost out of range gets status 400 and is not charged', async (t, web) => {
  const gate = gateWith()
  const key = gate.issue(42)
  const cost = (request) => Number(request.headers['x-cost'])
  const send = await web.start(t, [web.requireKey(gate, { cost })], CONTACTS)
  for (const wrong of ['-1', '0.5', '4294967296', 'many']) {
    const refused = await send('/contacts', { 'X-API-Key': key.expose(), 'X-Cost': wrong })
    assert.deepEqual([refused.status, refused.body], [400, '{"error": "Cost out of range"}'])
  }
  assert.equal(gate.peek(key.expose()).remaining, 1000)
  assert.equal((await send('/contacts', { 'X-API-Key': key.expose(), 'X-Cost': '3' })).status, 200)
  assert.equal(gate.peek(key.expose()).remaining, 997)
})

each('a function replaces the response to refused requests', async (t, web) => {
  const refusal = async (refused) =>
    refused.outcome === 'denied'
      ? refused.replace({ status: 402, body: { seconds: refused.retryAfterS } })
      : refused
  const send = await web.start(t, [web.limit(Limiter.inMemory('1/hour'), { refusal })], CONTACTS)
  assert.equal((await send()).status, 200)
  const { status, headers, body } = await send('/contacts', { Accept: 'application/problem+json' })
  assert.equal(status, 402)
  assert.equal(headers['content-type'], 'application/json')
  assert.deepEqual(JSON.parse(body), { seconds: Number(headers['retry-after']) })
})

each('too many wrong keys get status 429, and a valid key passes', async (t, web) => {
  const gate = gateWith()
  const check = web.requireKey(gate, {
    failures: Limiter.inMemory('2/hour'),
    trustedProxies: ['127.0.0.0/8'],
  })
  const send = await web.start(t, [check], CONTACTS)
  const from = (client) => ({ 'X-API-Key': 'wrong', 'X-Forwarded-For': `6.6.6.6, ${client}` })
  const statuses = []
  for (let turn = 0; turn < 3; turn++) {
    statuses.push((await send('/contacts', from('203.0.113.9'))).status)
  }
  assert.deepEqual(statuses, [401, 401, 429])
  assert.equal((await send('/contacts', from('203.0.113.10'))).status, 401)
  const valid = { ...from('203.0.113.9'), 'X-API-Key': gate.issue(42).expose() }
  assert.equal((await send('/contacts', valid)).status, 200)
})

each('requests without a key are counted by address', async (t, web) => {
  const gate = gateWith()
  const withoutKey = Limiter.inMemory('1/hour')
  const send = await web.start(t, [web.requireKey(gate, { withoutKey })], {
    '/contacts': (request) => String(request.verdict.account),
  })
  assert.equal((await send()).body, 'null')
  assert.equal((await send()).status, 429)
  assert.equal((await send('/contacts', { 'X-API-Key': 'wrong' })).status, 401)
  assert.equal((await send('/contacts', { 'X-API-Key': gate.issue(42).expose() })).body, '42')
})

each('a status of the list refunds the charge', async (t, web) => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const send = await web.start(t, [web.requireKey(gate, { cost: 10, refund: '5xx' })], {
    '/contacts': () => '[]',
    '/fails': async (_, response) => {
      web.status(response, 503)
      return 'down'
    },
    '/throws': async () => {
      throw new Error('a failure of the application')
    },
  })
  const headers = { 'X-API-Key': key }
  await send('/contacts', headers)
  assert.equal((await send('/fails', headers)).status, 503)
  const thrown = await send('/throws', headers)
  assert.deepEqual([thrown.status, thrown.headers['x-ratelimit-limit']], [500, '1000'])
  await until(() => gate.peek(key).remaining === 990)
})

each('settle replaces the charge once', async (t, web) => {
  const plans = { default: '100/minute; group tokens: 5000/minute' }
  const gate = gateWith({ plans })
  const key = gate.issue(42).expose()
  const calls = []
  const options = {
    costs: { tokens: 1000 },
    settle: (request, sent) => {
      calls.push(sent)
      return { tokens: Number(sent.headers['x-tokens']) }
    },
  }
  const send = await web.start(t, [web.requireKey(gate, options)], {
    '/contacts': (_, response) => {
      web.set(response, 'X-Tokens', '2500')
      return 'twelve bytes'
    },
  })
  await send('/contacts', { 'X-API-Key': key })
  await until(() => gate.peek(key, 0, { groups: 'tokens' }).tallies[1].verdict.remaining === 2500)
  const [{ status, bytes, isComplete, exception, cost, costs }] = calls
  assert.deepEqual([status, bytes, isComplete, exception, cost], [200, 12, true, null, 1])
  assert.deepEqual([costs, calls.length], [{ tokens: 1000 }, 1])
})

each('a client that leaves settles its charge once, and gets nothing back', async (t, web) => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const calls = []
  let release
  const options = {
    refund: '5xx',
    settle: (_, sent) => {
      calls.push(sent)
      return 7
    },
  }
  const send = await web.start(t, [web.requireKey(gate, options)], {
    '/slow': (_, response) =>
      new Promise((resolve) => {
        release = () => {
          web.status(response, 500)
          resolve('late')
        }
      }),
  })
  const socket = net.connect(send.port)
  socket.write(`GET /slow HTTP/1.1\r\nHost: a\r\nX-API-Key: ${key}\r\n\r\n`)
  await until(() => release !== undefined)
  socket.destroy()
  await until(() => calls.length === 1)
  release()
  await sleep(50)
  const [{ status, isComplete, bytes }] = calls
  assert.deepEqual([status, isComplete, bytes, calls.length], [null, false, 0, 1])
  assert.equal(gate.peek(key).remaining, 993)
})

each('charge on charges by the status of the response', async (t, web) => {
  const limiter = Limiter.inMemory('2/hour')
  const send = await web.start(t, [web.limit(limiter, { chargeOn: [401, 403] })], {
    '/login': (request, response) => {
      web.status(response, request.headers['x-right'] === undefined ? 401 : 200)
      return 'login'
    },
  })
  await send('/login', { 'X-Right': '1' })
  assert.equal((await send('/login')).status, 401)
  assert.equal((await send('/login')).status, 401)
  await until(() => limiter.peek('127.0.0.1').remaining === 0)
  assert.equal((await send('/login', { 'X-Right': '1' })).status, 429)
})

each('charge on charges a client that left early', async (t, web) => {
  const limiter = Limiter.inMemory('2/hour')
  let release
  const send = await web.start(t, [web.limit(limiter, { chargeOn: 401 })], {
    '/login': (_, response) =>
      new Promise((resolve) => {
        release = () => {
          web.status(response, 401)
          resolve('late')
        }
      }),
  })
  const socket = net.connect(send.port)
  socket.write('GET /login HTTP/1.1\r\nHost: a\r\n\r\n')
  await until(() => release !== undefined)
  socket.destroy()
  await sleep(50)
  assert.equal(limiter.peek('127.0.0.1').remaining, 2)
  release()
  await until(() => limiter.peek('127.0.0.1').remaining === 1)
})

each('an option that throws null or a text admits nothing', async (t, web) => {
  const limiter = Limiter.inMemory('9/hour')
  for (const thrown of [undefined, null, false, 0, '', 'route', 'router']) {
    for (const option of [
      { key: () => raise(thrown) },
      { key: async () => raise(thrown) },
      { cost: () => raise(thrown) },
      { cost: () => Promise.reject(thrown) },
    ]) {
      const send = await web.start(t, [web.limit(limiter, option)], CONTACTS)
      assert.equal((await send()).status, 500, `${thrown} by ${Object.keys(option)}`)
    }
  }
})

function raise(value) {
  throw value
}

for (const framework of ['express 4', 'express 5']) {
  test(`a refusal after the response of a time limit changes nothing in ${framework}`, async (t) => {
    const web = FRAMEWORKS[framework]
    const timeLimit = (_, response, next) => {
      setTimeout(() => response.status(503).end('too late'), 10)
      next()
    }
    const begun = (_, response, next) => {
      response.flushHeaders()
      next()
    }
    const option = { cost: () => sleep(50).then(() => 1) }
    const check = web.requireKey(gateWith(), option)
    const send = await web.start(t, [timeLimit, check], CONTACTS)
    const late = await send('/contacts', { 'X-API-Key': 'nonsense' })
    assert.deepEqual([late.status, late.body], [503, 'too late'])
    // The head of the response is sent, so the connection is closed instead.
    const sendBegun = await web.start(t, [begun, check], CONTACTS)
    await assert.rejects(sendBegun('/contacts', { 'X-API-Key': 'nonsense' }), /hang up|aborted/)
    await sleep(60)
    assert.equal((await send('/contacts', { 'X-API-Key': 'nonsense' })).status, 503)
  })
}

test('a client that resets its stream of HTTP/2 avoids no charge', async (t) => {
  const web = FRAMEWORKS['fastify 5']
  const limiter = Limiter.inMemory('2/hour')
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const calls = []
  const settle = (_, sent) => {
    calls.push(sent)
    return 7
  }
  let release
  const late = (status) => (_, reply) =>
    new Promise((resolve) => {
      release = () => {
        web.status(reply, status)
        resolve('late')
      }
    })
  const start = async (check, routes) => {
    const { port } = await web.start(t, [check], routes, { http2: true })
    const client = http2.connect(`http://127.0.0.1:${port}`)
    t.after(() => client.destroy())
    return (path) => client.request({ ':path': path, 'x-api-key': key })
  }
  const reset = async (stream) => {
    stream.on('error', () => {})
    await until(() => release !== undefined)
    stream.close(http2.constants.NGHTTP2_CANCEL)
    await sleep(50)
    release()
    release = undefined
  }
  const login = await start(web.limit(limiter, { chargeOn: 401 }), { '/login': late(401) })
  await reset(login('/login'))
  await until(() => limiter.peek('127.0.0.1').remaining === 1)

  const settled = await start(web.requireKey(gate, { settle }), {
    '/late': late(200),
    '/whole': () => 'whole',
  })
  await reset(settled('/late'))
  await until(() => calls.length === 1)
  settled('/whole').resume()
  await until(() => calls.length === 2)
  assert.deepEqual(
    calls.map(({ status, isComplete }) => [status, isComplete]),
    [
      [null, false],
      [200, true],
    ],
  )
  assert.equal(gate.peek(key).remaining, 986)
})

each('an error of settle or onVerdict is only reported', async (t, web) => {
  const warnings = []
  const listener = (warning) => warnings.push(warning.message)
  process.on('warning', listener)
  t.after(() => process.off('warning', listener))
  const limiter = Limiter.inMemory('9/hour')
  const options = {
    onVerdict: () => {
      throw new Error('of the application')
    },
    settle: async () => -1,
  }
  const send = await web.start(t, [web.limit(limiter, options)], CONTACTS)
  assert.equal((await send()).status, 200)
  await until(() => warnings.length >= 2)
  assert.deepEqual(
    warnings.map((message) => message.split(' ', 1)[0]),
    ['onVerdict', 'settle'],
  )
  assert.equal(limiter.peek('127.0.0.1').remaining, 8)
})

each('limits count the client that a trusted proxy names', async (t, web) => {
  const limiter = Limiter.inMemory('9/hour')
  const send = await web.start(t, [web.limit(limiter)], CONTACTS, { trustProxy: true })
  await send('/contacts', { 'X-Forwarded-For': '2001:db8:1:2:3:4:5:6' })
  assert.equal(limiter.peek('2001:db8:1:2::/64').remaining, 8)
  const own = { key: (request) => request.headers['x-user'] ?? null }
  const users = await web.start(t, [web.limit(limiter, own)], CONTACTS)
  await users('/contacts', { 'X-User': 'ann' })
  await users()
  assert.equal(limiter.peek('ann').remaining, 8)
})

each('options that are wrong throw a clear error', (t, web) => {
  const gate = gateWith()
  const limiter = Limiter.inMemory('9/hour')
  const secret = 'kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM'
  const cases = [
    [() => web.requireKey({}), TypeError, 'gate must be a Gate, not Object'],
    [() => web.limit(gate), TypeError, 'limiter must be a Limiter, not Gate'],
    [() => web.requireKey(gate, { costs: 5, group: 7 }), TypeError, 'group must be a string, or'],
    [() => web.requireKey(gate, { group: 'write' }), RangeError, 'have no group "write"'],
    [() => web.requireKey(gate, { need: 'write' }), RangeError, 'write'],
    [() => web.requireKey(gate, { cost: -1 }), RangeError, 'cost is -1, and must be'],
    [() => web.requireKey(gate, { cost: '1' }), TypeError, 'cost must be a whole number, not'],
    [() => web.requireKey(gate, { chargeOn: 401 }), TypeError, 'chargeOn is not an option'],
    [() => web.requireKey(gate, { [secret]: 1 }), TypeError, 'kt_live_… is not an option'],
    [() => web.requireKey(gate, { exempt: '/health' }), TypeError, 'exempt is a list of paths'],
    [() => web.requireKey(gate, { exempt: ['/a/../b'] }), RangeError, 'cannot be exempt'],
    [() => web.requireKey(gate, { exemptMethods: ['get'] }), RangeError, 'is not a method'],
    [() => web.requireKey(gate, { keyFrom: [] }), RangeError, 'keyFrom is empty'],
    [() => web.requireKey(gate, { keyFrom: ['Cookie'] }), RangeError, 'does not carry a key'],
    [() => web.requireKey(gate, { keyFrom: [secret] }), RangeError, 'looks like a key'],
    [() => web.requireKey(gate, { keyFrom: ['a', 'A'] }), RangeError, 'lists A twice'],
    [() => web.requireKey(gate, { failures: 5 }), TypeError, 'failures must be a policy'],
    [() => web.requireKey(gate, { trustedProxies: ['x'] }), RangeError, 'trustedProxies[0]'],
    [() => web.requireKey(gate, { trustedProxies: ['::ffff:1.2.3.4'] }), RangeError, 'own form'],
    [() => web.requireKey(gate, { ipv6Prefix: 0 }), RangeError, 'ipv6Prefix is 0'],
    [() => web.requireKey(gate, { refund: 'all' }), RangeError, "'all' in refund is not"],
    [() => web.requireKey(gate, { settle: 5 }), TypeError, 'settle must be a function'],
    [() => web.requireKey(gate, { shadow: 1 }), TypeError, 'shadow must be true or false'],
    [() => web.requireKey(gate, { withoutKey: '9/hour' }), TypeError, 'withoutKey must be the'],
    [() => web.limit(limiter, { chargeOn: [], refund: 1 }), RangeError, '1 in refund is not'],
    [() => web.limit(limiter, { chargeOn: 401, refund: 404 }), TypeError, 'only one of chargeOn'],
    [() => web.limit(limiter, { chargeOn: [] }), RangeError, 'chargeOn is empty'],
  ]
  for (const [make, type, part] of cases) {
    assert.throws(make, (error) => {
      assert.equal(error.constructor, type, error.message)
      assert.ok(error.message.includes(part), error.message)
      assert.ok(!error.message.includes('Xk2LmPz7'), error.message)
      return true
    })
  }
})
