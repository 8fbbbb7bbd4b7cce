/// <reference types="node" />

/**
 * API-key checks and rate limits in the server's own process, exact across processes.
 *
 * @packageDocumentation
 */

/** A time: a `Date`, or Unix milliseconds as of `Date.now()`. */
export type Moment = Date | number

/** A text as UTF-8, or bytes. */
export type Bytes = string | Uint8Array

/** One name, several or none. */
export type Names = string | Iterable<string> | null | undefined

/** Costs of groups by their names. */
export type GroupCosts = Readonly<Record<string, number>> | ReadonlyMap<string, number>

/** The outcome of a check. */
export type Outcome =
  | 'admitted'
  | 'denied'
  | 'missing_key'
  | 'invalid_key'
  | 'too_costly'
  | 'full'
  | 'forbidden'
  | 'unavailable'

/** Why a key is invalid. Log it, but never disclose it to the client. */
export type Reason =
  | 'malformed'
  | 'checksum'
  | 'unknown'
  | 'wrong_secret'
  | 'revoked'
  | 'expired'
  | 'duplicate'
  | 'pepper_missing'
  | 'damaged'
  | 'suspended'

/**
 * Why a gate does not decide now.
 *
 * - `'moving'`: the counts of the key are being moved to another file.
 * - `'not_reserving'`: the gate is in a fleet, and this process opened it without `fleet`.
 * - `'lost'`: the store of the fleet, or the agent of this machine, cannot be reached.
 * - `'waiting'`: credits of the fleet are requested. Only `tryCheck` returns this.
 */
export type Unavailability = 'moving' | 'not_reserving' | 'lost' | 'waiting'

/** What happens to a new subject that finds no slot in a limiter. */
export type OnFull = 'share' | 'refuse'

export interface Now {
  /** An explicit time; the system clock by default. */
  now?: Moment
}

export interface Wait {
  /**
   * How long to wait for another administrator at most, in seconds; 10 by default. The event loop
   * stands still meanwhile.
   */
  wait?: number
}

/** What a request charges besides its key and its team. */
export interface RequestOptions {
  /** The groups of the gate's plans that are charged the cost of the request. */
  groups?: Names
  /** The groups that are charged a cost of their own, such as `{ tokens: 2500 }`. */
  costs?: GroupCosts
  /** The scopes that the key must have. */
  need?: Names
}

export interface PepperOptions {
  /** One to four peppers, separated by commas, newest last: hex or base64 of at least 32 bytes. */
  pepper?: string
  /** A file with one pepper per line. */
  pepperFile?: string | URL
}

/** How a gate or a limiter joins the fleet of this machine. */
export interface FleetOptions {
  /**
   * The fleet file of this machine, which its agent creates, if the gate or limiter shares its
   * limits with other machines.
   */
  fleet?: string | URL
  /** How long a request waits for credits of the fleet at most, in seconds; 0.02 by default. */
  creditWait?: number
}

/** How a gate is opened. */
export interface OpenOptions extends PepperOptions, FleetOptions {}

export interface GateOptions extends PepperOptions {
  /** The capacity in keys, 1 to 67108864; 100000 by default. */
  keys?: number
  /** The plans by name. The first is that of keys that are issued without one. */
  plans?:
    | Readonly<Record<string, string | Policy | Sections>>
    | ReadonlyMap<string, string | Policy | Sections>
  /** The first part of every key, 1 to 8 characters of a-z and 0-9; `kt` by default. */
  prefix?: string
  /** The capacity in accounts. The default is `keys` if the plans have a section `team`, else 0. */
  teams?: number
  /** The names of the scopes that keys may have. */
  scopes?: Names
  /** The window that `X-RateLimit-*` describe, such as `'month'`. */
  described?: string
}

export interface KeyOptions extends Now, Wait {
  /** The environment, 1 to 8 characters of a-z and 0-9; `live` by default. */
  env?: string
  /** The name of the plan; the gate's first plan by default. */
  plan?: string | null
  /** When the key expires: a `Date`, or a number of seconds from now; never by default. */
  expires?: Date | number | null
  /** The names of the scopes that the key has. */
  scopes?: Names
}

