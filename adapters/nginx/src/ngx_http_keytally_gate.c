/*
 * Gates: mapped files that all workers share with the command line.
 *
 * The master opens a gate while it reads the configuration, usually as root. So a file that cannot
 * be opened is an error of the configuration. Workers inherit the mapping, even if they are not
 * allowed to open the file.
 *
 * If another file replaces the gate's, each worker that may open it does so within a second. If the
 * workers may not, the next reload opens it. Until then the old file stays mapped and in use.
 */
#include "ngx_http_keytally.h"

/** How often a worker looks for a replaced file. */
#define NGX_HTTP_KEYTALLY_WATCH_MS 1000

/** Returns the gate of that name, or NULL if there is none. */
ngx_http_keytally_gate_t *ngx_http_keytally_gate_find(ngx_http_keytally_main_conf_t *kmcf,
                                                      ngx_str_t *name) {
    ngx_http_keytally_gate_t **gates = kmcf->gates.elts;
    for (ngx_uint_t i = 0; i < kmcf->gates.nelts; i++)
        if (gates[i]->name.len == name->len &&
            ngx_strncmp(gates[i]->name.data, name->data, name->len) == 0)
            return gates[i];
    return NULL;
}

/** Returns the identity of the file at a path. Its inode is 0 if there is no path or no file. */
static ngx_http_keytally_file_t ngx_http_keytally_file_at(ngx_str_t *path) {
    ngx_http_keytally_file_t file = {0, 0};
    ngx_file_info_t info;
    if (path->len == 0 || ngx_file_info(path->data, &info) == NGX_FILE_ERROR) return file;
    file.device = info.st_dev;
    file.inode = ngx_file_uniq(&info);
    return file;
}

/** Whether two identities are of one file. */
ngx_flag_t ngx_http_keytally_gate_is_same_file(ngx_http_keytally_file_t one,
                                               ngx_http_keytally_file_t other) {
    return one.device == other.device && one.inode == other.inode;
}

/** Whether the gate's file cannot be opened with another pepper either, for the same reason. */
static ngx_flag_t ngx_http_keytally_gate_is_unusable(ngx_http_keytally_gate_t *gate,
                                                     kt_status reason) {
    char other[KT_PEPPER_SIZE];
    kt_gate *opened;
    return kt_pepper_generate(other, sizeof other) == KT_OK &&
           kt_gate_open((const char *)gate->path.data, other, sizeof other - 1, &opened) == reason;
}

/**
 * Opens the file at the gate's path, and joins its fleet. On success, closes the file that was open
 * before. On failure, writes which of the gate's paths is that of the unusable file.
 */
static kt_status ngx_http_keytally_gate_open(ngx_http_keytally_gate_t *gate, ngx_str_t **failed) {
    /* The identities are read first: if a file is replaced in between, the timer reopens it. */
    ngx_http_keytally_file_t file = ngx_http_keytally_file_at(&gate->path);
    ngx_http_keytally_file_t fleet_file = ngx_http_keytally_file_at(&gate->fleet_path);
    kt_gate *fresh;
    kt_status status = kt_gate_open_with_pepper_file((const char *)gate->path.data,
                                                     (const char *)gate->pepper_path.data, &fresh);
    if (status != KT_OK) {
        *failed = ngx_http_keytally_gate_is_unusable(gate, status) ? &gate->path
                                                                   : &gate->pepper_path;
        return status;
    }
    if (gate->fleet_path.len > 0) status = kt_gate_join(fresh, (const char *)gate->fleet_path.data);
    if (status != KT_OK) {
        kt_gate_close(fresh);
        *failed = &gate->fleet_path;
        return status;
    }
    /* These fail only for an invalid handle. */
    uint32_t is_extended = 0;
    (void)kt_gate_use_system_clock(fresh);
    (void)kt_gate_is_extended(fresh, &is_extended);
    kt_gate_close(gate->handle);
    gate->handle = fresh;
    gate->file = file;
    gate->fleet_file = fleet_file;
    gate->is_extended = is_extended != 0;
    return KT_OK;
}

/** A function of a gate that writes the name at an index. */
typedef kt_status (*ngx_http_keytally_name_pt)(kt_gate *gate, size_t index, char *buffer,
                                               size_t buffer_len, size_t *written_out);

