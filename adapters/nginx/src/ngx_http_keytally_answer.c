/*
 * What the client gets: the whole answer to a request that is refused, and the header fields on every other.
 */
#include "ngx_http_keytally.h"

static ngx_http_output_header_filter_pt next_header_filter;

static ngx_int_t send_refusal(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    static ngx_str_t json = ngx_string("application/json");
    ngx_http_complex_value_t body;
    ngx_memzero(&body, sizeof body);
    body.value.data = (u_char *)(size_t)ctx->refusal_body;
    body.value.len = ngx_strlen(body.value.data);
    ngx_uint_t status = ctx->refusal_status;
    /* auth_request reads only the status, and takes any refusal but these two for a fault. */
    if (r != r->main && r->header_only && status != NGX_HTTP_UNAUTHORIZED) status = NGX_HTTP_FORBIDDEN;
    return ngx_http_send_response(r, status, &json, &body);
}

/** Answers in the contract's words. error_page has no part in it: clients read these bodies. */
static ngx_int_t refuse_by(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, ngx_uint_t status, const char *body) {
    ctx->refusal_status = status;
    ctx->refusal_body = body;
    /* 503 and 429 alike are whole answers here: what was sent is all there is to do. */
    ngx_http_finalize_request(r, send_refusal(r, ctx));
    return NGX_DONE;
}

ngx_int_t ngx_http_keytally_refuse(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict) {
    return refuse_by(r, ctx, verdict->http_status, kt_verdict_body(verdict));
}

/** Answers a request whose cost is out of range. */
ngx_int_t ngx_http_keytally_refuse_cost(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx) {
    return refuse_by(r, ctx, NGX_HTTP_BAD_REQUEST, "{\"error\": \"Cost out of range\"}");
}

/**
 * Answers a request that was refused in a subrequest of auth_request, by the whole refusal; any
 * other by 403.
 */
ngx_int_t ngx_http_keytally_refusal(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_ctx(r);
    if (ctx == NULL || ctx->refusal_status == 0) return NGX_HTTP_FORBIDDEN;
    ngx_http_keytally_give_back_if_denied(ctx);
    return send_refusal(r, ctx);
}

/** Removes what has this name already, an upstream's say: there must be one of each. */
static void remove_field(ngx_list_part_t *part, const ngx_str_t *name) {
    for (; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++)
            if (header[i].key.len == name->len && ngx_strncasecmp(header[i].key.data, name->data, name->len) == 0)
                header[i].hash = 0;
    }
}

/** Sets the one field of the answer to a wrong key too many: the others describe a key's quota, and there is no key. */
static ngx_int_t set_retry_after(ngx_http_request_t *r, uint32_t seconds) {
    ngx_table_elt_t *header = ngx_list_push(&r->headers_out.headers);
    u_char *text = ngx_pnalloc(r->pool, NGX_INT32_LEN);
    if (header == NULL || text == NULL) return NGX_ERROR;
    ngx_memzero(header, sizeof *header);
    header->hash = 1;
    ngx_str_set(&header->key, "Retry-After");
    header->value.data = text;
    header->value.len = (size_t)(ngx_sprintf(text, "%uD", seconds) - text);
    return next_header_filter(r);
}

/** Sets the header fields of the verdict, whatever answers the request: a file, 304, 404, an upstream. */
static ngx_int_t header_filter(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = r == r->main ? ngx_http_keytally_ctx(r) : NULL;
    if (ctx == NULL || !ctx->has_verdict || ctx->shadowed) return next_header_filter(r);
    /* Only a subrequest was refused, such as one of mirror. */
    if (ctx->verdict.outcome != KT_ADMITTED && r->headers_out.status < NGX_HTTP_BAD_REQUEST) return next_header_filter(r);
    ngx_http_keytally_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (ctx->guess_retry_s != 0) return set_retry_after(r, ctx->guess_retry_s);
    if (!location->headers && ctx->verdict.outcome == KT_ADMITTED) return next_header_filter(r);
    char values[KT_HEADERS_SIZE];
    kt_field fields[KT_MAX_FIELDS];
    size_t count;
    if (kt_verdict_fields(&ctx->verdict, values, sizeof values, fields, KT_MAX_FIELDS, &count) != KT_OK) return NGX_ERROR;
    if (count == 0) return next_header_filter(r);
    size_t len = (size_t)(fields[count - 1].value - values) + fields[count - 1].value_len;
    u_char *kept = ngx_pnalloc(r->pool, len);
    if (kept == NULL) return NGX_ERROR;
    ngx_memcpy(kept, values, len);

    ngx_list_t *headers = &r->headers_out.headers;
    ngx_uint_t others = headers->part.nelts; /* Where there are none, there is nothing to remove. */
    for (size_t i = 0; i < count; i++) {
        ngx_str_t name = {fields[i].name_len, (u_char *)(size_t)fields[i].name};
        if (others != 0) remove_field(&headers->part, &name);
        ngx_table_elt_t *header = ngx_list_push(headers);
        if (header == NULL) return NGX_ERROR;
        ngx_memzero(header, sizeof *header);
        header->hash = 1;
        header->key = name;
        header->value.len = fields[i].value_len;
        header->value.data = kept + (fields[i].value - values);
    }
    return next_header_filter(r);
}

void ngx_http_keytally_answer_init(void) {
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;
}
