/*
 * The phase handlers: they check whether a request is admitted.
 *
 * The gate is checked last in the access phase. The limits of a location with a gate are charged
 * together with the key, all or none. Without a gate, limits are checked last in the preaccess
 * phase. nginx runs no access phase in subrequests: there all are checked in the preaccess phase.
 *
 * If a gate in a fleet lacks credits, the request waits for them, and its handler runs again.
 *
 * Each zone and each gate charges a client's request once, with all its internal redirects and
 * subrequests. If one of another location refuses the request, the earlier charges are refunded.
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

/** Charges all parts or none, or only peeks at them. Sets `verdict` to the decisive one. */
static kt_status ngx_http_keytally_check_all(ngx_http_request_t *r,
                                             ngx_http_keytally_check_t *check, ngx_flag_t charges,
                                             kt_verdict *verdict) {
    check->compound = ngx_palloc(r->pool, sizeof *check->compound);
    if (check->compound == NULL) return KT_NO_MEMORY;
    kt_status status = (charges ? kt_check_all : kt_peek_all)(
        check->parts, check->count, ngx_http_keytally_now_ms(), check->compound);
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
    const char *why = NULL;
    if (verdict->reason != KT_REASON_NONE) why = kt_reason_name(verdict->reason);
    if (verdict->unavailability != KT_UNAVAILABILITY_NONE)
        why = kt_unavailability_name(verdict->unavailability);
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "keytally \"%V\"%s: %s%s%s", name,
                  shadow ? ", shadow" : "", kt_outcome_name(verdict->outcome),
                  why == NULL ? "" : ", ", why == NULL ? "" : why);
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

/** Keeps the verdict of limits if the request has none or if they refuse. */
static void ngx_http_keytally_keep_limits(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                          const kt_verdict *verdict, kt_compound *compound,
                                          ngx_flag_t shadow) {
    ngx_flag_t refused = verdict->outcome != KT_ADMITTED && !shadow;
    if (!ctx->has_verdict || (refused && ngx_http_keytally_keeps_verdict_of(r, ctx)))
        ngx_http_keytally_keep_verdict(ctx, NULL, verdict, compound, shadow);
}

