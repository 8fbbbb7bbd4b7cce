'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const { PEEK, WAIT, decideInTime } = require('./credits')
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
  #creditWaitS

  constructor(part, cost, gate, creditWaitS = 0) {
    this.#part = part
    this.#gate = gate
    this.#creditWaitS = creditWaitS
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

  static creditWaitOf(part) {
    return part.#creditWaitS
  }

  // The key that a part may have is not shown.
  [inspect.custom]() {
    return `<Part, cost ${this.cost}>`
  }
}

function decideAll(mode, parts, options) {
  if (!Array.isArray(parts)) throw wrongType('parts', 'an array of parts', parts)
  checkOptions(options, ['now'])
  const now = moment(options?.now)
  const found = parts.map((part) => Part.nativeOf(part))
  const answer = calling(() => native.decideAll(mode, found, now, F.written))
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
  return decideAll(WAIT, parts, options)
}

/** Checks as `checkAll` does, and waits for credits of a fleet while the event loop continues. */
async function acheckAll(parts, options) {
  const decide = (mode) => decideAll(mode, parts, options)
  const waits = Array.isArray(parts) ? parts.filter((part) => part instanceof Part) : []
  return decideInTime(decide, Math.max(0, ...waits.map((part) => Part.creditWaitOf(part))))
}

/** Returns what `checkAll` would return now, and charges nothing. */
function peekAll(parts, options) {
  return decideAll(PEEK, parts, options)
}

module.exports = { Part, acheckAll, checkAll, peekAll }
