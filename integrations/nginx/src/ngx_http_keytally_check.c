/*
 * Is this request admitted? Limits are asked in the preaccess phase, the gate last of all in the access phase.
 *
 * A request is charged once by each, however often nginx redirects it internally.
 */
#include "ngx_http_keytally.h"

/** Returns nginx's cached reading of the system clock, as every handle declares it to be. */
static uint64_t now_ms(void) {
    ngx_time_t *now = ngx_timeofday();
    return (uint64_t)now->sec * 1000 + now->msec;
}

static void keep(void *data) {
    (void)data;
}

/** nginx forgets a module's context at an internal redirect, but not the request's cleanups: there it is found again. */
ngx_http_keytally_ctx_t *ngx_http_keytally_ctx(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_get_module_ctx(r, ngx_http_keytally_module);
    if (ctx != NULL || (!r->internal && !r->filter_finalize && r == r->main)) return ctx;
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != NULL; cleanup = cleanup->next) {
        if (cleanup->handler != keep) continue;
        ngx_http_set_ctx(r, cleanup->data, ngx_http_keytally_module);
        return cleanup->data;
    }
    return NULL;
}

static ngx_http_keytally_ctx_t *make_ctx(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_ctx(r);
    if (ctx != NULL) return ctx;
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof *ctx);
    if (cleanup == NULL) return NULL;
    ctx = cleanup->data;
    ngx_memzero(ctx, offsetof(ngx_http_keytally_ctx_t, verdict)); /* The verdict is whatever it is until there is one. */
    cleanup->handler = keep;
    ngx_http_set_ctx(r, ctx, ngx_http_keytally_module);
    return ctx;
}

/** Whose headers and key the request has: of a gate, which is what clients care for; of limits, the first one's, or that
 *  which refused. */
static void keep_verdict(ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict, ngx_flag_t shadow) {
    /* A check that writes where the verdict stays saves the copy. */
    if (verdict != &ctx->verdict) ctx->verdict = *verdict;
    ctx->has_verdict = 1;
    ctx->shadowed = shadow && verdict->outcome != KT_ADMITTED;
}

/** The first refusal is what `$keytally_outcome` tells; the log tells each. */
static void tell(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict, ngx_flag_t shadow,
                 ngx_str_t *name) {
    if (verdict->outcome == KT_ADMITTED) return;
    if (ctx->outcome == KT_ADMITTED) {
        ctx->outcome = verdict->outcome;
        ctx->reason = verdict->reason;
    }
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "keytally \"%V\"%s: %s%s%s", name, shadow ? ", shadow" : "",
                  kt_outcome_name(verdict->outcome), verdict->reason == KT_REASON_NONE ? "" : ", ",
                  verdict->reason == KT_REASON_NONE ? "" : kt_reason_name(verdict->reason));
}

static ngx_int_t broken(ngx_http_request_t *r, kt_status status) {
    ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0, "keytally: %s", kt_status_message(status));
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/** What one limit charged, to be given back when a later one refuses. */
typedef struct {
    ngx_http_keytally_zone_t *zone;
    ngx_str_t subject;
    kt_charge charge;
} charged_t;

