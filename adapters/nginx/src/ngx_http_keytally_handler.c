/*
 * The phase handlers: they check whether a request is admitted.
 *
 * Limits are checked last in the preaccess phase, the gate last in the access phase. nginx runs no
 * access phase in subrequests: there the gate is checked in the preaccess phase, too.
 *
 * Each zone and each gate charges a client's request once, with all its internal redirects and
 * subrequests. If a later one refuses the request, the earlier charges are refunded.
 */
#include "ngx_http_keytally.h"

/**
 * Keeps a verdict for the response's header fields and the variables. Replaces the kept one.
 *
 * Callers keep the verdict of the first limit, of each gate, and of a limit that refuses.
 */
static void ngx_http_keytally_keep_verdict(ngx_http_keytally_ctx_t *ctx,
                                           ngx_http_keytally_gate_t *gate,
                                           const kt_verdict *verdict, ngx_flag_t shadow) {
    /* A check may have written the verdict here already, which saves this copy. */
    if (verdict != &ctx->verdict) ctx->verdict = *verdict;
    ctx->gate = gate;
    ctx->has_verdict = 1;
    ctx->shadowed = shadow && verdict->outcome != KT_ADMITTED;
}

/**
 * Whether `r` is an auth_request subrequest whose refusal refuses the client's whole request.
 *
 * If it is admitted, the rest of the access phase still runs. With `satisfy any`, another module
 * may admit the request after a refusal, and an admission ends the phase. After an internal
 * redirect, a mirror subrequest may run while the request waits for auth_request: `background`
 * excludes it.
 */
static ngx_flag_t ngx_http_keytally_is_condition(ngx_http_request_t *r) {
    ngx_http_core_main_conf_t *cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    ngx_http_core_loc_conf_t *clcf = ngx_http_get_module_loc_conf(r->main, ngx_http_core_module);
    return r->header_only && !r->background && r->parent == r->main &&
           clcf->satisfy == NGX_HTTP_SATISFY_ALL &&
           cmcf->phase_engine.handlers[r->main->phase_handler].checker ==
               ngx_http_core_access_phase;
}

/** Whether a refusal of `r`, a request or subrequest, refuses the client's whole request. */
static ngx_flag_t ngx_http_keytally_refuses_all(ngx_http_request_t *r) {
    return r == r->main || ngx_http_keytally_is_condition(r);
}

/**
 * Whether the verdict on `r` is kept for the client. In a subrequest whose refusal refuses only
 * itself, it is not kept if a gate's verdict is kept already.
 */
static ngx_flag_t ngx_http_keytally_keeps_verdict_of(ngx_http_request_t *r,
                                                     ngx_http_keytally_ctx_t *ctx) {
    return ngx_http_keytally_refuses_all(r) || ctx->gate == NULL;
}

/** Logs a refusal, and keeps the first one for `$keytally_outcome` and `$keytally_reason`. */
static void ngx_http_keytally_log_refusal(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                          const kt_verdict *verdict, ngx_flag_t shadow,
                                          ngx_str_t *name) {
    if (verdict->outcome == KT_ADMITTED) return;
    if (ctx->outcome == KT_ADMITTED) {
        ctx->outcome = verdict->outcome;
        ctx->reason = verdict->reason;
    }
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "keytally \"%V\"%s: %s%s%s", name,
                  shadow ? ", shadow" : "", kt_outcome_name(verdict->outcome),
                  verdict->reason == KT_REASON_NONE ? "" : ", ",
                  verdict->reason == KT_REASON_NONE ? "" : kt_reason_name(verdict->reason));
}

