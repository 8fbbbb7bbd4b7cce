'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const A = require('./arguments')
const { chargeBytes } = require('./charge')
const { CREDIT_WAIT_S, DECIDE, PEEK, RETURN, WAIT, decideInTime } = require('./credits')
const { calling } = require('./errors')
const F = require('./facts')
const { Key } = require('./key')
const { Part } = require('./part')
const { Sections, sectionsText } = require('./policy')
const { quotaStates, verdictOf } = require('./verdict')

const CREATE_OPTIONS = [
  'pepper',
  'pepperFile',
  'keys',
  'plans',
  'prefix',
  'teams',
  'scopes',
  'described',
]
const REQUEST_OPTIONS = ['groups', 'costs', 'need', 'now']
const KEY_OPTIONS = ['env', 'plan', 'expires', 'scopes', 'now', 'wait']

const TOKEN = Symbol('the constructor of Gate')

function create(path, options) {
  A.options(options, CREATE_OPTIONS)
  const { maxKeys } = native.constants()
  const room = (name, min) =>
    options?.[name] === undefined
      ? undefined
      : A.wholeNumber(options[name], name, 'a whole number', min, maxKeys)
  const optional = (name) =>
    options?.[name] === undefined ? undefined : A.text(options[name], name)
  const given = {
    keys: room('keys', 1),
    plans: plansOf(options?.plans),
    prefix: optional('prefix'),
    teams: room('teams', 0),
    scopes: A.names(options?.scopes, 'scopes'),
    described: optional('described'),
  }
  const peppers = pepperOf(options)
  return new Gate(
    calling(() => native.gateCreate(path, ...peppers, given)),
    TOKEN,
  )
}

function pepperOf(options) {
  const { pepper, pepperFile } = options ?? {}
  if (pepper !== undefined && typeof pepper !== 'string')
    throw A.wrongType('pepper', 'a string', pepper)
  return [pepper, pepperFile === undefined ? undefined : A.path(pepperFile, 'pepperFile')]
}

function plansOf(plans) {
  if (plans === undefined) return undefined
  if (plans === null || typeof plans !== 'object') {
    throw A.wrongType('plans', 'an object from names to sections', plans)
  }
  const entries = plans instanceof Map ? [...plans] : Object.entries(plans)
  return entries.map(([name, sections]) => ({
    name: A.text(name, 'the name of a plan'),
    sections: sectionsText(sections, `the plan ${native.redactName(String(name))}`),
  }))
}

function requestOf(options) {
  return {
    groups: A.names(options?.groups, 'groups'),
    costs: A.costs(options?.costs),
    need: A.names(options?.need, 'need'),
  }
}

function keyIdOf(keyId) {
  if (keyId === null || keyId === undefined) {
    throw new TypeError(
      `keyId is ${keyId}: only the verdict on a valid key has one; check verdict.admitted first`,
    )
  }
  return A.text(keyId, 'keyId')
}

function keyOptions(account, options, now) {
  const plan = options?.plan
  return {
    account: A.account(account),
    env: options?.env === undefined ? 'live' : A.text(options.env, 'env'),
    plan: plan === undefined || plan === null ? undefined : A.text(plan, 'plan'),
    expires: A.expiry(options?.expires, now),
    scopes: A.names(options?.scopes, 'scopes'),
  }
}

function infoOf({ expires, graceUntil, lastUsed, env, plan, quotas, ...facts }) {
  return Object.freeze({
    ...facts,
    env: env ?? null,
    plan: plan ?? null,
    expires: expires ?? null,
    graceUntil: graceUntil ?? null,
    lastUsed: lastUsed ?? null,
    quotas: quotaStates(quotas),
  })
}

function accountOf({ plan, quotas, ...facts }) {
  return Object.freeze({ ...facts, plan: plan ?? null, quotas: quotaStates(quotas) })
}

