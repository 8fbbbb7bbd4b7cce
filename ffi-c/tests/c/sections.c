/* Plans with sections: teams, groups, scopes and warnings. Requests that charge several tallies. */
#include "check.h"

#include <stdbool.h>
#include <stddef.h>

static const uint8_t PEPPER[32] = {7};
static const kt_bytes PEPPERS[] = {{PEPPER, sizeof PEPPER}};
static const kt_plan PLANS[] = {
    {KT_TEXT("default"), KT_TEXT("100/minute, 1000/month@17; team: 150/minute; "
                                 "group write: 10/minute warn 50% 80%; group tokens: 5000/hour")},
    {KT_TEXT("pro"), KT_TEXT("200/minute, 2000/month@17; team: 300/minute; "
                             "group write: 10/minute; group tokens: unlimited")},
};
static const kt_name SCOPES[] = {{KT_TEXT("read")}, {KT_TEXT("write")}};
static const kt_gate_config CONFIG = {
    sizeof(kt_gate_config), 32, PLANS, 2, KT_TEXT("kt"), 2, 0, SCOPES, 2, NULL, 0};
static const kt_group WRITE = {KT_TEXT("write"), 0, 0}, TOKENS = {KT_TEXT("tokens"), 2500, 1};

/** Compares two texts. Prints them if they differ. */
static bool equal(const char *found, const char *wanted) {
    if (strcmp(found, wanted) != 0) fprintf(stderr, "found \"%s\", not \"%s\"\n", found, wanted);
    return strcmp(found, wanted) == 0;
}

/** Issues a key of an account. Each key needs another number. */
static kt_status issue(kt_gate *gate, uint32_t account, uint8_t number, kt_key *key,
                       uint64_t *key_id) {
    const uint8_t entropy[KT_ENTROPY_SIZE] = {number, number, number, 1, 2, 3, 4, number};
    const kt_new_key new_key = {
        sizeof new_key, account, KT_TEXT("live"), NULL, 0, 0, 0, SCOPES, 1};
    return kt_gate_issue(gate, &new_key, entropy, NOW_MS, key, key_id);
}

/** Charges a request, and returns the result. */
static kt_compound check(kt_gate *gate, const kt_key *key, uint32_t cost, const kt_group *groups,
                         size_t groups_len) {
    const kt_request request = {sizeof request, cost, NOW_MS, groups, groups_len, NULL, 0, 0, 0};
    kt_compound compound;
    OK(kt_gate_check_request(gate, bytes(key->text), strlen(key->text), &request, &compound));
    return compound;
}

/** Units left in the shortest window of a tally. */
static uint32_t left(const kt_compound *compound, size_t tally) {
    CHECK(tally < compound->tally_count);
    return quota(&compound->tallies[tally].verdict, 0).remaining;
}

static void texts_of_sections_are_parsed_and_explained(void) {
    char buffer[KT_SECTIONS_SIZE];
    size_t written;
    OK(kt_sections_parse(KT_TEXT("100/m;team:5000/h ; group a: 1/s"), buffer, sizeof buffer,
                         &written));
    CHECK(equal(buffer, "100/minute; team: 5000/hour; group a: 1/second") &&
          written == strlen(buffer));
    static const struct {
        const char *text;
        kt_status status;
    } WRONG[] = {
        {"1/s; 5/m", KT_POLICY_SECTION},
        {"1/s; team: 1/m; team: 1/m", KT_POLICY_SECTION_TWICE},
        {"1/s; group a: 1/s; group b: 1/s; group c: 1/s; group d: 1/s; group e: 1/s; "
         "group f: 1/s; group g: 1/s; group h: 1/s",
         KT_POLICY_TOO_MANY_TALLIES},
        {"1/s; team: 1/s, 2/2s, 3/3s, 4/4s, 5/5s, 6/6s, 7/7s, 8/8s, 9/9s",
         KT_POLICY_TOO_MANY_TEAM_TALLIES},
        {"1/s warn 101%", KT_POLICY_WARNING},
        {"1/s; team:", KT_POLICY_EMPTY},
        {"1/s; team: 1/fortnight", KT_POLICY_UNIT},
    };
    for (size_t at = 0; at < sizeof WRONG / sizeof *WRONG; at++) {
        const char *text = WRONG[at].text;
        EXPECT(kt_sections_parse(text, strlen(text), buffer, sizeof buffer, &written),
               WRONG[at].status);
        OK(kt_sections_explain(text, strlen(text), buffer, KT_POLICY_SIZE, &written));
        CHECK(written > 20 && written == strlen(buffer));
    }
    char spaces[513];
    memset(spaces, ' ', sizeof spaces);
    EXPECT(kt_sections_parse(spaces, sizeof spaces, buffer, sizeof buffer, &written),
           KT_POLICY_TOO_LONG);
    OK(kt_sections_explain(KT_TEXT("1/s; team: unlimited"), buffer, sizeof buffer, &written));
    CHECK(equal(buffer, ""));
    /* A policy is the section of the key alone. */
    EXPECT(kt_policy_parse(KT_TEXT("1/s; team: 1/m"), buffer, sizeof buffer, &written),
           KT_POLICY_SYNTAX);
}

