'use strict'

// The packed package in an empty folder, and the lines of its pages.

const assert = require('node:assert/strict')
const { execFileSync, spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const net = require('node:net')
const path = require('node:path')
const { test } = require('node:test')
const { text } = require('node:stream/consumers')
const vm = require('node:vm')

const { folder, root } = require('./support')

const own = path.join(__dirname, '..')
const { PLATFORMS } = require(path.join(own, 'scripts/platforms.js'))
const main = JSON.parse(fs.readFileSync(path.join(own, 'package.json'), 'utf8'))
const library = process.env.KEYTALLY_NODE_LIBRARY
const skip = library === undefined && 'KEYTALLY_NODE_LIBRARY does not name the built library'

/** Returns the blocks of a page: the file that the line before names, the language and the text. */
function blocks(file) {
  const page = fs.readFileSync(path.join(root, file), 'utf8')
  const found = page.matchAll(/(?:`([\w.]+)`:\n\n)?```([\w,]+)\n(.*?)```/gs)
  return [...found].map(([, name, language, code]) => ({ name, language, code }))
}

/** Runs a script of the shell in a folder. Does not wait for what it started in the background. */
async function shell(script, cwd, env) {
  const options = { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true }
  const child = spawn('sh', ['-eu', '-c', script], options)
  const errors = []
  child.stderr.on('data', (part) => errors.push(part))
  const output = text(child.stdout)
  const status = await new Promise((resolve) => child.once('exit', resolve))
  // Ends the server of the script.
  try {
    process.kill(-child.pid)
  } catch {
    // There is none.
  }
  assert.equal(status, 0, `${script}\n${Buffer.concat(errors)}`)
  return output
}

/** Returns a port that no program listens on. */
async function freePort() {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}

test('a native part of another version is refused by one sentence', (t) => {
  const cwd = folder(t)
  const loader = fs.readFileSync(path.join(own, 'lib/native.js'), 'utf8')
  const put = (file, content) => {
    fs.mkdirSync(path.dirname(path.join(cwd, file)), { recursive: true })
    fs.writeFileSync(path.join(cwd, file), content)
  }
  put('package.json', JSON.stringify({ name: 'keytally', version: '1.2.3' }))
  put('lib/native.js', loader)
  const load = (exported) => {
    for (const name of Object.keys(PLATFORMS)) {
      put(`node_modules/@keytally/${name}/index.js`, `module.exports = ${exported}`)
    }
    return spawnSync(process.execPath, ['-e', "require('./lib/native.js')"], { cwd })
  }
  assert.equal(load("{ constants: () => ({ version: '1.2.3' }) }").status, 0)
  for (const [exported, found] of [
    ["{ constants: () => ({ version: '1.2.2' }) }", 'has version 1.2.2'],
    ['{}', 'has no version'],
  ]) {
    const { status, stderr } = load(exported)
    assert.notEqual(status, 0)
    const errors = String(stderr)
    assert.match(errors, /Error: keytally 1\.2\.3 cannot use @keytally\/\S+, which /)
    assert.ok(errors.includes(`${found}: install both`), errors)
    assert.ok(errors.includes('npm install keytally@1.2.3'), errors)
  }
})

test('the lines of the page run in an empty folder', { skip }, async (t) => {
  const cwd = folder(t)
  const [clone, ...rest] = blocks('docs/how-to/node.md')
  const lines = clone.code.split('\n')
  // Instead of cloning, use this repository.
  assert.match(lines.shift(), /^git clone /)
  fs.symlinkSync(path.join(own, '../..'), path.join(cwd, 'keytally'))
  await shell(lines.join('\n'), cwd, process.env)
  // Another program may have the port of the page.
  const port = await freePort()
  let printed = ''
  let shown = 0
  for (const { name, language, code: written } of rest) {
    const code = written.replaceAll('8080', port)
    if (name !== undefined) fs.writeFileSync(path.join(cwd, name), code)
    else if (language.startsWith('sh')) printed = await shell(code, cwd, process.env)
    else if (language === 'text') {
      shown += 1
      const parts = code
        .trim()
        .split('…')
        .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      assert.match(printed, new RegExp(`^${parts.join('.*')}\n?$`))
    }
  }
  assert.equal(shown, 2)
  const install = path.join(cwd, 'node_modules/keytally')
  for (const license of ['LICENSE-APACHE', 'LICENSE-MIT']) {
    assert.deepEqual(
      fs.readFileSync(path.join(install, license)),
      fs.readFileSync(path.join(root, license)),
    )
  }
  const script =
    'import { Gate } from "keytally"; import "keytally/express"; console.log(Gate.name)'
  const options = { cwd, encoding: 'utf8' }
  const module = execFileSync(process.execPath, ['--input-type=module', '-e', script], options)
  assert.equal(module, 'Gate\n')
})

test('the package of a platform is found without a local file', { skip }, (t) => {
  const cwd = folder(t)
  const [platform] = Object.entries(PLATFORMS).find(([name]) =>
    fs.existsSync(path.join(own, `keytally.${name}.node`)),
  )
  const build = [path.join(own, 'scripts/build.js'), '--platform', platform, '--out', cwd]
  execFileSync(process.execPath, build)
  // As in a clone in which nothing was built.
  const clone = path.join(cwd, 'clone')
  const isSource = (file) => path.extname(file) !== '.node' && path.basename(file) !== 'test'
  fs.cpSync(own, clone, { recursive: true, filter: isSource })
  const npm = (...words) => execFileSync('npm', words, { cwd, encoding: 'utf8' })
  const packed = npm('pack', '--silent', clone, path.join(cwd, platform)).trim().split('\n')
  assert.equal(packed.length, 2)
  // The packages of other platforms are optional, and cannot be found.
  npm('install', '--offline', '--silent', ...packed.map((file) => `./${file}`))
  const modules = path.join(cwd, 'node_modules')
  const run = (script) => spawnSync(process.execPath, ['-e', script], { cwd, encoding: 'utf8' })
  assert.equal(run('console.log(require("keytally").version)').stdout, `${main.version}\n`)
  const page = blocks('docs/how-to/node.md').find(({ name }) => name === 'check.js')
  assert.match(run(page.code).stdout, /^key 98\nteam 4998\nwrite 18\nadmitted /)
  const made = JSON.parse(
    fs.readFileSync(path.join(modules, '@keytally', platform, 'package.json'), 'utf8'),
  )
  assert.deepEqual([made.name, made.version], [`@keytally/${platform}`, main.version])
  assert.deepEqual([made.os, made.cpu], [[process.platform], [process.arch]])
  // Without it, the error names the package that is missing.
  fs.rmSync(path.join(modules, '@keytally'), { recursive: true })
  assert.match(
    run('require("keytally")').stderr,
    new RegExp(`@keytally/${platform} is not installed`),
  )
})

test('the package depends on a package for each platform of the wheels', () => {
  const expected = Object.keys(PLATFORMS).map((name) => [`@keytally/${name}`, main.version])
  assert.deepEqual(Object.entries(main.optionalDependencies).sort(), expected.sort())
  const wheels = fs.readFileSync(path.join(root, 'tools/xtask/src/wheel.rs'), 'utf8')
  const targets = new Set(wheels.match(/(?:x86_64|aarch64)-[a-z]+-[a-z]+(?:-[a-z]+)?/g))
  // Node.js for Windows is built with the tools of Microsoft only.
  targets.delete('x86_64-pc-windows-gnu')
  const built = Object.values(PLATFORMS).map(({ target }) => target)
  assert.deepEqual([...targets].sort(), built.sort())
  const workflow = fs.readFileSync(path.join(root, '.github/workflows/release.yml'), 'utf8')
  const released = [...workflow.matchAll(/platform: ([\w-]+),/g)].map(([, name]) => name)
  assert.deepEqual(released.sort(), Object.keys(PLATFORMS).sort())
  const { version } = require('keytally')
  assert.equal(version, main.version)
})

test('the examples of the readme and of the comments run', () => {
  const require_ = (name) => require(name)
  let count = 0
  const run = (code, file) => {
    // A comment after a line has its value.
    const lines = code.split('\n').map((line) => {
      const [, expression, value] = /^(\S.*?) \/\/ (.+)$/.exec(line) ?? []
      if (value === undefined || /^(const|let|console|String)/.test(expression)) return line
      count += 1
      return `assert.deepEqual(${expression}, ${value})`
    })
    try {
      vm.runInThisContext(`((require, assert) => {\n${lines.join('\n')}\n})`, { filename: file })(
        require_,
        assert,
      )
    } catch (error) {
      throw new Error(`${file}: ${error.message}\n${lines.join('\n')}`, { cause: error })
    }
  }
  const readme = blocks('adapters/node/README.md').map(({ code }) => code)
  const quiet = readme.join('\n').replace(/console\.log/g, 'String')
  run(quiet, 'README.md')
  for (const name of fs.readdirSync(path.join(own, 'lib'))) {
    const source = fs.readFileSync(path.join(own, 'lib', name), 'utf8')
    for (const [, comment] of source.matchAll(/@example\n(.*?)\*\//gs)) {
      const code = comment.replace(/^ *\* ?/gm, '')
      run(code.replace(/^(.+)\n\/\/ (.+)$/gm, '$1 // $2'), name)
    }
  }
  assert.ok(count > 20, `${count} values`)
})
