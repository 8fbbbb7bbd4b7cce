/*
 * Limiters in nginx's shared-memory zones. A limiter's subjects are the values of the zone's key,
 * an expression with variables.
 *
 * nginx keeps a zone across a reload if its name and size stay the same. This module adds the key
 * and the policy to the name of the shared memory. So if either changes, nginx creates new memory
 * and the counts begin at 0. Otherwise the new policy would misread the counts of the old one.
 */
#include "ngx_http_keytally.h"

/** Returns the zone of that name, or NULL if there is none. */
ngx_http_keytally_zone_t *ngx_http_keytally_zone_find(ngx_http_keytally_main_conf_t *kmcf,
                                                      ngx_str_t *name) {
    ngx_http_keytally_zone_t **zones = kmcf->zones.elts;
    for (ngx_uint_t i = 0; i < kmcf->zones.nelts; i++)
        if (zones[i]->name.len == name->len &&
            ngx_strncmp(zones[i]->name.data, name->data, name->len) == 0)
            return zones[i];
    return NULL;
}

/** Returns the largest capacity of a limiter that fits into `len` bytes, in subjects. */
static uint32_t ngx_http_keytally_zone_capacity(size_t len) {
    uint32_t low = 0, high = KT_MAX_SUBJECTS;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (kt_limiter_size(middle) <= len) low = middle;
        else high = middle - 1;
    }
    return low;
}

/**
 * Creates the limiter in the zone's memory. If nginx kept the memory of the previous configuration
 * (`data` is its zone), attaches to the limiter that is there.
 */
static ngx_int_t ngx_http_keytally_init_zone(ngx_shm_zone_t *shm, void *data) {
    ngx_http_keytally_zone_t *zone = shm->data, *old = data;
    ngx_slab_pool_t *slab = (ngx_slab_pool_t *)shm->shm.addr;
    kt_status status;
    if (old != NULL) {
        zone->table = old->table;
        zone->table_len = old->table_len;
        status = kt_limiter_attach(zone->table, zone->table_len, &zone->handle);
    } else {
        uint8_t entropy[KT_ENTROPY_SIZE];
        size_t prefixes = zone->counts_addresses ? KT_PREFIXES_SIZE : 0;
        /* A zone has at least some pages. */
        uint32_t capacity = ngx_http_keytally_zone_capacity(slab->pfree * ngx_pagesize - prefixes);
        zone->table_len = kt_limiter_size(capacity) + prefixes;
        zone->table = capacity == 0 ? NULL : ngx_slab_alloc(slab, zone->table_len);
        if (zone->table == NULL) {
            ngx_log_error(NGX_LOG_EMERG, shm->shm.log, 0, "keytally_limit_zone \"%V\" is too small",
                          &zone->name);
            return NGX_ERROR;
        }
        status = kt_entropy(entropy);
        /* The limiter's seed is the first 16 bytes of `entropy`. */
        if (status == KT_OK)
            status = kt_limiter_init(zone->table, zone->table_len, (const char *)zone->policy.data,
                                     zone->policy.len, capacity, entropy, &zone->handle);
    }
    if (status == KT_OK) status = kt_limiter_use_system_clock(&zone->handle);
    if (status == KT_OK) status = kt_limiter_set_on_full(&zone->handle, zone->on_full);
    if (status == KT_OK) return NGX_OK;
    ngx_log_error(NGX_LOG_EMERG, shm->shm.log, 0, "keytally_limit_zone \"%V\": %s", &zone->name,
                  kt_status_message(status));
    return NGX_ERROR;
}

/** Closes the limiter's handle when nginx frees the configuration. */
static void ngx_http_keytally_zone_cleanup(void *data) {
    ngx_http_keytally_zone_t *zone = data;
    kt_limiter_close(&zone->handle);
}

