'use strict'

// The rules that all integrations apply to a request: check a table, and act on the verdict.

const { checkCost, kind, options: checkOptions } = require('./arguments')
const { Costs, checkSubject, isThenable, realPath, recordOf, then } = require('./charges')
const { exemption, exemptMethods } = require('./exempt')
const { Gate } = require('./gate')
const { Guesses, clientAddress, prefixFor } = require('./guesses')
const { KeySources, valuesOf } = require('./keys')
const { Limiter } = require('./limiter')
const { Refusal, WRONG_COST, checkedResult, responseTo } = require('./refusal')
const { settleAfter, withFields } = require('./response')
const { Settlement, report } = require('./settle')
const { Verdict } = require('./verdict')

const COMMON = [
  'cost', 'exempt', 'exemptMethods', 'headers', 'ipv6Prefix', 'onVerdict', 'refund', 'refusal',
  'settle', 'shadow',
] // prettier-ignore
const OF_GATE = [
  ...COMMON, 'costs', 'failures', 'group', 'keyFrom', 'need', 'trustedProxies', 'withoutKey',
] // prettier-ignore
const OF_LIMITER = [...COMMON, 'chargeOn', 'key']

function checkFunction(name, value) {
  if (value !== undefined && typeof value !== 'function') {
    throw new TypeError(`${name} must be a function, not ${kind(value)}`)
  }
  return value
}

function checkFlag(name, value, usual) {
  if (value === undefined) return usual
  if (typeof value !== 'boolean')
    throw new TypeError(`${name} must be true or false, not ${kind(value)}`)
  return value
}

/**
 * A check that an integration applies to requests: the base of `GateRule` and `LimiterRule`.
 *
 * The framework is described by `web`: `raw(request)` and `rawResponse(response)` return the
 * request and the response of `node:http`, `path(request)` the path as its routes match it, and
 * `peer(request)` the address of the client as the framework reports it.
 */
class Rule {
  #functions
  #costs
  #given
  #shadow
  #headers
  #onVerdict
  #refusal
  #settlement
  #isExempt
  #exemptMethods

  constructor(web, options, costs) {
    this.web = web
    if (typeof costs.cost !== 'function') checkCost(costs.cost)
    this.#given = costs
    this.#functions = Object.entries(costs).filter(([, option]) => typeof option === 'function')
    // The costs of every request; undefined if a function returns some of them.
    this.#costs = this.#functions.length === 0 ? Costs.of(costs) : undefined
    this.#shadow = checkFlag('shadow', options.shadow, false)
    this.#headers = checkFlag('headers', options.headers, true)
    this.#onVerdict = checkFunction('onVerdict', options.onVerdict)
    this.#refusal = checkFunction('refusal', options.refusal)
    this.#settlement = Settlement.of(options)
    this.#isExempt = exemption(options.exempt)
    this.#exemptMethods = exemptMethods(options.exemptMethods)
  }

  /**
   * Checks a request. Returns the response to it if it is refused, else undefined, or a thenable of
   * either if a function of the application returns one, or if a table is in a fleet.
   */
  handle(request, response) {
    const raw = this.web.raw(request)
    if (this.#exemptMethods.has(raw.method) || this.#isExempt(this.web.path(request)))
      return undefined
    const record = recordOf(raw)
    const rawResponse = this.web.rawResponse(response)
    if (this.#settlement !== undefined && record.claimWatch()) {
      settleAfter(raw, rawResponse, record)
    }
    const costs = this.#costs ?? this.#costsOf(request)
    return then(costs, (found) => {
      return then(this.subject(request), (subject) => {
        return then(this.#decide(record, request, subject, found), (decision) => {
          if (decision === undefined) return undefined
          return then(this.#notify(decision, request), () => {
            if (decision.refusal !== undefined) return this.#respond(record, decision, request)
            if (this.#headers && record.claimHeaders()) withFields(rawResponse, record)
            return undefined
          })
        })
      })
    })
  }

  #costsOf(request) {
    const found = this.#functions.map(([, call]) => call(request))
    const costs = (values) => {
      const entries = this.#functions.map(([name], index) => [name, values[index]])
      return Costs.of({ ...this.#given, ...Object.fromEntries(entries) })
    }
    return found.some(isThenable) ? Promise.all(found).then(costs) : costs(found)
  }

  // Charges the table, stores the verdict, and refuses the request unless it is admitted. Returns
  // the decision, or a thenable of it.
  #decide(record, request, subject, costs) {
    const { isInRange } = costs
    const charged = isInRange ? costs : costs.withoutUnits()
    return then(this.charge(record, request, subject, charged), (decision) =>
      this.#decided(record, request, decision, isInRange),
    )
  }

  #decided(record, request, decision, isInRange) {
    if (decision === undefined) return undefined
    decision.listed ||= this.#headers
    record.store(request, decision)
    const { verdict } = decision
    if (verdict.admitted && isInRange) {
      if (this.#settlement !== undefined) record.settleLater(decision, this.#settlement, request)
    } else if (this.#shadow) {
      record.shadow ??= verdict.admitted ? WRONG_COST : verdict.outcome
    } else if (verdict.admitted) {
      const refusal = Refusal.of(verdict).withText(400, 'Cost out of range')
      record.refuse(decision, refusal.withOutcome(WRONG_COST))
    } else {
      return then(this.refusalBy(verdict, request), (refusal) => {
        record.refuse(decision, refusal)
        return decision
      })
    }
    return decision
  }

