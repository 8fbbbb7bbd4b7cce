'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const A = require('./arguments')
const { chargeBytes } = require('./charge')
const { CREDIT_WAIT_S, DECIDE, PEEK, RETURN, WAIT, decideInTime } = require('./credits')
const { calling } = require('./errors')
const F = require('./facts')
const { Part } = require('./part')
const { limits, limitsText } = require('./policy')
const { verdictOf } = require('./verdict')

const CREATE = 0
const OPEN_OR_CREATE = 1

function onFullOf(value) {
  if (value === undefined || value === null) return undefined
  if (value !== 'share' && value !== 'refuse') {
    if (typeof value !== 'string') throw A.wrongType('onFull', "'share' or 'refuse'", value)
    throw new RangeError(`onFull is ${A.shown(value)}, and must be 'share' or 'refuse'`)
  }
  return value
}

function create(path, policy, capacity, options, how) {
  A.options(options, how === OPEN_OR_CREATE ? ['onFull', 'fleet', 'creditWait'] : ['onFull'])
  const text = limitsText(policy)
  A.wholeNumber(capacity, 'capacity', 'a whole number', 1, native.constants().maxSubjects)
  const onFull = onFullOf(options?.onFull)
  return joined(
    calling(() => native.limiterCreate(path, text, capacity, onFull, how)),
    options,
  )
}

/** Returns the limiter of a table, which joins the fleet of this machine if there is one. */
function joined(table, options) {
  const fleet = options?.fleet === undefined ? null : A.path(options.fleet, 'fleet')
  const wait =
    options?.creditWait === undefined ? CREDIT_WAIT_S : A.span(options.creditWait, 'creditWait')
  calling(() => native.limiterJoin(table, fleet ?? undefined, wait))
  return new Limiter(table, TOKEN, fleet, wait)
}

const TOKEN = Symbol('the constructor of Limiter')

/**
 * A table that limits the use of any subject: an address, a user, a route.
 *
 * `Limiter.inMemory` creates a limiter for this process. All processes that call
 * `Limiter.openOrCreate` with one path share the limiter in that file, so the workers of `cluster`
 * together admit exactly the limit.
 *
 * A policy that begins with `addresses:` makes a limiter of addresses: each request is charged to
 * all networks that contain the client's address, or to none.
 *
 * @example
 * const { Limiter } = require('keytally')
 * const limiter = Limiter.inMemory('2/minute', 1000)
 * const now = 1700000000000
 * limiter.check('203.0.113.9', 1, { now }).admitted // true
 * limiter.check('203.0.113.9', 1, { now }).admitted // true
 * limiter.check('203.0.113.9', 1, { now }).admitted // false
 */
class Limiter {
  #table
  #fleet
  #creditWaitS

  /** There is no constructor: call `inMemory`, `create`, `open` or `openOrCreate`. */
  constructor(table, token, fleet = null, creditWaitS = CREDIT_WAIT_S) {
    if (token !== TOKEN) {
      throw new TypeError(
        'Limiter has no constructor; call Limiter.inMemory, Limiter.create, Limiter.open or ' +
          'Limiter.openOrCreate',
      )
    }
    this.#table = table
    this.#fleet = fleet
    this.#creditWaitS = creditWaitS
  }

  /** Creates a limiter in memory, for this process. */
  static inMemory(policy, capacity = 100000, options = undefined) {
    return create(undefined, policy, capacity, options, CREATE)
  }

  /** Creates a limiter in a new file, with mode 0600. */
  static create(path, policy, capacity = 100000, options = undefined) {
    return create(A.path(path), policy, capacity, options, CREATE)
  }

  /**
   * Opens the limiter in a file.
   *
   * If the limiter shares its limits with other machines, `fleet` is the fleet file of this
   * machine, which its agent creates. `creditWait` is how long a request waits for credits, in
   * seconds. All machines must have copies of one limiter file.
   */
  static open(path, options = undefined) {
    A.options(options, ['fleet', 'creditWait'])
    const file = A.path(path)
    return joined(
      calling(() => native.limiterOpen(file)),
      options,
    )
  }

  /** Opens the limiter in a file, or creates it if the path does not exist. */
  static openOrCreate(path, policy, capacity = 100000, options = undefined) {
    return create(A.path(path), policy, capacity, options, OPEN_OR_CREATE)
  }

