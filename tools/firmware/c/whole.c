/* All functions that a device uses, and nothing else. docs/EMBEDDED.md has its size. A gate of 64
 * keys issues, checks, rotates and revokes a key. A limiter counts requests without a key. A key is
 * parsed, and a response is written. */
#include <keytally.h>

#include "board.h"

static _Alignas(KT_TABLE_ALIGN) uint8_t gate_memory[KT_GATE_SIZE(64)];
static _Alignas(KT_TABLE_ALIGN) uint8_t limiter_memory[KT_LIMITER_SIZE(16)];
static kt_gate gate;
static kt_limiter limiter;

/* The first failure is the exit status. */
#define TRY(what)                 \
    do {                          \
        kt_status status = what;  \
        if (status != KT_OK) {    \
            return status;        \
        }                         \
    } while (0)

int main(void) {
    static const uint8_t pepper[32] = "a pepper for all to see, 32 byte";
    static const uint8_t entropy[2][KT_ENTROPY_SIZE] = {"24 bytes, random for you",
                                                        "others, as random please"};
    static const uint8_t seed[16] = "from the entropy";
    const uint64_t now_ms = 1767225600000;

    const kt_plan plan = {KT_TEXT("device"), KT_TEXT("100/minute, 1000/hour")};
    const kt_gate_config config = {
        sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    const kt_bytes peppers = {pepper, sizeof pepper};
    TRY(kt_gate_init(gate_memory, sizeof gate_memory, &config, &peppers, 1, &gate));
    TRY(kt_limiter_init(limiter_memory, sizeof limiter_memory, KT_TEXT("5/minute"), 16, seed,
                        &limiter));

    const kt_new_key new_key = {
        sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("device"), 0, 0, NULL, 0};
    kt_key key;
    uint64_t key_id;
    TRY(kt_gate_issue(&gate, &new_key, entropy[0], now_ms, &key, &key_id));
    TRY(kt_gate_rotate(&gate, key_id, 0, 0, entropy[1], now_ms, &key));

    size_t key_len = 0;
    while (key.text[key_len] != 0) {
        key_len++;
    }
    kt_key_parts parts;
    TRY(kt_key_parse((const uint8_t *)key.text, key_len, &parts));

    kt_verdict verdict;
    TRY(kt_limiter_check(&limiter, (const uint8_t *)"sensor 1", 8, 1, now_ms, &verdict));
    TRY(kt_gate_check(&gate, (const uint8_t *)key.text, key_len, 1, now_ms, &verdict));
    char headers[KT_HEADERS_SIZE];
    size_t written;
    TRY(kt_verdict_headers(&verdict, headers, sizeof headers, &written));
    const char *body = kt_verdict_body(&verdict);

    TRY(kt_gate_revoke(&gate, key_id));
    kt_verdict refused;
    TRY(kt_gate_check(&gate, (const uint8_t *)key.text, key_len, 1, now_ms, &refused));
    return verdict.outcome == KT_ADMITTED && written > 0 && body[0] == 0 &&
                   refused.outcome == KT_INVALID_KEY
               ? 0
               : 2;
}
