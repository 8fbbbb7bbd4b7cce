'use strict'

// Refusals: the responses to requests that are not admitted.

const native = require('./native')
const { kind, shown } = require('./arguments')

const constants = native.constants()

// Only refusals have these fields. On other responses, they belong to the application.
const ONLY_REFUSALS = new Set(['Retry-After', 'WWW-Authenticate'])

const JSON_TYPE = 'application/json'
const TEXT_TYPE = 'text/plain; charset=utf-8'

// The outcome of a request whose cost, as the application's function returns it, is out of range.
const WRONG_COST = 'cost_out_of_range'

// In shadow mode, the outcome that would have refused the request.
const SHADOW_HEADER = 'X-Keytally-Shadow'

// These fields replace those of the application, because a response must have each once.
const REPLACED = new Set(
  [...constants.fieldNames.filter((name) => !ONLY_REFUSALS.has(name)), SHADOW_HEADER].map((name) =>
    name.toLowerCase(),
  ),
)

// The statuses whose responses have no body (RFC 9110, section 15).
const WITHOUT_BODY = new Set([204, 205, 304])

// A media type with parameters (RFC 9110, section 8.3.1).
const MEDIA_TYPE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+\/[!#$%&'*+.^_`|~0-9A-Za-z-]+( ?;[ -~]+)?$/

/**
 * The response to a refused request, for the option `refusal`.
 *
 * Its properties are `outcome`, that of the verdict or `'cost_out_of_range'`; `verdict`, after too
 * many wrong keys that of the limit of wrong keys; `status`; `body`; `contentType`; `retryAfterS`;
 * `problem`, the body for a client that accepts problem documents, or `null`; and `fields`, the
 * header fields that only a refusal has.
 */
class Refusal {
  constructor(values) {
    Object.assign(this, values)
    Object.freeze(this)
  }

  /** Returns the documented response to a request that a verdict refuses. */
  static of(verdict) {
    return new Refusal({
      outcome: verdict.outcome,
      verdict,
      status: verdict.httpStatus,
      body: verdict.body,
      contentType: verdict.contentType,
      retryAfterS: verdict.retryAfterS,
      problem: verdict.problem,
      fields: verdict.headers.filter(([name]) => ONLY_REFUSALS.has(name)),
    })
  }

  /**
   * Returns this refusal with another status, body or content type. A client that accepts problem
   * documents then gets this body, too.
   *
   * An object or an array is sent as JSON, and a text as `text/plain; charset=utf-8`. Bytes need a
   * content type.
   */
  replace({ status = this.status, body, contentType } = {}) {
    if (typeof status !== 'number') {
      throw new TypeError(`status must be a number such as 429, not ${kind(status)}`)
    }
    if (!Number.isInteger(status) || status < 200 || status > 599 || WITHOUT_BODY.has(status)) {
      throw new RangeError(
        `status is ${shown(status)}, and must be that of a response with a body, from 200 to 599`,
      )
    }
    const [found, usual] = body === undefined ? [this.body, this.contentType] : encoded(body)
    const type = contentType ?? usual
    if (type === undefined) {
      throw new TypeError("a body of bytes needs a contentType, such as 'text/html'")
    }
    if (typeof type !== 'string' || !MEDIA_TYPE.test(type)) {
      throw new RangeError(`contentType is ${shown(type)}, and must be one such as 'text/html'`)
    }
    return new Refusal({ ...this, status, body: found, contentType: type, problem: null })
  }

  /** Returns this refusal with another status, and bodies of the documented forms. */
  withText(status, text) {
    return new Refusal({
      ...this,
      status,
      body: `{"error": "${text}"}`,
      contentType: JSON_TYPE,
      problem: `{"type": "about:blank", "title": "${text}", "status": ${status}}`,
    })
  }

  /** Returns this refusal with other fields. */
  withFields(fields) {
    return new Refusal({ ...this, fields })
  }

  /** Returns this refusal with another outcome. */
  withOutcome(outcome) {
    return new Refusal({ ...this, outcome })
  }
}

/** Returns a body, and its usual content type; undefined if that is unknown. */
function encoded(body) {
  if (body instanceof Uint8Array) return [Buffer.from(body), undefined]
  if (typeof body === 'string') return [body, TEXT_TYPE]
  if (body !== null && typeof body === 'object') return [JSON.stringify(body), JSON_TYPE]
  throw new TypeError(`body must be a string, bytes, an object or an array, not ${kind(body)}`)
}

/** Returns the result of the application's function after checking its type. */
function checkedResult(result) {
  if (!(result instanceof Refusal)) {
    throw new TypeError(
      'refusal must return a Refusal: the one that it gets, or what its method replace returns, ' +
        `not ${kind(result)}`,
    )
  }
  return result
}

/**
 * Returns the status, the header fields and the body of the response to a refused request.
 *
 * @param {Refusal} refusal
 * @param {[string, string][]} fields The rate-limit fields of the response.
 * @param {string} accept The value of `Accept` in the request. If it names problem documents
 *   (RFC 9457), the body is one, unless the application replaced it.
 */
function responseTo(refusal, fields, accept) {
  let { body, contentType } = refusal
  if (refusal.problem !== null && accept !== '' && native.acceptsProblem(accept)) {
    body = refusal.problem
    contentType = constants.problemMediaType
  }
  const bytes = Buffer.from(body)
  const headers = [
    ['Content-Type', contentType],
    ['Content-Length', String(bytes.length)],
    ...fields,
    ...refusal.fields,
  ]
  return { status: refusal.status, headers, body: bytes }
}

module.exports = { REPLACED, Refusal, SHADOW_HEADER, WRONG_COST, checkedResult, responseTo }
