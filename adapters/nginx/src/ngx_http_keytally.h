/*
 * Shared types and functions of the module. A file calls only files that stand above it here.
 *
 * ngx_http_keytally_cost.c            the cost of a request
 * ngx_http_keytally_group.c           the groups and scopes of a request; calls cost.c
 * ngx_http_keytally_key_from.c        the fields that may carry the key of a request
 * ngx_http_keytally_gate.c            gates: mapped files that nginx reopens when they are replaced
 * ngx_http_keytally_zone.c            limiters in nginx's shared-memory zones
 * ngx_http_keytally_client_address.c  the network that counts as one client
 * ngx_http_keytally_ctx.c             what the module remembers of a request
 * ngx_http_keytally_wait.c            waits for credits of a fleet, without blocking a worker
 * ngx_http_keytally_crossed.c         warnings of plans that a request reached
 * ngx_http_keytally_charge.c          charges of a request, and their refunds; calls gate.c
 * ngx_http_keytally_refund.c          refunds by the status of the response; calls ctx.c, charge.c
 * ngx_http_keytally_refusal.c         the response to a refused request; calls ctx.c, charge.c
 * ngx_http_keytally_header_filter.c   rate-limit fields on every response; calls ctx.c
 * ngx_http_keytally_handler.c         the phase handlers, which check a request; calls cost.c,
 *                                     group.c, key_from.c, ctx.c, wait.c, crossed.c, charge.c,
 *                                     refund.c, refusal.c
 * ngx_http_keytally_variables.c       variables; calls ctx.c, client_address.c
 * ngx_http_keytally_module.c          directives and the module's tables; calls all but ctx.c,
 *                                     wait.c, crossed.c, charge.c, client_address.c
 *
 * `ngx_http_keytally_module` is the exception: as in every nginx module, all files name it to find
 * the module's configurations and contexts.
 */
#ifndef NGX_HTTP_KEYTALLY_H
#define NGX_HTTP_KEYTALLY_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <keytally.h>

/**
 * The maximum length of a gate's or zone's name, in bytes. Logs show names, and this is shorter
 * than any key of Keytally's form: a key in place of a name is rejected before a log can show it.
 */
#define NGX_HTTP_KEYTALLY_MAX_NAME_LEN 32

/**
 * The maximum length of the name of a field that may carry the key, in bytes. Clients see the name
 * in refusals, and this is shorter than any pepper and any key of Keytally's form.
 */
#define NGX_HTTP_KEYTALLY_MAX_FIELD_LEN 40

/** The maximum numbers of gates and zones: a request has one bit for each that charged it. */
#define NGX_HTTP_KEYTALLY_MAX_GATES 64
#define NGX_HTTP_KEYTALLY_MAX_ZONES 64

/** The key of a zone without `key=`. */
#define NGX_HTTP_KEYTALLY_CLIENT_ADDRESS "$keytally_client_address"

/** The length of an IPv6 network that counts as one client, without `keytally_ipv6_prefix`. */
#define NGX_HTTP_KEYTALLY_IPV6_PREFIX 64

/** The identity of a file: no other existing file has the same. */
typedef struct {
    dev_t device;
    ngx_file_uniq_t inode; /* 0 if there is no file */
} ngx_http_keytally_file_t;

/** A gate that `keytally_gate` declares. */
typedef struct {
    ngx_str_t name;
    ngx_uint_t index; /* from 0; the gate's bit in a request's `gates` */
    ngx_str_t path;   /* absolute and NUL-terminated, like `pepper_path` */
    ngx_str_t pepper_path;
    ngx_str_t fleet_path; /* empty if the gate joins no fleet */
    kt_gate *handle;
    unsigned is_extended:1;                 /* a check may charge several tallies */
    ngx_http_keytally_file_t file;          /* the file that the handle maps */
    ngx_http_keytally_file_t fleet_file;    /* the fleet file that it maps */
    ngx_http_keytally_file_t rejected_file; /* the last file that could not be opened */
    ngx_http_keytally_file_t rejected_fleet_file; /* the fleet file at that time */
    kt_status rejected_status;              /* why it could not be opened */
    ngx_event_t timer;                      /* in a worker: checks whether the file was replaced */
} ngx_http_keytally_gate_t;

/** A limiter that `keytally_limit_zone` declares. */
typedef struct {
    ngx_str_t name;
    ngx_str_t policy;
    ngx_http_complex_value_t key;
    ngx_uint_t index; /* from 0; the zone's bit in a request's `zones` */
    kt_on_full on_full;
    /* Tallies of a request: one, or one for each prefix of a policy for addresses. */
    ngx_uint_t tallies;
    unsigned counts_addresses:1; /* the policy is one for addresses */
    void *table;      /* in the zone, at the same address in every process */
    size_t table_len;
    kt_limiter handle;
} ngx_http_keytally_zone_t;

