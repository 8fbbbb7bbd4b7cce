'use strict'

// The workers of `cluster` share a file: together they admit exactly the limit.

const assert = require('node:assert/strict')
const cluster = require('node:cluster')
const path = require('node:path')
const { test } = require('node:test')

const { Gate, Limiter } = require('keytally')

const { PEPPER, folder } = require('./support')

const WORKERS = 4
const LIMIT = 20000

test('workers of a cluster together admit exactly the limit', async (t) => {
  const made = folder(t)
  const gate = Gate.create(path.join(made, 'api.gate'), {
    pepper: PEPPER,
    keys: 100,
    plans: { default: `${LIMIT}/day` },
  })
  const key = gate.issue(42).expose()
  cluster.setupPrimary({ exec: path.join(__dirname, 'cluster-worker.js') })
  const workers = [...Array(WORKERS).keys()].map(() => cluster.fork({ KEYTALLY_PEPPER: PEPPER }))
  t.after(() => workers.forEach((worker) => worker.kill()))
  const message = (worker) => new Promise((resolve) => worker.once('message', resolve))
  // All workers begin at once.
  await Promise.all(workers.map(message))
  const results = workers.map(message)
  workers.forEach((worker) => worker.send({ folder: made, key, checks: LIMIT / 2 }))
  const counts = await Promise.all(results)
  const sum = (name) => counts.reduce((total, count) => total + count[name], 0)
  assert.deepEqual([sum('byGate'), sum('byLimiter')], [LIMIT, LIMIT])
  assert.ok(
    counts.every((count) => count.byGate > 0),
    JSON.stringify(counts),
  )
  assert.equal(gate.check(key).outcome, 'denied')
  const limiter = Limiter.open(path.join(made, 'users.limiter'))
  assert.equal(limiter.peek('ann').remaining, 0)
})