/** Parses `NAME:SIZE`. */
static char *ngx_http_keytally_parse_size(ngx_conf_t *cf, ngx_str_t *text, ngx_str_t *name,
                                          ssize_t *size) {
    u_char *colon = (u_char *)ngx_strlchr(text->data, text->data + text->len, ':');
    if (colon != NULL && colon != text->data) {
        ngx_str_t rest = {(size_t)(text->data + text->len - colon - 1), colon + 1};
        name->data = text->data;
        name->len = (size_t)(colon - text->data);
        *size = ngx_parse_size(&rest);
        if (*size >= (ssize_t)(8 * ngx_pagesize)) return NGX_CONF_OK;
    }
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"zone=\" is not \"zone=NAME:SIZE\" with a size of at least %uz bytes",
                       8 * ngx_pagesize);
    return NGX_CONF_ERROR;
}

/**
 * Reads the value of `policy=`, which begins in the argument with this index. Sets `index` to that
 * of the argument in which the value ends.
 *
 * nginx treats quotes as such only around a whole argument: `"policy=100/minute, 1000/hour"` is one
 * argument, but `policy="100/minute, 1000/hour"` is two. This function joins such arguments again.
 * Its lengths 7, 8 and 9 are those of `policy=`, `policy="` and `policy=""`.
 */
static char *ngx_http_keytally_read_policy(ngx_conf_t *cf, ngx_uint_t *index, ngx_str_t *policy) {
    ngx_str_t *args = cf->args->elts, first = args[*index];
    policy->data = first.data + 7;
    policy->len = first.len - 7;
    if (policy->len == 0 || policy->data[0] != '"') return NGX_CONF_OK;

    ngx_uint_t last = *index;
    /* A `policy="` alone has an opening quote at its end, not a closing one. */
    while (args[last].len < (last == *index ? 9 : 1) || args[last].data[args[last].len - 1] != '"')
        if (++last == cf->args->nelts)
            return "has a \"policy=\" without its closing quote; if the policy has a semicolon, "
                   "begin with the quote: \"policy=...\"";
    size_t len = 0;
    for (ngx_uint_t i = *index; i <= last; i++) len += args[i].len + 1;
    u_char *text = ngx_pnalloc(cf->pool, len), *end = text;
    if (text == NULL) return NGX_CONF_ERROR;
    for (ngx_uint_t i = *index; i <= last; i++)
        end = ngx_sprintf(end, i == *index ? "%V" : " %V", &args[i]);
    policy->data = text + 8;
    policy->len = (size_t)(end - text) - 9;
    *index = last;
    return NGX_CONF_OK;
}

/**
 * Finds out whether the zone's policy is one for addresses, and its number of prefixes. Reports an
 * invalid policy as an error of the configuration.
 */
static char *ngx_http_keytally_check_policy(ngx_conf_t *cf, ngx_http_keytally_zone_t *zone) {
    static const char addresses[] = "addresses:";
    char buffer[KT_SECTIONS_SIZE]; /* for the normalized policy, or for the error message */
    const char *text = (const char *)zone->policy.data;
    size_t len;
    zone->tallies = 1;
    if (kt_policy_parse(text, zone->policy.len, buffer, sizeof buffer, &len) == KT_OK) {
        zone->counts_addresses = ngx_strncmp(buffer, addresses, sizeof addresses - 1) == 0;
        for (size_t i = 0; i < len; i++) zone->tallies += buffer[i] == ';';
        return NGX_CONF_OK;
    }
    if (kt_policy_explain(text, zone->policy.len, buffer, sizeof buffer, &len) != KT_OK) len = 0;
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"policy=\": %*s", len, buffer);
    return NGX_CONF_ERROR;
}

