/* Calls the functions with wrong pointers, lengths and structs. Each call must return a status and
 * write nothing. */
#include "check.h"

#include <stdint.h>

static const uint8_t SEED[16] = {1}, PEPPER[32] = {7}, ENTROPY[KT_ENTROPY_SIZE] = {1};
static const kt_bytes PEPPERS[] = {{PEPPER, sizeof PEPPER}};
static const kt_plan PLAN = {KT_TEXT("default"), KT_TEXT("5/minute")};
static const kt_gate_config CONFIG = {
    sizeof(kt_gate_config), 8, &PLAN, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
static const kt_new_key NEW_KEY = {sizeof(kt_new_key), 42, KT_TEXT("live"), NULL, 0, 0, 0, NULL, 0};
/** A charge, which `main` writes, and a struct that is not one. */
static kt_charge CHARGE;
static const kt_charge NO_CHARGE = {{1}};

static int visit(void *context, const kt_key_info *info) {
    (void)context;
    return info->key_id == 0;
}

static int visit_account(void *context, const kt_account_info *info) {
    (void)context;
    CHECK(info == NULL); /* A plain gate has no account. */
    return 0;
}

static void report(void *context, const kt_flaw *flaw) {
    (void)context;
    (void)flaw;
}

/** A pointer that is one byte off. The library never follows it. */
#define OFF(pointer) ((void *)((uintptr_t)(pointer) + 1))

/** Calls with memory that is not a handle, then NULL, then a misaligned pointer. */
#define NO_HANDLE(handle, call) \
    do { \
        handle = none; \
        EXPECT(call, KT_NOT_A_HANDLE); \
        handle = NULL; \
        EXPECT(call, KT_NULL_POINTER); \
        handle = OFF(none); \
        EXPECT(call, KT_MISALIGNED); \
        handle = real; \
    } while (0)

/** Checks that a call with a NULL argument returns its status. */
#define NULL_AT(call) EXPECT(call, KT_NULL_POINTER)

/** Tests a limiter. `none` is memory that is not a handle. */
static void limiter_calls_reject_invalid_pointers(void *none) {
    static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(8)];
    kt_limiter own, moved, *real = &own, *limiter = real;
    const uint8_t *subject = bytes("a");
    kt_verdict verdict;
    char text[KT_POLICY_SIZE];
    size_t written;
    uint32_t capacity;
    uint64_t live;
    kt_settlement settlement = {.size = sizeof settlement};
    uint8_t on_full;
    OK(kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 8, SEED, real));

    NO_HANDLE(limiter, kt_limiter_check(limiter, subject, 1, 1, NOW_MS, &verdict));
    NO_HANDLE(limiter, kt_limiter_peek(limiter, subject, 1, 1, NOW_MS, &verdict));
    NO_HANDLE(limiter, kt_limiter_refund(limiter, subject, 1, &CHARGE, NOW_MS, &verdict));
    NO_HANDLE(limiter, kt_limiter_settle(limiter, subject, 1, &CHARGE, 1, NOW_MS, &verdict));
    NO_HANDLE(limiter, kt_limiter_settle_all(limiter, subject, 1, &CHARGE, &settlement, NOW_MS,
                                             &verdict));
    NO_HANDLE(limiter, kt_limiter_reset(limiter, subject, 1, NOW_MS, &verdict));
    NO_HANDLE(limiter, kt_limiter_use_system_clock(limiter));
    NO_HANDLE(limiter, kt_limiter_correct_clock(limiter, NOW_MS, &live));
    NO_HANDLE(limiter, kt_limiter_capacity(limiter, &capacity));
    NO_HANDLE(limiter, kt_limiter_live_subjects(limiter, NOW_MS, &live));
    NO_HANDLE(limiter, kt_limiter_slots_total(limiter, &live));
    NO_HANDLE(limiter, kt_limiter_refusals(limiter, &live));
    NO_HANDLE(limiter, kt_limiter_on_full(limiter, &on_full));
    NO_HANDLE(limiter, kt_limiter_set_on_full(limiter, KT_ON_FULL_SHARE));
    NO_HANDLE(limiter, kt_limiter_policy(limiter, text, sizeof text, &written));
    kt_limiter_close(NULL);
    kt_limiter_close(none);
    kt_limiter_close(OFF(none));

    NULL_AT(kt_limiter_check(real, NULL, 1, 1, NOW_MS, &verdict));
    NULL_AT(kt_limiter_check(real, subject, 1, 1, NOW_MS, NULL));
    EXPECT(kt_limiter_check(real, subject, 1, 1, NOW_MS, OFF(&verdict)), KT_MISALIGNED);
    EXPECT(kt_limiter_check(real, subject, SIZE_MAX, 1, NOW_MS, &verdict), KT_BAD_LENGTH);
    EXPECT(kt_limiter_check(real, subject, SIZE_MAX / 2 + 1, 1, NOW_MS, &verdict), KT_BAD_LENGTH);
    NULL_AT(kt_limiter_correct_clock(real, NOW_MS, NULL));
    NULL_AT(kt_limiter_refund(real, subject, 1, NULL, NOW_MS, &verdict));
    EXPECT(kt_limiter_refund(real, subject, 1, OFF(&CHARGE), NOW_MS, &verdict), KT_MISALIGNED);
    EXPECT(kt_limiter_refund(real, subject, 1, &NO_CHARGE, NOW_MS, &verdict), KT_NOT_A_CHARGE);
    EXPECT(kt_limiter_settle(real, subject, 1, &NO_CHARGE, 1, NOW_MS, &verdict), KT_NOT_A_CHARGE);
    NULL_AT(kt_limiter_settle_all(real, subject, 1, &CHARGE, NULL, NOW_MS, &verdict));
    NULL_AT(kt_limiter_settle_all(real, subject, 1, &CHARGE, &settlement, NOW_MS, NULL));
    settlement.reserved_[0] = 1;
    EXPECT(kt_limiter_settle_all(real, subject, 1, &CHARGE, &settlement, NOW_MS, &verdict),
           KT_UNKNOWN_MEMBER);
    NULL_AT(kt_limiter_policy(real, NULL, 8, &written));
    NULL_AT(kt_limiter_policy(real, text, sizeof text, NULL));
    EXPECT(kt_limiter_policy(real, NULL, 0, &written), KT_BUFFER_TOO_SMALL);

    /* Nothing was charged by any of these. */
    OK(kt_limiter_peek(real, subject, 1, 1, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 5);

    /* A copy is not a handle. The original still is. */
    moved = own;
    EXPECT(kt_limiter_check(&moved, subject, 1, 1, NOW_MS, &verdict), KT_NOT_A_HANDLE);
    kt_limiter_close(&moved);
    OK(kt_limiter_check(real, subject, 1, 1, NOW_MS, &verdict));
    /* A limiter is not a gate. */
    EXPECT(kt_gate_check((kt_gate *)(void *)real, NULL, 0, 1, NOW_MS, &verdict), KT_NOT_A_HANDLE);

    NULL_AT(kt_limiter_init(NULL, sizeof memory, KT_TEXT("5/minute"), 8, SEED, &moved));
    EXPECT(kt_limiter_init(OFF(memory), sizeof memory, KT_TEXT("5/minute"), 8, SEED, &moved),
           KT_MISALIGNED);
    EXPECT(kt_limiter_init(memory + 8, sizeof memory, KT_TEXT("5/minute"), 8, SEED, &moved),
           KT_MISALIGNED);
    EXPECT(kt_limiter_init(memory, SIZE_MAX, KT_TEXT("5/minute"), 8, SEED, &moved), KT_BAD_LENGTH);
    NULL_AT(kt_limiter_init(memory, sizeof memory, NULL, 8, 8, SEED, &moved));
    NULL_AT(kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 8, NULL, &moved));
    NULL_AT(kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 8, SEED, NULL));
    EXPECT(kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 8, SEED,
                           (kt_limiter *)(void *)memory),
           KT_OVERLAP);
    EXPECT(kt_limiter_init(memory, sizeof memory - 64, KT_TEXT("5/minute"), 8, SEED, &moved),
           KT_MEMORY_TOO_SMALL);
    EXPECT(kt_limiter_init(memory, 0, KT_TEXT("5/minute"), 8, SEED, &moved), KT_MEMORY_TOO_SMALL);
    EXPECT(kt_limiter_init(memory, sizeof memory, NULL, 0, 8, SEED, &moved), KT_POLICY_EMPTY);
    EXPECT(kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 0, SEED, &moved),
           KT_CAPACITY);
    EXPECT(kt_limiter_attach(memory, 0, &moved), KT_TRUNCATED);
    EXPECT(kt_limiter_attach(memory, sizeof memory, (kt_limiter *)(void *)memory), KT_OVERLAP);
    NULL_AT(kt_limiter_attach(memory, sizeof memory, NULL));

    /* None of these changed the table. */
    OK(kt_limiter_peek(real, subject, 1, 1, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 4);
    kt_limiter_close(real);
}

