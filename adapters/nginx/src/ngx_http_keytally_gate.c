/*
 * A gate: a mapped file that every worker shares with the command line.
 *
 * The master opens it while it reads the configuration, as root, so that a file that can't be used is an error of the
 * configuration, and workers needn't be able to open it: they inherit the mapping. When the file is replaced by another,
 * a worker that may open that does so within a second; where none may, the next reload does. Until then the old
 * file, which is still mapped, decides.
 */
#include "ngx_http_keytally.h"

#define WATCH_MS 1000

ngx_http_keytally_gate_t *ngx_http_keytally_gate_find(ngx_http_keytally_main_conf_t *main, ngx_str_t *name) {
    ngx_http_keytally_gate_t **gates = main->gates.elts;
    for (ngx_uint_t i = 0; i < main->gates.nelts; i++)
        if (gates[i]->name.len == name->len && ngx_strncmp(gates[i]->name.data, name->data, name->len) == 0) return gates[i];
    return NULL;
}

/** Returns what lies at the gate's path now. */
static ngx_http_keytally_file_t file_of(ngx_http_keytally_gate_t *gate) {
    ngx_http_keytally_file_t file = {0, 0};
    ngx_file_info_t info;
    if (ngx_file_info(gate->path.data, &info) == NGX_FILE_ERROR) return file;
    file.device = info.st_dev;
    file.inode = ngx_file_uniq(&info);
    return file;
}

ngx_flag_t ngx_http_keytally_gate_is_same_file(ngx_http_keytally_file_t one, ngx_http_keytally_file_t other) {
    return one.device == other.device && one.inode == other.inode;
}

/** Opens what lies at the path, and only then lets go of what was open. */
static kt_status open_gate(ngx_http_keytally_gate_t *gate) {
    /* Before the file is opened: if it is replaced in between, the next look sees another file again. */
    ngx_http_keytally_file_t file = file_of(gate);
    kt_gate *fresh;
    kt_status status =
        kt_gate_open_with_pepper_file((const char *)gate->path.data, (const char *)gate->pepper_path.data, &fresh);
    if (status != KT_OK) return status;
    (void)kt_gate_use_system_clock(fresh); /* It fails only for what is no handle. */
    kt_gate_close(gate->handle);
    gate->handle = fresh;
    gate->file = file;
    return KT_OK;
}

static void close_gate(void *data) {
    ngx_http_keytally_gate_t *gate = data;
    kt_gate_close(gate->handle);
    gate->handle = NULL;
}

/** `keytally_gate NAME file=PATH pepper_file=PATH;` */
char *ngx_http_keytally_gate_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    (void)cmd;
    ngx_http_keytally_main_conf_t *main = conf;
    ngx_str_t *words = cf->args->elts;
    if (ngx_strcmp(words[1].data, "off") == 0) return "can't be named \"off\"";
    if (words[1].len > NGX_HTTP_KEYTALLY_MAX_NAME_LEN) return "has a name of more than 32 bytes";
    if (ngx_http_keytally_gate_find(main, &words[1]) != NULL) return "declares a name that is taken";

    ngx_http_keytally_gate_t *gate = ngx_pcalloc(cf->pool, sizeof *gate), **place;
    if (gate == NULL) return NGX_CONF_ERROR;
    gate->name = words[1];
    gate->number = main->gates.nelts;
    if (gate->number == NGX_HTTP_KEYTALLY_MAX_GATES) return "is one of more than 64";
    for (ngx_uint_t i = 2; i < cf->args->nelts; i++) {
        ngx_str_t *path;
        size_t skip;
        if (ngx_strncmp(words[i].data, "file=", 5) == 0) {
            path = &gate->path;
            skip = 5;
        } else if (ngx_strncmp(words[i].data, "pepper_file=", 12) == 0) {
            path = &gate->pepper_path;
            skip = 12;
        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter %ui of \"keytally_gate\" is neither \"file=\" nor \"pepper_file=\"", i);
            return NGX_CONF_ERROR;
        }
        path->data = words[i].data + skip;
        path->len = words[i].len - skip;
        if (path->len == 0 || ngx_conf_full_name(cf->cycle, path, 1) != NGX_OK) return "has an empty path";
    }
    if (gate->path.len == 0 || gate->pepper_path.len == 0) return "needs \"file=\" and \"pepper_file=\"";

    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (cleanup == NULL || (place = ngx_array_push(&main->gates)) == NULL) return NGX_CONF_ERROR;
    cleanup->handler = close_gate;
    cleanup->data = gate;
    *place = gate;
    kt_status status = open_gate(gate);
    if (status != KT_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "cannot open the gate of \"file=\" with the peppers of \"pepper_file=\": %s",
                           kt_status_message(status));
        return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

/** A worker never waits for a pipe. */
static int is_file(ngx_str_t *path) {
    ngx_file_info_t info;
    return ngx_file_info(path->data, &info) != NGX_FILE_ERROR && ngx_is_file(&info);
}

/** Opens the gate's file if it was replaced. Runs once a second; a file that is refused is logged once for each reason. */
static void look(ngx_event_t *event) {
    ngx_http_keytally_gate_t *gate = event->data;
    ngx_http_keytally_file_t now = file_of(gate);
    if (now.inode != 0 && !ngx_http_keytally_gate_is_same_file(now, gate->file)) {
        kt_status status = is_file(&gate->pepper_path) ? open_gate(gate) : KT_NOT_A_FILE;
        if (status == KT_OK) {
            ngx_log_error(NGX_LOG_NOTICE, event->log, 0, "keytally \"%V\": \"%V\" was replaced, and the new file is in use",
                          &gate->name, &gate->path);
        } else if (!ngx_http_keytally_gate_is_same_file(now, gate->seen) || status != gate->refused) {
            ngx_log_error(NGX_LOG_ERR, event->log, 0,
                          "keytally \"%V\": \"%V\" was replaced, and the old file stays in use until the new one can be opened: %s",
                          &gate->name, &gate->path, kt_status_message(status));
            gate->seen = now;
            gate->refused = status;
        }
    }
    if (!ngx_exiting && !ngx_quit && !ngx_terminate) ngx_add_timer(event, WATCH_MS);
}

void ngx_http_keytally_gate_watch(ngx_cycle_t *cycle, ngx_http_keytally_gate_t *gate) {
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) return;
    gate->watch.handler = look;
    gate->watch.data = gate;
    gate->watch.log = cycle->log;
    gate->watch.cancelable = 1; /* A worker that should go doesn't stay for this. */
    ngx_add_timer(&gate->watch, WATCH_MS);
}
