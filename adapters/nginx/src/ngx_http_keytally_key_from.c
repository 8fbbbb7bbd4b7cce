/*
 * The fields that may carry the key of a request: `keytally_key_from`, or X-API-Key without it.
 */
#include "ngx_http_keytally.h"

/** The source that reads the credentials after `Bearer` in Authorization (RFC 6750, 2.1). */
static const char ngx_http_keytally_bearer[] = "authorization: bearer";

static const ngx_http_keytally_source_t ngx_http_keytally_default_source = {
    ngx_string("x-api-key"), 0};

/** Whether a text equals another one, which is in lower case and ends with NUL. */
static ngx_flag_t ngx_http_keytally_is_text(const ngx_str_t *text, const char *other) {
    return text->len == ngx_strlen(other) &&
           ngx_strncasecmp(text->data, (u_char *)(size_t)other, text->len) == 0;
}

/** Whether a text is the name of a header field (RFC 9110, 5.1). */
static ngx_flag_t ngx_http_keytally_is_field_name(const ngx_str_t *text) {
    for (size_t i = 0; i < text->len; i++) {
        u_char c = text->data[i], lower = ngx_tolower(c);
        if ((lower < 'a' || lower > 'z') && (c < '0' || c > '9') &&
            (c == '\0' || ngx_strchr("!#$%&'*+.^_`|~-", c) == NULL))
            return 0;
    }
    return text->len > 0;
}

/** Appends the challenge of a source to the value of WWW-Authenticate (RFC 9110, 11.6.1). */
static ngx_int_t ngx_http_keytally_add_challenge(ngx_conf_t *cf, ngx_str_t *challenges,
                                                 const ngx_str_t *name, ngx_flag_t is_bearer) {
    static const char form[] = "ApiKey realm=\"api\", header=\"\"";
    u_char *text = ngx_pnalloc(cf->pool, challenges->len + name->len + sizeof form + 2), *end;
    if (text == NULL) return NGX_ERROR;
    end = ngx_sprintf(text, challenges->len == 0 ? "%V" : "%V, ", challenges);
    end = is_bearer ? ngx_sprintf(end, "Bearer realm=\"api\"")
                    : ngx_sprintf(end, "ApiKey realm=\"api\", header=\"%V\"", name);
    challenges->data = text;
    challenges->len = (size_t)(end - text);
    return NGX_OK;
}

/**
 * `keytally_key_from FIELD…;`, where a field is the name of a header, or "Authorization: Bearer".
 * No error shows the value of a parameter, which may be a secret.
 */
