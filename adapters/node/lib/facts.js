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
const LEASED = 4
const UNRESERVED = 8
const UNAVAILABILITY = 16

// The array to which each call writes. Nothing outside of the package refers to it, and it is
// copied before another call can run.
const written = new Float64Array(native.constants().maxFacts)

// What a call returns for a request with several tallies: the number of its facts and this.
const IS_COMPOUND = 100

// The numbers that the native part writes for such a request: see `src/compound.rs`.
const ALL = {
  OUTCOME: 0,
  REASON: 1,
  RETRY_AFTER_S: 2,
  CLOCK_AHEAD_S: 3,
  UNCHARGED: 4,
  FLAGS: 5,
  DECISIVE: 6,
  HOLDER: 7,
  OWN: 9,
  OWN_AT: 10,
  TALLIES: 11,
  CHARGES: 12,
  CROSSED: 13,
  HEAD: 14,
}

const SECTION_LEN = 4
const CHARGE_LEN = 128
const ENTRY_WORDS = 4

/**
 * Returns what the facts of a request with several tallies mean, without those of its head.
 *
 * @param {number[]} facts
 */
function parsed(facts) {
  let at = ALL.HEAD
  const take = (count) => facts.slice(at, (at += count))
  const tallies = Array.from({ length: facts[ALL.TALLIES] }, () => {
    const [part, length] = take(2)
    const name = Array.from(take(SECTION_LEN - 1), (number) => {
      const low = number % 2 ** 32
      const high = Math.floor(number / 2 ** 32)
      return String.fromCharCode(
        low & 255,
        (low >>> 8) & 255,
        (low >>> 16) & 255,
        low >>> 24,
        high & 255,
        high >>> 8,
      )
    })
    const own = take(HEAD + QUOTA_LEN * facts[at + HEAD - 1])
    return { part, section: length === 0 ? null : name.join('').slice(0, length), facts: own }
  })
  const charges = new Map(
    Array.from({ length: facts[ALL.CHARGES] }, () => {
      const [part, entries] = take(2)
      const bytes = Buffer.alloc(CHARGE_LEN)
      take(ENTRY_WORDS * entries).forEach((word, index) => bytes.writeUInt32LE(word, 4 * index))
      return [part, bytes]
    }),
  )
  const crossed = Array.from({ length: facts[ALL.CROSSED] }, () => take(3))
  return { tallies, charges, crossed }
}

/**
 * Returns a copy of the facts that a call wrote for one tally.
 *
 * @param {number} quotas The number of quotas.
 * @returns {number[]}
 */
function copied(quotas) {
  const f = written
  // Nearly all policies have two quotas at most. A literal takes less time than a loop, and holds
  // plain doubles.
  if (quotas > 2) return copiedAll(HEAD + QUOTA_LEN * quotas)
  // prettier-ignore
  const facts = [
    f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10], f[11], f[12], f[13], f[14],
    f[15], f[16], f[17], f[18], f[19], f[20], f[21], f[22], f[23], f[24], f[25], f[26],
  ]
  return facts
}

// Arrays of plain doubles, by their length.
const blanks = []

/**
 * Returns a copy of as many facts.
 *
 * The copy of an array and a loop take a quarter of the time that a new typed array takes, whose
 * memory is outside of the heap.
 *
 * @param {number} count
 * @returns {number[]}
 */
function copiedAll(count) {
  const facts = (blanks[count] ??= Array.from({ length: count }, () => 0.5)).slice()
  for (let index = 0; index < count; index++) facts[index] = written[index]
  return facts
}

module.exports = {
  ALL,
  IS_COMPOUND,
  parsed,
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
  LEASED,
  OUTCOME,
  PLAN,
  QUOTA_LEN,
  REASON,
  RETRY_AFTER_S,
  SHARED,
  UNAVAILABILITY,
  UNRESERVED,
  UNCHARGED,
  copied,
  copiedAll,
  outcomes: meanings.outcomes,
  reasons: [null, ...meanings.reasons],
  statuses: meanings.statuses,
  unavailabilities: [null, ...meanings.unavailabilities],
  written,
}
