// The options that the integrations have in common.

import type { Gate, GroupCosts, Limiter, Names, Outcome, Verdict } from './index'

type Of<Request, T> = T | ((request: Request) => T | Promise<T>)

/** A status, a class of statuses such as `'5xx'`, or a list of them. */
export type Statuses = number | string | Iterable<number | string>

/** What was sent of a response. */
export interface Sent {
  /** The status; `null` if the client closed the connection before the response began. */
  readonly status: number | null
  /** The header fields by their names in lowercase. */
  readonly headers: Readonly<Record<string, number | string | string[] | undefined>>
  /** The bytes of the body. */
  readonly bytes: number
  /** Whether the body was sent to its end. */
  readonly isComplete: boolean
  /** The error that ended the response; `null` if there is none. */
  readonly exception: Error | null
  /** The units that the request was charged. */
  readonly cost: number
  /** The units that groups were charged as costs of their own. */
  readonly costs: Readonly<Record<string, number>>
}

/** The response to a refused request. */
export interface Refusal {
  readonly outcome: Outcome | 'cost_out_of_range'
  /** The verdict. After too many wrong keys, it is that of the limit of wrong keys. */
  readonly verdict: Verdict
  readonly status: number
  readonly body: string | Uint8Array
  readonly contentType: string
  readonly retryAfterS: number | null
  /** The body for a client that accepts problem documents; `null` if all clients get `body`. */
  readonly problem: string | null
  /** The header fields that only a refusal has. */
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** Returns this refusal with another status, body or content type. */
  replace(changes: {
    status?: number
    body?: string | Uint8Array | object
    contentType?: string
  }): Refusal
}

/** The options of all integrations. */
export interface Options<Request> {
  /** The cost of a request in units; 1 by default. */
  cost?: Of<Request, number>
  /** Paths that are not checked: `'/health'`, or all paths with a prefix, `'/static/*'`. */
  exempt?: Iterable<string>
  /** Methods that are not checked, such as `'OPTIONS'`. */
  exemptMethods?: Iterable<string>
  /** Whether responses have the rate-limit fields; true by default. */
  headers?: boolean
  /** The prefix length of the IPv6 networks that count as one client, 1 to 128; 64 by default. */
  ipv6Prefix?: number
  /** A function that is called with each verdict, for logs and metrics. */
  onVerdict?: (verdict: Verdict, request: Request) => unknown
  /** The statuses at which the charge is refunded after the response. */
  refund?: Statuses
  /** A function that returns the response to a refused request. */
  refusal?: (refusal: Refusal, request: Request) => Refusal | Promise<Refusal>
  /** A function that returns the actual cost, after the response. */
  settle?: (request: Request, sent: Sent) => Settled | Promise<Settled>
  /** Whether to admit every request, and only report the outcome in `X-Keytally-Shadow`. */
  shadow?: boolean
}

/** The actual cost of the request, or those of groups; that of the request itself is `key`. */
export type Settled = number | GroupCosts

/** The options of a check of keys. */
export interface GateOptions<Request> extends Options<Request> {
  /** The groups of the gate's plans that are charged `cost` too. */
  group?: Of<Request, Names>
  /** The groups that are charged a cost of their own, such as `{ tokens: 2500 }`. */
  costs?: Of<Request, GroupCosts | undefined>
  /** The scopes that the key must have. Without one of them, the response has status 403. */
  need?: Of<Request, Names>
  /** The limit of wrong keys for each client address: a policy, a limiter, or `null` for none. */
  failures?: string | Limiter | null
  /** The headers that may carry the key: names, and `'Authorization: Bearer'`. */
  keyFrom?: Iterable<string>
  /** The proxies whose `X-Forwarded-For` names the client, for `failures` and `withoutKey`. */
  trustedProxies?: Iterable<string>
  /** The limiter of requests without a key, which it counts by client address. */
  withoutKey?: Limiter | null
}

/** The options of a check of subjects. */
export interface LimiterOptions<Request> extends Options<Request> {
  /** The subject that is counted, or `null` to admit the request; by default, the address. */
  key?: (
    request: Request,
  ) => string | Uint8Array | null | undefined | Promise<string | Uint8Array | null | undefined>
  /** The statuses at which a request is charged, after its response. */
  chargeOn?: Statuses | null
}

export type { Gate, Limiter, Verdict }