/** Logs a failed check. Returns the status that the request ends with. */
static ngx_int_t ngx_http_keytally_fail(ngx_http_request_t *r, kt_status status) {
    ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0, "keytally: %s", kt_status_message(status));
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/** Checks the limits of the location in their order until one refuses, in the preaccess phase. */
ngx_int_t ngx_http_keytally_limit_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->limits == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;

    ngx_http_keytally_charge_t *before = ctx->charges;
    kt_verdict other, *verdict = NULL;
    ngx_int_t rc = NGX_DECLINED;
    ngx_http_keytally_limit_t *limits = klcf->limits->elts;
    for (ngx_uint_t i = 0; i < klcf->limits->nelts && rc == NGX_DECLINED; i++) {
        ngx_http_keytally_limit_t *limit = &limits[i];
        uint64_t bit = (uint64_t)1 << limit->zone->index;
        if (ctx->zones & bit) continue;
        uint32_t cost;
        ngx_http_keytally_charge_t *charge = ngx_palloc(r->pool, sizeof *charge);
        verdict = ctx->has_verdict ? &other : &ctx->verdict;
        if (charge == NULL ||
            ngx_http_complex_value(r, &limit->zone->key, &charge->subject) != NGX_OK) {
            rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
            break;
        }
        ngx_str_t *subject = &charge->subject;
        if (subject->len == 0) continue; /* Like limit_req, does not limit an empty key. */
        ngx_int_t cost_rc = ngx_http_keytally_cost_get(r, &limit->cost, &cost);
        if (cost_rc == NGX_DECLINED && limit->shadow) continue;
        if (cost_rc != NGX_OK) {
            rc = cost_rc == NGX_DECLINED ? NGX_HTTP_BAD_REQUEST : NGX_HTTP_INTERNAL_SERVER_ERROR;
            break;
        }
        kt_status status = kt_limiter_check(&limit->zone->handle, subject->data, subject->len, cost,
                                            ngx_http_keytally_now_ms(), verdict);
        if (status != KT_OK) {
            rc = ngx_http_keytally_fail(r, status);
            break;
        }
        ngx_http_keytally_log_refusal(r, ctx, verdict, limit->shadow, &limit->zone->name);
        if (verdict->outcome == KT_ADMITTED) {
            ctx->zones |= bit;
            charge->zone = limit->zone;
            charge->refund = ngx_http_keytally_refund_of(r);
            ngx_http_keytally_charge_add(ctx, charge, verdict);
        } else if (!limit->shadow) {
            rc = NGX_DONE;
        }
        if (!ctx->has_verdict || (rc == NGX_DONE && ngx_http_keytally_keeps_verdict_of(r, ctx)))
            ngx_http_keytally_keep_verdict(ctx, NULL, verdict, limit->shadow);
    }
    if (rc == NGX_DECLINED) return NGX_DECLINED;

    ngx_http_keytally_refund(ctx, ngx_http_keytally_refuses_all(r) ? NULL : before);
    if (rc == NGX_HTTP_BAD_REQUEST) return ngx_http_keytally_refuse_cost(r, ctx);
    return rc == NGX_DONE ? ngx_http_keytally_refuse(r, ctx, verdict) : rc;
}

/**
 * Refuses an invalid key, and counts it in the zone of failures, once for each request.
 *
 * A key counts for whatever reason it is invalid: if a revoked key did not count, the response
 * would reveal that its secret is right. The gate was checked before, so a valid key is never
 * refused here. If the zone is full, the invalid key gets 401, not 429.
 */
