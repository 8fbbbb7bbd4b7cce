'use strict'

// The charges of one request: each table is charged at most once, and either all or none.
//
// A request has one record. All integrations that check the request share it.

const fs = require('node:fs')

const { MAX_U32, names } = require('./arguments')
const { classes } = require('./errors')
const { Gate } = require('./gate')
const { Refusal, SHADOW_HEADER, WRONG_COST } = require('./refusal')

// The outcomes at which the charges of other tables are refunded: a limit refuses the request, the
// key is valid and lacks a scope, or its counts are moving to another file.
const REFUNDING = new Set(['denied', 'too_costly', 'full', 'forbidden', 'unavailable'])

/** The costs of a request, and the scopes that its key needs. */
class Costs {
  constructor(own, groups = new Set(), ofGroups = new Map(), need = new Set()) {
    this.own = own
    this.groups = groups
    this.ofGroups = ofGroups
    this.need = need
    // Whether only the key and its team are charged.
    this.isPlain = groups.size === 0 && ofGroups.size === 0 && need.size === 0
  }

  /** Returns the costs of the options of an integration. */
  static of({ cost, group, costs, need }) {
    const ofGroups = costs instanceof Map ? costs : new Map(Object.entries(costs ?? {}))
    return new Costs(cost, new Set(names(group, 'group')), ofGroups, new Set(names(need, 'need')))
  }

  /** Whether a table accepts the costs. */
  get isInRange() {
    return inRange(this.own) && (this.isPlain || [...this.ofGroups.values()].every(inRange))
  }

  /** Whether there is no unit to charge. */
  get isNothing() {
    return this.own === 0 && [...this.ofGroups.values()].every((cost) => cost === 0)
  }

  /** Returns costs of 0 units, with the same scopes. */
  withoutUnits() {
    return new Costs(0, undefined, undefined, this.need)
  }

