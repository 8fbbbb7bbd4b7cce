'use strict'

// The response of `node:http`: its header fields, and its end.

const { REPLACED } = require('./refusal')

/**
 * Calls `begin` before the head of a response is written, with its status and the header fields
 * that are passed to `writeHead`. These replace those that were set, and `begin` may change them.
 */
function beforeHead(response, begin) {
  const { writeHead } = response
  response.writeHead = function (status, ...rest) {
    response.writeHead = writeHead
    const fields = rest.findLast((value) => value !== null && typeof value === 'object')
    // A copy, since the application may use its value for other responses too.
    const given = Array.isArray(fields) ? [...fields] : fields && { ...fields }
    const reason = typeof rest[0] === 'string' ? [rest[0]] : []
    begin(status, given)
    return given === undefined
      ? writeHead.call(response, status, ...reason)
      : writeHead.call(response, status, ...reason, given)
  }
}

/** Removes a field from the fields of `writeHead`: an object, or a list of names and values. */
function removeFrom(fields, name) {
  if (fields === undefined) return
  if (!Array.isArray(fields)) {
    for (const given of Object.keys(fields)) {
      if (given.toLowerCase() === name) delete fields[given]
    }
    return
  }
  for (let index = fields.length - 1; index >= 0; index--) {
    if (Array.isArray(fields[index])) {
      if (String(fields[index][0]).toLowerCase() === name) fields.splice(index, 1)
    } else if (index % 2 === 0 && String(fields[index]).toLowerCase() === name) {
      fields.splice(index, 2)
    }
  }
}

/** Returns the fields that are passed to `writeHead` by their lowercase names. */
function namedIn(fields) {
  if (fields === undefined) return {}
  const isPairs = Array.isArray(fields) && Array.isArray(fields[0])
  const pairs = !Array.isArray(fields)
    ? Object.entries(fields)
    : isPairs
      ? fields
      : fields.flatMap((name, index) => (index % 2 === 0 ? [[name, fields[index + 1]]] : []))
  return Object.fromEntries(pairs.map(([name, value]) => [String(name).toLowerCase(), value]))
}

/** Sets the header fields of a record once the response begins. They replace the application's. */
function withFields(response, record) {
  beforeHead(response, (_, given) => {
    const fields = record.fields()
    if (fields.length === 0) return
    for (const name of REPLACED) {
      removeFrom(given, name)
      response.removeHeader(name)
    }
    for (const [name, value] of fields) response.setHeader(name, value)
  })
}

/**
 * What was sent of a response, for `settle`: `status`, or `null` if the client closed the
 * connection before the response began; `headers`, an object; `bytes`, the bytes of the body;
 * `isComplete`, whether the body was sent to its end; `exception`, the error that ended the
 * response, or `null`; `cost`, the units that the request was charged; and `costs`, those of groups
 * with costs of their own.
 */
class Sent {
  constructor(values) {
    Object.assign(this, values)
    Object.freeze(this)
  }
}

/** Settles the charges of a record after the response. */
function settleAfter(request, response, record) {
  let status = null
  let headers = {}
  let bytes = 0
  let isFinished = false
  let isGone = false

  const settle = (select, unsentStatus) => {
    const exception = response.errored ?? null
    for (const { decision, settlement, request: of } of record.takePending(select)) {
      const sent = new Sent({
        status: status === null && exception !== null ? 500 : status,
        headers,
        bytes,
        isComplete: isFinished,
        exception,
        cost: decision.costs.own,
        costs: Object.fromEntries(decision.costs.ofGroups),
      })
      settlement.finish(decision, of, sent, unsentStatus)
    }
  }

  beforeHead(response, (found, given) => {
    status = found
    headers = { ...response.getHeaders(), ...namedIn(given) }
  })
  const { write, end } = response
  const counted = (chunk, encoding) => {
    // The client does not see this response, but a client that leaves early must not avoid the
    // charge.
    if (isGone) settle(() => true, response.statusCode)
    else if (typeof chunk === 'string' || chunk instanceof Uint8Array) {
      bytes += Buffer.byteLength(chunk, typeof encoding === 'string' ? encoding : undefined)
    }
  }
  response.write = function (chunk, encoding, ...rest) {
    counted(chunk, encoding)
    return write.call(response, chunk, encoding, ...rest)
  }
  response.end = function (chunk, encoding, ...rest) {
    counted(chunk, encoding)
    return end.call(response, chunk, encoding, ...rest)
  }
  // A response of HTTP/2 emits `finish` also if the client reset its stream.
  const { stream } = response
  const isReset = () => stream?.aborted === true || (stream?.rstCode ?? 0) !== 0
  response.once('finish', () => {
    if (isReset()) return
    isFinished = true
    settle(() => true)
  })
  response.once('close', () => {
    isGone = true
    // What is charged by its status waits for the response that the application still makes.
    settle(({ settlement }) => status !== null || settlement.chargeOn === undefined)
  })
}

module.exports = { Sent, settleAfter, withFields }