static ngx_int_t ngx_http_keytally_refuse_invalid_key(ngx_http_request_t *r,
                                                      ngx_http_keytally_ctx_t *ctx,
                                                      const kt_verdict *invalid,
                                                      ngx_http_keytally_zone_t *zone) {
    ngx_str_t subject;
    kt_verdict counted;
    if (ctx->failure_counted) return ngx_http_keytally_refuse(r, ctx, invalid);
    if (ngx_http_complex_value(r, &zone->key, &subject) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (subject.len == 0) return ngx_http_keytally_refuse(r, ctx, invalid);
    kt_status status = kt_limiter_check(&zone->handle, subject.data, subject.len, 1,
                                        ngx_http_keytally_now_ms(), &counted);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ctx->failure_counted = 1;
    if (counted.outcome != KT_DENIED) return ngx_http_keytally_refuse(r, ctx, invalid);
    ngx_http_keytally_log_refusal(r, ctx, &counted, 0, &zone->name);
    ctx->failure_retry_s = counted.retry_after_s;
    return ngx_http_keytally_refuse(r, ctx, &counted);
}

/** Checks the key of the request by the location's gate, and charges it, in the access phase. */
ngx_int_t ngx_http_keytally_gate_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = klcf->gate;
    if (gate == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    uint64_t bit = (uint64_t)1 << gate->index;
    if (ctx->gates & bit) return NGX_OK;

    uint32_t cost; /* 0 if it is out of range: a missing or invalid key is refused first. */
    ngx_int_t cost_rc = ngx_http_keytally_cost_get(r, &klcf->cost, &cost);
    ngx_http_keytally_charge_t *charge = ngx_palloc(r->pool, sizeof *charge);
    if (cost_rc == NGX_ERROR || charge == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_str_t api_key = ngx_null_string; /* NULL data means that the field is missing. */
    ngx_uint_t count = ngx_http_keytally_find_key(r, klcf->key_from, &api_key);
    ngx_flag_t kept = ngx_http_keytally_keeps_verdict_of(r, ctx);
    kt_verdict other, *verdict = kept ? &ctx->verdict : &other;
    uint64_t now_ms = ngx_http_keytally_now_ms();
    kt_status status =
        count > 1 ? kt_verdict_duplicate_header(now_ms, verdict)
                  : kt_gate_check(gate->handle, api_key.data, api_key.len, cost, now_ms, verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_http_keytally_log_refusal(r, ctx, verdict, klcf->shadow, &gate->name);
    if (kept) {
        ngx_http_keytally_keep_verdict(ctx, gate, verdict, klcf->shadow);
        ctx->challenges = klcf->key_from == NULL ? NULL : &klcf->key_from->challenges;
    }
    ngx_flag_t admitted = verdict->outcome == KT_ADMITTED && cost_rc == NGX_OK;
    if (admitted) {
        ctx->gates |= bit;
        charge->zone = NULL;
        charge->refund = ngx_http_keytally_refund_of(r);
        charge->gate = gate;
        charge->file = gate->file;
        charge->key_id = verdict->key_id;
        ngx_http_keytally_charge_add(ctx, charge, verdict);
    }
    if (admitted || klcf->shadow) return NGX_OK;
    if (verdict->outcome == KT_INVALID_KEY && klcf->failures != NULL)
        return ngx_http_keytally_refuse_invalid_key(r, ctx, verdict, klcf->failures);
    if (ngx_http_keytally_refuses_all(r)) ngx_http_keytally_refund_if_denied(ctx, verdict);
    if (verdict->outcome == KT_ADMITTED) return ngx_http_keytally_refuse_cost(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
}

/**
 * Whether the gate will check the client's request at the end of the access phase. Then it need not
 * check the auth_request subrequest `r`: if another module refuses `r`, nothing is charged, and a
 * refusal by the gate is the response to the whole request.
 */
static ngx_flag_t ngx_http_keytally_is_checked_later(ngx_http_request_t *r,
                                                     ngx_http_keytally_gate_t *gate) {
    ngx_http_keytally_loc_conf_t *klcf =
        ngx_http_get_module_loc_conf(r->main, ngx_http_keytally_module);
    return klcf->gate == gate && !klcf->shadow && ngx_http_keytally_is_condition(r);
}

/**
 * Checks the key of a subrequest in the preaccess phase, because nginx runs no access phase in
 * subrequests.
 */
ngx_int_t ngx_http_keytally_subrequest_handler(ngx_http_request_t *r) {
    if (r == r->main) return NGX_DECLINED;
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->gate != NULL && ngx_http_keytally_is_checked_later(r, klcf->gate))
        return NGX_DECLINED;
    return ngx_http_keytally_gate_handler(r);
}
