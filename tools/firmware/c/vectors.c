/* Runs the vectors that concern C: policies, keys, verdicts. tables/src/lib.rs describes the form
 * of their table. */
#include "vectors.h"

#include <keytally.h>

#include "board.h"

__asm__(
    ".section .rodata.vectors, \"a\"\n"
    ".balign 4\n"
    "vectors_begin: .incbin \"vectors.bin\"\n"
    "vectors_end:\n"
    ".previous\n");
extern const uint8_t vectors_begin[], vectors_end[];

/* The rest of the table, and the texts that it refers to. */
static const uint8_t *at, *texts;

static uint64_t number(void) {
    uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
        const uint8_t byte = *at++;
        number |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return number;
        }
    }
}

static void pass(int numbers) {
    while (numbers-- > 0) {
        number();
    }
}

struct text {
    const uint8_t *data;
    size_t len;
};

/* Reads a text. */
static struct text take_text(void) {
    const size_t len = (size_t)number();
    const struct text text = {at, len};
    at += len;
    return text;
}

/* Reads a reference to a text. */
static struct text text(void) {
    uint64_t index = number();
    const uint8_t *after = at;
    at = texts;
    while (index-- > 0) {
        take_text();
    }
    const struct text text = take_text();
    at = after;
    return text;
}

static int is(struct text text, const char *other) {
    return strlen(other) == text.len && memcmp(text.data, other, text.len) == 0;
}

/* Whether a policy has sliding windows. */
static int slides(struct text policy) {
    return policy.len >= 7 && memcmp(policy.data, "sliding", 7) == 0;
}

/* The cases that need sliding windows, weeks or months, if the library was built without them. */
static uint32_t left_out_policies, left_out_verdicts;

/* Returns whether the library was built without what a policy needs. */
static int is_left_out(kt_status status, struct text policy) {
    if (status == KT_NO_SLIDING) EXPECT(slides(policy));
    return status == KT_NO_SLIDING || status == KT_NO_CALENDAR;
}

#define CHARS(text) (const char *)(text).data, (text).len

static uint32_t policies(void) {
    static const kt_status ERRORS[] = {
        KT_POLICY_EMPTY,      KT_POLICY_TOO_LONG,      KT_POLICY_SYNTAX,   KT_POLICY_LIMIT,
        KT_POLICY_WINDOW,     KT_POLICY_UNIT,          KT_POLICY_TOO_MANY, KT_POLICY_DUPLICATE,
        KT_POLICY_SLIDING_MONTH, KT_POLICY_TOO_MANY_BITS,
    };
    char printed[KT_POLICY_SIZE];
    size_t written;
    const uint32_t valid = (uint32_t)number();
    for (uint32_t count = 0; count < valid; count++) {
        const struct text policy = text(), canonical = text();
        const kt_status status =
            kt_policy_parse(CHARS(policy), printed, sizeof printed, &written);
        if (is_left_out(status, canonical)) {
            left_out_policies++;
        } else {
            EXPECT(status == KT_OK && is(canonical, printed));
        }
        pass(1);
        pass(2 * (int)number());
        pass(1);
        pass((int)number());
    }
    const uint32_t invalid = (uint32_t)number();
    for (uint32_t count = 0; count < invalid; count++) {
        const struct text policy = text();
        const kt_status status =
            kt_policy_parse(CHARS(policy), printed, sizeof printed, &written);
        const kt_status expected = ERRORS[number()];
        if (is_left_out(status, policy)) {
            left_out_policies++;
        } else {
            EXPECT(status == expected);
        }
        number();
    }
    return valid + invalid - left_out_policies;
}

/* Skips the decisions. They concern one tally word, which C does not see. The verdicts, which C
 * does compare, depend on them. */
static void pass_decisions(void) {
    for (uint64_t left = number(); left > 0; left--) {
        pass(9);
        for (uint64_t answers = number(); answers > 0; answers--) {
            pass(2);
            pass(2 * (int)number());
            pass(1);
        }
    }
    pass(4 * (int)number());
}

static uint32_t keys(void) {
    size_t written;
    const uint32_t valid = (uint32_t)number();
    for (uint32_t count = 0; count < valid; count++) {
        const struct text prefix = text(), env = text();
        const uint64_t key_id = number();
        const struct text secret = text(), whole = text(), id = text(), hint = text();
        kt_key key;
        kt_key_parts parts;
        char shown[KT_HINT_SIZE];
        EXPECT(kt_key_mint(CHARS(prefix), CHARS(env), key_id, secret.data, &key) == KT_OK);
        EXPECT(is(whole, key.text));
        EXPECT(kt_key_parse(whole.data, whole.len, &parts) == KT_OK);
        EXPECT(is(prefix, parts.prefix) && is(env, parts.env) && parts.key_id == key_id);
        EXPECT(kt_key_id_text(key_id, shown, sizeof shown, &written) == KT_OK && is(id, shown));
        EXPECT(kt_key_hint(whole.data, whole.len, shown, sizeof shown, &written) == KT_OK &&
               is(hint, shown));
    }
    const uint32_t invalid = (uint32_t)number();
    for (uint32_t count = 0; count < invalid; count++) {
        const struct text key = text();
        const kt_status status = number() == 1 ? KT_KEY_CHECKSUM : KT_KEY_FORM;
        kt_key_parts parts;
        EXPECT(kt_key_parse(key.data, key.len, &parts) == status);
    }
    return (uint32_t)valid + invalid;
}

static kt_gate gate;

