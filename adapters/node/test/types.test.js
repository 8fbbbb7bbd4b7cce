'use strict'

// The types agree with the JavaScript part, and a typed program compiles.

const assert = require('node:assert/strict')
const { spawnSync } = require('node:child_process')
const path = require('node:path')
const { test } = require('node:test')

const ts = require('typescript')

const keytally = require('keytally')

test('a typed program compiles, and wrong calls do not', () => {
  const tsc = path.join(path.dirname(require.resolve('typescript')), 'tsc.js')
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', __dirname], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stdout)
})

/** Returns the names that a file of types declares, and the members of its classes. */
function declared(file) {
  const source = ts.createSourceFile(
    file,
    require('node:fs').readFileSync(file, 'utf8'),
    ts.ScriptTarget.ES2022,
  )
  const classes = new Map()
  const names = []
  for (const node of source.statements) {
    const found = node.name ?? node.declarationList?.declarations[0].name
    const isType = ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)
    if (found === undefined || isType) continue
    names.push(found.text)
    if (!ts.isClassDeclaration(node)) continue
    const members = node.members.filter((member) => member.name?.text !== undefined)
    const isStatic = (member) =>
      member.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.StaticKeyword) ?? false
    classes.set(found.text, {
      own: members.filter((member) => !isStatic(member)).map((member) => member.name.text),
      ofClass: members.filter(isStatic).map((member) => member.name.text),
    })
  }
  return { names, classes }
}

test('the types declare what the package has', () => {
  const file = require.resolve('keytally').replace(/lib.index\.js$/, 'types/index.d.ts')
  const { names, classes } = declared(file)
  const interfaces = ['QuotaState', 'TallyVerdict']
  const exported = Object.keys(keytally).filter((name) => !interfaces.includes(name))
  assert.deepEqual([...new Set(names)].sort(), exported.sort())
  for (const name of ['Gate', 'Limiter', 'Verdict', 'Charge', 'Key', 'Sections']) {
    const has = (object, hidden) =>
      Object.getOwnPropertyNames(object)
        .filter((member) => !hidden.includes(member))
        .sort()
    const { own, ofClass } = classes.get(name)
    const internal = ['length', 'name', 'prototype', 'ofTally']
    assert.deepEqual([...new Set(own)].sort(), has(keytally[name].prototype, ['constructor']), name)
    assert.deepEqual(ofClass.sort(), has(keytally[name], internal), name)
  }
})
