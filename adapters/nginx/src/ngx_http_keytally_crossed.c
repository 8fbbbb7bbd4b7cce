/*
 * The warnings of plans, `warn 80%` after a quota, that a request reached: lines in the error log
 * at level `notice`, and the text of $keytally_crossed.
 */
#include "ngx_http_keytally.h"

/** The length of `,NAME=PERCENT`, with a NUL. */
#define NGX_HTTP_KEYTALLY_WARNING_LEN (KT_QUOTA_NAME_SIZE + sizeof ",=100")

/** Adds `NAME=PERCENT` to the text of the request. Does nothing if memory ran out. */
static void ngx_http_keytally_add_crossed(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                          const char *name, ngx_uint_t percent) {
    u_char *text = ngx_pnalloc(r->pool, ctx->crossed.len + NGX_HTTP_KEYTALLY_WARNING_LEN);
    if (text == NULL) return;
    u_char *end = ngx_sprintf(text, "%V%s%s=%ui", &ctx->crossed, ctx->crossed.len > 0 ? "," : "",
                              name, percent);
    ctx->crossed.data = text;
    ctx->crossed.len = (size_t)(end - text);
}

/** Reports each warning that the charge of a key reached. The parts after the key have none. */
void ngx_http_keytally_report_crossed(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                      ngx_http_keytally_gate_t *gate, const kt_compound *compound) {
    for (ngx_uint_t i = 0; i < compound->tally_count; i++) {
        const kt_tally *tally = &compound->tallies[i];
        for (ngx_uint_t quota = 0; quota < tally->verdict.quota_count; quota++) {
            for (ngx_uint_t slot = 0; slot < 2; slot++) {
                ngx_uint_t percent = tally->crossed[quota][slot];
                char name[KT_QUOTA_NAME_SIZE], key_id[KT_KEY_ID_SIZE];
                size_t len;
                if (percent == 0 ||
                    kt_tally_quota_name(tally, quota, name, sizeof name, &len) != KT_OK ||
                    kt_key_id_text(tally->verdict.key_id, key_id, sizeof key_id, &len) != KT_OK)
                    continue;
                ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                              "keytally \"%V\": crossed quota=%s percent=%ui key=%s account=%uD",
                              &gate->name, name, percent, key_id, tally->verdict.account);
                ngx_http_keytally_add_crossed(r, ctx, name, percent);
            }
        }
    }
}
