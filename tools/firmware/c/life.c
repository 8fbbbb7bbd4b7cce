/* The scenario of a device, as in checks/src/life.rs. All devices print the same, in both
 * languages. */
#include "life.h"

#include <keytally.h>

#include "board.h"
#include "clock.h"

enum { HZ = 32768 };
static const uint64_t START_MS = 1767225600000; /* 2026-01-01, 00:00 UTC */

static kt_gate gate;
static kt_limiter limiter;
static struct clock clock;
static uint32_t ticks;

static void name_of_window(uint32_t seconds) {
    switch (seconds) {
        case 1: print("second"); return;
        case 60: print("minute"); return;
        case 3600: print("hour"); return;
        default: print_number(seconds); print("s");
    }
}

static void print_verdict(const char *what, const kt_verdict *verdict) {
    print(what);
    print(": ");
    print(kt_outcome_name(verdict->outcome));
    if (verdict->key_id != 0) {
        print(", account ");
        print_number(verdict->account);
    }
    kt_quota quota;
    for (size_t index = 0; kt_verdict_quota(verdict, index, &quota) == KT_OK; index++) {
        print(", ");
        print_number(quota.remaining);
        print(" of ");
        print_number(quota.limit);
        print("/");
        name_of_window(quota.window_s);
    }
    if (verdict->retry_after_s > 0) {
        print(", again in ");
        print_number(verdict->retry_after_s);
        print(" s");
    }
    if (verdict->reason != KT_REASON_NONE) {
        print(", because ");
        print(kt_reason_name(verdict->reason));
    }
    print("\n");
}

static kt_verdict check(const char *what, const kt_key *key) {
    const uint8_t *api_key = key == NULL ? NULL : (const uint8_t *)key->text;
    size_t api_key_len = key == NULL ? 0 : strlen(key->text);
    kt_verdict verdict;
    EXPECT(kt_gate_check(&gate, api_key, api_key_len, 1, clock_at(&clock, ticks), &verdict) ==
           KT_OK);
    print_verdict(what, &verdict);
    return verdict;
}

static void knock(const char *subject) {
    kt_verdict verdict;
    const uint64_t now_ms = clock_at(&clock, ticks);
    EXPECT(kt_limiter_check(&limiter, (const uint8_t *)subject, strlen(subject), 1, now_ms,
                            &verdict) == KT_OK);
    print_verdict(subject, &verdict);
}

static void print_key(const char *what, uint64_t key_id, const kt_key *key) {
    char id[KT_KEY_ID_SIZE], hint[KT_HINT_SIZE];
    size_t written;
    EXPECT(kt_key_id_text(key_id, id, sizeof id, &written) == KT_OK);
    EXPECT(kt_key_hint((const uint8_t *)key->text, strlen(key->text), hint, sizeof hint,
                       &written) == KT_OK);
    print(what);
    print(" ");
    print(id);
    print(", shown as ");
    print(hint);
    print("\n");
}

static void print_response(const kt_verdict *verdict) {
    char headers[KT_HEADERS_SIZE];
    size_t len;
    EXPECT(kt_verdict_headers(verdict, headers, sizeof headers, &len) == KT_OK);
    print("  HTTP ");
    print_number(verdict->http_status);
    print(" ");
    print(kt_verdict_body(verdict));
    print("\n");
    for (char *line = headers, *end; (end = strstr(line, "\r\n")) != NULL; line = end + 2) {
        *end = 0;
        print("  ");
        print(line);
        print("\n");
    }
}

/* Advances the counter by `seconds`. Reads the clock each second, since fewer than 2^32 ticks may
 * pass between two readings. */
static void passes(uint32_t seconds) {
    uint32_t before = ticks;
    for (uint32_t second = 0; second < seconds; second++) {
        ticks += HZ;
        clock_at(&clock, ticks);
    }
    print_number(seconds);
    print(ticks < before ? " s pass, and the counter wraps\n" : " s pass\n");
}

void live(uint8_t *gate_memory, size_t gate_len, uint8_t *limiter_memory, size_t limiter_len,
          uint32_t subjects) {
    /* The counter wraps 10 s from now. */
    ticks = UINT32_MAX - 10 * HZ;
    clock_start(&clock, START_MS, ticks, HZ);

    static const uint8_t pepper[] = "a pepper for all to see, 32 bytes";
    const kt_plan plan = {KT_TEXT("device"), KT_TEXT("3/minute, 5/hour")};
    const kt_gate_config config = {
        sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    const kt_bytes peppers = {pepper, sizeof pepper - 1};
    static const uint8_t seed[] = "from the entropy";
    EXPECT(kt_gate_init(gate_memory, gate_len, &config, &peppers, 1, &gate) == KT_OK);
    EXPECT(kt_limiter_init(limiter_memory, limiter_len, KT_TEXT("2/second"), subjects, seed,
                           &limiter) == KT_OK);
    print("a gate for 64 keys, a limiter for ");
    print_number(subjects);
    print(" subjects\n");

    const kt_new_key new_key = {
        sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("device"), 0, 0, NULL, 0};
    kt_key key, other;
    uint64_t key_id;
    /* A real device takes entropy from its random number generator. */
    const uint8_t *entropy = (const uint8_t *)"24 bytes, random for you";
    EXPECT(kt_gate_issue(&gate, &new_key, entropy, clock_at(&clock, ticks), &key, &key_id) ==
           KT_OK);
    print_key("issued", key_id, &key);
    for (int times = 0; times < 4; times++) {
        check("the key", &key);
    }
    passes(30);
    check("still in the minute", &key);
    passes(30);
    kt_verdict verdict = check("the next minute", &key);
    print_response(&verdict);
    check("the fifth of the hour", &key);
    verdict = check("the sixth", &key);
    print_response(&verdict);

    passes(3600);
    const uint64_t now_ms = clock_at(&clock, ticks);
    entropy = (const uint8_t *)"others, as random please";
    EXPECT(kt_gate_rotate(&gate, key_id, (uint32_t)(now_ms / 1000) + 60, 0, entropy, now_ms,
                          &other) == KT_OK);
    print_key("rotated", key_id, &other);
    check("the old secret, in its grace", &key);
    check("the new secret", &other);
    passes(60);
    check("the old secret, after it", &key);
    check("the new secret", &other);
    EXPECT(kt_gate_revoke(&gate, key_id) == KT_OK);
    check("revoked", &other);
    check("no key", NULL);

    knock("sensor 1");
    knock("sensor 1");
    knock("sensor 1");
    knock("sensor 2");
    passes(1);
    knock("sensor 1");
}
