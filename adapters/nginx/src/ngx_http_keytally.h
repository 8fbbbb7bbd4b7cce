/*
 * What the files of the module share.
 *
 * ngx_http_keytally_module.c     directives, phases: the module as nginx sees it
 * ngx_http_keytally_gate.c       a gate: the mapped file, and what happens when it is replaced
 * ngx_http_keytally_zone.c       a limiter in an nginx shared-memory zone
 * ngx_http_keytally_cost.c       what a request costs
 * ngx_http_keytally_check.c      the phases: is this request admitted?
 * ngx_http_keytally_answer.c     what the client gets: refusals, and headers on what was let through
 * ngx_http_keytally_variables.c  what logs and upstreams get, and the client's address
 */
#ifndef NGX_HTTP_KEYTALLY_H
#define NGX_HTTP_KEYTALLY_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <keytally.h>

/** The longest name of a gate or a zone, in bytes. Logs show names, and no key of Keytally's form is so short. */
#define NGX_HTTP_KEYTALLY_MAX_NAME_LEN 32

/** What distinguishes a file from every other one that exists. */
typedef struct {
    dev_t device;
    ngx_file_uniq_t inode; /* 0 if there is no file */
} ngx_http_keytally_file_t;

/** A gate that `keytally_gate` declares. */
typedef struct {
    ngx_str_t name;
    ngx_uint_t number;     /* from 0, its bit in `gates` of a request */
    ngx_str_t path;        /* absolute, NUL-terminated, as the next */
    ngx_str_t pepper_path;
    kt_gate *handle;
    ngx_http_keytally_file_t file; /* what the handle maps */
    ngx_http_keytally_file_t seen; /* the last file that could not be opened */
    kt_status refused;     /* why */
    ngx_event_t watch;     /* in a worker: looks for a replaced file */
} ngx_http_keytally_gate_t;

/** A limiter that `keytally_limit_zone` declares. */
typedef struct {
    ngx_str_t name;
    ngx_str_t policy;
    ngx_http_complex_value_t key;
    ngx_uint_t number;     /* from 0, its bit in `limited` of a request */
    void *table;           /* in the zone, at the same address in every process */
    size_t table_len;
    kt_limiter handle;
} ngx_http_keytally_zone_t;

/** What a request is charged: a number, or what a variable holds by then. */
typedef struct {
    ngx_uint_t units;
    ngx_http_complex_value_t *value; /* NULL when it is a number */
} ngx_http_keytally_cost_t;

/** One `keytally_limit` of a location. */
typedef struct {
    ngx_http_keytally_zone_t *zone;
    ngx_http_keytally_cost_t cost;
    ngx_flag_t shadow;
} ngx_http_keytally_limit_t;

/** What one zone or gate charged a request, to be given back if a later one denies it. */
typedef struct ngx_http_keytally_charged_s {
    struct ngx_http_keytally_charged_s *next; /* that was charged before it */
    ngx_http_keytally_zone_t *zone;           /* NULL when it is a gate */
    ngx_str_t subject;
    ngx_http_keytally_gate_t *gate;
    ngx_http_keytally_file_t file;            /* what the gate's handle mapped */
    uint64_t key_id;
    kt_charge charge;
} ngx_http_keytally_charged_t;

/** The most gates, and the most zones: a request remembers those that it was charged in as bits. */
#define NGX_HTTP_KEYTALLY_MAX_GATES 64
#define NGX_HTTP_KEYTALLY_MAX_ZONES 64

/**
 * The length of an IPv6 network that counts as one client, unless `keytally_ipv6_prefix` sets
 * another.
 */
#define NGX_HTTP_KEYTALLY_IPV6_PREFIX 64

typedef struct {
    ngx_array_t gates; /* of ngx_http_keytally_gate_t * */
    ngx_array_t zones; /* of ngx_http_keytally_zone_t * */
    ngx_uint_t ipv6_prefix; /* 0 when unset */
} ngx_http_keytally_main_conf_t;

typedef struct {
    ngx_http_keytally_gate_t *gate; /* NULL when off */
    ngx_http_keytally_cost_t cost;
    ngx_flag_t shadow;
    ngx_array_t *limits; /* of ngx_http_keytally_limit_t; NULL when off */
    ngx_http_keytally_zone_t *failures; /* counts wrong keys; NULL when off */
    ngx_flag_t headers;  /* what is let through gets header fields */
} ngx_http_keytally_loc_conf_t;

/**
 * What is known of a client's request, through all its internal redirects and subrequests.
 *
 * Only what was charged is remembered. A gate or zone that refused is asked again, and refuses
 * again.
 */
typedef struct {
    uint64_t gates;                 /* the gates that charged it */
    uint64_t zones;                 /* the zones that charged it */
    ngx_http_keytally_charged_t *charged; /* what they charged, the last first */
    ngx_http_keytally_gate_t *gate; /* the verdict's; NULL when it is a zone's */
    ngx_uint_t refusal_status;      /* of the answer to the last refusal; 0 when there was none */
    const char *refusal_body;
    unsigned has_verdict:1;
    unsigned shadowed:1;            /* the verdict is of a shadow: the client isn't told */
    unsigned guess_counted:1;       /* its invalid key was counted in the zone of failures */
    kt_outcome outcome;             /* of the first refusal, also in a shadow, else admitted */
    kt_reason reason;
    uint32_t guess_retry_s;         /* when there were too many wrong keys: Retry-After; else 0 */
    kt_verdict verdict;             /* whose headers and key the request has, if it has any */
} ngx_http_keytally_ctx_t;

extern ngx_module_t ngx_http_keytally_module;

char *ngx_http_keytally_gate_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_http_keytally_gate_t *ngx_http_keytally_gate_find(ngx_http_keytally_main_conf_t *main, ngx_str_t *name);
ngx_flag_t ngx_http_keytally_gate_is_same_file(ngx_http_keytally_file_t one, ngx_http_keytally_file_t other);
void ngx_http_keytally_gate_watch(ngx_cycle_t *cycle, ngx_http_keytally_gate_t *gate);

char *ngx_http_keytally_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_http_keytally_zone_t *ngx_http_keytally_zone_find(ngx_http_keytally_main_conf_t *main, ngx_str_t *name);

char *ngx_http_keytally_cost_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_http_keytally_cost_t *cost);
ngx_int_t ngx_http_keytally_cost_of(ngx_http_request_t *r, ngx_http_keytally_cost_t *cost, uint32_t *units);

ngx_int_t ngx_http_keytally_check_limits(ngx_http_request_t *r);
ngx_int_t ngx_http_keytally_check_gate(ngx_http_request_t *r);
ngx_int_t ngx_http_keytally_check_subrequest(ngx_http_request_t *r);
void ngx_http_keytally_give_back_if_denied(ngx_http_keytally_ctx_t *ctx);
ngx_http_keytally_ctx_t *ngx_http_keytally_ctx(ngx_http_request_t *r);

ngx_int_t ngx_http_keytally_refuse(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx, const kt_verdict *verdict);
ngx_int_t ngx_http_keytally_refuse_cost(ngx_http_request_t *r, ngx_http_keytally_ctx_t *ctx);
ngx_int_t ngx_http_keytally_refusal(ngx_http_request_t *r);
void ngx_http_keytally_answer_init(void);

ngx_int_t ngx_http_keytally_variables(ngx_conf_t *cf);

#endif