/** Tests a gate. `none` is memory that is not a handle. */
static void gate_calls_reject_invalid_pointers(void *none) {
    static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(8)], spare[KT_GATE_SIZE(8)];
    kt_gate own, other, *real = &own, *gate = real;
    kt_verdict verdict;
    kt_key key;
    kt_key_info info;
    kt_plan_info plan;
    uint64_t id;
    uint32_t capacity;
    char text[KT_POLICY_SIZE];
    size_t written;
    OK(kt_gate_init(memory, sizeof memory, &CONFIG, PEPPERS, 1, real));
    OK(kt_gate_issue(real, &NEW_KEY, ENTROPY, NOW_MS, &key, &id));
    const uint8_t *api_key = bytes(key.text);
    size_t len = strlen(key.text);

    NO_HANDLE(gate, kt_gate_check(gate, api_key, len, 1, NOW_MS, &verdict));
    NO_HANDLE(gate, kt_gate_peek(gate, api_key, len, 1, NOW_MS, &verdict));
    NO_HANDLE(gate, kt_gate_refund(gate, id, &CHARGE, NOW_MS, &verdict));
    NO_HANDLE(gate, kt_gate_settle(gate, id, &CHARGE, 1, NOW_MS, &verdict));
    NO_HANDLE(gate, kt_gate_reset(gate, id, NOW_MS, &verdict));
    NO_HANDLE(gate, kt_gate_use_system_clock(gate));
    NO_HANDLE(gate, kt_gate_correct_clock(gate, NOW_MS, &id));
    NO_HANDLE(gate, kt_gate_issue(gate, &NEW_KEY, ENTROPY, NOW_MS, &key, &id));
    NO_HANDLE(gate, kt_gate_import(gate, api_key, len, &NEW_KEY, NOW_MS, &id));
    NO_HANDLE(gate, kt_gate_rotate(gate, id, 0, 0, ENTROPY, NOW_MS, &key));
    NO_HANDLE(gate, kt_gate_revoke(gate, id));
    NO_HANDLE(gate, kt_gate_expire(gate, id, 0));
    NO_HANDLE(gate, kt_gate_end_grace(gate, id));
    NO_HANDLE(gate, kt_gate_assign(gate, id, KT_TEXT("default")));
    NO_HANDLE(gate, kt_gate_set_plan(gate, &PLAN));
    NO_HANDLE(gate, kt_gate_take_over(gate));
    NO_HANDLE(gate, kt_gate_key(gate, id, NOW_MS, &info));
    NO_HANDLE(gate, kt_gate_list(gate, NOW_MS, visit, NULL));
    NO_HANDLE(gate, kt_gate_plan(gate, 0, &plan));
    NO_HANDLE(gate, kt_gate_env(gate, 0, text, sizeof text, &written));
    NO_HANDLE(gate, kt_gate_capacity(gate, &capacity));
    kt_compound compound;
    kt_account_info account;
    kt_settlement settlement = {.size = sizeof settlement};
    NO_HANDLE(gate, kt_gate_check_request(gate, api_key, len, NULL, &compound));
    NO_HANDLE(gate, kt_gate_peek_request(gate, api_key, len, NULL, &compound));
    NO_HANDLE(gate, kt_gate_settle_all(gate, id, &CHARGE, &settlement, NOW_MS, &verdict, NULL,
                                       NULL));
    EXPECT(kt_gate_settle_all(real, id, &CHARGE, &settlement, NOW_MS, &verdict, NULL,
                              OFF(&compound)),
           KT_MISALIGNED);
    NO_HANDLE(gate, kt_gate_set_scopes(gate, id, NULL, 0));
    NO_HANDLE(gate, kt_gate_scope(gate, 0, text, sizeof text, &written));
    NO_HANDLE(gate, kt_gate_described(gate, text, sizeof text, &written));
    NO_HANDLE(gate, kt_gate_section(gate, 0, text, sizeof text, &written));
    NO_HANDLE(gate, kt_gate_team_capacity(gate, &capacity));
    NO_HANDLE(gate, kt_gate_is_extended(gate, &capacity));
    NULL_AT(kt_gate_is_extended(real, NULL));
    OK(kt_gate_is_extended(real, &capacity));
    CHECK(capacity == 0);
    NO_HANDLE(gate, kt_gate_account(gate, 42, NOW_MS, &account));
    NO_HANDLE(gate, kt_gate_accounts(gate, NOW_MS, visit_account, NULL));
    NO_HANDLE(gate, kt_gate_set_suspended(gate, 42, 1));
    NO_HANDLE(gate, kt_gate_assign_account(gate, 42, KT_TEXT("default")));
    NO_HANDLE(gate, kt_gate_limit_account(gate, 42, KT_TEXT("5/minute")));
    NO_HANDLE(gate, kt_gate_reset_account(gate, 42, NOW_MS));
    NULL_AT(kt_gate_check_request(real, api_key, len, NULL, NULL));
    EXPECT(kt_gate_check_request(real, api_key, len, OFF(&settlement), &compound), KT_MISALIGNED);
    kt_request request = {.size = sizeof request, .now_ms = NOW_MS, .groups_len = 1};
    NULL_AT(kt_gate_check_request(real, api_key, len, &request, &compound));
    request = (kt_request){.size = sizeof request, .now_ms = NOW_MS, .need_len = SIZE_MAX / 8};
    request.need = (kt_name *)(void *)&settlement;
    EXPECT(kt_gate_check_request(real, api_key, len, &request, &compound), KT_BAD_LENGTH);
    const kt_group no_name = {NULL, 1, 0, 0};
    request = (kt_request){.size = sizeof request, .now_ms = NOW_MS, .groups = &no_name,
                           .groups_len = 1};
    NULL_AT(kt_gate_check_request(real, api_key, len, &request, &compound));
    NULL_AT(kt_gate_settle_all(real, id, NULL, &settlement, NOW_MS, &verdict, NULL, NULL));
    NULL_AT(kt_gate_settle_all(real, id, &CHARGE, NULL, NOW_MS, &verdict, NULL, NULL));
    NULL_AT(kt_gate_settle_all(real, id, &CHARGE, &settlement, NOW_MS, NULL, NULL, NULL));
    const kt_group write = {KT_TEXT("write"), 0, 0};
    settlement.groups = &write;
    settlement.groups_len = 1;
    NULL_AT(kt_gate_settle_all(real, id, &CHARGE, &settlement, NOW_MS, &verdict, NULL, NULL));
    NULL_AT(kt_gate_set_scopes(real, id, NULL, 1));
    NULL_AT(kt_gate_accounts(real, NOW_MS, NULL, NULL));
    NULL_AT(kt_gate_account(real, 42, NOW_MS, NULL));
    NULL_AT(kt_gate_team_capacity(real, NULL));
    NULL_AT(kt_gate_config_size(&CONFIG, NULL));
    NULL_AT(kt_account_info_quota(NULL, 0, NULL));
    /* A plain gate has neither teams, groups nor scopes. */
    const kt_name read = {KT_TEXT("read")};
    EXPECT(kt_gate_set_scopes(real, id, &read, 1), KT_NO_SUCH_SCOPE);
    EXPECT(kt_gate_set_suspended(real, 42, 1), KT_NO_SUCH_ACCOUNT);
    EXPECT(kt_gate_limit_account(real, 42, KT_TEXT("5/minute")), KT_PLAN_WINDOWS);
    OK(kt_gate_accounts(real, NOW_MS, visit_account, NULL));
    NO_HANDLE(gate, kt_gate_verify(gate, NOW_MS, report, NULL));
    uint32_t number;
    uint64_t reopened;
    kt_key_usage usage;
    NO_HANDLE(gate, kt_gate_set_usage(gate, 1));
    NO_HANDLE(gate, kt_gate_key_usage(gate, id, &usage));
    NULL_AT(kt_gate_key_usage(real, id, NULL));
    EXPECT(kt_gate_key_usage(real, id, OFF(&usage)), KT_MISALIGNED);
    EXPECT(kt_gate_key_usage(real, 0, &usage), KT_KEY_ID_FORM);
    EXPECT(kt_gate_set_usage(real, 1), KT_NOT_A_FILE);
    EXPECT(kt_gate_key_usage(real, id, &usage), KT_NOT_A_FILE);
    NO_HANDLE(gate, kt_gate_set_wait(gate, 1));
    NO_HANDLE(gate, kt_gate_administrator(gate, &number));
    NO_HANDLE(gate, kt_gate_watch(gate));
    NO_HANDLE(gate, kt_gate_reopen_if_replaced(gate));
    NO_HANDLE(gate, kt_gate_reopen(gate));
    NO_HANDLE(gate, kt_gate_reopen_status(gate, &reopened, &number));
    NULL_AT(kt_gate_administrator(real, NULL));
    NULL_AT(kt_gate_reopen_status(real, NULL, &number));
    NULL_AT(kt_gate_reopen_status(real, &reopened, NULL));
    EXPECT(kt_gate_set_wait(real, 1), KT_NOT_A_FILE);
    EXPECT(kt_gate_watch(real), KT_NOT_A_FILE);
    EXPECT(kt_gate_reopen(real), KT_NOT_A_FILE);
    kt_gate_close(NULL);
    kt_gate_close(none);
    kt_gate_close(OFF(none));

    NULL_AT(kt_gate_check(real, api_key, len, 1, NOW_MS, NULL));
    EXPECT(kt_gate_check(real, api_key, SIZE_MAX, 1, NOW_MS, &verdict), KT_BAD_LENGTH);
    NULL_AT(kt_gate_refund(real, id, NULL, NOW_MS, &verdict));
    NULL_AT(kt_gate_settle(real, id, NULL, 1, NOW_MS, &verdict));
    EXPECT(kt_gate_refund(real, id, &NO_CHARGE, NOW_MS, &verdict), KT_NOT_A_CHARGE);
    EXPECT(kt_gate_settle(real, id, &NO_CHARGE, 1, NOW_MS, &verdict), KT_NOT_A_CHARGE);
    NULL_AT(kt_gate_reset(real, id, NOW_MS, NULL));
    NULL_AT(kt_gate_correct_clock(real, NOW_MS, NULL));
    NULL_AT(kt_gate_issue(real, NULL, ENTROPY, NOW_MS, &key, &id));
    NULL_AT(kt_gate_issue(real, &NEW_KEY, NULL, NOW_MS, &key, &id));
    NULL_AT(kt_gate_issue(real, &NEW_KEY, ENTROPY, NOW_MS, NULL, &id));
    NULL_AT(kt_gate_issue(real, &NEW_KEY, ENTROPY, NOW_MS, &key, NULL));
    NULL_AT(kt_gate_import(real, NULL, 20, &NEW_KEY, NOW_MS, &id));
    NULL_AT(kt_gate_import(real, bytes("0123456789abcdef"), 16, NULL, NOW_MS, &id));
    NULL_AT(kt_gate_import(real, bytes("0123456789abcdef"), 16, &NEW_KEY, NOW_MS, NULL));
    NULL_AT(kt_gate_rotate(real, id, 0, 0, NULL, NOW_MS, &key));
    NULL_AT(kt_gate_rotate(real, id, 0, 0, ENTROPY, NOW_MS, NULL));
    NULL_AT(kt_gate_assign(real, id, NULL, 7));
    NULL_AT(kt_gate_set_plan(real, NULL));
    NULL_AT(kt_gate_key(real, id, NOW_MS, NULL));
    NULL_AT(kt_gate_list(real, NOW_MS, NULL, NULL));
    NULL_AT(kt_gate_plan(real, 0, NULL));
    NULL_AT(kt_gate_env(real, 0, NULL, 9, &written));
    NULL_AT(kt_gate_env(real, 0, text, sizeof text, NULL));
    NULL_AT(kt_gate_capacity(real, NULL));
    NULL_AT(kt_gate_verify(real, NOW_MS, NULL, NULL));

    /* None of these issued, changed or charged a key. The first is still valid. */
    OK(kt_gate_check(real, api_key, len, 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 0).remaining == 4);
    OK(kt_gate_list(real, NOW_MS, visit, NULL));

    kt_gate_config no_plans = CONFIG, no_prefix = CONFIG;
    no_plans.plans = NULL;
    no_prefix.prefix = NULL;
    kt_bytes no_pepper[] = {{NULL, 32}};
    NULL_AT(kt_gate_init(NULL, sizeof spare, &CONFIG, PEPPERS, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, NULL, PEPPERS, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, &no_plans, PEPPERS, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, &no_prefix, PEPPERS, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, &CONFIG, NULL, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, &CONFIG, no_pepper, 1, &other));
    NULL_AT(kt_gate_init(spare, sizeof spare, &CONFIG, PEPPERS, 1, NULL));
    EXPECT(kt_gate_init(spare, sizeof spare, &CONFIG, PEPPERS, 1, OFF(&other)), KT_MISALIGNED);
    EXPECT(kt_gate_init(spare, sizeof spare, &CONFIG, PEPPERS, 1, (kt_gate *)(void *)(spare + 64)),
           KT_OVERLAP);
    NULL_AT(kt_gate_attach(memory, sizeof memory, NULL, 1, &other));
    EXPECT(kt_gate_attach(memory, sizeof memory - 64, PEPPERS, 1, &other), KT_TRUNCATED);
    kt_gate_close(real);

    kt_gate *opened = NULL;
    NULL_AT(kt_gate_open(NULL, KT_TEXT("x"), &opened));
    NULL_AT(kt_gate_open("x", NULL, 64, &opened));
    NULL_AT(kt_gate_open("x", KT_TEXT("x"), NULL));
    NULL_AT(kt_gate_create(NULL, KT_TEXT("x"), &CONFIG, &opened));
    NULL_AT(kt_gate_create("x", KT_TEXT("x"), NULL, &opened));
    NULL_AT(kt_gate_open_with_pepper_file("x", NULL, &opened));
    NULL_AT(kt_limiter_open(NULL, (kt_limiter **)(void *)&opened));
    NULL_AT(kt_limiter_open("x", NULL));
    NULL_AT(kt_limiter_create("x", NULL, 8, 8, (kt_limiter **)(void *)&opened));
    NULL_AT(kt_entropy(NULL));
    NULL_AT(kt_pepper_generate(NULL, 65));
    CHECK(opened == NULL);
}