static void request_charges_all_tallies_or_none(kt_gate *gate) {
    kt_key ann, bob;
    uint64_t ann_id, bob_id;
    OK(issue(gate, 42, 1, &ann, &ann_id));
    OK(issue(gate, 42, 2, &bob, &bob_id));
    kt_verdict verdict;

    /* Without a request: one unit of the key and its team. */
    kt_compound compound;
    OK(kt_gate_peek_request(gate, bytes(ann.text), strlen(ann.text), NULL, &compound));
    CHECK(compound.outcome == KT_ADMITTED && left(&compound, 0) == 100);
    compound = check(gate, &ann, 1, NULL, 0);
    CHECK(compound.outcome == KT_ADMITTED && compound.http_status == 200);
    CHECK(compound.key_id == ann_id && compound.account == 42 && compound.reason == 0);
    CHECK(compound.tally_count == 2 && left(&compound, 0) == 99 && left(&compound, 1) == 149);
    CHECK(equal(compound.tallies[0].section, "key") && equal(compound.tallies[1].section, "team"));
    CHECK(compound.remaining == 99);

    const kt_group groups[] = {WRITE, TOKENS};
    compound = check(gate, &ann, 4, groups, 2);
    CHECK(compound.outcome == KT_ADMITTED && compound.tally_count == 4);
    CHECK(left(&compound, 0) == 95 && left(&compound, 1) == 145 && left(&compound, 2) == 6);
    CHECK(left(&compound, 3) == 2500 && equal(compound.tallies[3].section, "tokens"));
    CHECK(compound.tallies[2].verdict.cost == 4 && compound.tallies[3].verdict.cost == 2500);

    char text[KT_COMPOUND_HEADERS_SIZE];
    size_t written;
    OK(kt_compound_headers(&compound, text, sizeof text, &written));
    CHECK(written == strlen(text));
    CHECK(strstr(text, "X-RateLimit-Limit: 100\r\n") != NULL);
    CHECK(strstr(text, "RateLimit-Policy: \"minute\";q=100;w=60, \"month\"") != NULL);
    CHECK(strstr(text, "\"team-minute\";q=150;w=60") != NULL);
    CHECK(strstr(text, "\"write-minute\";q=10;w=60, \"tokens-hour\";q=5000;w=3600\r\n") != NULL);
    EXPECT(kt_compound_headers(&compound, text, written, &written), KT_BUFFER_TOO_SMALL);

    /* One by one, in a buffer of the named size and in one that is just large enough. */
    char lines[KT_COMPOUND_HEADERS_SIZE] = "", values[KT_COMPOUND_HEADERS_SIZE];
    for (int turn = 0; turn < 2; turn++) {
        kt_field fields[KT_MAX_FIELDS];
        size_t count, len = 0;
        OK(kt_compound_fields(&compound, values, turn == 0 ? sizeof values : written, fields,
                              turn == 0 ? KT_MAX_FIELDS : 5, &count));
        for (size_t at = 0; at < count; at++)
            len += (size_t)snprintf(lines + len, sizeof lines - len, "%s: %s\r\n", fields[at].name,
                                    fields[at].value);
        CHECK(equal(lines, text));
    }

    /* The team has room for both keys together; the group for each. */
    compound = check(gate, &bob, 7, &WRITE, 1);
    CHECK(compound.outcome == KT_ADMITTED && left(&compound, 1) == 138 && left(&compound, 2) == 3);
    compound = check(gate, &ann, 7, &WRITE, 1);
    CHECK(compound.outcome == KT_DENIED && compound.http_status == 429);
    CHECK(compound.decisive_index == 2 && left(&compound, 0) == 95 && left(&compound, 1) == 138);
    CHECK(compound.tallies[0].verdict.outcome == KT_ADMITTED && compound.retry_after_s == 60);
    CHECK(quota(&compound.tallies[2].verdict, 0).lacking == 1);
    CHECK(equal(kt_compound_body(&compound),
                "{\"error\": \"Rate limit exceeded. Please try again later.\"}"));
    char problem[KT_COMPOUND_PROBLEM_SIZE];
    OK(kt_compound_problem(&compound, problem, sizeof problem, &written));
    CHECK(strstr(problem, "[\"write-minute\"]") != NULL);

    /* The verdict of a check without a request is the one that decided, and has no charge. */
    OK(kt_gate_check(gate, bytes(ann.text), strlen(ann.text), 1, NOW_MS, &verdict));
    CHECK(verdict.outcome == KT_ADMITTED && quota(&verdict, 0).remaining == 94);
    CHECK(verdict.charged == 0);
    kt_charge charge;
    EXPECT(kt_verdict_charge(&verdict, &charge), KT_NOT_A_CHARGE);
    OK(kt_gate_check(gate, bytes(ann.text), strlen(ann.text), 0, NOW_MS, &verdict));
    EXPECT(kt_verdict_charge(&verdict, &charge), KT_NOT_A_CHARGE);
    OK(kt_gate_check(gate, bytes(ann.text), strlen(ann.text), 101, NOW_MS, &verdict));
    OK(kt_verdict_charge(&verdict, &charge));

    /* A group may appear once; a later one replaces it. A cost of 0 reads and charges nothing. */
    const kt_group twice[] = {{KT_TEXT("write"), 9, 1}, {KT_TEXT("write"), 0, 1}};
    compound = check(gate, &ann, 0, twice, 2);
    CHECK(compound.tally_count == 3 && left(&compound, 2) == 6 && left(&compound, 0) == 94);

    const kt_group no_such = {KT_TEXT("read"), 0, 0}, no_text = {"\xff", 1, 0, 0};
    const kt_group team = {KT_TEXT("team"), 0, 0};
    const kt_group wrong[] = {no_such, no_text, team};
    for (size_t at = 0; at < 3; at++) {
        const kt_request request = {sizeof request, 1, NOW_MS, &wrong[at], 1, NULL, 0, 0, 0};
        EXPECT(kt_gate_check_request(gate, bytes(ann.text), strlen(ann.text), &request, &compound),
               KT_NO_SUCH_GROUP);
    }
    OK(kt_gate_revoke(gate, ann_id));
    compound = check(gate, &ann, 1, NULL, 0);
    CHECK(compound.outcome == KT_INVALID_KEY && compound.reason == KT_REASON_REVOKED);
    CHECK(compound.tally_count == 1 && equal(compound.tallies[0].section, ""));
    CHECK(compound.tallies[0].verdict.quota_count == 0 && compound.remaining == 0);
    OK(kt_gate_revoke(gate, bob_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
}

static void charge_is_refunded_and_settled_with_all_tallies(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    kt_verdict verdict;
    kt_charge charge;
    OK(issue(gate, 42, 3, &key, &key_id));
    const kt_group groups[] = {WRITE, TOKENS};

    kt_compound compound = check(gate, &key, 2, groups, 2);
    OK(kt_compound_charge(&compound, 0, &charge));
    OK(kt_gate_refund(gate, key_id, &charge, NOW_MS, &verdict));
    CHECK(quota(&verdict, 0).remaining == 100);
    compound = check(gate, &key, 0, groups, 1);
    CHECK(left(&compound, 0) == 100 && left(&compound, 1) == 150 && left(&compound, 2) == 10);

    /* The estimate of the tokens was 2500. The group `write` shares the request's own cost. */
    compound = check(gate, &key, 2, groups, 2);
    CHECK(left(&compound, 3) == 2500);
    OK(kt_compound_charge(&compound, 0, &charge));
    const kt_group actual[] = {{KT_TEXT("tokens"), 6000, 1}, {KT_TEXT("write"), 0, 0}};
    kt_settlement settlement = {
        .size = sizeof settlement, .cost = 20, .has_cost = 1, .groups = actual, .groups_len = 2};
    uint32_t uncharged[2] = {77, 77};
    OK(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, uncharged, NULL));
    CHECK(verdict.uncharged == 10 && uncharged[0] == 1000 && uncharged[1] == 0);
    CHECK(quota(&verdict, 0).remaining == 90);
    OK(kt_gate_reset(gate, key_id, NOW_MS, &verdict));

    /* Units above the limit are counted if the settlement overdraws. */
    compound = check(gate, &key, 1, &TOKENS, 1);
    OK(kt_compound_charge(&compound, 0, &charge));
    settlement.has_cost = 0;
    settlement.overdraw = 1;
    OK(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, uncharged, NULL));
    CHECK(verdict.uncharged == 0 && uncharged[0] == 0 && quota(&verdict, 0).remaining == 99);
    compound = check(gate, &key, 1, (kt_group[]){{KT_TEXT("tokens"), 1, 1}}, 1);
    CHECK(compound.outcome == KT_DENIED && compound.retry_after_s >= 3600);

    /* A refused request has no charge. */
    OK(kt_compound_charge(&compound, 0, &charge));
    uint32_t cost = 77;
    OK(kt_charge_cost(&charge, &cost));
    CHECK(cost == 0);
    EXPECT(kt_compound_charge(&compound, 1, &charge), KT_PART_COUNT);

    const kt_group other = {KT_TEXT("other"), 1, 1};
    settlement.groups = &other;
    settlement.groups_len = 1;
    EXPECT(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, uncharged,
                              NULL),
           KT_NO_SUCH_GROUP);
    settlement.groups_len = KT_MAX_TALLIES + 1;
    EXPECT(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, uncharged,
                              NULL),
           KT_NO_SUCH_GROUP);
    const kt_group odd = {KT_TEXT("tokens"), 1, 2};
    const kt_settlement unknown[] = {{.size = sizeof settlement, .reserved_ = {1}},
                                     {.size = sizeof settlement, .has_cost = 2},
                                     {.size = sizeof settlement, .overdraw = 7},
                                     {.size = sizeof settlement, .groups = &odd, .groups_len = 1}};
    for (size_t at = 0; at < sizeof unknown / sizeof *unknown; at++)
        EXPECT(kt_gate_settle_all(gate, key_id, &charge, &unknown[at], NOW_MS, &verdict, uncharged,
                                  NULL),
               KT_UNKNOWN_MEMBER);
    const kt_request request = {sizeof request, 1, NOW_MS, &odd, 1, NULL, 0, 0, 0};
    EXPECT(kt_gate_check_request(gate, bytes(key.text), strlen(key.text), &request, &compound),
           KT_UNKNOWN_MEMBER);
    settlement = (kt_settlement){.size = offsetof(kt_settlement, groups) - 1};
    EXPECT(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, NULL, NULL),
           KT_STRUCT_SIZE);
    settlement.size++;
    OK(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, NULL, NULL));
    EXPECT(kt_gate_settle_all(gate, 1, &charge, &settlement, NOW_MS, &verdict, NULL, NULL),
           KT_NO_SUCH_KEY);
    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
}