/** `keytally_limit_zone zone=NAME:SIZE [key=$variable] policy="…" [on_full=share|refuse];` */
char *ngx_http_keytally_limit_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_main_conf_t *kmcf = conf;
    ngx_str_t *args = cf->args->elts, key = ngx_string(NGX_HTTP_KEYTALLY_CLIENT_ADDRESS);
    ssize_t size = 0;
    ngx_http_keytally_zone_t *zone = ngx_pcalloc(cf->pool, sizeof *zone), **entry;
    if (zone == NULL) return NGX_CONF_ERROR;
    for (ngx_uint_t i = 1; i < cf->args->nelts; i++) {
        ngx_str_t arg = args[i];
        if (ngx_strncmp(arg.data, "zone=", 5) == 0) {
            ngx_str_t text = {arg.len - 5, arg.data + 5};
            if (ngx_http_keytally_parse_size(cf, &text, &zone->name, &size) != NGX_CONF_OK)
                return NGX_CONF_ERROR;
        } else if (ngx_strncmp(arg.data, "key=", 4) == 0) {
            key.data = arg.data + 4;
            key.len = arg.len - 4;
        } else if (ngx_strcmp(arg.data, "on_full=share") == 0) {
            zone->on_full = KT_ON_FULL_SHARE;
        } else if (ngx_strcmp(arg.data, "on_full=refuse") == 0) {
            zone->on_full = KT_ON_FULL_REFUSE;
        } else if (ngx_strncmp(arg.data, "on_full=", 8) == 0) {
            /* A longer text may be a key or a pepper that was given by mistake. */
            size_t len = arg.len - 8 < 16 ? arg.len - 8 : 0;
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"on_full=%*s%s\" is neither \"on_full=share\" nor "
                               "\"on_full=refuse\"",
                               len, arg.data + 8, len == arg.len - 8 ? "" : "...");
            return NGX_CONF_ERROR;
        } else if (ngx_strncmp(arg.data, "policy=", 7) == 0) {
            char *error = ngx_http_keytally_read_policy(cf, &i, &zone->policy);
            if (error != NGX_CONF_OK) return error;
            if (ngx_http_keytally_check_policy(cf, zone) != NGX_CONF_OK)
                return NGX_CONF_ERROR;
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter %ui of \"keytally_limit_zone\" is none of \"zone=\", "
                               "\"key=\", \"policy=\", \"on_full=share\" and \"on_full=refuse\"",
                               i);
            return NGX_CONF_ERROR;
        }
    }
    if (zone->name.len == 0 || zone->policy.len == 0) return "needs \"zone=\" and \"policy=\"";
    if (key.len == 0) return "has an empty \"key=\"";
    if (zone->name.len == 3 && ngx_strncmp(zone->name.data, "off", 3) == 0)
        return "cannot be named \"off\"";
    if (zone->name.len > NGX_HTTP_KEYTALLY_MAX_NAME_LEN) return "has a name of more than 32 bytes";
    if (ngx_http_keytally_zone_find(kmcf, &zone->name) != NULL)
        return "declares a name that is taken";
    zone->index = kmcf->zones.nelts;
    if (zone->index == NGX_HTTP_KEYTALLY_MAX_ZONES) return "is one of more than 64";

    ngx_http_compile_complex_value_t compile;
    ngx_memzero(&compile, sizeof compile);
    compile.cf = cf;
    compile.value = &key;
    compile.complex_value = &zone->key;
    if (ngx_http_compile_complex_value(&compile) != NGX_OK) return NGX_CONF_ERROR;

    ngx_str_t name;
    name.len = zone->name.len + key.len + zone->policy.len + 2;
    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) return NGX_CONF_ERROR;
    ngx_sprintf(name.data, "%V %V %V", &zone->name, &key, &zone->policy);
    ngx_shm_zone_t *shm = ngx_shared_memory_add(cf, &name, (size_t)size, &ngx_http_keytally_module);
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (shm == NULL || cleanup == NULL || (entry = ngx_array_push(&kmcf->zones)) == NULL)
        return NGX_CONF_ERROR;
    cleanup->handler = ngx_http_keytally_zone_cleanup;
    cleanup->data = zone;
    *entry = zone;
    shm->init = ngx_http_keytally_init_zone;
    shm->data = zone;
    return NGX_CONF_OK;
}
