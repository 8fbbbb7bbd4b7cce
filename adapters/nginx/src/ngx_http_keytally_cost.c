/*
 * The cost of a request: `cost=5`, or `cost=$variable`, which is evaluated at each check.
 */
#include "ngx_http_keytally.h"

/** Parses a number from 0 to 4294967295. Returns -1 if the text is anything else. */
static int64_t ngx_http_keytally_cost_units(ngx_str_t *text) {
    off_t units = ngx_atoof(text->data, text->len);
    return units == NGX_ERROR || units > (off_t)UINT32_MAX ? -1 : (int64_t)units;
}

/** Parses the value of `cost=`, or the cost of a group, in the configuration. */
char *ngx_http_keytally_cost_parse(ngx_conf_t *cf, ngx_str_t *text,
                                   ngx_http_keytally_cost_t *cost) {
    if (ngx_http_script_variables_count(text) > 0) {
        ngx_http_compile_complex_value_t compile;
        cost->value = ngx_palloc(cf->pool, sizeof *cost->value);
        if (cost->value == NULL) return NGX_CONF_ERROR;
        ngx_memzero(&compile, sizeof compile);
        compile.cf = cf;
        compile.value = text;
        compile.complex_value = cost->value;
        return ngx_http_compile_complex_value(&compile) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
    }
    int64_t units = ngx_http_keytally_cost_units(text);
    cost->value = NULL;
    if (units < 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a cost is neither a number from 0 to 4294967295 nor a variable");
        return NGX_CONF_ERROR;
    }
    cost->units = (ngx_uint_t)units;
    return NGX_CONF_OK;
}

/**
 * Evaluates the cost of a request. An empty variable costs 1.
 *
 * If the value is not a number from 0 to 4294967295, returns `NGX_DECLINED` and sets `units` to 0.
 * The log does not show the value: the client may have sent it.
 */
ngx_int_t ngx_http_keytally_cost_get(ngx_http_request_t *r, ngx_http_keytally_cost_t *cost,
                                     uint32_t *units) {
    *units = (uint32_t)cost->units;
    if (cost->value == NULL) return NGX_OK;
    ngx_str_t text;
    if (ngx_http_complex_value(r, cost->value, &text) != NGX_OK) return NGX_ERROR;
    if (text.len == 0) return NGX_OK;
    int64_t parsed = ngx_http_keytally_cost_units(&text);
    *units = parsed < 0 ? 0 : (uint32_t)parsed;
    if (parsed >= 0) return NGX_OK;
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "keytally: the cost is not a number from 0 to 4294967295");
    return NGX_DECLINED;
}
