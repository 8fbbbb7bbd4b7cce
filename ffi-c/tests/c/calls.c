/* Calls every function as a program does: in memory, in files, and from threads. */
#include "check.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>
#include <valgrind/memcheck.h>

/* A time that no check reads an earlier one than: a check may read the kernel's coarse clock, which
 * is late by up to a tick of at most 10 ms. */
static uint64_t coarse_now_ms(void) { return kt_now_ms() - 10; }

static const uint8_t SEED[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t PEPPER[32] = {7};
static const kt_bytes PEPPERS[] = {{PEPPER, sizeof PEPPER}};
static const uint8_t ENTROPY[KT_ENTROPY_SIZE] = {0x5a, 1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t OTHER_ENTROPY[KT_ENTROPY_SIZE] = {0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9};
static const kt_plan PLANS[] = {
    {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")},
    {KT_TEXT("pro"), KT_TEXT("1000/minute, 20000/hour")},
};
static const kt_gate_config CONFIG = {
    sizeof(kt_gate_config), 64, PLANS, 2, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
static const kt_new_key NEW_KEY = {
    sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};

/** Compares two texts. Prints them if they differ. */
static bool equal(const char *found, const char *wanted) {
    if (strcmp(found, wanted) != 0) fprintf(stderr, "found \"%s\", not \"%s\"\n", found, wanted);
    return strcmp(found, wanted) == 0;
}

static void texts_are_parsed_and_explained(void) {
    char buffer[KT_POLICY_SIZE];
    size_t written;
    OK(kt_policy_parse(KT_TEXT("1000/hour,100/m"), buffer, sizeof buffer, &written));
    CHECK(equal(buffer, "100/minute, 1000/hour") && written == strlen(buffer));
    EXPECT(kt_policy_parse(KT_TEXT("100/fortnight"), buffer, sizeof buffer, &written),
           KT_POLICY_UNIT);
    OK(kt_policy_explain(KT_TEXT("100/fortnight"), buffer, sizeof buffer, &written));
    CHECK(strstr(buffer, "\"fortnight\" ") == buffer && written == strlen(buffer));
    OK(kt_policy_explain(KT_TEXT("1/s"), buffer, sizeof buffer, &written));
    CHECK(equal(buffer, "") && written == 0);
    /* A part that may be a key is not repeated. */
    OK(kt_policy_explain(KT_TEXT("100/abcdefghijk"), buffer, sizeof buffer, &written));
    CHECK(strstr(buffer, "\"abcdefghijk\" ") == buffer);
    OK(kt_policy_explain(KT_TEXT("100/abcdefghijklmnop"), buffer, sizeof buffer, &written));
    CHECK(equal(buffer, kt_status_message(KT_POLICY_UNIT)) && written == strlen(buffer));
    OK(kt_policy_explain(KT_TEXT("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM"), buffer,
                         sizeof buffer, &written));
    CHECK(equal(buffer, kt_status_message(KT_POLICY_SYNTAX)));

    /* If the buffer is one byte too small, neither it nor the length is written. */
    memset(buffer, '!', sizeof buffer);
    written = 77;
    EXPECT(kt_policy_parse(KT_TEXT("5/minute"), buffer, 8, &written), KT_BUFFER_TOO_SMALL);
    CHECK(buffer[0] == '!' && buffer[7] == '!' && written == 77);
    OK(kt_policy_parse(KT_TEXT("5/minute"), buffer, 9, &written));
    CHECK(equal(buffer, "5/minute") && buffer[9] == '!' && written == 8);

    kt_key key;
    const uint8_t secret[16] = {1};
    OK(kt_key_mint(KT_TEXT("kt"), KT_TEXT("live"), 7, secret, &key));
    kt_key_parts parts;
    OK(kt_key_parse(bytes(key.text), strlen(key.text), &parts));
    CHECK(parts.key_id == 7 && equal(parts.prefix, "kt") && equal(parts.env, "live"));
    EXPECT(kt_key_mint(KT_TEXT("kt"), KT_TEXT("Live"), 7, secret, &key), KT_NAME_FORM);
    EXPECT(kt_key_mint(KT_TEXT("12345678"), KT_TEXT("1234567"), 7, secret, &key),
           KT_NAMES_TOO_LONG);
    EXPECT(kt_key_mint(KT_TEXT("kt"), KT_TEXT("live"), 0, secret, &key), KT_KEY_ID_FORM);
    OK(kt_key_hint(bytes(key.text), strlen(key.text), buffer, sizeof buffer, &written));
    CHECK(strncmp(buffer, "kt_live_\xe2\x80\xa6", 11) == 0 && written == 15);
    kt_key_wipe(&key);
    for (size_t at = 0; at < sizeof key.text; at++) CHECK(key.text[at] == 0);
    kt_key_wipe(NULL);

    OK(kt_key_id_text(1, buffer, KT_KEY_ID_SIZE, &written));
    CHECK(equal(buffer, "00000000001") && written == 11);
    uint64_t key_id;
    OK(kt_key_id_parse(KT_TEXT("00000000010"), &key_id));
    CHECK(key_id == 62);
    EXPECT(kt_key_id_parse(KT_TEXT("0000000001"), &key_id), KT_KEY_ID_FORM);
}

static void parts_are_charged_all_or_none(void) {
    size_t size = kt_limiter_size(8);
    void *memory[2] = {table_memory(size), table_memory(size)};
    kt_limiter users, teams;
    OK(kt_limiter_init(memory[0], size, KT_TEXT("5/minute"), 8, SEED, &users));
    OK(kt_limiter_init(memory[1], size, KT_TEXT("4/hour"), 8, SEED, &teams));

    kt_part parts[] = {{.limiter = &users, .text = bytes("ann"), .text_len = 3, .cost = 3},
                       {.limiter = &teams, .text = bytes("42"), .text_len = 2, .cost = 3}};
    kt_compound compound;
    const kt_tally *tallies = compound.tallies;
    OK(kt_peek_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_ADMITTED && tallies[0].verdict.charged == 0);
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_ADMITTED && compound.decisive_index == 0);
    CHECK(compound.tally_count == 2 && compound.http_status == 200);
    CHECK(tallies[0].part == 0 && tallies[1].part == 1 && tallies[1].verdict.charged == 3);
    CHECK(equal(tallies[0].section, "") && compound.key_id == 0 && compound.remaining == 2);
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_DENIED && compound.decisive_index == 1);
    CHECK(compound.http_status == 429);
    CHECK(tallies[0].verdict.outcome == KT_DENIED && tallies[1].verdict.outcome == KT_DENIED);
    CHECK(compound.retry_after_s == 3600 && compound.retry_at_ms == NOW_MS + 3600000);
    parts[0].cost = 2;
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.decisive_index == 1 && tallies[0].verdict.outcome == KT_ADMITTED);
    CHECK(quota(&tallies[0].verdict, 0).remaining == 2 && tallies[0].verdict.charged == 0);
    parts[1].cost = 1;
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.decisive_index == 0 && quota(&tallies[1].verdict, 0).remaining == 0);
    kt_charge charge;
    kt_verdict verdict;
    OK(kt_compound_charge(&compound, 1, &charge));
    OK(kt_limiter_refund(&teams, bytes("42"), 2, &charge, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 1);
    EXPECT(kt_compound_charge(&compound, 2, &charge), KT_PART_COUNT);

    kt_limiter_close(&users);
    kt_limiter_close(&teams);
    free(memory[0]);
    free(memory[1]);
}

static void weeks_and_months_end_by_the_calendar(void) {
    size_t size = kt_limiter_size(8);
    void *memory = table_memory(size);
    kt_limiter limiter;
    OK(kt_limiter_init(memory, size, KT_TEXT("3/hour, 5/week, 7/month@17"), 8, SEED, &limiter));

    /* 15 January 2027, a Friday, at 08:00 UTC. */
    kt_verdict verdict;
    OK(kt_limiter_check(&limiter, bytes("a"), 1, 1, 1800000000000, &verdict));
    CHECK(quota(&verdict, 0).calendar == 0 && quota(&verdict, 0).window_s == 3600);
    CHECK(quota(&verdict, 1).calendar == KT_WEEK && quota(&verdict, 1).window_s == 604800);
    CHECK(quota(&verdict, 1).reset_unix_s == 1800230400); /* Monday the 18th */
    CHECK(quota(&verdict, 2).calendar == 17 && quota(&verdict, 2).window_s == 2678400);
    CHECK(quota(&verdict, 2).reset_unix_s == 1800144000); /* Sunday the 17th */

    /* X-RateLimit-* describe the longest window of at most a day. */
    char headers[KT_HEADERS_SIZE];
    size_t written = 0;
    OK(kt_verdict_headers(&verdict, headers, sizeof headers, &written));
    CHECK(strstr(headers, "X-RateLimit-Limit: 3\r\nX-RateLimit-Remaining: 2\r\n") != NULL);
    CHECK(strstr(headers, "\"week\";q=5;w=604800, \"month\";q=7;w=2678400\r\n") != NULL);

    kt_limiter_close(&limiter);
    free(memory);
}

static void limiter_in_memory_charges_and_refunds(void) {
    size_t size = kt_limiter_size(100);
    void *memory = table_memory(size);
    kt_limiter limiter;
    OK(kt_limiter_init(memory, size, KT_TEXT("3/minute, 100/hour"), 100, SEED, &limiter));

    kt_verdict verdict;
    const uint8_t *subject = bytes("203.0.113.9");
    OK(kt_limiter_check(&limiter, subject, 11, 2, NOW_MS + 1500, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.http_status == 200 && verdict.quota_count == 2);
    CHECK(verdict.charged == 2 && verdict.at_ms == NOW_MS + 1500 &&
          verdict.now_ms == NOW_MS + 1500);
    CHECK(quota(&verdict, 0).limit == 3 && quota(&verdict, 0).remaining == 1 &&
          quota(&verdict, 0).window_s == 60);
    CHECK(quota(&verdict, 0).reset_unix_s == NOW_MS / 1000 + 60 &&
          quota(&verdict, 1).remaining == 98);
    CHECK(quota(&verdict, 2).limit == 0 && quota(&verdict, 3).window_s == 0 && verdict.key_id == 0);
    kt_charge charge = charge_of(&verdict);

    OK(kt_limiter_peek(&limiter, subject, 11, 2, NOW_MS + 2000, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.http_status == 429 && verdict.charged == 0);
    CHECK(verdict.retry_after_s == 58 && verdict.retry_at_ms == NOW_MS + 60000);
    CHECK(quota(&verdict, 0).lacking == 1 && quota(&verdict, 1).lacking == 0);
    OK(kt_limiter_check(&limiter, subject, 11, 4, NOW_MS + 2000, &verdict));
    CHECK(verdict.outcome == KT_TOO_COSTLY && verdict.retry_after_s == 0);

    OK(kt_limiter_refund(&limiter, subject, 11, &charge, NOW_MS + 2000, &verdict));
    CHECK(quota(&verdict, 0).remaining == 3 && quota(&verdict, 1).remaining == 100);
    OK(kt_limiter_check(&limiter, subject, 11, 1, NOW_MS + 2000, &verdict));
    charge = charge_of(&verdict);
    OK(kt_limiter_settle(&limiter, subject, 11, &charge, 5, NOW_MS + 2000, &verdict));
    CHECK(quota(&verdict, 0).remaining == 0 && verdict.uncharged == 2);

    /* Units for which there is no room are counted if the settlement overdraws. */
    OK(kt_limiter_reset(&limiter, subject, 11, NOW_MS + 2000, &verdict));
    OK(kt_limiter_check(&limiter, subject, 11, 1, NOW_MS + 2000, &verdict));
    charge = charge_of(&verdict);
    kt_settlement settlement = {.size = sizeof settlement, .cost = 5, .has_cost = 1};
    OK(kt_limiter_settle_all(&limiter, subject, 11, &charge, &settlement, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 0 && verdict.uncharged == 2);
    OK(kt_limiter_refund(&limiter, subject, 11, &charge, NOW_MS + 2000, &verdict));
    CHECK(quota(&verdict, 0).remaining == 1);
    settlement.overdraw = 1;
    settlement.cost = 6;
    OK(kt_limiter_settle_all(&limiter, subject, 11, &charge, &settlement, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 0 && verdict.uncharged == 0);
    CHECK(quota(&verdict, 1).remaining == 93);
    settlement.has_cost = 0;
    OK(kt_limiter_settle_all(&limiter, subject, 11, &charge, &settlement, NOW_MS, &verdict));
    CHECK(quota(&verdict, 1).remaining == 93 && verdict.uncharged == 0);
    const kt_group no_group = {KT_TEXT("write"), 1, 1};
    settlement.groups = &no_group;
    settlement.groups_len = 1;
    EXPECT(kt_limiter_settle_all(&limiter, subject, 11, &charge, &settlement, NOW_MS, &verdict),
           KT_NO_SUCH_GROUP);
    OK(kt_limiter_reset(&limiter, subject, 11, NOW_MS + 2000, &verdict));
    CHECK(quota(&verdict, 0).remaining == 3);

    char policy[KT_POLICY_SIZE];
    size_t written;
    uint32_t capacity;
    uint64_t live;
    OK(kt_limiter_policy(&limiter, policy, sizeof policy, &written));
    CHECK(equal(policy, "3/minute, 100/hour"));
    OK(kt_limiter_capacity(&limiter, &capacity));
    CHECK(capacity == 100);
    OK(kt_limiter_slots_total(&limiter, &live));
    CHECK(live == 152);
    /* The empty subject is a subject. */
    OK(kt_limiter_check(&limiter, NULL, 0, 1, NOW_MS, &verdict));
    OK(kt_limiter_live_subjects(&limiter, NOW_MS, &live));
    CHECK(live >= 1);

    /* The table holds no addresses: a copy in larger memory at another address works. */
    void *elsewhere = table_memory(size + 64);
    memcpy(elsewhere, memory, size);
    kt_limiter other;
    OK(kt_limiter_attach(elsewhere, size + 64, &other));
    OK(kt_limiter_peek(&other, NULL, 0, 3, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED);
    EXPECT(kt_limiter_attach(elsewhere, size - 64, &other), KT_TRUNCATED);

    /* More subjects than there is room for: the outcome is full, if the limiter refuses. */
    uint8_t on_full;
    uint64_t refusals;
    OK(kt_limiter_on_full(&limiter, &on_full));
    CHECK(on_full == KT_ON_FULL_SHARE);
    EXPECT(kt_limiter_set_on_full(&limiter, 2), KT_UNKNOWN_MEMBER);
    OK(kt_limiter_set_on_full(&limiter, KT_ON_FULL_REFUSE));
    OK(kt_limiter_on_full(&limiter, &on_full));
    CHECK(on_full == KT_ON_FULL_REFUSE);
    uint32_t full = 0, last = 0;
    for (uint32_t number = 0; number < 1000; number++) {
        OK(kt_limiter_check(&limiter, (const uint8_t *)&number, sizeof number, 1, NOW_MS,
                            &verdict));
        if (verdict.outcome == KT_FULL) {
            CHECK(verdict.http_status == 503 && verdict.retry_after_s > 0 &&
                  verdict.quota_count == 0);
            full++;
            last = number;
        }
    }
    CHECK(full > 0 && full <= 900);
    OK(kt_limiter_refusals(&limiter, &refusals));
    CHECK(refusals == full);

    /* Else it is charged to a tally that it shares, and its charge is refunded there. */
    OK(kt_limiter_set_on_full(&limiter, KT_ON_FULL_SHARE));
    OK(kt_limiter_check(&limiter, (const uint8_t *)&last, sizeof last, 2, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_shared == 1);
    CHECK(quota(&verdict, 0).remaining == 1);
    OK(kt_verdict_charge(&verdict, &charge));
    OK(kt_limiter_refund(&limiter, (const uint8_t *)&last, sizeof last, &charge, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 3);

    kt_limiter_close(&other);
    kt_limiter_close(&limiter);
    EXPECT(kt_limiter_check(&limiter, subject, 11, 1, NOW_MS, &verdict), KT_NOT_A_HANDLE);
    kt_limiter_close(&limiter);
    free(elsewhere);
    free(memory);
}

static bool zeros(const void *memory, size_t len) {
    for (size_t index = 0; index < len; index++)
        if (((const unsigned char *)memory)[index] != 0) return false;
    return true;
}

/** A pointer that the library must not follow. */
#define OFF_END ((void *)(uintptr_t)-8)

/** Requests with options, as programs of other versions of the header make them. */
static void requests_of_other_versions_are_read(void) {
    size_t size = kt_limiter_size(8);
    void *memory = table_memory(size);
    kt_limiter limiter;
    OK(kt_limiter_init(memory, size, KT_TEXT("5/minute"), 8, SEED, &limiter));
    kt_verdict verdict;
    kt_request request = {.size = sizeof request, .cost = 2, .now_ms = NOW_MS};
    OK(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict));
    CHECK(verdict.cost == 2 && verdict.now_ms == NOW_MS && quota(&verdict, 0).remaining == 3);

    /* A newer program may set new members to zero only. */
    struct {
        kt_request request;
        uint64_t member;
    } newer = {{.size = sizeof newer, .cost = 1, .now_ms = NOW_MS}, 0};
    OK(kt_limiter_check_request(&limiter, bytes("a"), 1, &newer.request, &verdict));
    CHECK(quota(&verdict, 0).remaining == 2);
    newer.member = 1;
    EXPECT(kt_limiter_check_request(&limiter, bytes("a"), 1, &newer.request, &verdict),
           KT_UNKNOWN_MEMBER);
    for (uint32_t wrong = 0; wrong < offsetof(kt_request, groups); wrong++) {
        request.size = wrong;
        EXPECT(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict),
               KT_STRUCT_SIZE);
    }
    /* An older program has neither groups nor scopes, and a limiter has none. */
    request = (kt_request){offsetof(kt_request, groups), 0, NOW_MS, OFF_END, 1, OFF_END, 1, 0, 0};
    OK(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict));
    const kt_group group = {KT_TEXT("write"), 0, 0};
    const kt_name scope = {KT_TEXT("read")};
    request = (kt_request){sizeof request, 0, NOW_MS, &group, 1, NULL, 0, 0, 0};
    EXPECT(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict),
           KT_NO_SUCH_GROUP);
    request = (kt_request){sizeof request, 0, NOW_MS, NULL, 0, &scope, 1, 0, 0};
    EXPECT(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict),
           KT_NO_SUCH_SCOPE);
    request.size = UINT32_MAX;
    EXPECT(kt_limiter_check_request(&limiter, bytes("a"), 1, &request, &verdict), KT_STRUCT_SIZE);
    OK(kt_limiter_peek(&limiter, bytes("a"), 1, 2, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.cost == 2 && verdict.charged == 0);

    /* NULL: one unit, by the system clock. */
    uint64_t before_ms = coarse_now_ms();
    OK(kt_limiter_check_request(&limiter, bytes("b"), 1, NULL, &verdict));
    CHECK(verdict.cost == 1 && verdict.now_ms >= before_ms && quota(&verdict, 0).remaining == 4);
    kt_limiter_close(&limiter);
    free(memory);
}

/** Keys and gates, as programs of other versions of the header describe them. */
static void structs_of_other_versions_are_read(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    void *memory = table_memory(size);
    kt_gate gate;
    struct {
        kt_gate_config config;
        uint64_t member;
    } newer = {CONFIG, 1};
    newer.config.size = sizeof newer;
    EXPECT(kt_gate_init(memory, size, &newer.config, PEPPERS, 1, &gate), KT_UNKNOWN_MEMBER);
    newer.member = 0;
    newer.config.size = offsetof(kt_gate_config, teams) - 1;
    EXPECT(kt_gate_init(memory, size, &newer.config, PEPPERS, 1, &gate), KT_STRUCT_SIZE);
    newer.config.size = sizeof newer;
    OK(kt_gate_init(memory, size, &newer.config, PEPPERS, 1, &gate));

    /* An older program has no `expires_s`, so its keys never expire. */
    kt_new_key older = {
        offsetof(kt_new_key, expires_s), 7, KT_TEXT("live"), NULL, 0, 1, 1, OFF_END, 1};
    kt_key key;
    uint64_t key_id;
    kt_key_info info;
    OK(kt_gate_issue(&gate, &older, ENTROPY, NOW_MS, &key, &key_id));
    OK(kt_gate_key(&gate, key_id, NOW_MS, &info));
    CHECK(info.expires_s == 0 && info.account == 7);
    older.size = 4;
    EXPECT(kt_gate_issue(&gate, &older, OTHER_ENTROPY, NOW_MS, &key, &key_id), KT_STRUCT_SIZE);
    struct {
        kt_new_key new_key;
        uint64_t member;
    } newer_key = {NEW_KEY, 1};
    newer_key.new_key.size = sizeof newer_key;
    EXPECT(kt_gate_issue(&gate, &newer_key.new_key, OTHER_ENTROPY, NOW_MS, &key, &key_id),
           KT_UNKNOWN_MEMBER);
    kt_new_key reserved = NEW_KEY;
    reserved.reserved_ = 1;
    EXPECT(kt_gate_issue(&gate, &reserved, OTHER_ENTROPY, NOW_MS, &key, &key_id),
           KT_UNKNOWN_MEMBER);
    EXPECT(
        kt_gate_import(&gate, bytes("legacy-key-0123456789-xyz"), 25, &reserved, NOW_MS, &key_id),
        KT_UNKNOWN_MEMBER);

    /* As is one without groups and scopes. */
    kt_request request = {offsetof(kt_request, groups), 3, NOW_MS, OFF_END, 1, OFF_END, 1, 0, 0};
    kt_compound compound;
    OK(kt_gate_check_request(&gate, bytes(key.text), strlen(key.text), &request, &compound));
    CHECK(compound.outcome == KT_ADMITTED && compound.tally_count == 1);
    CHECK(compound.tallies[0].verdict.cost == 3 && compound.remaining == 997);
    request.size = 8;
    EXPECT(kt_gate_check_request(&gate, NULL, 0, &request, &compound), KT_STRUCT_SIZE);
    kt_gate_close(&gate);
    free(memory);
}

/** Reserved members are zeros, whatever the memory held before. */
static void reserved_members_are_zeros(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    void *memory = table_memory(size);
    kt_gate gate;
    kt_key key;
    uint64_t key_id;
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, &gate));
    OK(kt_gate_issue(&gate, &NEW_KEY, ENTROPY, NOW_MS, &key, &key_id));

    kt_verdict verdict;
    memset(&verdict, 0xa5, sizeof verdict);
    OK(kt_gate_check(&gate, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    CHECK(verdict.is_shared == 0 && zeros(verdict.reserved_, sizeof verdict.reserved_));
    /* Two quotas take eight words. */
    CHECK(zeros(&verdict.private_[8], sizeof verdict.private_ - 8 * sizeof *verdict.private_));
    kt_quota quota;
    memset(&quota, 0xa5, sizeof quota);
    OK(kt_verdict_quota(&verdict, 1, &quota));
    CHECK(quota.reserved_8_ == 0 && zeros(quota.reserved_, sizeof quota.reserved_));
    kt_key_info info;
    memset(&info, 0xa5, sizeof info);
    OK(kt_gate_key(&gate, key_id, NOW_MS, &info));
    CHECK(zeros(info.reserved_8_, sizeof info.reserved_8_) &&
          zeros(info.reserved_, sizeof info.reserved_));
    kt_plan_info plan;
    memset(&plan, 0xa5, sizeof plan);
    OK(kt_gate_plan(&gate, 0, &plan));
    CHECK(zeros(plan.reserved_, sizeof plan.reserved_));
    kt_key_parts parts;
    memset(&parts, 0xa5, sizeof parts);
    OK(kt_key_parse(bytes(key.text), strlen(key.text), &parts));
    CHECK(zeros(parts.reserved_, sizeof parts.reserved_));
    kt_gate_close(&gate);
    free(memory);
}

/** A program that was compiled with smaller constants gets what fits its buffers. */
static void smaller_buffers_are_enough_if_all_fits(void) {
    size_t size = kt_limiter_size(8), needed, count;
    void *memory = table_memory(size);
    kt_limiter limiter;
    kt_verdict verdict;
    OK(kt_limiter_init(memory, size, KT_TEXT("5/minute"), 8, SEED, &limiter));
    OK(kt_limiter_check(&limiter, bytes("a"), 1, 1, NOW_MS, &verdict));
    char all[KT_HEADERS_SIZE], few[KT_HEADERS_SIZE];
    kt_field fields[KT_MAX_FIELDS], same[KT_MAX_FIELDS];
    OK(kt_verdict_fields(&verdict, all, sizeof all, fields, KT_MAX_FIELDS, &count));
    CHECK(count == 5);
    needed = (size_t)(fields[4].value + fields[4].value_len + 1 - all);
    memset(few, '!', sizeof few);
    EXPECT(kt_verdict_fields(&verdict, few, needed - 1, same, KT_MAX_FIELDS, &count),
           KT_BUFFER_TOO_SMALL);
    EXPECT(kt_verdict_fields(&verdict, few, sizeof few, same, 4, &count), KT_BUFFER_TOO_SMALL);
    CHECK(few[0] == '!' && count == 5);
    OK(kt_verdict_fields(&verdict, few, needed, same, 5, &count));
    CHECK(count == 5 && memcmp(few, all, needed) == 0 && few[needed] == '!');
    for (size_t index = 0; index < count; index++)
        CHECK(equal(same[index].value, fields[index].value));
    OK(kt_verdict_headers(&verdict, all, sizeof all, &needed));
    OK(kt_verdict_headers(&verdict, few, needed + 1, &needed));
    CHECK(equal(few, all));
    kt_limiter_close(&limiter);
    free(memory);
}

static int count_keys(void *context, const kt_key_info *info) {
    CHECK(info->key_id != 0 && equal(info->env, "live"));
    return ++*(int *)context == 2;
}

static void no_flaw(void *context, const kt_flaw *flaw) {
    fprintf(stderr, "%s\n", flaw->sentence);
    ++*(int *)context;
}

/** Calls that give the same results for a gate in memory and for one in a file. */
static void use_gate(kt_gate *gate, bool hints) {
    kt_key key, fresh, other;
    uint64_t key_id, other_id;
    kt_verdict verdict;
    OK(kt_gate_issue(gate, &NEW_KEY, ENTROPY, NOW_MS, &key, &key_id));
    size_t key_len = strlen(key.text);

    OK(kt_gate_check(gate, bytes(key.text), key_len, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.key_id == key_id && verdict.account == 42);
    CHECK(quota(&verdict, 0).remaining == 99 && quota(&verdict, 1).remaining == 999);
    kt_charge charge = charge_of(&verdict);
    OK(kt_gate_peek(gate, bytes(key.text), key_len, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 1).remaining == 999);
    CHECK(verdict.cost == 1 && verdict.charged == 0);
    OK(kt_gate_refund(gate, key_id, &charge, NOW_MS, &verdict));
    CHECK(quota(&verdict, 1).remaining == 1000);
    OK(kt_gate_check(gate, bytes(key.text), key_len, 10, NOW_MS, &verdict));
    charge = charge_of(&verdict);
    OK(kt_gate_settle(gate, key_id, &charge, 4, NOW_MS, &verdict));
    CHECK(quota(&verdict, 1).remaining == 996 && verdict.uncharged == 0);
    OK(kt_gate_reset(gate, key_id, NOW_MS, &verdict));
    CHECK(quota(&verdict, 1).remaining == 1000);
    EXPECT(kt_gate_refund(gate, key_id + 1, &charge, NOW_MS, &verdict), KT_NO_SUCH_KEY);
    EXPECT(kt_gate_reset(gate, 0, NOW_MS, &verdict), KT_KEY_ID_FORM);

    OK(kt_gate_check(gate, NULL, 0, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_MISSING_KEY && verdict.http_status == 401 &&
          verdict.quota_count == 0);
    CHECK(equal(kt_verdict_body(&verdict), "{\"error\": \"Missing X-API-Key header\"}"));
    OK(kt_gate_check(gate, bytes(""), 0, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_MALFORMED);
    OK(kt_verdict_duplicate_header(NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_DUPLICATE);
    CHECK(equal(kt_verdict_body(&verdict), "{\"error\": \"Invalid API key\"}"));

    kt_plan_info plan;
    char env[KT_NAME_SIZE];
    size_t written;
    OK(kt_gate_check(gate, bytes(key.text), key_len, 1, NOW_MS, &verdict));
    OK(kt_gate_plan(gate, verdict.plan, &plan));
    CHECK(equal(plan.name, "default") && equal(plan.sections, "100/minute, 1000/hour"));
    OK(kt_gate_env(gate, verdict.env, env, sizeof env, &written));
    CHECK(equal(env, "live") && written == 4);
    EXPECT(kt_gate_plan(gate, 200, &plan), KT_NO_SUCH_PLAN);
    EXPECT(kt_gate_env(gate, 200, env, sizeof env, &written), KT_NO_SUCH_ENV);

    OK(kt_gate_assign(gate, key_id, KT_TEXT("pro")));
    OK(kt_gate_check(gate, bytes(key.text), key_len, 1, NOW_MS, &verdict));
    /* The counts are kept. */
    CHECK(quota(&verdict, 1).limit == 20000 && quota(&verdict, 1).remaining == 19998);
    EXPECT(kt_gate_assign(gate, key_id, KT_TEXT("gold")), KT_NO_SUCH_PLAN);
    kt_plan gold = {KT_TEXT("gold"), KT_TEXT("500/minute, 5000/hour")};
    OK(kt_gate_set_plan(gate, &gold));
    OK(kt_gate_assign(gate, key_id, KT_TEXT("gold")));
    kt_plan daily = {KT_TEXT("daily"), KT_TEXT("5/day")};
    EXPECT(kt_gate_set_plan(gate, &daily), KT_PLAN_WINDOWS);

    /* The old secret stays valid during its grace, and both secrets share one quota. */
    OK(kt_gate_rotate(gate, key_id, (uint32_t)(NOW_MS / 1000 + 60), 0, OTHER_ENTROPY, NOW_MS,
                      &fresh));
    OK(kt_gate_check(gate, bytes(key.text), key_len, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 1).remaining == 4997);
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 1).remaining == 4996);
    OK(kt_gate_check(gate, bytes(key.text), key_len, 1, NOW_MS + 60000, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_EXPIRED);

    /* A third secret would end the first before its grace ends. */
    kt_key_info info;
    OK(kt_gate_key(gate, key_id, NOW_MS, &info));
    CHECK(info.grace_until_s == NOW_MS / 1000 + 60);
    EXPECT(kt_gate_rotate(gate, key_id, 0, 0, ENTROPY, NOW_MS, &other), KT_IN_GRACE);
    OK(kt_gate_check(gate, bytes(key.text), key_len, 0, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_gate_rotate(gate, key_id, (uint32_t)(NOW_MS / 1000 + 60), 1, ENTROPY, NOW_MS, &other));
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 0, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_gate_check(gate, bytes(other.text), strlen(other.text), 0, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    /* The grace can end before its time. */
    OK(kt_gate_end_grace(gate, key_id));
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 0, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_EXPIRED);
    EXPECT(kt_gate_end_grace(gate, key_id + 1), KT_NO_SUCH_KEY);
    EXPECT(kt_gate_end_grace(gate, 0), KT_KEY_ID_FORM);
    fresh = other;

    OK(kt_gate_expire(gate, key_id, (uint32_t)(NOW_MS / 1000 + 60)));
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 0, NOW_MS + 60000, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_EXPIRED);
    OK(kt_gate_expire(gate, key_id, 0));
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 0, NOW_MS + 60000, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    EXPECT(kt_gate_expire(gate, key_id + 1, 0), KT_NO_SUCH_KEY);
    EXPECT(kt_gate_expire(gate, 0, 0), KT_KEY_ID_FORM);

    OK(kt_gate_import(gate, bytes("legacy-key-0123456789-xyz"), 25, &NEW_KEY, NOW_MS, &other_id));
    OK(kt_gate_check(gate, bytes("legacy-key-0123456789-xyz"), 25, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.key_id == other_id);
    EXPECT(
        kt_gate_import(gate, bytes("legacy-key-0123456789-xyz"), 25, &NEW_KEY, NOW_MS, &other_id),
        KT_ALREADY_IMPORTED);
    EXPECT(kt_gate_import(gate, bytes("short"), 5, &NEW_KEY, NOW_MS, &other_id), KT_NOT_IMPORTABLE);

    OK(kt_gate_key(gate, other_id, NOW_MS, &info));
    CHECK(info.account == 42 && !info.revoked && key_quota(&info, 0).remaining == 99 &&
          info.last_used_ms == NOW_MS);
    CHECK(equal(info.last_characters, hints ? "-xyz" : ""));
    int keys = 0;
    /* The callback ends the list at the second key. */
    OK(kt_gate_list(gate, NOW_MS, count_keys, &keys));
    CHECK(keys == 2);

    kt_new_key no_such_plan = {
        sizeof(kt_new_key), 1, KT_TEXT("live"), KT_TEXT("nothing"), 0, 0, NULL, 0};
    EXPECT(kt_gate_issue(gate, &no_such_plan, ENTROPY, NOW_MS, &key, &key_id), KT_NO_SUCH_PLAN);
    kt_new_key wrong_env = {sizeof(kt_new_key), 1, KT_TEXT("LIVE"), NULL, 0, 0, 0, NULL, 0};
    EXPECT(kt_gate_issue(gate, &wrong_env, ENTROPY, NOW_MS, &key, &key_id), KT_NAME_FORM);
    kt_new_key first_plan = {sizeof(kt_new_key),       1, KT_TEXT("live"), NULL, 0,
                             (uint32_t)(NOW_MS / 1000), 0, NULL, 0};
    OK(kt_gate_issue(gate, &first_plan, ENTROPY, NOW_MS, &key, &other_id));
    OK(kt_gate_check(gate, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_EXPIRED &&
          verdict.plan == 0);

    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_check(gate, bytes(fresh.text), strlen(fresh.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY && verdict.reason == KT_REASON_REVOKED &&
          verdict.account == 42);
    EXPECT(kt_gate_rotate(gate, key_id, 0, 0, ENTROPY, NOW_MS, &fresh), KT_REVOKED);
    OK(kt_gate_key(gate, key_id, NOW_MS, &info));
    CHECK(info.revoked && info.grace_until_s == 0); /* No secret of a revoked key is valid. */
    EXPECT(kt_gate_revoke(gate, 1), KT_NO_SUCH_KEY);

    uint32_t capacity;
    int flaws = 0;
    OK(kt_gate_capacity(gate, &capacity));
    CHECK(capacity == 64);
    OK(kt_gate_take_over(gate));
    OK(kt_gate_verify(gate, NOW_MS, no_flaw, &flaws));
    CHECK(flaws == 0);
}

static void gate_in_memory_checks_its_keys(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    void *memory = table_memory(size);
    kt_gate gate, same;
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, &gate));
    use_gate(&gate, false);

    /* A copy opens with the pepper only, and as a gate only. */
    void *elsewhere = table_memory(size);
    memcpy(elsewhere, memory, size);
    OK(kt_gate_attach(elsewhere, size, PEPPERS, 1, &same));
    const uint8_t other_pepper[32] = {8};
    const kt_bytes others[] = {{other_pepper, sizeof other_pepper}};
    kt_gate refused;
    EXPECT(kt_gate_attach(elsewhere, size, others, 1, &refused), KT_WRONG_PEPPER);
    kt_limiter limiter;
    EXPECT(kt_limiter_attach(elsewhere, size, &limiter), KT_OTHER_KIND);
    kt_gate_close(&same);

    /* A killed administrator of a gate in memory keeps its claim, word 6 of line 1, until a
     * take-over. */
    ((uint64_t *)memory)[8 + 6] = 1;
    EXPECT(kt_gate_revoke(&gate, 1), KT_BUSY);
    OK(kt_gate_take_over(&gate));
    EXPECT(kt_gate_revoke(&gate, 1), KT_NO_SUCH_KEY);

    memset(elsewhere, 0, size);
    EXPECT(kt_gate_attach(elsewhere, size, PEPPERS, 1, &same), KT_UNFINISHED);
    memset(elsewhere, '!', size);
    EXPECT(kt_gate_attach(elsewhere, size, PEPPERS, 1, &same), KT_NOT_A_TABLE);
    memcpy(elsewhere, memory, size);
    ((uint32_t *)elsewhere)[2] = KT_TABLE_FORMAT + 1;
    EXPECT(kt_gate_attach(elsewhere, size, PEPPERS, 1, &same), KT_OTHER_FORMAT);
    memcpy(elsewhere, memory, size);
    ((uint32_t *)elsewhere)[6] = 0; /* The capacity. */
    EXPECT(kt_gate_attach(elsewhere, size, PEPPERS, 1, &same), KT_DAMAGED);

    /* Gates that cannot be created. */
    kt_gate_config wrong = CONFIG;
    wrong.keys = 0;
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_CAPACITY);
    wrong.keys = CONFIG.keys + 1;
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_MEMORY_TOO_SMALL);
    wrong = CONFIG;
    wrong.plans_len = 0;
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_PLAN_COUNT);
    kt_plan plans[KT_GATE_PLAN_SLOTS + 1];
    char names[KT_GATE_PLAN_SLOTS + 1][2];
    for (size_t at = 0; at <= KT_GATE_PLAN_SLOTS; at++) {
        snprintf(names[at], sizeof names[at], "%c", (char)('a' + (char)at));
        plans[at] = (kt_plan){names[at], 1, KT_TEXT("5/minute")};
    }
    wrong.plans = plans;
    wrong.plans_len = KT_GATE_PLAN_SLOTS + 1;
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_PLAN_COUNT);
    wrong.plans_len = KT_GATE_PLAN_SLOTS;
    OK(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same));
    kt_gate_close(&same);
    plans[1] = plans[0];
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_PLAN_TWICE);
    plans[1] = (kt_plan){names[1], 1, KT_TEXT("5/hour")};
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_PLAN_WINDOWS);
    plans[1] = (kt_plan){KT_TEXT("Plan B"), KT_TEXT("5/minute")};
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_PLAN_NAME_FORM);
    plans[1] = (kt_plan){names[1], 1, KT_TEXT("5/minute/hour")};
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_POLICY_SYNTAX);
    wrong = CONFIG;
    wrong.prefix_len = 9;
    wrong.prefix = "keytally9";
    EXPECT(kt_gate_init(elsewhere, size, &wrong, PEPPERS, 1, &same), KT_NAME_FORM);

    kt_bytes many[KT_MAX_PEPPERS + 1];
    uint8_t peppers[KT_MAX_PEPPERS + 1][32] = {{1}, {2}, {3}, {4}, {5}};
    for (size_t at = 0; at <= KT_MAX_PEPPERS; at++) many[at] = (kt_bytes){peppers[at], 32};
    EXPECT(kt_gate_init(elsewhere, size, &CONFIG, many, 0, &same), KT_PEPPER_COUNT);
    EXPECT(kt_gate_init(elsewhere, size, &CONFIG, many, KT_MAX_PEPPERS + 1, &same),
           KT_PEPPER_COUNT);
    OK(kt_gate_init(elsewhere, size, &CONFIG, many, KT_MAX_PEPPERS, &same));
    kt_gate_close(&same);
    many[1].len = 31;
    EXPECT(kt_gate_init(elsewhere, size, &CONFIG, many, 2, &same), KT_PEPPER_TOO_SHORT);
    many[1] = many[0];
    EXPECT(kt_gate_init(elsewhere, size, &CONFIG, many, 2, &same), KT_PEPPER_TWICE);

    kt_gate_close(&gate);
    free(elsewhere);
    free(memory);
}

