'use strict'

// The classes of the package.

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { test } = require('node:test')
const { inspect } = require('node:util')
const { Worker } = require('node:worker_threads')

const keytally = require('keytally')

const { NOW, PEPPER, folder } = require('./support')

const { Charge, Gate, Limiter, Verdict, checkAll, peekAll, setTestClock } = keytally

function gateWith(options) {
  return Gate.inMemory({ pepper: PEPPER, keys: 100, ...options })
}

test('a verdict has the values of the response, the log line and the refund', () => {
  const gate = gateWith()
  const key = gate.issue(42, { env: 'test', now: NOW })
  const verdict = gate.check(key.expose(), 3, { now: NOW })
  const { admitted, outcome, reason, httpStatus, body, contentType, problem } = verdict
  assert.deepEqual(
    [admitted, outcome, reason, httpStatus, body, contentType, problem],
    [true, 'admitted', null, 200, '', 'application/json', ''],
  )
  const { account, keyId, plan, env, limit, remaining, resetUnixS, retryAfterS } = verdict
  assert.deepEqual(
    [account, keyId, plan, env, limit, remaining, resetUnixS, retryAfterS],
    [42, key.keyId, 'default', 'test', 1000, 997, 1700002800, null],
  )
  const { clockAheadS, isShared, uncharged, unchargedCosts } = verdict
  assert.deepEqual([clockAheadS, isShared, uncharged, unchargedCosts], [0, false, 0, {}])
  assert.deepEqual(
    verdict.quotas.map((quota) => ({ ...quota })),
    [
      {
        limit: 100,
        remaining: 97,
        window: 60,
        name: 'minute',
        resetUnixS: 1700000040,
        lacking: false,
      },
      {
        limit: 1000,
        remaining: 997,
        window: 3600,
        name: 'hour',
        resetUnixS: 1700002800,
        lacking: false,
      },
    ],
  )
  assert.deepEqual([verdict.charge.cost, verdict.charge.atMs], [3, NOW])
  assert.deepEqual(
    verdict.tallies.map(({ part, section }) => [part, section]),
    [[0, 'key']],
  )
  assert.equal(inspect(verdict), '<Verdict admitted: 997 of 1000 left>')
  assert.equal(gate.peek(key.expose(), 1, { now: NOW }).charge, null)
})

test('each verdict keeps its own facts', () => {
  const gate = gateWith({ plans: { default: '9/minute' } })
  const keys = [gate.issue(1), gate.issue(2)].map((key) => key.expose())
  const verdicts = [0, 1, 0, 1, 0].map((key) => gate.check(keys[key], 1, { now: NOW }))
  verdicts.push(gate.check('wrong'), gate.check(undefined), gate.check(keys[0], 1, { now: NOW }))
  assert.deepEqual(
    verdicts.map(({ account, remaining }) => [account, remaining]),
    [
      [1, 8],
      [2, 8],
      [1, 7],
      [2, 7],
      [1, 6],
      [null, null],
      [null, null],
      [1, 5],
    ],
  )
  const wide = Limiter.inMemory('5/second, 5/minute, 5/hour, 5/day')
  const all = [wide.check('a', 1, { now: NOW }), wide.check('a', 2, { now: NOW })]
  assert.deepEqual(
    all.map(({ quotas }) => quotas.map((quota) => quota.remaining)),
    [
      [4, 4, 4, 4],
      [2, 2, 2, 2],
    ],
  )
  assert.deepEqual(all[0].limit, 5)
})

