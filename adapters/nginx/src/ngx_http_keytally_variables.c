/*
 * What logs and upstreams get: $keytally_account, _key_id, _env, _plan, _outcome, _reason. Empty before the check, and where there was none.
 * What zones count by: $keytally_client_address.
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

#if (NGX_HAVE_INET6)

/**
 * Returns where an IPv6 address holds the IPv4 address that it stands for; NULL when it holds none.
 */
static const u_char *embedded_ipv4(const u_char *address) {
    static const u_char prefixes[][12] = {
        {0},                                                /* ::a.b.c.d, IPv4-compatible (RFC 4291) */
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},         /* ::ffff:a.b.c.d, IPv4-mapped (RFC 4291) */
        {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0},         /* ::ffff:0:a.b.c.d, IPv4-translated (RFC 2765) */
        {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0},      /* 64:ff9b::/96, NAT64 (RFC 6052) */
    };
    static const u_char unspecified[15] = {0}; /* As loopback begins. */
    if (address[0] == 0x20 && address[1] == 0x02) return address + 2; /* 2002::/16, 6to4 (RFC 3056) */
    if (ngx_memcmp(address, unspecified, sizeof unspecified) == 0 && address[15] <= 1) return NULL;
    for (ngx_uint_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (ngx_memcmp(address, prefixes[i], sizeof prefixes[i]) == 0) return address + 12;
    return NULL;
}

/** Clears all bits of an IPv6 address beyond the first `prefix`. */
static void mask_ipv6(u_char *address, ngx_uint_t prefix) {
    for (ngx_uint_t i = 0; i < 16; i++) {
        ngx_uint_t kept = prefix > 8 * i ? ngx_min(prefix - 8 * i, 8) : 0;
        address[i] &= (u_char)(0xff00u >> kept);
    }
}

#endif

static u_char *write_ipv4(u_char *text, const u_char *address) {
    return ngx_sprintf(text, "%ud.%ud.%ud.%ud", address[0], address[1], address[2], address[3]);
}

/**
 * The network that counts as one client: an IPv4 address, or the network of an IPv6 address. Empty
 * on a Unix socket.
 *
 * A site is given at least a /64 and may use any address in it. An IPv6 address that stands for an
 * IPv4 address is that one.
 */
static ngx_int_t get_client_address(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data) {
    (void)data;
    struct sockaddr *peer = r->connection->sockaddr;
    u_char text[NGX_INET6_ADDRSTRLEN + sizeof "/128"], *end = text;
    if (peer->sa_family == AF_INET) end = write_ipv4(text, (u_char *)&((struct sockaddr_in *)peer)->sin_addr);
#if (NGX_HAVE_INET6)
    if (peer->sa_family == AF_INET6) {
        u_char address[16];
        ngx_memcpy(address, &((struct sockaddr_in6 *)peer)->sin6_addr, sizeof address);
        const u_char *ipv4 = embedded_ipv4(address);
        if (ipv4 != NULL) {
            end = write_ipv4(text, ipv4);
        } else {
            ngx_http_keytally_main_conf_t *main = ngx_http_get_module_main_conf(r, ngx_http_keytally_module);
            ngx_uint_t prefix = main->ipv6_prefix != 0 ? main->ipv6_prefix : NGX_HTTP_KEYTALLY_IPV6_PREFIX;
            mask_ipv6(address, prefix);
            end = text + ngx_inet6_ntop(address, text, NGX_INET6_ADDRSTRLEN);
            end = ngx_sprintf(end, "/%ui", prefix);
        }
    }
#endif
    return set(r, value, (char *)text, (size_t)(end - text));
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
    static ngx_str_t client_address = ngx_string("keytally_client_address");
    ngx_http_variable_t *variable = ngx_http_add_variable(cf, &client_address, NGX_HTTP_VAR_NOCACHEABLE);
    if (variable == NULL) return NGX_ERROR;
    variable->get_handler = get_client_address;
    return NGX_OK;
}
