/*
 * The network that counts as one client.
 */
#include "ngx_http_keytally.h"

#if (NGX_HAVE_INET6)

/** Returns the IPv4 address that an IPv6 address embeds, or NULL if it embeds none. */
static const u_char *ngx_http_keytally_embedded_ipv4(const u_char *address) {
    static const u_char prefixes[][12] = {
        {0},                                        /* ::a.b.c.d, IPv4-compatible (RFC 4291) */
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, /* ::ffff:a.b.c.d, IPv4-mapped (RFC 4291) */
        {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0,
         0}, /* ::ffff:0:a.b.c.d, IPv4-translated (RFC 2765) */
        {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0}, /* 64:ff9b::/96, NAT64 (RFC 6052) */
    };
    static const u_char zeros[15] = {0};
    if (address[0] == 0x20 && address[1] == 0x02)
        return address + 2; /* 2002::/16, 6to4 (RFC 3056) */
    /* The unspecified address and loopback are not IPv4-compatible addresses. */
    if (ngx_memcmp(address, zeros, sizeof zeros) == 0 && address[15] <= 1) return NULL;
    for (ngx_uint_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (ngx_memcmp(address, prefixes[i], sizeof prefixes[i]) == 0) return address + 12;
    return NULL;
}

/** Clears all bits of an IPv6 address after the first `prefix`. */
static void ngx_http_keytally_mask_ipv6(u_char *address, ngx_uint_t prefix) {
    for (ngx_uint_t i = 0; i < 16; i++) {
        ngx_uint_t kept = prefix > 8 * i ? ngx_min(prefix - 8 * i, 8) : 0;
        address[i] &= (u_char)(0xff00u >> kept);
    }
}

#endif

/** Writes an IPv4 address as text. Returns the end of the text. */
static u_char *ngx_http_keytally_write_ipv4(u_char *text, const u_char *address) {
    return ngx_sprintf(text, "%ud.%ud.%ud.%ud", address[0], address[1], address[2], address[3]);
}

/**
 * Sets `text` to the client's IPv4 address, or to the network of its IPv6 address. On a Unix
 * socket, the text is empty.
 *
 * A site receives at least a /64 and may use any address in it. An IPv6 address that embeds an IPv4
 * address counts as that IPv4 address.
 */
ngx_int_t ngx_http_keytally_client_address(ngx_http_request_t *r, ngx_str_t *text) {
    struct sockaddr *peer = r->connection->sockaddr;
    text->len = 0;
    text->data = ngx_pnalloc(r->pool, NGX_INET6_ADDRSTRLEN + sizeof "/128");
    if (text->data == NULL) return NGX_ERROR;
    u_char *end = text->data;
    if (peer->sa_family == AF_INET)
        end = ngx_http_keytally_write_ipv4(end, (u_char *)&((struct sockaddr_in *)peer)->sin_addr);
#if (NGX_HAVE_INET6)
    if (peer->sa_family == AF_INET6) {
        u_char address[16];
        ngx_memcpy(address, &((struct sockaddr_in6 *)peer)->sin6_addr, sizeof address);
        const u_char *ipv4 = ngx_http_keytally_embedded_ipv4(address);
        if (ipv4 != NULL) {
            end = ngx_http_keytally_write_ipv4(end, ipv4);
        } else {
            ngx_http_keytally_main_conf_t *kmcf =
                ngx_http_get_module_main_conf(r, ngx_http_keytally_module);
            ngx_uint_t prefix =
                kmcf->ipv6_prefix != 0 ? kmcf->ipv6_prefix : NGX_HTTP_KEYTALLY_IPV6_PREFIX;
            ngx_http_keytally_mask_ipv6(address, prefix);
            end += ngx_inet6_ntop(address, end, NGX_INET6_ADDRSTRLEN);
            end = ngx_sprintf(end, "/%ui", prefix);
        }
    }
#endif
    text->len = (size_t)(end - text->data);
    return NGX_OK;
}