static void warning_is_reported_once(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    OK(issue(gate, 42, 4, &key, &key_id));
    /* Percentages of 10 units that each charge of the group reaches. */
    static const struct {
        uint32_t cost;
        uint8_t crossed[2];
    } CHARGES[] = {{4, {0, 0}}, {1, {50, 0}}, {2, {0, 0}}, {1, {80, 0}}, {1, {0, 0}}};
    for (size_t at = 0; at < sizeof CHARGES / sizeof *CHARGES; at++) {
        kt_compound compound = check(gate, &key, CHARGES[at].cost, &WRITE, 1);
        CHECK(memcmp(compound.tallies[2].crossed[0], CHARGES[at].crossed, 2) == 0);
        CHECK(compound.tallies[0].crossed[0][0] == 0 && compound.tallies[2].crossed[1][0] == 0);
    }
    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
    OK(issue(gate, 42, 5, &key, &key_id));
    kt_compound compound = check(gate, &key, 9, &WRITE, 1);
    CHECK(memcmp(compound.tallies[2].crossed[0], (uint8_t[]){50, 80}, 2) == 0);
    char name[KT_QUOTA_NAME_SIZE];
    size_t written;
    OK(kt_tally_quota_name(&compound.tallies[2], 0, name, sizeof name, &written));
    CHECK(equal(name, "write-minute") && written == 12);
    OK(kt_tally_quota_name(&compound.tallies[0], 0, name, sizeof name, &written));
    CHECK(equal(name, "minute"));
    EXPECT(kt_tally_quota_name(&compound.tallies[0], 2, name, sizeof name, &written),
           KT_NO_SUCH_QUOTA);
    EXPECT(kt_tally_quota_name(&compound.tallies[2], 0, name, 12, &written), KT_BUFFER_TOO_SMALL);
    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));

    /* A settlement reports what its extra units reached, once. */
    OK(issue(gate, 42, 99, &key, &key_id));
    compound = check(gate, &key, 4, &WRITE, 1);
    kt_charge charge;
    OK(kt_compound_charge(&compound, 0, &charge));
    static const uint8_t SETTLED[][3] = {{5, 50, 0}, {9, 80, 0}, {4, 0, 0}};
    for (size_t at = 0; at < sizeof SETTLED / sizeof *SETTLED; at++) {
        kt_settlement settlement = {
            .size = sizeof settlement, .cost = SETTLED[at][0], .has_cost = 1};
        kt_verdict verdict;
        OK(kt_gate_settle_all(gate, key_id, &charge, &settlement, NOW_MS, &verdict, NULL,
                              &compound));
        CHECK(compound.tally_count == 3 && compound.tallies[0].crossed[0][0] == 0);
        CHECK(memcmp(compound.tallies[2].crossed[0], &SETTLED[at][1], 2) == 0);
        CHECK(memcmp(&verdict, &compound.tallies[0].verdict, sizeof verdict) == 0);
    }
    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
}

