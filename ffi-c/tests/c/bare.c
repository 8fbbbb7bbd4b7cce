/* Uses both tables of the library that is built without `host` and needs no operating system. */
#include "check.h"

static _Alignas(KT_TABLE_ALIGN) unsigned char limits[KT_LIMITER_SIZE(16)], keys[KT_GATE_SIZE(16)];

int main(void) {
    const uint8_t seed[16] = {1}, pepper[32] = {7}, entropy[KT_ENTROPY_SIZE] = {9};
    const kt_bytes peppers[] = {{pepper, sizeof pepper}};
    const kt_plan plan = {KT_TEXT("default"), KT_TEXT("2/minute")};
    const kt_gate_config config = {
        sizeof(kt_gate_config), 16, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    const kt_new_key new_key = {sizeof(kt_new_key), 42, KT_TEXT("dev"), NULL, 0, 0, 0, NULL, 0};
    kt_limiter limiter;
    kt_gate gate;
    kt_verdict verdict;
    kt_key key;
    uint64_t key_id;
    EXPECT(kt_limiter_init(limits, sizeof limits, KT_TEXT("addresses: 1/s"), 16, seed, &limiter),
           KT_POLICY_SYNTAX);
    OK(kt_limiter_init(limits, sizeof limits, KT_TEXT("1/second"), 16, seed, &limiter));
    OK(kt_limiter_check(&limiter, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED);
    OK(kt_limiter_check(&limiter, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.retry_after_s == 1);

    OK(kt_gate_init(keys, sizeof keys, &config, peppers, 1, &gate));
    OK(kt_gate_issue(&gate, &new_key, entropy, NOW_MS, &key, &key_id));
    for (int turn = 0; turn < 3; turn++)
        OK(kt_gate_check(&gate, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_DENIED && verdict.account == 42);
    char headers[KT_HEADERS_SIZE];
    size_t written;
    OK(kt_verdict_headers(&verdict, headers, sizeof headers, &written));
    CHECK(strstr(headers, "Retry-After: 60\r\n") != NULL);
    OK(kt_gate_revoke(&gate, key_id));
    EXPECT(kt_gate_check(NULL, NULL, 0, 1, NOW_MS, &verdict), KT_NULL_POINTER);

    /* This library has no system clock. An explicit time corrects a tally that is an hour ahead. */
    uint64_t corrected = 77;
    EXPECT(kt_limiter_check(&limiter, bytes("a"), 1, 1, KT_SYSTEM_CLOCK, &verdict), KT_NO_CLOCK);
    EXPECT(kt_gate_check(&gate, NULL, 0, 1, KT_SYSTEM_CLOCK, &verdict), KT_NO_CLOCK);
    EXPECT(kt_verdict_duplicate_header(KT_SYSTEM_CLOCK, &verdict), KT_NO_CLOCK);
    EXPECT(kt_gate_correct_clock(&gate, KT_SYSTEM_CLOCK, &corrected), KT_NO_CLOCK);
    CHECK(corrected == 77);
    OK(kt_gate_correct_clock(&gate, NOW_MS - 3600000, &corrected));
    CHECK(corrected == 1);
    OK(kt_limiter_correct_clock(&limiter, NOW_MS - 3600000, &corrected));
    CHECK(corrected == 1);

    /* This library is built without the features that a device can leave out. */
    char text[KT_POLICY_SIZE];
    EXPECT(kt_policy_parse(KT_TEXT("sliding 1/second"), text, sizeof text, &written),
           KT_NO_SLIDING);
    EXPECT(kt_policy_explain(KT_TEXT("sliding 1/second"), text, sizeof text, &written), KT_OK);
    CHECK(strcmp(text, kt_status_message(KT_NO_SLIDING)) == 0);
    EXPECT(kt_policy_parse(KT_TEXT("1/week"), text, sizeof text, &written), KT_NO_CALENDAR);
    EXPECT(kt_gate_import(&gate, bytes("legacy-key-0123456789-xyz"), 25, &new_key, NOW_MS, &key_id),
           KT_NO_IMPORTED_KEYS);
    const kt_bytes two[] = {peppers[0], {entropy, sizeof entropy}};
    EXPECT(kt_gate_attach(keys, sizeof keys, two, 2, &gate), KT_NO_PEPPER_ROTATION);

    EXPECT(kt_sections_parse(KT_TEXT("1/second; team: 1/second"), text, sizeof text, &written),
           KT_NO_SECTIONS);
    kt_gate_config with_scope = config;
    const kt_name scope = {KT_TEXT("read")};
    size_t size;
    with_scope.scopes = &scope;
    with_scope.scopes_len = 1;
    EXPECT(kt_gate_config_size(&with_scope, &size), KT_NO_SECTIONS);
    with_scope.scopes_len = 0;
    with_scope.described = "minute";
    with_scope.described_len = 6;
    EXPECT(kt_gate_config_size(&with_scope, &size), KT_NO_SECTIONS);
    EXPECT(kt_gate_set_scopes(&gate, key_id, &scope, 1), KT_NO_SECTIONS);
    kt_gate_config with_teams = config;
    with_teams.teams = 1;
    EXPECT(kt_gate_config_size(&with_teams, &size), KT_NO_SECTIONS);
    const kt_plan two_windows = {KT_TEXT("default"), KT_TEXT("1000000/s, 1000000/2s")};
    with_teams = config;
    with_teams.plans = &two_windows;
    EXPECT(kt_gate_config_size(&with_teams, &size), KT_POLICY_TOO_MANY_TALLIES);
    OK(kt_gate_config_size(&config, &size));
    CHECK(size == sizeof keys && kt_gate_handle_size() <= sizeof gate);

    kt_gate_close(&gate);
    kt_limiter_close(&limiter);
    return 0;
}
