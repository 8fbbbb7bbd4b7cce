/*
 * Is this request admitted? Limits are asked in the preaccess phase, the gate last of all in the
 * access phase. nginx runs no access phase in subrequests: there the gate is asked in the preaccess
 * phase, too.
 *
 * A request is charged once by each, however often nginx redirects it internally, and with all its
 * subrequests. If a later one refuses it, the earlier ones give back their charges.
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

/**
 * Returns the context of a client's request, also to its subrequests; NULL when it has none yet.
 *
 * nginx forgets a module's context at an internal redirect, but not the request's cleanups: there
 * it is found again.
 */
ngx_http_keytally_ctx_t *ngx_http_keytally_ctx(ngx_http_request_t *r) {
    r = r->main;
    ngx_http_keytally_ctx_t *ctx = ngx_http_get_module_ctx(r, ngx_http_keytally_module);
    if (ctx != NULL || (!r->internal && !r->filter_finalize)) return ctx;
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
    ngx_http_set_ctx(r->main, ctx, ngx_http_keytally_module);
    return ctx;
}

/** Whose headers and key the request has: of a gate, which is what clients care for; of limits, the first one's, or that
 *  which refused. */
static void keep_verdict(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_gate_t *gate, const kt_verdict *verdict,
                         ngx_flag_t shadow) {
    /* A check that writes where the verdict stays saves the copy. */
    if (verdict != &ctx->verdict) ctx->verdict = *verdict;
    ctx->gate = gate;
    ctx->has_verdict = 1;
    ctx->shadowed = shadow && verdict->outcome != KT_ADMITTED;
}

/**
 * Whether this is a subrequest of auth_request without which the request is refused. One that is
 * let through leaves the rest of the access phase to be passed.
 *
 * With `satisfy any`, neither holds. A subrequest of mirror may run while the request waits for
 * one of auth_request, after an internal redirect.
 */
static ngx_flag_t is_condition(ngx_http_request_t *r) {
    ngx_http_core_main_conf_t *phases = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    ngx_http_core_loc_conf_t *location = ngx_http_get_module_loc_conf(r->main, ngx_http_core_module);
    return r->header_only && !r->background && r->parent == r->main && location->satisfy == NGX_HTTP_SATISFY_ALL &&
           phases->phase_engine.handlers[r->main->phase_handler].checker == ngx_http_core_access_phase;
}

/** Whether a refusal here is one of the client's whole request. */
static ngx_flag_t refuses_all(ngx_http_request_t *r) {
    return r == r->main || is_condition(r);
}

/**
 * Whether a verdict is told to the client: one in a subrequest that refuses nothing else is not,
 * where a gate has told its own.
 */
