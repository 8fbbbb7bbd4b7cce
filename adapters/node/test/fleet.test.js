'use strict'

// Gates in a fleet, without an agent: a test writes the page of the fleet file as an agent does.

const assert = require('node:assert/strict')
const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')
const test = require('node:test')

const express = require('express')
const fastify = require('fastify')

const keytally = require('keytally')
const ofExpress = require('keytally/express')
const ofFastify = require('keytally/fastify')
const { PEPPER, folder } = require('./support')

// The words of the page: see the layout of the fleet file.
const STATE = 9
const HEARTBEAT = 16
const DOORBELL = 24
const [LEADING, CUT] = [2, 3]
const [CLOSED, OPEN] = [1, 3]

/** The fleet file of a gate with four keys, whose plans have one section. */
class FleetFile {
  #file

  constructor(file) {
    fs.writeFileSync(file, Buffer.alloc(8192), { mode: 0o600 })
    this.#file = fs.openSync(file, 'r+')
  }

  word(index) {
    const bytes = Buffer.alloc(8)
    fs.readSync(this.#file, bytes, 0, 8, 8 * index)
    return bytes.readBigUInt64LE()
  }

  set(phase, mode) {
    this.#write(HEARTBEAT, Date.now() + 3_600_000)
    this.#write(STATE, phase + 256 * mode)
  }

  #write(index, number) {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(BigInt(number))
    fs.writeSync(this.#file, bytes, 0, 8, 8 * index)
  }

  close() {
    fs.closeSync(this.#file)
  }
}

/** Returns a gate that has joined a fleet without an agent, its fleet file and a key. */
function joined(t, options) {
  const made = path.join(folder(t), 'api.gate')
  const plans = { default: '10/31d; group write: 9/31d' }
  const created = keytally.Gate.create(made, { pepper: PEPPER, keys: 2, plans })
  const key = created.issue(42).expose()
  created.setFleet(true)
  const file = new FleetFile(`${made}.fleet`)
  t.after(() => file.close())
  const gate = keytally.Gate.open(made, { pepper: PEPPER, fleet: `${made}.fleet`, ...options })
  return { gate, file, key }
}

/** Sets the state as soon as a request has reported that it lacks credits. */
function lead(file) {
  return new Promise((resolve) => {
    const look = () => {
      if (file.word(DOORBELL) === 0n) return setImmediate(look)
      file.set(CUT, OPEN)
      return resolve()
    }
    look()
  })
}

/** Returns a limiter that has joined a fleet without an agent, and its fleet file. */
function joinedLimiter(t, options) {
  const made = path.join(folder(t), 'api.limiter')
  keytally.Limiter.create(made, '10/31d', 8).setFleet(true)
  const file = new FleetFile(`${made}.fleet`)
  t.after(() => file.close())
  file.set(LEADING, CLOSED)
  return { limiter: keytally.Limiter.open(made, { fleet: `${made}.fleet`, ...options }), file }
}

/** Returns the units that the tally of this machine counts. */
function counted(gate, key) {
  gate.setFleet(false)
  return 10 - gate.peek(key).remaining
}

test('request without credits is waiting, or is decided as the operator chose', (t) => {
  const { gate, file, key } = joined(t)
  file.set(LEADING, CLOSED)
  const options = { groups: 'write' }
  for (const verdict of [gate.tryCheck(key, 3), gate.tryCheck(key, 3, options)]) {
    assert.deepEqual(
      [verdict.outcome, verdict.unavailability, verdict.leased, verdict.charge],
      ['unavailable', 'waiting', false, null],
    )
  }
  for (const verdict of [gate.check(key), gate.checkWithoutWait(key, 1, options)]) {
    assert.deepEqual([verdict.unavailability, verdict.retryAfterS], ['lost', 1])
    assert.throws(() => verdict.raiseForStatus(), keytally.UnavailableError)
  }
  const { decisive } = keytally.checkAll([gate.part(key)])
  assert.equal(decisive.verdict.unavailability, 'lost')
  file.set(CUT, OPEN)
  const admitted = gate.check(key, 4)
  assert.deepEqual([admitted.remaining, admitted.unavailability], [6, null])
  assert.equal(counted(gate, key), 4)
})

test('acheckAll lets the event loop continue while it waits', async (t) => {
  const { gate, file, key } = joined(t, { creditWait: 30 })
  const addresses = keytally.Limiter.inMemory('5/31d')
  file.set(LEADING, CLOSED)
  const parts = [addresses.part('203.0.113.9'), gate.part(key, 3)]
  const waiting = keytally.acheckAll(parts)
  assert.equal(addresses.peek('203.0.113.9').remaining, 5)
  const [verdict] = await Promise.all([waiting, lead(file)])
  assert.deepEqual([verdict.admitted, verdict.chargeOf(1).cost], [true, 3])
  assert.equal(addresses.peek('203.0.113.9').remaining, 4)
  const short = keytally.Gate.open(gate.path, {
    pepper: PEPPER,
    fleet: gate.fleet,
    creditWait: 0.002,
  })
  file.set(LEADING, CLOSED)
  const refused = await keytally.acheckAll([short.part(key)])
  assert.equal(refused.unavailability, 'lost')
  await assert.rejects(keytally.acheckAll('a'), TypeError)
  await assert.rejects(keytally.acheckAll([1]), TypeError)
})

test('acheck lets the event loop continue while it waits', async (t) => {
  const { gate, file, key } = joined(t, { creditWait: 30 })
  file.set(LEADING, CLOSED)
  const [verdict] = await Promise.all([gate.acheck(key, 3), lead(file)])
  assert.deepEqual([verdict.admitted, verdict.charge.cost], [true, 3])
  file.set(LEADING, OPEN)
  const short = keytally.Gate.open(gate.path, {
    pepper: PEPPER,
    fleet: gate.fleet,
    creditWait: 0.002,
  })
  assert.deepEqual([gate.creditWaitS, short.creditWaitS], [30, 0.002])
  assert.equal((await short.acheck(key, 2)).remaining, 5)
  await assert.rejects(short.acheck(key, 'two'), TypeError)
})

for (const [name, middleware, serve] of [
  [
    'Express',
    ofExpress,
    async (check) => {
      const app = express()
      app.get('/', check, (request, response) => {
        response.send('hello')
      })
      const server = http.createServer(app)
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
      return { port: server.address().port, close: () => server.close() }
    },
  ],
  [
    'Fastify',
    ofFastify,
    async (check) => {
      const app = fastify()
      app.addHook('onRequest', check)
      app.get('/', async () => 'hello')
      await app.listen({ port: 0, host: '127.0.0.1' })
      return { port: app.server.address().port, close: () => app.close() }
    },
  ],
]) {
  test(`request in ${name} that waits lets the event loop continue`, async (t) => {
    const { gate, file, key } = joined(t, { creditWait: 30 })
    file.set(LEADING, CLOSED)
    const server = await serve(middleware.requireKey(gate, { cost: 3 }))
    const fetched = () =>
      fetch(`http://127.0.0.1:${server.port}/`, {
        headers: { 'X-API-Key': key, connection: 'close' },
      })
    const [response] = await Promise.all([fetched(), lead(file)])
    assert.deepEqual([response.status, await response.text()], [200, 'hello'])
    file.set(CUT, CLOSED)
    const refused = await fetched()
    assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '1'])
    await refused.text()
    await server.close()
    assert.equal(counted(gate, key), 3)
  })