/** Refuses a request that limits refuse, and refunds its charges if that refuses all of it. */
static ngx_int_t ngx_http_keytally_refuse_by_limits(ngx_http_request_t *r,
                                                    ngx_http_keytally_ctx_t *ctx,
                                                    const kt_verdict *verdict) {
    ngx_http_keytally_refund_if_all(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
}

/** Charges one limit, or only peeks at it. */
static ngx_int_t ngx_http_keytally_limit_one(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_due_t *due, ngx_flag_t charges) {
    ngx_http_keytally_zone_t *zone = due->limit->zone;
    ngx_str_t *subject = &due->charge->subject;
    kt_verdict other, *verdict = ctx->has_verdict ? &other : &ctx->verdict;
    kt_status status = (charges ? kt_limiter_check : kt_limiter_peek)(
        &zone->handle, subject->data, subject->len, due->cost, ngx_http_keytally_now_ms(), verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_flag_t shadow = due->limit->shadow, admitted = verdict->outcome == KT_ADMITTED;
    if (admitted && !charges) return NGX_DECLINED;
    ngx_http_keytally_log_refusal(r, ctx, verdict, shadow, &zone->name);
    if (admitted) {
        (void)kt_verdict_charge(verdict, &due->charge->charge);
        ngx_http_keytally_limit_charged(r, ctx, due);
    }
    ngx_http_keytally_keep_limits(r, ctx, verdict, NULL, shadow);
    return admitted || shadow ? NGX_DECLINED : ngx_http_keytally_refuse_by_limits(r, ctx, verdict);
}

/** Adds limits to a check, each as a part. */
static void ngx_http_keytally_add_limits(ngx_http_keytally_check_t *check,
                                         ngx_http_keytally_due_t *due, ngx_uint_t count) {
    for (ngx_uint_t i = 0; i < count; i++) {
        kt_part *part = &check->parts[check->count++];
        part->limiter = &due[i].limit->zone->handle;
        part->text = due[i].charge->subject.data;
        part->text_len = due[i].charge->subject.len;
        part->cost = due[i].cost;
    }
}

/**
 * Charges several tallies of limits, all or none, or only peeks at them. All limits are in shadow,
 * or none is.
 */
static ngx_int_t ngx_http_keytally_limit_all(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_http_keytally_due_t *due, ngx_uint_t count,
                                             ngx_flag_t charges) {
    ngx_http_keytally_check_t check;
    kt_verdict verdict;
    ngx_memzero(&check, sizeof check);
    ngx_http_keytally_add_limits(&check, due, count);
    kt_status status = ngx_http_keytally_check_all(r, &check, charges, &verdict);
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    ngx_uint_t decisive = check.compound->tallies[check.compound->decisive_index].part;
    ngx_flag_t shadow = due[0].limit->shadow, admitted = verdict.outcome == KT_ADMITTED;
    if (admitted && !charges) return NGX_DECLINED;
    ngx_http_keytally_log_refusal(r, ctx, &verdict, shadow, &due[decisive].limit->zone->name);
    ngx_http_keytally_keep_limits(r, ctx, &verdict, check.compound, shadow);
    /* The last charge is the first of the list, so that fields name the limits in their order. */
    for (ngx_uint_t i = count; i > 0 && admitted; i--) {
        (void)kt_compound_charge(check.compound, i - 1, &due[i - 1].charge->charge);
        ngx_http_keytally_limit_charged(r, ctx, &due[i - 1]);
    }
    return admitted || shadow ? NGX_DECLINED : ngx_http_keytally_refuse_by_limits(r, ctx, &verdict);
}

/** Charges limits, all or none, or only peeks at them: if one lacks room, the request is refused. */
static ngx_int_t ngx_http_keytally_limit_some(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                              ngx_http_keytally_due_t *due, ngx_uint_t count,
                                              ngx_flag_t charges) {
    if (count == 0) return NGX_DECLINED;
    return count == 1 && !due[0].limit->zone->counts_addresses
               ? ngx_http_keytally_limit_one(r, ctx, due, charges)
               : ngx_http_keytally_limit_all(r, ctx, due, count, charges);
}

/** The limits of a location that charge a request. */
typedef struct {
    ngx_http_keytally_due_t due[KT_MAX_PARTS];
    ngx_http_keytally_due_t shadows[KT_MAX_PARTS];
    ngx_uint_t count;
    ngx_uint_t shadow_count;
} ngx_http_keytally_limits_t;

/**
 * Finds the limits of the location that charge a request. Returns `NGX_OK`, or what the handler
 * returns for a request that ends here.
 */
static ngx_int_t ngx_http_keytally_limits_due(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                              ngx_array_t *all,
                                              ngx_http_keytally_limits_t *limits) {
    ngx_http_keytally_limit_t *limit = all->elts;
    for (ngx_uint_t i = 0; i < all->nelts; i++) {
        ngx_uint_t *count = limit[i].shadow ? &limits->shadow_count : &limits->count;
        ngx_http_keytally_due_t *due = limit[i].shadow ? limits->shadows : limits->due;
        ngx_int_t rc = ngx_http_keytally_limit_due(r, ctx, &limit[i], &due[*count]);
        if (rc == NGX_HTTP_BAD_REQUEST) {
            ngx_http_keytally_refund_if_all(r, ctx);
            return ngx_http_keytally_refuse_cost(r, ctx);
        }
        if (rc == NGX_OK) (*count)++;
        else if (rc != NGX_DECLINED) return rc;
    }
    return NGX_OK;
}

/**
 * Charges the limits, all or none, or only peeks at them. A limit in shadow refuses nothing, so
 * each of those is charged for itself, after the others.
 */
static ngx_int_t ngx_http_keytally_limit(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                         ngx_http_keytally_limits_t *limits, ngx_flag_t charges) {
    ngx_int_t rc = ngx_http_keytally_limit_some(r, ctx, limits->due, limits->count, charges);
    for (ngx_uint_t i = 0; i < limits->shadow_count && rc == NGX_DECLINED; i++)
        rc = ngx_http_keytally_limit_some(r, ctx, &limits->shadows[i], 1, 1);
    return rc;
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
 * Whether the gate of the location will charge the limits of the location, too. With `satisfy any`,
 * it may not be checked. In shadow, it refuses nothing, so it charges for itself.
 */
static ngx_flag_t ngx_http_keytally_defers_limits(ngx_http_request_t *r,
                                                  ngx_http_keytally_ctx_t *ctx) {
    ngx_http_core_loc_conf_t *clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = klcf->gate;
    if (gate == NULL || klcf->shadow || ctx->gates & (uint64_t)1 << gate->index) return 0;
    return r == r->main ? clcf->satisfy == NGX_HTTP_SATISFY_ALL
                        : !ngx_http_keytally_is_checked_later(r, gate);
}

/** Charges the limits of the location in the preaccess phase, unless its gate will. */
ngx_int_t ngx_http_keytally_limit_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->limits == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_flag_t is_deferred = ngx_http_keytally_defers_limits(r, ctx);
    /* A subrequest may charge the gate before the client's request reaches it. */
    if (r == r->main) ctx->limits_deferred = is_deferred;
    if (is_deferred) return NGX_DECLINED;
    ngx_http_keytally_limits_t limits;
    limits.count = limits.shadow_count = 0;
    ngx_int_t rc = ngx_http_keytally_limits_due(r, ctx, klcf->limits, &limits);
    return rc == NGX_OK ? ngx_http_keytally_limit(r, ctx, &limits, 1) : rc;
}

/** Whether the limits of the location were left to its gate, which is checked now. */
static ngx_flag_t ngx_http_keytally_takes_limits(ngx_http_request_t *r,
                                                 ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->limits == NULL) return 0;
    /* In a subrequest, this handler follows that of limits at once. */
    return r == r->main ? ctx->limits_deferred : ngx_http_keytally_defers_limits(r, ctx);
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
 * Checks a key and charges all tallies of the request and the limits that are due, or none. The
 * zones that charged the request before are parts with a cost of 0, so that the header fields list
 * them, too. Returns `KT_PART_COUNT` if the tallies of the key and of the limits are too many.
 */
static kt_status ngx_http_keytally_check_key(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             kt_part *key, ngx_http_keytally_due_t *due,
                                             ngx_uint_t count, ngx_http_keytally_check_t *check,
                                             kt_verdict *verdict) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    check->compound = NULL;
    if (!klcf->gate->is_extended && count == 0 && ctx->zones == 0)
        return (key->patience == KT_PATIENCE_WAIT     ? kt_gate_check
                : key->patience == KT_PATIENCE_RETURN ? kt_gate_try_check
                                                      : kt_gate_check_without_wait)(
            key->gate, key->text, key->text_len, key->cost, ngx_http_keytally_now_ms(), verdict);
    if (count == KT_MAX_PARTS) return KT_PART_COUNT;
    ngx_memzero(check->parts, sizeof check->parts);
    check->parts[0] = *key;
    check->count = 1;
    ngx_http_keytally_add_limits(check, due, count);
    for (ngx_http_keytally_charge_t *charge = ctx->charges; charge != NULL; charge = charge->next) {
        if (charge->zone == NULL || check->count == KT_MAX_PARTS) continue;
        kt_part *zone = &check->parts[check->count++];
        zone->limiter = &charge->zone->handle;
        zone->text = charge->subject.data;
        zone->text_len = charge->subject.len;
    }
    kt_status status = ngx_http_keytally_check_all(r, check, 1, verdict);
    if (status == KT_PART_COUNT) {
        /* There is no room for the tallies of the zones that charged the request before. */
        check->count = 1 + count;
        status = ngx_http_keytally_check_all(r, check, 1, verdict);
    }
    if (status == KT_OK)
        ngx_http_keytally_report_crossed(r, ctx, klcf->gate, check->compound);
    return status;
}

/**
 * Checks the key of the request, as `ngx_http_keytally_check_key` does. A field that is there twice
 * is an invalid key.
 */
static kt_status ngx_http_keytally_verify(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                          kt_part *key, ngx_http_keytally_due_t *due,
                                          ngx_uint_t count, ngx_http_keytally_check_t *check,
                                          kt_verdict *verdict) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_str_t api_key = ngx_null_string; /* NULL data means that the field is missing. */
    check->compound = NULL;
    if (ngx_http_keytally_find_key(r, klcf->key_from, &api_key) > 1)
        return kt_verdict_duplicate_header(ngx_http_keytally_now_ms(), verdict);
    key->text = api_key.data;
    key->text_len = api_key.len;
    return ngx_http_keytally_check_key(r, ctx, key, due, count, check, verdict);
}

