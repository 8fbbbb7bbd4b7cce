'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const { moment, options: checkOptions } = require('./arguments')
const { Charge } = require('./charge')
const { REFUSED } = require('./errors')
const F = require('./facts')

const bodies = F.outcomes.map((_, outcome) => native.bodyOf(outcome))
const ADMITTED = F.outcomes.indexOf('admitted')
const windows = new Map()

/** Returns the name of a window, and its length in seconds. */
function windowOf(number) {
  let found = windows.get(number)
  if (found === undefined) {
    found = native.windowOf(number)
    windows.set(number, found)
  }
  return found
}

/**
 * The state of one quota after a decision: its limit, its remaining units and its reset.
 *
 * Its properties are `limit`; `remaining`, the units that are left; `window`, the length of the
 * window in seconds, of a month that of the longest one; `name`, the name of the window in header
 * fields; `resetUnixS`, the time at which the last unit that is counted now stops counting; and
 * `lacking`, whether this window lacked room for the cost.
 */
class QuotaState {
  constructor(facts, at) {
    const window = windowOf(facts[at + 3])
    this.limit = facts[at]
    this.remaining = facts[at + 1]
    this.window = window.seconds
    this.name = window.name
    this.resetUnixS = facts[at + 2]
    this.lacking = (facts[at + 4] & 1) !== 0
    Object.freeze(this)
  }
}

/** Returns the states of quotas, from the index `at` of facts on. */
function quotaStates(facts, at = 0, count = (facts.length - at) / F.QUOTA_LEN) {
  return Array.from(
    { length: count },
    (_, index) => new QuotaState(facts, at + index * F.QUOTA_LEN),
  )
}

/** Returns the name and the value of each line of a block of header fields. */
function fieldsOf(block) {
  const fields = []
  for (let at = 0; at < block.length; ) {
    const colon = block.indexOf(':', at)
    const end = block.indexOf('\r\n', colon)
    fields.push([block.slice(at, colon), block.slice(colon + 2, end)])
    at = end + 2
  }
  return fields
}

/**
 * The result of a check: the values for an HTTP response, a log line or a later refund.
 *
 * A verdict on one tally is a few numbers. The header fields, the body and the quotas are built
 * from them when they are read. If the gate's plans have further sections, a request charges
 * several tallies, and the verdict is that of the whole request.
 *
 * @example
 * const { Limiter } = require('keytally')
 * const limiter = Limiter.inMemory('1/minute')
 * limiter.check('203.0.113.9', 1, { now: 1700000000000 }).admitted // true
 * const verdict = limiter.check('203.0.113.9', 1, { now: 1700000000000 })
 * verdict.outcome // 'denied'
 * verdict.httpStatus // 429
 * verdict.retryAfterS // 40
 * verdict.body // '{"error": "Rate limit exceeded. Please try again later."}'
 */
class Verdict {
  // The facts of a verdict on one tally.
  #facts
  // The native gate that has the names, or those of the parts; undefined for a limiter.
  #gate
  // The facts of a request with several tallies.
  #all
  // What they mean.
  #meaning
  // The facts of the quota that is described, if several tallies have its section.
  #ofSeveral
  #uncharged

  constructor(facts, gate, all, uncharged) {
    this.#facts = facts
    this.#gate = gate
    this.#all = all
    this.#uncharged = uncharged
  }

  /**
   * Returns the verdict on a request with more than one key header.
   *
   * The key is invalid whatever the values are, because the next server in the chain may select
   * another value.
   */
  static duplicateHeader(options) {
    checkOptions(options, ['now'])
    return new Verdict(native.duplicateHeader(moment(options?.now)))
  }

