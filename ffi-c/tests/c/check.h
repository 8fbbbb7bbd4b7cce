/* Shared by the test programs: checks that end the program and print the line that failed. */
#ifndef KEYTALLY_TEST_CHECK_H
#define KEYTALLY_TEST_CHECK_H

#include <keytally.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** 2026-01-01 00:00:00 UTC. */
#define NOW_MS UINT64_C(1767225600000)

#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))

/** Checks a status. Prints the statuses and their sentences if they differ. */
#define EXPECT(call, status) expect((call), (status), __FILE__, __LINE__, #call)

#define OK(call) EXPECT(call, KT_OK)

static inline void failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    exit(1);
}

static inline void expect(kt_status found, kt_status wanted, const char *file, int line,
                          const char *call) {
    if (found != wanted) {
        fprintf(stderr, "%s:%d: %s\n  is %d: %s\n  not %d: %s\n", file, line, call, (int)found,
                kt_status_message(found), (int)wanted, kt_status_message(wanted));
        exit(1);
    }
}

/** The bytes of a text, as keys and subjects are passed. */
static inline const uint8_t *bytes(const char *text) { return (const uint8_t *)text; }

/** Returns what a check charged. */
static inline kt_charge charge_of(const kt_verdict *verdict) {
    kt_charge charge;
    OK(kt_verdict_charge(verdict, &charge));
    return charge;
}

/** Returns a charge of these two numbers. */
static inline kt_charge charge_at(uint32_t cost, uint64_t at_ms) {
    kt_charge charge;
    OK(kt_charge_new(cost, at_ms, &charge));
    return charge;
}

/** Returns the quota at `index` of a verdict; zeros if there is none. */
static inline kt_quota quota(const kt_verdict *verdict, size_t index) {
    kt_quota quota = {0};
    EXPECT(kt_verdict_quota(verdict, index, &quota),
           index < verdict->quota_count ? KT_OK : KT_NO_SUCH_QUOTA);
    return quota;
}

/** Returns the quota at `index` of a key; zeros if there is none. */
static inline kt_quota key_quota(const kt_key_info *info, size_t index) {
    kt_quota quota = {0};
    EXPECT(kt_key_info_quota(info, index, &quota),
           index < info->quota_count ? KT_OK : KT_NO_SUCH_QUOTA);
    return quota;
}

/** Memory for a table, which the caller frees. */
static inline void *table_memory(size_t size) {
    void *memory = aligned_alloc(KT_TABLE_ALIGN, size);
    CHECK(memory != NULL);
    memset(memory, 0, size);
    return memory;
}

#endif
