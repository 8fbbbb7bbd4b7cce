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

/** A check of several tallies: what it is of, and what it found. */
typedef struct {
    kt_part parts[KT_MAX_PARTS];
    ngx_uint_t count;
    kt_compound *compound; /* in the pool of the request; NULL if it was a check of one tally */
} ngx_http_keytally_check_t;

/**
 * Keeps a verdict for the response's header fields and the variables, with the result that it is
 * the decisive verdict of. Replaces the kept one.
 *
 * Callers keep the verdict of the first limits, of each gate, and of limits that refuse.
 */
static void ngx_http_keytally_keep_verdict(ngx_http_keytally_ctx_t *ctx,
                                           ngx_http_keytally_gate_t *gate,
                                           const kt_verdict *verdict, kt_compound *compound,
                                           ngx_flag_t shadow) {
    /* A check may have written the verdict here already, which saves this copy. */
    if (verdict != &ctx->verdict) ctx->verdict = *verdict;
    ctx->compound = compound;
    ctx->gate = gate;
    ctx->has_verdict = 1;
    ctx->shadowed = shadow && verdict->outcome != KT_ADMITTED;
}

/** Charges all parts or none. Sets `verdict` to the decisive one. */
static kt_status ngx_http_keytally_check_all(ngx_http_request_t *r,
                                             ngx_http_keytally_check_t *check,
                                             kt_verdict *verdict) {
    check->compound = ngx_palloc(r->pool, sizeof *check->compound);
    if (check->compound == NULL) return KT_NO_MEMORY;
    kt_status status =
        kt_check_all(check->parts, check->count, ngx_http_keytally_now_ms(), check->compound);
    if (status == KT_OK)
        *verdict = check->compound->tallies[check->compound->decisive_index].verdict;
    return status;
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

/** Refunds all charges of the client's request if `r`, which is refused, refuses all of it. */
static void ngx_http_keytally_refund_if_all(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    if (ngx_http_keytally_refuses_all(r)) ngx_http_keytally_refund(ctx);
}

/** Logs a failed check. Returns the status that the request ends with. */
static ngx_int_t ngx_http_keytally_fail(ngx_http_request_t *r, kt_status status) {
    /* A client may send the text of an address, as in a header. */
    ngx_uint_t level = status == KT_NOT_AN_ADDRESS ? NGX_LOG_ERR : NGX_LOG_ALERT;
    ngx_log_error(level, r->connection->log, 0, "keytally: %s", kt_status_message(status));
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/** A limit of a location that is about to charge a request, and its charge. */
typedef struct {
    ngx_http_keytally_limit_t *limit;
    ngx_http_keytally_charge_t *charge;
    uint32_t cost;
} ngx_http_keytally_due_t;

/**
 * Finds out whether a limit charges the request: sets `due`. Returns `NGX_DECLINED` if it does not,
 * else `NGX_OK` or the status that the request ends with.
 */
static ngx_int_t ngx_http_keytally_limit_due(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_limit_t *limit,
                                             ngx_http_keytally_due_t *due) {
    if (ctx->zones & (uint64_t)1 << limit->zone->index) return NGX_DECLINED;
    due->limit = limit;
    due->charge = ngx_palloc(r->pool, sizeof *due->charge);
    if (due->charge == NULL ||
        ngx_http_complex_value(r, &limit->zone->key, &due->charge->subject) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    /* Like limit_req, does not limit an empty key. */
    if (due->charge->subject.len == 0) return NGX_DECLINED;
    ngx_int_t rc = ngx_http_keytally_cost_get(r, &limit->cost, &due->cost);
    if (rc == NGX_DECLINED) return limit->shadow ? NGX_DECLINED : NGX_HTTP_BAD_REQUEST;
    return rc == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/** Adds the charge that a limit has made. */
static void ngx_http_keytally_limit_charged(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                            ngx_http_keytally_due_t *due) {
    ctx->zones |= (uint64_t)1 << due->limit->zone->index;
    due->charge->zone = due->limit->zone;
    due->charge->refund = ngx_http_keytally_refund_of(r);
    ngx_http_keytally_charge_add(ctx, due->charge);
}

/** Charges one limit, and keeps its verdict if the request has none or if it refuses. */
static ngx_int_t ngx_http_keytally_limit_one(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_due_t *due) {
    ngx_http_keytally_zone_t *zone = due->limit->zone;
    ngx_str_t *subject = &due->charge->subject;
    kt_verdict other, *verdict = ctx->has_verdict ? &other : &ctx->verdict;
    kt_status status = kt_limiter_check(&zone->handle, subject->data, subject->len, due->cost,
                                        ngx_http_keytally_now_ms(), verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_flag_t shadow = due->limit->shadow;
    ngx_http_keytally_log_refusal(r, ctx, verdict, shadow, &zone->name);
    if (verdict->outcome == KT_ADMITTED) {
        (void)kt_verdict_charge(verdict, &due->charge->charge);
        ngx_http_keytally_limit_charged(r, ctx, due);
    }
    ngx_flag_t refused = verdict->outcome != KT_ADMITTED && !shadow;
    if (!ctx->has_verdict || (refused && ngx_http_keytally_keeps_verdict_of(r, ctx)))
        ngx_http_keytally_keep_verdict(ctx, NULL, verdict, NULL, shadow);
    if (!refused) return NGX_DECLINED;
    ngx_http_keytally_refund_if_all(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
}

/** Charges several tallies of limits, all or none. All limits are in shadow, or none is. */
static ngx_int_t ngx_http_keytally_limit_all(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_due_t *due, ngx_uint_t count) {
    ngx_http_keytally_check_t check;
    kt_verdict verdict;
    ngx_memzero(check.parts, sizeof check.parts);
    check.count = count;
    for (ngx_uint_t i = 0; i < count; i++) {
        check.parts[i].limiter = &due[i].limit->zone->handle;
        check.parts[i].text = due[i].charge->subject.data;
        check.parts[i].text_len = due[i].charge->subject.len;
        check.parts[i].cost = due[i].cost;
    }
    kt_status status = ngx_http_keytally_check_all(r, &check, &verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_uint_t decisive = check.compound->tallies[check.compound->decisive_index].part;
    ngx_flag_t shadow = due[0].limit->shadow, admitted = verdict.outcome == KT_ADMITTED;
    ngx_http_keytally_log_refusal(r, ctx, &verdict, shadow, &due[decisive].limit->zone->name);
    ngx_flag_t refused = !admitted && !shadow;
    if (!ctx->has_verdict || (refused && ngx_http_keytally_keeps_verdict_of(r, ctx)))
        ngx_http_keytally_keep_verdict(ctx, NULL, &verdict, check.compound, shadow);
    for (ngx_uint_t i = 0; i < count && admitted; i++) {
        (void)kt_compound_charge(check.compound, i, &due[i].charge->charge);
        ngx_http_keytally_limit_charged(r, ctx, &due[i]);
    }
    if (!refused) return NGX_DECLINED;
    ngx_http_keytally_refund_if_all(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, &verdict);
}

/** Charges limits, all or none. */
static ngx_int_t ngx_http_keytally_limit_some(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                              ngx_http_keytally_due_t *due, ngx_uint_t count) {
    return count == 1 && !due[0].limit->zone->counts_addresses
               ? ngx_http_keytally_limit_one(r, ctx, due)
               : ngx_http_keytally_limit_all(r, ctx, due, count);
}

/**
 * Charges the limits of the location, all or none, in the preaccess phase. A limit in shadow
 * refuses nothing, so each of those is charged for itself, after the others.
 */
ngx_int_t ngx_http_keytally_limit_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->limits == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;

    ngx_http_keytally_due_t due[KT_MAX_PARTS], shadows[KT_MAX_PARTS];
    ngx_uint_t count = 0, shadow_count = 0;
    ngx_int_t rc = NGX_DECLINED;
    ngx_http_keytally_limit_t *limits = klcf->limits->elts;
    for (ngx_uint_t i = 0; i < klcf->limits->nelts; i++) {
        ngx_uint_t *number = limits[i].shadow ? &shadow_count : &count;
        rc = ngx_http_keytally_limit_due(r, ctx, &limits[i],
                                         limits[i].shadow ? &shadows[*number] : &due[*number]);
        if (rc == NGX_OK) (*number)++;
        else if (rc != NGX_DECLINED) break;
    }
    if (rc == NGX_HTTP_BAD_REQUEST) {
        ngx_http_keytally_refund_if_all(r, ctx);
        return ngx_http_keytally_refuse_cost(r, ctx);
    }
    if (rc != NGX_OK && rc != NGX_DECLINED) return rc;
    rc = NGX_DECLINED;
    if (count > 0) rc = ngx_http_keytally_limit_some(r, ctx, due, count);
    for (ngx_uint_t i = 0; i < shadow_count && rc == NGX_DECLINED; i++)
        rc = ngx_http_keytally_limit_some(r, ctx, &shadows[i], 1);
    return rc;
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

/**
 * Checks a key and charges all tallies of the request, or none. The zones that charged the request
 * before are parts with a cost of 0, so that the header fields list them, too.
 */
static kt_status ngx_http_keytally_check_key(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_gate_t *gate, kt_part *key,
                                             ngx_http_keytally_check_t *check,
                                             kt_verdict *verdict) {
    check->compound = NULL;
    if (!gate->is_extended && ctx->zones == 0)
        return kt_gate_check(gate->handle, key->text, key->text_len, key->cost,
                             ngx_http_keytally_now_ms(), verdict);
    ngx_memzero(check->parts, sizeof check->parts);
    check->parts[0] = *key;
    check->count = 1;
    for (ngx_http_keytally_charge_t *charge = ctx->charges; charge != NULL; charge = charge->next) {
        if (charge->zone == NULL || check->count == KT_MAX_PARTS) continue;
        kt_part *zone = &check->parts[check->count++];
        zone->limiter = &charge->zone->handle;
        zone->text = charge->subject.data;
        zone->text_len = charge->subject.len;
    }
    kt_status status = ngx_http_keytally_check_all(r, check, verdict);
    if (status != KT_PART_COUNT) return status;
    /* Those of the key and of the zones are more tallies than there is room for. */
    check->count = 1;
    return ngx_http_keytally_check_all(r, check, verdict);
}

/**
 * Checks the key of the request by the location's gate, and charges it, in the access phase.
 *
 * A gate charges a request once. If it has done so, only the scopes are checked that this location
 * needs.
 */
ngx_int_t ngx_http_keytally_gate_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = klcf->gate;
    if (gate == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    uint64_t bit = (uint64_t)1 << gate->index;
    ngx_flag_t is_charged = (ctx->gates & bit) != 0;
    if (is_charged && klcf->need == NULL) return NGX_OK;

    kt_part key;
    kt_group groups[KT_MAX_TALLIES];
    ngx_int_t cost_rc = NGX_OK;
    ngx_memzero(&key, sizeof key);
    key.gate = gate->handle;
    key.groups = groups;
    if (!is_charged) {
        cost_rc = ngx_http_keytally_groups_get(r, klcf->groups, groups, &key.groups_len);
        ngx_int_t rc = ngx_http_keytally_cost_get(r, &klcf->cost, &key.cost);
        if (cost_rc == NGX_ERROR || rc == NGX_ERROR) return NGX_HTTP_INTERNAL_SERVER_ERROR;
        if (rc != NGX_OK) cost_rc = rc;
        if (cost_rc != NGX_OK) {
            /* Out of range: nothing is charged, and a missing or invalid key is refused first. */
            key.cost = 0;
            key.groups_len = 0;
        }
    }
    if (klcf->need != NULL) {
        key.need = klcf->need->elts;
        key.need_len = klcf->need->nelts;
    }
    ngx_http_keytally_charge_t *charge = ngx_palloc(r->pool, sizeof *charge);
    if (charge == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_str_t api_key = ngx_null_string; /* NULL data means that the field is missing. */
    ngx_uint_t count = ngx_http_keytally_find_key(r, klcf->key_from, &api_key);
    key.text = api_key.data;
    key.text_len = api_key.len;
    ngx_flag_t kept = ngx_http_keytally_keeps_verdict_of(r, ctx);
    kt_verdict other, *verdict = kept && !is_charged ? &ctx->verdict : &other;
    ngx_http_keytally_check_t check;
    check.compound = NULL;
    kt_status status =
        count > 1 ? kt_verdict_duplicate_header(ngx_http_keytally_now_ms(), verdict)
                  : ngx_http_keytally_check_key(r, ctx, gate, &key, &check, verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_http_keytally_log_refusal(r, ctx, verdict, klcf->shadow, &gate->name);
    /* A further check that admits has charged nothing, so the first verdict stays. */
    if (is_charged && verdict->outcome == KT_ADMITTED) return NGX_OK;
    if (kept) {
        ngx_http_keytally_keep_verdict(ctx, gate, verdict, check.compound, klcf->shadow);
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
        if (check.compound == NULL) (void)kt_verdict_charge(verdict, &charge->charge);
        else (void)kt_compound_charge(check.compound, 0, &charge->charge);
        ngx_http_keytally_charge_add(ctx, charge);
    }
    if (admitted || klcf->shadow) return NGX_OK;
    if (verdict->outcome == KT_INVALID_KEY && klcf->failures != NULL)
        return ngx_http_keytally_refuse_invalid_key(r, ctx, verdict, klcf->failures);
    if (ngx_http_keytally_refuses_all(r)) ngx_http_keytally_refund_if_denied(ctx, verdict);
    if (verdict->outcome == KT_ADMITTED) return ngx_http_keytally_refuse_cost(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
}

/**
 * Whether the gate will check the client's request at the end of the access phase, with all groups
 * and scopes of `r`. Then it need not check the auth_request subrequest `r`: if another module
 * refuses `r`, nothing is charged, and a refusal by the gate is the response to the whole request.
 */
static ngx_flag_t ngx_http_keytally_is_checked_later(ngx_http_request_t *r,
                                                     ngx_http_keytally_gate_t *gate) {
    ngx_http_keytally_loc_conf_t *klcf =
        ngx_http_get_module_loc_conf(r->main, ngx_http_keytally_module);
    ngx_http_keytally_loc_conf_t *own = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    return klcf->gate == gate && !klcf->shadow && ngx_http_keytally_is_condition(r) &&
           (own->groups == NULL || own->groups == klcf->groups) &&
           (own->need == NULL || own->need == klcf->need);
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