/** A charge as `refund` and `settle` take it: that of a verdict, `null` unless it was admitted. */
export class Charge {
  constructor(cost: number, atMs: number)
  /** Returns the charge with these 128 bytes, which are the same in every language. */
  static fromBytes(bytes: Uint8Array): Charge
  /** The units that the request itself was charged. */
  readonly cost: number
  /** The time of the charge, in Unix milliseconds. */
  readonly atMs: number
  toBytes(): Buffer
  toString(): string
}

/** The state of one quota after a decision. */
export interface QuotaState {
  readonly limit: number
  readonly remaining: number
  /** The length of the window in seconds; of a month that of the longest one, 31 days. */
  readonly window: number
  /** The window's name in header fields, such as `minute`. */
  readonly name: string
  /** The time at which the last unit that is counted now stops counting, in Unix seconds. */
  readonly resetUnixS: number
  /** Whether this window lacked room for the cost, so that the request was denied. */
  readonly lacking: boolean
}

/** The verdict on one tally of a request. */
export interface TallyVerdict {
  /** The index of the part of `checkAll` whose tally this is; 0 in another verdict. */
  readonly part: number
  /** `key`, `team`, the name of a group, or in a limiter of addresses `prefix-56`. */
  readonly section: string | null
  readonly verdict: Verdict
}

/**
 * The result of a check: the values for an HTTP response, a log line or a later refund.
 *
 * The header fields, the body and the quotas are built when they are read.
 */
export class Verdict {
  private constructor()
  /** Returns the verdict on a request with more than one key header: the key is invalid. */
  static duplicateHeader(options?: Now): Verdict
  readonly admitted: boolean
  readonly outcome: Outcome
  readonly reason: Reason | null
  /** Why the gate does not decide now; `null` unless the outcome is `'unavailable'`. */
  readonly unavailability: Unavailability | null
  /** Whether the verdict is on units that machines of a fleet share. */
  readonly leased: boolean
  readonly httpStatus: 200 | 401 | 403 | 429 | 503
  /** The body of the response, as JSON; empty if the request was admitted. */
  readonly body: string
  readonly contentType: 'application/json'
  /** The body as a problem document (RFC 9457). */
  readonly problem: string
  /** The header fields. Set them, do not append them: a response must have each field once. */
  readonly headers: [name: string, value: string][]
  readonly account: number | null
  readonly keyId: string | null
  readonly plan: string | null
  readonly env: string | null
  /** The limit of the window that `X-RateLimit-*` describe; `null` without quotas. */
  readonly limit: number | null
  readonly remaining: number | null
  readonly resetUnixS: number | null
  /** The seconds until a retry can succeed, rounded up, at least 1. */
  readonly retryAfterS: number | null
  /** How far the time of the counts was ahead of the caller's, in seconds. */
  readonly clockAheadS: number
  /** The quotas of the key or subject after the decision, shortest window first. */
  readonly quotas: QuotaState[]
  readonly charge: Charge | null
  /** Returns the charge of a part of `checkAll`. */
  chargeOf(part: number): Charge | null
  /** Whether a limiter charged the subject to a tally that it shares with others. */
  readonly isShared: boolean
  /** The units that `settle` could not charge for lack of room. */
  readonly uncharged: number
  readonly unchargedCosts: Record<string, number>
  readonly tallies: TallyVerdict[]
  /** The verdict on the tally that decided. */
  readonly decisive: TallyVerdict
  /** Returns the warnings of the plan that this charge reached. */
  crossed(): [tally: TallyVerdict, quota: QuotaState, percent: number][]
  /** Throws a `RefusedError` unless the request was admitted. */
  raiseForStatus(): void
  toString(): string
}

/** A key or a subject with a cost, as a part of `checkAll`. Make one for each request. */
export class Part {
  private constructor()
  readonly cost: number
}

