/*
 * The response to a refused request.
 */
#include "ngx_http_keytally.h"

/** Sends the refusal that the request's context holds. */
static ngx_int_t ngx_http_keytally_send_refusal(ngx_http_request_t *r,
                                                ngx_http_keytally_ctx_t *ctx) {
    static ngx_str_t json = ngx_string("application/json");
    ngx_http_complex_value_t body;
    ngx_memzero(&body, sizeof body);
    body.value.data = (u_char *)(size_t)ctx->refusal_body;
    body.value.len = ngx_strlen(body.value.data);
    ngx_uint_t status = ctx->refusal_status;
    /* auth_request reads only the status. A refusal other than 401 and 403 is an error to it. */
    if (r != r->main && r->header_only && status != NGX_HTTP_UNAUTHORIZED)
        status = NGX_HTTP_FORBIDDEN;
    return ngx_http_send_response(r, status, &json, &body);
}

/**
 * Whether nginx would replace a response of this status by a page of `error_page`. A page that is
 * refused in its turn is not replaced, unless `recursive_error_pages` is on.
 */
static ngx_flag_t ngx_http_keytally_has_page(ngx_http_request_t *r, ngx_uint_t status) {
    ngx_http_core_loc_conf_t *clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    if (r->error_page || clcf->error_pages == NULL || r->uri_changes == 0) return 0;
    ngx_http_err_page_t *pages = clcf->error_pages->elts;
    for (ngx_uint_t i = 0; i < clcf->error_pages->nelts; i++)
        if (pages[i].status == (ngx_int_t)status) return 1;
    return 0;
}

/**
 * Refuses the request. error_page replaces this response only with `keytally_error_page`: clients
 * depend on its body.
 */
static ngx_int_t ngx_http_keytally_refuse_by(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                             ngx_uint_t status, const char *body) {
    ctx->refusal_status = status;
    ctx->refusal_body = body;
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (klcf->error_page && r == r->main && ngx_http_keytally_has_page(r, status)) {
        ngx_http_finalize_request(r, (ngx_int_t)status);
        return NGX_DONE;
    }
    ngx_http_finalize_request(r, ngx_http_keytally_send_refusal(r, ctx));
    return NGX_DONE;
}

/**
 * Refuses a request with the status and the body of the verdict. If the key need not be in
 * X-API-Key, the body does not name that field.
 */
ngx_int_t ngx_http_keytally_refuse(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                   const kt_verdict *verdict) {
    const char *body = kt_verdict_body(verdict);
    if (verdict->outcome == KT_MISSING_KEY && ctx->challenges != NULL)
        body = "{\"error\": \"Missing API key\"}";
    return ngx_http_keytally_refuse_by(r, ctx, verdict->http_status, body);
}

/** Refuses a request whose cost is out of range. */
ngx_int_t ngx_http_keytally_refuse_cost(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    return ngx_http_keytally_refuse_by(r, ctx, NGX_HTTP_BAD_REQUEST,
                                       "{\"error\": \"Cost out of range\"}");
}

/**
 * Handles a location with `keytally_refusal`: sends the refusal of an auth_request subrequest. If
 * there was none, responds with 403.
 */
ngx_int_t ngx_http_keytally_refusal_handler(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_get_ctx(r);
    if (ctx == NULL || ctx->refusal_status == 0) return NGX_HTTP_FORBIDDEN;
    ngx_http_keytally_refund_if_denied(ctx, &ctx->verdict);
    return ngx_http_keytally_send_refusal(r, ctx);
}
