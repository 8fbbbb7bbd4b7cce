/*
 * The module as nginx sees it: its directives, and where it stands among the phases of a request.
 */
#include "ngx_http_keytally.h"

static void *create_main_conf(ngx_conf_t *cf) {
    ngx_http_keytally_main_conf_t *conf = ngx_pcalloc(cf->pool, sizeof *conf);
    if (conf == NULL || ngx_array_init(&conf->gates, cf->pool, 2, sizeof(ngx_http_keytally_gate_t *)) != NGX_OK ||
        ngx_array_init(&conf->zones, cf->pool, 2, sizeof(ngx_http_keytally_zone_t *)) != NGX_OK)
        return NULL;
    return conf;
}

static void *create_loc_conf(ngx_conf_t *cf) {
    ngx_http_keytally_loc_conf_t *conf = ngx_pcalloc(cf->pool, sizeof *conf);
    if (conf == NULL) return NULL;
    conf->gate = NGX_CONF_UNSET_PTR;
    conf->limits = NGX_CONF_UNSET_PTR;
    conf->failures = NGX_CONF_UNSET_PTR;
    conf->headers = NGX_CONF_UNSET;
    return conf;
}

/** A location has its parent's gate, and its limits, unless it says anything of its own. */
static char *merge_loc_conf(ngx_conf_t *cf, void *parent, void *child) {
    (void)cf;
    ngx_http_keytally_loc_conf_t *outer = parent, *inner = child;
    if (inner->gate == NGX_CONF_UNSET_PTR) {
        inner->gate = outer->gate == NGX_CONF_UNSET_PTR ? NULL : outer->gate;
        inner->cost = outer->cost;
        inner->shadow = outer->shadow;
    }
    ngx_conf_merge_ptr_value(inner->limits, outer->limits, NULL);
    ngx_conf_merge_ptr_value(inner->failures, outer->failures, NULL);
    ngx_conf_merge_value(inner->headers, outer->headers, 1);
    return NGX_CONF_OK;
}

/** Reads `cost=…` and `shadow`, from the third word of a directive on. */
static char *parse_options(ngx_conf_t *cf, ngx_http_keytally_cost_t *cost, ngx_flag_t *shadow) {
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
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "parameter %ui of \"%V\" is neither \"cost=\" nor \"shadow\"", i, &words[0]);
            return NGX_CONF_ERROR;
        }
    }
    return NGX_CONF_OK;
}

static ngx_int_t says_off(ngx_conf_t *cf) {
    ngx_str_t *words = cf->args->elts;
    return cf->args->nelts == 2 && ngx_strcmp(words[1].data, "off") == 0;
}

/** `keytally NAME [cost=N|$variable] [shadow];` and `keytally off;` */
static char *use_gate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *location = conf;
    ngx_str_t *words = cf->args->elts;
    if (location->gate != NGX_CONF_UNSET_PTR) return "is duplicate";
    if (says_off(cf)) {
        location->gate = NULL;
        return NGX_CONF_OK;
    }
    location->gate =
        ngx_http_keytally_gate_find(ngx_http_conf_get_module_main_conf(cf, ngx_http_keytally_module), &words[1]);
    if (location->gate == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no \"keytally_gate\" above declares the name in \"keytally\"");
        return NGX_CONF_ERROR;
    }
    return parse_options(cf, &location->cost, &location->shadow);
}

static ngx_http_keytally_zone_t *find_zone(ngx_conf_t *cf) {
    ngx_str_t *words = cf->args->elts;
    ngx_http_keytally_zone_t *zone =
        ngx_http_keytally_zone_find(ngx_http_conf_get_module_main_conf(cf, ngx_http_keytally_module), &words[1]);
    if (zone == NULL)
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no \"keytally_limit_zone\" above declares the name in \"%V\"", &words[0]);
    return zone;
}

/** `keytally_limit NAME [cost=N|$variable] [shadow];`, any number of them, and `keytally_limit off;` */
static char *use_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *location = conf;
    if (says_off(cf)) {
        if (location->limits != NGX_CONF_UNSET_PTR) return "is off and on at once";
        location->limits = NULL;
        return NGX_CONF_OK;
    }
    if (location->limits == NULL) return "is off and on at once";
    ngx_http_keytally_zone_t *zone = find_zone(cf);
    if (zone == NULL) return NGX_CONF_ERROR;
    if (location->limits == NGX_CONF_UNSET_PTR) {
        location->limits = ngx_array_create(cf->pool, 2, sizeof(ngx_http_keytally_limit_t));
        if (location->limits == NULL) return NGX_CONF_ERROR;
    }
    ngx_http_keytally_limit_t *limits = location->limits->elts;
    for (ngx_uint_t i = 0; i < location->limits->nelts; i++)
        if (limits[i].zone == zone) return "is duplicate";
    ngx_http_keytally_limit_t *limit = ngx_array_push(location->limits);
    if (limit == NULL) return NGX_CONF_ERROR;
    limit->zone = zone;
    return parse_options(cf, &limit->cost, &limit->shadow);
}