static void parts_that_are_not_valid_are_statuses(void *none) {
    size_t size = kt_limiter_size(8);
    void *memory = table_memory(size);
    kt_limiter limiter;
    OK(kt_limiter_init(memory, size, KT_TEXT("5/minute"), 8, SEED, &limiter));
    const kt_part right = {.limiter = &limiter, .text = bytes("a"), .text_len = 1, .cost = 1};
    kt_part parts[9] = {right, right, right, right, right, right, right, right, right};
    kt_compound compound;
    memset(&compound, 0xa5, sizeof compound);

    EXPECT(kt_check_all(parts, 0, NOW_MS, &compound), KT_PART_COUNT);
    EXPECT(kt_check_all(parts, 9, NOW_MS, &compound), KT_PART_COUNT);
    NULL_AT(kt_check_all(NULL, 1, NOW_MS, &compound));
    NULL_AT(kt_check_all(parts, 1, NOW_MS, NULL));
    EXPECT(kt_check_all(parts, 1, NOW_MS, OFF(&compound)), KT_MISALIGNED);
    EXPECT(kt_peek_all(parts, 0, NOW_MS, &compound), KT_PART_COUNT);
    parts[1].limiter = NULL;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_PART_TABLE);
    parts[1].limiter = none;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_NOT_A_HANDLE);
    parts[1] = right;
    parts[1].gate = (kt_gate *)none;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_PART_TABLE);
    parts[1] = right;
    parts[1].text = NULL;
    NULL_AT(kt_check_all(parts, 2, NOW_MS, &compound));
    parts[1] = right;
    parts[1].patience = (kt_patience)3;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_UNKNOWN_MEMBER);
    parts[1] = right;
    parts[1].groups_len = 1;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_NO_SUCH_GROUP);
    parts[1] = right;
    parts[1].need_len = 1;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_NO_SUCH_SCOPE);
    CHECK(compound.key_id == 0xa5a5a5a5a5a5a5a5);

    /* Nothing was charged by any of these. */
    kt_verdict verdict;
    OK(kt_limiter_peek(&limiter, bytes("a"), 1, 1, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 5);
    kt_limiter_close(&limiter);
    free(memory);
}