/** Whether the gate has a name from the index `first` on. */
static ngx_flag_t ngx_http_keytally_gate_has(ngx_http_keytally_gate_t *gate,
                                             ngx_http_keytally_name_pt name_at, size_t first,
                                             const char *name, size_t name_len) {
    char found[KT_SECTION_SIZE > KT_SCOPE_SIZE ? KT_SECTION_SIZE : KT_SCOPE_SIZE];
    size_t len;
    for (; name_at(gate->handle, first, found, sizeof found, &len) == KT_OK; first++)
        if (len == name_len && ngx_memcmp(found, name, len) == 0) return 1;
    return 0;
}

/** Reports groups and scopes that the gate does not have as an error of the configuration. */
char *ngx_http_keytally_gate_expect(ngx_conf_t *cf, ngx_http_keytally_gate_t *gate,
                                    ngx_array_t *groups, ngx_array_t *need) {
    ngx_http_keytally_group_t *group = groups == NULL ? NULL : groups->elts;
    static const ngx_str_t team = ngx_string("team");
    for (ngx_uint_t i = 0; groups != NULL && i < groups->nelts; i++) {
        /* The first section is that of the key. */
        ngx_str_t *name = &group[i].name;
        if ((name->len == team.len && ngx_memcmp(name->data, team.data, team.len) == 0) ||
            !ngx_http_keytally_gate_has(gate, kt_gate_section, 1, (const char *)name->data,
                                        name->len)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the plans of the gate have no group as \"group=\" number %ui names",
                               i + 1);
            return NGX_CONF_ERROR;
        }
    }
    kt_name *scope = need == NULL ? NULL : need->elts;
    for (ngx_uint_t i = 0; need != NULL && i < need->nelts; i++)
        if (!ngx_http_keytally_gate_has(gate, kt_gate_scope, 0, scope[i].text, scope[i].text_len)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the gate has no scope as \"need=\" number %ui names", i + 1);
            return NGX_CONF_ERROR;
        }
    return NGX_CONF_OK;
}

/** Closes the gate when nginx frees the configuration. */
static void ngx_http_keytally_gate_cleanup(void *data) {
    ngx_http_keytally_gate_t *gate = data;
    kt_gate_close(gate->handle);
    gate->handle = NULL;
}

/**
 * Returns a path as an error of the configuration may repeat it: a text with 16 or more letters and
 * digits in a row may be a key or a pepper that was given by mistake.
 */
static ngx_str_t *ngx_http_keytally_shown(ngx_str_t *path) {
    static ngx_str_t hidden = ngx_string("...");
    size_t in_a_row = 0;
    for (size_t i = 0; i < path->len; i++) {
        in_a_row = ngx_strchr("/._-", path->data[i]) == NULL ? in_a_row + 1 : 0;
        if (in_a_row == 16) return &hidden;
    }
    return path;
}

/** `keytally_gate NAME file=PATH pepper_file=PATH [fleet=PATH];` */
char *ngx_http_keytally_gate(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_main_conf_t *kmcf = conf;
    ngx_str_t *words = cf->args->elts;
    if (ngx_strcmp(words[1].data, "off") == 0) return "cannot be named \"off\"";
    if (words[1].len > NGX_HTTP_KEYTALLY_MAX_NAME_LEN) return "has a name of more than 32 bytes";
    if (ngx_http_keytally_gate_find(kmcf, &words[1]) != NULL)
        return "declares a name that is taken";

    ngx_http_keytally_gate_t *gate = ngx_pcalloc(cf->pool, sizeof *gate), **slot;
    if (gate == NULL) return NGX_CONF_ERROR;
    gate->name = words[1];
    gate->index = kmcf->gates.nelts;
    if (gate->index == NGX_HTTP_KEYTALLY_MAX_GATES) return "is one of more than 64";
    for (ngx_uint_t i = 2; i < cf->args->nelts; i++) {
        ngx_str_t *path;
        size_t skip;
        if (ngx_strncmp(words[i].data, "file=", 5) == 0) {
            path = &gate->path;
            skip = 5;
        } else if (ngx_strncmp(words[i].data, "pepper_file=", 12) == 0) {
            path = &gate->pepper_path;
            skip = 12;
        } else if (ngx_strncmp(words[i].data, "fleet=", 6) == 0) {
            path = &gate->fleet_path;
            skip = 6;
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter %ui of \"keytally_gate\" is none of \"file=\", "
                               "\"pepper_file=\" and \"fleet=\"",
                               i);
            return NGX_CONF_ERROR;
        }
        path->data = words[i].data + skip;
        path->len = words[i].len - skip;
        if (path->len == 0 || ngx_conf_full_name(cf->cycle, path, 1) != NGX_OK)
            return "has an empty path";
    }
    if (gate->path.len == 0 || gate->pepper_path.len == 0)
        return "needs \"file=\" and \"pepper_file=\"";

    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (cleanup == NULL || (slot = ngx_array_push(&kmcf->gates)) == NULL) return NGX_CONF_ERROR;
    cleanup->handler = ngx_http_keytally_gate_cleanup;
    cleanup->data = gate;
    *slot = gate;
    ngx_str_t *failed = NULL;
    kt_status status = ngx_http_keytally_gate_open(gate, &failed);
    if (status != KT_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "cannot open \"%V\", %s: %s",
                           ngx_http_keytally_shown(failed),
                           failed == &gate->path          ? "the gate of \"file=\""
                           : failed == &gate->pepper_path ? "the peppers of \"pepper_file=\""
                                                          : "the fleet file of \"fleet=\"",
                           kt_status_message(status));
        return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

