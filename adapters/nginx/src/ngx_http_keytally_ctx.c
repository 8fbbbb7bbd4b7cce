/*
 * The context of a client's request.
 */
#include "ngx_http_keytally.h"

/** Does nothing. Its address marks the cleanup of the request that holds the context. */
static void ngx_http_keytally_ctx_cleanup(void *data) {
    (void)data;
}

/**
 * Returns the context of the client's request that `r` belongs to, or NULL if it has none yet.
 *
 * At an internal redirect, nginx clears the module's context but keeps the request's cleanups. One
 * of them holds the context.
 */
ngx_http_keytally_ctx_t *ngx_http_keytally_get_ctx(ngx_http_request_t *r) {
    r = r->main;
    ngx_http_keytally_ctx_t *ctx = ngx_http_get_module_ctx(r, ngx_http_keytally_module);
    if (ctx != NULL || (!r->internal && !r->filter_finalize)) return ctx;
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != NULL; cleanup = cleanup->next) {
        if (cleanup->handler != ngx_http_keytally_ctx_cleanup) continue;
        ngx_http_set_ctx(r, cleanup->data, ngx_http_keytally_module);
        return cleanup->data;
    }
    return NULL;
}

/** Returns the context of a request, and creates it if needed. Returns NULL if memory ran out. */
ngx_http_keytally_ctx_t *ngx_http_keytally_create_ctx(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_get_ctx(r);
    if (ctx != NULL) return ctx;
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof *ctx);
    if (cleanup == NULL) return NULL;
    ctx = cleanup->data;
    /* The verdict, at the end, is not read while `has_verdict` is 0. */
    ngx_memzero(ctx, offsetof(ngx_http_keytally_ctx_t, verdict));
    cleanup->handler = ngx_http_keytally_ctx_cleanup;
    ngx_http_set_ctx(r->main, ctx, ngx_http_keytally_module);
    return ctx;
}
