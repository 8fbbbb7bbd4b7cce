'use strict'

// The errors of the package, and their conversion from those of the native part.

/**
 * An error of Keytally. Arguments of a wrong type or out of range are a `TypeError` or a
 * `RangeError` instead, and errors of the operating system have a `code`, such as `'ENOENT'`.
 */
class KeytallyError extends Error {
  get name() {
    return this.constructor.name
  }
}

/** A text is not a policy. */
class PolicyError extends KeytallyError {}

/** A gate or a limiter cannot have these properties. */
class CreateError extends KeytallyError {}

/** A pepper is not valid, cannot be read, or belongs to another gate. */
class PepperError extends KeytallyError {}

/** A text is not a key id. */
class KeyIdError extends KeytallyError {}

/** A file is not the table that was requested, is damaged, or has an unsafe owner or mode. */
class TableError extends KeytallyError {}

/** A change to a gate was rejected. The gate did not change. */
class AdminError extends KeytallyError {}

/**
 * Another thread or process kept changing the gate for all of `wait`.
 *
 * `pid` is the id of the other process; `null` if it is in another container.
 */
class BusyError extends AdminError {
  constructor(message, pid = null) {
    super(message)
    this.pid = pid
  }
}

/** The gate does not have the key. */
class NoSuchKeyError extends AdminError {}

/** The gate does not have the plan. */
class NoSuchPlanError extends AdminError {}

/** The gate does not have the account. */
class NoSuchAccountError extends AdminError {}

/** The gate does not have a scope that a key should have. */
class NoSuchScopeError extends AdminError {}

/** The gate has no room for another account. */
class TeamsFullError extends AdminError {}

/**
 * The gate is full, so it cannot have another key. The record of a revoked or expired key is free
 * once its longest window has passed.
 */
class GateFullError extends AdminError {}

/** The key was revoked, so it cannot be changed. */
class RevokedError extends AdminError {}

/** The key to import is in the gate already, for another account. */
class AlreadyImportedError extends AdminError {}

/** A request was refused. `Verdict.raiseForStatus` throws one of the subclasses. */
class RefusedError extends KeytallyError {
  constructor(verdict) {
    const retry = verdict.retryAfterS === null ? '' : `; try again in ${verdict.retryAfterS} s`
    super(`${verdict.outcome} (${verdict.httpStatus})${retry}`)
    this.verdict = verdict
  }
}

/** The request has no key. */
class MissingKeyError extends RefusedError {}

/** The key is invalid. `verdict.reason` has the reason, which only logs may contain. */
class InvalidKeyError extends RefusedError {}

/** The key lacks a scope that the request needs. */
class ForbiddenError extends RefusedError {}

/** A window lacks room for the cost. */
class DeniedError extends RefusedError {}

/** The cost is above a limit, so it can never be admitted. */
class TooCostlyError extends RefusedError {}

/** The counts of the key are being moved to another file, which is not in force yet. */
class UnavailableError extends RefusedError {}

/** The limiter has no free slot for a new subject, and refuses it. */
class FullError extends RefusedError {}

const classes = {
  AdminError,
  AlreadyImportedError,
  BusyError,
  CreateError,
  DeniedError,
  ForbiddenError,
  FullError,
  GateFullError,
  InvalidKeyError,
  KeyIdError,
  KeytallyError,
  MissingKeyError,
  NoSuchAccountError,
  NoSuchKeyError,
  NoSuchPlanError,
  NoSuchScopeError,
  PepperError,
  PolicyError,
  RefusedError,
  RevokedError,
  TableError,
  TeamsFullError,
  TooCostlyError,
  UnavailableError,
}

const REFUSED = {
  denied: DeniedError,
  forbidden: ForbiddenError,
  full: FullError,
  invalid_key: InvalidKeyError,
  missing_key: MissingKeyError,
  too_costly: TooCostlyError,
  unavailable: UnavailableError,
}

/**
 * Returns the error of this package for an error of the native part.
 *
 * @param {Error & { code?: string }} error
 * @returns {Error}
 */
function converted(error) {
  const [name, detail] = String(error?.code).split(':')
  if (name === 'RangeError') return new RangeError(error.message)
  if (name === 'TypeError') return new TypeError(error.message)
  if (name === 'SystemError') {
    const found = new Error(error.message)
    if (detail !== undefined) found.code = detail
    return found
  }
  if (name === 'BusyError') {
    return new BusyError(error.message, detail === undefined ? null : Number(detail))
  }
  if (Object.hasOwn(classes, name)) return new classes[name](error.message)
  // A panic, or a value that the JavaScript part should have refused. The message is not shown: it
  // may repeat the value.
  return new Error('an internal error of keytally', { cause: error?.code })
}

/**
 * Calls a function of the native part, and throws the errors of this package.
 *
 * @template T
 * @param {() => T} work
 * @returns {T}
 */
function calling(work) {
  try {
    return work()
  } catch (error) {
    const found = converted(error)
    Error.captureStackTrace(found, calling)
    throw found
  }
}

module.exports = { REFUSED, calling, classes, converted }
