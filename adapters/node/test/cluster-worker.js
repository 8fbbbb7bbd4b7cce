'use strict'

// A worker of `cluster.test.js`: makes checks, and reports how many were admitted.

const path = require('node:path')

const { Gate, Limiter } = require('keytally')

process.once('message', ({ folder, key, checks }) => {
  const gate = Gate.open(path.join(folder, 'api.gate'))
  const limiter = Limiter.openOrCreate(path.join(folder, 'users.limiter'), '20000/day', 100)
  let [byGate, byLimiter] = [0, 0]
  for (let turn = 0; turn < checks; turn++) {
    if (gate.check(key).admitted) byGate += 1
    if (limiter.check('ann').admitted) byLimiter += 1
  }
  process.send({ byGate, byLimiter }, () => process.disconnect())
})
process.send('ready')
