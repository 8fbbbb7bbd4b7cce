/*
 * An HTTP server that checks each request's API key, with libmicrohttpd: GET /api/v1/contacts.
 *
 *     cc server.c -o server $(pkg-config --cflags --libs keytally libmicrohttpd)
 *     KEYTALLY_PEPPER=... ./server api.gate 8080
 *
 * Create the gate and its keys with the command line (`keytally create`, `keytally issue`). A
 * change there, such as a revocation, holds for the next request.
 */
#include <keytally.h>

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONTACTS "{\"contacts\": [{\"name\": \"Ada\"}, {\"name\": \"Grace\"}]}"
#define NOT_FOUND "{\"error\": \"Not found\"}"
#define BROKEN "{\"error\": \"Internal server error\"}"

/** The X-API-Key headers of a request. More than one is invalid, because another server of the
 *  chain might read another one. */
struct api_keys {
    const char *first;
    size_t len;
    unsigned count;
};

/** Stores the first X-API-Key header of a request in `context`, and counts all. */
static enum MHD_Result count_api_key(void *context, enum MHD_ValueKind kind, const char *name,
                                     size_t name_len, const char *value, size_t value_len) {
    (void)kind;
    struct api_keys *keys = context;
    if (name_len != strlen("X-API-Key") || strncasecmp(name, "X-API-Key", name_len) != 0)
        return MHD_YES;
    if (keys->count++ == 0) {
        keys->first = value == NULL ? "" : value;
        keys->len = value_len;
    }
    return MHD_YES;
}

/** What was decided about a request: the status and the body if it is refused, and the header fields
 *  of every response. */
struct decision {
    int admitted;
    unsigned status;
    const char *body;
    kt_field fields[KT_MAX_FIELDS];
    size_t count;
    char buffer[KT_COMPOUND_HEADERS_SIZE];
};

/** Checks the key of a request. A gate may have teams and groups: the compound then lists all quotas
 *  in its header fields, and has the charge for a refund. */
static kt_status decide(kt_gate *gate, const struct api_keys *keys, struct decision *out) {
    if (keys->count > 1) {
        kt_verdict verdict;
        kt_status status = kt_verdict_duplicate_header(KT_SYSTEM_CLOCK, &verdict);
        if (status != KT_OK) return status;
        out->admitted = 0;
        out->status = verdict.http_status;
        out->body = kt_verdict_body(&verdict);
        return kt_verdict_fields(&verdict, out->buffer, sizeof out->buffer, out->fields,
                                 KT_MAX_FIELDS, &out->count);
    }
    kt_compound compound;
    kt_status status =
        kt_gate_check_request(gate, (const uint8_t *)keys->first, keys->len, NULL, &compound);
    if (status != KT_OK) return status;
    /* compound.account is the account whose contacts are requested. */
    out->admitted = compound.outcome == KT_ADMITTED;
    out->status = compound.http_status;
    out->body = kt_compound_body(&compound);
    return kt_compound_fields(&compound, out->buffer, sizeof out->buffer, out->fields,
                              KT_MAX_FIELDS, &out->count);
}

/** Sends a static body, with the header fields of the decision if there is one. */
static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, const char *body,
                               const struct decision *decision) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(body), (void *)(size_t)body, MHD_RESPMEM_PERSISTENT);
    if (response == NULL) return MHD_NO;
    enum MHD_Result result = MHD_add_response_header(response, "Content-Type", "application/json");
    for (size_t i = 0; decision != NULL && result == MHD_YES && i < decision->count; i++)
        result = MHD_add_response_header(response, decision->fields[i].name,
                                         decision->fields[i].value);
    if (result == MHD_YES) result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/** Handles a request. libmicrohttpd calls it for the headers, then for each part of the body. */
static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_len, void **state) {
    (void)version;
    (void)upload;
    static int seen;
    if (*state == NULL) { /* The first call has the headers only; further calls bring the body. */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        *upload_len = 0;
        return MHD_YES;
    }

    struct api_keys keys = {NULL, 0, 0};
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, count_api_key, &keys);
    struct decision decision;
    kt_status status = decide(context, &keys, &decision);
    if (status != KT_OK) {
        fprintf(stderr, "check: %s\n", kt_status_message(status));
        return respond(connection, 500, BROKEN, NULL);
    }
    if (!decision.admitted)
        return respond(connection, decision.status, decision.body, &decision);

    /* The application begins here. */
    if (strcmp(path, "/api/v1/contacts") != 0)
        return respond(connection, 404, NOT_FOUND, &decision);
    if (strcmp(method, "GET") != 0) return respond(connection, 405, NOT_FOUND, &decision);
    return respond(connection, 200, CONTACTS, &decision);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: KEYTALLY_PEPPER=... %s GATE PORT\n", arguments[0]);
        return 2;
    }
    const char *peppers = getenv("KEYTALLY_PEPPER");
    kt_gate *gate;
    kt_status status =
        kt_gate_open(arguments[1], peppers, peppers == NULL ? 0 : strlen(peppers), &gate);
    if (status != KT_OK) {
        fprintf(stderr, "%s: %s\n", arguments[1], kt_status_message(status));
        return 1;
    }

    /* All threads share one handle, without a lock. */
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, (uint16_t)atoi(arguments[2]), NULL, NULL,
        answer, gate, MHD_OPTION_THREAD_POOL_SIZE, 4u, MHD_OPTION_END);
    if (daemon == NULL) {
        fprintf(stderr, "cannot listen on port %s\n", arguments[2]);
        kt_gate_close(gate);
        return 1;
    }
    printf("http://127.0.0.1:%u/api/v1/contacts\n",
           MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    while (getchar() != EOF) {
    } /* Until standard input ends. */
    MHD_stop_daemon(daemon);
    kt_gate_close(gate);
    return 0;
}