ngx_int_t ngx_http_keytally_check_limits(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (location->limits == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = make_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;

    charged_t charged[NGX_HTTP_KEYTALLY_MAX_ZONES];
    ngx_uint_t count = 0;
    ngx_int_t answer = NGX_DECLINED;
    ngx_http_keytally_limit_t *limits = location->limits->elts;
    for (ngx_uint_t i = 0; i < location->limits->nelts && answer == NGX_DECLINED; i++) {
        ngx_http_keytally_limit_t *limit = &limits[i];
        uint64_t bit = (uint64_t)1 << limit->zone->number;
        if (ctx->limited & bit) continue;
        ngx_str_t subject;
        uint32_t cost;
        kt_verdict other, *verdict = ctx->has_verdict ? &other : &ctx->verdict;
        if (ngx_http_complex_value(r, &limit->zone->key, &subject) != NGX_OK ||
            ngx_http_keytally_cost_of(r, &limit->cost, &cost) != NGX_OK) {
            answer = NGX_HTTP_INTERNAL_SERVER_ERROR;
            break;
        }
        if (subject.len == 0) continue; /* Nothing to count by, as in limit_req. */
        ctx->limited |= bit;
        kt_status status =
            kt_limiter_check(&limit->zone->handle, subject.data, subject.len, cost, now_ms(), verdict);
        if (status != KT_OK) {
            answer = broken(r, status);
            break;
        }
        tell(r, ctx, verdict, limit->shadow, &limit->zone->name);
        if (verdict->outcome == KT_ADMITTED) charged[count++] = (charged_t){limit->zone, subject, verdict->charge};
        else if (!limit->shadow) answer = NGX_DONE;
        if (!ctx->has_verdict || answer == NGX_DONE) keep_verdict(ctx, verdict, limit->shadow);
    }
    if (answer == NGX_DECLINED) return NGX_DECLINED;

    /* What is refused charges nothing, in none of the limits. */
    for (ngx_uint_t i = 0; i < count; i++) {
        kt_verdict after;
        (void)kt_limiter_refund(&charged[i].zone->handle, charged[i].subject.data, charged[i].subject.len, &charged[i].charge,
                                now_ms(), &after);
    }
    return answer == NGX_DONE ? ngx_http_keytally_refuse(r, &ctx->verdict) : answer;
}

/** The X-API-Key headers: two are one too many, since the next server might pick the other one. */
static ngx_uint_t api_keys(ngx_http_request_t *r, ngx_str_t *first) {
    ngx_uint_t count = 0;
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (header[i].key.len != sizeof "x-api-key" - 1 ||
                ngx_memcmp(header[i].lowcase_key, "x-api-key", sizeof "x-api-key" - 1) != 0)
                continue;
            if (count++ == 0) *first = header[i].value;
        }
    }
    return count;
}

/**
 * Counts an invalid key, whatever the reason: if a revoked key did not count, the answer would reveal that its secret is right.
 *
 * The gate was asked first, so a valid key is never refused here. A full zone refuses nothing.
 */
static ngx_int_t refuse_invalid_key(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_zone_t *zone) {
    ngx_str_t subject;
    kt_verdict counted;
    if (ngx_http_complex_value(r, &zone->key, &subject) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (subject.len == 0) return ngx_http_keytally_refuse(r, &ctx->verdict);
    kt_status status = kt_limiter_check(&zone->handle, subject.data, subject.len, 1, now_ms(), &counted);
    if (status != KT_OK) return broken(r, status);
    if (counted.outcome != KT_DENIED) return ngx_http_keytally_refuse(r, &ctx->verdict);
    tell(r, ctx, &counted, 0, &zone->name);
    ctx->guess_retry_s = counted.retry_after_s;
    return ngx_http_keytally_refuse(r, &counted);
}

ngx_int_t ngx_http_keytally_check_gate(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = location->gate;
    if (gate == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = make_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (ctx->gate == gate) return NGX_OK;

    uint32_t cost;
    if (ngx_http_keytally_cost_of(r, &location->cost, &cost) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_str_t api_key = ngx_null_string; /* Without data there was no header. */
    ngx_uint_t count = api_keys(r, &api_key);
    kt_verdict *verdict = &ctx->verdict;
    kt_status status = count > 1 ? kt_verdict_duplicate_header(now_ms(), verdict)
                                 : kt_gate_check(gate->handle, api_key.data, api_key.len, cost, now_ms(), verdict);
    if (status != KT_OK) return broken(r, status);
    ctx->gate = gate;
    tell(r, ctx, verdict, location->shadow, &gate->name);
    keep_verdict(ctx, verdict, location->shadow);
    if (verdict->outcome == KT_ADMITTED || location->shadow) return NGX_OK;
    if (verdict->outcome == KT_INVALID_KEY && location->failures != NULL) return refuse_invalid_key(r, ctx, location->failures);
    return ngx_http_keytally_refuse(r, verdict);
}
