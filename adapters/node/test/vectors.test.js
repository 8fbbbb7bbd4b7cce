'use strict'

// The vector files, which define the results for all languages.

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { test } = require('node:test')

const { AddressPolicy, Charge, Gate, Limiter, Policy, PolicyError, Verdict } = require('keytally')

const { PEPPER, folder, programs, vectors } = require('./support')

// A part of the message of each kind of error.
const SENTENCES = {
  empty: 'at least one quota',
  too_long: 'is longer than',
  syntax: '; a quota is LIMIT/UNIT',
  limit: '; a limit is 1 to',
  window: '; a window is 1 second to',
  unit: '; the units are second',
  too_many: 'one quota too many',
  duplicate: 'the window of another quota',
  sliding_month: 'months differ in length',
  too_many_bits: 'the policy needs {} bits',
  prefix: 'does not limit addresses; up to 4 prefixes',
}

const remaining = (verdict) => verdict.quotas.map((quota) => quota.remaining)
const resets = (verdict) => verdict.quotas.map((quota) => quota.resetUnixS)

test('valid policies match the vectors', () => {
  for (const step of vectors('policy.json').valid) {
    const policy = new Policy(step.text)
    assert.equal(String(policy), step.canonical)
    assert.equal(policy.algorithm, step.algorithm)
    assert.deepEqual(
      policy.quotas.map(({ limit, window }) => [limit, window]),
      step.quotas,
    )
    const { headers } = Limiter.inMemory(policy, 1).check('a')
    assert.equal(new Map(headers).get('RateLimit-Policy'), step.header)
  }
})

test('invalid policies match the vectors', () => {
  for (const step of vectors('policy.json').invalid) {
    const expected = SENTENCES[step.error].replace('{}', step.needed_bits)
    assert.throws(
      () => new Policy(step.text),
      (error) => {
        assert.ok(error instanceof PolicyError)
        assert.ok(error.message.includes(expected), `${step.text}: ${error.message}`)
        return true
      },
    )
  }
})

test('charges match the vectors', () => {
  const { valid, invalid } = vectors('charge.json')
  for (const step of valid) {
    const [bytes, [first]] = [Buffer.from(step.bytes, 'hex'), step.tallies]
    // JavaScript has no number for such a time.
    if (Number(first.at_ms) > Number.MAX_SAFE_INTEGER) continue
    const charge = Charge.fromBytes(bytes)
    assert.deepEqual(charge.toBytes(), bytes)
    const own = step.tallies.filter((tally) => tally.unit === 0).map((tally) => tally.cost)
    assert.deepEqual([charge.cost, charge.atMs], [own[0] ?? 0, Number(first.at_ms)])
    const isNew = step.tallies.length === 1 && first.tally === 0 && first.unit === 0
    assert.equal(new Charge(charge.cost, charge.atMs).toBytes().equals(bytes), isNew)
  }
  for (const { bytes, why } of invalid) {
    assert.throws(() => Charge.fromBytes(Buffer.from(bytes, 'hex')), RangeError, why)
  }
})

test('decisions match the vectors', () => {
  const sequences = new Map()
  for (const step of vectors('decision.json').sequences) {
    if (!sequences.has(step.sequence)) sequences.set(step.sequence, [])
    sequences.get(step.sequence).push(step)
  }
  // JavaScript has no number for some times.
  const isExact = (ms) => ms === undefined || Number.isSafeInteger(Number(ms))
  let count = 0
  for (const steps of sequences.values()) {
    if (!/^0x0+$/.test(steps[0].word)) continue
    if (!steps.every((step) => isExact(step.now_ms) && isExact(step.charged_at_ms))) continue
    count += 1
    const limiter = Limiter.inMemory(steps[0].policy, 1)
    for (const step of steps) {
      const now = Number(step.now_ms)
      const shown = JSON.stringify(step)
      if (step.op === 'check' || step.op === 'peek') {
        const verdict = limiter[step.op]('a', step.cost, { now })
        assert.equal(verdict.outcome, step.outcome, shown)
        assert.deepEqual(remaining(verdict), step.remaining, shown)
        assert.deepEqual(resets(verdict), step.reset_s.map(Number), shown)
        assert.equal(verdict.retryAfterS, step.retry_after_s ?? null, shown)
      } else if (step.op === 'reset') {
        limiter.reset('a', { now })
      } else {
        const charge = new Charge(step.charged, Number(step.charged_at_ms))
        if (step.op === 'refund') limiter.refund('a', charge, { now })
        else {
          const verdict = limiter.settle('a', charge, step.actual, { now })
          assert.equal(verdict.uncharged, step.uncharged, shown)
        }
      }
    }
  }
  assert.ok(count > 5, `${count} sequences`)
})

test('keys match the vectors', () => {
  const { valid, invalid } = vectors('key.json')
  for (const { text, key_id_text: keyId } of valid) {
    // A gate for each key, because some keys have the same key id.
    const gate = Gate.inMemory({ pepper: PEPPER, keys: 8 })
    assert.deepEqual(gate.importKeys([text], 1), [keyId])
    assert.ok(gate.check(text).admitted, text)
  }
  const gate = Gate.inMemory({ pepper: PEPPER, keys: 8 })
  const expected = { form: ['malformed', 'unknown'], checksum: ['checksum'] }
  for (const { text, error } of invalid) {
    const verdict = gate.check(text)
    assert.equal(verdict.outcome, 'invalid_key', text)
    assert.ok(expected[error].includes(verdict.reason), `${text}: ${verdict.reason}`)
  }
})

