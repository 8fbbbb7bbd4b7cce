'use strict'

// The checks of arguments, with the errors for wrong types and values out of range.

const { inspect } = require('node:util')

const native = require('./native')

const MAX_U32 = 4294967295
// Unix milliseconds of the last time that a `Date` can have.
const MAX_MS = 8.64e15

/**
 * Returns what an error may show of a value: redacted, and cut after 40 characters.
 *
 * @param {unknown} value
 * @returns {string}
 */
function shown(value) {
  const isPlain = value === null || typeof value !== 'object'
  const text = native.redact(
    value instanceof Date ? dateText(value) : isPlain ? inspect(value) : kind(value),
  )
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}

function dateText(date) {
  return Number.isNaN(date.getTime()) ? 'an invalid Date' : date.toISOString()
}

/**
 * Returns the type of a value for an error.
 *
 * @param {unknown} value
 * @returns {string}
 */
function kind(value) {
  if (value === null || value === undefined) return String(value)
  if (typeof value !== 'object') return typeof value
  return value.constructor?.name || 'object'
}

function wrongType(name, expected, value) {
  return new TypeError(`${name} must be ${expected}, not ${kind(value)}`)
}

/** Returns a whole number of a range, after checking it. */
function wholeNumber(value, name, expected = 'a whole number', min = 0, max = MAX_U32) {
  if (typeof value !== 'number') throw wrongType(name, expected, value)
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(
      `${name} is ${shown(value)}, and must be a whole number from ${min} to ${max}`,
    )
  }
  return value
}

/** Throws the error for a cost that is not a whole number of 0 to 4294967295. */
function checkCost(cost) {
  wholeNumber(cost, 'cost')
}

/** Returns the number of an account, after checking it. */
function account(value) {
  return wholeNumber(value, 'account', 'the number of an account')
}

/** Returns a text, after checking its type. */
function text(value, name) {
  if (typeof value !== 'string') throw wrongType(name, 'a string', value)
  return value
}

/** Returns a path: a string, a `URL` of a file, or a `Buffer`. */
function path(value, name = 'path') {
  if (typeof value === 'string') return value
  if (value instanceof URL) return require('node:url').fileURLToPath(value)
  throw wrongType(name, 'a string or a URL of a file', value)
}

/** Throws the error for options that are not an object, or have an unknown name. */
function options(value, names) {
  if (value === undefined) return
  if (value === null || typeof value !== 'object') throw wrongType('options', 'an object', value)
  for (const name of Object.keys(value)) {
    if (!names.includes(name)) {
      throw new TypeError(
        `${native.redactName(name)} is not an option; they are: ${names.join(', ')}`,
      )
    }
  }
}

/** Returns names: one, several or none. */
function names(value, name) {
  if (value === undefined || value === null) return []
  if (typeof value === 'string') return [value]
  if (typeof value[Symbol.iterator] !== 'function') {
    throw wrongType(name, 'a string, or several of them', value)
  }
  const found = [...value]
  for (const each of found) {
    if (typeof each !== 'string') throw wrongType(name, 'a string, or several of them', each)
  }
  return found
}

/** Returns groups with costs of their own, from an object or a `Map`. */
function costs(value) {
  if (value === undefined || value === null) return []
  if (typeof value !== 'object') {
    throw wrongType('costs', 'an object from names of groups to costs', value)
  }
  const entries = value instanceof Map ? [...value] : Object.entries(value)
  return entries.map(([name, cost]) => {
    text(name, 'the name of a group')
    return { name, cost: wholeNumber(cost, `the cost of the group "${native.redactName(name)}"`) }
  })
}

/** Returns an explicit time in Unix milliseconds; -1 for the system clock. */
function moment(value, name = 'now') {
  if (value === undefined || value === null) return -1
  const ms = value instanceof Date ? value.getTime() : value
  if (typeof ms !== 'number') {
    throw wrongType(name, 'a Date, or Unix milliseconds as of Date.now()', value)
  }
  // Also false for NaN.
  if (!(ms >= 0 && ms < Infinity)) {
    throw new RangeError(
      `${name} is ${shown(value)}, and must be a Date, or milliseconds since 1970 as of Date.now()`,
    )
  }
  return ms
}

/** Returns a number of seconds, after checking it. */
function span(value, name) {
  if (typeof value !== 'number') throw wrongType(name, 'a number of seconds', value)
  if (!(value >= 0 && value < Infinity)) {
    throw new RangeError(`${name} is ${shown(value)}, and must be a number of seconds, 0 or more`)
  }
  return value
}

/** Returns how long a change waits for another administrator, in seconds. */
function wait(options) {
  return options?.wait === undefined ? 10 : span(options.wait, 'wait')
}

/** Returns when a key expires, in Unix seconds; `undefined` if it never does. */
function expiry(value, nowMs) {
  if (value === undefined || value === null) return undefined
  const nowS = (nowMs < 0 ? native.clockMs() : nowMs) / 1000
  let unixS
  if (value instanceof Date) unixS = Math.floor(value.getTime() / 1000)
  else if (typeof value === 'number') unixS = Math.floor(nowS + value)
  else throw wrongType('expires', 'a Date, or a number of seconds from now', value)
  if (!(unixS > nowS)) {
    throw new RangeError(
      `expires is ${shown(value)}, and must be a Date after now, or a number of seconds of at least 1`,
    )
  }
  if (unixS > MAX_U32) {
    throw new RangeError(
      `expires is ${shown(value)}, and must be at most 2106-02-07T06:28:15Z; leave it out for a ` +
        'key that never expires',
    )
  }
  return unixS
}

/** Throws the error unless a value is a key: a string, bytes, or nothing. */
function checkApiKey(value) {
  if (
    typeof value !== 'string' &&
    value !== undefined &&
    value !== null &&
    !(value instanceof Uint8Array)
  ) {
    throw wrongType('apiKey', 'a string, a Uint8Array, null or undefined', value)
  }
}

/** Throws the error unless a value is a subject: a string or bytes. */
function checkSubject(value) {
  if (typeof value !== 'string' && !(value instanceof Uint8Array)) {
    throw wrongType('subject', 'a string or a Uint8Array', value)
  }
}

module.exports = {
  MAX_MS,
  MAX_U32,
  account,
  checkApiKey,
  checkCost,
  checkSubject,
  costs,
  expiry,
  kind,
  moment,
  names,
  options,
  path,
  shown,
  span,
  text,
  wait,
  wholeNumber,
  wrongType,
}
