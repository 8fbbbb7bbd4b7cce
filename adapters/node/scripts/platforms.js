'use strict'

// The platforms that the package has native parts for: those of the wheels for Python.

/**
 * By the name that `lib/native.js` loads: the target of Rust, the file that cargo writes, and
 * what npm compares with the machine.
 */
const PLATFORMS = {
  'darwin-arm64': {
    target: 'aarch64-apple-darwin',
    library: 'libkeytally_node.dylib',
    npm: { os: ['darwin'], cpu: ['arm64'] },
  },
  'darwin-x64': {
    target: 'x86_64-apple-darwin',
    library: 'libkeytally_node.dylib',
    npm: { os: ['darwin'], cpu: ['x64'] },
  },
  'linux-arm64-gnu': {
    target: 'aarch64-unknown-linux-gnu',
    library: 'libkeytally_node.so',
    npm: { os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
  },
  'linux-arm64-musl': {
    target: 'aarch64-unknown-linux-musl',
    library: 'libkeytally_node.so',
    npm: { os: ['linux'], cpu: ['arm64'], libc: ['musl'] },
  },
  'linux-x64-gnu': {
    target: 'x86_64-unknown-linux-gnu',
    library: 'libkeytally_node.so',
    npm: { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  },
  'linux-x64-musl': {
    target: 'x86_64-unknown-linux-musl',
    library: 'libkeytally_node.so',
    npm: { os: ['linux'], cpu: ['x64'], libc: ['musl'] },
  },
  'win32-x64-msvc': {
    target: 'x86_64-pc-windows-msvc',
    library: 'keytally_node.dll',
    npm: { os: ['win32'], cpu: ['x64'] },
  },
}

module.exports = { PLATFORMS }