/** Whether a verdict is that of a request without a valid key. */
static ngx_flag_t ngx_http_keytally_has_no_key(const kt_verdict *verdict) {
    return verdict->outcome == KT_MISSING_KEY || verdict->outcome == KT_INVALID_KEY;
}

/** Returns the tally of the first limit that refuses the request; NULL if none does. */
static const kt_tally *ngx_http_keytally_refusing_limit(const ngx_http_keytally_check_t *check,
                                                        ngx_uint_t count) {
    if (check->compound == NULL) return NULL;
    for (ngx_uint_t i = 0; i < check->compound->tally_count; i++) {
        const kt_tally *tally = &check->compound->tallies[i];
        if (tally->part >= 1 && tally->part <= count && tally->verdict.outcome != KT_ADMITTED)
            return tally;
    }
    return NULL;
}

/**
 * Checks the key of the request by the location's gate, and charges it, in the access phase. The
 * limits that were left to the gate are charged with it, all or none.
 *
 * A gate charges a request once. If it has done so, only the scopes are checked that this location
 * needs.
 *
 * Limits that lack room refuse the request before the key is read, so that a client beyond its
 * limit cannot guess keys. For the same reason, a request without a valid key is charged to the
 * limits alone.
 */
ngx_int_t ngx_http_keytally_gate_handler(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = klcf->gate;
    if (gate == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_create_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    uint64_t bit = (uint64_t)1 << gate->index;
    ngx_flag_t is_charged = (ctx->gates & bit) != 0;
    ngx_http_keytally_limits_t limits;
    limits.count = limits.shadow_count = 0;
    if (ngx_http_keytally_takes_limits(r, ctx)) {
        ngx_int_t rc = ngx_http_keytally_limits_due(r, ctx, klcf->limits, &limits);
        /* Those in shadow were charged or logged before the wait. */
        if (ngx_http_keytally_has_waited(r, ctx)) limits.shadow_count = 0;
        if (rc == NGX_OK) rc = ngx_http_keytally_limit(r, ctx, &limits, is_charged);
        if (rc != NGX_DECLINED) return rc;
        if (is_charged) limits.count = 0;
    }
    if (is_charged && klcf->need == NULL) return NGX_OK;

    kt_part key;
    kt_group groups[KT_MAX_TALLIES];
    ngx_int_t cost_rc = NGX_OK;
    ngx_memzero(&key, sizeof key);
    key.gate = gate->handle;
    /* Without a fleet, there is nothing to wait for. */
    if (gate->fleet_path.len > 0) key.patience = ngx_http_keytally_patience(r, ctx);
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
    ngx_flag_t kept = ngx_http_keytally_keeps_verdict_of(r, ctx);
    kt_verdict other, *verdict = kept && !is_charged ? &ctx->verdict : &other;
    ngx_http_keytally_check_t check;
    ngx_uint_t together = cost_rc == NGX_OK ? limits.count : 0;
    kt_status status =
        ngx_http_keytally_verify(r, ctx, &key, limits.due, together, &check, verdict);
    if (limits.count > 0 &&
        (status == KT_PART_COUNT || (status == KT_OK && ngx_http_keytally_has_no_key(verdict)))) {
        ngx_int_t rc = ngx_http_keytally_limit_some(r, ctx, limits.due, limits.count, 1);
        if (rc != NGX_DECLINED) return rc;
        together = 0;
        status = ngx_http_keytally_verify(r, ctx, &key, NULL, 0, &check, verdict);
    }
    if (status != KT_OK) return ngx_http_keytally_fail(r, status);
    if (verdict->unavailability == KT_UNAVAILABILITY_WAITING) return ngx_http_keytally_wait(r, ctx);
    ngx_http_keytally_wait_end(r, ctx);
    const kt_tally *refusing = ngx_http_keytally_refusing_limit(&check, together);
    if (refusing != NULL && verdict->outcome != KT_FORBIDDEN) {
        /* Another request has spent the room since it was read. The key's quotas are not shown. */
        kt_verdict its = refusing->verdict;
        ngx_str_t *name = &limits.due[refusing->part - 1].limit->zone->name;
        ngx_http_keytally_log_refusal(r, ctx, &its, 0, name);
        ngx_http_keytally_keep_limits(r, ctx, &its, NULL, 0);
        return ngx_http_keytally_refuse_by_limits(r, ctx, &its);
    }
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
        for (ngx_uint_t i = 0; i < together; i++) {
            (void)kt_compound_charge(check.compound, i + 1, &limits.due[i].charge->charge);
            ngx_http_keytally_limit_charged(r, ctx, &limits.due[i]);
        }
    }
    if (admitted || klcf->shadow) return NGX_OK;
    if (verdict->outcome == KT_INVALID_KEY && klcf->failures != NULL)
        return ngx_http_keytally_refuse_invalid_key(r, ctx, verdict, klcf->failures);
    if (ngx_http_keytally_refuses_all(r)) ngx_http_keytally_refund_if_denied(ctx, verdict);
    if (verdict->outcome == KT_ADMITTED) return ngx_http_keytally_refuse_cost(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
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