static void charge_calls_reject_invalid_pointers_and_structs(void) {
    kt_verdict verdict;
    kt_charge charge = NO_CHARGE;
    uint32_t cost = 77;
    uint64_t at_ms = 78;
    OK(kt_verdict_duplicate_header(NOW_MS, &verdict));
    NULL_AT(kt_charge_new(1, NOW_MS, NULL));
    NULL_AT(kt_charge_cost(NULL, &cost));
    NULL_AT(kt_charge_cost(&CHARGE, NULL));
    NULL_AT(kt_charge_at_ms(NULL, &at_ms));
    NULL_AT(kt_charge_at_ms(&CHARGE, NULL));
    NULL_AT(kt_verdict_charge(NULL, &charge));
    NULL_AT(kt_verdict_charge(&verdict, NULL));
    EXPECT(kt_charge_new(1, NOW_MS, OFF(&charge)), KT_MISALIGNED);
    EXPECT(kt_charge_cost(OFF(&CHARGE), &cost), KT_MISALIGNED);
    EXPECT(kt_charge_at_ms(&CHARGE, OFF(&at_ms)), KT_MISALIGNED);
    EXPECT(kt_verdict_charge(OFF(&verdict), &charge), KT_MISALIGNED);
    EXPECT(kt_charge_cost(&NO_CHARGE, &cost), KT_NOT_A_CHARGE);
    EXPECT(kt_charge_at_ms(&NO_CHARGE, &at_ms), KT_NOT_A_CHARGE);
    verdict.outcome = (kt_outcome)8;
    EXPECT(kt_verdict_charge(&verdict, &charge), KT_NOT_A_VERDICT);
    CHECK(cost == 77 && at_ms == 78 && memcmp(&charge, &NO_CHARGE, sizeof charge) == 0);
    verdict.outcome = KT_INVALID_KEY;
    OK(kt_verdict_charge(&verdict, &charge));
    OK(kt_charge_cost(&charge, &cost));
    CHECK(cost == 0);
}