/** The cost of a request: a number, or the value of a variable at the time of the check. */
typedef struct {
    ngx_uint_t units;
    ngx_http_complex_value_t *value; /* NULL if it is a number */
} ngx_http_keytally_cost_t;

/** A group of a gate's plans that a location charges. */
typedef struct {
    ngx_str_t name;
    ngx_http_keytally_cost_t cost;
    unsigned has_own_cost:1; /* else it is charged the cost of the request */
} ngx_http_keytally_group_t;

/** One `keytally_limit` of a location. */
typedef struct {
    ngx_http_keytally_zone_t *zone;
    ngx_http_keytally_cost_t cost;
    ngx_flag_t shadow;
} ngx_http_keytally_limit_t;

/** A field that may carry a key. */
typedef struct {
    ngx_str_t name;       /* in lower case */
    unsigned is_bearer:1; /* the key follows `Bearer` in the value */
} ngx_http_keytally_source_t;

/** The fields that may carry the key of a request. */
typedef struct {
    ngx_array_t sources;  /* of ngx_http_keytally_source_t */
    ngx_str_t challenges; /* the value of WWW-Authenticate */
} ngx_http_keytally_key_from_t;

/** A list of statuses from 100 to 599: a bit for each. */
typedef struct {
    uint64_t bits[8];
} ngx_http_keytally_statuses_t;

/**
 * One charge of a request by a gate or a zone. It is refunded if a later one denies the request, or
 * if the response has a status for which the location that made the charge refunds it.
 */
typedef struct ngx_http_keytally_charge_s {
    struct ngx_http_keytally_charge_s *next; /* the previous charge of the request */
    ngx_http_keytally_zone_t *zone;          /* NULL if a gate charged */
    ngx_str_t subject;
    const ngx_http_keytally_statuses_t *refund; /* NULL if no status refunds the charge */
    ngx_http_keytally_gate_t *gate;
    ngx_http_keytally_file_t file; /* the file that the gate's handle mapped when it charged */
    uint64_t key_id;
    kt_charge charge;
} ngx_http_keytally_charge_t;

/** The wait of a request for credits of a fleet. */
typedef struct ngx_http_keytally_wait_s ngx_http_keytally_wait_t;

/** The configuration of `http`. */
typedef struct {
    ngx_array_t gates;      /* of ngx_http_keytally_gate_t * */
    ngx_array_t zones;      /* of ngx_http_keytally_zone_t * */
    ngx_uint_t ipv6_prefix; /* 0 if unset */
} ngx_http_keytally_main_conf_t;

/** The configuration of a location. */
typedef struct {
    ngx_http_keytally_gate_t *gate; /* NULL if off */
    ngx_http_keytally_cost_t cost;
    ngx_flag_t shadow;
    ngx_array_t *groups;                /* of ngx_http_keytally_group_t; NULL if none */
    ngx_array_t *need;                  /* of kt_name: scopes of the key; NULL if none */
    ngx_array_t *limits;                /* of ngx_http_keytally_limit_t; NULL if off */
    ngx_http_keytally_zone_t *failures; /* counts invalid keys; NULL if off */
    ngx_http_keytally_statuses_t *refund; /* statuses that return a charge; NULL if unset */
    ngx_http_keytally_key_from_t *key_from; /* NULL if it is X-API-Key alone */
    ngx_flag_t error_page;              /* whether error_page may replace a refusal */
    ngx_flag_t headers;                 /* whether admitted requests get header fields */
} ngx_http_keytally_loc_conf_t;

/**
 * The context of a client's request, shared by its internal redirects and subrequests.
 *
 * It records which gates and zones charged the request, not which refused it. When the request
 * reaches a gate or zone again that refused it, that one is checked again.
 */
typedef struct {
    uint64_t gates;                      /* the gates that charged the request */
    uint64_t zones;                      /* the zones that charged it */
    ngx_http_keytally_charge_t *charges; /* the last one first */
    ngx_http_keytally_wait_t *waits;     /* of the requests that have waited for credits */
    ngx_http_keytally_gate_t *gate;      /* the gate of `verdict`; NULL if it is of a zone */
    ngx_uint_t sent_status;              /* of the header fields that were sent; 0 before */
    ngx_uint_t refusal_status;           /* HTTP status of the last refusal; 0 if there was none */
    const char *refusal_body;
    const ngx_str_t *challenges; /* of the gate's location; NULL if they are the verdict's */
    unsigned has_verdict:1;
    unsigned shadowed:1;        /* `verdict` is a shadow's refusal: the client does not see it */
    unsigned failure_counted:1; /* the zone of failures counted this request's invalid key */
    unsigned limits_deferred:1; /* the gate of the location will charge its limits, too */
    kt_outcome outcome;         /* of the first refusal, also in shadow; else admitted */
    kt_reason reason;
    ngx_str_t crossed;        /* for $keytally_crossed: warnings that the request reached */
    uint32_t failure_retry_s; /* Retry-After of too many invalid keys; else 0 */
    kt_compound *compound;    /* for header fields: has `verdict`; NULL if it is alone */
    kt_verdict verdict;       /* for header fields and variables, if `has_verdict` */
} ngx_http_keytally_ctx_t;