  test(`request in ${name} that waits for its limiter lets the event loop continue`, async (t) => {
    const { limiter, file } = joinedLimiter(t, { creditWait: 30 })
    const server = await serve(middleware.limit(limiter, { cost: 3, key: () => 'ann' }))
    const fetched = fetch(`http://127.0.0.1:${server.port}/`, { headers: { connection: 'close' } })
    const [response] = await Promise.all([fetched, lead(file)])
    assert.deepEqual([response.status, await response.text()], [200, 'hello'])
    await server.close()
    assert.equal(limiter.check('ann').remaining, 6)
  })

  test(`wrong key in ${name} that waits lets the event loop continue`, async (t) => {
    const { limiter, file } = joinedLimiter(t, { creditWait: 30 })
    const gate = keytally.Gate.inMemory({ pepper: PEPPER, keys: 2 })
    const server = await serve(middleware.requireKey(gate, { failures: limiter }))
    const headers = { 'X-API-Key': 'nonsense', connection: 'close' }
    const fetched = fetch(`http://127.0.0.1:${server.port}/`, { headers })
    const [response] = await Promise.all([fetched, lead(file)])
    await response.text()
    await server.close()
    assert.deepEqual([response.status, limiter.check('127.0.0.1').remaining], [401, 8])
  })