  // Calls `onVerdict` once for each verdict, but not on a wrong cost.
  #notify(decision, request) {
    const { verdict } = decision
    const call = this.#onVerdict
    const isNotified = decision.notified.some(([one, other]) => one === call && other === verdict)
    if (call === undefined || isNotified || decision.refusal?.outcome === WRONG_COST)
      return undefined
    decision.notified.push([call, verdict])
    const failed = (error) => {
      report('onVerdict threw an error; the response to the request is not affected', error)
    }
    try {
      const result = call(verdict, request)
      return isThenable(result) ? result.then(undefined, failed) : undefined
    } catch (error) {
      return failed(error)
    }
  }

  #respond(record, decision, request) {
    const accept = valuesOf(this.web.raw(request), 'accept').join(',')
    const respond = (refusal) => responseTo(refusal, record.fields(), accept)
    if (this.#refusal === undefined) return respond(decision.refusal)
    return then(this.#refusal(decision.refusal, request), (result) =>
      respond(checkedResult(result)),
    )
  }

  /** Returns the subject that a limiter counts, or a thenable of it; undefined for a gate. */
  subject() {
    return undefined
  }

  /** Returns the documented response to a request that the verdict refuses, or a thenable of it. */
  refusalBy(verdict) {
    return Refusal.of(verdict)
  }
}

/** Requires a valid key with quota left. */
class GateRule extends Rule {
  #gate
  #guesses
  #keys
  #withoutKey

  constructor(web, gate, options = {}) {
    checkOptions(options, OF_GATE)
    if (!(gate instanceof Gate)) throw new TypeError(`gate must be a Gate, not ${kind(gate)}`)
    const { cost = 1, group, costs, need } = options
    super(web, options, { cost, group, costs, need })
    const fixed = Object.entries({ group, costs, need }).filter(
      ([, it]) => typeof it !== 'function',
    )
    // Throws an error if the gate does not have a group or a scope.
    Costs.of({ ...Object.fromEntries(fixed), cost: 0 }).checkIn(gate)
    this.#gate = gate
    this.#guesses = new Guesses(options.failures, options.trustedProxies, options.ipv6Prefix)
    this.#keys = new KeySources(options.keyFrom)
    const { withoutKey } = options
    if (withoutKey !== undefined && withoutKey !== null) {
      if (!(withoutKey instanceof Limiter)) {
        throw new TypeError(
          `withoutKey must be the Limiter of requests without a key, not ${kind(withoutKey)}`,
        )
      }
      this.#guesses.checkPrefixFor(withoutKey)
      realPath(withoutKey)
      this.#withoutKey = withoutKey
    }
    realPath(gate)
  }

  charge(record, request, _, costs) {
    const keys = this.#keys.presented(this.web.raw(request))
    // Without a key, a request has no scope.
    if (this.#withoutKey !== undefined && keys.length === 0 && costs.need.size === 0) {
      const client = this.#guesses.subject(this.web.peer(request), this.#forwardedFor(request))
      // A client whose address is unknown needs a key.
      if (client !== undefined && client !== null) {
        const limiter = this.#withoutKey
        return record.charge(limiter, client, new Costs(costs.own), ({ own }) =>
          checkSubject(limiter, client, own),
        )
      }
    }
    return record.charge(this.#gate, keys, costs, (all) =>
      keys.length > 1 ? Verdict.duplicateHeader() : all.check(this.#gate, keys[0]),
    )
  }

  refusalBy(verdict, request) {
    const [peer, forwardedFor] = [this.web.peer(request), this.#forwardedFor(request)]
    return then(this.#guesses.refusal(verdict, peer, forwardedFor), (refusal) =>
      this.#keys.refusal(refusal),
    )
  }

  #forwardedFor(request) {
    return valuesOf(this.web.raw(request), 'x-forwarded-for').join(',')
  }
}

/** Requires quota left for the request's subject. */
class LimiterRule extends Rule {
  #limiter
  #key
  #peeks

  constructor(web, limiter, options = {}) {
    checkOptions(options, OF_LIMITER)
    if (!(limiter instanceof Limiter)) {
      throw new TypeError(`limiter must be a Limiter, not ${kind(limiter)}`)
    }
    super(web, options, { cost: options.cost ?? 1 })
    const prefix = prefixFor(limiter, options.ipv6Prefix)
    this.#key =
      checkFunction('key', options.key) ?? ((request) => clientAddress(web.peer(request), prefix))
    this.#peeks = options.chargeOn !== undefined && options.chargeOn !== null
    this.#limiter = limiter
    realPath(limiter)
  }

  subject(request) {
    return this.#key(request)
  }

  charge(record, _, subject, costs) {
    if (subject === null || subject === undefined) return undefined
    const limiter = this.#limiter
    if (!this.#peeks) {
      return record.charge(limiter, subject, costs, ({ own }) =>
        checkSubject(limiter, subject, own),
      )
    }
    // Another integration that charges the subject before the response has its own decision.
    const decision = record.charge(limiter, [subject], costs, ({ own }) =>
      limiter.peek(subject, own),
    )
    decision.chargeLater = () => checkSubject(limiter, subject, decision.costs.own)
    return decision
  }
}

module.exports = { GateRule, LimiterRule, isThenable }