extern ngx_module_t ngx_http_keytally_module;

/**
 * Returns nginx's cached reading of the system clock, in Unix milliseconds. Each handle is declared
 * to get such readings, by `kt_gate_use_system_clock` or `kt_limiter_use_system_clock`.
 */
static ngx_inline uint64_t ngx_http_keytally_now_ms(void) {
    ngx_time_t *now = ngx_timeofday();
    return (uint64_t)now->sec * 1000 + now->msec;
}

char *ngx_http_keytally_cost_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_http_keytally_cost_t *cost);
char *ngx_http_keytally_group_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_array_t **groups);
char *ngx_http_keytally_need_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_array_t **need);
ngx_int_t ngx_http_keytally_groups_get(ngx_http_request_t *r, ngx_array_t *groups, kt_group *values,
                                       size_t *count);
ngx_int_t ngx_http_keytally_cost_get(ngx_http_request_t *r, ngx_http_keytally_cost_t *cost,
                                     uint32_t *units);

char *ngx_http_keytally_key_from(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_uint_t ngx_http_keytally_find_key(ngx_http_request_t *r,
                                      const ngx_http_keytally_key_from_t *key_from, ngx_str_t *key);

char *ngx_http_keytally_gate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_http_keytally_gate_t *ngx_http_keytally_gate_find(ngx_http_keytally_main_conf_t *kmcf,
                                                      ngx_str_t *name);
char *ngx_http_keytally_gate_expect(ngx_conf_t *cf, ngx_http_keytally_gate_t *gate,
                                    ngx_array_t *groups, ngx_array_t *need);
ngx_flag_t ngx_http_keytally_gate_is_same_file(ngx_http_keytally_file_t one,
                                               ngx_http_keytally_file_t other);
void ngx_http_keytally_gate_watch(ngx_cycle_t *cycle, ngx_http_keytally_gate_t *gate);

char *ngx_http_keytally_limit_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_http_keytally_zone_t *ngx_http_keytally_zone_find(ngx_http_keytally_main_conf_t *kmcf,
                                                      ngx_str_t *name);

ngx_int_t ngx_http_keytally_client_address(ngx_http_request_t *r, ngx_str_t *text);

ngx_http_keytally_ctx_t *ngx_http_keytally_get_ctx(ngx_http_request_t *r);
ngx_http_keytally_ctx_t *ngx_http_keytally_create_ctx(ngx_http_request_t *r);

ngx_flag_t ngx_http_keytally_has_waited(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);
kt_patience ngx_http_keytally_patience(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);
ngx_int_t ngx_http_keytally_wait(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);
void ngx_http_keytally_wait_end(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);

void ngx_http_keytally_report_crossed(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                      ngx_http_keytally_gate_t *gate, const kt_compound *compound);

void ngx_http_keytally_charge_add(ngx_http_keytally_ctx_t *ctx,
                                  ngx_http_keytally_charge_t *charge);
void ngx_http_keytally_refund_one(ngx_http_keytally_ctx_t *ctx, ngx_http_keytally_charge_t *charge);
void ngx_http_keytally_refund(ngx_http_keytally_ctx_t *ctx);
void ngx_http_keytally_refund_if_denied(ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict);

char *ngx_http_keytally_refund_statuses(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
const ngx_http_keytally_statuses_t *ngx_http_keytally_refund_of(ngx_http_request_t *r);
ngx_int_t ngx_http_keytally_log_handler(ngx_http_request_t *r);

ngx_int_t ngx_http_keytally_refuse(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx,
                                   const kt_verdict *verdict);
ngx_int_t ngx_http_keytally_refuse_cost(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);
ngx_int_t ngx_http_keytally_refusal_handler(ngx_http_request_t *r);

void ngx_http_keytally_header_filter_init(void);

ngx_int_t ngx_http_keytally_limit_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_keytally_gate_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_keytally_subrequest_handler(ngx_http_request_t *r);

ngx_int_t ngx_http_keytally_add_variables(ngx_conf_t *cf);

#endif