/** Checks several keys and subjects of one request, and charges all or none. */
export function checkAll(parts: readonly Part[], options?: Now): Verdict

/** Checks as `checkAll` does, and waits for credits of a fleet while the event loop continues. */
export function acheckAll(parts: readonly Part[], options?: Now): Promise<Verdict>

/** Returns what `checkAll` would return now, and charges nothing. */
export function peekAll(parts: readonly Part[], options?: Now): Verdict

/** A limit of units per window. */
export class Quota {
  private constructor()
  readonly limit: number
  /** The length of the window in seconds. */
  readonly window: number
  toString(): string
}

/** A policy: one to four limits, such as `100/minute, 1000/hour`. */
export class Policy {
  constructor(policy: string | Policy)
  readonly algorithm: 'fixed' | 'sliding'
  readonly quotas: readonly Quota[]
  readonly neverBinding: readonly (readonly [Quota, Quota])[]
  toString(): string
}

/** The limits of the networks that a client's address is in: `addresses: /64 20/minute; …`. */
export class AddressPolicy {
  constructor(policy: string | AddressPolicy)
  readonly algorithm: 'fixed' | 'sliding'
  readonly prefixes: readonly (readonly [prefix: number, quotas: Quota[]])[]
  toString(): string
}

/** A section of a plan. */
export class SectionQuotas {
  private constructor()
  readonly name: string
  readonly algorithm: 'fixed' | 'sliding'
  readonly quotas: readonly Quota[]
  /** The warnings of each quota: percentages of its limit. */
  readonly warnings: readonly (readonly number[])[]
  readonly isUnlimited: boolean
  readonly neverBinding: readonly (readonly [Quota, Quota])[]
}

/** The quotas of a plan: `100/minute; team: 5000/hour; group write: 20/minute`. */
export class Sections implements Iterable<SectionQuotas> {
  constructor(sections: string | Policy | Sections)
  named(name: string): SectionQuotas | null
  [Symbol.iterator](): Iterator<SectionQuotas>
  toString(): string
}

/** A table that limits the use of any subject: an address, a user, a route. */
export class Limiter {
  private constructor()
  /** Creates a limiter in memory, for this process. */
  static inMemory(
    policy: string | Policy | AddressPolicy,
    capacity?: number,
    options?: { onFull?: OnFull },
  ): Limiter
  /** Creates a limiter in a new file, with mode 0600. */
  static create(
    path: string | URL,
    policy: string | Policy | AddressPolicy,
    capacity?: number,
    options?: { onFull?: OnFull },
  ): Limiter
  /** Opens the limiter in a file. */
  static open(path: string | URL, options?: FleetOptions): Limiter
  /** Opens the limiter in a file, or creates it if the path does not exist. */
  static openOrCreate(
    path: string | URL,
    policy: string | Policy | AddressPolicy,
    capacity?: number,
    options?: FleetOptions & { onFull?: OnFull },
  ): Limiter
  check(subject: Bytes, cost?: number, options?: Now): Verdict
  /** Checks as `check` does, and waits for credits of a fleet while the event loop continues. */
  acheck(subject: Bytes, cost?: number, options?: Now): Promise<Verdict>
  /** Checks as `check` does. While credits of a fleet are requested, nothing is charged. */
  tryCheck(subject: Bytes, cost?: number, options?: Now): Verdict
  /** Checks as `check` does after a wait for credits of a fleet that had no effect. */
  checkWithoutWait(subject: Bytes, cost?: number, options?: Now): Verdict
  peek(subject: Bytes, cost?: number, options?: Now): Verdict
  part(subject: Bytes, cost?: number): Part
  refund(subject: Bytes, charge: Charge | null, options?: Now): Verdict
  settle(
    subject: Bytes,
    estimate: Charge | null,
    actual: number,
    options?: Now & { overdraw?: boolean },
  ): Verdict
  reset(subject: Bytes, options?: Now): Verdict
  resetAll(options?: Now): number
  correctClock(options?: Now): number
  setOnFull(onFull: OnFull): void
  /** Puts the limiter in a fleet, in which machines share its limits, or takes it out of it. */
  setFleet(isInFleet: boolean): void
  /** Whether requests need credits of a fleet, in every process that has the limiter open. */
  readonly isInFleet: boolean
  readonly fleet: string | null
  readonly creditWaitS: number
  liveSubjects(options?: Now): number
  readonly onFull: OnFull
  readonly refusals: number
  readonly path: string | null
  readonly policy: Policy | AddressPolicy | null
  readonly capacity: number
  readonly slotsTotal: number
}