static void key_needs_its_scopes(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    OK(issue(gate, 42, 6, &key, &key_id));
    kt_request request = {sizeof request, 1, NOW_MS, NULL, 0, SCOPES, 1, 0, 0};
    kt_compound compound;
    const uint8_t *api_key = bytes(key.text);
    size_t len = strlen(key.text);
    OK(kt_gate_check_request(gate, api_key, len, &request, &compound));
    CHECK(compound.outcome == KT_ADMITTED);
    request.need_len = 2;
    OK(kt_gate_check_request(gate, api_key, len, &request, &compound));
    CHECK(compound.outcome == KT_FORBIDDEN && compound.http_status == 403);
    CHECK(compound.key_id == key_id && compound.tally_count == 1);
    CHECK(equal(kt_compound_body(&compound), "{\"error\": \"Forbidden\"}"));
    CHECK(equal(kt_outcome_name(compound.outcome), "forbidden"));

    kt_key_info info;
    OK(kt_gate_key(gate, key_id, NOW_MS, &info));
    CHECK(info.scopes == 1);
    OK(kt_gate_set_scopes(gate, key_id, SCOPES + 1, 1));
    OK(kt_gate_key(gate, key_id, NOW_MS, &info));
    CHECK(info.scopes == 2);

    OK(kt_gate_set_scopes(gate, key_id, SCOPES, 2));
    OK(kt_gate_check_request(gate, api_key, len, &request, &compound));
    CHECK(compound.outcome == KT_ADMITTED && left(&compound, 0) == 98);
    OK(kt_gate_set_scopes(gate, key_id, NULL, 0));
    request.need_len = 1;
    OK(kt_gate_check_request(gate, api_key, len, &request, &compound));
    CHECK(compound.outcome == KT_FORBIDDEN);

    const kt_name admin = {KT_TEXT("admin")}, no_text = {"\xff", 1};
    request.need = &admin;
    EXPECT(kt_gate_check_request(gate, api_key, len, &request, &compound), KT_NO_SUCH_SCOPE);
    EXPECT(kt_gate_set_scopes(gate, key_id, &admin, 1), KT_NO_SUCH_SCOPE);
    EXPECT(kt_gate_set_scopes(gate, key_id, &no_text, 1), KT_NO_SUCH_SCOPE);
    EXPECT(kt_gate_set_scopes(gate, 1, SCOPES, 1), KT_NO_SUCH_KEY);

    char name[KT_SCOPE_SIZE];
    size_t written;
    OK(kt_gate_scope(gate, 1, name, sizeof name, &written));
    CHECK(equal(name, "write") && written == 5);
    EXPECT(kt_gate_scope(gate, 2, name, sizeof name, &written), KT_NO_SUCH_SCOPE);
    static const char *const SECTIONS[] = {"key", "team", "write", "tokens"};
    for (size_t at = 0; at < 4; at++) {
        OK(kt_gate_section(gate, at, name, KT_SECTION_SIZE, &written));
        CHECK(equal(name, SECTIONS[at]));
    }
    EXPECT(kt_gate_section(gate, 4, name, sizeof name, &written), KT_NO_SUCH_GROUP);
    OK(kt_gate_revoke(gate, key_id));
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
}