  test(`charge after a response in ${name} lets the event loop continue`, async (t) => {
    const { limiter, file } = joinedLimiter(t, { creditWait: 30 })
    const acheck = limiter.acheck.bind(limiter)
    let charged
    limiter.acheck = (...given) => (charged = acheck(...given))
    const options = { chargeOn: 200, cost: 3, key: () => 'ann' }
    const server = await serve(middleware.limit(limiter, options))
    const fetched = fetch(`http://127.0.0.1:${server.port}/`, { headers: { connection: 'close' } })
    const [response] = await Promise.all([fetched, lead(file)])
    await response.text()
    await server.close()
    assert.deepEqual([response.status, (await charged)?.remaining], [200, 7])
  })
}

test('refund and settlement do not wait for credits', (t) => {
  const { gate, file, key } = joined(t, { creditWait: 3600 })
  const { limiter, file: its } = joinedLimiter(t, { creditWait: 3600 })
  file.set(CUT, OPEN)
  its.set(CUT, OPEN)
  const verdict = gate.check(key, 2)
  const { charge } = limiter.check('ann', 2)
  const unreserved = 7
  assert.deepEqual(
    [verdict.charge, charge].map((each) => each.toBytes()[unreserved]),
    [1, 1],
  )
  file.set(LEADING, OPEN)
  its.set(LEADING, OPEN)
  const reserved = new keytally.Charge(2, charge.atMs)
  for (const each of [charge, reserved]) {
    assert.equal(limiter.settle('ann', each, 9).admitted, true)
    assert.equal(limiter.refund('ann', each).admitted, true)
    assert.equal(gate.settle(verdict.keyId, each, 9).admitted, true)
    assert.equal(gate.refund(verdict.keyId, each).admitted, true)
  }
})

test('process that opened a gate without its fleet file admits nothing', (t) => {
  const { gate, key } = joined(t)
  const other = keytally.Gate.open(gate.path, { pepper: PEPPER })
  assert.deepEqual([other.isInFleet, other.fleet, other.creditWaitS], [true, null, 0.02])
  assert.equal(other.check(key).unavailability, 'not_reserving')
  assert.throws(() => other.setFleet('yes'), /isInFleet must be true or false, not string/)
  other.setFleet(false)
  assert.deepEqual([other.isInFleet, other.check(key).admitted], [false, true])
  const open = (options) => () => keytally.Gate.open(gate.path, { pepper: PEPPER, ...options })
  assert.throws(open({ fleet: 'missing.fleet' }), /missing\.fleet/)
  assert.throws(open({ creditWait: -1 }), /creditWait is -1/)
})

test('limiter without credits is waiting, or is decided as the operator chose', async (t) => {
  const made = path.join(folder(t), 'api.limiter')
  const created = keytally.Limiter.create(made, '10/31d', 8)
  created.setFleet(true)
  assert.equal(created.check('ann').unavailability, 'not_reserving')
  const file = new FleetFile(`${made}.fleet`)
  t.after(() => file.close())
  const options = { fleet: `${made}.fleet`, creditWait: 0.002 }
  const limiter = keytally.Limiter.open(made, options)
  assert.deepEqual(
    [limiter.isInFleet, limiter.fleet, limiter.creditWaitS],
    [true, options.fleet, options.creditWait],
  )
  file.set(LEADING, CLOSED)
  assert.equal(limiter.tryCheck('ann').unavailability, 'waiting')
  const parts = [limiter.part('ann')]
  for (const verdict of [
    limiter.check('ann'),
    limiter.checkWithoutWait('ann'),
    await limiter.acheck('ann'),
    keytally.checkAll(parts),
    await keytally.acheckAll(parts),
  ]) {
    assert.equal(verdict.unavailability, 'lost')
  }
  assert.equal(limiter.peek('ann').remaining, 10)
  const waited = keytally.Limiter.openOrCreate(made, '10/31d', 8, { ...options, creditWait: 30 })
  const [verdict] = await Promise.all([waited.acheck('ann', 4), lead(file)])
  assert.deepEqual([verdict.admitted, verdict.leased], [true, false])
  limiter.setFleet(false)
  assert.equal(limiter.check('ann').remaining, 5)
})