  /** Returns the costs of a request that two integrations check: the higher of each. */
  merged(other) {
    const named = new Set([...this.ofGroups.keys(), ...other.ofGroups.keys()])
    const ofGroups = new Map(
      [...named].map((name) => [name, Math.max(this.#ofGroup(name), other.#ofGroup(name))]),
    )
    const groups = [...this.groups, ...other.groups].filter((name) => !ofGroups.has(name))
    const need = new Set([...this.need, ...other.need])
    return new Costs(Math.max(this.own, other.own), new Set(groups), ofGroups, need)
  }

  #ofGroup(name) {
    return this.ofGroups.get(name) ?? (this.groups.has(name) ? this.own : 0)
  }

  equals(other) {
    const isSame = (one, two) => one.size === two.size && [...one].every((name) => two.has(name))
    return (
      this.own === other.own &&
      isSame(this.groups, other.groups) &&
      isSame(this.need, other.need) &&
      this.ofGroups.size === other.ofGroups.size &&
      [...this.ofGroups].every(([name, cost]) => other.ofGroups.get(name) === cost)
    )
  }

  #options() {
    return { groups: [...this.groups], costs: this.ofGroups, need: [...this.need] }
  }

  /**
   * Charges the key with these costs. Returns the verdict, or a thenable of it if the gate is in a
   * fleet, where a check can wait.
   */
  check(gate, key) {
    const options = this.isPlain ? undefined : this.#options()
    return gate.isInFleet ? gate.acheck(key, this.own, options) : gate.check(key, this.own, options)
  }

  /** Returns the counts of the tallies of these costs. */
  peek(gate, key) {
    return gate.peek(key, 0, { groups: [...this.groups, ...this.ofGroups.keys()] })
  }

  /** Throws an error if the gate lacks a group or a scope. */
  checkIn(gate) {
    gate.part(null, this.own, this.#options())
  }
}

/**
 * Charges a subject. Returns the verdict, or a thenable of it if the limiter is in a fleet, where a
 * check can wait.
 */
function checkSubject(limiter, subject, cost = 1) {
  return limiter.isInFleet ? limiter.acheck(subject, cost) : limiter.check(subject, cost)
}

function inRange(cost) {
  return Number.isInteger(cost) && cost >= 0 && cost <= MAX_U32
}

const NOTHING = new Costs(0)

/** The decision of one table on a request. */
class Decision {
  constructor(table, subject) {
    this.table = table
    // What the table checked: a limiter's subject, or the keys that the request presents.
    this.subject = subject
    this.isGate = table instanceof Gate
    // Whether the response lists the quotas of the table.
    this.listed = false
    // The response to the request, if this table refuses it.
    this.refusal = undefined
    // Charges the request after its response, if the check was only a peek.
    this.chargeLater = () => {}
    // The functions that were called with a verdict, each with that verdict.
    this.notified = []
  }

  /** Sets the verdict and the costs of the check that returned it. */
  set(verdict, costs) {
    this.costs = costs
    this.verdict = verdict
    this.isRefunded = false
    // The verdict whose charge a refund takes back.
    this.charged = verdict
    // The verdict that the header fields report: this one, or that of a later refund.
    this.reported = verdict
  }

  /** Refunds the charge, if there is one. */
  refund() {
    const { charge } = this.charged
    this.isRefunded = true
    if (charge === null || this.costs.isNothing) return
    ignoringMissingKeys(() => {
      this.reported = this.isGate ? this.#refunded(charge) : this.table.refund(this.subject, charge)
    })
    this.costs = NOTHING
  }

  #refunded(charge) {
    const refunded = this.table.refund(this.charged.keyId, charge)
    if (this.charged.tallies.length === 1) return refunded
    // That is the verdict on the first tally, and the header fields list all.
    const peeked = this.costs.peek(this.table, this.subject[0])
    return peeked.admitted ? peeked : refunded
  }

  /** Replaces the charge by the actual costs, if there is a charge. */
  settle(actual, costs) {
    const { charge } = this.charged
    if (charge === null) return
    ignoringMissingKeys(() => {
      if (this.isGate) this.table.settle(this.charged.keyId, charge, actual, { costs })
      else if (actual !== undefined) this.table.settle(this.subject, charge, actual)
    })
  }
}

/** Calls a function. If the gate no longer has the key, there is no count to refund or settle. */
function ignoringMissingKeys(work) {
  try {
    work()
  } catch (error) {
    if (!(error instanceof classes.KeytallyError)) throw error
  }
}

/** The decisions on one request. */
class Record {
  #decisions = []
  #claimed = false
  #pending = []
  #isNamed = false

  constructor() {
    // Whether an integration settles the charges after the response.
    this.isWatched = false
    // The outcome that shadow mode did not enforce.
    this.shadow = undefined
  }

  /**
   * Charges a table by `check`, unless this request was charged for the subject already.
   *
   * If it was already, and a cost is higher now or a group or scope is new, the costs of both
   * replace the earlier ones. Returns the decision, or a thenable of it if `check` returns one.
   */
  charge(table, subject, costs, check) {
    const found = this.#decisions.find(
      (each) => isSameSubject(each.subject, subject) && isSameTable(each.table, table),
    )
    if (found === undefined) {
      const decision = new Decision(table, subject)
      return then(check(costs), (verdict) => {
        decision.set(verdict, costs)
        this.#decisions.push(decision)
        return decision
      })
    }
    const before = found.costs
    const merged = before.merged(costs)
    if (!merged.equals(before) && found.verdict.admitted) {
      found.refund()
      return then(check(merged), (verdict) => {
        found.set(verdict, merged)
        if (verdict.admitted) return found
        // In shadow mode the request proceeds, so the earlier charge is due again.
        return then(check(before), (charged) => {
          found.charged = charged
          return found
        })
      })
    }
    return found
  }