test('keys may be bytes, long texts and texts that are not ASCII', () => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  assert.ok(gate.check(Buffer.from(key)).admitted)
  assert.ok(gate.check(new Uint8Array(Buffer.from(key))).admitted)
  for (const wrong of ['', 'é', '\ud800', 'a'.repeat(383), 'a'.repeat(384), 'ü'.repeat(100000)]) {
    assert.equal(gate.check(wrong).outcome, 'invalid_key')
  }
  const long = 'k'.repeat(256)
  gate.importKeys([long], 1)
  assert.ok(gate.check(long).admitted)
  // A longer text that begins with a key is another key.
  assert.equal(gate.check(long + 'k').outcome, 'invalid_key')
  assert.equal(gate.check(`${key}x`).outcome, 'invalid_key')
  assert.equal(gate.check(`${key}\0`).outcome, 'invalid_key')
})

test('subjects of every length are counted apart', () => {
  const limiter = Limiter.inMemory('1/hour', 10000)
  const subjects = [...Array(800).keys()].map((length) => 'ä'.repeat(length))
  for (const subject of subjects) assert.ok(limiter.check(subject).admitted, `${subject.length}`)
  for (const subject of subjects) assert.ok(!limiter.check(Buffer.from(subject)).admitted)
})

test('refund, settle and reset change the counts', () => {
  const gate = gateWith()
  const key = gate.issue(42).expose()
  const verdict = gate.check(key, 50)
  assert.equal(gate.settle(verdict.keyId, verdict.charge, 20).remaining, 980)
  const other = gate.check(key, 7)
  assert.equal(gate.refund(other.keyId, Charge.fromBytes(other.charge.toBytes())).remaining, 980)
  assert.equal(gate.reset(other.keyId).remaining, 1000)
  const limiter = Limiter.inMemory('5/minute')
  const { charge } = limiter.check('a', 3, { now: NOW })
  const settled = limiter.settle('a', charge, 7, { now: NOW })
  assert.deepEqual([settled.remaining, settled.uncharged], [0, 2])
  assert.equal(limiter.reset('a', { now: NOW }).remaining, 5)
  limiter.check('a')
  assert.equal(limiter.resetAll(), 1)
})

test('an overflow tally is named by the verdict and its charge', () => {
  const limiter = Limiter.inMemory('5/hour', 1)
  const verdicts = [...Array(9).keys()].map((subject) => limiter.check(String(subject)))
  const shared = verdicts.findIndex((verdict) => verdict.isShared)
  assert.equal(shared, 8)
  assert.equal(limiter.refund('8', verdicts[8].charge).remaining, 5)
  limiter.setOnFull('refuse')
  assert.equal(limiter.check('new').outcome, 'full')
  assert.deepEqual([limiter.onFull, limiter.refusals > 0], ['refuse', true])
})

test('a request with sections has a verdict on each tally', () => {
  const plans = { default: '100/minute warn 50%; team: 5000/hour; group write: 2/minute' }
  const gate = gateWith({ plans, scopes: ['read', 'write'] })
  const key = gate.issue(42, { scopes: 'write' })
  const verdict = gate.check(key.expose(), 50, { costs: { write: 2 }, need: 'write' })
  assert.deepEqual(
    verdict.tallies.map(({ section, verdict: its }) => [section, its.remaining, its.plan]),
    [
      ['key', 50, 'default'],
      ['team', 4950, 'default'],
      ['write', 0, 'default'],
    ],
  )
  assert.deepEqual([verdict.account, verdict.keyId, verdict.plan], [42, key.keyId, 'default'])
  assert.equal(verdict.tallies[0].verdict.charge, null)
  const [[tally, quota, percent]] = verdict.crossed()
  assert.deepEqual([tally.section, quota.name, percent], ['key', 'minute', 50])
  const settled = gate.settle(verdict.keyId, verdict.charge, null, { costs: { write: 3 } })
  assert.deepEqual(settled.unchargedCosts, { write: 1 })
  assert.equal(gate.check(key.expose(), 1, { need: ['read'] }).outcome, 'forbidden')
  gate.setScopes(key.keyId, ['read'])
  assert.equal(gate.check(key.expose(), 1, { need: ['read'] }).outcome, 'admitted')
  const denied = gate.check(key.expose(), 1, { groups: 'write' })
  assert.deepEqual([denied.outcome, denied.decisive.section], ['denied', 'write'])
  assert.match(denied.problem, /write-minute/)
})

