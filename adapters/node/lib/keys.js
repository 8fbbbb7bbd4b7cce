'use strict'

// The header fields that may carry the key of a request.

const native = require('./native')
const { kind, shown } = require('./arguments')

// The source that reads the token after `Bearer` in `Authorization` (RFC 6750, section 2.1).
const BEARER = 'Authorization: Bearer'

const API_KEY_HEADER = 'X-API-Key'

// The names of header fields (RFC 9110, section 5.1).
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

// The names of header fields whose whole value is never a key.
const NOT_KEYS = new Set(['authorization', 'cookie'])

// The text of a response with status 401, if the default text would name the wrong field.
const MISSING = 'Missing API key'

/** The header fields that may carry the key of a request. */
class KeySources {
  #sources
  #only
  #challenges

  constructor(keyFrom = [API_KEY_HEADER]) {
    if (typeof keyFrom === 'string' || typeof keyFrom?.[Symbol.iterator] !== 'function') {
      const what = typeof keyFrom === 'string' ? 'one text' : kind(keyFrom)
      throw new TypeError(`keyFrom is a list of header names, not ${what}`)
    }
    this.#sources = [...keyFrom].map(source)
    if (this.#sources.length === 0) {
      throw new RangeError(`keyFrom is empty: list header names, such as ${API_KEY_HEADER}`)
    }
    const seen = this.#sources.map(({ field }) => field)
    this.#sources.forEach(({ name, field }, index) => {
      if (seen.indexOf(field) < index) throw new RangeError(`keyFrom lists ${name} twice`)
    })
    const [first] = this.#sources
    this.#only = seen.length === 1 && !first.isBearer ? first.field : undefined
    const isDefault = this.#only !== undefined && first.name === API_KEY_HEADER
    this.#challenges = isDefault ? '' : this.#sources.map(challenge).join(', ')
  }

  /**
   * Returns the keys that a request presents: more than one if they must be refused.
   *
   * They are refused if one field is there twice, or if two fields have different keys.
   */
  presented(request) {
    if (this.#only !== undefined) return valuesOf(request, this.#only)
    const found = []
    for (const { field, isBearer } of this.#sources) {
      const values = valuesOf(request, field)
      const keys = isBearer ? tokens(values) : values
      if (keys.length > 1) return keys
      found.push(...keys)
    }
    return new Set(found).size > 1 ? found : found.slice(0, 1)
  }

  /** Returns a refusal with status 401 as it names these header fields, and others unchanged. */
  refusal(refusal) {
    if (this.#challenges === '' || refusal.status !== 401) return refusal
    const named = refusal.outcome === 'missing_key' ? refusal.withText(401, MISSING) : refusal
    return named.withFields([['WWW-Authenticate', this.#challenges]])
  }
}

/** Returns the values of all fields that have a name, in lowercase, of a request of `node:http`. */
function valuesOf(request, field) {
  const { rawHeaders } = request
  const values = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]
    if (name.length === field.length && name.toLowerCase() === field) {
      // Some servers trim the spaces around a value, and some do not (RFC 9110, section 5.5).
      values.push(rawHeaders[index + 1])
    }
  }
  return values
}

/** Returns the source that a name means. */
function source(name) {
  if (typeof name === 'string' && name.toLowerCase() === BEARER.toLowerCase()) {
    return { name: BEARER, field: 'authorization', isBearer: true }
  }
  if (typeof name !== 'string' || !TOKEN.test(name)) {
    throw new RangeError(
      `${shown(name)} in keyFrom is not the name of a header: pass a name such as 'X-API-Key', ` +
        `or '${BEARER}'`,
    )
  }
  // In a path, only parts that look like a secret are hidden. Names of headers may be long.
  if (native.redact(`/${name}`) !== `/${name}`) {
    throw new RangeError(
      `${shown(name)} in keyFrom looks like a key, not like the name of a header: responses ` +
        'would show it',
    )
  }
  if (NOT_KEYS.has(name.toLowerCase())) {
    throw new RangeError(
      `${name} in keyFrom does not carry a key as its whole value: pass '${BEARER}', or the name ` +
        'of another header',
    )
  }
  return { name, field: name.toLowerCase(), isBearer: false }
}

/** Returns the challenge of a source for `WWW-Authenticate` (RFC 9110, section 11.6.1). */
function challenge({ name, isBearer }) {
  return isBearer ? 'Bearer realm="api"' : `ApiKey realm="api", header="${name}"`
}

/**
 * Returns the tokens of Authorization fields; several values if they must be refused. Credentials
 * of another scheme are not a key.
 */
function tokens(values) {
  const found = values
    .map((value) => /^ *([^ ]+)(?: +(.*?))? *$/s.exec(value))
    .filter((match) => match?.[1].toLowerCase() === 'bearer')
    .map((match) => match[2] ?? '')
  return found.length > 0 && values.length > 1 ? values : found
}

module.exports = { KeySources, valuesOf }
