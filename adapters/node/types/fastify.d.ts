// Hooks for Fastify 5.

import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Gate, GateOptions, Limiter, LimiterOptions, Verdict } from './web'

declare module 'fastify' {
  interface FastifyRequest {
    /** The verdict of the gate; without a gate, that of the first limiter. */
    verdict?: Verdict
  }
}

/** A hook, for `app.addHook('onRequest', …)` and for the option `onRequest` of routes. */
export type Hook = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>

/** Returns a hook that admits and charges a request whose key is valid and has quota left. */
export function requireKey(gate: Gate, options?: GateOptions<FastifyRequest>): Hook

/** Returns a hook that admits and charges a request whose subject has quota left. */
export function limit(limiter: Limiter, options?: LimiterOptions<FastifyRequest>): Hook

export type { GateOptions, LimiterOptions, Refusal, Sent, Statuses } from './web'
