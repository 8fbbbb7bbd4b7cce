/*
 * The module's directives, and the tables by which nginx loads it.
 */
#include "ngx_http_keytally.h"

static void *ngx_http_keytally_create_main_conf(ngx_conf_t *cf) {
    ngx_http_keytally_main_conf_t *conf = ngx_pcalloc(cf->pool, sizeof *conf);
    if (conf == NULL ||
        ngx_array_init(&conf->gates, cf->pool, 2, sizeof(ngx_http_keytally_gate_t *)) != NGX_OK ||
        ngx_array_init(&conf->zones, cf->pool, 2, sizeof(ngx_http_keytally_zone_t *)) != NGX_OK)
        return NULL;
    return conf;
}

static void *ngx_http_keytally_create_loc_conf(ngx_conf_t *cf) {
    ngx_http_keytally_loc_conf_t *conf = ngx_pcalloc(cf->pool, sizeof *conf);
    if (conf == NULL) return NULL;
    conf->gate = NGX_CONF_UNSET_PTR;
    conf->limits = NGX_CONF_UNSET_PTR;
    conf->failures = NGX_CONF_UNSET_PTR;
    conf->refund = NGX_CONF_UNSET_PTR;
    conf->key_from = NGX_CONF_UNSET_PTR;
    conf->error_page = NGX_CONF_UNSET;
    conf->headers = NGX_CONF_UNSET;
    return conf;
}

/** Inherits from the outer level what the location does not set: gate, limits and the rest. */
static char *ngx_http_keytally_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child) {
    (void)cf;
    ngx_http_keytally_loc_conf_t *outer = parent, *inner = child;
    if (inner->gate == NGX_CONF_UNSET_PTR) {
        inner->gate = outer->gate == NGX_CONF_UNSET_PTR ? NULL : outer->gate;
        inner->cost = outer->cost;
        inner->shadow = outer->shadow;
        inner->groups = outer->groups;
        inner->need = outer->need;
    }
    ngx_conf_merge_ptr_value(inner->limits, outer->limits, NULL);
    ngx_conf_merge_ptr_value(inner->failures, outer->failures, NULL);
    ngx_conf_merge_ptr_value(inner->refund, outer->refund, NULL);
    ngx_conf_merge_ptr_value(inner->key_from, outer->key_from, NULL);
    ngx_conf_merge_value(inner->error_page, outer->error_page, 0);
    ngx_conf_merge_value(inner->headers, outer->headers, 1);
    return NGX_CONF_OK;
}

/**
 * Parses `cost=…` and `shadow`, from the third word of a directive on. With `klcf`, the location of
 * a gate, parses `group=…` and `need=…`, too.
 */
static char *ngx_http_keytally_parse_options(ngx_conf_t *cf, ngx_http_keytally_cost_t *cost,
                                             ngx_flag_t *shadow,
                                             ngx_http_keytally_loc_conf_t *klcf) {
    ngx_str_t *words = cf->args->elts;
    cost->units = 1;
    cost->value = NULL;
    *shadow = 0;
    for (ngx_uint_t i = 2; i < cf->args->nelts; i++) {
        if (ngx_strcmp(words[i].data, "shadow") == 0) {
            *shadow = 1;
        } else if (ngx_strncmp(words[i].data, "cost=", 5) == 0) {
            ngx_str_t text = {words[i].len - 5, words[i].data + 5};
            if (ngx_http_keytally_cost_parse(cf, &text, cost) != NGX_CONF_OK) return NGX_CONF_ERROR;
        } else if (klcf != NULL && ngx_strncmp(words[i].data, "group=", 6) == 0) {
            ngx_str_t text = {words[i].len - 6, words[i].data + 6};
            char *error = ngx_http_keytally_group_parse(cf, &text, &klcf->groups);
            if (error != NGX_CONF_OK) return error;
        } else if (klcf != NULL && ngx_strncmp(words[i].data, "need=", 5) == 0) {
            ngx_str_t text = {words[i].len - 5, words[i].data + 5};
            if (ngx_http_keytally_need_parse(cf, &text, &klcf->need) != NGX_CONF_OK)
                return NGX_CONF_ERROR;
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               klcf != NULL ? "parameter %ui of \"%V\" is none of \"cost=\", "
                                              "\"group=\", \"need=\" and \"shadow\""
                                            : "parameter %ui of \"%V\" is neither \"cost=\" nor "
                                              "\"shadow\"",
                               i, &words[0]);
            return NGX_CONF_ERROR;
        }
    }
    return NGX_CONF_OK;
}

