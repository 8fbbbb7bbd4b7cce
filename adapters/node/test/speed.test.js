'use strict'

// The time of a check. The suite runs this file only with a native part of the profile `release`.

const assert = require('node:assert/strict')
const path = require('node:path')
const { test } = require('node:test')

const { Gate } = require('keytally')

const { PEPPER, folder } = require('./support')

const CHECKS = 100000

test('a check of a plain gate takes at most 0.6 µs', (t) => {
  const plans = { default: '100000/minute, 1000000/hour' }
  const gate = Gate.create(path.join(folder(t), 'api.gate'), { pepper: PEPPER, keys: 1000, plans })
  const keys = [...Array(64).keys()].map(() => gate.issue(42).expose())
  let [best, admitted] = [Infinity, 0]
  // The shortest round is that in which other programs took the least time.
  for (let round = 0; round < 30; round++) {
    const begun = process.hrtime.bigint()
    for (let turn = 0; turn < CHECKS; turn++) {
      if (gate.check(keys[turn & 63]).admitted) admitted += 1
    }
    best = Math.min(best, Number(process.hrtime.bigint() - begun) / CHECKS)
  }
  assert.equal(admitted, 30 * CHECKS)
  t.diagnostic(`${Math.round(best)} ns a check`)
  assert.ok(best <= 600, `${best} ns`)
})
