/*
 * One gate, one key, requests until one is denied.
 *
 *     keytally create api.gate --plan "default=3/minute, 100/hour"
 *     cc gate.c -o gate $(pkg-config --cflags --libs keytally)
 *     ./gate
 *
 * Run it in the folder of api.gate, with the pepper of the gate in KEYTALLY_PEPPER.
 */
#include <keytally.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    const char *peppers = getenv("KEYTALLY_PEPPER");
    kt_gate *gate = NULL;
    kt_status status = kt_gate_open("api.gate", peppers, peppers ? strlen(peppers) : 0, &gate);

    /* A key of account 42 in the environment "live", with the plan "default" and no expiry. */
    const kt_new_key new_key = {
        sizeof new_key, 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
    uint8_t entropy[KT_ENTROPY_SIZE];
    kt_key key;
    uint64_t key_id;
    if (status == KT_OK) status = kt_entropy(entropy);
    if (status == KT_OK)
        status = kt_gate_issue(gate, &new_key, entropy, KT_SYSTEM_CLOCK, &key, &key_id);
    /* It holds the secret of the key. */
    for (volatile uint8_t *at = entropy; at < entropy + sizeof entropy; at++) *at = 0;

    kt_verdict verdict = {.outcome = KT_ADMITTED};
    while (status == KT_OK && verdict.outcome == KT_ADMITTED) {
        /* In a server, the X-API-Key field of the request, or NULL. */
        const uint8_t *header = (const uint8_t *)key.text;
        status = kt_gate_check(gate, header, strlen(key.text), 1, KT_SYSTEM_CLOCK, &verdict);
        if (status != KT_OK) break;

        char headers[KT_HEADERS_SIZE];
        size_t written;
        status = kt_verdict_headers(&verdict, headers, sizeof headers, &written);
        printf("%d %s\n%s", verdict.http_status, kt_verdict_body(&verdict), headers);
    }
    kt_key_wipe(&key);
    kt_gate_close(gate);
    if (status == KT_OK) return 0;
    fprintf(stderr, "api.gate: %s\n", kt_status_message(status));
    return 1;
}