/** Whether the directive is `NAME off;`. */
static ngx_int_t ngx_http_keytally_is_off(ngx_conf_t *cf) {
    ngx_str_t *words = cf->args->elts;
    return cf->args->nelts == 2 && ngx_strcmp(words[1].data, "off") == 0;
}

/** `keytally NAME [cost=N|$variable] [group=NAME[:COST]…] [need=SCOPE…] [shadow];` and
 *  `keytally off;` */
static char *ngx_http_keytally(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    ngx_str_t *words = cf->args->elts;
    if (klcf->gate != NGX_CONF_UNSET_PTR) return "is duplicate";
    if (ngx_http_keytally_is_off(cf)) {
        klcf->gate = NULL;
        return NGX_CONF_OK;
    }
    klcf->gate = ngx_http_keytally_gate_find(
        ngx_http_conf_get_module_main_conf(cf, ngx_http_keytally_module), &words[1]);
    if (klcf->gate == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no \"keytally_gate\" above declares the name in \"keytally\"");
        return NGX_CONF_ERROR;
    }
    char *error = ngx_http_keytally_parse_options(cf, &klcf->cost, &klcf->shadow, klcf);
    if (error != NGX_CONF_OK) return error;
    return ngx_http_keytally_gate_expect(cf, klcf->gate, klcf->groups, klcf->need);
}

/** Finds the zone that the second word of a directive names. Logs an error if there is none. */
static ngx_http_keytally_zone_t *ngx_http_keytally_named_zone(ngx_conf_t *cf) {
    ngx_str_t *words = cf->args->elts;
    ngx_http_keytally_zone_t *zone = ngx_http_keytally_zone_find(
        ngx_http_conf_get_module_main_conf(cf, ngx_http_keytally_module), &words[1]);
    if (zone == NULL)
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no \"keytally_limit_zone\" above declares the name in \"%V\"",
                           &words[0]);
    return zone;
}

/** `keytally_limit NAME [cost=N|$variable] [shadow];`, repeatable, and `keytally_limit off;` */
static char *ngx_http_keytally_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    if (ngx_http_keytally_is_off(cf)) {
        if (klcf->limits != NGX_CONF_UNSET_PTR) return "is both off and on";
        klcf->limits = NULL;
        return NGX_CONF_OK;
    }
    if (klcf->limits == NULL) return "is both off and on";
    ngx_http_keytally_zone_t *zone = ngx_http_keytally_named_zone(cf);
    if (zone == NULL) return NGX_CONF_ERROR;
    if (klcf->limits == NGX_CONF_UNSET_PTR) {
        klcf->limits = ngx_array_create(cf->pool, 2, sizeof(ngx_http_keytally_limit_t));
        if (klcf->limits == NULL) return NGX_CONF_ERROR;
    }
    ngx_http_keytally_limit_t *limits = klcf->limits->elts;
    for (ngx_uint_t i = 0; i < klcf->limits->nelts; i++)
        if (limits[i].zone == zone) return "is duplicate";
    ngx_http_keytally_limit_t *limit = ngx_array_push(klcf->limits);
    if (limit == NULL) return NGX_CONF_ERROR;
    limit->zone = zone;
    if (klcf->limits->nelts > KT_MAX_PARTS) return "is one of more than 8 in this location";
    ngx_uint_t tallies = 0;
    limits = klcf->limits->elts;
    for (ngx_uint_t i = 0; i < klcf->limits->nelts; i++) tallies += limits[i].zone->tallies;
    if (tallies > KT_MAX_PARTS)
        return "is one of limits in this location that have more than 8 prefixes together; a zone "
               "without prefixes counts as one";
    return ngx_http_keytally_parse_options(cf, &limit->cost, &limit->shadow, NULL);
}