  /** Refuses the request. If a limit or a missing scope refuses it, refunds all charges. */
  refuse(decision, refusal) {
    decision.refusal = refusal
    decision.listed = true
    if (refusal.outcome === WRONG_COST || REFUNDING.has(decision.verdict.outcome)) {
      for (const other of this.#decisions) other.refund()
    }
  }

  /** Returns whether the caller must set the header fields, which only the first caller must. */
  claimHeaders() {
    const isFirst = !this.#claimed
    this.#claimed = true
    return isFirst
  }

  /** Returns whether the caller must settle the charges, which only the first caller must. */
  claimWatch() {
    const isFirst = !this.isWatched
    this.isWatched = true
    return isFirst
  }

  /** Settles a charge after the response. The first integration of the charge decides how. */
  settleLater(decision, settlement, request) {
    if (!this.#pending.some((pending) => pending.decision === decision)) {
      this.#pending.push({ decision, settlement, request })
    }
  }

  /** Returns the charges to settle, each once, that `select` selects. */
  takePending(select = () => true) {
    const taken = this.#pending.filter(select)
    this.#pending = this.#pending.filter((pending) => !taken.includes(pending))
    return taken
  }

  /** Stores the verdict on a request. A limiter's verdict does not replace another verdict. */
  store(request, decision) {
    if (decision.isGate || !this.#isNamed) {
      request.verdict = decision.verdict
      this.#isNamed = true
    }
  }

  /**
   * Returns the header fields of the response, without those of a refusal.
   *
   * X-RateLimit-* describe the gate. Without a gate, they describe the first limiter. The other
   * fields list the quotas of all tables.
   */
  fields() {
    const listed = this.#decisions.filter((decision) => decision.listed)
    const chosen = listed.findLast((decision) => decision.isGate) ?? listed[0]
    const fields = []
    if (chosen !== undefined) {
      const own = chosen.reported.headers
      fields.push(...own.filter(([name]) => name.startsWith('X-')))
      const others = listed.filter((decision) => decision !== chosen)
      const all = [own, ...others.map((decision) => decision.reported.headers)]
      for (const name of ['RateLimit-Policy', 'RateLimit']) {
        const values = all.flat().filter(([found]) => found === name)
        if (values.length > 0) fields.push([name, joined(values.map(([, value]) => value))])
      }
    }
    if (this.shadow !== undefined) fields.push([SHADOW_HEADER, this.shadow])
    return fields
  }
}

/** The number of a repeated name, as in `"minute-2"`. */
const NUMBER_OF_NAME = /-[0-9]+"$/

/** Joins lists of quotas. A list has each name once, so a repeated one gets a number. */
function joined(values) {
  if (values.length === 1) return values[0]
  const counts = new Map()
  const items = values.flatMap((value) => value.split(', '))
  return items
    .map((item) => {
      const end = item.indexOf(';')
      const name = item.slice(0, end).replace(NUMBER_OF_NAME, '"')
      const count = (counts.get(name) ?? 0) + 1
      counts.set(name, count)
      const shown = count === 1 ? name : `${name.slice(0, -1)}-${count}"`
      return shown + item.slice(end)
    })
    .join(', ')
}

function isThenable(value) {
  return typeof value?.then === 'function'
}

/** Calls a function with a value, or with that of a thenable. */
function then(value, work) {
  return isThenable(value) ? value.then(work) : work(value)
}

function isSameSubject(one, other) {
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((key, index) => key === other[index])
  }
  return one === other
}

// The path of each table's file without symbolic links; null if there is no file.
const paths = new WeakMap()

/**
 * Returns the path of a table's file without symbolic links. Integrations call this at
 * construction, because a relative path depends on the working directory.
 */
function realPath(table) {
  let found = paths.get(table)
  if (found === undefined) {
    const { path } = table
    try {
      found = path === null ? null : fs.realpathSync(path)
    } catch {
      found = path
    }
    paths.set(table, found)
  }
  return found
}

/** Returns whether the tables are one object, or are in one file. */
function isSameTable(one, other) {
  if (one === other) return true
  const path = realPath(one)
  return path !== null && path === realPath(other)
}

const RECORD = Symbol.for('keytally.record')

/** Returns the record of a request of `node:http`, and creates it if there is none. */
function recordOf(request) {
  request[RECORD] ??= new Record()
  return request[RECORD]
}

module.exports = { Costs, Record, checkSubject, isThenable, realPath, recordOf, then }