/** `keytally_failures NAME;` and `keytally_failures off;` */
static char *use_failures(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *location = conf;
    if (location->failures != NGX_CONF_UNSET_PTR) return "is duplicate";
    location->failures = says_off(cf) ? NULL : find_zone(cf);
    return says_off(cf) || location->failures != NULL ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/** `keytally_headers on|off;`. What nginx offers for this repeats the value in its error. */
static char *set_headers(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *location = conf;
    ngx_str_t *words = cf->args->elts;
    if (location->headers != NGX_CONF_UNSET) return "is duplicate";
    if (ngx_strcmp(words[1].data, "on") != 0 && ngx_strcmp(words[1].data, "off") != 0) return "takes \"on\" or \"off\"";
    location->headers = ngx_strcmp(words[1].data, "on") == 0;
    return NGX_CONF_OK;
}

/** `keytally_refusal;`. No key is asked for there, and no limit asked, that an outer level sets. */
static char *use_refusal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *location = conf;
    ngx_http_core_loc_conf_t *core = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (core->handler == ngx_http_keytally_refusal) return "is duplicate";
    core->handler = ngx_http_keytally_refusal;
    if (location->gate == NGX_CONF_UNSET_PTR) location->gate = NULL;
    if (location->limits == NGX_CONF_UNSET_PTR) location->limits = NULL;
    return NGX_CONF_OK;
}

/** `keytally_ipv6_prefix N;`: the length of the network that counts as one client. */
static char *set_ipv6_prefix(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_main_conf_t *main = conf;
    ngx_str_t *words = cf->args->elts;
    if (main->ipv6_prefix != 0) return "is duplicate";
    ngx_int_t length = ngx_atoi(words[1].data, words[1].len);
    if (length < 1 || length > 128) return "takes a number from 1 to 128";
    main->ipv6_prefix = (ngx_uint_t)length;
    return NGX_CONF_OK;
}

/** Puts a handler behind all others of its phase: nginx calls them from the last to the first. */
static ngx_int_t add_last(ngx_conf_t *cf, ngx_http_phases phase, ngx_http_handler_pt handler) {
    ngx_http_core_main_conf_t *core = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    ngx_array_t *handlers = &core->phases[phase].handlers;
    if (ngx_array_push(handlers) == NULL) return NGX_ERROR;
    ngx_http_handler_pt *first = handlers->elts;
    ngx_memmove(first + 1, first, (handlers->nelts - 1) * sizeof *first);
    *first = handler;
    return NGX_OK;
}

/** A request that limit_req, allow, deny, auth_basic or auth_request refuses costs nobody anything. */
static ngx_int_t postconfiguration(ngx_conf_t *cf) {
    if (add_last(cf, NGX_HTTP_PREACCESS_PHASE, ngx_http_keytally_check_limits) != NGX_OK ||
        add_last(cf, NGX_HTTP_PREACCESS_PHASE, ngx_http_keytally_check_subrequest) != NGX_OK ||
        add_last(cf, NGX_HTTP_ACCESS_PHASE, ngx_http_keytally_check_gate) != NGX_OK)
        return NGX_ERROR;
    ngx_http_keytally_answer_init();
    return NGX_OK;
}

static ngx_int_t init_process(ngx_cycle_t *cycle) {
    ngx_http_keytally_main_conf_t *main = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_keytally_module);
    if (main == NULL) return NGX_OK;
    ngx_http_keytally_gate_t **gates = main->gates.elts;
    for (ngx_uint_t i = 0; i < main->gates.nelts; i++) ngx_http_keytally_gate_watch(cycle, gates[i]);
    return NGX_OK;
}

#define ANYWHERE (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_HTTP_LMT_CONF)

static ngx_command_t commands[] = {
    {ngx_string("keytally_gate"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE3, ngx_http_keytally_gate_directive,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_limit_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE, ngx_http_keytally_zone_directive,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally"), ANYWHERE | NGX_CONF_TAKE123, use_gate, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_limit"), ANYWHERE | NGX_CONF_TAKE123, use_limit, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_failures"), ANYWHERE | NGX_CONF_TAKE1, use_failures, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_headers"), ANYWHERE | NGX_CONF_TAKE1, set_headers, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_refusal"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, use_refusal, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    {ngx_string("keytally_ipv6_prefix"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_ipv6_prefix, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    ngx_null_command,
};

static ngx_http_module_t context = {
    .preconfiguration = ngx_http_keytally_variables,
    .postconfiguration = postconfiguration,
    .create_main_conf = create_main_conf,
    .create_loc_conf = create_loc_conf,
    .merge_loc_conf = merge_loc_conf,
};

ngx_module_t ngx_http_keytally_module = {
    NGX_MODULE_V1, &context, commands, NGX_HTTP_MODULE, NULL, NULL, init_process, NULL, NULL, NULL, NULL,
    NGX_MODULE_V1_PADDING,
};