/** `keytally_failures NAME;` and `keytally_failures off;` */
static char *ngx_http_keytally_failures(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    if (klcf->failures != NGX_CONF_UNSET_PTR) return "is duplicate";
    klcf->failures = ngx_http_keytally_is_off(cf) ? NULL : ngx_http_keytally_named_zone(cf);
    return ngx_http_keytally_is_off(cf) || klcf->failures != NULL ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/** `NAME on|off;`. nginx's own handler would log a wrong value, which may be secret. */
static char *ngx_http_keytally_flag(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    ngx_flag_t *flag = (ngx_flag_t *)((u_char *)conf + cmd->offset);
    ngx_str_t *words = cf->args->elts;
    if (*flag != NGX_CONF_UNSET) return "is duplicate";
    if (ngx_strcmp(words[1].data, "on") != 0 && ngx_strcmp(words[1].data, "off") != 0)
        return "takes \"on\" or \"off\"";
    *flag = ngx_strcmp(words[1].data, "on") == 0;
    return NGX_CONF_OK;
}

/** `keytally_refusal;`. The location inherits no gate and no limits. */
static char *ngx_http_keytally_refusal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    ngx_http_core_loc_conf_t *clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (clcf->handler == ngx_http_keytally_refusal_handler) return "is duplicate";
    clcf->handler = ngx_http_keytally_refusal_handler;
    if (klcf->gate == NGX_CONF_UNSET_PTR) klcf->gate = NULL;
    if (klcf->limits == NGX_CONF_UNSET_PTR) klcf->limits = NULL;
    return NGX_CONF_OK;
}

/** `keytally_ipv6_prefix N;`: the length of the network that counts as one client. */
static char *ngx_http_keytally_ipv6_prefix(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_main_conf_t *kmcf = conf;
    ngx_str_t *words = cf->args->elts;
    if (kmcf->ipv6_prefix != 0) return "is duplicate";
    ngx_int_t length = ngx_atoi(words[1].data, words[1].len);
    if (length < 1 || length > 128) return "takes a number from 1 to 128";
    kmcf->ipv6_prefix = (ngx_uint_t)length;
    return NGX_CONF_OK;
}

/**
 * Adds a handler that runs last in its phase: nginx runs the array from its end to its start. In
 * the log phase, nginx runs it from its start, so there the handler runs first.
 */
static ngx_int_t ngx_http_keytally_add_handler(ngx_conf_t *cf, ngx_http_phases phase,
                                               ngx_http_handler_pt handler) {
    ngx_http_core_main_conf_t *cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_array_t *handlers = &cmcf->phases[phase].handlers;
    if (ngx_array_push(handlers) == NULL) return NGX_ERROR;
    ngx_http_handler_pt *first = handlers->elts;
    ngx_memmove(first + 1, first, (handlers->nelts - 1) * sizeof *first);
    *first = handler;
    return NGX_OK;
}

/**
 * Adds each handler at the end of its phase. Requests that limit_req refuses are not charged. Those
 * that allow, deny, auth_basic or auth_request refuse are charged by limits, but not by gates.
 * Refunds by outcome come before the access log, so a logged request has its refund.
 */
/**
 * Checks that each zone that counts `$keytally_client_address` by the prefixes of its policy
 * receives a network that is not larger than the smallest of them may be.
 */
static ngx_int_t ngx_http_keytally_check_prefixes(ngx_conf_t *cf) {
    ngx_http_keytally_main_conf_t *kmcf =
        ngx_http_conf_get_module_main_conf(cf, ngx_http_keytally_module);
    ngx_http_keytally_zone_t **zones = kmcf->zones.elts;
    if (kmcf->ipv6_prefix == 0 || kmcf->ipv6_prefix >= NGX_HTTP_KEYTALLY_IPV6_PREFIX) return NGX_OK;
    for (ngx_uint_t i = 0; i < kmcf->zones.nelts; i++) {
        ngx_str_t *key = &zones[i]->key.value;
        if (!zones[i]->counts_addresses || key->len != sizeof NGX_HTTP_KEYTALLY_CLIENT_ADDRESS - 1 ||
            ngx_strncmp(key->data, NGX_HTTP_KEYTALLY_CLIENT_ADDRESS, key->len) != 0)
            continue;
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"keytally_ipv6_prefix\" is below 64, but the policy of the zone \"%V\" has "
                      "the prefixes; leave \"keytally_ipv6_prefix\" out",
                      &zones[i]->name);
        return NGX_ERROR;
    }
    return NGX_OK;
}

