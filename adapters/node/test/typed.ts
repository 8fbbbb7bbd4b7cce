// A program that uses the types: `types.test.js` checks it.

import express from 'express'
import fastify from 'fastify'
import { Charge, Gate, KeytallyError, Limiter, checkAll, generatePepper } from 'keytally'
import type { Verdict } from 'keytally'
import * as web from 'keytally/express'
import * as hooks from 'keytally/fastify'

const plans = { default: '100/minute; team: 5000/hour; group write: 20/minute' }
const gate = Gate.inMemory({ pepper: generatePepper(), plans, scopes: ['write'] })
const addresses = Limiter.inMemory('20/minute', 1000, { onFull: 'refuse' })

const key = gate.issue(42, { scopes: 'write', expires: new Date('2090-01-01') })
const verdict: Verdict = gate.check(key.expose(), 2, { groups: ['write'], now: Date.now() })
const account: number | null = verdict.account
const charge: Charge | null = verdict.charge
gate.refund(verdict.keyId, charge)
const all: Verdict = checkAll([gate.part(key.expose()), addresses.part('203.0.113.9')])
for (const { section, verdict: its } of all.tallies) console.log(section, its.remaining, account)

const app = express()
app.use(web.limit(addresses, { key: (request) => request.ip ?? null }))
app.use(
  web.requireKey(gate, {
    cost: (request) => (request.method === 'GET' ? 1 : 5),
    need: async () => ['write'],
    refund: ['5xx', 404],
    settle: (request, sent) => ({ key: sent.bytes, write: sent.costs.write ?? 0 }),
    refusal: (refused) => refused.replace({ status: 402, body: { outcome: refused.outcome } }),
  }),
)
app.get('/contacts', (request, response) => {
  response.send(`account ${request.verdict?.account}`)
})

const server = fastify()
server.addHook('onRequest', hooks.requireKey(gate, { cost: (request) => request.url.length }))
server.get('/contacts', { onRequest: hooks.limit(addresses) }, async (request) => {
  return { account: request.verdict?.account }
})

// @ts-expect-error: a cost is a number.
gate.check(key.expose(), '1')
// @ts-expect-error: a grace is required.
gate.rotate(key.keyId, {})
// @ts-expect-error: there is no constructor.
new Gate()
// @ts-expect-error: only limiters charge by the status.
web.requireKey(gate, { chargeOn: 401 })
const failed: Error = new KeytallyError('text')
console.log(failed)
