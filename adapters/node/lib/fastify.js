'use strict'

// Hooks for Fastify 5.

const { Refusal } = require('./refusal')
const { Sent } = require('./response')
const { GateRule, LimiterRule } = require('./rule')

const WEB = {
  raw: (request) => request.raw,
  rawResponse: (reply) => reply.raw,
  // Decoded once, as Fastify matches it.
  path: (request) => {
    const { url } = request.raw
    const end = url.search(/[?#]/)
    const path = end < 0 ? url : url.slice(0, end)
    try {
      return decodeURI(path)
    } catch {
      return path
    }
  },
  // By the option `trustProxy` of Fastify.
  peer: (request) => request.ip,
}

function hook(rule) {
  return async function keytally(request, reply) {
    const refused = await rule.handle(request, reply)
    if (refused === undefined) return undefined
    reply.code(refused.status)
    for (const [name, value] of refused.headers) reply.header(name, value)
    // Fastify sends no body for HEAD.
    return reply.send(refused.body)
  }
}

/**
 * Returns an `onRequest` hook that admits and charges a request whose key is valid and has quota
 * left.
 *
 * The verdict is `request.verdict`. A refused request gets 401, 403 or 429 with the verdict's body
 * and header fields. `types/web.d.ts` describes the options.
 *
 * @example
 * const { Gate, generatePepper } = require('keytally')
 * const { requireKey } = require('keytally/fastify')
 * const gate = Gate.inMemory({ pepper: generatePepper() })
 * const hook = requireKey(gate, { exempt: ['/health'] })
 * hook.length // 2
 */
function requireKey(gate, options) {
  return hook(new GateRule(WEB, gate, options))
}

/**
 * Returns an `onRequest` hook that admits and charges a request whose subject has quota left: the
 * client's address, or the result of the option `key`.
 *
 * @example
 * const { Limiter } = require('keytally')
 * const { limit } = require('keytally/fastify')
 * const hook = limit(Limiter.inMemory('20/minute, 200/hour'))
 * hook.length // 2
 */
function limit(limiter, options) {
  return hook(new LimiterRule(WEB, limiter, options))
}

module.exports = { Refusal, Sent, limit, requireKey }