  get #read() {
    this.#meaning ??= F.parsed(this.#all)
    return this.#meaning
  }

  // The fact at a position, of one tally or of all.
  #fact(position, ofAll) {
    return this.#facts === undefined ? this.#all[ofAll] : this.#facts[position]
  }

  get #outcome() {
    return this.#facts === undefined ? this.#all[F.ALL.OUTCOME] : this.#facts[F.OUTCOME]
  }

  /** Whether the request was admitted. */
  get admitted() {
    return this.#outcome === ADMITTED
  }

  /**
   * The decision: `'admitted'`, `'denied'`, `'missing_key'`, `'invalid_key'`, `'too_costly'`,
   * `'full'`, `'forbidden'` or `'unavailable'`.
   */
  get outcome() {
    return F.outcomes[this.#outcome]
  }

  /** Why the key is invalid; `null` if it is not. Log it, but never disclose it to the client. */
  get reason() {
    return F.reasons[this.#fact(F.REASON, F.ALL.REASON)]
  }

  get #flags() {
    return this.#fact(F.FLAGS, F.ALL.FLAGS)
  }

  /**
   * Why the gate does not decide now: `'moving'`, `'not_reserving'`, `'lost'` or `'waiting'`.
   * `null` unless the outcome is `'unavailable'`.
   */
  get unavailability() {
    return F.unavailabilities[Math.floor(this.#flags / F.UNAVAILABILITY)]
  }

  /**
   * Whether the verdict is on units that machines of a fleet share. False if only the counts of
   * this machine decided.
   */
  get leased() {
    return (this.#flags & F.LEASED) !== 0
  }

  /** The HTTP status: 200, 401, 403, 429 or 503. */
  get httpStatus() {
    return F.statuses[this.#outcome]
  }

  /** The body of the response, as JSON; empty if the request was admitted. */
  get body() {
    return bodies[this.#outcome]
  }

  /** The media type of `body`. */
  get contentType() {
    return 'application/json'
  }

  /** The body as a problem document (RFC 9457); empty if the request was admitted. */
  get problem() {
    if (this.#facts === undefined) return native.compoundProblemOf(new Float64Array(this.#all))
    return native.problemOf(new Float64Array(this.#known))
  }

  /**
   * The header fields of the response, a list of names and values. Set them, do not append them: a
   * response must have each field once.
   */
  get headers() {
    if (this.#facts === undefined) {
      return fieldsOf(native.compoundHeadersOf(new Float64Array(this.#all)))
    }
    return fieldsOf(native.headersOf(new Float64Array(this.#known)))
  }

  // The facts, without those of quotas that do not exist.
  get #known() {
    return this.#facts.slice(0, F.HEAD + F.QUOTA_LEN * this.#facts[F.HEAD - 1])
  }

  get #holder() {
    if (this.#facts !== undefined) return this.#gate === undefined ? undefined : this
    const holder = this.#all[F.ALL.HOLDER]
    return holder < 0 ? undefined : this.#tally(holder).verdict
  }

  /** The number of the account that the key belongs to; `null` unless the secret was correct. */
  get account() {
    const facts = this.#holder?.#facts
    return facts === undefined || facts[F.ACCOUNT] < 0 ? null : facts[F.ACCOUNT]
  }

  /** The id of the key, 11 base62 characters; `null` unless the secret was correct. */
  get keyId() {
    const facts = this.#holder?.#facts
    if (facts === undefined || facts[F.ACCOUNT] < 0) return null
    return native.keyIdOf(facts[F.KEY_ID_HIGH], facts[F.KEY_ID_LOW])
  }

  /** The name of the key's plan; `null` unless the secret was correct. */
  get plan() {
    return this.#names?.plan ?? null
  }

  /** The environment of the key; `null` unless the secret was correct. */
  get env() {
    return this.#names?.env ?? null
  }

  get #names() {
    const holder = this.#holder
    if (holder === undefined || holder.#facts[F.ACCOUNT] < 0) return undefined
    return native.gateNames(
      holder.#gate,
      holder.#facts[F.GENERATION],
      holder.#facts[F.PLAN],
      holder.#facts[F.ENV],
    )
  }

  /** The value of a quota that `X-RateLimit-*` describe, by its position in the facts. */
  #described(position) {
    const facts = this.#facts ?? this.#all
    const at = this.#facts === undefined ? facts[F.ALL.OWN_AT] : 0
    if (this.#facts === undefined && at === 0) {
      this.#ofSeveral ??= native.compoundDescribedOf(new Float64Array(facts))
      return this.#ofSeveral[position] ?? null
    }
    if (facts[at + F.HEAD - 1] === 0) return null
    return facts[at + F.HEAD + F.QUOTA_LEN * facts[at + F.DESCRIBED] + position]
  }

  /** The limit of the window that `X-RateLimit-*` describe; `null` without quotas. */
  get limit() {
    return this.#described(0)
  }

  /** The units left in the window that `limit` is of; `null` without quotas. */
  get remaining() {
    return this.#described(1)
  }

  /** The time at which the last unit in that window stops counting, in Unix seconds. */
  get resetUnixS() {
    return this.#described(2)
  }

  /** The seconds until a retry can succeed, at least 1; `null` if none can, or none is needed. */
  get retryAfterS() {
    const seconds = this.#fact(F.RETRY_AFTER_S, F.ALL.RETRY_AFTER_S)
    return seconds < 0 ? null : seconds
  }

  /** How far the time of the counts was ahead of the caller's, in seconds, rounded up. */
  get clockAheadS() {
    return this.#fact(F.CLOCK_AHEAD_S, F.ALL.CLOCK_AHEAD_S)
  }

  /** The quotas of the key or subject after the decision, shortest window first. */
  get quotas() {
    if (this.#facts === undefined) {
      const { tallies } = this.#read
      const own = tallies[this.#all[F.ALL.OWN]]
      const isOwn = ({ part, section }) => part === own.part && section === own.section
      return tallies.filter(isOwn).flatMap(({ facts }) => quotaStates(facts, F.HEAD))
    }
    return quotaStates(this.#facts, F.HEAD, this.#facts[F.HEAD - 1])
  }

  /**
   * The charge, for a later `refund` or `settle`; `null` unless this is the verdict of an admitted
   * check.
   */
  get charge() {
    return this.chargeOf(0)
  }

  /** Returns the charge of a part of `checkAll`. */
  chargeOf(part) {
    if (this.#facts === undefined) {
      const bytes = this.#read.charges.get(part)
      return bytes === undefined ? null : Charge.fromBytes(bytes)
    }
    const facts = this.#facts
    const flags = facts[F.FLAGS]
    if ((flags & F.CHARGED) === 0) return null
    const [isShared, isUnreserved] = [(flags & F.SHARED) !== 0, (flags & F.UNRESERVED) !== 0]
    return Charge.ofTally(facts[F.COST], facts[F.AT_MS], isShared, isUnreserved)
  }

  /** Whether a limiter had no slot for the subject and charged it to an overflow tally. */
  get isShared() {
    return (this.#flags & F.SHARED) !== 0
  }

  /** The units that `settle` could not charge for lack of room; 0 in other verdicts. */
  get uncharged() {
    return this.#fact(F.UNCHARGED, F.ALL.UNCHARGED)
  }

  /** The units of each group of `costs` that `settle` could not charge, by the group's name. */
  get unchargedCosts() {
    return Object.fromEntries((this.#uncharged ?? []).map(({ name, cost }) => [name, cost]))
  }

  /** The verdict on each tally of the request, a `TallyVerdict`, in the order of the sections. */
  get tallies() {
    if (this.#facts === undefined) return this.#read.tallies.map((_, index) => this.#tally(index))
    const isKey = this.#gate !== undefined && this.#facts[F.HEAD - 1] > 0
    return [new TallyVerdict(0, isKey ? 'key' : null, this)]
  }

  #tally(index) {
    const { part, section, facts } = this.#read.tallies[index]
    const gate = Array.isArray(this.#gate) ? this.#gate[part] : this.#gate
    return new TallyVerdict(part, section, new Verdict(facts, gate))
  }

  /** The `TallyVerdict` that decided. */
  get decisive() {
    return this.#facts === undefined ? this.#tally(this.#all[F.ALL.DECISIVE]) : this.tallies[0]
  }

  /**
   * Returns the warnings that this charge reached: each the `TallyVerdict`, the `QuotaState` and
   * the percentage of its limit.
   */
  crossed() {
    if (this.#facts !== undefined) return []
    return this.#read.crossed.map(([tally, window, percent]) => {
      const found = this.#tally(tally)
      return [found, found.verdict.quotas[window], percent]
    })
  }

  /** Throws a `RefusedError` unless the request was admitted. */
  raiseForStatus() {
    if (!this.admitted) throw new REFUSED[this.outcome](this)
  }

  toString() {
    const { outcome, reason, limit, remaining } = this
    if (reason !== null) return `${outcome}: ${reason}`
    return limit === null ? outcome : `${outcome}: ${remaining} of ${limit} left`
  }

  [inspect.custom]() {
    return `<Verdict ${this}>`
  }
}

/**
 * The verdict on one tally of a request: `part`, the index of the part of `checkAll`; `section`,
 * the name of the section of the gate's plans, or `null`; and `verdict`.
 */
class TallyVerdict {
  constructor(part, section, verdict) {
    this.part = part
    this.section = section
    this.verdict = verdict
    Object.freeze(this)
  }

  [inspect.custom]() {
    return this.section === null
      ? `<TallyVerdict ${this.verdict}>`
      : `<TallyVerdict ${this.section}: ${this.verdict}>`
  }
}

/**
 * Returns the verdict whose facts a call of the native part wrote.
 *
 * @param {number} answer What the call returned.
 * @param {unknown} gate The native gate, or those of the parts.
 */
function verdictOf(answer, gate, uncharged) {
  if (answer < F.IS_COMPOUND) return new Verdict(F.copied(answer), gate, undefined, uncharged)
  return new Verdict(undefined, gate, F.copiedAll(answer - F.IS_COMPOUND), uncharged)
}

module.exports = { verdictOf, QuotaState, TallyVerdict, Verdict, quotaStates }
