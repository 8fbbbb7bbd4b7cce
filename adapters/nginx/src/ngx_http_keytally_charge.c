/*
 * The charges of a request, and their refunds.
 */
#include "ngx_http_keytally.h"

/** Adds a charge to the request. The caller has set its other fields. */
void ngx_http_keytally_charge_add(ngx_http_keytally_ctx_t *ctx,
                                  ngx_http_keytally_charge_t *charge) {
    charge->next = ctx->charges;
    ctx->charges = charge;
}

/**
 * Refunds a gate's charge. If another file has replaced the gate's, refunds nothing: the key of the
 * same id in the new file was not charged.
 */
static void ngx_http_keytally_refund_gate(ngx_http_keytally_ctx_t *ctx,
                                          ngx_http_keytally_charge_t *charge) {
    ngx_http_keytally_gate_t *gate = charge->gate;
    kt_verdict after;
    ctx->gates &= ~((uint64_t)1 << gate->index);
    if (ngx_http_keytally_gate_is_same_file(charge->file, gate->file))
        (void)kt_gate_refund(gate->handle, charge->key_id, &charge->charge,
                             ngx_http_keytally_now_ms(), &after);
}

/** Refunds a zone's charge. */
static void ngx_http_keytally_refund_zone(ngx_http_keytally_ctx_t *ctx,
                                          ngx_http_keytally_charge_t *charge) {
    ngx_http_keytally_zone_t *zone = charge->zone;
    kt_verdict after;
    ctx->zones &= ~((uint64_t)1 << zone->index);
    (void)kt_limiter_refund(&zone->handle, charge->subject.data, charge->subject.len,
                            &charge->charge, ngx_http_keytally_now_ms(), &after);
}

/** Refunds a charge. The caller removes it from the request, so that it is refunded once. */
void ngx_http_keytally_refund_one(ngx_http_keytally_ctx_t *ctx,
                                  ngx_http_keytally_charge_t *charge) {
    if (charge->zone != NULL) ngx_http_keytally_refund_zone(ctx, charge);
    else ngx_http_keytally_refund_gate(ctx, charge);
}

/** Refunds all charges of the request. */
void ngx_http_keytally_refund(ngx_http_keytally_ctx_t *ctx) {
    for (; ctx->charges != NULL; ctx->charges = ctx->charges->next)
        ngx_http_keytally_refund_one(ctx, ctx->charges);
}

/**
 * Refunds all charges of a request that `verdict` refuses, unless its key is missing or invalid:
 * zones count requests without a valid key.
 */
void ngx_http_keytally_refund_if_denied(ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict) {
    if (verdict->outcome != KT_INVALID_KEY && verdict->outcome != KT_MISSING_KEY)
        ngx_http_keytally_refund(ctx);
}