/**
 * A table of API keys with their counts, in memory or in a file that any number of processes share.
 *
 * `check` verifies a key and charges every window of its quota atomically. Any number of threads
 * and processes may use one gate at once. Together they admit exactly the limit. A check does not
 * wait for another thread or process.
 *
 * **Changes.** A method that changes keys or plans waits while another process does so, at most for
 * `wait` seconds. The event loop stands still meanwhile, so a server passes `wait: 0`, or makes
 * changes in another process. After that, the method throws a `BusyError`.
 *
 * **Replacement.** If another file is renamed over the gate's file, a check uses the new file after
 * at most a second. While it cannot be opened, the old one stays in use, and `reopenProblem` has
 * the reason.
 *
 * **Fleet.** Machines whose gates are in a fleet share one limit through a Redis or Valkey. A check
 * that finds no credits waits for the machine's agent, at most for `creditWait`. `check` and
 * `checkAll` stop the event loop meanwhile; `acheck` and `acheckAll` do not, and the middleware
 * calls `acheck`.
 *
 * **Time.** Every method that depends on the time takes `now`, an explicit time: a `Date`, or Unix
 * milliseconds as of `Date.now()`. Without it, the method uses the system clock.
 *
 * **Peppers.** `pepper` is the text of the peppers, the server's HMAC secrets: one to four,
 * separated by commas, newest last. `pepperFile` is a file with one pepper per line. Without both,
 * the environment variable `KEYTALLY_PEPPER_FILE` names the file. If it is not set,
 * `KEYTALLY_PEPPER` is the text.
 *
 * @example
 * const { Gate, generatePepper } = require('keytally')
 * const plans = { default: '100/minute, 1000/hour' }
 * const gate = Gate.inMemory({ pepper: generatePepper(), plans })
 * const key = gate.issue(42)
 * const verdict = gate.check(key.expose())
 * verdict.admitted // true
 * verdict.account // 42
 * verdict.remaining // 999
 * gate.revoke(key.keyId)
 * gate.check(key.expose()).httpStatus // 401
 */
class Gate {
  #gate
  #fleet
  #creditWaitS

  /** There is no constructor: call `inMemory`, `create` or `open`. */
  constructor(gate, token, fleet = null, creditWaitS = CREDIT_WAIT_S) {
    if (token !== TOKEN) {
      throw new TypeError('Gate has no constructor; call Gate.inMemory, Gate.create or Gate.open')
    }
    this.#gate = gate
    this.#fleet = fleet
    this.#creditWaitS = creditWaitS
  }

  /** Creates a gate in a new file, with mode 0600. Its space on the disk is allocated at once. */
  static create(path, options = undefined) {
    return create(A.path(path), options)
  }

  /**
   * Opens the gate in a file.
   *
   * If the gate shares its limits with other machines, `fleet` is the fleet file of this machine,
   * which its agent creates. `creditWait` is how long a request waits for credits, in seconds.
   */
  static open(path, options = undefined) {
    A.options(options, ['pepper', 'pepperFile', 'fleet', 'creditWait'])
    const [file, peppers] = [A.path(path), pepperOf(options)]
    const fleet = options?.fleet === undefined ? null : A.path(options.fleet, 'fleet')
    const wait =
      options?.creditWait === undefined ? CREDIT_WAIT_S : A.span(options.creditWait, 'creditWait')
    const gate = calling(() => native.gateOpen(file, ...peppers, fleet ?? undefined, wait))
    return new Gate(gate, TOKEN, fleet, wait)
  }

  /** Creates a gate in memory, for tests or for one process. */
  static inMemory(options = undefined) {
    return create(undefined, options)
  }