char *ngx_http_keytally_key_from(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_loc_conf_t *klcf = conf;
    ngx_str_t *words = cf->args->elts;
    if (klcf->key_from != NGX_CONF_UNSET_PTR) return "is duplicate";
    klcf->key_from = NULL;
    /* The default has the default texts. */
    if (cf->args->nelts == 2 && ngx_http_keytally_is_text(&words[1], "x-api-key"))
        return NGX_CONF_OK;
    ngx_http_keytally_key_from_t *key_from = ngx_pcalloc(cf->pool, sizeof *key_from);
    if (key_from == NULL ||
        ngx_array_init(&key_from->sources, cf->pool, cf->args->nelts,
                       sizeof(ngx_http_keytally_source_t)) != NGX_OK)
        return NGX_CONF_ERROR;
    for (ngx_uint_t i = 1; i < cf->args->nelts; i++) {
        ngx_flag_t is_bearer = ngx_http_keytally_is_text(&words[i], ngx_http_keytally_bearer);
        if (!is_bearer && (!ngx_http_keytally_is_field_name(&words[i]) ||
                           words[i].len > NGX_HTTP_KEYTALLY_MAX_FIELD_LEN ||
                           ngx_http_keytally_is_text(&words[i], "authorization") ||
                           ngx_http_keytally_is_text(&words[i], "cookie"))) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter %ui of \"keytally_key_from\" is neither a header whose "
                               "value is a key, such as X-API-Key, of at most %d bytes, nor "
                               "\"Authorization: Bearer\" in quotes",
                               i, NGX_HTTP_KEYTALLY_MAX_FIELD_LEN);
            return NGX_CONF_ERROR;
        }
        ngx_http_keytally_source_t *source, *sources = key_from->sources.elts;
        ngx_str_t name = {is_bearer ? sizeof "authorization" - 1 : words[i].len,
                          ngx_pnalloc(cf->pool, words[i].len)};
        if (name.data == NULL) return NGX_CONF_ERROR;
        ngx_strlow(name.data, words[i].data, name.len);
        for (ngx_uint_t j = 0; j < key_from->sources.nelts; j++) {
            if (sources[j].name.len == name.len &&
                ngx_memcmp(sources[j].name.data, name.data, name.len) == 0) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "parameter %ui of \"keytally_key_from\" repeats another", i);
                return NGX_CONF_ERROR;
            }
        }
        if ((source = ngx_array_push(&key_from->sources)) == NULL ||
            ngx_http_keytally_add_challenge(cf, &key_from->challenges, &words[i], is_bearer) !=
                NGX_OK)
            return NGX_CONF_ERROR;
        source->name = name;
        source->is_bearer = (unsigned)is_bearer;
    }
    klcf->key_from = key_from;
    return NGX_CONF_OK;
}

/** Sets `key` to the key in a field's value. Returns 0 if the value has none. */
static ngx_flag_t ngx_http_keytally_key_in(const ngx_http_keytally_source_t *source,
                                           const ngx_str_t *value, ngx_str_t *key) {
    *key = *value;
    if (!source->is_bearer) return 1;
    if (value->len < 6 || ngx_strncasecmp(value->data, (u_char *)"bearer", 6) != 0 ||
        (value->len > 6 && value->data[6] != ' '))
        return 0;
    key->data += 6;
    key->len -= 6;
    for (; key->len > 0 && *key->data == ' '; key->len--) key->data++;
    return 1;
}

/**
 * Returns how many keys the fields of a source have, and sets `key` to the first. If a field is
 * there twice, returns 2 if one of them has a key: an upstream might use another one than this
 * module.
 */
static ngx_uint_t ngx_http_keytally_find_in(ngx_http_request_t *r,
                                            const ngx_http_keytally_source_t *source,
                                            ngx_str_t *key) {
    ngx_uint_t fields = 0, keys = 0;
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            ngx_str_t found;
            if (header[i].key.len != source->name.len ||
                ngx_memcmp(header[i].lowcase_key, source->name.data, source->name.len) != 0)
                continue;
            fields++;
            if (ngx_http_keytally_key_in(source, &header[i].value, &found) && keys++ == 0)
                *key = found;
        }
    }
    return keys == 0 ? 0 : fields;
}

/**
 * Finds the key of a request. Returns 0 if there is none, 1 if `key` is set to it, and more if the
 * request must be refused: a field is there twice, or two fields have keys that differ.
 */
ngx_uint_t ngx_http_keytally_find_key(ngx_http_request_t *r,
                                      const ngx_http_keytally_key_from_t *key_from,
                                      ngx_str_t *key) {
    if (key_from == NULL)
        return ngx_http_keytally_find_in(r, &ngx_http_keytally_default_source, key);
    const ngx_http_keytally_source_t *sources = key_from->sources.elts;
    ngx_uint_t count = 0;
    for (ngx_uint_t i = 0; i < key_from->sources.nelts; i++) {
        ngx_str_t found;
        ngx_uint_t here = ngx_http_keytally_find_in(r, &sources[i], &found);
        if (here > 1) return here;
        if (here == 0) continue;
        if (count == 1 &&
            (found.len != key->len || ngx_memcmp(found.data, key->data, key->len) != 0))
            return 2;
        *key = found;
        count = 1;
    }
    return count;
}