test('check all charges all parts or none', () => {
  const gate = gateWith()
  const key = gate.issue(42)
  const users = Limiter.inMemory('5/minute')
  const networks = Limiter.inMemory('addresses: /64 2/minute; /48 3/minute')
  const parts = () => [gate.part(key.expose()), users.part('ann', 2), networks.part('2001:db8::1')]
  const first = checkAll(parts())
  assert.deepEqual(
    first.tallies.map(({ part, section, verdict }) => [part, section, verdict.remaining]),
    [
      [0, 'key', 999],
      [1, null, 3],
      [2, null, 1],
      [2, 'prefix-48', 2],
    ],
  )
  assert.deepEqual([first.account, first.plan, first.env], [42, 'default', 'live'])
  assert.equal(users.refund('ann', first.chargeOf(1)).remaining, 5)
  assert.equal(first.chargeOf(7), null)
  checkAll(parts())
  const denied = checkAll(parts())
  assert.deepEqual([denied.admitted, denied.outcome, denied.decisive.part], [false, 'denied', 2])
  assert.equal(peekAll([gate.part(key.expose())]).remaining, 998)
  assert.throws(() => checkAll([]), RangeError)
  assert.throws(() => checkAll([{}]), TypeError)
})

test('keys are issued, rotated, changed and revoked', () => {
  const gate = gateWith({ plans: { default: '5/minute', pro: '50/minute' }, teams: 10 })
  const old = gate.issue(42, { expires: 3600 })
  const key = gate.rotate(old.keyId, { grace: 60 })
  assert.equal(key.keyId, old.keyId)
  assert.deepEqual([gate.check(old.expose()).remaining, gate.check(key.expose()).remaining], [4, 3])
  assert.throws(() => gate.rotate(old.keyId, { grace: 0 }), keytally.AdminError)
  gate.endGrace(old.keyId)
  assert.equal(gate.check(old.expose()).reason, 'expired')
  gate.assign(key.keyId, 'pro')
  assert.equal(gate.check(key.expose()).plan, 'pro')
  gate.expire(key.keyId, new Date('2090-01-01T00:00:00Z'))
  assert.equal(gate.key(key.keyId).expires, 3786912000)
  gate.expire(key.keyId, null)
  const { account, state, expires, hint, scopes } = gate.key(key.keyId)
  assert.deepEqual([account, state, expires, hint, scopes], [42, 'active', null, key.hint, []])
  gate.suspend(42)
  assert.equal(gate.check(key.expose()).reason, 'suspended')
  assert.equal(gate.account(42).isSuspended, true)
  gate.resume(42)
  gate.assignAccount(42, 'pro')
  assert.deepEqual([gate.accounts().map((info) => info.plan), gate.account(43)], [['pro'], null])
  gate.revoke(key.keyId)
  assert.equal(gate.check(key.expose()).reason, 'revoked')
  assert.throws(() => gate.assign(key.keyId, 'default'), keytally.RevokedError)
  assert.deepEqual(
    gate.list().map((info) => info.state),
    ['revoked'],
  )
  assert.deepEqual(gate.verify(), { completed: false, flaws: [] })
})

test('accounts have limits of their own', () => {
  const gate = gateWith({ plans: { default: '9/minute; team: 20/hour' } })
  const key = gate.issue(42).expose()
  gate.limitAccount(42, '500/hour')
  gate.check(key, 3)
  assert.deepEqual(
    gate.account(42).quotas.map((q) => [q.limit, q.remaining]),
    [[500, 497]],
  )
  gate.resetAccount(42)
  assert.equal(gate.account(42).quotas[0].remaining, 500)
  gate.setPlan('pro', '1000/minute; team: 20000/hour')
  assert.deepEqual(Object.keys(gate.plans), ['default', 'pro'])
  assert.equal(String(gate.plans.pro.named('team').quotas[0]), '20000/hour')
})