/** Closing wipes the peppers: the handle holds nothing of their hash states afterwards. */
static void close_wipes_the_peppers(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    void *memory = table_memory(size);
    kt_gate *gate = calloc(1, sizeof *gate), *kept = malloc(sizeof *kept);
    CHECK(gate != NULL && kept != NULL);
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, gate));
    memcpy(kept, gate, sizeof *kept);
    kt_gate_close(gate);
    /* This reads padding, which was never written. */
    (void)VALGRIND_MAKE_MEM_DEFINED(gate, sizeof *gate);
    (void)VALGRIND_MAKE_MEM_DEFINED(kept, sizeof *kept);
    size_t wiped = 0;
    for (size_t at = 0; at < sizeof *gate; at++)
        wiped += ((unsigned char *)kept)[at] != 0 && ((unsigned char *)gate)[at] == 0;
    CHECK(wiped >= 60); /* Two states of 32 bytes, few of which are 0. */
    free(kept);
    free(gate);
    free(memory);
}

static void tables_in_files_are_shared(const char *folder) {
    char path[4096], other[4096], pepper[KT_PEPPER_SIZE], pepper_path[4096];
    snprintf(path, sizeof path, "%s/api.gate", folder);
    snprintf(other, sizeof other, "%s/addresses.limiter", folder);
    snprintf(pepper_path, sizeof pepper_path, "%s/pepper", folder);
    OK(kt_pepper_generate(pepper, sizeof pepper));
    CHECK(strlen(pepper) == 64);
    EXPECT(kt_pepper_generate(pepper_path, 64), KT_BUFFER_TOO_SMALL);
    uint8_t entropy[KT_ENTROPY_SIZE] = {0}, zeros[KT_ENTROPY_SIZE] = {0};
    OK(kt_entropy(entropy));
    CHECK(memcmp(entropy, zeros, sizeof zeros) != 0);
    CHECK(kt_now_ms() > NOW_MS / 2);

    kt_gate *gate = NULL, *same = NULL;
    EXPECT(kt_gate_open(path, pepper, 64, &gate), KT_FILE_NOT_FOUND);
    CHECK(gate == NULL);
    OK(kt_gate_create(path, pepper, 64, &CONFIG, &gate));
    EXPECT(kt_gate_create(path, pepper, 64, &CONFIG, &same), KT_FILE_EXISTS);
    EXPECT(kt_gate_open(path, "letmein", 7, &same), KT_PEPPER_FORM);
    EXPECT(kt_gate_open(path, pepper, 0, &same), KT_PEPPER_COUNT);
    EXPECT(kt_gate_open(path, NULL, 0, &same), KT_PEPPER_COUNT); /* KEYTALLY_PEPPER is not set. */
    CHECK(strstr(kt_status_message(KT_PEPPER_COUNT), "KEYTALLY_PEPPER") != NULL);
    EXPECT(kt_gate_open(path,
                        KT_TEXT("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
                        &same),
           KT_WRONG_PEPPER);
    EXPECT(kt_gate_open(folder, pepper, 64, &same), KT_NOT_A_FILE);
    CHECK(same == NULL);
    OK(kt_gate_open(path, pepper, 64, &same));
    use_gate(gate, true);

    /* Both handles use one table, and each sees the changes of the other at once. */
    kt_key key;
    uint64_t key_id;
    kt_verdict verdict;
    OK(kt_entropy(entropy));
    OK(kt_gate_issue(gate, &NEW_KEY, entropy, NOW_MS, &key, &key_id));
    OK(kt_gate_check(same, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_gate_revoke(same, key_id));
    OK(kt_gate_check(gate, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_INVALID_KEY);

    /* Both handles count the uses of all keys. */
    kt_key_usage usage;
    OK(kt_entropy(entropy));
    OK(kt_gate_issue(gate, &NEW_KEY, entropy, NOW_MS, &key, &key_id));
    EXPECT(kt_gate_key_usage(gate, key_id, &usage), KT_NOT_COUNTED);
    OK(kt_gate_set_usage(gate, 1));
    OK(kt_gate_check(gate, bytes(key.text), strlen(key.text), 3, NOW_MS, &verdict));
    OK(kt_gate_check(same, bytes(key.text), strlen(key.text), 0, NOW_MS, &verdict));
    OK(kt_gate_check(same, bytes(key.text), strlen(key.text), 1000000, NOW_MS, &verdict));
    OK(kt_gate_revoke(same, key_id));
    OK(kt_gate_check(gate, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    memset(&usage, 0xa5, sizeof usage);
    OK(kt_gate_key_usage(same, key_id, &usage));
    CHECK(usage.admitted == 2 && usage.units == 3 && usage.last_used_s == NOW_MS / 1000);
    CHECK(usage.denied_by_key == 1 && usage.revoked == 1 && usage.with_previous_secret == 0);
    CHECK(usage.denied_by_team == 0 && usage.denied_by_group == 0 && usage.forbidden == 0);
    CHECK(usage.expired == 0 && usage.suspended == 0);
    CHECK(usage.reserved_4_ == 0 && usage.reserved_[0] == 0 && usage.reserved_[8] == 0);
    EXPECT(kt_gate_key_usage(same, key_id + 1, &usage), KT_NO_SUCH_KEY);
    OK(kt_gate_set_usage(same, 0));
    EXPECT(kt_gate_key_usage(gate, key_id, &usage), KT_NOT_COUNTED);
    kt_gate_close(same);

    FILE *file = fopen(pepper_path, "w");
    CHECK(file != NULL && fprintf(file, "# ours\n%s\n", pepper) > 0 && fclose(file) == 0);
    char command[5000];
    snprintf(command, sizeof command, "chmod 660 '%s'", pepper_path);
    CHECK(system(command) == 0);
    EXPECT(kt_gate_open_with_pepper_file(path, pepper_path, &same), KT_FILE_MODE);
    file = fopen(pepper_path, "w");
    CHECK(file != NULL && fprintf(file, "\xef\xbb\xbf%s\n", pepper) > 0 && fclose(file) == 0);
    snprintf(command, sizeof command, "chmod 600 '%s'", pepper_path);
    CHECK(system(command) == 0);
    EXPECT(kt_gate_open_with_pepper_file(path, pepper_path, &same), KT_PEPPER_BYTE_ORDER_MARK);
    file = fopen(pepper_path, "w");
    CHECK(file != NULL && fprintf(file, "# ours\n%s\r\n", pepper) > 0 && fclose(file) == 0);
    OK(kt_gate_open_with_pepper_file(path, pepper_path, &same));
    kt_gate_close(same);
    CHECK(unlink(path) == 0);
    EXPECT(kt_gate_revoke(gate, 1), KT_FILE_REPLACED);
    kt_gate_close(gate);

    kt_limiter *limiter, *again;
    OK(kt_limiter_open_or_create(other, KT_TEXT("5/minute"), 1000, &limiter));
    OK(kt_limiter_open(other, &again));
    OK(kt_limiter_check(limiter, bytes("a"), 1, 5, NOW_MS, &verdict));
    OK(kt_limiter_check(again, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED);
    kt_limiter_close(again);
    EXPECT(kt_limiter_open_or_create(other, KT_TEXT("6/hour"), 1000, &again), KT_OTHER_POLICY);
    // Another limit is put in force, and the counts stay.
    OK(kt_limiter_open_or_create(other, KT_TEXT("6/minute"), 1000, &again));
    OK(kt_limiter_check(limiter, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_limiter_check(again, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED);
    kt_limiter_close(again);
    EXPECT(kt_limiter_open_or_create(other, KT_TEXT("5/minute"), 1001, &again), KT_OTHER_CAPACITY);
    EXPECT(kt_limiter_create(other, KT_TEXT("5/minute"), 1000, &again), KT_FILE_EXISTS);
    EXPECT(kt_gate_open(other, pepper, 64, &gate), KT_OTHER_KIND);
    kt_limiter_close(limiter);
    CHECK(unlink(other) == 0 && unlink(pepper_path) == 0);
    OK(kt_limiter_create(other, KT_TEXT("5/minute"), 1000, &limiter));
    kt_limiter_close(limiter);
    CHECK(unlink(other) == 0);
}

enum { HOUR_MS = 3600000 };

/** Seconds from one time to a later one, rounded up. */
static uint32_t seconds_until(uint64_t later_ms, uint64_t now_ms) {
    return (uint32_t)((later_ms - now_ms + 999) / 1000);
}

/** A limiter of 5 per hour with two handles. The first uses times as given. The second was declared
 *  to use the system clock, so its times are cached readings. */
struct clocks {
    void *memory;
    kt_limiter explicit, cached;
};

/** Creates the limiter and both handles. */
static void make_clocks(struct clocks *made) {
    size_t size = kt_limiter_size(100);
    made->memory = table_memory(size);
    OK(kt_limiter_init(made->memory, size, KT_TEXT("5/hour"), 100, SEED, &made->explicit));
    OK(kt_limiter_attach(made->memory, size, &made->cached));
    OK(kt_limiter_use_system_clock(&made->cached));
}

/** Closes both handles and frees the memory. */
static void end_clocks(struct clocks *made) {
    kt_limiter_close(&made->cached);
    kt_limiter_close(&made->explicit);
    free(made->memory);
}

/** Charges all units of a subject at an explicit time three hours ahead. Returns that time. */
static uint64_t lock_ahead(struct clocks *made, const char *subject) {
    kt_verdict verdict;
    uint64_t ahead_ms = kt_now_ms() + 3 * HOUR_MS;
    OK(kt_limiter_check(&made->explicit, bytes(subject), 1, 5, ahead_ms, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.clock_ahead_s == 0);
    return ahead_ms;
}

/** An explicit time corrects nothing. The verdict holds the true wait, and how far the tally is
 *  ahead. */
static void explicit_time_is_never_corrected(void) {
    struct clocks made;
    make_clocks(&made);
    uint64_t ahead_ms = lock_ahead(&made, "a");
    for (int turn = 0; turn < 3; turn++) {
        /* Now, and days late. */
        uint64_t now_ms = kt_now_ms() - (uint64_t)turn * 24 * HOUR_MS;
        kt_verdict verdict;
        OK(kt_limiter_check(&made.explicit, bytes("a"), 1, 1, now_ms, &verdict));
        CHECK(verdict.outcome == KT_DENIED && verdict.now_ms == now_ms &&
              verdict.retry_at_ms > ahead_ms);
        CHECK(verdict.retry_after_s == seconds_until(verdict.retry_at_ms, now_ms));
        CHECK(verdict.clock_ahead_s > 2 * 3600 &&
              verdict.clock_ahead_s == seconds_until(verdict.at_ms, now_ms));
    }
    end_clocks(&made);
}

/** The system clock corrects a tally that is ahead, and keeps its counts. */
static void system_clock_corrects_with_counts_kept(void) {
    struct clocks made;
    make_clocks(&made);
    kt_verdict verdict;
    uint64_t before_ms = coarse_now_ms();
    lock_ahead(&made, "a");
    OK(kt_limiter_check(&made.explicit, bytes("a"), 1, 1, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s == 0 &&
          verdict.retry_after_s <= 3600);
    CHECK(verdict.now_ms >= before_ms && verdict.now_ms <= kt_now_ms() &&
          verdict.at_ms == verdict.now_ms);
    /* The table itself is corrected: an explicit time of the present is right again. */
    OK(kt_limiter_peek(&made.explicit, bytes("a"), 1, 1, verdict.now_ms, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s == 0);
    end_clocks(&made);
}

/** With a handle that was declared to use the system clock, a later reading corrects the tally.
 *  Other handles use the time as given. */
static void cached_reading_corrects_once_declared(void) {
    struct clocks made;
    make_clocks(&made);
    kt_verdict verdict;
    uint64_t start_ms = coarse_now_ms(), stale_ms = start_ms - 2 * HOUR_MS;
    lock_ahead(&made, "a");
    OK(kt_limiter_check(&made.cached, bytes("a"), 1, 1, stale_ms, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s == 0 && verdict.now_ms >= start_ms);
    /* A stale reading neither takes back a charge nor begins a new window. */
    OK(kt_limiter_check(&made.cached, bytes("a"), 1, 1, stale_ms, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.now_ms >= start_ms);
    OK(kt_limiter_check(&made.cached, bytes("a"), 1, 0, start_ms + 1, &verdict));
    CHECK(verdict.now_ms == start_ms + 1);
    /* The declaration holds for one handle. */
    lock_ahead(&made, "b");
    OK(kt_limiter_check(&made.explicit, bytes("b"), 1, 1, kt_now_ms(), &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s > 2 * 3600);
    OK(kt_limiter_check(&made.cached, bytes("b"), 1, 1, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s == 0);
    end_clocks(&made);
}

/** A late explicit time has the tally's own time, so it opens no window again. */
static void late_time_never_widens_a_limit(void) {
    struct clocks made;
    make_clocks(&made);
    unsigned admitted = 0;
    for (uint64_t turn = 0; turn < 40; turn++) {
        kt_verdict verdict;
        uint64_t late_ms = turn % 2 == 0 ? 0 : (turn % 5) * HOUR_MS + (turn % 3) * 24 * HOUR_MS;
        OK(kt_limiter_check(&made.explicit, bytes("a"), 1, 1, NOW_MS - late_ms, &verdict));
        admitted += verdict.outcome == KT_ADMITTED;
    }
    CHECK(admitted == 5);
    end_clocks(&made);
}

static void correct_clock_corrects_the_whole_table(void) {
    struct clocks made;
    make_clocks(&made);
    uint64_t corrected;
    kt_verdict verdict;
    for (uint64_t time_ms = kt_now_ms(), turn = 0; turn < 2; turn++) {
        lock_ahead(&made, "a");
        lock_ahead(&made, "b");
        OK(kt_limiter_check(&made.explicit, bytes("c"), 1, 1, kt_now_ms(), &verdict));
        OK(kt_limiter_correct_clock(&made.explicit, turn == 0 ? time_ms : KT_SYSTEM_CLOCK,
                                    &corrected));
        CHECK(corrected == 2);
        OK(kt_limiter_correct_clock(&made.explicit, time_ms, &corrected));
        CHECK(corrected == 0);
        OK(kt_limiter_check(&made.explicit, bytes("a"), 1, 1, kt_now_ms(), &verdict));
        CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s == 0 &&
              verdict.retry_after_s <= 3600);
        OK(kt_limiter_reset(&made.explicit, bytes("a"), 1, KT_SYSTEM_CLOCK, &verdict));
        OK(kt_limiter_reset(&made.explicit, bytes("b"), 1, KT_SYSTEM_CLOCK, &verdict));
    }
    end_clocks(&made);
}

static void remember(void *context, const kt_flaw *flaw) { *(kt_flaw *)context = *flaw; }

static int remember_ahead(void *context, const kt_key_info *info) {
    *(uint32_t *)context += info->clock_ahead_s;
    return 0;
}

/** Each function of a gate that takes a time accepts the system clock too. */
static void gate_takes_either_time(void) {
    kt_gate_config config = CONFIG;
    config.keys = 3;
    kt_plan hourly = {KT_TEXT("default"), KT_TEXT("5/hour")};
    config.plans = &hourly;
    config.plans_len = 1;
    size_t size = kt_gate_size(3);
    void *memory = table_memory(size);
    kt_gate gate, cached;
    OK(kt_gate_init(memory, size, &config, PEPPERS, 1, &gate));
    OK(kt_gate_attach(memory, size, PEPPERS, 1, &cached));
    OK(kt_gate_use_system_clock(&cached));

    /* The records of keys that expired in 1970 can be reused now, but not at an explicit time of
     * 1970. */
    kt_new_key ended = {
        sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("default"), 1000, 0, NULL, 0};
    kt_new_key new_key = {
        sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
    kt_key key;
    uint64_t key_id, corrected, start_ms = coarse_now_ms();
    kt_verdict verdict;
    for (int turn = 0; turn < 3; turn++)
        OK(kt_gate_issue(&gate, &ended, ENTROPY, 0, &key, &key_id));
    EXPECT(kt_gate_issue(&gate, &new_key, ENTROPY, 999000, &key, &key_id), KT_GATE_FULL);
    /* A stale reading is replaced. */
    OK(kt_gate_issue(&cached, &new_key, ENTROPY, 999000, &key, &key_id));
    OK(kt_gate_import(&gate, bytes("legacy-key-0123456789-xyz"), 25, &new_key, KT_SYSTEM_CLOCK,
                      &key_id));
    OK(kt_gate_issue(&gate, &new_key, ENTROPY, KT_SYSTEM_CLOCK, &key, &key_id));
    OK(kt_gate_rotate(&gate, key_id, 0, 0, OTHER_ENTROPY, KT_SYSTEM_CLOCK, &key));
    const uint8_t *api_key = bytes(key.text);
    size_t len = strlen(key.text);

    OK(kt_gate_check(&gate, api_key, len, 1, start_ms + 3 * HOUR_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_gate_check(&gate, api_key, len, 5, start_ms, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.clock_ahead_s > 2 * 3600);

    /* A query corrects nothing. */
    kt_key_info info;
    uint32_t ahead_s = 0;
    kt_flaw flaw = {0};
    OK(kt_gate_key(&gate, key_id, KT_SYSTEM_CLOCK, &info));
    CHECK(info.clock_ahead_s > 2 * 3600 && key_quota(&info, 0).remaining == 4);
    OK(kt_gate_key(&gate, key_id, start_ms + 3 * HOUR_MS, &info));
    CHECK(info.clock_ahead_s == 0);
    OK(kt_gate_list(&gate, KT_SYSTEM_CLOCK, remember_ahead, &ahead_s));
    CHECK(ahead_s > 2 * 3600);
    OK(kt_gate_verify(&gate, start_ms + 3 * HOUR_MS, remember, &flaw));
    CHECK(flaw.key_id == 0);
    OK(kt_gate_verify(&gate, KT_SYSTEM_CLOCK, remember, &flaw));
    CHECK(flaw.key_id == key_id && flaw.kind == KT_FLAW_FUTURE_TALLY);
    CHECK(strstr(flaw.sentence, "the key's next check by the system clock corrects it") != NULL);

    OK(kt_gate_peek(&cached, api_key, len, 1, start_ms, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.clock_ahead_s == 0 &&
          quota(&verdict, 0).remaining == 4);
    OK(kt_gate_check(&cached, api_key, len, 1, start_ms, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 0).remaining == 3);
    OK(kt_gate_check(&gate, api_key, len, 1, KT_SYSTEM_CLOCK, &verdict));
    kt_charge charge = charge_of(&verdict);
    OK(kt_gate_refund(&gate, key_id, &charge, KT_SYSTEM_CLOCK, &verdict));
    CHECK(quota(&verdict, 0).remaining == 3 && verdict.now_ms >= start_ms);
    EXPECT(kt_verdict_charge(&verdict, &charge), KT_NOT_A_CHARGE);
    charge = charge_at(0, verdict.at_ms);
    OK(kt_gate_settle(&gate, key_id, &charge, 2, KT_SYSTEM_CLOCK, &verdict));
    CHECK(quota(&verdict, 0).remaining == 1 && verdict.now_ms >= start_ms);

    OK(kt_gate_reset(&gate, key_id, start_ms + 3 * HOUR_MS, &verdict));
    OK(kt_gate_correct_clock(&gate, KT_SYSTEM_CLOCK, &corrected));
    CHECK(corrected == 1);
    OK(kt_gate_reset(&gate, key_id, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.clock_ahead_s == 0 && verdict.now_ms >= start_ms);
    OK(kt_verdict_duplicate_header(KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.now_ms >= start_ms && verdict.now_ms <= kt_now_ms());
    kt_gate_close(&cached);
    kt_gate_close(&gate);
    free(memory);
}

/** Each function of a limiter that takes a time accepts the system clock too. */
static void limiter_takes_either_time(void) {
    struct clocks made;
    make_clocks(&made);
    kt_verdict verdict;
    uint64_t live, start_ms = coarse_now_ms();
    OK(kt_limiter_check(&made.explicit, bytes("a"), 1, 2, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.now_ms >= start_ms &&
          verdict.now_ms <= kt_now_ms());
    kt_charge charge = charge_of(&verdict);
    OK(kt_limiter_settle(&made.explicit, bytes("a"), 1, &charge, 3, KT_SYSTEM_CLOCK, &verdict));
    CHECK(quota(&verdict, 0).remaining == 2);
    uint64_t at_ms;
    OK(kt_charge_at_ms(&charge, &at_ms));
    charge = charge_at(3, at_ms);
    OK(kt_limiter_refund(&made.explicit, bytes("a"), 1, &charge, KT_SYSTEM_CLOCK, &verdict));
    CHECK(quota(&verdict, 0).remaining == 5);
    OK(kt_limiter_peek(&made.explicit, bytes("a"), 1, 5, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && verdict.now_ms >= start_ms);
    OK(kt_limiter_reset(&made.explicit, bytes("a"), 1, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.now_ms >= start_ms);
    OK(kt_limiter_live_subjects(&made.explicit, KT_SYSTEM_CLOCK, &live));
    CHECK(live == 1);
    OK(kt_limiter_live_subjects(&made.explicit, start_ms + 100 * HOUR_MS, &live));
    CHECK(live == 0);
    end_clocks(&made);
}

struct share {
    kt_limiter *limiter;
    unsigned admitted;
};

static void *spend(void *context) {
    struct share *share = context;
    for (int turn = 0; turn < 2000; turn++) {
        kt_verdict verdict;
        OK(kt_limiter_check(share->limiter, bytes("one"), 3, 1, NOW_MS, &verdict));
        share->admitted += verdict.outcome == KT_ADMITTED;
    }
    return NULL;
}

/** Puts a new gate with one key in place of the one at `path`. */
static void replace(const char *folder, const char *path, const char *pepper, kt_key *key_out) {
    char new_path[4096];
    uint8_t entropy[KT_ENTROPY_SIZE];
    uint64_t key_id;
    kt_gate *gate;
    snprintf(new_path, sizeof new_path, "%s/new.gate", folder);
    OK(kt_gate_create(new_path, pepper, 64, &CONFIG, &gate));
    OK(kt_entropy(entropy));
    OK(kt_gate_issue(gate, &NEW_KEY, entropy, NOW_MS, key_out, &key_id));
    kt_gate_close(gate);
    CHECK(rename(new_path, path) == 0);
}

static bool admits(kt_gate *gate, const kt_key *key) {
    kt_verdict verdict;
    OK(kt_gate_check(gate, bytes(key->text), strlen(key->text), 1, NOW_MS, &verdict));
    return verdict.outcome == KT_ADMITTED;
}

/** A replaced gate file is opened: on request, by a change of keys, and by the thread of the
 * library. */
static void replaced_gate_file_is_opened(const char *folder) {
    char path[4096], pepper[KT_PEPPER_SIZE], other[KT_PEPPER_SIZE];
    snprintf(path, sizeof path, "%s/replaced.gate", folder);
    OK(kt_pepper_generate(pepper, sizeof pepper));
    OK(kt_pepper_generate(other, sizeof other));
    kt_key old, new, newest;
    kt_gate *gate;
    uint64_t reopened;
    uint32_t failing;
    replace(folder, path, pepper, &old);
    OK(kt_gate_open(path, pepper, 64, &gate));
    OK(kt_gate_reopen_if_replaced(gate));
    OK(kt_gate_reopen_status(gate, &reopened, &failing));
    CHECK(reopened == 0 && failing == 0 && admits(gate, &old));

    replace(folder, path, pepper, &new);
    CHECK(admits(gate, &old));
    OK(kt_gate_reopen_if_replaced(gate));
    CHECK(admits(gate, &new) && !admits(gate, &old));

    replace(folder, path, other, &old);
    EXPECT(kt_gate_reopen_if_replaced(gate), KT_WRONG_PEPPER);
    EXPECT(kt_gate_revoke(gate, 1), KT_WRONG_PEPPER);
    OK(kt_gate_reopen_status(gate, &reopened, &failing));
    CHECK(reopened == 1 && failing == 1 && admits(gate, &new));

    /* A change is made in the file at the path. */
    replace(folder, path, pepper, &newest);
    EXPECT(kt_gate_revoke(gate, 1), KT_NO_SUCH_KEY);
    CHECK(admits(gate, &newest));
    OK(kt_gate_reopen(gate));
    OK(kt_gate_reopen_status(gate, &reopened, &failing));
    CHECK(reopened == 3 && failing == 0);

    OK(kt_gate_watch(gate));
    OK(kt_gate_watch(gate));
    replace(folder, path, pepper, &new);
    for (int i = 0; !admits(gate, &new); i++) {
        CHECK(i < 1000); /* 100 seconds under valgrind: a bound against a hang. */
        usleep(100000);
    }
    kt_gate_close(gate);
    CHECK(unlink(path) == 0);
}

/** While another process administers a gate, a change waits, then fails. */
static void change_to_a_held_gate_waits_and_fails(const char *folder) {
    char path[4096], pepper[KT_PEPPER_SIZE];
    snprintf(path, sizeof path, "%s/held.gate", folder);
    OK(kt_pepper_generate(pepper, sizeof pepper));
    kt_gate *gate;
    uint32_t pid = 7;
    OK(kt_gate_create(path, pepper, 64, &CONFIG, &gate));
    OK(kt_gate_administrator(gate, &pid));
    CHECK(pid == 0);
    OK(kt_gate_set_wait(gate, 20));
    /* The word that an administrator in another container writes, which holds no lock of the file:
     * see host/src/lock.rs. */
    FILE *file = fopen(path, "r+");
    uint64_t holder = UINT64_MAX;
    CHECK(file != NULL && fseek(file, 64 + 7 * 8, SEEK_SET) == 0 &&
          fwrite(&holder, 8, 1, file) == 1 && fclose(file) == 0);
    EXPECT(kt_gate_revoke(gate, 1), KT_BUSY);
    OK(kt_gate_administrator(gate, &pid));
    CHECK(pid == 0);
    OK(kt_gate_take_over(gate));
    EXPECT(kt_gate_revoke(gate, 1), KT_NO_SUCH_KEY);
    kt_gate_close(gate);
    CHECK(unlink(path) == 0);
}

/** Entropy that differs from that of each other number. */
static void entropy_of(unsigned number, uint8_t entropy[KT_ENTROPY_SIZE]) {
    memset(entropy, 0x5a, KT_ENTROPY_SIZE);
    memcpy(entropy, &number, sizeof number);
}

/** Issues a key in an environment, with entropy of this number. Returns the status. */
static kt_status issue(kt_gate *gate, const char *env, unsigned number, uint64_t *key_id) {
    uint8_t entropy[KT_ENTROPY_SIZE];
    entropy_of(number, entropy);
    kt_key key;
    const kt_new_key new_key = {sizeof new_key, 1, env, strlen(env), NULL, 0, 0, 0, NULL, 0};
    return kt_gate_issue(gate, &new_key, entropy, NOW_MS, &key, key_id);
}

/** A gate has room for a number of plans, environments, imported keys and peppers. */
static void gate_has_bounds(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    void *memory = table_memory(size);
    kt_gate gate;
    uint64_t key_id;
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, &gate));

    const kt_plan third = {KT_TEXT("third"), KT_TEXT("1/minute, 2/hour")};
    const kt_plan fourth = {KT_TEXT("fourth"), KT_TEXT("1/minute, 2/hour")};
    const kt_plan fifth = {KT_TEXT("fifth"), KT_TEXT("1/minute, 2/hour")};
    OK(kt_gate_set_plan(&gate, &third));
    OK(kt_gate_set_plan(&gate, &fourth));
    EXPECT(kt_gate_set_plan(&gate, &fifth), KT_PLANS_FULL);
    const kt_plan large = {KT_TEXT("third"), KT_TEXT("1/minute, 4294967295/hour")};
    EXPECT(kt_gate_set_plan(&gate, &large), KT_PLAN_LIMIT);

    for (unsigned at = 0; at < 16; at++) {
        const char env[] = {(char)('a' + at), 0};
        OK(issue(&gate, env, at, &key_id));
    }
    EXPECT(issue(&gate, "q", 16, &key_id), KT_ENVS_FULL);

    kt_new_key new_key = NEW_KEY;
    new_key.env = "a";
    new_key.env_len = 1;
    kt_status status = KT_OK;
    for (unsigned at = 0; status == KT_OK; at++) {
        char text[32];
        snprintf(text, sizeof text, "legacy-key-%08u", at);
        status = kt_gate_import(&gate, bytes(text), strlen(text), &new_key, NOW_MS, &key_id);
    }
    EXPECT(status, KT_NO_ROOM_TO_IMPORT);
    kt_gate_close(&gate);

    /* Keys under four peppers leave no number for a fifth. */
    memset(memory, 0, size);
    uint8_t secrets[5][32];
    for (unsigned at = 0; at < 5; at++) memset(secrets[at], (int)at + 1, sizeof secrets[at]);
    kt_bytes peppers[2] = {{secrets[0], 32}, {secrets[1], 32}};
    OK(kt_gate_init(memory, size, &CONFIG, peppers, 1, &gate));
    OK(issue(&gate, "live", 0, &key_id));
    for (unsigned at = 1; at < 5; at++) {
        kt_gate_close(&gate);
        peppers[0].data = secrets[at - 1];
        peppers[1].data = secrets[at];
        OK(kt_gate_attach(memory, size, peppers, 2, &gate));
        EXPECT(issue(&gate, "live", at, &key_id), at < 4 ? KT_OK : KT_PEPPERS_FULL);
    }
    kt_gate_close(&gate);
    free(memory);
}

/** A record whose environment the gate does not have cannot be changed. */
static void damaged_record_cannot_be_rotated(void) {
    size_t size = kt_gate_size(CONFIG.keys);
    uint64_t *memory = table_memory(size);
    kt_gate gate;
    kt_key key;
    uint64_t key_id;
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, &gate));
    OK(issue(&gate, "live", 0, &key_id));
    /* A record is a line of 8 words. It begins with the key id, and the lowest 4 bits of its last
     * word are the number of the environment: see core/src/record.rs. The records come last, after
     * a header that also may hold the key id. */
    size_t record = 0;
    for (size_t at = 0; at < size / 8; at += 8)
        if (memory[at] == key_id) record = at;
    CHECK(record != 0);
    memory[record + 7] |= 0xf;
    EXPECT(kt_gate_rotate(&gate, key_id, 0, 0, OTHER_ENTROPY, NOW_MS, &key), KT_RECORD_DAMAGED);
    kt_gate_close(&gate);
    free(memory);
}

/** Files that are no table, and a file of peppers that is too long. */
static void other_files_are_refused(const char *folder) {
    char path[4096], command[9000], pepper[KT_PEPPER_SIZE];
    kt_limiter *limiter;
    kt_gate *gate;
    snprintf(path, sizeof path, "%s/other", folder);
    snprintf(command, sizeof command, "printf 0123456789 > '%s' && chmod 600 '%s'", path, path);
    CHECK(system(command) == 0);
    EXPECT(kt_limiter_open(path, &limiter), KT_FILE_TOO_SHORT);
    snprintf(command, sizeof command, "head -c 65537 /dev/zero | tr '\\0' '#' > '%s'", path);
    CHECK(system(command) == 0);
    EXPECT(kt_gate_open_with_pepper_file("api.gate", path, &gate), KT_PEPPER_FILE_TOO_LONG);
    CHECK(unlink(path) == 0);

    /* The system opens no path of this length. */
    char long_path[8192];
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = 0;
    EXPECT(kt_limiter_open(long_path, &limiter), KT_IO);
    OK(kt_pepper_generate(pepper, sizeof pepper));
    EXPECT(kt_gate_open(long_path, pepper, 64, &gate), KT_IO);
}

static void threads_admit_exactly_the_limit(void) {
    size_t size = kt_limiter_size(8);
    void *memory = table_memory(size);
    kt_limiter limiter;
    OK(kt_limiter_init(memory, size, KT_TEXT("1000/minute"), 8, SEED, &limiter));
    pthread_t threads[4];
    struct share shares[4];
    unsigned admitted = 0;
    for (int at = 0; at < 4; at++) {
        shares[at] = (struct share){&limiter, 0};
        CHECK(pthread_create(&threads[at], NULL, spend, &shares[at]) == 0);
    }
    for (int at = 0; at < 4; at++) {
        CHECK(pthread_join(threads[at], NULL) == 0);
        admitted += shares[at].admitted;
    }
    CHECK(admitted == 1000);
    kt_limiter_close(&limiter);
    free(memory);
}

/** Returns the units left in the first quota of each of the three networks, as decimal digits. */
static uint32_t rooms(kt_limiter *limiter, const char *address) {
    const kt_part part = {
        .limiter = limiter, .text = bytes(address), .text_len = strlen(address), .cost = 0};
    kt_compound compound;
    OK(kt_peek_all(&part, 1, NOW_MS, &compound));
    CHECK(compound.tally_count == 3);
    uint32_t digits = 0;
    for (int at = 0; at < 3; at++)
        digits = 10 * digits + quota(&compound.tallies[at].verdict, 0).remaining;
    return digits;
}

static void address_is_charged_in_all_networks_or_in_none(void) {
    static const char POLICY[] = "addresses: /48 6/minute; /64 2/minute; /56 4/minute",
                      NORMAL[] = "addresses: /64 2/minute; /56 4/minute; /48 6/minute",
                      ONE[] = "2001:db8:0:1::1", TWO[] = "[2001:db8:0:2::1]:443",
                      THREE[] = "2001:db8:0:3::1";
    size_t size = kt_limiter_size(64) + KT_PREFIXES_SIZE;
    void *memory = table_memory(size);
    kt_limiter limiter, attached;
    EXPECT(kt_limiter_init(memory, size - 64, KT_TEXT(POLICY), 64, SEED, &limiter),
           KT_MEMORY_TOO_SMALL);
    OK(kt_limiter_init(memory, size, KT_TEXT(POLICY), 64, SEED, &limiter));
    kt_verdict verdict;
    OK(kt_limiter_check(&limiter, bytes(ONE), strlen(ONE), 2, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 0).remaining == 0);
    CHECK(verdict.charged == 0);
    OK(kt_limiter_check_request(&limiter, bytes(ONE), strlen(ONE), NULL, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED); /* The system clock is later. */
    OK(kt_limiter_reset(&limiter, bytes(ONE), strlen(ONE), NOW_MS, &verdict));
    kt_limiter_close(&limiter);

    memset(memory, 0, size);
    OK(kt_limiter_init(memory, size, KT_TEXT(POLICY), 64, SEED, &limiter));
    OK(kt_limiter_check(&limiter, bytes(ONE), strlen(ONE), 2, NOW_MS, &verdict));
    OK(kt_limiter_attach(memory, size, &attached));
    CHECK(rooms(&attached, ONE) == 24 && rooms(&attached, TWO) == 224);
    const kt_part part = {
        .limiter = &attached, .text = bytes(TWO), .text_len = strlen(TWO), .cost = 2};
    kt_compound compound;
    OK(kt_check_all(&part, 1, NOW_MS, &compound));
    CHECK(compound.outcome == KT_ADMITTED && compound.tally_count == 3);
    CHECK(equal(compound.tallies[0].section, "") &&
          equal(compound.tallies[1].section, "prefix-56") &&
          equal(compound.tallies[2].section, "prefix-48"));
    char headers[KT_COMPOUND_HEADERS_SIZE];
    size_t written;
    OK(kt_compound_headers(&compound, headers, sizeof headers, &written));
    CHECK(strstr(headers, "\"prefix-48-minute\";q=6;w=60") != NULL);

    OK(kt_limiter_check(&limiter, bytes(THREE), strlen(THREE), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED && quota(&verdict, 0).limit == 4);
    OK(kt_limiter_peek(&limiter, bytes(THREE), strlen(THREE), 3, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_TOO_COSTLY);
    kt_charge charge;
    OK(kt_compound_charge(&compound, 0, &charge));
    OK(kt_limiter_settle(&limiter, bytes(TWO), strlen(TWO), &charge, 1, NOW_MS, &verdict));
    CHECK(rooms(&limiter, TWO) == 113);
    OK(kt_limiter_settle(&limiter, bytes(TWO), strlen(TWO), &charge, 6, NOW_MS, &verdict));
    CHECK(verdict.uncharged == 3 && rooms(&limiter, TWO) == 2);
    OK(kt_limiter_refund(&limiter, bytes(TWO), strlen(TWO), &charge, NOW_MS, &verdict));
    CHECK(rooms(&limiter, TWO) == 224);
    kt_settlement overdraw = {.size = sizeof overdraw, .has_cost = 1, .cost = 5, .overdraw = 1};
    OK(kt_limiter_settle_all(&limiter, bytes(TWO), strlen(TWO), &charge, &overdraw, NOW_MS,
                             &verdict));
    CHECK(rooms(&limiter, TWO) == 1);
    OK(kt_limiter_reset(&limiter, bytes(TWO), strlen(TWO), NOW_MS, &verdict));
    CHECK(rooms(&limiter, TWO) == 201);

    static const char *const WRONG[] = {"", "ann", "2001:db8::/63", "203.0.113"};
    for (size_t at = 0; at < sizeof WRONG / sizeof *WRONG; at++) {
        const kt_part wrong = {.limiter = &limiter,
                               .text = bytes(WRONG[at]),
                               .text_len = strlen(WRONG[at]),
                               .cost = 1};
        EXPECT(kt_limiter_check(&limiter, wrong.text, wrong.text_len, 1, NOW_MS, &verdict),
               KT_NOT_AN_ADDRESS);
        EXPECT(kt_limiter_refund(&limiter, wrong.text, wrong.text_len, &charge, NOW_MS, &verdict),
               KT_NOT_AN_ADDRESS);
        EXPECT(kt_check_all(&wrong, 1, NOW_MS, &compound), KT_NOT_AN_ADDRESS);
    }

    uint64_t number;
    uint32_t capacity;
    OK(kt_limiter_live_subjects(&limiter, NOW_MS, &number));
    CHECK(number == 4);
    OK(kt_limiter_correct_clock(&limiter, NOW_MS - 3600000, &number));
    CHECK(number == 4);
    OK(kt_limiter_capacity(&attached, &capacity));
    CHECK(capacity == 64);
    char text[KT_SECTIONS_SIZE];
    OK(kt_limiter_policy(&attached, text, sizeof text, &written));
    CHECK(equal(text, NORMAL) && written == strlen(NORMAL));
    OK(kt_policy_parse(KT_TEXT(POLICY), text, sizeof text, &written));
    CHECK(equal(text, NORMAL));
    EXPECT(kt_policy_parse(KT_TEXT("addresses: /65 1/s"), text, sizeof text, &written),
           KT_POLICY_PREFIX);
    OK(kt_policy_explain(KT_TEXT("addresses: /65 1/s"), text, sizeof text, &written));
    CHECK(strstr(text, "\"/65 1/s\"") == text);
    OK(kt_policy_explain(KT_TEXT(POLICY), text, sizeof text, &written));
    CHECK(equal(text, ""));
    EXPECT(kt_limiter_init(memory, size, KT_TEXT("addresses: 1/fortnight"), 64, SEED, &limiter),
           KT_POLICY_UNIT);
    kt_limiter_close(&attached);
    kt_limiter_close(&limiter);
    free(memory);
}

static void limiter_of_addresses_in_a_file_is_shared(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/addresses.limiter", folder);
    kt_limiter *limiter, *again;
    OK(kt_limiter_create(path, KT_TEXT("addresses: 2/minute"), 1000, &limiter));
    OK(kt_limiter_open(path, &again));
    kt_verdict verdict;
    OK(kt_limiter_check(limiter, bytes("2001:db8::1"), 11, 2, NOW_MS, &verdict));
    OK(kt_limiter_check(again, bytes("2001:db8::2"), 11, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED);
    kt_limiter_close(again);
    OK(kt_limiter_open_or_create(path, KT_TEXT("addresses: 3/minute"), 1000, &again));
    OK(kt_limiter_check(limiter, bytes("2001:db8::2"), 11, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    kt_limiter_close(again);
    EXPECT(kt_limiter_open_or_create(path, KT_TEXT("addresses: /64 3/minute"), 1000, &again),
           KT_OTHER_POLICY);
    EXPECT(kt_limiter_open_or_create(path, KT_TEXT("3/minute"), 1000, &again), KT_OTHER_KIND);
    kt_limiter_close(limiter);
    CHECK(unlink(path) == 0);
}

int main(int count, char **arguments) {
    CHECK(count == 2); /* A folder for files. */
    texts_are_parsed_and_explained();
    parts_are_charged_all_or_none();
    weeks_and_months_end_by_the_calendar();
    limiter_in_memory_charges_and_refunds();
    address_is_charged_in_all_networks_or_in_none();
    limiter_of_addresses_in_a_file_is_shared(arguments[1]);
    requests_of_other_versions_are_read();
    structs_of_other_versions_are_read();
    reserved_members_are_zeros();
    smaller_buffers_are_enough_if_all_fits();
    gate_in_memory_checks_its_keys();
    close_wipes_the_peppers();
    gate_has_bounds();
    damaged_record_cannot_be_rotated();
    tables_in_files_are_shared(arguments[1]);
    other_files_are_refused(arguments[1]);
    explicit_time_is_never_corrected();
    system_clock_corrects_with_counts_kept();
    cached_reading_corrects_once_declared();
    late_time_never_widens_a_limit();
    correct_clock_corrects_the_whole_table();
    gate_takes_either_time();
    limiter_takes_either_time();
    replaced_gate_file_is_opened(arguments[1]);
    change_to_a_held_gate_waits_and_fails(arguments[1]);
    threads_admit_exactly_the_limit();
    return 0;
}