/** Returns the number of a key id. */
function base62(text) {
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
  return [...text].reduce((number, digit) => number * 62n + BigInt(digits.indexOf(digit)), 0n)
}

test('verdicts match the vectors', { skip: programs === undefined && 'no gates' }, (t) => {
  const { gates: setups, steps } = vectors('verdict.json')
  const made = folder(t)
  const gates = new Map()
  for (const { gate, pepper } of setups) {
    const file = path.join(made, gate)
    fs.copyFileSync(path.join(programs, 'gates', gate), file)
    fs.chmodSync(file, 0o600)
    gates.set(gate, Gate.open(file, { pepper }))
  }
  for (const step of steps) {
    const [gate, now, keys] = [gates.get(step.gate), Number(step.now_ms), step.api_keys]
    const verdict =
      keys.length > 1
        ? Verdict.duplicateHeader({ now })
        : gate[step.op](keys[0] ?? null, step.cost, { now })
    const shown = JSON.stringify(step)
    assert.equal(verdict.outcome, step.outcome, shown)
    assert.equal(verdict.reason, step.reason ?? null, shown)
    assert.equal(verdict.httpStatus, step.status, shown)
    const quotas = verdict.quotas.map((q) => [q.limit, q.remaining, q.window, q.resetUnixS])
    const expected = step.quotas.map((q) => [q.limit, q.remaining, q.window_s, Number(q.reset_s)])
    assert.deepEqual(quotas, expected, shown)
    if (quotas.length > 0) {
      assert.equal(verdict.account, step.account, shown)
      assert.equal(base62(verdict.keyId), BigInt(step.key_id), shown)
      const described = quotas.findLast(([, , window]) => window <= 86400) ?? quotas[0]
      const [limit, left, , reset] = described
      assert.deepEqual([verdict.limit, verdict.remaining, verdict.resetUnixS], [limit, left, reset])
    }
    assert.equal(verdict.retryAfterS, step.retry_after_s ?? null, shown)
    assert.equal(verdict.clockAheadS, step.clock_ahead_s ?? 0, shown)
    const lines = verdict.headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    assert.equal(lines, step.headers, shown)
    assert.equal(verdict.body, step.body, shown)
  }
})

test('prefixes match the vectors', () => {
  const { cases, invalid } = vectors('prefixes.json')
  for (const { policy, canonical, steps } of cases) {
    const limiter = Limiter.inMemory(policy, 64)
    assert.equal(String(limiter.policy), canonical)
    const charges = []
    for (const step of steps) {
      const now = Number(step.now_ms)
      const verdict =
        step.refunds === null
          ? limiter.check(step.client, step.cost, { now })
          : limiter.refund(step.client, charges[step.refunds], { now })
      charges.push(verdict.charge)
      assert.equal(verdict.admitted, step.admitted)
      const tallies = verdict.tallies.map(({ section, verdict: its }) => ({
        section: section ?? '',
        outcome: its.outcome,
        remaining: remaining(its),
        reset_s: resets(its),
      }))
      assert.deepEqual(tallies, step.tallies)
      assert.equal(verdict.retryAfterS, step.retry_after_s ?? null)
    }
  }
  for (const { text } of invalid) assert.throws(() => new AddressPolicy(text), PolicyError, text)
})

test('sections match the vectors', () => {
  for (const { plan, steps } of vectors('sections.json').cases) {
    const gate = Gate.inMemory({ pepper: PEPPER, keys: 64, plans: { default: plan }, teams: 4 })
    const keys = [0, 1, 2].map((key) => gate.issue(42 + (key >> 1), { now: 1000 }).expose())
    for (const step of steps) {
      const own = step.groups.filter(({ cost }) => cost !== null)
      const verdict = gate.check(keys[step.key], step.cost, {
        groups: step.groups.filter(({ cost }) => cost === null).map(({ name }) => name),
        costs: Object.fromEntries(own.map(({ name, cost }) => [name, cost])),
        now: Number(step.now_ms),
      })
      const shown = JSON.stringify(step)
      assert.equal(verdict.admitted, step.admitted, shown)
      // A key that its plan does not limit has a verdict without windows.
      const counted = verdict.tallies.filter(({ verdict: its }) => its.quotas.length > 0)
      const tallies = counted.map(({ section, verdict: its }) => ({
        section,
        outcome: its.outcome,
        remaining: remaining(its),
        reset_s: resets(its),
      }))
      assert.deepEqual(tallies, step.tallies, shown)
      assert.equal(verdict.retryAfterS, step.retry_after_s ?? null, shown)
      const crossed = verdict.crossed().map(([{ section, verdict: its }, quota, percent]) => ({
        section,
        window: its.quotas.findIndex(({ name }) => name === quota.name),
        percent,
      }))
      assert.deepEqual(crossed, step.crossed, shown)
    }
  }
})
