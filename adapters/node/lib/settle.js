'use strict'

// Charges by outcome: a charge is refunded, settled or made after the response.

const { MAX_U32, kind, shown } = require('./arguments')

// The section whose cost is that of the request itself. No group can have this name.
const OWN = 'key'

/** What a rule does after the response of an admitted request. */
class Settlement {
  constructor(settle, refund, chargeOn) {
    this.settle = settle
    this.refund = refund
    this.chargeOn = chargeOn
  }

  /** Returns the settlement of the options of a rule; undefined if there are none. */
  static of({ settle, refund = [], chargeOn }) {
    if (settle !== undefined && typeof settle !== 'function') {
      throw new TypeError(
        `settle must be a function that returns the actual cost, not ${kind(settle)}`,
      )
    }
    const refunded = statuses('refund', refund)
    const isSettled = settle !== undefined || refunded.size > 0
    if (chargeOn === undefined || chargeOn === null) {
      return isSettled ? new Settlement(settle, refunded, undefined) : undefined
    }
    if (isSettled) {
      throw new TypeError(
        'chargeOn charges after the response, so there is no charge to settle or refund: pass ' +
          'only one of chargeOn, settle and refund',
      )
    }
    const charged = statuses('chargeOn', chargeOn)
    if (charged.size === 0) {
      throw new RangeError('chargeOn is empty: list the statuses that count, such as 401')
    }
    return new Settlement(undefined, refunded, charged)
  }

  /** Settles the charge of a decision. An error is only reported. */
  async finish(decision, request, sent, unsentStatus) {
    try {
      // A failure in the middle of a response is a failure of the server too.
      const status = sent.exception === null ? sent.status : 500
      if (this.chargeOn !== undefined) {
        // A client that leaves early must not avoid the charge.
        if (this.chargeOn.has(unsentStatus ?? status)) await decision.chargeLater()
        return
      }
      if (this.refund.has(status)) decision.refund()
      if (!decision.isRefunded && this.settle !== undefined) {
        decision.settle(...actual(await this.settle(request, sent)))
      }
    } catch (error) {
      report('settle threw an error; the charge of the request stays', error)
    }
  }
}

/** Reports an error of a function of the application, which does not affect the response. */
function report(message, error) {
  process.emitWarning(message, { type: 'KeytallyWarning', detail: error?.stack ?? String(error) })
}

/** Returns the actual cost of the request, if it is known, and those of groups. */
function actual(found) {
  const costs = new Map(
    found !== null && typeof found === 'object'
      ? found instanceof Map
        ? found
        : Object.entries(found)
      : [[OWN, found]],
  )
  for (const cost of costs.values()) {
    if (!Number.isInteger(cost) || cost < 0 || cost > MAX_U32) {
      throw new RangeError(
        `settle must return a whole number from 0 to ${MAX_U32}, or an object from the names of ` +
          'groups to such numbers',
      )
    }
  }
  const own = costs.get(OWN)
  costs.delete(OWN)
  return [own, costs]
}

/** Returns the statuses that an option lists: numbers, and classes such as `'5xx'`. */
function statuses(name, given) {
  const values = typeof given === 'string' || typeof given === 'number' ? [given] : given
  if (typeof values?.[Symbol.iterator] !== 'function') {
    throw new TypeError(
      `${name} must be a status such as 503, a class such as '5xx', or a list of them, ` +
        `not ${kind(given)}`,
    )
  }
  const found = new Set()
  for (const value of values) {
    if (typeof value === 'string' && /^[1-5]xx$/.test(value)) {
      const first = 100 * Number(value[0])
      for (let status = first; status < first + 100; status++) found.add(status)
    } else if (Number.isInteger(value) && value >= 100 && value <= 599) {
      found.add(value)
    } else {
      throw new RangeError(
        `${shown(value)} in ${name} is not a status from 100 to 599, nor a class of them such as '5xx'`,
      )
    }
  }
  return found
}

module.exports = { Settlement, report }
