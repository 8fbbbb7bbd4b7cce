'use strict'

const { inspect } = require('node:util')

const native = require('./native')
const { text, wrongType } = require('./arguments')
const { calling } = require('./errors')

/** A limit of units per window: `limit`, and `window` in seconds. */
class Quota {
  #text

  constructor({ limit, window, text }) {
    this.limit = limit
    this.window = window
    this.#text = text
    Object.freeze(this)
  }

  toString() {
    return this.#text
  }
}

function quotas(found) {
  return found.map((quota) => new Quota(quota))
}

function pairs(found) {
  return found.map(({ quota, binding }) => [new Quota(quota), new Quota(binding)])
}

/**
 * A policy: one to four limits, each for windows of one length.
 *
 * @example
 * const { Policy } = require('keytally')
 * String(new Policy('1000/hour, 100/m')) // '100/minute, 1000/hour'
 */
class Policy {
  #text

  /** @param {string | Policy} policy `[fixed|sliding] LIMIT/[N]UNIT, …` */
  constructor(policy) {
    const given = policy instanceof Policy ? String(policy) : text(policy, 'policy')
    const facts = calling(() => native.policyFacts(given))
    this.#text = facts.text
    this.algorithm = facts.algorithm
    this.quotas = Object.freeze(quotas(facts.quotas))
    this.neverBinding = Object.freeze(pairs(facts.neverBinding))
    Object.freeze(this)
  }

  toString() {
    return this.#text
  }

  [inspect.custom]() {
    return `Policy('${this.#text}')`
  }
}

/**
 * The limits of the networks that a client's address is in, of a limiter of addresses.
 *
 * `prefixes` is a list of a prefix of IPv6 and its quotas.
 *
 * @example
 * const { AddressPolicy } = require('keytally')
 * String(new AddressPolicy('addresses: 20/minute'))
 * // 'addresses: /64 20/minute; /56 160/minute; /48 1280/minute'
 */
class AddressPolicy {
  #text

  /** @param {string | AddressPolicy} policy `addresses: /PREFIX LIMIT/[N]UNIT, …; /PREFIX …` */
  constructor(policy) {
    const given = policy instanceof AddressPolicy ? String(policy) : text(policy, 'policy')
    const facts = calling(() => native.addressPolicyFacts(given))
    this.#text = facts.text
    this.algorithm = facts.algorithm
    this.prefixes = Object.freeze(
      facts.prefixes.map(({ prefix, quotas: found }) => [prefix, quotas(found)]),
    )
    Object.freeze(this)
  }

  toString() {
    return this.#text
  }

  [inspect.custom]() {
    return `AddressPolicy('${this.#text}')`
  }
}

/** A section of a plan, with its name, algorithm, quotas and warnings. */
class SectionQuotas {
  constructor(facts) {
    this.name = facts.name
    this.algorithm = facts.algorithm
    this.quotas = Object.freeze(quotas(facts.quotas))
    this.warnings = Object.freeze(facts.warnings)
    this.isUnlimited = facts.quotas.length === 0
    this.neverBinding = Object.freeze(pairs(facts.neverBinding))
    Object.freeze(this)
  }
}

/**
 * The quotas of a plan: those of each key, and further sections. Iterating yields a `SectionQuotas`
 * for each section.
 *
 * @example
 * const { Sections } = require('keytally')
 * const sections = new Sections('100/m; team: 5000/h; group write: unlimited')
 * String(sections) // '100/minute; team: 5000/hour; group write: unlimited'
 * sections.named('team').quotas[0].limit // 5000
 */
class Sections {
  #text
  #sections

  /** @param {string | Policy | Sections} sections Quotas, and sections after semicolons. */
  constructor(sections) {
    const facts = calling(() => native.sectionsFacts(sectionsText(sections, 'sections')))
    this.#text = facts.text
    this.#sections = facts.sections.map((section) => new SectionQuotas(section))
  }

  /** Returns the section with a name; `null` if there is none. */
  named(name) {
    text(name, 'name')
    return this.#sections.find((section) => section.name === name) ?? null
  }

  [Symbol.iterator]() {
    return this.#sections[Symbol.iterator]()
  }

  toString() {
    return this.#text
  }

  [inspect.custom]() {
    return `Sections('${this.#text}')`
  }
}

/** Returns the text of sections that are an argument. */
function sectionsText(value, name) {
  if (typeof value === 'string') return value
  if (value instanceof Sections || value instanceof Policy) return String(value)
  throw wrongType(name, 'a string, Sections or a Policy', value)
}

/** Returns the text of the policy of a limiter. */
function limitsText(value) {
  if (typeof value === 'string') return value
  if (value instanceof Policy || value instanceof AddressPolicy) return String(value)
  throw wrongType('policy', 'a string, a Policy or an AddressPolicy', value)
}

/** Returns the policy of a limiter with a text. */
function limits(found) {
  return found.startsWith('addresses:') ? new AddressPolicy(found) : new Policy(found)
}

module.exports = {
  AddressPolicy,
  Policy,
  Quota,
  SectionQuotas,
  Sections,
  limits,
  limitsText,
  sectionsText,
}
