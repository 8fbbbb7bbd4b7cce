/*
 * Refunds by outcome: `keytally_refund` lists the statuses of responses that return the charge.
 *
 * The refund is made in the log phase, when nginx is done with the client's request: after the body
 * of a stream, a failed upstream, and every error_page. The list is that of the location that made
 * the charge, so a redirect to another location does not change it.
 */
#include "ngx_http_keytally.h"

/** The lowest and the highest status that the directive takes. */
#define NGX_HTTP_KEYTALLY_MIN_STATUS 100
#define NGX_HTTP_KEYTALLY_MAX_STATUS 599

/** Whether a list has this status. A status that the directive does not take is in no list. */
static ngx_flag_t ngx_http_keytally_has_status(const ngx_http_keytally_statuses_t *statuses,
                                               ngx_uint_t status) {
    if (status < NGX_HTTP_KEYTALLY_MIN_STATUS || status > NGX_HTTP_KEYTALLY_MAX_STATUS) return 0;
    ngx_uint_t bit = status - NGX_HTTP_KEYTALLY_MIN_STATUS;
    return (ngx_flag_t)(statuses->bits[bit / 64] >> (bit % 64) & 1);
}

/** Adds the statuses from `first` to `last` to a list, except 499. */
static void ngx_http_keytally_add_statuses(ngx_http_keytally_statuses_t *statuses, ngx_uint_t first,
                                           ngx_uint_t last) {
    for (ngx_uint_t status = first; status <= last; status++) {
        if (status == NGX_HTTP_CLIENT_CLOSED_REQUEST) continue;
        ngx_uint_t bit = status - NGX_HTTP_KEYTALLY_MIN_STATUS;
        statuses->bits[bit / 64] |= (uint64_t)1 << (bit % 64);
    }
}

/**
 * `keytally_refund STATUS…;` and `keytally_refund off;`. A status is a number, or a class such as
 * 5xx.
 *
 * 499 is in no class and is an error: nginx logs it if the client closed the connection, and a
 * client could close it to get its charge back.
 */
char *ngx_http_keytally_refund_statuses(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    ngx_str_t *words = cf->args->elts;
    if (klcf->refund != NGX_CONF_UNSET_PTR) return "is duplicate";
    klcf->refund = ngx_pcalloc(cf->pool, sizeof *klcf->refund);
    if (klcf->refund == NULL) return NGX_CONF_ERROR;
    /* An empty list, which a subrequest does not replace by that of the client's request. */
    if (cf->args->nelts == 2 && ngx_strcmp(words[1].data, "off") == 0) return NGX_CONF_OK;
    for (ngx_uint_t i = 1; i < cf->args->nelts; i++) {
        u_char *text = words[i].data;
        ngx_int_t status = ngx_atoi(text, words[i].len);
        if (words[i].len == 3 && text[0] >= '1' && text[0] <= '5' && text[1] == 'x' &&
            text[2] == 'x') {
            ngx_uint_t first = 100 * (ngx_uint_t)(text[0] - '0');
            ngx_http_keytally_add_statuses(klcf->refund, first, first + 99);
        } else if (status == NGX_HTTP_CLIENT_CLOSED_REQUEST) {
            return "cannot have 499: a client could close its connection to get its charge back";
        } else if (status >= NGX_HTTP_KEYTALLY_MIN_STATUS &&
                   status <= NGX_HTTP_KEYTALLY_MAX_STATUS) {
            ngx_http_keytally_add_statuses(klcf->refund, (ngx_uint_t)status, (ngx_uint_t)status);
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter %ui of \"keytally_refund\" is neither a status from 100 "
                               "to 599, such as 503, nor a class of them, such as 5xx",
                               i);
            return NGX_CONF_ERROR;
        }
    }
    return NGX_CONF_OK;
}

/**
 * Returns the statuses that return a charge of `r`, or NULL if none does. A subrequest whose
 * location has none gets those of the location of the client's request.
 */
const ngx_http_keytally_statuses_t *ngx_http_keytally_refund_of(ngx_http_request_t *r) {
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->refund == NULL && r != r->main)
        klcf = ngx_http_get_module_loc_conf(r->main, ngx_http_keytally_module);
    return klcf->refund;
}

/**
 * Handles the log phase: refunds the charges whose list has the status that `$status` has. A
 * subrequest that is logged has no charges of its own.
 *
 * A `post_action` runs after the response and sets the status again. Then the status is that of the
 * header fields that were sent.
 */
ngx_int_t ngx_http_keytally_log_handler(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = r == r->main ? ngx_http_keytally_get_ctx(r) : NULL;
    if (ctx == NULL || ctx->charges == NULL) return NGX_OK;
    ngx_uint_t status = r->err_status != 0 ? r->err_status : r->headers_out.status;
    if (r->post_action) status = ctx->sent_status;
    for (ngx_http_keytally_charge_t *charge = ctx->charges; charge != NULL; charge = charge->next)
        if (charge->refund != NULL && ngx_http_keytally_has_status(charge->refund, status))
            ngx_http_keytally_refund_one(ctx, charge);
    ctx->charges = NULL; /* A charge is refunded once. */
    return NGX_OK;
}