  /** Charges `cost` to every window of the subject, if all of them have room for it. */
  check(subject, cost = 1, options = undefined) {
    // Fast path: a plain check.
    if (typeof subject === 'string' && cost >>> 0 === cost && options === undefined) {
      return verdictOf(
        calling(() => native.limiterCheck(this.#table, WAIT, subject, cost, -1, F.written)),
      )
    }
    return this.#decide(WAIT, subject, cost, options)
  }

  /**
   * Checks as `check` does, and waits for credits of a fleet while the event loop continues. In a
   * limiter that is not in a fleet, it does not wait.
   */
  async acheck(subject, cost = 1, options = undefined) {
    return decideInTime((mode) => this.#decide(mode, subject, cost, options), this.#creditWaitS)
  }

  /**
   * Checks as `check` does, but does not wait for credits of a fleet. While the agent requests
   * them, the `unavailability` of the verdict is `'waiting'`, and nothing is charged.
   */
  tryCheck(subject, cost = 1, options = undefined) {
    return this.#decide(RETURN, subject, cost, options)
  }

  /**
   * Checks as `check` does after a wait for credits of a fleet that had no effect. If there are
   * still no credits, the choice of the agent's operator decides.
   */
  checkWithoutWait(subject, cost = 1, options = undefined) {
    return this.#decide(DECIDE, subject, cost, options)
  }

  /** Returns the verdict that `check` would return, and charges nothing. */
  peek(subject, cost = 1, options = undefined) {
    return this.#decide(PEEK, subject, cost, options)
  }

  #decide(mode, subject, cost, options) {
    A.checkSubject(subject)
    A.checkCost(cost)
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    return verdictOf(
      calling(() => native.limiterCheck(this.#table, mode, subject, cost, now, F.written)),
    )
  }

  /**
   * Puts the limiter in a fleet, in which machines share its limits, or takes it out of it, in
   * every process that has it open. Those that opened it without `fleet` then refuse every request.
   */
  setFleet(isInFleet) {
    if (typeof isInFleet !== 'boolean') throw A.wrongType('isInFleet', 'true or false', isInFleet)
    calling(() => native.limiterSetFleet(this.#table, isInFleet))
  }

  /** Whether requests need credits of a fleet, in every process that has the limiter open. */
  get isInFleet() {
    return native.limiterIsInFleet(this.#table)
  }

  /** The path of the fleet file, as `open` was given it; `null` without one. */
  get fleet() {
    return this.#fleet
  }

  /** How long a request waits for credits of a fleet at most, in seconds. */
  get creditWaitS() {
    return this.#creditWaitS
  }

  /** Returns the subject and a cost as a part of `checkAll`. */
  part(subject, cost = 1) {
    A.checkSubject(subject)
    A.checkCost(cost)
    return new Part(
      calling(() => native.limiterPart(this.#table, subject, cost)),
      cost,
      undefined,
      this.#creditWaitS,
    )
  }

  /** Takes a charge back, in the windows that still count it. Refund a charge at most once. */
  refund(subject, charge, options = undefined) {
    A.checkSubject(subject)
    const bytes = chargeBytes(charge, 'charge')
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    return verdictOf(
      calling(() => native.limiterRefund(this.#table, subject, bytes, now, F.written)),
    )
  }

  /** Replaces an estimated charge by the actual cost. Settle a charge at most once. */
  settle(subject, estimate, actual, options = undefined) {
    A.checkSubject(subject)
    const bytes = chargeBytes(estimate, 'estimate')
    A.wholeNumber(actual, 'actual')
    A.options(options, ['overdraw', 'now'])
    const [now, overdraw] = [A.moment(options?.now), Boolean(options?.overdraw)]
    return verdictOf(
      calling(() =>
        native.limiterSettle(this.#table, subject, bytes, actual, overdraw, now, F.written),
      ),
    )
  }

  /** Sets all counts of the subject to 0. */
  reset(subject, options = undefined) {
    A.checkSubject(subject)
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    return verdictOf(calling(() => native.limiterReset(this.#table, subject, now, F.written)))
  }

  /** Sets all counts of every subject to 0, and returns how many subjects had counts. */
  resetAll(options = undefined) {
    A.options(options, ['now'])
    return native.limiterResetAll(this.#table, A.moment(options?.now))
  }

  /** Corrects every tally that is more than 60 s ahead of the clock, and returns their number. */
  correctClock(options = undefined) {
    A.options(options, ['now'])
    return native.limiterCorrectClock(this.#table, A.moment(options?.now))
  }

  /** Sets what happens to a new subject that finds no slot: `'share'` or `'refuse'`. */
  setOnFull(onFull) {
    const checked = onFullOf(onFull)
    if (checked === undefined) throw A.wrongType('onFull', "'share' or 'refuse'", onFull)
    calling(() => native.limiterSetOnFull(this.#table, checked))
  }

  /** Returns how many subjects have a slot that no other subject can get yet. */
  liveSubjects(options = undefined) {
    A.options(options, ['now'])
    return native.limiterLiveSubjects(this.#table, A.moment(options?.now))
  }

  get #facts() {
    return native.limiterFacts(this.#table)
  }

  /** What happens to a new subject that finds no slot: `'share'` or `'refuse'`. */
  get onFull() {
    return this.#facts.onFull
  }

  /** How many requests found no slot for their subject since the table was created. */
  get refusals() {
    return this.#facts.refusals
  }

  /** The path that the limiter was opened or created with; `null` if it is in memory. */
  get path() {
    return this.#facts.path ?? null
  }

  /** The limits, a `Policy` or an `AddressPolicy`; `null` if the header of the file is damaged. */
  get policy() {
    const { policy } = this.#facts
    return policy === null || policy === undefined ? null : limits(policy)
  }

  /** The most subjects with counts at a time. */
  get capacity() {
    return this.#facts.capacity
  }

  /** The number of slots, each for one subject. */
  get slotsTotal() {
    return this.#facts.slotsTotal
  }

  [inspect.custom]() {
    const { path, policy } = this.#facts
    return `<Limiter '${policy ?? ''}' in ${path ?? 'memory'}>`
  }
}

module.exports = { Limiter }