static int count_accounts(void *context, const kt_account_info *info) {
    CHECK(info->account == 42 || info->account == 43);
    return ++*(int *)context == 2;
}

static void accounts_are_administered(kt_gate *gate) {
    kt_key key, other;
    uint64_t key_id, other_id;
    OK(issue(gate, 42, 7, &key, &key_id));
    OK(issue(gate, 43, 8, &other, &other_id));
    EXPECT(issue(gate, 44, 9, &other, &other_id), KT_TEAMS_FULL);
    uint32_t teams;
    OK(kt_gate_team_capacity(gate, &teams));
    CHECK(teams == 2);
    uint32_t extended = 77;
    OK(kt_gate_is_extended(gate, &extended));
    CHECK(extended == 1);
    int accounts = 0;
    OK(kt_gate_accounts(gate, NOW_MS, count_accounts, &accounts));
    CHECK(accounts == 2);

    check(gate, &key, 5, NULL, 0);
    kt_account_info info;
    kt_quota shared;
    memset(&info, 0xa5, sizeof info);
    OK(kt_gate_account(gate, 42, NOW_MS, &info));
    CHECK(info.account == 42 && info.suspended == 0 && info.has_own_limits == 0);
    CHECK(info.plan == 0 && info.quota_count == 1 && info.reserved_[0] == 0);
    OK(kt_account_info_quota(&info, 0, &shared));
    CHECK(shared.limit == 150 && shared.remaining == 145 && shared.window_s == 60);
    CHECK(shared.reset_unix_s == NOW_MS / 1000 + 60);
    EXPECT(kt_account_info_quota(&info, 1, &shared), KT_NO_SUCH_QUOTA);
    EXPECT(kt_gate_account(gate, 44, NOW_MS, &info), KT_NO_SUCH_ACCOUNT);

    OK(kt_gate_assign_account(gate, 42, KT_TEXT("pro")));
    OK(kt_gate_account(gate, 42, NOW_MS, &info));
    OK(kt_account_info_quota(&info, 0, &shared));
    CHECK(info.plan == 1 && shared.limit == 300 && shared.remaining == 295);
    EXPECT(kt_gate_assign_account(gate, 42, KT_TEXT("gold")), KT_NO_SUCH_PLAN);
    EXPECT(kt_gate_assign_account(gate, 44, KT_TEXT("pro")), KT_NO_SUCH_ACCOUNT);

    OK(kt_gate_limit_account(gate, 42, KT_TEXT("7/minute")));
    OK(kt_gate_account(gate, 42, NOW_MS, &info));
    OK(kt_account_info_quota(&info, 0, &shared));
    CHECK(info.has_own_limits == 1 && shared.limit == 7 && shared.remaining == 2);
    EXPECT(kt_gate_limit_account(gate, 42, KT_TEXT("7/hour")), KT_PLAN_WINDOWS);
    EXPECT(kt_gate_limit_account(gate, 42, KT_TEXT("unlimited")), KT_PLAN_WINDOWS);
    EXPECT(kt_gate_limit_account(gate, 42, KT_TEXT("7/minute; team: 7/minute")),
           KT_ACCOUNT_LIMITS);
    EXPECT(kt_gate_limit_account(gate, 42, KT_TEXT("sliding 7/minute")), KT_ACCOUNT_LIMITS);
    EXPECT(kt_gate_limit_account(gate, 42, KT_TEXT("8/minute warn 80%")), KT_ACCOUNT_LIMITS);
    EXPECT(kt_gate_limit_account(gate, 44, KT_TEXT("7/minute")), KT_NO_SUCH_ACCOUNT);
    kt_compound compound = check(gate, &key, 3, NULL, 0);
    CHECK(compound.outcome == KT_DENIED && compound.decisive_index == 1);
    OK(kt_gate_reset_account(gate, 42, NOW_MS));
    compound = check(gate, &key, 3, NULL, 0);
    CHECK(compound.outcome == KT_ADMITTED && left(&compound, 1) == 4 && left(&compound, 0) == 92);
    EXPECT(kt_gate_reset_account(gate, 44, NOW_MS), KT_NO_SUCH_ACCOUNT);

    OK(kt_gate_set_suspended(gate, 42, 1));
    OK(kt_gate_account(gate, 42, NOW_MS, &info));
    CHECK(info.suspended == 1);
    compound = check(gate, &key, 1, NULL, 0);
    CHECK(compound.outcome == KT_INVALID_KEY && compound.reason == KT_REASON_SUSPENDED);
    CHECK(compound.http_status == 401);
    OK(kt_gate_set_suspended(gate, 42, 0));
    compound = check(gate, &key, 1, NULL, 0);
    CHECK(compound.outcome == KT_ADMITTED);
    EXPECT(kt_gate_set_suspended(gate, 44, 1), KT_NO_SUCH_ACCOUNT);
}