/** A key that was just issued or rotated. Only `expose` returns the secret. */
export class Key {
  private constructor()
  /** Returns the key as the client must send it. Do not log it. */
  expose(): string
  readonly keyId: string
  /** The part of the key that may be shown. */
  readonly hint: string
  toString(): string
  toJSON(): { keyId: string; hint: string }
}

/** The public details of a key. Times are Unix seconds. */
export interface KeyInfo {
  readonly keyId: string
  readonly account: number
  readonly env: string | null
  readonly plan: string | null
  readonly state: 'active' | 'revoked' | 'expired'
  readonly hint: string
  readonly expires: number | null
  readonly graceUntil: number | null
  readonly lastUsed: number | null
  readonly pepper: number
  readonly scopes: string[]
  readonly clockAheadS: number
  readonly quotas: QuotaState[]
}

/** The properties of an account. */
export interface AccountInfo {
  readonly account: number
  readonly isSuspended: boolean
  readonly plan: string | null
  readonly hasOwnLimits: boolean
  readonly quotas: QuotaState[]
}

/** How a key was used. */
export interface KeyUsage {
  readonly admitted: number
  readonly withPreviousSecret: number
  readonly units: number
  readonly deniedByKey: number
  readonly deniedByTeam: number
  readonly deniedByGroup: number
  readonly forbidden: number
  readonly revoked: number
  readonly expired: number
  readonly suspended: number
  readonly lastUsed: number | null
}

/** The result of `Gate.verify`. */
export interface Report {
  readonly completed: boolean
  readonly flaws: readonly {
    readonly record: number
    readonly keyId: string | null
    readonly kind: string
    readonly sentence: string
  }[]
}

