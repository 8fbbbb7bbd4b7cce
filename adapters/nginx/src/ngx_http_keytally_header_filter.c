/*
 * The header filter: rate-limit fields on the response to each checked request.
 */
#include "ngx_http_keytally.h"

static ngx_http_output_header_filter_pt ngx_http_next_header_filter;

/** Removes the fields of this name, which an upstream may have set: each field appears once. */
static void ngx_http_keytally_remove_field(ngx_list_part_t *part, const ngx_str_t *name) {
    for (; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++)
            if (header[i].key.len == name->len &&
                ngx_strncasecmp(header[i].key.data, name->data, name->len) == 0)
                header[i].hash = 0;
    }
}

/**
 * Sets Retry-After on the refusal of too many invalid keys. The other fields describe a key's
 * quota, and this request has no valid key.
 */
static ngx_int_t ngx_http_keytally_set_retry_after(ngx_http_request_t *r, uint32_t seconds) {
    ngx_table_elt_t *header = ngx_list_push(&r->headers_out.headers);
    u_char *text = ngx_pnalloc(r->pool, NGX_INT32_LEN);
    if (header == NULL || text == NULL) return NGX_ERROR;
    ngx_memzero(header, sizeof *header);
    header->hash = 1;
    ngx_str_set(&header->key, "Retry-After");
    header->value.data = text;
    header->value.len = (size_t)(ngx_sprintf(text, "%uD", seconds) - text);
    return ngx_http_next_header_filter(r);
}

/** Whether a field has the challenges of a refusal. */
static ngx_flag_t ngx_http_keytally_is_challenge(const ngx_str_t *name) {
    static const ngx_str_t challenge = ngx_string("WWW-Authenticate");
    return name->len == challenge.len &&
           ngx_memcmp(name->data, challenge.data, challenge.len) == 0;
}

/** Sets the verdict's header fields on any response: a file, 304, 404, an upstream's, a refusal. */
static ngx_int_t ngx_http_keytally_header_filter(ngx_http_request_t *r) {
    ngx_http_keytally_ctx_t *ctx = r == r->main ? ngx_http_keytally_get_ctx(r) : NULL;
    if (ctx != NULL) ctx->sent_status = r->headers_out.status;
    if (ctx == NULL || !ctx->has_verdict || ctx->shadowed) return ngx_http_next_header_filter(r);
    /* If the response is a success, only a subrequest was refused, such as one of mirror. */
    if (ctx->verdict.outcome != KT_ADMITTED && r->headers_out.status < NGX_HTTP_BAD_REQUEST)
        return ngx_http_next_header_filter(r);
    ngx_http_keytally_loc_conf_t *klcf = ngx_http_get_module_loc_conf(r, ngx_http_keytally_module);
    if (ctx->failure_retry_s != 0)
        return ngx_http_keytally_set_retry_after(r, ctx->failure_retry_s);
    if (!klcf->headers && ctx->verdict.outcome == KT_ADMITTED)
        return ngx_http_next_header_filter(r);
    char values[KT_COMPOUND_HEADERS_SIZE];
    kt_field fields[KT_MAX_FIELDS];
    size_t count;
    kt_status status = ctx->compound == NULL
                           ? kt_verdict_fields(&ctx->verdict, values, sizeof values, fields,
                                               KT_MAX_FIELDS, &count)
                           : kt_compound_fields(ctx->compound, values, sizeof values, fields,
                                                KT_MAX_FIELDS, &count);
    if (status != KT_OK) return NGX_ERROR;
    if (count == 0) return ngx_http_next_header_filter(r);
    size_t len = (size_t)(fields[count - 1].value - values) + fields[count - 1].value_len;
    u_char *copy = ngx_pnalloc(r->pool, len);
    if (copy == NULL) return NGX_ERROR;
    ngx_memcpy(copy, values, len);

    ngx_list_t *headers = &r->headers_out.headers;
    ngx_uint_t others = headers->part.nelts; /* If 0, there is no field to remove. */
    for (size_t i = 0; i < count; i++) {
        ngx_str_t name = {fields[i].name_len, (u_char *)(size_t)fields[i].name};
        if (others != 0) ngx_http_keytally_remove_field(&headers->part, &name);
        ngx_table_elt_t *header = ngx_list_push(headers);
        if (header == NULL) return NGX_ERROR;
        ngx_memzero(header, sizeof *header);
        header->hash = 1;
        header->key = name;
        header->value.len = fields[i].value_len;
        header->value.data = copy + (fields[i].value - values);
        if (ctx->challenges != NULL && ngx_http_keytally_is_challenge(&name))
            header->value = *ctx->challenges;
    }
    return ngx_http_next_header_filter(r);
}

/** Inserts the filter into nginx's chain. */
void ngx_http_keytally_header_filter_init(void) {
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_keytally_header_filter;
}
