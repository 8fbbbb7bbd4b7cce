'use strict'

// Middleware for Express 4 and 5, and for what takes the same functions, such as Connect.

const { shown } = require('./arguments')
const { Refusal } = require('./refusal')
const { Sent } = require('./response')
const { GateRule, LimiterRule, isThenable } = require('./rule')

const WEB = {
  raw: (request) => request,
  rawResponse: (response) => response,
  // Without the part of a router's mount. Express matches it undecoded.
  path: (request) => {
    const { url } = request
    const end = url.search(/[?#]/)
    return end < 0 ? url : url.slice(0, end)
  },
  // By the setting `trust proxy` of Express.
  peer: (request) => request.ip ?? request.socket?.remoteAddress,
}

function middleware(rule) {
  return function keytally(request, response, next) {
    const fail = (error) => next(asError(error))
    const respond = (refused) => {
      if (refused === undefined) return next()
      // The application has responded meanwhile, such as after a time limit.
      if (response.writableEnded) return undefined
      try {
        send(request, response, refused)
      } catch (error) {
        fail(error)
      }
      return undefined
    }
    let refused
    try {
      refused = rule.handle(request, response)
    } catch (error) {
      fail(error)
      return
    }
    if (isThenable(refused)) refused.then(respond, fail)
    else respond(refused)
  }
}

function send(request, response, refused) {
  response.statusCode = refused.status
  for (const [name, value] of refused.headers) response.setHeader(name, value)
  response.end(request.method === 'HEAD' ? undefined : refused.body)
}

/**
 * Returns what an option threw, as an object. Express continues with the request if `next` gets a
 * falsy value or the text `route` or `router`.
 */
function asError(thrown) {
  if (thrown !== null && typeof thrown === 'object') return thrown
  return new Error(`an option of keytally threw ${shown(thrown)} instead of an Error`)
}

/**
 * Returns middleware that admits and charges a request whose key is valid and has quota left.
 *
 * The verdict is `request.verdict`. A refused request gets 401, 403 or 429 with the verdict's body
 * and header fields. `types/web.d.ts` describes the options.
 *
 * @example
 * const { Gate, generatePepper } = require('keytally')
 * const { requireKey } = require('keytally/express')
 * const gate = Gate.inMemory({ pepper: generatePepper() })
 * const middleware = requireKey(gate, { exempt: ['/health'] })
 * middleware.length // 3
 */
function requireKey(gate, options) {
  return middleware(new GateRule(WEB, gate, options))
}

/**
 * Returns middleware that admits and charges a request whose subject has quota left: the client's
 * address, or the result of the option `key`.
 *
 * @example
 * const { Limiter } = require('keytally')
 * const { limit } = require('keytally/express')
 * const middleware = limit(Limiter.inMemory('20/minute, 200/hour'))
 * middleware.length // 3
 */
function limit(limiter, options) {
  return middleware(new LimiterRule(WEB, limiter, options))
}

module.exports = { Refusal, Sent, limit, requireKey }
