'use strict'

const { setTimeout } = require('node:timers/promises')

// What a request does if it lacks credits of a fleet: see `patience_of` in `src/gate.rs`.
const WAIT = 0
const RETURN = 1
const DECIDE = 2
const PEEK = 3

// How long a request waits for credits of a fleet by default, in seconds.
const CREDIT_WAIT_S = 0.02

// The shortest timer of Node.js, in milliseconds.
const PAUSE_MS = 1

/**
 * Decides by `decide(mode)`, and waits for credits of a fleet at most for `waitS` seconds while the
 * event loop continues.
 */
async function decideInTime(decide, waitS) {
  let verdict = decide(RETURN)
  for (let leftMs = 1000 * waitS; leftMs > 0; leftMs -= PAUSE_MS) {
    if (verdict.unavailability !== 'waiting') return verdict
    await setTimeout(Math.min(PAUSE_MS, leftMs))
    verdict = decide(RETURN)
  }
  return verdict.unavailability === 'waiting' ? decide(DECIDE) : verdict
}

module.exports = { CREDIT_WAIT_S, WAIT, RETURN, DECIDE, PEEK, decideInTime }