test('a gate in a file is opened, replaced and counted', (t) => {
  const file = path.join(folder(t), 'api.gate')
  const gate = Gate.create(file, { pepper: PEPPER, keys: 100 })
  assert.equal(fs.statSync(file).mode & 0o777, 0o600)
  const key = gate.issue(42)
  assert.ok(Gate.open(file, { pepper: PEPPER }).check(key.expose()).admitted)
  gate.setUsage(true)
  gate.check(key.expose(), 3)
  const { admitted, units, lastUsed } = gate.keyUsage(key.keyId)
  assert.deepEqual([admitted, units, typeof lastUsed], [1, 3, 'number'])
  const before = gate.check(key.expose())
  const plans = { gold: '7/minute' }
  const other = Gate.create(`${file}.new`, { pepper: PEPPER, keys: 100, plans }).issue(43)
  fs.renameSync(`${file}.new`, file)
  gate.reopen()
  const after = gate.check(other.expose())
  // A verdict keeps the names of the file that it came from.
  assert.deepEqual([before.plan, after.plan, gate.reopened], ['default', 'gold', 1])
  assert.deepEqual([after.account, gate.reopenProblem, gate.path], [43, null, file])
  assert.deepEqual([gate.prefix, gate.capacity, gate.sections], ['kt', 100, ['key']])
})

test('limiters in files are shared', (t) => {
  const file = path.join(folder(t), 'a.limiter')
  const one = Limiter.openOrCreate(file, '5/minute', 100)
  const other = Limiter.openOrCreate(file, '5/minute', 100)
  assert.equal(one.check('a', 1, { now: NOW }).remaining, 4)
  assert.equal(other.check('a', 1, { now: NOW }).remaining, 3)
  assert.deepEqual([Limiter.open(file).capacity, String(other.policy)], [100, '5/minute'])
  assert.throws(() => Limiter.create(file, '5/minute'), { code: 'EEXIST' })
  assert.throws(() => Limiter.open(`${file}.x`), { code: 'ENOENT' })
  assert.throws(() => Limiter.openOrCreate(file, '5/hour', 100), keytally.TableError)
})

test('an explicit time and the test clock set the time', () => {
  const limiter = Limiter.inMemory('1/minute')
  const now = new Date(NOW)
  assert.ok(limiter.check('a', 1, { now }).admitted)
  assert.equal(limiter.check('a', 1, { now }).retryAfterS, 40)
  assert.ok(limiter.check('a', 1, { now: NOW + 40000 }).admitted)
  try {
    assert.equal(setTestClock(NOW), null)
    assert.equal(limiter.check('b').resetUnixS, 1700000040)
    assert.equal(setTestClock(new Date(NOW + 1)), NOW)
  } finally {
    setTestClock(null)
  }
  const ahead = Limiter.inMemory('5/minute')
  ahead.check('a', 1, { now: Date.now() + 86400000 })
  assert.equal(ahead.correctClock(), 1)
})

test('a refused verdict throws on request', () => {
  const limiter = Limiter.inMemory('1/minute')
  limiter.check('a', 1, { now: NOW }).raiseForStatus()
  const denied = limiter.check('a', 1, { now: NOW })
  assert.throws(
    () => denied.raiseForStatus(),
    (error) => {
      assert.ok(error instanceof keytally.DeniedError && error instanceof keytally.RefusedError)
      assert.equal(error.message, 'denied (429); try again in 40 s')
      assert.equal(error.verdict, denied)
      return true
    },
  )
  assert.throws(() => gateWith().check(null).raiseForStatus(), keytally.MissingKeyError)
  assert.throws(() => Verdict.duplicateHeader().raiseForStatus(), keytally.InvalidKeyError)
})

