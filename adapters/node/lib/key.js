'use strict'

const { inspect } = require('node:util')

/**
 * A key that was just issued or rotated, with the only copy of its secret.
 *
 * The gate stores only an HMAC of the secret. `console.log`, `JSON.stringify` and `String` show the
 * hint, so that the secret does not reach a log by accident.
 *
 * @example
 * const { Gate, generatePepper } = require('keytally')
 * const gate = Gate.inMemory({ pepper: generatePepper() })
 * const key = gate.issue(42)
 * key.expose().startsWith('kt_live_') // true
 * JSON.stringify(key).includes(key.expose()) // false
 */
class Key {
  #secret
  #keyId
  #hint

  constructor({ secret, keyId, hint }) {
    this.#secret = secret
    this.#keyId = keyId
    this.#hint = hint
  }

  /** Returns the key as the client must send it. Do not log it. */
  expose() {
    return this.#secret
  }

  /** The id of the key, 11 base62 characters. It survives rotation, and logs may contain it. */
  get keyId() {
    return this.#keyId
  }

  /** The part of the key that may be shown: prefix, environment and the last four characters. */
  get hint() {
    return this.#hint
  }

  toString() {
    return this.#hint
  }

  toJSON() {
    return { keyId: this.#keyId, hint: this.#hint }
  }

  [inspect.custom]() {
    return `<Key ${this.#keyId}: ${this.#hint}>`
  }
}

module.exports = { Key }