/* One request to the gate. */
static void step(void) {
    const uint64_t peek = number();
    const uint32_t values = (uint32_t)number();
    struct text key = {NULL, 0};
    for (uint32_t value = 0; value < values; value++) {
        key = text();
    }
    const uint32_t cost = (uint32_t)number();
    uint64_t now_ms = number();
    if (now_ms == KT_SYSTEM_CLOCK) now_ms--; /* An explicit time with the same result. */
    kt_verdict verdict;
    if (values > 1) {
        EXPECT(kt_verdict_duplicate_header(now_ms, &verdict) == KT_OK);
    } else {
        EXPECT((peek ? kt_gate_peek : kt_gate_check)(&gate, key.data, key.len, cost, now_ms,
                                                     &verdict) == KT_OK);
    }
    EXPECT(is(text(), kt_outcome_name(verdict.outcome)));
    EXPECT(is(text(), kt_reason_name(verdict.reason)));
    EXPECT(verdict.http_status == number());
    const uint64_t key_id = number();
    const uint32_t account = (uint32_t)number();
    const uint32_t quotas = (uint32_t)number();
    EXPECT(verdict.quota_count == quotas);
    EXPECT(quotas == 0 || (verdict.key_id == key_id && verdict.account == account));
    for (uint32_t index = 0; index < quotas; index++) {
        kt_quota quota;
        EXPECT(kt_verdict_quota(&verdict, index, &quota) == KT_OK);
        EXPECT(quota.limit == number());
        EXPECT(quota.remaining == number());
        EXPECT(quota.window_s == number());
        EXPECT(quota.reset_unix_s == number());
    }
    EXPECT(verdict.retry_after_s == number());
    char headers[KT_HEADERS_SIZE];
    size_t len, read = 0;
    EXPECT(kt_verdict_headers(&verdict, headers, sizeof headers, &len) == KT_OK);
    for (uint32_t lines = (uint32_t)number(); lines > 0; lines--) {
        const struct text line = text();
        EXPECT(read + line.len <= len && memcmp(headers + read, line.data, line.len) == 0);
        read += line.len;
    }
    EXPECT(read == len);
    EXPECT(is(text(), kt_verdict_body(&verdict)));
}

/* Skips the keys and the requests of a gate. Returns the number of requests. */
static uint32_t pass_gate(void) {
    pass(7 * (int)number());
    const uint32_t steps = (uint32_t)number();
    for (uint32_t left = steps; left > 0; left--) {
        pass(1);
        pass((int)number());
        pass(7);
        pass(4 * (int)number());
        pass(1);
        pass((int)number());
        pass(1);
    }
    return steps;
}

static uint32_t verdicts(uint8_t *gate_memory, size_t gate_len) {
    uint32_t steps = 0;
    for (uint32_t gates = (uint32_t)number(); gates > 0; gates--) {
        const struct text policy = text(), pepper = text();
        const kt_plan plan = {KT_TEXT("default"), CHARS(policy)};
        const kt_gate_config config = {
            sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
        const kt_bytes peppers = {pepper.data, pepper.len};
        const kt_status status =
            kt_gate_init(gate_memory, gate_len, &config, &peppers, 1, &gate);
        if (is_left_out(status, policy)) {
            left_out_verdicts += pass_gate();
            continue;
        }
        EXPECT(status == KT_OK);
        for (uint32_t keys = (uint32_t)number(); keys > 0; keys--) {
            const struct text whole = text(), previous = text(), secret = text();
            kt_key_parts parts;
            EXPECT(kt_key_parse(whole.data, whole.len, &parts) == KT_OK);
            kt_new_key new_key = {sizeof(kt_new_key), 0, parts.env, strlen(parts.env),
                                  KT_TEXT("default"), 0, 0, NULL, 0};
            new_key.account = (uint32_t)number();
            new_key.expires_s = (uint32_t)number();
            const uint32_t grace_until_s = (uint32_t)number();
            const struct text first = previous.len > 0 ? previous : whole;
            uint64_t key_id;
            EXPECT(kt_gate_import(&gate, first.data, first.len, &new_key, 0, &key_id) == KT_OK);
            EXPECT(key_id == parts.key_id);
            if (previous.len > 0) {
                uint8_t entropy[KT_ENTROPY_SIZE] = {0};
                memcpy(entropy + 8, secret.data, 16);
                kt_key key;
                EXPECT(kt_gate_rotate(&gate, key_id, grace_until_s, 0, entropy, 0, &key) == KT_OK);
                EXPECT(is(whole, key.text));
            }
            if (number() == 1) {
                EXPECT(kt_gate_revoke(&gate, key_id) == KT_OK);
            }
        }
        for (uint32_t left = (uint32_t)number(); left > 0; left--, steps++) {
            step();
        }
        kt_gate_close(&gate);
    }
    uint32_t outcomes = (uint32_t)number();
    for (uint32_t left = outcomes; left > 0; left--) {
        const struct text name = text();
        EXPECT(is(name, kt_outcome_name((kt_outcome)number())));
        number();
        text();
    }
    return steps + outcomes;
}

void run_vectors(uint8_t *gate_memory, size_t gate_len) {
    at = vectors_begin;
    uint64_t count = number();
    texts = at;
    while (count-- > 0) {
        take_text();
    }
    print("vectors: ");
    print_number(policies());
    pass_decisions();
    print(" policies, ");
    print_number(keys());
    /* MACs are internal to a gate. */
    pass(3 * (int)number());
    print(" keys, ");
    print_number(verdicts(gate_memory, gate_len));
    print(" verdicts agree\n");
    if (left_out_policies > 0) {
        print("left out without their features: ");
        print_number(left_out_policies);
        print(" policies, ");
        print_number(left_out_verdicts);
        print(" verdicts\n");
    }
    EXPECT(at == vectors_end);
}