test('no form of a key or a part shows the secret', () => {
  const gate = gateWith()
  const key = gate.issue(42)
  const secret = key.expose()
  const part = gate.part(secret)
  const forms = [
    inspect(key, { showHidden: true, depth: 9 }), JSON.stringify(key), String(key), `${key}`,
    inspect({ key, part }, { showHidden: true, depth: 9 }), JSON.stringify({ part }),
    Object.getOwnPropertyNames(key).join(), inspect(gate, { showHidden: true, depth: 9 }),
    inspect(gate.check(secret), { showHidden: true, depth: 9 }),
  ] // prettier-ignore
  for (const form of forms) assert.ok(!form.includes(secret.slice(12, 30)), form)
  assert.equal(inspect(key), `<Key ${key.keyId}: ${key.hint}>`)
  assert.equal(keytally.redact(secret), 'kt_live_…')
})

test('wrong arguments throw a clear error that shows no secret', () => {
  const gate = gateWith()
  const limiter = Limiter.inMemory('5/minute')
  const addresses = Limiter.inMemory('addresses: 5/minute')
  const key = gate.issue(42)
  const secret = key.expose()
  const { charge } = limiter.check('a')
  const cases = [
    [() => new Gate(), TypeError, 'Gate has no constructor; call Gate.inMemory'],
    [() => new Limiter(), TypeError, 'Limiter has no constructor'],
    [
      () => gate.check(5),
      TypeError,
      'apiKey must be a string, a Uint8Array, null or undefined, not',
    ],
    [() => gate.check(key), TypeError, 'not Key'],
    [() => gate.check(secret, secret), TypeError, 'cost must be a whole number, not string'],
    [() => gate.check(secret, 1.5), RangeError, 'cost is 1.5, and must be a whole number from 0'],
    [() => gate.check(secret, -1), RangeError, 'cost is -1'],
    [() => gate.check(secret, 4294967296), RangeError, 'from 0 to 4294967295'],
    [() => gate.check(secret, NaN), RangeError, 'cost is NaN'],
    [() => gate.check(secret, 1, { now: 'today' }), TypeError, 'now must be a Date, or'],
    [() => gate.check(secret, 1, { now: -5 }), RangeError, 'now is -5'],
    [() => gate.check(secret, 1, { now: new Date('x') }), RangeError, 'an invalid Date'],
    [() => gate.check(secret, 1, { group: 'a' }), TypeError, 'group is not an option; they are:'],
    [() => gate.check(secret, 1, { groups: 'a' }), RangeError, 'no group "a"'],
    [() => gate.check(secret, 1, { groups: secret }), RangeError, 'kt_live_…'],
    [() => gate.check(secret, 1, { need: 5 }), TypeError, 'need must be a string, or several'],
    [() => gate.check(secret, 1, { costs: { a: 'x' } }), TypeError, 'the cost of the group "a"'],
    [() => gate.check(secret, 1, 5), TypeError, 'options must be an object, not number'],
    [() => limiter.check(5), TypeError, 'subject must be a string or a Uint8Array, not number'],
    [() => limiter.check(null), TypeError, 'not null'],
    [() => addresses.check(secret), RangeError, 'the subject is not an address'],
    [() => addresses.check('x'), RangeError, 'the subject is not an address'],
    [() => limiter.refund('a', null), TypeError, 'the charge is null: only the verdict of an'],
    [() => limiter.refund('a', 5), TypeError, 'charge must be the charge of a verdict, not number'],
    [() => limiter.settle('a', charge, 'x'), TypeError, 'actual must be a whole number'],
    [() => gate.refund(null, charge), TypeError, 'keyId is null'],
    [() => gate.refund(secret, charge), keytally.KeyIdError, 'a key id is 11 characters'],
    [() => gate.refund('00000000001', charge), keytally.NoSuchKeyError, 'the gate has no key'],
    [() => gate.revoke('x'), keytally.KeyIdError, 'a key id is 11 characters'],
    [() => gate.rotate(key.keyId), TypeError, 'grace is missing'],
    [() => gate.rotate(key.keyId, { grace: -1 }), RangeError, 'grace is -1'],
    [() => gate.issue('42'), TypeError, 'account must be the number of an account, not string'],
    [() => gate.issue(-1), RangeError, 'account is -1'],
    [() => gate.issue(1, { env: secret }), keytally.CreateError, 'env is "kt_live_…"'],
    [() => gate.issue(1, { plan: 'gold' }), keytally.NoSuchPlanError, 'its plans are: default'],
    [() => gate.issue(1, { plan: secret }), keytally.NoSuchPlanError, 'kt_live_…'],
    [() => gate.issue(1, { scopes: 'x' }), keytally.NoSuchScopeError, 'without scopes'],
    [() => gate.issue(1, { expires: 0 }), RangeError, 'expires is 0'],
    [() => gate.issue(1, { expires: new Date(0) }), RangeError, '1970-01-01T00:00:00.000Z'],
    [() => gate.issue(1, { expires: 'x' }), TypeError, 'expires must be a Date, or a number of'],
    [() => gate.issue(1, { wait: 'x' }), TypeError, 'wait must be a number of seconds'],
    [() => gate.importKeys(secret, 1), TypeError, 'keys must be a list of keys'],
    [() => gate.importKeys(['short'], 1), keytally.AdminError, 'key 1:'],
    [() => gate.importKeys([5], 1), TypeError, 'a key to import must be a string'],
    [() => gate.suspend(1), keytally.NoSuchAccountError, 'the gate has no account 1'],
    [() => gate.setPlan('x', '5/fortnight'), keytally.PolicyError, '"fortnight" is'],
    [() => gate.setPlan('X', '5/minute'), keytally.CreateError, 'not a valid plan name'],
    [() => gate.setPlan('x', 5), TypeError, 'sections must be a string, Sections or a Policy'],
    [() => gate.setUsage(1), TypeError, 'isCounted must be true or false'],
    [() => gate.setUsage(true), Error, ''],
    [() => gateWith({ keys: 0 }), RangeError, 'keys is 0'],
    [() => gateWith({ plans: [] }), keytally.CreateError, ''],
    [() => gateWith({ plans: 5 }), TypeError, 'plans must be an object'],
    [() => gateWith({ prefix: 'UP' }), keytally.CreateError, 'prefix is "UP"'],
    [() => gateWith({ pepper: 'short' }), keytally.PepperError, ''],
    [() => gateWith({ pepper: 5 }), TypeError, 'pepper must be a string, not number'],
    [() => gateWith({ pepperFile: '/x' }), keytally.PepperError, 'pepper and pepperFile are both'],
    [() => Gate.open('/', { pepper: PEPPER }), keytally.TableError, 'a directory'],
    [() => Gate.open(5), TypeError, 'path must be a string or a URL of a file'],
    [() => Gate.open('/nothing', { pepper: PEPPER }), Error, '/nothing'],
    [() => Limiter.inMemory('5/fortnight'), keytally.PolicyError, '"fortnight" is'],
    [() => Limiter.inMemory(secret), keytally.PolicyError, ''],
    [() => Limiter.inMemory(5), TypeError, 'policy must be a string, a Policy or an AddressPolicy'],
    [() => Limiter.inMemory('5/minute', 0), RangeError, 'capacity is 0, and must be'],
    [() => Limiter.inMemory('5/minute', 1, { onFull: secret }), RangeError, 'onFull is'],
    [() => new Charge(1, 'x'), TypeError, 'atMs must be a number of milliseconds'],
    [() => Charge.fromBytes(Buffer.alloc(5)), RangeError, 'pass the 128 bytes that toBytes'],
    [() => Charge.fromBytes('x'), TypeError, 'bytes must be a Uint8Array'],
    [() => keytally.redact(5), TypeError, 'text must be a string'],
  ]
  for (const [call, type, part] of cases) {
    assert.throws(
      call,
      (error) => {
        assert.equal(error.constructor, type, `${call}: ${error.stack}`)
        assert.ok(error.message.includes(part), `${call}: ${error.message}`)
        assert.ok(!error.message.includes(secret.slice(12, 30)), error.message)
        return true
      },
      `${call}`,
    )
  }
  assert.ok(gate.check(secret).admitted)
})

