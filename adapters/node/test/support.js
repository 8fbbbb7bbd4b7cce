'use strict'

// What several test files need.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

/** The root of the repository. */
const root = process.env.KEYTALLY_TEST_ROOT ?? path.join(__dirname, '../../..')

/** The folder of the programs that the suite builds. */
const programs = process.env.KEYTALLY_TEST_PROGRAMS

/** 2023-11-14 22:13:20 UTC, 40 seconds before the end of a minute. */
const NOW = 1700000000000

const PEPPER = 'a5'.repeat(32)

/** Returns a new folder that is removed after the tests of a file. */
function folder(t) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'keytally-'))
  t.after(() => fs.rmSync(made, { recursive: true, force: true }))
  return made
}

/** Returns the contents of a vector file. */
function vectors(name) {
  return JSON.parse(fs.readFileSync(path.join(root, 'vectors', name), 'utf8'))
}

module.exports = { NOW, PEPPER, folder, programs, root, vectors }
