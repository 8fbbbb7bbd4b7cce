'use strict'

// Loads the native part: a file next to the package, as `npm run build` writes it, or the package
// of this platform, which npm installs as an optional dependency.

const fs = require('node:fs')
const path = require('node:path')
const { version } = require('../package.json')

/**
 * Returns the name of this platform, such as `linux-x64-gnu`.
 *
 * @returns {string}
 */
function platform() {
  const name = `${process.platform}-${process.arch}`
  switch (process.platform) {
    case 'linux':
      return `${name}-${isMusl() ? 'musl' : 'gnu'}`
    case 'win32':
      return `${name}-msvc`
    default:
      return name
  }
}

function isMusl() {
  const { report } = process
  const before = report.excludeNetwork
  // Without this, the report looks up the names of all peers.
  report.excludeNetwork = true
  const { header } = report.getReport()
  report.excludeNetwork = before
  // Only glibc reports its version.
  return header.glibcVersionRuntime === undefined
}

/**
 * Returns the native part, which must have the version of the package.
 *
 * @param {object} native
 * @param {string} source
 */
function ofThisVersion(native, source) {
  const found = native.constants?.().version
  if (found === version) return native
  throw new Error(
    `keytally ${version} cannot use ${source}, which has ${found ? `version ${found}` : 'no version'}: ` +
      `install both in one version, by npm install keytally@${version}`,
  )
}

function load() {
  const name = platform()
  const file = path.join(__dirname, '..', `keytally.${name}.node`)
  if (fs.existsSync(file)) return ofThisVersion(require(file), file)
  try {
    return ofThisVersion(require(`@keytally/${name}`), `@keytally/${name}`)
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error
    throw new Error(
      `the package @keytally/${name} is not installed: install keytally with optional ` +
        'dependencies, on the platform that runs it',
      { cause: error },
    )
  }
}

module.exports = load()