/** Parts of gates have groups and scopes, too. */
static void parts_with_groups_are_charged_with_a_limiter(kt_gate *gate) {
    static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(8)];
    const uint8_t seed[16] = {1};
    kt_limiter addresses;
    kt_key key;
    uint64_t key_id;
    OK(kt_limiter_init(memory, sizeof memory, KT_TEXT("9/minute"), 8, seed, &addresses));
    OK(issue(gate, 43, 10, &key, &key_id));
    kt_part parts[] = {{.limiter = &addresses, .text = bytes("a"), .text_len = 1, .cost = 1},
                       {.gate = gate, .text = bytes(key.text), .text_len = strlen(key.text),
                        .cost = 4, .groups = &WRITE, .groups_len = 1, .need = SCOPES,
                        .need_len = 1}};
    kt_compound compound;
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_ADMITTED && compound.tally_count == 4);
    CHECK(compound.key_id == key_id && compound.remaining == 96 && left(&compound, 0) == 8);
    CHECK(compound.tallies[3].part == 1 && equal(compound.tallies[3].section, "write"));
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_DENIED && compound.decisive_index == 3 && left(&compound, 0) == 7);

    /* Both parts are returned by their own charges. */
    parts[1].cost = 2;
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_ADMITTED && left(&compound, 0) == 6 && left(&compound, 3) == 0);
    kt_charge charge;
    kt_verdict verdict;
    OK(kt_compound_charge(&compound, 1, &charge));
    OK(kt_gate_refund(gate, key_id, &charge, NOW_MS, &verdict));
    OK(kt_compound_charge(&compound, 0, &charge));
    OK(kt_limiter_refund(&addresses, bytes("a"), 1, &charge, NOW_MS, &verdict));
    OK(kt_peek_all(parts, 2, NOW_MS, &compound));
    CHECK(left(&compound, 0) == 7 && left(&compound, 3) == 2);

    const kt_name write = SCOPES[1];
    parts[1].need = &write;
    OK(kt_check_all(parts, 2, NOW_MS, &compound));
    CHECK(compound.outcome == KT_FORBIDDEN && compound.decisive_index == 1);
    const kt_group no_such = {KT_TEXT("none"), 0, 0};
    parts[1].groups = &no_such;
    EXPECT(kt_check_all(parts, 2, NOW_MS, &compound), KT_NO_SUCH_GROUP);

    /* Three gates of three tallies have more than eight. */
    const kt_part three = {.gate = gate, .text = bytes(key.text), .text_len = strlen(key.text),
                           .cost = 1, .groups = &WRITE, .groups_len = 1};
    EXPECT(kt_check_all((kt_part[]){three, three, three}, 3, NOW_MS, &compound), KT_PART_COUNT);
    kt_limiter_close(&addresses);
}