test('peppers come from the environment, a file or an argument', (t) => {
  const file = path.join(folder(t), 'pepper')
  fs.writeFileSync(file, `${PEPPER}\n`, { mode: 0o600 })
  assert.ok(Gate.inMemory({ pepperFile: file, keys: 1 }))
  assert.throws(() => Gate.inMemory({ keys: 1 }), /no pepper was given: pass pepper or pepperFile/)
  process.env.KEYTALLY_PEPPER = PEPPER
  t.after(() => delete process.env.KEYTALLY_PEPPER)
  assert.ok(Gate.inMemory({ keys: 1 }))
  assert.equal(keytally.generatePepper().length, 64)
})

test('addresses have the subjects of the other languages', () => {
  const { clientAddress } = require('../lib/guesses')
  const cases = [
    ['203.0.113.9', 64, '203.0.113.9'],
    ['203.0.113.9:8080', 64, '203.0.113.9'],
    ['::ffff:203.0.113.9', 64, '203.0.113.9'],
    ['[::ffff:203.0.113.9]:8080', 64, '203.0.113.9'],
    ['::ffff:0:203.0.113.9', 64, '203.0.113.9'],
    ['64:ff9b::203.0.113.9', 64, '203.0.113.9'],
    ['::203.0.113.9', 64, '203.0.113.9'],
    ['2002:cb00:7109::1', 64, '203.0.113.9'],
    ['2001:db8::a:b:c:d', 64, '2001:db8::/64'],
    ['2001:db8::a:b:c:d%eth0', 64, '2001:db8::/64'],
    ['2001:db8:0:1ff:a:b:c:d', 56, '2001:db8:0:100::/56'],
    ['2001:db8::1', 128, '2001:db8::1/128'],
    ['ffff::1', 1, '8000::/1'],
    ['::', 64, '::/64'],
    ['::1', 64, '::/64'],
    ['not an address', 64, 'not an address'],
  ]
  for (const [address, prefix, subject] of cases) {
    assert.equal(clientAddress(address, prefix), subject, address)
  }
  assert.throws(() => clientAddress(undefined, 64), /pass key with a function/)
})

