/*
 * The module's variables.
 *
 * For logs and upstreams: $keytally_account, _key_id, _env, _plan, _outcome, _reason and _crossed.
 * They are empty until a check of the client's request or of one of its subrequests. For zones:
 * $keytally_client_address.
 */
#include "ngx_http_keytally.h"

enum {
    NGX_HTTP_KEYTALLY_ACCOUNT,
    NGX_HTTP_KEYTALLY_KEY_ID,
    NGX_HTTP_KEYTALLY_ENV,
    NGX_HTTP_KEYTALLY_PLAN,
    NGX_HTTP_KEYTALLY_OUTCOME,
    NGX_HTTP_KEYTALLY_REASON
};

/** Sets the value to text that lives as long as the request. */
static ngx_int_t ngx_http_keytally_set_value(ngx_http_variable_value_t *value,
                                             const ngx_str_t *text) {
    value->data = text->data;
    value->len = (unsigned)text->len;
    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;
    return NGX_OK;
}

/** Sets the value to a copy of the text. */
static ngx_int_t ngx_http_keytally_copy_value(ngx_http_request_t *r,
                                              ngx_http_variable_value_t *value, const char *text,
                                              size_t len) {
    ngx_str_t copy = {len, ngx_pnalloc(r->pool, len)};
    if (copy.data == NULL) return NGX_ERROR;
    ngx_memcpy(copy.data, text, len);
    return ngx_http_keytally_set_value(value, &copy);
}

/** Sets the value to nothing: logs show a hyphen. */
static ngx_int_t ngx_http_keytally_no_value(ngx_http_variable_value_t *value) {
    value->not_found = 1;
    return NGX_OK;
}

/** Evaluates a variable of the verdict. `which` is one of the numbers above. */
static ngx_int_t ngx_http_keytally_verdict_variable(ngx_http_request_t *r,
                                                    ngx_http_variable_value_t *value,
                                                    uintptr_t which) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_get_ctx(r);
    if (ctx == NULL || !ctx->has_verdict) return ngx_http_keytally_no_value(value);
    if (which == NGX_HTTP_KEYTALLY_OUTCOME) {
        const char *name = kt_outcome_name(ctx->outcome);
        return ngx_http_keytally_copy_value(r, value, name, ngx_strlen(name));
    }
    if (which == NGX_HTTP_KEYTALLY_REASON) {
        if (ctx->reason == KT_REASON_NONE) return ngx_http_keytally_no_value(value);
        const char *name = kt_reason_name(ctx->reason);
        return ngx_http_keytally_copy_value(r, value, name, ngx_strlen(name));
    }

    /* The others describe the key. A verdict names it only if its secret is right. */
    if (ctx->gate == NULL || ctx->verdict.key_id == 0) return ngx_http_keytally_no_value(value);
    char text[KT_PLAN_NAME_SIZE];
    size_t len = 0;
    kt_status status = KT_OK;
    kt_plan_info plan;
    switch (which) {
    case NGX_HTTP_KEYTALLY_ACCOUNT:
        len = (size_t)(ngx_sprintf((u_char *)text, "%uD", ctx->verdict.account) - (u_char *)text);
        break;
    case NGX_HTTP_KEYTALLY_KEY_ID:
        status = kt_key_id_text(ctx->verdict.key_id, text, sizeof text, &len);
        break;
    case NGX_HTTP_KEYTALLY_ENV:
        status = kt_gate_env(ctx->gate->handle, ctx->verdict.env, text, sizeof text, &len);
        break;
    default:
        status = kt_gate_plan(ctx->gate->handle, ctx->verdict.plan, &plan);
        if (status == KT_OK)
            return ngx_http_keytally_copy_value(r, value, plan.name, ngx_strlen(plan.name));
    }
    return status == KT_OK ? ngx_http_keytally_copy_value(r, value, text, len)
                           : ngx_http_keytally_no_value(value);
}

static ngx_int_t ngx_http_keytally_crossed_variable(ngx_http_request_t *r,
                                                    ngx_http_variable_value_t *value,
                                                    uintptr_t data) {
    (void)data;
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_get_ctx(r);
    if (ctx == NULL || ctx->crossed.len == 0) return ngx_http_keytally_no_value(value);
    return ngx_http_keytally_set_value(value, &ctx->crossed);
}

static ngx_int_t ngx_http_keytally_client_address_variable(ngx_http_request_t *r,
                                                           ngx_http_variable_value_t *value,
                                                           uintptr_t data) {
    (void)data;
    ngx_str_t text;
    if (ngx_http_keytally_client_address(r, &text) != NGX_OK) return NGX_ERROR;
    return ngx_http_keytally_set_value(value, &text);
}

ngx_int_t ngx_http_keytally_add_variables(ngx_conf_t *cf) {
    static struct {
        ngx_str_t name;
        ngx_http_get_variable_pt get_handler;
        uintptr_t data;
    } variables[] = {
        {ngx_string("keytally_account"), ngx_http_keytally_verdict_variable,
         NGX_HTTP_KEYTALLY_ACCOUNT},
        {ngx_string("keytally_key_id"), ngx_http_keytally_verdict_variable,
         NGX_HTTP_KEYTALLY_KEY_ID},
        {ngx_string("keytally_env"), ngx_http_keytally_verdict_variable, NGX_HTTP_KEYTALLY_ENV},
        {ngx_string("keytally_plan"), ngx_http_keytally_verdict_variable, NGX_HTTP_KEYTALLY_PLAN},
        {ngx_string("keytally_outcome"), ngx_http_keytally_verdict_variable,
         NGX_HTTP_KEYTALLY_OUTCOME},
        {ngx_string("keytally_reason"), ngx_http_keytally_verdict_variable,
         NGX_HTTP_KEYTALLY_REASON},
        {ngx_string("keytally_crossed"), ngx_http_keytally_crossed_variable, 0},
        {ngx_string("keytally_client_address"), ngx_http_keytally_client_address_variable, 0},
    };
    for (ngx_uint_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        /* Not cacheable: a log may read the verdict's variables before the check and after it, and
         * realip may change the address in between. */
        ngx_http_variable_t *variable =
            ngx_http_add_variable(cf, &variables[i].name, NGX_HTTP_VAR_NOCACHEABLE);
        if (variable == NULL) return NGX_ERROR;
        variable->get_handler = variables[i].get_handler;
        variable->data = variables[i].data;
    }
    return NGX_OK;
}
