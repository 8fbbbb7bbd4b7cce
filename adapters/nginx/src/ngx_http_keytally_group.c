/*
 * The groups that a request charges, `group=write` and `group=tokens:$variable`, and the scopes
 * that its key needs, `need=write`.
 */
#include "ngx_http_keytally.h"

/** Parses the value of `group=`: a name, or a name and a cost with a colon between them. */
char *ngx_http_keytally_group_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_array_t **groups) {
    if (*groups == NULL)
        *groups = ngx_array_create(cf->pool, 2, sizeof(ngx_http_keytally_group_t));
    ngx_http_keytally_group_t *group = *groups == NULL ? NULL : ngx_array_push(*groups);
    if (group == NULL) return NGX_CONF_ERROR;
    ngx_memzero(group, sizeof *group);
    if ((*groups)->nelts > KT_MAX_TALLIES) return "has more than 8 groups";
    u_char *colon = ngx_strlchr(text->data, text->data + text->len, ':');
    group->name = *text;
    if (colon == NULL) return NGX_CONF_OK;
    group->name.len = (size_t)(colon - text->data);
    group->has_own_cost = 1;
    group->cost.units = 1; /* That of an empty variable. */
    ngx_str_t cost = {text->len - group->name.len - 1, colon + 1};
    return ngx_http_keytally_cost_parse(cf, &cost, &group->cost);
}

/** Parses the value of `need=`: the name of a scope. */
char *ngx_http_keytally_need_parse(ngx_conf_t *cf, ngx_str_t *text, ngx_array_t **need) {
    if (*need == NULL) *need = ngx_array_create(cf->pool, 2, sizeof(kt_name));
    kt_name *name = *need == NULL ? NULL : ngx_array_push(*need);
    if (name == NULL) return NGX_CONF_ERROR;
    name->text = (const char *)text->data;
    name->text_len = text->len;
    return NGX_CONF_OK;
}

/**
 * Evaluates the groups of a request and their costs. If a cost is out of range, it is 0, and the
 * result is `NGX_DECLINED`: see `ngx_http_keytally_cost_get`.
 */
ngx_int_t ngx_http_keytally_groups_get(ngx_http_request_t *r, ngx_array_t *groups, kt_group *values,
                                       size_t *count) {
    ngx_int_t rc = NGX_OK;
    *count = 0;
    if (groups == NULL) return NGX_OK;
    ngx_http_keytally_group_t *all = groups->elts;
    for (ngx_uint_t i = 0; i < groups->nelts; i++) {
        kt_group *value = &values[(*count)++];
        value->name = (const char *)all[i].name.data;
        value->name_len = all[i].name.len;
        value->cost = 0;
        value->has_own_cost = all[i].has_own_cost;
        if (!all[i].has_own_cost) continue;
        ngx_int_t cost_rc = ngx_http_keytally_cost_get(r, &all[i].cost, &value->cost);
        if (cost_rc == NGX_ERROR) return NGX_ERROR;
        if (cost_rc != NGX_OK) rc = cost_rc;
    }
    return rc;
}
