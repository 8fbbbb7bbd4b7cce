/*
 * What logs and upstreams get: $keytally_account, _key_id, _env, _plan, _outcome, _reason. Empty before the check, and where there was none.
 * What zones count by: $keytally_client.
 */
#include "ngx_http_keytally.h"

enum { ACCOUNT, KEY_ID, ENV, PLAN, OUTCOME, REASON };

static ngx_int_t set(ngx_http_request_t *r, ngx_http_variable_value_t *value, const char *text, size_t len) {
    value->data = ngx_pnalloc(r->pool, len);
    if (value->data == NULL) return NGX_ERROR;
    ngx_memcpy(value->data, text, len);
    value->len = (unsigned)len;
    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;
    return NGX_OK;
}

static ngx_int_t absent(ngx_http_variable_value_t *value) {
    value->not_found = 1;
    return NGX_OK;
}

static ngx_int_t get(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t which) {
    ngx_http_keytally_ctx_t *ctx = ngx_http_keytally_ctx(r);
    if (ctx == NULL || !ctx->has_verdict) return absent(value);
    if (which == OUTCOME) {
        const char *name = kt_outcome_name(ctx->outcome);
        return set(r, value, name, ngx_strlen(name));
    }
    if (which == REASON) {
        if (ctx->reason == KT_REASON_NONE) return absent(value);
        const char *name = kt_reason_name(ctx->reason);
        return set(r, value, name, ngx_strlen(name));
    }

    /* The others tell whose key it was, as soon as its secret was found right. */
    if (ctx->gate == NULL || ctx->verdict.key_id == 0) return absent(value);
    char text[KT_PLAN_NAME_SIZE];
    size_t len = 0;
    kt_status status = KT_OK;
    kt_plan_info plan;
    switch (which) {
    case ACCOUNT:
        len = (size_t)(ngx_sprintf((u_char *)text, "%uD", ctx->verdict.account) - (u_char *)text);
        break;
    case KEY_ID:
        status = kt_key_id_text(ctx->verdict.key_id, text, sizeof text, &len);
        break;
    case ENV:
        status = kt_gate_env(ctx->gate->handle, ctx->verdict.env, text, sizeof text, &len);
        break;
    default:
        status = kt_gate_plan(ctx->gate->handle, ctx->verdict.plan, &plan);
        if (status == KT_OK) return set(r, value, plan.name, ngx_strlen(plan.name));
    }
    return status == KT_OK ? set(r, value, text, len) : absent(value);
}

/**
 * The bytes of the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address. Empty on a Unix socket.
 *
 * A site is given at least a /64 and may use any address in it.
 */
static ngx_int_t get_client(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data) {
    (void)data;
    struct sockaddr *peer = r->connection->sockaddr;
    if (peer->sa_family == AF_INET)
        return set(r, value, (char *)&((struct sockaddr_in *)peer)->sin_addr, sizeof(struct in_addr));
#if (NGX_HAVE_INET6)
    if (peer->sa_family == AF_INET6) {
        struct in6_addr *address = &((struct sockaddr_in6 *)peer)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(address)) return set(r, value, (char *)address + 12, sizeof(struct in_addr));
        return set(r, value, (char *)address, 8);
    }
#endif
    return set(r, value, "", 0);
}

ngx_int_t ngx_http_keytally_variables(ngx_conf_t *cf) {
    static struct {
        ngx_str_t name;
        uintptr_t which;
    } all[] = {
        {ngx_string("keytally_account"), ACCOUNT}, {ngx_string("keytally_key_id"), KEY_ID}, {ngx_string("keytally_env"), ENV},
        {ngx_string("keytally_plan"), PLAN},       {ngx_string("keytally_outcome"), OUTCOME}, {ngx_string("keytally_reason"), REASON},
    };
    for (ngx_uint_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        /* Not cacheable: the same variable may be read before the check and after it. */
        ngx_http_variable_t *variable = ngx_http_add_variable(cf, &all[i].name, NGX_HTTP_VAR_NOCACHEABLE);
        if (variable == NULL) return NGX_ERROR;
        variable->get_handler = get;
        variable->data = all[i].which;
    }
    /* Not cacheable either: realip may change the address. */
    static ngx_str_t client = ngx_string("keytally_client");
    ngx_http_variable_t *variable = ngx_http_add_variable(cf, &client, NGX_HTTP_VAR_NOCACHEABLE);
    if (variable == NULL) return NGX_ERROR;
    variable->get_handler = get_client;
    return NGX_OK;
}