test('worker threads have the package too, and share a file', async (t) => {
  const file = path.join(folder(t), 'a.limiter')
  Limiter.create(file, '100/hour', 100)
  const script = `
    const { Limiter } = require(${JSON.stringify(require.resolve('keytally'))})
    const { workerData, parentPort } = require('node:worker_threads')
    const limiter = Limiter.open(workerData)
    let admitted = 0
    for (let turn = 0; turn < 60; turn++) admitted += limiter.check('a').admitted
    parentPort.postMessage(admitted)`
  const workers = [0, 1, 2].map(() => new Worker(script, { eval: true, workerData: file }))
  const counts = await Promise.all(
    workers.map((worker) => new Promise((resolve) => worker.on('message', resolve))),
  )
  assert.equal(counts[0] + counts[1] + counts[2], 100)
})

test('many verdicts in one turn need little memory', () => {
  const plans = { default: '4000/minute; team: 1000/hour' }
  const gate = gateWith({ plans })
  const key = gate.issue(42).expose()
  const check = (count) => {
    for (let turn = 0; turn < count; turn++) gate.check(key, 0)
  }
  check(20000)
  const before = process.memoryUsage().rss
  check(100000)
  const grown = (process.memoryUsage().rss - before) / 2 ** 20
  assert.ok(grown < 64, `${grown} MiB`)
})
