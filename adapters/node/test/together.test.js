'use strict'

// Node.js, Python, a C program and the program `keytally` on one gate at the same time: together
// they admit exactly the limit.

const assert = require('node:assert/strict')
const { spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { test } = require('node:test')
const { text } = require('node:stream/consumers')
const { setImmediate: turn } = require('node:timers/promises')

const { Gate } = require('keytally')

const { PEPPER, folder, programs } = require('./support')

const LIMIT = 30000

const PYTHON = `
import sys, keytally
gate, key = keytally.Gate.open(sys.argv[1], pepper_file=sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
while gate.check(key):
    admitted += 1
print(admitted)
`

const skip = programs === undefined && 'the programs are not built'

test('four languages on one gate admit exactly the limit', { skip }, async (t) => {
  const made = folder(t)
  const [file, pepperFile] = [path.join(made, 'api.gate'), path.join(made, 'pepper')]
  fs.writeFileSync(pepperFile, PEPPER, { mode: 0o600 })
  const plans = { default: `${LIMIT}/day` }
  const gate = Gate.create(file, { pepperFile, keys: 100, plans })
  const key = gate.issue(42).expose()
  const started = [
    spawn('python3', ['-c', PYTHON, file, pepperFile, key], {
      env: { ...process.env, PYTHONPATH: path.join(programs, 'python') },
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
    spawn(path.join(programs, 'client'), [file, pepperFile], {
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
  ]
  t.after(() => started.forEach((child) => child.kill()))
  const [python, c] = started
  await new Promise((resolve) => python.stdout.once('data', resolve))
  python.stdin.end('go\n')
  c.stdin.end(`spend ${key}\n`)
  const outputs = [text(python.stdout), text(c.stdout)]
  let byProgram = 0
  const program = () => {
    const check = ['check', file, '--pepper-file', pepperFile]
    const { status, stderr } = spawnSync(path.join(programs, 'keytally'), check, { input: key })
    assert.ok(status === 0 || status === 1, String(stderr))
    return status === 0
  }
  let byNode = 0
  while (gate.check(key).admitted) {
    byNode += 1
    // The other programs take turns, and their pipes are read.
    if (byNode % 500 === 0) {
      byProgram += program() ? 1 : 0
      await turn()
    }
  }
  const [byPython, byC] = (await Promise.all(outputs)).map(Number)
  const counts = { byNode, byPython, byC, byProgram }
  assert.equal(byNode + byPython + byC + byProgram, LIMIT, JSON.stringify(counts))
  assert.ok(
    Object.values(counts).every((count) => count > 0),
    JSON.stringify(counts),
  )
})

test('the program sees what Node.js changed', { skip }, (t) => {
  const made = folder(t)
  const [file, pepperFile] = [path.join(made, 'api.gate'), path.join(made, 'pepper')]
  fs.writeFileSync(pepperFile, PEPPER, { mode: 0o600 })
  const gate = Gate.create(file, { pepperFile, keys: 100, plans: { default: '5/day' } })
  const key = gate.issue(42)
  gate.check(key.expose(), 5)
  const check = () => {
    const program = path.join(programs, 'keytally')
    const options = ['check', file, '--pepper-file', pepperFile, '--json']
    return JSON.parse(spawnSync(program, options, { input: key.expose() }).stdout)
  }
  assert.equal(check().outcome, 'denied')
  gate.revoke(key.keyId)
  assert.deepEqual([check().outcome, check().reason], ['invalid_key', 'revoked'])
})

test('checks follow the counts to the file of a migration', { skip }, (t) => {
  const made = folder(t)
  const [file, pepperFile] = [path.join(made, 'api.gate'), path.join(made, 'pepper')]
  fs.writeFileSync(pepperFile, PEPPER, { mode: 0o600 })
  const gate = Gate.create(file, { pepperFile, keys: 100, plans: { default: '9/day' } })
  const key = gate.issue(42).expose()
  assert.equal(gate.check(key).remaining, 8)
  const plan = ['--plan', 'default=9/day; team: 20/day', '--teams', '10']
  const command = ['migrate', file, `${file}.new`, '--pepper-file', pepperFile, ...plan]
  const { status, stderr } = spawnSync(path.join(programs, 'keytally'), command)
  assert.equal(status, 0, String(stderr))
  const verdict = gate.check(key)
  assert.deepEqual(
    verdict.tallies.map(({ section, verdict: its }) => [section, its.remaining]),
    [
      ['key', 7],
      ['team', 19],
    ],
  )
})