/** A table of API keys with their counts, in memory or in a file that processes share. */
export class Gate {
  private constructor()
  /** Creates a gate in a new file, with mode 0600. */
  static create(path: string | URL, options?: GateOptions): Gate
  /** Opens the gate in a file. */
  static open(path: string | URL, options?: OpenOptions): Gate
  /** Creates a gate in memory, for tests or for one process. */
  static inMemory(options?: GateOptions): Gate
  /** Verifies the key, then charges `cost` to every window of its plan that has room, or none. */
  check(apiKey: Bytes | null | undefined, cost?: number, options?: RequestOptions & Now): Verdict
  /** Checks as `check` does, and waits for credits of a fleet while the event loop continues. */
  acheck(
    apiKey: Bytes | null | undefined,
    cost?: number,
    options?: RequestOptions & Now,
  ): Promise<Verdict>
  /** Checks as `check` does. While credits of a fleet are requested, nothing is charged. */
  tryCheck(apiKey: Bytes | null | undefined, cost?: number, options?: RequestOptions & Now): Verdict
  /** Checks as `check` does after a wait for credits of a fleet that had no effect. */
  checkWithoutWait(
    apiKey: Bytes | null | undefined,
    cost?: number,
    options?: RequestOptions & Now,
  ): Verdict
  /** Returns the verdict that `check` would return, and charges nothing. */
  peek(apiKey: Bytes | null | undefined, cost?: number, options?: RequestOptions & Now): Verdict
  part(apiKey: Bytes | null | undefined, cost?: number, options?: RequestOptions): Part
  refund(keyId: string | null, charge: Charge | null, options?: Now): Verdict
  settle(
    keyId: string | null,
    estimate: Charge | null,
    actual?: number | null,
    options?: Now & { costs?: GroupCosts; overdraw?: boolean },
  ): Verdict
  reset(keyId: string | null, options?: Now): Verdict
  issue(account: number, options?: KeyOptions): Key
  importKeys(keys: Iterable<Bytes>, account: number, options?: KeyOptions): string[]
  rotate(keyId: string, options: { grace: number; force?: boolean } & Now & Wait): Key
  revoke(keyId: string, options?: Wait): void
  expire(keyId: string, expires: Date | number | null, options?: Now & Wait): void
  endGrace(keyId: string, options?: Wait): void
  assign(keyId: string, plan: string, options?: Wait): void
  setScopes(keyId: string, scopes: Names, options?: Wait): void
  account(account: number, options?: Now): AccountInfo | null
  accounts(options?: Now): AccountInfo[]
  suspend(account: number, options?: Wait): void
  resume(account: number, options?: Wait): void
  assignAccount(account: number, plan: string, options?: Wait): void
  limitAccount(account: number, limits: string | Policy | Sections, options?: Wait): void
  resetAccount(account: number, options?: Now): void
  setPlan(name: string, sections: string | Policy | Sections, options?: Wait): void
  list(options?: Now): KeyInfo[]
  key(keyId: string, options?: Now): KeyInfo | null
  setUsage(isCounted: boolean, options?: Wait): void
  /** Puts the gate in a fleet, in which machines share its limits, or takes it out of it. */
  setFleet(isInFleet: boolean, options?: Wait): void
  /** Whether requests need credits of a fleet, in every process that has the gate open. */
  readonly isInFleet: boolean
  /** The path of the fleet file, as `open` was given it; `null` without one. */
  readonly fleet: string | null
  /** How long a request waits for credits of a fleet at most, in seconds. */
  readonly creditWaitS: number
  keyUsage(keyId: string): KeyUsage | null
  verify(options?: Now & Wait): Report
  reopen(): void
  correctClock(options?: Now): number
  readonly reopened: number
  readonly reopenProblem: string | null
  readonly path: string | null
  readonly plans: Record<string, Sections>
  readonly prefix: string
  readonly capacity: number
  readonly teamCapacity: number
  readonly described: string | null
  readonly sections: string[]
  readonly scopes: string[]
}

export class KeytallyError extends Error {}
export class PolicyError extends KeytallyError {}
export class CreateError extends KeytallyError {}
export class PepperError extends KeytallyError {}
export class KeyIdError extends KeytallyError {}
export class TableError extends KeytallyError {}
export class AdminError extends KeytallyError {}
export class BusyError extends AdminError {
  /** The id of the process that administers; `null` if it is in another container. */
  readonly pid: number | null
}
export class NoSuchKeyError extends AdminError {}
export class NoSuchPlanError extends AdminError {}
export class NoSuchAccountError extends AdminError {}
export class NoSuchScopeError extends AdminError {}
export class TeamsFullError extends AdminError {}
export class GateFullError extends AdminError {}
export class RevokedError extends AdminError {}
export class AlreadyImportedError extends AdminError {}
export class RefusedError extends KeytallyError {
  readonly verdict: Verdict
}
export class MissingKeyError extends RefusedError {}
export class InvalidKeyError extends RefusedError {}
export class ForbiddenError extends RefusedError {}
export class DeniedError extends RefusedError {}
export class TooCostlyError extends RefusedError {}
export class UnavailableError extends RefusedError {}
export class FullError extends RefusedError {}

/** The names of all header fields that a verdict has. */
export const FIELD_NAMES: readonly string[]

/** The version of the package. */
export const version: string

/** Returns a new pepper: 32 bytes of the system's entropy, as 64 hex digits. */
export function generatePepper(): string

/** Returns a text without the parts that look like a key or a pepper, for an error message. */
export function redact(text: string): string

/** Sets the time that this process reads, for tests; `null` reads the system clock again. */
export function setTestClock(time: Moment | null): number | null
