/*
 * Waits for credits of a fleet. A worker is never blocked: the request leaves its phase, and a
 * timer lets its handler run again.
 */
#include "ngx_http_keytally.h"

/** The longest wait of a request, in milliseconds. */
#define NGX_HTTP_KEYTALLY_WAIT_MS 20

struct ngx_http_keytally_wait_s {
    ngx_http_keytally_wait_t *next; /* of another request with the same context */
    ngx_http_request_t *request;
    ngx_msec_t begin;
    ngx_msec_t delay;      /* before the next attempt */
    unsigned is_waiting:1; /* the last attempt lacked credits */
    ngx_event_t timer;
};

/** Returns the wait of a request or subrequest; NULL if it has not waited. */
static ngx_http_keytally_wait_t *ngx_http_keytally_wait_of(ngx_http_request_t *r,
                                                           ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_wait_t *wait = ctx->waits;
    while (wait != NULL && wait->request != r) wait = wait->next;
    return wait;
}

/** Whether the request is checked again after it has waited. */
ngx_flag_t ngx_http_keytally_has_waited(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_wait_t *wait = ngx_http_keytally_wait_of(r, ctx);
    return wait != NULL && wait->is_waiting;
}

/** Returns what a request does that lacks credits: it waits until 20 ms after the first attempt. */
kt_patience ngx_http_keytally_patience(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_wait_t *wait = ngx_http_keytally_wait_of(r, ctx);
    return wait != NULL && wait->is_waiting &&
                   ngx_current_msec - wait->begin >= NGX_HTTP_KEYTALLY_WAIT_MS
               ? KT_PATIENCE_DECIDE
               : KT_PATIENCE_RETURN;
}

/** Lets the handler of the request run again. */
static void ngx_http_keytally_wait_ended(ngx_event_t *timer) {
    ngx_http_keytally_wait_t *wait = timer->data;
    ngx_http_request_t *r = wait->request;
    ngx_connection_t *connection = r->connection;
    ngx_http_set_log_request(connection->log, r);
    r->write_event_handler(r);
    ngx_http_run_posted_requests(connection);
}

/** Stops the timer of a request that ends while it waits. */
static void ngx_http_keytally_wait_cleanup(void *data) {
    ngx_http_keytally_wait_t *wait = data;
    if (wait->timer.timer_set) ngx_del_timer(&wait->timer);
}

/** Lets the request wait. Returns what its handler returns. */
ngx_int_t ngx_http_keytally_wait(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_wait_t *wait = ngx_http_keytally_wait_of(r, ctx);
    if (wait == NULL) {
        ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof *wait);
        if (cleanup == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
        wait = cleanup->data;
        ngx_memzero(wait, sizeof *wait);
        cleanup->handler = ngx_http_keytally_wait_cleanup;
        wait->request = r;
        wait->timer.handler = ngx_http_keytally_wait_ended;
        wait->timer.data = wait;
        wait->timer.log = r->connection->log;
        wait->next = ctx->waits;
        ctx->waits = wait;
    }
    if (!wait->is_waiting) {
        wait->is_waiting = 1;
        wait->begin = ngx_current_msec;
        wait->delay = 1;
    }
    ngx_msec_t waited = ngx_current_msec - wait->begin;
    ngx_msec_t left = waited < NGX_HTTP_KEYTALLY_WAIT_MS ? NGX_HTTP_KEYTALLY_WAIT_MS - waited : 1;
    ngx_add_timer(&wait->timer, ngx_min(wait->delay, left));
    wait->delay *= 2;
    return NGX_AGAIN;
}

/** Ends the wait of a request that was decided, so that it may wait for another gate. */
void ngx_http_keytally_wait_end(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    ngx_http_keytally_wait_t *wait = ngx_http_keytally_wait_of(r, ctx);
    if (wait != NULL) wait->is_waiting = 0;
}