static void compound_that_the_caller_changed_is_a_status(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    OK(issue(gate, 43, 11, &key, &key_id));
    const kt_compound right = check(gate, &key, 1, &WRITE, 1);
    char text[KT_COMPOUND_HEADERS_SIZE];
    kt_field fields[KT_MAX_FIELDS];
    kt_charge charge;
    size_t written = 77;
    for (int what = 0; what < 8; what++) {
        kt_compound wrong = right;
        switch (what) {
            case 0: wrong.tally_count = 0; break;
            case 1: wrong.tally_count = KT_MAX_PARTS + 1; break;
            case 2: wrong.decisive_index = wrong.tally_count; break;
            case 3: wrong.tallies[0].verdict.outcome = (kt_outcome)8; break;
            case 4: wrong.tallies[1].verdict.reason = (kt_reason)11; break;
            case 5: wrong.tallies[2].verdict.quota_count = 5; break;
            case 6: memset(wrong.tallies[2].section, 'a', KT_SECTION_SIZE); break;
            default: strcpy(wrong.tallies[2].section, "a\r\nb"); break;
        }
        EXPECT(kt_compound_headers(&wrong, text, sizeof text, &written), KT_NOT_A_VERDICT);
        EXPECT(kt_compound_problem(&wrong, text, sizeof text, &written), KT_NOT_A_VERDICT);
        EXPECT(kt_compound_fields(&wrong, text, sizeof text, fields, KT_MAX_FIELDS, &written),
               KT_NOT_A_VERDICT);
        if (what < 2) EXPECT(kt_compound_charge(&wrong, 0, &charge), KT_NOT_A_VERDICT);
        if (what < 4) CHECK(equal(kt_compound_body(&wrong), ""));
        if (what > 5)
            EXPECT(kt_tally_quota_name(&wrong.tallies[2], 0, text, sizeof text, &written),
                   KT_NOT_A_VERDICT);
    }
    kt_compound damaged = right;
    damaged.tallies[0].private_[0] ^= 1; /* The units. */
    OK(kt_compound_charge(&damaged, 0, &charge));
    damaged.tallies[0].private_[0] = 1;
    EXPECT(kt_compound_charge(&damaged, 0, &charge), KT_NOT_A_VERDICT);
    EXPECT(kt_compound_headers(NULL, text, sizeof text, &written), KT_NULL_POINTER);
    EXPECT(kt_compound_charge(&right, 0, NULL), KT_NULL_POINTER);
    EXPECT(kt_tally_quota_name(NULL, 0, text, sizeof text, &written), KT_NULL_POINTER);
    EXPECT(kt_tally_quota_name(&right.tallies[0], 0, text, sizeof text, NULL), KT_NULL_POINTER);
    CHECK(equal(kt_compound_body(NULL), "") && written == 77);
}

/** The example of docs/how-to/c.md. */
static void example_charges_groups_and_needs_a_scope(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    kt_status status;
    OK(issue(gate, 43, 12, &key, &key_id));
    OK(kt_gate_set_scopes(gate, key_id, SCOPES, 2));
    const uint8_t *header = bytes(key.text);
    const kt_group groups[] = {{KT_TEXT("write"), 0, 0}, {KT_TEXT("tokens"), 2500, 1}};
    const kt_name need[] = {{KT_TEXT("write")}};
    const kt_request request = {sizeof request, 1, KT_SYSTEM_CLOCK, groups, 2, need, 1, 0, 0};
    kt_compound compound;
    status = kt_gate_check_request(gate, header, strlen(key.text), &request, &compound);
    CHECK(status == KT_OK && compound.outcome == KT_ADMITTED && left(&compound, 3) == 2500);
}

static void use_gate(kt_gate *gate) {
    request_charges_all_tallies_or_none(gate);
    charge_is_refunded_and_settled_with_all_tallies(gate);
    warning_is_reported_once(gate);
    key_needs_its_scopes(gate);
    accounts_are_administered(gate);
    parts_with_groups_are_charged_with_a_limiter(gate);
    compound_that_the_caller_changed_is_a_status(gate);
    example_charges_groups_and_needs_a_scope(gate);
}

/** The gate names the window that the fields of a response describe. */
static void gate_names_the_described_window(void) {
    /* The month is in the second tally of the key. */
    static const char *const SECTIONS[] = {
        "100/minute, 30000/month@17",
        "100/minute, 1000/hour, 4294967295/day, 30000/month@17; team: 70000/month"};
    for (size_t at = 0; at < 2; at++) {
        const kt_plan plan = {KT_TEXT("default"), SECTIONS[at], strlen(SECTIONS[at])};
        kt_gate_config config = {.size = sizeof config, .keys = 8, .plans = &plan, .plans_len = 1};
        config.prefix = "kt";
        config.prefix_len = 2;
        config.described = "month";
        config.described_len = 5;
        size_t size, written;
        OK(kt_gate_config_size(&config, &size));
        void *memory = table_memory(size);
        kt_gate gate, attached;
        OK(kt_gate_init(memory, size, &config, PEPPERS, 1, &gate));
        kt_key key;
        uint64_t key_id;
        const uint8_t entropy[KT_ENTROPY_SIZE] = {1, 2, 3};
        const kt_new_key new_key = {
            sizeof new_key, 42, KT_TEXT("live"), NULL, 0, 0, 0, NULL, 0};
        OK(kt_gate_issue(&gate, &new_key, entropy, NOW_MS, &key, &key_id));
        kt_gate_close(&gate);
        OK(kt_gate_attach(memory, size, PEPPERS, 1, &attached));
        char window[KT_WINDOW_SIZE], headers[KT_COMPOUND_HEADERS_SIZE];
        OK(kt_gate_described(&attached, window, sizeof window, &written));
        CHECK(equal(window, "month") && written == 5);
        kt_request request = {sizeof request, 1, NOW_MS, NULL, 0, NULL, 0, 0, 0};
        kt_compound compound;
        OK(kt_gate_check_request(&attached, bytes(key.text), strlen(key.text), &request,
                                 &compound));
        CHECK(compound.outcome == KT_ADMITTED && compound.remaining == 29999);
        OK(kt_compound_headers(&compound, headers, sizeof headers, &written));
        CHECK(strstr(headers, "X-RateLimit-Limit: 30000\r\n") != NULL);
        if (at == 0) {
            kt_verdict verdict;
            OK(kt_gate_check(&attached, bytes(key.text), strlen(key.text), 1, NOW_MS, &verdict));
            OK(kt_verdict_headers(&verdict, headers, sizeof headers, &written));
            CHECK(strstr(headers, "X-RateLimit-Remaining: 29998\r\n") != NULL);
        }
        kt_gate_close(&attached);
        free(memory);

        static const char *const WRONG[] = {"week", "fortnight", "\xff"};
        for (size_t wrong = 0; wrong < 3; wrong++) {
            config.described = WRONG[wrong];
            config.described_len = strlen(WRONG[wrong]);
            EXPECT(kt_gate_config_size(&config, &size), KT_DESCRIBED);
        }
    }
}