static ngx_int_t ngx_http_keytally_init(ngx_conf_t *cf) {
    if (ngx_http_keytally_check_prefixes(cf) != NGX_OK) return NGX_ERROR;
    if (ngx_http_keytally_add_handler(cf, NGX_HTTP_LOG_PHASE, ngx_http_keytally_log_handler) !=
            NGX_OK ||
        ngx_http_keytally_add_handler(cf, NGX_HTTP_PREACCESS_PHASE,
                                      ngx_http_keytally_limit_handler) != NGX_OK ||
        ngx_http_keytally_add_handler(cf, NGX_HTTP_PREACCESS_PHASE,
                                      ngx_http_keytally_subrequest_handler) != NGX_OK ||
        ngx_http_keytally_add_handler(cf, NGX_HTTP_ACCESS_PHASE, ngx_http_keytally_gate_handler) !=
            NGX_OK)
        return NGX_ERROR;
    ngx_http_keytally_header_filter_init();
    return NGX_OK;
}

static ngx_int_t ngx_http_keytally_init_process(ngx_cycle_t *cycle) {
    ngx_http_keytally_main_conf_t *kmcf =
        ngx_http_cycle_get_module_main_conf(cycle, ngx_http_keytally_module);
    if (kmcf == NULL) return NGX_OK;
    ngx_http_keytally_gate_t **gates = kmcf->gates.elts;
    for (ngx_uint_t i = 0; i < kmcf->gates.nelts; i++)
        ngx_http_keytally_gate_watch(cycle, gates[i]);
    return NGX_OK;
}

#define NGX_HTTP_KEYTALLY_CONF                                                                     \
    (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_HTTP_LMT_CONF)

static ngx_command_t ngx_http_keytally_commands[] = {
    {ngx_string("keytally_gate"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE3 | NGX_CONF_TAKE4, ngx_http_keytally_gate,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_limit_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE,
     ngx_http_keytally_limit_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_1MORE, ngx_http_keytally,
     NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_limit"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_TAKE123,
     ngx_http_keytally_limit, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_failures"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_TAKE1,
     ngx_http_keytally_failures, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_refund"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_1MORE,
     ngx_http_keytally_refund_statuses, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_key_from"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_1MORE,
     ngx_http_keytally_key_from, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_error_page"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_TAKE1,
     ngx_http_keytally_flag, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_http_keytally_loc_conf_t, error_page), NULL},
    {ngx_string("keytally_headers"), NGX_HTTP_KEYTALLY_CONF | NGX_CONF_TAKE1,
     ngx_http_keytally_flag, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_http_keytally_loc_conf_t, headers), NULL},
    {ngx_string("keytally_refusal"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, ngx_http_keytally_refusal,
     NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_ipv6_prefix"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     ngx_http_keytally_ipv6_prefix, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    ngx_null_command,
};

static ngx_http_module_t ngx_http_keytally_module_ctx = {
    .preconfiguration = ngx_http_keytally_add_variables,
    .postconfiguration = ngx_http_keytally_init,
    .create_main_conf = ngx_http_keytally_create_main_conf,
    .create_loc_conf = ngx_http_keytally_create_loc_conf,
    .merge_loc_conf = ngx_http_keytally_merge_loc_conf,
};

ngx_module_t ngx_http_keytally_module = {
    NGX_MODULE_V1,
    &ngx_http_keytally_module_ctx,
    ngx_http_keytally_commands,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    ngx_http_keytally_init_process,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING,
};