/** A verdict that the caller changed is a status, and numbers at their ends fit the buffers. */
static void verdict_that_the_caller_changed_is_a_status(void) {
    char buffer[KT_HEADERS_SIZE];
    size_t written = 77;
    kt_verdict verdict;
    kt_quota quota;
    OK(kt_verdict_duplicate_header(NOW_MS, &verdict));
    NULL_AT(kt_verdict_duplicate_header(NOW_MS, NULL));
    NULL_AT(kt_verdict_quota(NULL, 0, &quota));
    NULL_AT(kt_verdict_quota(&verdict, 0, NULL));
    EXPECT(kt_verdict_quota(OFF(&verdict), 0, &quota), KT_MISALIGNED);
    EXPECT(kt_verdict_quota(&verdict, 0, &quota), KT_NO_SUCH_QUOTA);
    NULL_AT(kt_verdict_headers(NULL, buffer, sizeof buffer, &written));
    NULL_AT(kt_verdict_headers(&verdict, NULL, sizeof buffer, &written));
    NULL_AT(kt_verdict_headers(&verdict, buffer, sizeof buffer, NULL));
    kt_field fields[KT_MAX_FIELDS];
    NULL_AT(kt_verdict_fields(NULL, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &written));
    NULL_AT(kt_verdict_fields(&verdict, NULL, sizeof buffer, fields, KT_MAX_FIELDS, &written));
    NULL_AT(kt_verdict_fields(&verdict, buffer, sizeof buffer, NULL, KT_MAX_FIELDS, &written));
    NULL_AT(kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, NULL));
    EXPECT(kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, SIZE_MAX, &written),
           KT_BAD_LENGTH);
    NULL_AT(kt_verdict_problem(NULL, buffer, sizeof buffer, &written));
    CHECK(strcmp(kt_verdict_body(NULL), "") == 0);
    EXPECT(kt_verdict_headers(&verdict, buffer, 4, &written), KT_BUFFER_TOO_SMALL);
    EXPECT(kt_verdict_headers(&verdict, NULL, 0, &written), KT_BUFFER_TOO_SMALL);
    verdict.outcome = (kt_outcome)8;
    EXPECT(kt_verdict_headers(&verdict, buffer, sizeof buffer, &written), KT_NOT_A_VERDICT);
    EXPECT(kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &written),
           KT_NOT_A_VERDICT);
    CHECK(strcmp(kt_verdict_body(&verdict), "") == 0);
    verdict.outcome = KT_DENIED;
    verdict.reason = (kt_reason)11;
    EXPECT(kt_verdict_headers(&verdict, buffer, sizeof buffer, &written), KT_NOT_A_VERDICT);
    verdict.reason = KT_REASON_NONE;
    /* No invalid key has a time to try again, so there are at most KT_MAX_FIELDS fields. */
    verdict.outcome = KT_INVALID_KEY;
    verdict.retry_after_s = 1;
    EXPECT(kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &written),
           KT_NOT_A_VERDICT);
    verdict.outcome = KT_DENIED;
    verdict.quota_count = KT_MAX_QUOTAS + 1;
    EXPECT(kt_verdict_problem(&verdict, buffer, sizeof buffer, &written), KT_NOT_A_VERDICT);
    EXPECT(kt_verdict_quota(&verdict, 200, &quota), KT_NO_SUCH_QUOTA);
    verdict.quota_count = UINT8_MAX;
    EXPECT(kt_verdict_quota(&verdict, 200, &quota), KT_NOT_A_VERDICT);
    verdict.quota_count = 1; /* A window of 0 seconds. */
    EXPECT(kt_verdict_headers(&verdict, buffer, sizeof buffer, &written), KT_NOT_A_VERDICT);
    EXPECT(kt_verdict_quota(&verdict, 0, &quota), KT_NOT_A_VERDICT);
    CHECK(written == 77);

    memset(&verdict, 0xff, sizeof verdict);
    EXPECT(kt_verdict_quota(&verdict, 0, &quota), KT_NOT_A_VERDICT);
    verdict.outcome = KT_DENIED;
    verdict.reason = KT_REASON_NONE;
    verdict.quota_count = KT_MAX_QUOTAS;
    EXPECT(kt_verdict_headers(&verdict, buffer, sizeof buffer, &written), KT_NOT_A_VERDICT);
    /* The third word of each quota is its window. */
    for (int index = 0; index < KT_MAX_QUOTAS; index++) verdict.private_[4 * index + 2] = 2678399;
    OK(kt_verdict_quota(&verdict, KT_MAX_QUOTAS - 1, &quota));
    CHECK(quota.window_s == 2678399 && quota.limit == UINT32_MAX &&
          quota.reset_unix_s > UINT64_MAX / 1000);
    OK(kt_verdict_headers(&verdict, buffer, sizeof buffer, &written));
    CHECK(written == strlen(buffer) && written < KT_HEADERS_SIZE);
    OK(kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &written));
    CHECK(written == KT_MAX_FIELDS &&
          fields[5].value + fields[5].value_len < buffer + sizeof buffer);
    CHECK(strcmp(fields[5].name, "Retry-After") == 0 && strcmp(fields[5].value, "4294967295") == 0);
    OK(kt_verdict_problem(&verdict, buffer, KT_PROBLEM_SIZE, &written));
}

int main(void) {
    _Alignas(KT_HANDLE_ALIGN) static unsigned char zeros[KT_GATE_HANDLE_SIZE + 8],
        garbage[KT_GATE_HANDLE_SIZE + 8];
    memset(garbage, 0xa5, sizeof garbage);
    CHARGE = charge_at(1, NOW_MS);
    limiter_calls_reject_invalid_pointers(zeros);
    limiter_calls_reject_invalid_pointers(garbage);
    gate_calls_reject_invalid_pointers(zeros);
    gate_calls_reject_invalid_pointers(garbage);
    parts_that_are_not_valid_are_statuses(zeros);
    parts_that_are_not_valid_are_statuses(garbage);
    charge_calls_reject_invalid_pointers_and_structs();
    verdict_that_the_caller_changed_is_a_status();
    return 0;
}
