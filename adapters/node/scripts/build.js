'use strict'

// Builds the native part. Without arguments, builds it for this machine and writes it next to the
// package. `node scripts/build.js --platform NAME --out FOLDER` builds it for a platform, and
// writes the package of that platform, ready for `npm publish`.
//
// If `KEYTALLY_NODE_LIBRARY` is set, it is the library, and nothing is built.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { parseArgs } = require('node:util')

const { PLATFORMS } = require('./platforms')

const root = path.join(__dirname, '..')
const main = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))

function thisPlatform() {
  const { glibcVersionRuntime: glibc } = process.report.getReport().header
  const libc = glibc === undefined ? 'musl' : 'glibc'
  const found = Object.entries(PLATFORMS).find(
    ([, { npm }]) =>
      npm.os[0] === process.platform &&
      npm.cpu[0] === process.arch &&
      (npm.libc === undefined || npm.libc[0] === libc),
  )
  if (found === undefined) {
    throw new Error(`there is no package for ${process.platform} on ${process.arch}`)
  }
  return found[0]
}

/** Builds the library by cargo, and returns its path. */
function build({ target, library }, isOther) {
  const manifest = path.join(root, '../../services/Cargo.toml')
  const folder = process.env.CARGO_TARGET_DIR ?? path.join(root, '../../target')
  const options = ['build', '--release', '--locked', '--package', 'keytally-node']
  const others = isOther ? ['--target', target] : []
  const env = { ...process.env, CARGO_TARGET_DIR: folder }
  // A library that Node.js loads uses the C library of the system.
  if (target.endsWith('musl')) {
    env.RUSTFLAGS = `${process.env.RUSTFLAGS ?? ''} -C target-feature=-crt-static`
  }
  const cargo = process.env.CARGO ?? 'cargo'
  const { status, error } = spawnSync(cargo, [...options, '--manifest-path', manifest, ...others], {
    env,
    stdio: 'inherit',
  })
  if (error !== undefined) throw error
  if (status !== 0) process.exit(status ?? 1)
  return path.join(folder, ...(isOther ? [target] : []), 'release', library)
}

/** Writes the package of a platform into a folder. */
function writePackage(name, library, folder) {
  const { npm } = PLATFORMS[name]
  const file = `keytally.${name}.node`
  const { version, license, author, repository, engines } = main
  const description = `The native part of keytally for ${name}`
  const made = { name: `@keytally/${name}`, version, description, license, author, repository }
  fs.mkdirSync(folder, { recursive: true })
  fs.copyFileSync(library, path.join(folder, file))
  const text = JSON.stringify({ ...made, ...npm, engines, main: file, files: [file] }, null, 2)
  fs.writeFileSync(path.join(folder, 'package.json'), `${text}\n`)
  fs.writeFileSync(path.join(folder, 'README.md'), `${description}, which depends on it.\n`)
  for (const name of ['LICENSE-APACHE', 'LICENSE-MIT']) {
    fs.copyFileSync(path.join(root, name), path.join(folder, name))
  }
}

const { values } = parseArgs({ options: { platform: { type: 'string' }, out: { type: 'string' } } })
const name = values.platform ?? thisPlatform()
if (PLATFORMS[name] === undefined) {
  throw new Error(`${name} is not a platform; they are: ${Object.keys(PLATFORMS).join(', ')}`)
}
const library =
  process.env.KEYTALLY_NODE_LIBRARY ?? build(PLATFORMS[name], values.platform !== undefined)
if (values.out === undefined) fs.copyFileSync(library, path.join(root, `keytally.${name}.node`))
else writePackage(name, library, path.join(values.out, name))
