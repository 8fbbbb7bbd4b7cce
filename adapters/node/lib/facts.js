'use strict'

// The numbers that the native part writes for a verdict on one tally: see `src/facts.rs`.

const native = require('./native')

const meanings = native.meanings()

const OUTCOME = 0
const REASON = 1
const FLAGS = 2
const RETRY_AFTER_S = 3
const CLOCK_AHEAD_S = 5
const COST = 6
const AT_MS = 7
const UNCHARGED = 8
const ACCOUNT = 9
const KEY_ID_HIGH = 10
const KEY_ID_LOW = 11
const PLAN = 12
const ENV = 13
const GENERATION = 14
const DESCRIBED = 15
const HEAD = 17
const QUOTA_LEN = 5

const CHARGED = 1
const SHARED = 2

// The array to which each call writes. Nothing outside of the package refers to it, and it is
// copied before another call can run.
const written = new Float64Array(meanings.facts)

/**
 * Returns a copy of the facts that a call wrote.
 *
 * @param {number} quotas The number of quotas.
 * @returns {number[]}
 */
function copied(quotas) {
  const f = written
  // Nearly all policies have two quotas at most. A literal takes less time than a loop, and holds
  // plain doubles.
  if (quotas > 2) return Array.from(f.subarray(0, HEAD + QUOTA_LEN * quotas))
  // prettier-ignore
  const facts = [
    f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13], f[14],
    f[15], f[16], f[17], f[18], f[19], f[20], f[21], f[22], f[23], f[24], f[25], f[26],
  ]
  return facts
}

module.exports = {
  ACCOUNT,
  AT_MS,
  CHARGED,
  CLOCK_AHEAD_S,
  COST,
  DESCRIBED,
  ENV,
  FLAGS,
  GENERATION,
  HEAD,
  KEY_ID_HIGH,
  KEY_ID_LOW,
  OUTCOME,
  PLAN,
  QUOTA_LEN,
  REASON,
  RETRY_AFTER_S,
  SHARED,
  UNCHARGED,
  copied,
  outcomes: meanings.outcomes,
  reasons: [null, ...meanings.reasons],
  statuses: meanings.statuses,
  written,
}
