'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const { kind, moment, wholeNumber, wrongType } = require('./arguments')
const { calling } = require('./errors')

/**
 * What an admitted request was charged, and when.
 *
 * `refund` and `settle` take it. Another process can restore it from its bytes, which are the same
 * in every language.
 *
 * @example
 * const { Charge, Limiter } = require('keytally')
 * const limiter = Limiter.inMemory('5/minute')
 * const { charge } = limiter.check('203.0.113.9', 3)
 * limiter.refund('203.0.113.9', Charge.fromBytes(charge.toBytes())).remaining // 5
 */
class Charge {
  #bytes
  #cost
  #atMs
  #isShared
  #isUnreserved

  /**
   * @param {number} cost The units charged, 0 to 4294967295.
   * @param {number} atMs The time of the charge, in Unix milliseconds.
   */
  constructor(cost, atMs) {
    this.#cost = wholeNumber(cost, 'cost')
    if (typeof atMs !== 'number') throw wrongType('atMs', 'a number of milliseconds', atMs)
    this.#atMs = moment(atMs, 'atMs')
    this.#isShared = false
    this.#isUnreserved = false
  }

  /** Returns the charge with these bytes, as `toBytes` returned them. */
  static fromBytes(bytes) {
    if (!(bytes instanceof Uint8Array)) throw wrongType('bytes', 'a Uint8Array', bytes)
    const { cost, atMs } = calling(() => native.chargeFacts(bytes))
    const charge = new Charge(cost, atMs)
    charge.#bytes = Buffer.from(bytes)
    return charge
  }

  /** Returns the charge of a verdict on one tally. */
  static ofTally(cost, atMs, isShared, isUnreserved) {
    const charge = new Charge(cost, atMs)
    charge.#isShared = isShared
    charge.#isUnreserved = isUnreserved
    return charge
  }

  /** The units that the request itself was charged. */
  get cost() {
    return this.#cost
  }

  /** The time of the charge, in Unix milliseconds. */
  get atMs() {
    return this.#atMs
  }

  /** Returns the charge as 128 bytes, to be stored. */
  toBytes() {
    this.#bytes ??= native.chargeBytes(this.#cost, this.#atMs, this.#isShared, this.#isUnreserved)
    return Buffer.from(this.#bytes)
  }

  toString() {
    return `Charge(${this.#cost}, ${this.#atMs})`
  }

  [inspect.custom]() {
    return this.toString()
  }
}

/** Returns the bytes of a charge that is an argument. */
function chargeBytes(charge, name) {
  if (charge === null || charge === undefined) {
    throw new TypeError(
      `the ${name} is ${charge}: only the verdict of an admitted check has one; ` +
        'check verdict.admitted first',
    )
  }
  if (!(charge instanceof Charge)) {
    throw new TypeError(`${name} must be the charge of a verdict, not ${kind(charge)}`)
  }
  return charge.toBytes()
}

module.exports = { Charge, chargeBytes }