/** Whether the path leads to a regular file. A worker must not wait for a pipe. */
static int ngx_http_keytally_is_regular_file(ngx_str_t *path) {
    ngx_file_info_t info;
    return ngx_file_info(path->data, &info) != NGX_FILE_ERROR && ngx_is_file(&info);
}

/**
 * Handles a worker's timer: opens the gate's file if it was replaced. If that fails, the timer
 * tries again a second later. The log shows a failure if its file or reason differs from those of
 * the failure before.
 */
static void ngx_http_keytally_gate_timer(ngx_event_t *event) {
    ngx_http_keytally_gate_t *gate = event->data;
    ngx_http_keytally_file_t now = ngx_http_keytally_file_at(&gate->path);
    ngx_http_keytally_file_t fleet = ngx_http_keytally_file_at(&gate->fleet_path);
    if ((now.inode != 0 && !ngx_http_keytally_gate_is_same_file(now, gate->file)) ||
        (fleet.inode != 0 && !ngx_http_keytally_gate_is_same_file(fleet, gate->fleet_file))) {
        ngx_str_t *failed = &gate->pepper_path;
        kt_status status = ngx_http_keytally_is_regular_file(&gate->pepper_path)
                               ? ngx_http_keytally_gate_open(gate, &failed)
                               : KT_NOT_A_FILE;
        if (status == KT_OK) {
            ngx_log_error(NGX_LOG_NOTICE, event->log, 0,
                          "keytally \"%V\": \"%V\"%s was replaced; the new file is in use",
                          &gate->name, &gate->path,
                          gate->fleet_path.len == 0 ? "" : " or its fleet file");
        } else if (!ngx_http_keytally_gate_is_same_file(now, gate->rejected_file) ||
                   !ngx_http_keytally_gate_is_same_file(fleet, gate->rejected_fleet_file) ||
                   status != gate->rejected_status) {
            ngx_log_error(NGX_LOG_ERR, event->log, 0,
                          "keytally \"%V\": \"%V\"%s was replaced; the old file stays in use until "
                          "the new one can be opened: %s (\"%V\")",
                          &gate->name, &gate->path,
                          gate->fleet_path.len == 0 ? "" : " or its fleet file",
                          kt_status_message(status), failed);
            gate->rejected_file = now;
            gate->rejected_fleet_file = fleet;
            gate->rejected_status = status;
        }
    }
    if (!ngx_exiting && !ngx_quit && !ngx_terminate)
        ngx_add_timer(event, NGX_HTTP_KEYTALLY_WATCH_MS);
}

/** Starts the timer that looks for a replaced file, in a worker. */
void ngx_http_keytally_gate_watch(ngx_cycle_t *cycle, ngx_http_keytally_gate_t *gate) {
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) return;
    gate->timer.handler = ngx_http_keytally_gate_timer;
    gate->timer.data = gate;
    gate->timer.log = cycle->log;
    gate->timer.cancelable = 1; /* This timer does not delay the shutdown of the worker. */
    ngx_add_timer(&gate->timer, NGX_HTTP_KEYTALLY_WATCH_MS);
}