  /**
   * Verifies the key, then charges `cost` to every window of its plan, if all of them have room.
   *
   * No text that a client sends throws an error: the verdict reports that the key is invalid.
   *
   * @param {string | Uint8Array | null | undefined} apiKey The value of the `X-API-Key` header;
   *   nothing if the request has none.
   * @param {number} cost The cost in units, 0 to 4294967295.
   */
  check(apiKey, cost = 1, options = undefined) {
    // Fast path: a plain check.
    if (typeof apiKey === 'string' && cost >>> 0 === cost && options === undefined) {
      return verdictOf(native.gateCheck(this.#gate, WAIT, apiKey, cost, -1, F.written), this.#gate)
    }
    return this.#decide(WAIT, apiKey, cost, options)
  }

  /**
   * Checks as `check` does, and waits for credits of a fleet while the event loop continues. In a
   * gate that is not in a fleet, it does not wait.
   */
  async acheck(apiKey, cost = 1, options = undefined) {
    return decideInTime((mode) => this.#decide(mode, apiKey, cost, options), this.#creditWaitS)
  }

  /**
   * Checks as `check` does, but does not wait for credits of a fleet. While the agent requests
   * them, the `unavailability` of the verdict is `'waiting'`, and nothing is charged.
   */
  tryCheck(apiKey, cost = 1, options = undefined) {
    return this.#decide(RETURN, apiKey, cost, options)
  }

  /**
   * Checks as `check` does after a wait for credits of a fleet that had no effect. If there are
   * still no credits, the choice of the agent's operator decides.
   */
  checkWithoutWait(apiKey, cost = 1, options = undefined) {
    return this.#decide(DECIDE, apiKey, cost, options)
  }

  /** Returns the verdict that `check` would return, and charges nothing. */
  peek(apiKey, cost = 1, options = undefined) {
    return this.#decide(PEEK, apiKey, cost, options)
  }

  #decide(mode, apiKey, cost, options) {
    A.checkApiKey(apiKey)
    A.checkCost(cost)
    A.options(options, REQUEST_OPTIONS)
    const now = A.moment(options?.now)
    const hasRequest =
      options !== undefined &&
      ['groups', 'costs', 'need'].some((name) => options[name] !== undefined)
    if (!hasRequest) {
      return this.#verdict(
        calling(() => native.gateCheck(this.#gate, mode, apiKey, cost, now, F.written)),
      )
    }
    const request = requestOf(options)
    return this.#verdict(
      calling(() => native.gateRequest(this.#gate, mode, apiKey, cost, request, now, F.written)),
    )
  }

  /** Returns a key and a request as a part of `checkAll`. */
  part(apiKey, cost = 1, options = undefined) {
    A.checkApiKey(apiKey)
    A.checkCost(cost)
    A.options(options, ['groups', 'costs', 'need'])
    const request = requestOf(options)
    return new Part(
      calling(() => native.gatePart(this.#gate, apiKey, cost, request)),
      cost,
      this.#gate,
      this.#creditWaitS,
    )
  }

  #verdict(answer) {
    return verdictOf(answer, this.#gate)
  }

  /**
   * Takes a charge back, in the windows of all its tallies that still count it. Refund a charge at
   * most once. Returns the verdict on its first tally.
   */
  refund(keyId, charge, options = undefined) {
    const [id, bytes] = [keyIdOf(keyId), chargeBytes(charge, 'charge')]
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    return this.#verdict(calling(() => native.gateRefund(this.#gate, id, bytes, now, F.written)))
  }

  /**
   * Replaces an estimated charge by the actual cost. Settle a charge at most once.
   *
   * @param {number | null | undefined} actual The actual cost in units; by default, the estimate.
   */
  settle(keyId, estimate, actual = undefined, options = undefined) {
    const [id, bytes] = [keyIdOf(keyId), chargeBytes(estimate, 'estimate')]
    if (actual !== undefined && actual !== null) A.wholeNumber(actual, 'actual')
    A.options(options, ['costs', 'overdraw', 'now'])
    const costs = A.costs(options?.costs)
    const [now, overdraw] = [A.moment(options?.now), Boolean(options?.overdraw)]
    const settled = calling(() =>
      native.gateSettle(
        this.#gate,
        id,
        bytes,
        actual ?? undefined,
        costs,
        overdraw,
        now,
        F.written,
      ),
    )
    return verdictOf(settled.written, this.#gate, settled.uncharged)
  }

  /** Sets all counts of the key to 0. Those that it shares with its account are kept. */
  reset(keyId, options = undefined) {
    const id = keyIdOf(keyId)
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    return this.#verdict(calling(() => native.gateReset(this.#gate, id, now, F.written)))
  }

  /** Issues a key. The result has the only copy of its secret. */
  issue(account, options = undefined) {
    A.options(options, KEY_OPTIONS)
    const [now, wait] = [A.moment(options?.now), A.wait(options)]
    const given = keyOptions(account, options, now)
    return new Key(calling(() => native.gateIssue(this.#gate, given, now, wait)))
  }

  /**
   * Imports keys that another system issued, in any form, and returns their key ids.
   *
   * @param {Iterable<string | Uint8Array>} keys 16 to 256 bytes of printable ASCII each.
   */
  importKeys(keys, account, options = undefined) {
    if (typeof keys === 'string' || typeof keys?.[Symbol.iterator] !== 'function') {
      throw A.wrongType('keys', 'a list of keys', keys)
    }
    A.options(options, KEY_OPTIONS)
    const [now, wait] = [A.moment(options?.now), A.wait(options)]
    const given = keyOptions(account, options, now)
    const bytes = [...keys].map((key) => {
      if (typeof key === 'string') return Buffer.from(key)
      if (key instanceof Uint8Array) return key
      throw A.wrongType('a key to import', 'a string or a Uint8Array', key)
    })
    return calling(() => native.gateImport(this.#gate, bytes, given, now, wait))
  }

  /**
   * Gives a key a new secret, and returns the key with it.
   *
   * @param {{ grace: number, force?: boolean }} options `grace` is how long the old secret stays
   *   valid, in seconds. With `force`, the secret before the last rotation becomes invalid at once.
   */
  rotate(keyId, options) {
    const id = keyIdOf(keyId)
    A.options(options, ['grace', 'force', 'now', 'wait'])
    if (options?.grace === undefined) {
      throw new TypeError('grace is missing: how long the old secret stays valid, in seconds')
    }
    const [grace, now, wait] = [
      A.span(options.grace, 'grace'),
      A.moment(options.now),
      A.wait(options),
    ]
    const force = Boolean(options.force)
    return new Key(calling(() => native.gateRotate(this.#gate, id, grace, force, now, wait)))
  }

  /** Revokes a key permanently. The next check in any process rejects it. */
  revoke(keyId, options = undefined) {
    const id = keyIdOf(keyId)
    this.#change(options, (wait) => native.gateRevoke(this.#gate, id, wait))
  }

  #change(options, work) {
    A.options(options, ['wait'])
    const wait = A.wait(options)
    calling(() => work(wait))
  }

  /**
   * Sets when a key expires.
   *
   * @param {Date | number | null} expires A `Date`, or seconds from now; `null` for never.
   */
  expire(keyId, expires, options = undefined) {
    const id = keyIdOf(keyId)
    A.options(options, ['now', 'wait'])
    const unixS = A.expiry(expires, A.moment(options?.now))
    const wait = A.wait(options)
    calling(() => native.gateExpire(this.#gate, id, unixS, wait))
  }

  /** Ends the previous secret of a key at once, without waiting for the end of its grace. */
  endGrace(keyId, options = undefined) {
    const id = keyIdOf(keyId)
    this.#change(options, (wait) => native.gateEndGrace(this.#gate, id, wait))
  }

  /** Assigns a key to another plan. The key keeps its counts. */
  assign(keyId, plan, options = undefined) {
    const [id, name] = [keyIdOf(keyId), A.text(plan, 'plan')]
    this.#change(options, (wait) => native.gateAssign(this.#gate, id, name, wait))
  }

  /** Replaces the scopes of a key. The next check in any process uses them. */
  setScopes(keyId, scopes, options = undefined) {
    const [id, names] = [keyIdOf(keyId), A.names(scopes, 'scopes')]
    this.#change(options, (wait) => native.gateSetScopes(this.#gate, id, names, wait))
  }

  /** Returns the properties of an account; `null` if the gate does not have it. */
  account(account, options = undefined) {
    A.account(account)
    A.options(options, ['now'])
    const facts = native.gateAccount(this.#gate, account, A.moment(options?.now))
    return facts === null || facts === undefined ? null : accountOf(facts)
  }

  /** Returns the properties of all accounts, in no particular order. */
  accounts(options = undefined) {
    A.options(options, ['now'])
    return native.gateAccounts(this.#gate, A.moment(options?.now)).map(accountOf)
  }

  /** Refuses all keys of an account from the next check on, with the reason `'suspended'`. */
  suspend(account, options = undefined) {
    A.account(account)
    this.#change(options, (wait) => native.gateSetSuspended(this.#gate, account, true, wait))
  }

  /** Accepts the keys of an account again that `suspend` refused. */
  resume(account, options = undefined) {
    A.account(account)
    this.#change(options, (wait) => native.gateSetSuspended(this.#gate, account, false, wait))
  }

  /** Lets the team limits of another plan hold for an account, and ends limits of its own. */
  assignAccount(account, plan, options = undefined) {
    A.account(account)
    const name = A.text(plan, 'plan')
    this.#change(options, (wait) => native.gateAssignAccount(this.#gate, account, name, wait))
  }

  /** Gives an account limits of its own instead of those of its plan. */
  limitAccount(account, limits, options = undefined) {
    A.account(account)
    const text = sectionsText(limits, 'limits')
    this.#change(options, (wait) => native.gateLimitAccount(this.#gate, account, text, wait))
  }

  /** Sets the counts that all keys of an account share to 0. */
  resetAccount(account, options = undefined) {
    A.account(account)
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    calling(() => native.gateResetAccount(this.#gate, account, now))
  }

  /** Adds a plan, or changes the limits of a plan. Keys keep their counts. */
  setPlan(name, sections, options = undefined) {
    const [plan, text] = [A.text(name, 'name'), sectionsText(sections, 'sections')]
    this.#change(options, (wait) => native.gateSetPlan(this.#gate, plan, text, wait))
  }

  /** Returns the public details of all keys, revoked keys included, ordered by key id. */
  list(options = undefined) {
    A.options(options, ['now'])
    return native.gateList(this.#gate, A.moment(options?.now)).map(infoOf)
  }

  /** Returns the public details of a key; `null` if the gate does not have the key. */
  key(keyId, options = undefined) {
    const id = keyIdOf(keyId)
    A.options(options, ['now'])
    const now = A.moment(options?.now)
    const facts = calling(() => native.gateKey(this.#gate, id, now))
    return facts === null || facts === undefined ? null : infoOf(facts)
  }

  /** Begins to count how each key is used, in every process that has the gate open, or ends it. */
  setUsage(isCounted, options = undefined) {
    if (typeof isCounted !== 'boolean') throw A.wrongType('isCounted', 'true or false', isCounted)
    this.#change(options, (wait) => native.gateSetUsage(this.#gate, isCounted, wait))
  }

  /**
   * Puts the gate in a fleet, in which machines share its limits, or takes it out of it, in every
   * process that has it open. Those that opened it without `fleet` then refuse every request.
   */
  setFleet(isInFleet, options = undefined) {
    if (typeof isInFleet !== 'boolean') throw A.wrongType('isInFleet', 'true or false', isInFleet)
    this.#change(options, (wait) => native.gateSetFleet(this.#gate, isInFleet, wait))
  }

  /** Whether requests need credits of a fleet, in every process that has the gate open. */
  get isInFleet() {
    return native.gateIsInFleet(this.#gate)
  }

  /** The path of the fleet file, as `open` was given it; `null` without one. */
  get fleet() {
    return this.#fleet
  }

  /** How long a request waits for credits of a fleet at most, in seconds. */
  get creditWaitS() {
    return this.#creditWaitS
  }

  /** Returns how a key was used; `null` if uses are not counted or the gate has no such key. */
  keyUsage(keyId) {
    const id = keyIdOf(keyId)
    const usage = calling(() => native.gateKeyUsage(this.#gate, id))
    if (usage === null || usage === undefined) return null
    return Object.freeze({ ...usage, lastUsed: usage.lastUsed ?? null })
  }

  /** Reads the whole gate and reports its flaws. */
  verify(options = undefined) {
    A.options(options, ['now', 'wait'])
    const [now, wait] = [A.moment(options?.now), A.wait(options)]
    const { completed, flaws } = calling(() => native.gateVerify(this.#gate, now, wait))
    return { completed, flaws: flaws.map((flaw) => ({ ...flaw, keyId: flaw.keyId ?? null })) }
  }

  /** Opens the gate's file again, whether it was replaced or not. */
  reopen() {
    calling(() => native.gateReopen(this.#gate))
  }

  /** Corrects every tally that is more than 60 s ahead of the clock, and returns their number. */
  correctClock(options = undefined) {
    A.options(options, ['now'])
    return native.gateCorrectClock(this.#gate, A.moment(options?.now))
  }

  get #facts() {
    return native.gateFacts(this.#gate)
  }

  /** How many times the file at the path was opened again. */
  get reopened() {
    return this.#facts.reopened
  }

  /** Why the file at the path is not in use; `null` if it is in use. */
  get reopenProblem() {
    return this.#facts.reopenProblem ?? null
  }

  /** The path that the gate was opened or created with; `null` if it is in memory. */
  get path() {
    return this.#facts.path ?? null
  }

  /** The plans by name, each `Sections`. Keys that are issued without a plan have the first. */
  get plans() {
    return Object.fromEntries(
      this.#facts.plans.map(({ name, sections }) => [name, new Sections(sections)]),
    )
  }

  /** The first part of every key. */
  get prefix() {
    return this.#facts.prefix
  }

  /** The capacity in keys. */
  get capacity() {
    return this.#facts.capacity
  }

  /** The capacity in accounts; 0 if the gate has no teams. */
  get teamCapacity() {
    return this.#facts.teamCapacity
  }

  /** The window that the gate names for `X-RateLimit-*`; `null` if it names none. */
  get described() {
    return this.#facts.described ?? null
  }

  /** The names of the sections that all plans share. */
  get sections() {
    return this.#facts.sections
  }

  /** The names of the scopes that keys may have. */
  get scopes() {
    return this.#facts.scopes
  }

  [inspect.custom]() {
    return `<Gate in ${this.path ?? 'memory'}>`
  }
}

module.exports = { Gate }