/** Gates whose configuration is not possible, and one that only has the older members. */
static void configuration_is_checked(void) {
    size_t size = 77;
    kt_gate_config wrong = CONFIG;
    wrong.teams = KT_MAX_KEYS + 1;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_TEAM_COUNT);
    wrong = CONFIG;
    wrong.reserved_ = 1;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_UNKNOWN_MEMBER);
    const kt_name twice[] = {{KT_TEXT("a")}, {KT_TEXT("a")}}, spaced = {KT_TEXT("a b")};
    const kt_name not_text = {"\xff", 1};
    wrong = CONFIG;
    wrong.scopes = twice;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_SCOPES);
    wrong.scopes_len = 1;
    wrong.scopes = &spaced;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_SCOPES);
    wrong.scopes = &not_text;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_SCOPES);
    wrong.scopes_len = KT_MAX_SCOPES + 1;
    EXPECT(kt_gate_config_size(&wrong, &size), KT_SCOPES);
    CHECK(size == 77);

    /* An older program has neither teams nor scopes. Without a number, there is room for a team of
     * each key. */
    kt_gate_config older = CONFIG;
    older.size = offsetof(kt_gate_config, teams);
    older.scopes_len = SIZE_MAX;
    size_t of_older;
    OK(kt_gate_config_size(&older, &of_older));
    OK(kt_gate_config_size(&CONFIG, &size));
    CHECK(of_older == size + 30 * 64);
    void *memory = table_memory(of_older);
    kt_gate gate;
    EXPECT(kt_gate_init(memory, of_older - 64, &older, PEPPERS, 1, &gate), KT_MEMORY_TOO_SMALL);
    OK(kt_gate_init(memory, of_older, &older, PEPPERS, 1, &gate));
    uint32_t teams;
    OK(kt_gate_team_capacity(&gate, &teams));
    CHECK(teams == 32);
    kt_gate_close(&gate);
    free(memory);
}

/** Denials are counted by the section that denied. */
static void uses_are_counted_by_section(kt_gate *gate) {
    kt_key key;
    uint64_t key_id;
    kt_key_usage usage;
    OK(kt_gate_set_usage(gate, 1));
    OK(issue(gate, 43, 11, &key, &key_id));
    check(gate, &key, 4, &WRITE, 1);
    check(gate, &key, 7, &WRITE, 1);
    check(gate, &key, 1000, NULL, 0);
    OK(kt_gate_set_suspended(gate, 43, 1));
    check(gate, &key, 1, NULL, 0);
    OK(kt_gate_set_suspended(gate, 43, 0));
    OK(kt_gate_key_usage(gate, key_id, &usage));
    CHECK(usage.admitted == 1 && usage.units == 4 && usage.denied_by_group == 1);
    CHECK(usage.denied_by_key == 1 && usage.denied_by_team == 0 && usage.suspended == 1);
}

int main(int count, char **arguments) {
    CHECK(count == 2); /* A folder for files. */
    texts_of_sections_are_parsed_and_explained();
    gate_names_the_described_window();
    configuration_is_checked();

    size_t size;
    OK(kt_gate_config_size(&CONFIG, &size));
    void *memory = table_memory(size);
    kt_gate gate;
    OK(kt_gate_init(memory, size, &CONFIG, PEPPERS, 1, &gate));
    use_gate(&gate);
    kt_gate same;
    OK(kt_gate_attach(memory, size, PEPPERS, 1, &same));
    kt_gate_close(&same);
    kt_gate_close(&gate);
    free(memory);

    char path[4096], pepper[KT_PEPPER_SIZE];
    snprintf(path, sizeof path, "%s/api.gate", arguments[1]);
    OK(kt_pepper_generate(pepper, sizeof pepper));
    kt_gate *file;
    OK(kt_gate_create(path, pepper, 64, &CONFIG, &file));
    use_gate(file);
    kt_plan_info plan;
    OK(kt_gate_plan(file, 1, &plan));
    CHECK(equal(plan.sections, PLANS[1].sections));
    uses_are_counted_by_section(file);
    kt_gate_close(file);
    return 0;
}