static ngx_flag_t decides(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    return refuses_all(r) || ctx->gate == NULL;
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

static void remember(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_charged_t *charged, const kt_verdict *verdict) {
    charged->charge = verdict->charge;
    charged->next = ctx->charged;
    ctx->charged = charged;
}

/**
 * Gives back what a gate charged. Where the gate's file was replaced meanwhile, a key of the same
 * id was not charged.
 */
static void give_back_to_gate(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_charged_t *charged) {
    ngx_http_keytally_gate_t *gate = charged->gate;
    kt_verdict after;
    ctx->gates &= ~((uint64_t)1 << gate->number);
    if (ngx_http_keytally_gate_is_same_file(charged->file, gate->file))
        (void)kt_gate_refund(gate->handle, charged->key_id, &charged->charge, now_ms(), &after);
}

static void give_back_to_zone(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_charged_t *charged) {
    ngx_http_keytally_zone_t *zone = charged->zone;
    kt_verdict after;
    ctx->zones &= ~((uint64_t)1 << zone->number);
    (void)kt_limiter_refund(&zone->handle, charged->subject.data, charged->subject.len, &charged->charge, now_ms(), &after);
}

/**
 * Gives back what was charged after `until`: what is refused charges nothing, in no zone and no
 * gate.
 */
static void give_back(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_charged_t *until) {
    for (; ctx->charged != until; ctx->charged = ctx->charged->next) {
        if (ctx->charged->zone != NULL) give_back_to_zone(ctx, ctx->charged);
        else give_back_to_gate(ctx, ctx->charged);
    }
}

/** Gives back all that was charged, unless the verdict is on a request without a valid key. */
static void give_back_if_denied(ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict) {
    if (verdict->outcome != KT_INVALID_KEY && verdict->outcome != KT_MISSING_KEY) give_back(ctx, NULL);
}

void ngx_http_keytally_give_back_if_denied(ngx_http_keytally_ctx_t *ctx) {
    give_back_if_denied(ctx, &ctx->verdict);
}

ngx_int_t ngx_http_keytally_check_limits(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (location->limits == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = make_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;

    ngx_http_keytally_charged_t *before = ctx->charged;
    kt_verdict other, *verdict = NULL;
    ngx_int_t answer = NGX_DECLINED;
    ngx_http_keytally_limit_t *limits = location->limits->elts;
    for (ngx_uint_t i = 0; i < location->limits->nelts && answer == NGX_DECLINED; i++) {
        ngx_http_keytally_limit_t *limit = &limits[i];
        uint64_t bit = (uint64_t)1 << limit->zone->number;
        if (ctx->zones & bit) continue;
        uint32_t cost;
        ngx_http_keytally_charged_t *charged = ngx_palloc(r->pool, sizeof *charged);
        verdict = ctx->has_verdict ? &other : &ctx->verdict;
        if (charged == NULL || ngx_http_complex_value(r, &limit->zone->key, &charged->subject) != NGX_OK) {
            answer = NGX_HTTP_INTERNAL_SERVER_ERROR;
            break;
        }
        ngx_str_t *subject = &charged->subject;
        if (subject->len == 0) continue; /* Nothing to count by, as in limit_req. */
        ngx_int_t found = ngx_http_keytally_cost_of(r, &limit->cost, &cost);
        if (found == NGX_DECLINED && limit->shadow) continue;
        if (found != NGX_OK) {
            answer = found == NGX_DECLINED ? NGX_HTTP_BAD_REQUEST : NGX_HTTP_INTERNAL_SERVER_ERROR;
            break;
        }
        kt_status status = kt_limiter_check(&limit->zone->handle, subject->data, subject->len, cost, now_ms(), verdict);
        if (status != KT_OK) {
            answer = broken(r, status);
            break;
        }
        tell(r, ctx, verdict, limit->shadow, &limit->zone->name);
        if (verdict->outcome == KT_ADMITTED) {
            ctx->zones |= bit;
            charged->zone = limit->zone;
            remember(ctx, charged, verdict);
        } else if (!limit->shadow) {
            answer = NGX_DONE;
        }
        if (!ctx->has_verdict || (answer == NGX_DONE && decides(r, ctx))) keep_verdict(ctx, NULL, verdict, limit->shadow);
    }
    if (answer == NGX_DECLINED) return NGX_DECLINED;

    give_back(ctx, refuses_all(r) ? NULL : before);
    if (answer == NGX_HTTP_BAD_REQUEST) return ngx_http_keytally_refuse_cost(r, ctx);
    return answer == NGX_DONE ? ngx_http_keytally_refuse(r, ctx, verdict) : answer;
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
 * The gate was asked first, so a valid key is never refused here. A full zone refuses nothing. A
 * request counts once.
 */
static ngx_int_t refuse_invalid_key(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, const kt_verdict *invalid,
                                    ngx_http_keytally_zone_t *zone) {
    ngx_str_t subject;
    kt_verdict counted;
    if (ctx->guess_counted) return ngx_http_keytally_refuse(r, ctx, invalid);
    if (ngx_http_complex_value(r, &zone->key, &subject) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (subject.len == 0) return ngx_http_keytally_refuse(r, ctx, invalid);
    kt_status status = kt_limiter_check(&zone->handle, subject.data, subject.len, 1, now_ms(), &counted);
    if (status != KT_OK) return broken(r, status);
    ctx->guess_counted = 1;
    if (counted.outcome != KT_DENIED) return ngx_http_keytally_refuse(r, ctx, invalid);
    tell(r, ctx, &counted, 0, &zone->name);
    ctx->guess_retry_s = counted.retry_after_s;
    return ngx_http_keytally_refuse(r, ctx, &counted);
}

ngx_int_t ngx_http_keytally_check_gate(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    ngx_http_keytally_gate_t *gate = location->gate;
    if (gate == NULL) return NGX_DECLINED;
    ngx_http_keytally_ctx_t *ctx = make_ctx(r);
    if (ctx == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    uint64_t bit = (uint64_t)1 << gate->number;
    if (ctx->gates & bit) return NGX_OK;

    uint32_t cost; /* 0 when it is out of range: then the key is asked for all the same. */
    ngx_int_t found = ngx_http_keytally_cost_of(r, &location->cost, &cost);
    ngx_http_keytally_charged_t *charged = ngx_palloc(r->pool, sizeof *charged);
    if (found == NGX_ERROR || charged == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_str_t api_key = ngx_null_string; /* Without data there was no header. */
    ngx_uint_t count = api_keys(r, &api_key);
    ngx_flag_t kept = decides(r, ctx);
    kt_verdict other, *verdict = kept ? &ctx->verdict : &other;
    kt_status status = count > 1 ? kt_verdict_duplicate_header(now_ms(), verdict)
                                 : kt_gate_check(gate->handle, api_key.data, api_key.len, cost, now_ms(), verdict);
    if (status != KT_OK) return broken(r, status);
    tell(r, ctx, verdict, location->shadow, &gate->name);
    if (kept) keep_verdict(ctx, gate, verdict, location->shadow);
    ngx_flag_t admitted = verdict->outcome == KT_ADMITTED && found == NGX_OK;
    if (admitted) {
        ctx->gates |= bit;
        charged->zone = NULL;
        charged->gate = gate;
        charged->file = gate->file;
        charged->key_id = verdict->key_id;
        remember(ctx, charged, verdict);
    }
    if (admitted || location->shadow) return NGX_OK;
    if (verdict->outcome == KT_INVALID_KEY && location->failures != NULL)
        return refuse_invalid_key(r, ctx, verdict, location->failures);
    if (refuses_all(r)) give_back_if_denied(ctx, verdict);
    if (verdict->outcome == KT_ADMITTED) return ngx_http_keytally_refuse_cost(r, ctx);
    return ngx_http_keytally_refuse(r, ctx, verdict);
}

/**
 * Whether the request itself will be asked for a key of this gate, at the end of its access phase.
 * Then its subrequest need not be: what that refuses is charged nothing, and a refusal is the
 * request's whole answer.
 */
static ngx_flag_t is_asked_later(ngx_http_request_t *r, ngx_http_keytally_gate_t *gate) {
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r->main, ngx_http_keytally_module);
    return location->gate == gate && !location->shadow && is_condition(r);
}

/** Asks the gate of a subrequest, in which nginx runs no access phase. */
ngx_int_t ngx_http_keytally_check_subrequest(ngx_http_request_t *r) {
    if (r == r->main) return NGX_DECLINED;
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (location->gate != NULL && is_asked_later(r, location->gate)) return NGX_DECLINED;
    return ngx_http_keytally_check_gate(r);
}
