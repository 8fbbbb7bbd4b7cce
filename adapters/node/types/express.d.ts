// Middleware for Express 4 and 5.

import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Gate, GateOptions, Limiter, LimiterOptions, Verdict } from './web'

declare global {
  namespace Express {
    interface Request {
      /** The verdict of the gate; without a gate, that of the first limiter. */
      verdict?: Verdict
    }
  }
}

/** A request of Express, or of `node:http`. */
export type AnyRequest = IncomingMessage & { ip?: string; verdict?: Verdict }

/** Middleware, for `app.use` and for routes. */
export type Middleware = (
  request: AnyRequest & any,
  response: ServerResponse & any,
  next: (error?: any) => void,
) => void

/** Returns middleware that admits and charges a request whose key is valid and has quota left. */
export function requireKey<Request extends AnyRequest = AnyRequest & Record<string, any>>(
  gate: Gate,
  options?: GateOptions<Request>,
): Middleware

/** Returns middleware that admits and charges a request whose subject has quota left. */
export function limit<Request extends AnyRequest = AnyRequest & Record<string, any>>(
  limiter: Limiter,
  options?: LimiterOptions<Request>,
): Middleware

export type { GateOptions, LimiterOptions, Refusal, Sent, Statuses } from './web'
