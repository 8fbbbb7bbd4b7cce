'use strict'

// Exempt paths and methods: those of requests that are not checked.

const { kind, shown } = require('./arguments')

// Every path with a dot segment (RFC 3986: "." or ".."), percent-encoded or not, matches this.
const SUSPECT = /[%\\]|\/\./

// The registered methods, and those of the same form.
const METHOD = /^[A-Z][A-Z-]*$/

// The most times that the path of a request may be percent-encoded. The router decodes it at most
// once, and this module the other times. A path that is encoded more often is not exempt.
const MAX_ENCODINGS = 4

function list(name, value, example) {
  if (typeof value === 'string' || typeof value?.[Symbol.iterator] !== 'function') {
    const what = typeof value === 'string' ? 'one text' : kind(value)
    throw new TypeError(`${name} is a list of ${example}, not ${what}`)
  }
  return [...value]
}

/** Returns a function that reports whether a path is exempt. */
function exemption(given = []) {
  const paths = list('exempt', given, 'paths')
  for (const path of paths) {
    if (typeof path !== 'string' || !path.startsWith('/') || path.slice(0, -1).includes('*')) {
      throw new RangeError(
        `${shown(path)} cannot be exempt: pass a path such as '/health', or a prefix such as ` +
          "'/static/*'",
      )
    }
    if (hasDotSegment(path) || path.includes('//') || /[%?#\\]/.test(path)) {
      throw new RangeError(
        `${shown(path)} cannot be exempt, because no request's path is compared in that form: ` +
          'pass it decoded, without dot segments, repeated slashes and query',
      )
    }
  }
  const exact = new Set(paths.filter((path) => !path.endsWith('*')))
  const prefixes = paths.filter((path) => path.endsWith('*')).map((path) => path.slice(0, -1))
  if (paths.length === 0) return () => false
  // Repeated slashes are not joined, because routers do not: //health may be another route.
  return (path) =>
    exact.has(path) || (prefixes.some((prefix) => path.startsWith(prefix)) && !hasDotSegment(path))
}

/** Returns the methods whose requests are not checked, such as `OPTIONS`. */
function exemptMethods(given = []) {
  const methods = list('exemptMethods', given, 'methods')
  for (const method of methods) {
    if (typeof method !== 'string' || !METHOD.test(method)) {
      throw new RangeError(
        `${shown(method)} in exemptMethods is not a method: pass one in capitals, such as 'OPTIONS'`,
      )
    }
  }
  return new Set(methods)
}

/**
 * Returns whether a path has a dot segment, encoded or not, or is encoded too many times.
 *
 * The component that serves the path may decode it again, treat a backslash as a slash, or drop the
 * text after a semicolon. A dot segment then leads out of an exempt folder.
 */
function hasDotSegment(path) {
  if (!SUSPECT.test(path)) return false
  let decoded = path
  for (let turn = 0; ; turn++) {
    if (turn === MAX_ENCODINGS) return true
    const before = decoded
    decoded = unquote(before)
    if (decoded === before) break
  }
  return decoded
    .replaceAll('\\', '/')
    .split('/')
    .some((segment) => ['.', '..'].includes(segment.split(';', 1)[0]))
}

/** Decodes a path. Unlike `decodeURIComponent`, it leaves what is not an encoding as it is. */
function unquote(text) {
  return text.replace(/(?:%[0-9A-Fa-f]{2})+/g, (encoded) =>
    Buffer.from(encoded.replaceAll('%', ''), 'hex').toString('utf8'),
  )
}

module.exports = { exemption, exemptMethods, hasDotSegment }
