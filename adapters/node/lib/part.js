'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const { moment, options: checkOptions, wrongType } = require('./arguments')
const { calling } = require('./errors')
const F = require('./facts')
const { verdictOf } = require('./verdict')

/**
 * A key or a subject with a cost, as a part of `checkAll`. `Gate.part` and `Limiter.part` return
 * it. Make one for each request.
 */
class Part {
  #part
  #gate

  constructor(part, cost, gate) {
    this.#part = part
    this.#gate = gate
    this.cost = cost
    Object.freeze(this)
  }

  static nativeOf(part) {
    if (!(part instanceof Part))
      throw wrongType('a part', 'what Gate.part or Limiter.part returned', part)
    return part.#part
  }

  static gateOf(part) {
    return part.#gate
  }

  // The key that a part may have is not shown.
  [inspect.custom]() {
    return `<Part, cost ${this.cost}>`
  }
}

function decideAll(isPeek, parts, options) {
  if (!Array.isArray(parts)) throw wrongType('parts', 'an array of parts', parts)
  checkOptions(options, ['now'])
  const now = moment(options?.now)
  const found = parts.map((part) => Part.nativeOf(part))
  const answer = calling(() => native.decideAll(isPeek, found, now, F.written))
  return verdictOf(
    answer,
    parts.map((part) => Part.gateOf(part)),
  )
}

/**
 * Checks several keys and subjects of one request, and charges all or none.
 *
 * @example
 * const { Gate, Limiter, checkAll, generatePepper } = require('keytally')
 * const gate = Gate.inMemory({ pepper: generatePepper() })
 * const key = gate.issue(42).expose()
 * const addresses = Limiter.inMemory('1/day')
 * checkAll([gate.part(key), addresses.part('203.0.113.9')]).admitted // true
 * const denied = checkAll([gate.part(key), addresses.part('203.0.113.9')])
 * denied.tallies.map((tally) => tally.verdict.outcome) // ['admitted', 'denied']
 * denied.remaining // 999
 */
function checkAll(parts, options) {
  return decideAll(false, parts, options)
}

/** Returns what `checkAll` would return now, and charges nothing. */
function peekAll(parts, options) {
  return decideAll(true, parts, options)
}

module.exports = { Part, checkAll, peekAll }
