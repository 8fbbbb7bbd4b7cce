/* The header agrees with the library: versions, sizes as macros and as functions, names of numbers.
 * The sizes, offsets and numbers of the interface are recorded in ffi-c/abi.txt. */
#include "check.h"

#include <keytally.h> /* A second time, without effect. */

#define IS(what, value) _Static_assert((what) == (value), #what)

IS(sizeof(kt_limiter), KT_LIMITER_HANDLE_SIZE);
IS(_Alignof(kt_limiter), KT_HANDLE_ALIGN);
IS(sizeof(kt_gate), KT_GATE_HANDLE_SIZE);
IS(_Alignof(kt_gate), KT_HANDLE_ALIGN);
IS(sizeof(kt_field), 2 * (sizeof(char *) + sizeof(size_t)));
IS(sizeof(kt_charge), 128);
IS(sizeof(kt_compound), 64 + KT_MAX_PARTS * sizeof(kt_tally));
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
    const kt_plan plan = {KT_TEXT("default"), KT_TEXT("5/minute")};
    const kt_gate_config plain = {
        sizeof plain, 100, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    size_t size;
    OK(kt_gate_config_size(&plain, &size));
    CHECK(size == KT_GATE_SIZE(100));
    CHECK(kt_gate_size(KT_MAX_KEYS) == KT_GATE_SIZE(KT_MAX_KEYS));
    CHECK(kt_limiter_size(0) == 0 && kt_limiter_size(KT_MAX_SUBJECTS + 1) == 0);
    CHECK(kt_gate_size(0) == 0 && kt_gate_size(KT_MAX_KEYS + 1) == 0);

    /* An unknown number has a sentence and a name too. */
    CHECK(strlen(kt_status_message((kt_status)-1)) > 0 &&
          strlen(kt_status_message((kt_status)19)) > 0);
    CHECK(strcmp(kt_outcome_name(KT_INVALID_KEY), "invalid_key") == 0);
    CHECK(strcmp(kt_outcome_name((kt_outcome)200), "unknown") == 0);
    CHECK(strcmp(kt_reason_name(KT_REASON_DAMAGED), "damaged") == 0);
    CHECK(strcmp(kt_reason_name((kt_reason)200), "unknown") == 0);
    return 0;
}
