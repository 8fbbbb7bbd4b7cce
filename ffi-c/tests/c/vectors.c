/* Runs the vector files, which all languages share, in C: policies, charges, keys, MACs, decisions,
 * verdicts, requests of plans with sections, requests of clients in several networks. */
#include "check.h"

#include <cjson/cJSON.h>
#include <inttypes.h>

static const uint8_t SEED[16] = {5};

/** The current case, printed if a check fails. */
static const char *at;

#define HOLDS(condition)                                                                           \
    ((condition) ? (void)0 : (fprintf(stderr, "%s\n", at), failed(__FILE__, __LINE__, #condition)))

static cJSON *load(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(size + 1);
    CHECK(text != NULL && fread(text, 1, size, file) == size);
    text[size] = 0;
    fclose(file);
    /* A text of cJSON ends at a NUL, so another control character replaces it until `given`. */
    for (char *nul = text; (nul = strstr(nul, "\\u0000")) != NULL;) nul[5] = '1';
    cJSON *json = cJSON_Parse(text);
    CHECK(json != NULL);
    free(text);
    return json;
}

static const cJSON *field(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static const char *text(const cJSON *object, const char *name) {
    const char *value = cJSON_GetStringValue(field(object, name));
    if (value == NULL) fprintf(stderr, "%s: no %s\n", at, name);
    CHECK(value != NULL);
    return value;
}

/** Returns a text that may contain a NUL, and its length. */
static const char *given(const cJSON *object, const char *name, char *into, size_t size,
                         size_t *len) {
    *len = strlen(text(object, name));
    CHECK(*len < size);
    memcpy(into, text(object, name), *len + 1);
    for (size_t index = 0; index < *len; index++)
        if (into[index] == 1) into[index] = 0;
    return into;
}

static uint32_t number(const cJSON *object, const char *name) {
    const cJSON *item = field(object, name);
    CHECK(cJSON_IsNumber(item));
    return (uint32_t)item->valuedouble;
}

/** 64 bits as decimal text, or as 0x and hexadecimal digits. */
static uint64_t word(const cJSON *object, const char *name) {
    const char *digits = text(object, name);
    char *end;
    uint64_t value = strtoull(digits, &end, 0);
    CHECK(*digits != 0 && *end == 0);
    return value;
}

/** Returns a step's time. The last millisecond is `KT_SYSTEM_CLOCK`; the one before gives the same
 * results. */
static uint64_t explicit_time(const cJSON *item) {
    uint64_t now_ms = word(item, "now_ms");
    return now_ms == KT_SYSTEM_CLOCK ? now_ms - 1 : now_ms;
}

static size_t unhex(const char *digits, uint8_t *into) {
    size_t len = strlen(digits) / 2;
    for (size_t index = 0; index < len; index++) {
        unsigned byte;
        CHECK(sscanf(digits + 2 * index, "%2x", &byte) == 1);
        into[index] = (uint8_t)byte;
    }
    return len;
}

/** Checks the statuses of invalid policies. Returns how many there are. */
static int invalid_policies(const cJSON *file) {
    static const struct {
        const char *name;
        kt_status status;
    } ERRORS[] = {
        {"empty", KT_POLICY_EMPTY},
        {"too_long", KT_POLICY_TOO_LONG},
        {"syntax", KT_POLICY_SYNTAX},
        {"limit", KT_POLICY_LIMIT},
        {"window", KT_POLICY_WINDOW},
        {"unit", KT_POLICY_UNIT},
        {"too_many", KT_POLICY_TOO_MANY},
        {"duplicate", KT_POLICY_DUPLICATE},
        {"sliding_month", KT_POLICY_SLIDING_MONTH},
        {"too_many_bits", KT_POLICY_TOO_MANY_BITS},
        {"prefix", KT_POLICY_PREFIX},
    };
    const cJSON *invalid;
    int cases = 0;
    cJSON_ArrayForEach(invalid, field(file, "invalid")) {
        char buffer[KT_POLICY_SIZE];
        size_t written, which = 0;
        char copy[1024];
        size_t len;
        at = given(invalid, "text", copy, sizeof copy, &len);
        while (strcmp(ERRORS[which].name, text(invalid, "error")) != 0) {
            which++;
            HOLDS(which < sizeof ERRORS / sizeof *ERRORS);
        }
        /* Another text is the policy of a limiter of any subjects, which is another parser. */
        if (ERRORS[which].status == KT_POLICY_PREFIX && strncmp(at, "addresses:", 10) != 0) continue;
        EXPECT(kt_policy_parse(at, len, buffer, sizeof buffer, &written), ERRORS[which].status);
        OK(kt_policy_explain(at, len, buffer, sizeof buffer, &written));
        HOLDS(written > 0 && written < KT_POLICY_SIZE - 1);
        cases++;
    }
    return cases;
}

static void policies(const char *folder) {
    cJSON *file = load(folder, "policy.json");
    const cJSON *valid;
    int cases = 0;
    cJSON_ArrayForEach(valid, field(file, "valid")) {
        char buffer[KT_POLICY_SIZE];
        size_t written;
        at = text(valid, "text");
        OK(kt_policy_parse(at, strlen(at), buffer, sizeof buffer, &written));
        HOLDS(strcmp(buffer, text(valid, "canonical")) == 0);
        cases++;
    }
    CHECK(cases + invalid_policies(file) > 50);
    cJSON_Delete(file);
}

static void charges(const char *folder) {
    cJSON *file = load(folder, "charge.json");
    const cJSON *item;
    kt_charge charge;
    uint32_t cost;
    uint64_t at_ms;
    int cases = 0;
    cJSON_ArrayForEach(item, field(file, "valid")) {
        const cJSON *tallies = field(item, "tallies"), *first = cJSON_GetArrayItem(tallies, 0);
        at = text(item, "bytes");
        HOLDS(unhex(at, (uint8_t *)&charge) == sizeof charge);
        OK(kt_charge_cost(&charge, &cost));
        OK(kt_charge_at_ms(&charge, &at_ms));
        const cJSON *own = NULL, *tally;
        cJSON_ArrayForEach(tally, tallies) {
            if (own == NULL && number(tally, "unit") == 0)
                own = tally;
        }
        HOLDS(cost == (own ? number(own, "cost") : 0) && at_ms == word(first, "at_ms"));
        if (cJSON_GetArraySize(tallies) > 1 || number(first, "tally") != 0 ||
            number(first, "unit") != 0)
            continue;
        kt_charge made = charge_at(cost, at_ms);
        HOLDS(memcmp(&made, &charge, sizeof made) == 0);
        cases++;
    }
    CHECK(cases > 20);
    cost = 77;
    at_ms = 78;
    cJSON_ArrayForEach(item, field(file, "invalid")) {
        at = text(item, "why");
        HOLDS(unhex(text(item, "bytes"), (uint8_t *)&charge) == sizeof charge);
        EXPECT(kt_charge_cost(&charge, &cost), KT_NOT_A_CHARGE);
        EXPECT(kt_charge_at_ms(&charge, &at_ms), KT_NOT_A_CHARGE);
        cases++;
    }
    CHECK(cases > 40 && cost == 77 && at_ms == 78);
    cJSON_Delete(file);
}

static void keys(const char *folder) {
    cJSON *file = load(folder, "key.json");
    const cJSON *item;
    int cases = 0;
    cJSON_ArrayForEach(item, field(file, "valid")) {
        at = text(item, "text");
        const char *prefix = text(item, "prefix"), *env = text(item, "env");
        uint8_t secret[16];
        CHECK(unhex(text(item, "secret"), secret) == sizeof secret);
        kt_key key;
        OK(kt_key_mint(prefix, strlen(prefix), env, strlen(env), word(item, "key_id"), secret,
                       &key));
        HOLDS(strcmp(key.text, at) == 0);
        kt_key_parts parts;
        OK(kt_key_parse(bytes(at), strlen(at), &parts));
        HOLDS(parts.key_id == word(item, "key_id"));
        HOLDS(strcmp(parts.prefix, prefix) == 0 && strcmp(parts.env, env) == 0);
        char id[KT_KEY_ID_SIZE], hint[KT_HINT_SIZE];
        size_t written;
        uint64_t key_id;
        OK(kt_key_id_text(parts.key_id, id, sizeof id, &written));
        HOLDS(strcmp(id, text(item, "key_id_text")) == 0);
        OK(kt_key_id_parse(id, written, &key_id));
        HOLDS(key_id == parts.key_id);
        OK(kt_key_hint(bytes(at), strlen(at), hint, sizeof hint, &written));
        HOLDS(strcmp(hint, text(item, "hint")) == 0);
        cases++;
    }
    cJSON_ArrayForEach(item, field(file, "invalid")) {
        char copy[1024];
        size_t len;
        at = given(item, "text", copy, sizeof copy, &len);
        kt_key_parts parts;
        kt_status status = strcmp(text(item, "error"), "form") == 0 ? KT_KEY_FORM : KT_KEY_CHECKSUM;
        EXPECT(kt_key_parse(bytes(at), len, &parts), status);
        cases++;
    }
    CHECK(cases > 50);
    cJSON_Delete(file);
}

/** A gate in memory of its own. */
struct gate {
    void *memory;
    kt_gate gate;
};

enum { KEYS = 64 };

static void make_gate(struct gate *made, const char *policy, const uint8_t *pepper,
                      size_t pepper_len) {
    kt_plan plan = {KT_TEXT("default"), policy, strlen(policy)};
    kt_gate_config config = {
        sizeof(kt_gate_config), KEYS, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    kt_bytes peppers[] = {{pepper, pepper_len}};
    made->memory = table_memory(kt_gate_size(KEYS));
    OK(kt_gate_init(made->memory, kt_gate_size(KEYS), &config, peppers, 1, &made->gate));
}

static void end_gate(struct gate *made) {
    kt_gate_close(&made->gate);
    free(made->memory);
}

/** Compares the MAC in the gate's memory: words 2 and 3 of a record hold it, the most significant
 * byte first. */
static void macs(const char *folder) {
    cJSON *file = load(folder, "mac.json");
    const cJSON *item;
    int cases = 0;
    cJSON_ArrayForEach(item, field(file, "record")) {
        at = text(item, "key");
        uint8_t pepper[512], mac[16];
        size_t pepper_len = unhex(text(item, "pepper"), pepper);
        CHECK(unhex(text(item, "mac"), mac) == sizeof mac);
        struct gate made;
        make_gate(&made, "5/minute", pepper, pepper_len);
        kt_new_key new_key = {sizeof(kt_new_key), 1, KT_TEXT("live"), NULL, 0, 0, 0, NULL, 0};
        uint64_t key_id;
        OK(kt_gate_import(&made.gate, bytes(at), strlen(at), &new_key, 0, &key_id));
        const uint64_t *words = made.memory;
        size_t record = KT_GATE_SIZE(0) / 8;
        while (words[record] != key_id) {
            record += 8;
            CHECK(record < KT_GATE_SIZE(KEYS) / 8);
        }
        for (size_t index = 0; index < sizeof mac; index++)
            HOLDS((uint8_t)(words[record + 2 + index / 8] >> (56 - 8 * (index % 8))) == mac[index]);
        end_gate(&made);
        cases++;
    }
    CHECK(cases > 5);
    cJSON_Delete(file);
}

static uint8_t outcome_of(const char *name) {
    uint8_t outcome = 0;
    while (strcmp(kt_outcome_name(outcome), name) != 0) {
        outcome++;
        HOLDS(outcome <= KT_UNAVAILABLE);
    }
    return outcome;
}

/** A limiter for one subject, whose tally the test reads and writes. Slots of two words follow three
 * cache lines. */
struct tally {
    void *memory;
    kt_limiter limiter;
};

static uint64_t *tally_word(struct tally *tally) {
    uint64_t *words = tally->memory;
    for (size_t slot = 0; slot < 8; slot++)
        if (words[24 + 2 * slot] != 0) return &words[24 + 2 * slot + 1];
    return NULL;
}

static void make_tally(struct tally *tally, const char *policy) {
    tally->memory = table_memory(kt_limiter_size(1));
    OK(kt_limiter_init(tally->memory, kt_limiter_size(1), policy, strlen(policy), 1, SEED,
                       &tally->limiter));
}

static void end_tally(struct tally *tally) {
    kt_limiter_close(&tally->limiter);
    free(tally->memory);
}

/** Makes the call of a case, and compares the verdict and the resulting word. */
static void decide(struct tally *tally, const cJSON *item) {
    const uint8_t *subject = bytes("one");
    const char *op = text(item, "op");
    uint64_t now_ms = explicit_time(item);
    kt_verdict verdict;
    kt_charge charge = charge_at(0, 0);
    if (field(item, "charged"))
        charge = charge_at(number(item, "charged"), word(item, "charged_at_ms"));
    if (strcmp(op, "check") == 0)
        OK(kt_limiter_check(&tally->limiter, subject, 3, number(item, "cost"), now_ms, &verdict));
    else if (strcmp(op, "peek") == 0)
        OK(kt_limiter_peek(&tally->limiter, subject, 3, number(item, "cost"), now_ms, &verdict));
    else if (strcmp(op, "refund") == 0)
        OK(kt_limiter_refund(&tally->limiter, subject, 3, &charge, now_ms, &verdict));
    else if (strcmp(op, "settle") == 0)
        OK(kt_limiter_settle(&tally->limiter, subject, 3, &charge, number(item, "actual"), now_ms,
                             &verdict));
    else OK(kt_limiter_reset(&tally->limiter, subject, 3, now_ms, &verdict));

    /* A subject gets a slot only when there is something to count. */
    uint64_t *left = tally_word(tally);
    if (left != NULL) HOLDS(*left == word(item, "next"));
    HOLDS(verdict.uncharged == (field(item, "uncharged") ? number(item, "uncharged") : 0));
    if (!field(item, "outcome")) return;
    HOLDS(verdict.outcome == outcome_of(text(item, "outcome")));
    HOLDS(verdict.at_ms == word(item, "at_ms") && verdict.now_ms == now_ms);
    HOLDS(verdict.retry_at_ms == (field(item, "retry_at_ms") ? word(item, "retry_at_ms") : 0));
    HOLDS(verdict.retry_after_s ==
          (field(item, "retry_after_s") ? number(item, "retry_after_s") : 0));
    HOLDS(verdict.quota_count == cJSON_GetArraySize(field(item, "remaining")));
    for (int index = 0; index < verdict.quota_count; index++) {
        const cJSON *remaining = cJSON_GetArrayItem(field(item, "remaining"), index);
        const char *reset = cJSON_GetStringValue(cJSON_GetArrayItem(field(item, "reset_s"), index));
        HOLDS(quota(&verdict, (size_t)index).remaining == (uint32_t)remaining->valuedouble);
        HOLDS(quota(&verdict, (size_t)index).reset_unix_s == strtoull(reset, NULL, 10));
    }
}

static void decisions(const char *folder) {
    cJSON *file = load(folder, "decision.json");
    const cJSON *item;
    int cases = 0;
    cJSON_ArrayForEach(item, field(file, "cases")) {
        /* In a limiter these words are reservation marks and not tallies. */
        if (strcmp(text(item, "why"), "all ones") == 0 ||
            strcmp(text(item, "why"), "reserved stamp") == 0)
            continue;
        char *shown = cJSON_PrintUnformatted(item);
        at = shown;
        struct tally tally;
        make_tally(&tally, text(item, "policy"));
        if (word(item, "word") != 0) {
            kt_verdict verdict;
            OK(kt_limiter_check(&tally.limiter, bytes("one"), 3, 1, explicit_time(item), &verdict));
            HOLDS(tally_word(&tally) != NULL);
            *tally_word(&tally) = word(item, "word");
        }
        decide(&tally, item);
        end_tally(&tally);
        cJSON_free(shown);
        cases++;
    }
    struct tally tally = {NULL, {{0}}};
    const char *sequence = "";
    cJSON_ArrayForEach(item, field(file, "sequences")) {
        char *shown = cJSON_PrintUnformatted(item);
        at = shown;
        if (strcmp(sequence, text(item, "sequence")) != 0) {
            if (tally.memory != NULL) end_tally(&tally);
            sequence = text(item, "sequence");
            make_tally(&tally, text(item, "policy"));
        }
        decide(&tally, item);
        cJSON_free(shown);
        cases++;
    }
    end_tally(&tally);
    cJSON_ArrayForEach(item, field(file, "corrections")) {
        if (word(item, "word") == UINT64_MAX) continue; /* A reservation mark, as above. */
        char *shown = cJSON_PrintUnformatted(item);
        at = shown;
        kt_verdict verdict;
        uint64_t before = word(item, "word"), corrected;
        make_tally(&tally, text(item, "policy"));
        OK(kt_limiter_check(&tally.limiter, bytes("one"), 3, 1, NOW_MS, &verdict));
        uint64_t *left = tally_word(&tally);
        HOLDS(left != NULL);
        *left = before;
        OK(kt_limiter_correct_clock(&tally.limiter, word(item, "reading_ms"), &corrected));
        HOLDS(*left == word(item, "next") && corrected == (before != word(item, "next")));
        end_tally(&tally);
        cJSON_free(shown);
        cases++;
    }
    CHECK(cases > 500);
    cJSON_Delete(file);
}

/** Imports the keys of a vector gate, which keeps their key ids, and rotates those that have a
 * previous secret. */
static void issue_all(struct gate *made, const cJSON *list) {
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const char *key = text(item, "text");
        const char *first = field(item, "previous") ? text(item, "previous") : key;
        kt_new_key new_key = {
            sizeof(kt_new_key),         number(item, "account"), KT_TEXT("live"), NULL, 0,
            number(item, "expires_s"), 0, NULL, 0};
        uint64_t key_id;
        OK(kt_gate_import(&made->gate, bytes(first), strlen(first), &new_key, 0, &key_id));
        if (first != key) {
            /* The entropy of a new secret is the secret: its 22 characters stand before the
             * checksum's 6. */
            uint8_t entropy[KT_ENTROPY_SIZE] = {0};
            const char *digits = key + strlen(key) - 28;
            for (int digit = 0; digit < 22; digit++) {
                const char *alphabet =
                    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
                unsigned carry = (unsigned)(strchr(alphabet, digits[digit]) - alphabet);
                for (int index = KT_ENTROPY_SIZE - 1; index >= 8; index--) {
                    carry += entropy[index] * 62u;
                    entropy[index] = (uint8_t)carry;
                    carry >>= 8;
                }
            }
            kt_key rotated;
            OK(kt_gate_rotate(&made->gate, key_id, number(item, "grace_until_s"), 0, entropy, 0,
                              &rotated));
            at = key;
            HOLDS(strcmp(rotated.text, key) == 0);
        }
        if (cJSON_IsTrue(field(item, "revoked"))) OK(kt_gate_revoke(&made->gate, key_id));
    }
}

/** Returns whether the fields one by one are those of the block. */
static int one_by_one(const kt_verdict *verdict, const char *block) {
    char values[KT_HEADERS_SIZE], lines[KT_HEADERS_SIZE] = "";
    kt_field fields[KT_MAX_FIELDS];
    size_t count, len = 0;
    OK(kt_verdict_fields(verdict, values, sizeof values, fields, KT_MAX_FIELDS, &count));
    for (size_t i = 0; i < count; i++) {
        HOLDS(fields[i].name_len == strlen(fields[i].name) &&
              fields[i].value_len == strlen(fields[i].value));
        len += (size_t)snprintf(lines + len, sizeof lines - len, "%s: %s\r\n", fields[i].name,
                                fields[i].value);
    }
    return strcmp(lines, block) == 0;
}

static void step(struct gate *made, const cJSON *item) {
    const cJSON *api_keys = field(item, "api_keys");
    const char *api_key = cJSON_GetStringValue(cJSON_GetArrayItem(api_keys, 0));
    size_t api_key_len = api_key == NULL ? 0 : strlen(api_key);
    uint64_t now_ms = explicit_time(item);
    kt_verdict verdict;
    if (cJSON_GetArraySize(api_keys) > 1) OK(kt_verdict_duplicate_header(now_ms, &verdict));
    else if (strcmp(text(item, "op"), "check") == 0)
        OK(kt_gate_check(&made->gate, bytes(api_key), api_key_len, number(item, "cost"), now_ms,
                         &verdict));
    else
        OK(kt_gate_peek(&made->gate, bytes(api_key), api_key_len, number(item, "cost"), now_ms,
                        &verdict));

    HOLDS(verdict.outcome == outcome_of(text(item, "outcome")));
    HOLDS(strcmp(kt_reason_name(verdict.reason),
                 field(item, "reason") ? text(item, "reason") : "none") == 0);
    HOLDS(verdict.http_status == number(item, "status"));
    HOLDS(verdict.retry_after_s ==
          (field(item, "retry_after_s") ? number(item, "retry_after_s") : 0));
    HOLDS(verdict.clock_ahead_s ==
          (field(item, "clock_ahead_s") ? number(item, "clock_ahead_s") : 0));
    HOLDS(verdict.quota_count == cJSON_GetArraySize(field(item, "quotas")));
    if (verdict.quota_count > 0)
        HOLDS(verdict.key_id == word(item, "key_id") && verdict.account == number(item, "account"));
    for (int index = 0; index < verdict.quota_count; index++) {
        const cJSON *expected = cJSON_GetArrayItem(field(item, "quotas"), index);
        const kt_quota found = quota(&verdict, (size_t)index);
        HOLDS(found.limit == number(expected, "limit") &&
              found.remaining == number(expected, "remaining"));
        HOLDS(found.window_s == number(expected, "window_s") &&
              found.reset_unix_s == word(expected, "reset_s"));
    }
    char headers[KT_HEADERS_SIZE], problem[KT_PROBLEM_SIZE];
    size_t written;
    kt_verdict stored = verdict; /* A plain struct can be copied. */
    OK(kt_verdict_headers(&stored, headers, sizeof headers, &written));
    HOLDS(written == strlen(headers) && strcmp(headers, text(item, "headers")) == 0);
    HOLDS(one_by_one(&stored, headers));
    HOLDS(strcmp(kt_verdict_body(&stored), text(item, "body")) == 0);
    OK(kt_verdict_problem(&stored, problem, sizeof problem, &written));
    HOLDS((written == 0) == (verdict.outcome == KT_ADMITTED));
}

static void verdicts(const char *folder) {
    cJSON *file = load(folder, "verdict.json");
    const cJSON *setup, *item;
    int cases = 0;
    cJSON_ArrayForEach(setup, field(file, "gates")) {
        uint8_t pepper[512];
        size_t pepper_len = unhex(text(setup, "pepper"), pepper);
        struct gate made;
        make_gate(&made, text(setup, "policy"), pepper, pepper_len);
        issue_all(&made, field(setup, "keys"));
        cJSON_ArrayForEach(item, field(file, "steps")) {
            if (strcmp(text(item, "gate"), text(setup, "gate")) != 0) continue;
            char *shown = cJSON_PrintUnformatted(item);
            at = shown;
            step(&made, item);
            cJSON_free(shown);
            cases++;
        }
        end_gate(&made);
    }
    cJSON_ArrayForEach(item, field(file, "responses")) {
        at = text(item, "why");
        kt_verdict verdict;
        OK(kt_verdict_duplicate_header(word(item, "now_ms"), &verdict));
        verdict.outcome = outcome_of(text(item, "outcome"));
        HOLDS(verdict.outcome == number(item, "outcome_value"));
        HOLDS(strcmp(kt_verdict_body(&verdict), text(item, "body")) == 0);
        cases++;
    }
    CHECK(cases > 100);
    cJSON_Delete(file);
}

/** Compares the verdict on a tally with the expected one. Counts its warnings. */
static void tally_of_section(const kt_tally *tally, const cJSON *expected, int *warnings) {
    HOLDS(strcmp(tally->section, text(expected, "section")) == 0);
    HOLDS(tally->verdict.outcome == outcome_of(text(expected, "outcome")));
    const cJSON *remaining = field(expected, "remaining"), *reset_s = field(expected, "reset_s");
    HOLDS(tally->verdict.quota_count == cJSON_GetArraySize(remaining));
    for (int index = 0; index < tally->verdict.quota_count; index++) {
        const kt_quota found = quota(&tally->verdict, (size_t)index);
        HOLDS(found.remaining == cJSON_GetArrayItem(remaining, index)->valuedouble);
        HOLDS((double)found.reset_unix_s == cJSON_GetArrayItem(reset_s, index)->valuedouble);
        for (int warning = 0; warning < 2; warning++)
            *warnings += tally->crossed[index][warning] > 0;
    }
}

static void request(kt_gate *gate, const kt_key *keys, const cJSON *item) {
    kt_group groups[KT_MAX_TALLIES];
    size_t groups_len = 0;
    const cJSON *group;
    cJSON_ArrayForEach(group, field(item, "groups")) {
        const uint32_t has_cost = cJSON_IsNumber(field(group, "cost")) ? 1 : 0;
        const char *name = text(group, "name");
        CHECK(groups_len < KT_MAX_TALLIES);
        groups[groups_len++] =
            (kt_group){name, strlen(name), has_cost ? number(group, "cost") : 0, has_cost};
    }
    const kt_request request = {
        .size = sizeof request, .cost = number(item, "cost"), .now_ms = word(item, "now_ms"),
        .groups = groups, .groups_len = groups_len};
    const char *key = keys[number(item, "key")].text;
    kt_compound compound;
    OK(kt_gate_check_request(gate, bytes(key), strlen(key), &request, &compound));
    HOLDS((compound.outcome == KT_ADMITTED) == cJSON_IsTrue(field(item, "admitted")));
    const cJSON *retry = field(item, "retry_after_s");
    HOLDS(compound.retry_after_s == (cJSON_IsNumber(retry) ? number(item, "retry_after_s") : 0));

    const cJSON *expected = field(item, "tallies"), *warning;
    int counted = 0, warnings = 0;
    for (size_t index = 0; index < compound.tally_count; index++) {
        /* A key that its plan does not limit has a verdict without windows. */
        if (compound.tallies[index].verdict.quota_count == 0) continue;
        HOLDS(counted < cJSON_GetArraySize(expected));
        tally_of_section(&compound.tallies[index], cJSON_GetArrayItem(expected, counted++),
                         &warnings);
    }
    HOLDS(counted == cJSON_GetArraySize(expected));
    HOLDS(warnings == cJSON_GetArraySize(field(item, "crossed")));
    cJSON_ArrayForEach(warning, field(item, "crossed")) {
        int is_found = 0;
        for (size_t index = 0; index < compound.tally_count; index++) {
            const kt_tally *tally = &compound.tallies[index];
            const uint8_t *crossed = tally->crossed[number(warning, "window")];
            is_found |= strcmp(tally->section, text(warning, "section")) == 0 &&
                        (crossed[0] == number(warning, "percent") ||
                         crossed[1] == number(warning, "percent"));
        }
        HOLDS(is_found);
    }
}

static void sections(const char *folder) {
    cJSON *file = load(folder, "sections.json");
    const cJSON *setup, *item;
    int cases = 0;
    cJSON_ArrayForEach(setup, field(file, "cases")) {
        const char *text_of_plan = text(setup, "plan");
        const kt_plan plan = {KT_TEXT("default"), text_of_plan, strlen(text_of_plan)};
        const kt_gate_config config = {
            sizeof(kt_gate_config), KEYS, &plan, 1, KT_TEXT("kt"), 4, 0, NULL, 0, NULL, 0};
        const uint8_t pepper[32] = {7};
        const kt_bytes peppers[] = {{pepper, sizeof pepper}};
        size_t size;
        OK(kt_gate_config_size(&config, &size));
        struct gate made = {.memory = table_memory(size)};
        OK(kt_gate_init(made.memory, size, &config, peppers, 1, &made.gate));
        kt_key keys_of_case[3];
        for (uint8_t key = 0; key < 3; key++) {
            const uint8_t entropy[KT_ENTROPY_SIZE] = {key, key, key, key, key, key, key, key};
            const kt_new_key new_key = {
                sizeof new_key, 42 + key / 2u, KT_TEXT("live"), NULL, 0, 0, 0, NULL, 0};
            uint64_t key_id;
            OK(kt_gate_issue(&made.gate, &new_key, entropy, 1000, &keys_of_case[key], &key_id));
        }
        cJSON_ArrayForEach(item, field(setup, "steps")) {
            char *shown = cJSON_PrintUnformatted(item);
            at = shown;
            request(&made.gate, keys_of_case, item);
            cJSON_free(shown);
            cases++;
        }
        end_gate(&made);
    }
    CHECK(cases > 400);
    cJSON_Delete(file);
}

/** Makes a request of a client, or gives back the charge of one, and compares the result. */
static void prefix_step(kt_limiter *limiter, kt_charge *charges, const cJSON *item, int index) {
    const char *client = text(item, "client");
    const uint64_t now_ms = word(item, "now_ms");
    const cJSON *refunds = field(item, "refunds"), *retry = field(item, "retry_after_s");
    kt_part part = {.limiter = limiter, .text = bytes(client), .text_len = strlen(client)};
    kt_compound compound;
    if (cJSON_IsNumber(refunds)) {
        kt_verdict verdict;
        OK(kt_limiter_refund(limiter, part.text, part.text_len, &charges[number(item, "refunds")],
                             now_ms, &verdict));
        OK(kt_peek_all(&part, 1, now_ms, &compound));
    } else {
        part.cost = number(item, "cost");
        OK(kt_check_all(&part, 1, now_ms, &compound));
        if (compound.outcome == KT_ADMITTED) OK(kt_compound_charge(&compound, 0, &charges[index]));
    }
    HOLDS((compound.outcome == KT_ADMITTED) == cJSON_IsTrue(field(item, "admitted")));
    HOLDS(compound.retry_after_s == (cJSON_IsNumber(retry) ? number(item, "retry_after_s") : 0));
    const cJSON *expected = field(item, "tallies");
    HOLDS(compound.tally_count == cJSON_GetArraySize(expected));
    int warnings = 0;
    for (int tally = 0; tally < compound.tally_count; tally++)
        tally_of_section(&compound.tallies[tally], cJSON_GetArrayItem(expected, tally), &warnings);
    HOLDS(warnings == 0);
}

static void prefixes(const char *folder) {
    cJSON *file = load(folder, "prefixes.json");
    const cJSON *setup, *item;
    int cases = 0;
    cJSON_ArrayForEach(setup, field(file, "cases")) {
        const char *policy = text(setup, "policy");
        const size_t size = kt_limiter_size(64) + KT_PREFIXES_SIZE;
        void *memory = table_memory(size);
        char canonical[KT_SECTIONS_SIZE];
        size_t written;
        kt_limiter limiter;
        at = policy;
        OK(kt_limiter_init(memory, size, policy, strlen(policy), 64, SEED, &limiter));
        OK(kt_limiter_policy(&limiter, canonical, sizeof canonical, &written));
        HOLDS(strcmp(canonical, text(setup, "canonical")) == 0);
        kt_charge charges[64];
        int index = 0;
        cJSON_ArrayForEach(item, field(setup, "steps")) {
            char *shown = cJSON_PrintUnformatted(item);
            at = shown;
            CHECK(index < 64);
            prefix_step(&limiter, charges, item, index++);
            cJSON_free(shown);
            cases++;
        }
        kt_limiter_close(&limiter);
        free(memory);
    }
    CHECK(cases > 400 && invalid_policies(file) > 10);
    cJSON_Delete(file);
}

int main(int count, char **arguments) {
    CHECK(count == 2); /* The folder of the vector files. */
    at = "";
    policies(arguments[1]);
    charges(arguments[1]);
    keys(arguments[1]);
    macs(arguments[1]);
    decisions(arguments[1]);
    verdicts(arguments[1]);
    sections(arguments[1]);
    prefixes(arguments[1]);
    return 0;
}
