'use strict'

// Guessed keys: a limit of invalid keys for each client address.
//
// The gate checks the key first. If the outcome is `invalid_key` and the client's address had too
// many such outcomes, the response is 429. Otherwise the response is that of the verdict. A valid
// key is therefore never refused here, and a request without a key does not count.

const net = require('node:net')

const native = require('./native')
const { wholeNumber } = require('./arguments')
const { checkSubject, then } = require('./charges')
const { Limiter } = require('./limiter')
const { AddressPolicy } = require('./policy')
const { Refusal } = require('./refusal')

// The default limit, the same as that of `keytally serve`.
const DEFAULT = '20/minute, 200/hour'

// The most client networks that a policy counts at a time, in 1.7 MiB of memory. Other networks
// share limits.
const MAX_NETWORKS = 65536

// The prefix length of the IPv6 networks that count as one client: a site has at least a /64.
const IPV6_PREFIX = 64

/** The limit of invalid keys of one integration. */
class Guesses {
  #limiter
  #proxies
  #ipv6Prefix

  constructor(failures = DEFAULT, trustedProxies = [], ipv6Prefix = IPV6_PREFIX) {
    if (typeof failures === 'string') this.#limiter = inMemory(failures)
    else if (failures instanceof Limiter) this.#limiter = failures
    else if (failures !== null) {
      throw new TypeError(`failures must be a policy such as '${DEFAULT}', a Limiter, or null`)
    }
    this.#proxies = new TrustedProxies(trustedProxies)
    this.#ipv6Prefix = prefixFor(this.#limiter, ipv6Prefix)
  }

  /**
   * Counts an invalid key, and returns the refusal: 429 after too many, or the verdict's. Returns a
   * thenable of it if the limiter is in a fleet.
   *
   * Every invalid key counts. If a revoked key did not count, the response would disclose that its
   * secret is correct.
   */
  refusal(verdict, peer, forwardedFor) {
    if (this.#limiter === undefined || verdict.outcome !== 'invalid_key') return Refusal.of(verdict)
    const subject = this.subject(peer, forwardedFor)
    if (subject === undefined) return Refusal.of(verdict)
    return then(checkSubject(this.#limiter, subject), (counted) =>
      // A full limiter refuses no request: it would refuse clients that sent no wrong key.
      Refusal.of(counted.outcome === 'denied' ? counted : verdict),
    )
  }

  /** Returns the subject of the client's address; undefined if the address is unknown. */
  subject(peer, forwardedFor) {
    const client = this.#proxies.client(peer, forwardedFor)
    return client === undefined ? undefined : native.addressSubject(client, this.#ipv6Prefix)
  }

  /** Throws an error unless the limiter can count the subjects. */
  checkPrefixFor(limiter) {
    prefixFor(limiter, this.#ipv6Prefix)
  }
}

/** The proxies whose `X-Forwarded-For` is trusted. */
class TrustedProxies {
  #networks = new net.BlockList()
  #hasNetworks = false
  #unix

  constructor(proxies) {
    if (typeof proxies === 'string' || typeof proxies?.[Symbol.iterator] !== 'function') {
      throw new TypeError(
        "trustedProxies must be a list of networks, such as ['10.0.0.0/8'], not one text",
      )
    }
    const all = [...proxies]
    this.#unix = all.includes('unix')
    all.forEach((text, index) => {
      if (text !== 'unix') this.#add(text, index)
    })
  }

  #add(text, index) {
    const [, address, prefix] = /^([0-9A-Fa-f:.]+)(?:\/([0-9]{1,3}))?$/.exec(text) ?? []
    const version = net.isIP(address ?? '')
    const bits = version === 4 ? 32 : 128
    if (version === 0 || (prefix !== undefined && Number(prefix) > bits)) {
      throw new RangeError(
        `trustedProxies[${index}] must be an address, a network such as 10.0.0.0/8 or fd00::/8, ` +
          'or unix',
      )
    }
    if (version === 6 && net.isIPv4(native.addressOf(address))) {
      // Addresses of peers are compared as IPv4 addresses if they are IPv4-mapped.
      throw new RangeError(
        `trustedProxies[${index}] must be an IPv4 network in its own form, such as 10.0.0.0/8`,
      )
    }
    this.#networks.addSubnet(address, Number(prefix ?? bits), `ipv${version}`)
    this.#hasNetworks = true
  }

  /**
   * Returns the address of the client that sent a request, or undefined if it is unknown.
   *
   * It is the address of the peer, unless the peer is trusted. Then it is the rightmost address of
   * `X-Forwarded-For` that is not trusted: each proxy appends on the right, and the client can
   * write anything to the left of that address. If all are trusted, it is the leftmost.
   */
  client(peer, forwardedFor) {
    const address = native.addressOf(peer ?? '') ?? undefined
    if (address === undefined && !this.#unix) return undefined
    if (address !== undefined && !this.#contain(address)) return address
    let client
    for (const hop of forwardedFor.split(',').reverse()) {
      client = native.addressOf(hop.trim()) ?? undefined
      if (client === undefined || !this.#contain(client)) return client
    }
    return client
  }

  #contain(address) {
    return this.#hasNetworks && this.#networks.check(address, net.isIPv4(address) ? 'ipv4' : 'ipv6')
  }
}

const limiters = new Map()

/** Returns the limiter of a policy, which all integrations of a process share. */
function inMemory(policy) {
  let found = limiters.get(policy)
  if (found === undefined) {
    found = Limiter.inMemory(policy, MAX_NETWORKS)
    limiters.set(policy, found)
  }
  return found
}

/** Returns the prefix length of the IPv6 networks that a limiter counts, after checking it. */
function prefixFor(limiter, ipv6Prefix = IPV6_PREFIX) {
  wholeNumber(ipv6Prefix, 'ipv6Prefix', 'a whole number from 1 to 128', 1, 128)
  if (ipv6Prefix < IPV6_PREFIX && limiter?.policy instanceof AddressPolicy) {
    throw new RangeError(
      `ipv6Prefix is ${ipv6Prefix}, and the policy of this limiter of addresses has the prefixes: ` +
        'leave ipv6Prefix out',
    )
  }
  return ipv6Prefix
}

/** Returns the subject of the client's address that a server reports. */
function clientAddress(address, ipv6Prefix) {
  if (address === undefined || address === null || address === '') {
    throw new Error(
      "the server does not report the client's address, as on a Unix socket: pass key with a " +
        'function that returns the subject to count',
    )
  }
  return native.addressSubject(address, ipv6Prefix) ?? address
}

module.exports = { Guesses, clientAddress, prefixFor }
