'use strict'

// The package `keytally`: API-key checks and rate limits in the server's own process.

const native = require('./native')
const { moment, text } = require('./arguments')
const { Charge } = require('./charge')
const {
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
} = require('./errors').classes
const { calling } = require('./errors')
const { Gate } = require('./gate')
const { Key } = require('./key')
const { Limiter } = require('./limiter')
const { Part, acheckAll, checkAll, peekAll } = require('./part')
const { AddressPolicy, Policy, Quota, SectionQuotas, Sections } = require('./policy')
const { QuotaState, TallyVerdict, Verdict } = require('./verdict')

const { fieldNames: FIELD_NAMES, version } = native.constants()

/**
 * Returns a new pepper: 32 bytes of the system's entropy, as 64 hex digits. Store it where the
 * server can read it, and not next to the gate's file.
 */
function generatePepper() {
  return calling(() => native.generatePepper())
}

/** Returns `value` without the parts that look like a key or a pepper, for an error message. */
function redact(value) {
  return native.redact(text(value, 'text'))
}

/**
 * Sets the time that this process reads, for tests: a `Date`, or Unix milliseconds; `null` reads
 * the system clock again. Returns the former setting.
 *
 * @example
 * const { Limiter, setTestClock } = require('keytally')
 * const limiter = Limiter.inMemory('1/minute')
 * setTestClock(1700000000000)
 * limiter.check('203.0.113.9').admitted // true
 * limiter.check('203.0.113.9').retryAfterS // 40
 * setTestClock(1700000040000)
 * limiter.check('203.0.113.9').admitted // true
 * setTestClock(null)
 */
function setTestClock(time) {
  const set = time === null || time === undefined ? undefined : moment(time, 'time')
  return native.setTestClock(set) ?? null
}

module.exports = {
  AddressPolicy,
  AdminError,
  AlreadyImportedError,
  BusyError,
  Charge,
  CreateError,
  DeniedError,
  FIELD_NAMES,
  ForbiddenError,
  FullError,
  Gate,
  GateFullError,
  InvalidKeyError,
  Key,
  KeyIdError,
  KeytallyError,
  Limiter,
  MissingKeyError,
  NoSuchAccountError,
  NoSuchKeyError,
  NoSuchPlanError,
  NoSuchScopeError,
  Part,
  PepperError,
  Policy,
  PolicyError,
  Quota,
  QuotaState,
  RefusedError,
  RevokedError,
  SectionQuotas,
  Sections,
  TableError,
  TallyVerdict,
  TeamsFullError,
  TooCostlyError,
  UnavailableError,
  Verdict,
  acheckAll,
  checkAll,
  generatePepper,
  peekAll,
  redact,
  setTestClock,
  version,
}
