/* The header is what the library is: sizes, offsets and numbers, as a C compiler sees them. */
#include "check.h"

#include <keytally.h> /* A second time, to no effect. */
#include <stddef.h>

#define IS(what, value) _Static_assert((what) == (value), #what)

IS(sizeof(kt_status), 4);
IS(sizeof(kt_outcome), 1);
IS(sizeof(kt_reason), 1);
IS(sizeof(kt_flaw_kind), 4);

IS(sizeof(kt_limiter), KT_LIMITER_HANDLE_SIZE);
IS(_Alignof(kt_limiter), KT_HANDLE_ALIGN);
IS(sizeof(kt_gate), KT_GATE_HANDLE_SIZE);
IS(_Alignof(kt_gate), KT_HANDLE_ALIGN);

IS(sizeof(kt_charge), 16);
IS(offsetof(kt_charge, at_ms), 0);
IS(offsetof(kt_charge, cost), 8);

IS(sizeof(kt_quota), 24);
IS(offsetof(kt_quota, limit), 0);
IS(offsetof(kt_quota, remaining), 4);
IS(offsetof(kt_quota, window_s), 8);
IS(offsetof(kt_quota, lacking), 12);
IS(offsetof(kt_quota, lasting), 13);
IS(offsetof(kt_quota, reset_unix_s), 16);

IS(sizeof(kt_verdict), 168);
IS(offsetof(kt_verdict, outcome), 0);
IS(offsetof(kt_verdict, reason), 1);
IS(offsetof(kt_verdict, http_status), 2);
IS(offsetof(kt_verdict, retry_after_s), 4);
IS(offsetof(kt_verdict, key_id), 8);
IS(offsetof(kt_verdict, account), 16);
IS(offsetof(kt_verdict, plan), 20);
IS(offsetof(kt_verdict, env), 21);
IS(offsetof(kt_verdict, quota_count), 22);
IS(offsetof(kt_verdict, charge), 24);
IS(offsetof(kt_verdict, now_ms), 40);
IS(offsetof(kt_verdict, retry_at_ms), 48);
IS(offsetof(kt_verdict, cost), 56);
IS(offsetof(kt_verdict, uncharged), 60);
IS(offsetof(kt_verdict, clock_ahead_s), 64);
IS(offsetof(kt_verdict, quotas), 72);

IS(sizeof(kt_field), 2 * (sizeof(char *) + sizeof(size_t)));
IS(offsetof(kt_field, name_len), sizeof(char *));
IS(offsetof(kt_field, value), sizeof(char *) + sizeof(size_t));
IS(offsetof(kt_field, value_len), 2 * sizeof(char *) + sizeof(size_t));

IS(sizeof(kt_key), KT_KEY_SIZE);
IS(sizeof(kt_key_parts), 32);
IS(offsetof(kt_key_parts, prefix), 8);
IS(offsetof(kt_key_parts, env), 17);

IS(offsetof(kt_key_info, last_used_ms), 8);
IS(offsetof(kt_key_info, account), 16);
IS(offsetof(kt_key_info, not_after_s), 20);
IS(offsetof(kt_key_info, grace_until_s), 24);
IS(offsetof(kt_key_info, revoked), 28);
IS(offsetof(kt_key_info, plan), 29);
IS(offsetof(kt_key_info, pepper), 30);
IS(offsetof(kt_key_info, quota_count), 31);
IS(offsetof(kt_key_info, clock_ahead_s), 32);
IS(offsetof(kt_key_info, env), 36);
IS(offsetof(kt_key_info, last_characters), 45);
IS(offsetof(kt_key_info, quotas), 56);

IS(sizeof(kt_plan_info), KT_PLAN_NAME_SIZE + KT_POLICY_SIZE);
IS(offsetof(kt_flaw, record), 8);
IS(offsetof(kt_flaw, kind), 12);
IS(offsetof(kt_flaw, sentence), 16);

IS(KT_OK, 0);
IS(KT_ADMITTED, 0);
IS(KT_DENIED, 1);
IS(KT_MISSING_KEY, 2);
IS(KT_INVALID_KEY, 3);
IS(KT_TOO_COSTLY, 4);
IS(KT_FULL, 5);
IS(KT_REASON_NONE, 0);
IS(KT_REASON_MALFORMED, 1);
IS(KT_REASON_CHECKSUM, 2);
IS(KT_REASON_UNKNOWN, 3);
IS(KT_REASON_WRONG_SECRET, 4);
IS(KT_REASON_REVOKED, 5);
IS(KT_REASON_EXPIRED, 6);
IS(KT_REASON_DUPLICATE, 7);
IS(KT_REASON_PEPPER_MISSING, 8);
IS(KT_REASON_DAMAGED, 9);

/* The first and the last of each family of statuses; none in between may move without the next one. */
IS(KT_NULL_POINTER, 1);
IS(KT_NO_MEMORY, 8);
IS(KT_INTERNAL, 9);
IS(KT_NO_CLOCK, 10);
IS(KT_POLICY_EMPTY, 20);
IS(KT_KEY_ID_FORM, 35);
IS(KT_PEPPER_TOO_SHORT, 40);
IS(KT_WRONG_PEPPER, 45);
IS(KT_PEPPER_BYTE_ORDER_MARK, 46);
IS(KT_MEMORY_TOO_SMALL, 60);
IS(KT_OTHER_POLICY, 73);
IS(KT_BUSY, 80);
IS(KT_IN_GRACE, 93);
IS(KT_FILE_NOT_FOUND, 100);
IS(KT_IO, 110);

IS(KT_SYSTEM_CLOCK, UINT64_MAX);

int main(void) {
    CHECK(kt_version() == KT_VERSION);
    CHECK(strcmp(kt_version_string(), KT_VERSION_STRING) == 0);
    char parts[32];
    snprintf(parts, sizeof parts, "%d.%d.%d", KT_VERSION_MAJOR, KT_VERSION_MINOR, KT_VERSION_PATCH);
    CHECK(strcmp(parts, KT_VERSION_STRING) == 0);

    CHECK(kt_limiter_handle_size() == KT_LIMITER_HANDLE_SIZE);
    CHECK(kt_gate_handle_size() == KT_GATE_HANDLE_SIZE);
    for (uint32_t capacity = 1; capacity <= 5000; capacity++) {
        CHECK(kt_limiter_size(capacity) == KT_LIMITER_SIZE(capacity));
        CHECK(kt_gate_size(capacity) == KT_GATE_SIZE(capacity));
    }
    CHECK(kt_limiter_size(KT_MAX_SUBJECTS) == KT_LIMITER_SIZE(KT_MAX_SUBJECTS));
    CHECK(kt_gate_size(KT_MAX_KEYS) == KT_GATE_SIZE(KT_MAX_KEYS));
    CHECK(kt_limiter_size(0) == 0 && kt_limiter_size(KT_MAX_SUBJECTS + 1) == 0);
    CHECK(kt_gate_size(0) == 0 && kt_gate_size(KT_MAX_KEYS + 1) == 0);

    /* A number that is none has a sentence and a name too. */
    CHECK(strlen(kt_status_message((kt_status)-1)) > 0 && strlen(kt_status_message((kt_status)11)) > 0);
    CHECK(strcmp(kt_outcome_name(KT_INVALID_KEY), "invalid_key") == 0);
    CHECK(strcmp(kt_outcome_name((kt_outcome)200), "unknown") == 0);
    CHECK(strcmp(kt_reason_name(KT_REASON_DAMAGED), "damaged") == 0);
    CHECK(strcmp(kt_reason_name((kt_reason)200), "unknown") == 0);
    return 0;
}
