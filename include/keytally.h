/*
 * keytally.h: may the holder of this API key make this request now?
 *
 * Generated from ffi-c by `cargo xtask header`; change it there.
 *
 * A gate is a table of issued keys with their counts: kt_gate_check verifies a key, then charges it. A limiter is a
 * table of counts for any subject, an address, a user, a route: kt_limiter_check. Both answer with a kt_verdict, a
 * plain struct that holds all that an HTTP response needs.
 *
 * THE CONTRACT, which holds for every function unless it says otherwise:
 *
 * Results. What can fail returns a kt_status; KT_OK is 0. That a request is refused is no failure: it is the
 *     verdict's outcome. Outputs come last, are named ..._out (and `buffer`), and are written only on KT_OK. What
 *     failed changed nothing. KT_INTERNAL, a defect of this library, is not listed at each function.
 * Pointers. NULL, a misaligned pointer and an impossible length are statuses, never a crash: KT_NULL_POINTER,
 *     KT_MISALIGNED, KT_BAD_LENGTH. A handle that was never made, was closed, moved or copied is KT_NOT_A_HANDLE, as
 *     long as its memory is there. That a pointer leads to as much memory as it says can't be told, and is yours to
 *     see to. An empty input needs no pointer. Inputs may be forgotten when the call returns: nothing keeps them.
 * Texts. A length follows its text, without a NUL; KT_TEXT("...") gives both. Paths alone end with a NUL. Texts that
 *     come back end with one, and their length doesn't count it.
 * Ownership. A handle in a struct of yours (kt_gate_init, kt_gate_attach, kt_limiter_init, kt_limiter_attach) lies in
 *     your memory: nothing is allocated. One that comes as a pointer (kt_gate_open, kt_limiter_open and the others of
 *     files) is the library's until it is closed. kt_gate_close and kt_limiter_close end both kinds, once. No other
 *     function allocates, except those that open or create files, those that change keys in files, kt_gate_watch and
 *     kt_gate_reopen, and the first use of gate files in each thread, which sets up what a replacement needs.
 * Memory that must not move. A table's memory must not be moved, freed or used for anything else while a handle of it
 *     is in use, and a handle must not be moved or copied. The table itself holds no addresses: processes may share it
 *     at different ones, each with a handle of its own, and it may be saved to disk and loaded.
 * Secrets. A table holds MACs and never a pepper; a handle of a gate holds peppers, which closing it wipes. Keys are in
 *     no message.
 * Threads. Any number of threads may use one handle at once, and any number of processes one table. Nothing blocks
 *     but functions that change keys in a file, which take turns. Only making and closing a handle must be left to
 *     one thread, while no other uses it. After fork the child may use the parent's handles.
 * Signals and interrupts. kt_gate_check and kt_limiter_check may be called from a handler that interrupted one. For a
 *     gate file, the thread must have called kt_gate_check before, outside a handler.
 * Panics. None comes out: in host builds a defect becomes KT_INTERNAL. Without the host part a defect would stop the
 *     program in an endless loop; docs/PANICS.md lists why each place that could isn't reached.
 * Time. `now_ms` is an explicit time in Unix milliseconds, or KT_SYSTEM_CLOCK. The system clock is
 *     read in the call, and again if a tally is ahead of that reading. An explicit time is used as
 *     given and never corrected. If you have cached readings of the system clock, as an event loop
 *     has, call kt_gate_use_system_clock or kt_limiter_use_system_clock once, and then give those
 *     readings as `now_ms`.
 * Wrong clocks. A time that is late, by any amount, is taken as the tally's own time. A time that is
 *     ahead moves the tally there. Until that time comes, the counts of its windows stay, and
 *     `clock_ahead_s` says how far ahead the tally is. A call by the system clock corrects a tally
 *     that is more than 60 s ahead, with its counts kept. kt_gate_correct_clock and
 *     kt_limiter_correct_clock correct a whole table. A window is an interval of the times of its
 *     decisions (kt_charge.at_ms), its label. Wrong clocks cost, in labels of one tally that admit
 *     their limit once more:
 *     - Late clocks, stale readings, explicit times that disagree: none. In a limiter, one each
 *       time that a caller who is 61 s late or more finds its subject's slot reused.
 *     - A system clock that ran more than 60 s ahead and is set right, or that is set back by more
 *       than 60 s: one, when its tally is corrected. Each check that read the clock before the step
 *       and charges after the correction costs one more. So does each thread that is stopped in
 *       the middle of that correction for as long as the tally was ahead.
 *     - System clocks that stay more than 60 s apart, or explicit times that far ahead mixed with
 *       the system clock: one each time that they take turns. They are outside the guarantee.
 *     In real time, callers whose times differ by d can use the windows of d more at one moment.
 * Units. The end of a name tells: _ms milliseconds, _s seconds, _unix_s and _until_s Unix seconds, _len and _SIZE bytes.
 * Stability. Until 1.0 a minor version may change functions and structs, and the SONAME changes with it. Numbers of
 *     statuses, outcomes, reasons and flaws keep their meaning for ever; new ones may come. KT_VERSION is the header's
 *     version, kt_version() the library's.
 * Host builds. Functions that say so need an operating system, and are missing from a library that was built without
 *     the feature `host`, for bare metal; what is left needs nothing but memcpy, memmove, memset and memcmp.
 */


#ifndef KEYTALLY_H
#define KEYTALLY_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header: `kt_version` is that of the library. */
#define KT_VERSION_MAJOR 0
#define KT_VERSION_MINOR 1
#define KT_VERSION_PATCH 0
#define KT_VERSION (KT_VERSION_MAJOR << 16 | KT_VERSION_MINOR << 8 | KT_VERSION_PATCH)
#define KT_VERSION_STRING "0.1.0"

/** A literal and its length, for two parameters or two fields: `kt_policy_check(KT_TEXT("5/minute"), ...)`. */
#define KT_TEXT(literal) (literal), (sizeof(literal) - 1)

/** `kt_limiter_size` as a constant, for arrays. */
#define KT_LIMITER_SIZE(capacity) \
    ((size_t)64 * (2 + 2 * KT_LIMITER_BUCKETS_(capacity) + (KT_LIMITER_BUCKETS_(capacity) + 7) / 8))
#define KT_LIMITER_BUCKETS_(capacity) (((size_t)(capacity) * 3 + 15) / 16)

/** `kt_gate_size` as a constant, for arrays. */
#define KT_GATE_SIZE(keys) ((size_t)64 * (6 + KT_GATE_PLAN_SLOTS / 2 + (size_t)(keys)))


/** The version of the format of tables. A table of another version is refused with `KT_OTHER_FORMAT`. */
#define KT_TABLE_FORMAT 1

/** Always enough for a policy as text, and for a sentence on what is wrong with one, with the NUL. */
#define KT_POLICY_SIZE 256

/** Bytes of a key as text, with the NUL. */
#define KT_KEY_SIZE 56

/** Bytes of a prefix or an environment, with the NUL. */
#define KT_NAME_SIZE 9

/** Bytes of a key id as text, with the NUL. */
#define KT_KEY_ID_SIZE 12

/** Bytes of a hint, with the NUL. */
#define KT_HINT_SIZE 24

/** The most quotas of a policy. */
#define KT_MAX_QUOTAS 4

/** Always enough for the header fields of a verdict, with the NUL. */
#define KT_HEADERS_SIZE 640

/** Always enough for a problem document, with the NUL. */
#define KT_PROBLEM_SIZE 384

/** The most header fields of a verdict. */
#define KT_MAX_FIELDS 6

/** Bytes of a limiter's handle. */
#define KT_LIMITER_HANDLE_SIZE 384

/** The alignment of handles. */
#define KT_HANDLE_ALIGN 8

/** The alignment of a table's memory. */
#define KT_TABLE_ALIGN 64

/** The most subjects of a limiter. */
#define KT_MAX_SUBJECTS 1073741824

/** Bytes of a gate's handle. */
#define KT_GATE_HANDLE_SIZE 1024

/** The most keys of a gate. */
#define KT_MAX_KEYS 67108864

/**
 * How many plans a gate in memory of the caller's has room for: few, since two of them take as much as a key, and a
 * microcontroller may have no more than a few KiB for all.
 */
#define KT_GATE_PLAN_SLOTS 4

/** The most peppers in use at a time. */
#define KT_MAX_PEPPERS 4

/**
 * As `now_ms`: the system clock. It is read in the call, and again if a tally is ahead of that
 * reading. A library without the host part returns `KT_NO_CLOCK`.
 */
#define KT_SYSTEM_CLOCK 18446744073709551615ull

/** Random bytes for one new key. */
#define KT_ENTROPY_SIZE 24

/** Bytes of a plan's name, with the NUL. */
#define KT_PLAN_NAME_SIZE 17

/** Bytes of a key's last characters, with the NUL. */
#define KT_LAST_CHARACTERS_SIZE 5

/** Bytes of a flaw's sentence, with the NUL. */
#define KT_FLAW_SENTENCE_SIZE 160

/** Bytes of a new pepper as text, with the NUL. */
#define KT_PEPPER_SIZE 65

/**
 * What a function that can fail returns: 0 when it did its work, else why it didn't. Numbers keep their meaning for
 * ever. `kt_status_message` has a sentence for each.
 */
enum kt_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Done. */
    KT_OK = 0,
    /** A pointer is NULL. */
    KT_NULL_POINTER = 1,
    /** A pointer isn't aligned for what it points to; a table's memory: to 64 bytes. */
    KT_MISALIGNED = 2,
    /** A length is more than memory can have behind the pointer. */
    KT_BAD_LENGTH = 3,
    /** The struct was never made a handle of this kind, was closed, moved or copied. */
    KT_NOT_A_HANDLE = 4,
    /** The handle lies in the table's memory. */
    KT_OVERLAP = 5,
    /** The buffer is too small, and nothing was written; a `KT_..._SIZE` is always enough. */
    KT_BUFFER_TOO_SMALL = 6,
    /** The struct is no verdict that this library wrote. */
    KT_NOT_A_VERDICT = 7,
    /** There is no memory; only keytally.hpp allocates tables. */
    KT_NO_MEMORY = 8,
    /** A defect of this library; nothing was done half that others can see. */
    KT_INTERNAL = 9,
    /** `now_ms` is `KT_SYSTEM_CLOCK`, and the library was built without the host part. */
    KT_NO_CLOCK = 10,
    /** No quota in the policy. */
    KT_POLICY_EMPTY = 20,
    /** A policy of more than 128 bytes. */
    KT_POLICY_TOO_LONG = 21,
    /** A quota that is neither `LIMIT/[N]UNIT` nor `LIMIT per [N]UNIT`. */
    KT_POLICY_SYNTAX = 22,
    /** A limit that is 0 or above 4294967295. */
    KT_POLICY_LIMIT = 23,
    /** A window that is 0 or longer than 31 days. */
    KT_POLICY_WINDOW = 24,
    /** A unit that is none. */
    KT_POLICY_UNIT = 25,
    /** More than 4 quotas. */
    KT_POLICY_TOO_MANY = 26,
    /** Two quotas with one window. */
    KT_POLICY_DUPLICATE = 27,
    /** A window that isn't a whole multiple of the next shorter one. */
    KT_POLICY_NOT_NESTED = 28,
    /** Time and counts need more than 64 bits. */
    KT_POLICY_TOO_MANY_BITS = 29,
    /** A prefix or environment that isn't 1 to 8 characters of a-z and 0-9. */
    KT_NAME_FORM = 30,
    /** Prefix and environment have more than 14 characters together. */
    KT_NAMES_TOO_LONG = 31,
    /** A plan's name that isn't 1 to 16 characters of a-z, 0-9, - and _. */
    KT_PLAN_NAME_FORM = 32,
    /** The text is no key. */
    KT_KEY_FORM = 33,
    /** The key's checksum is wrong. */
    KT_KEY_CHECKSUM = 34,
    /** The text or number is no key id. */
    KT_KEY_ID_FORM = 35,
    /** A pepper of fewer than 32 bytes. */
    KT_PEPPER_TOO_SHORT = 40,
    /** No pepper, or more than 4. */
    KT_PEPPER_COUNT = 41,
    /** The same pepper twice. */
    KT_PEPPER_TWICE = 42,
    /** A pepper's text that is neither hex nor base64. */
    KT_PEPPER_FORM = 43,
    /** A file too long to hold peppers. */
    KT_PEPPER_FILE_TOO_LONG = 44,
    /** None of the peppers is the gate's. */
    KT_WRONG_PEPPER = 45,
    /** A text of peppers that begins with a byte-order mark. */
    KT_PEPPER_BYTE_ORDER_MARK = 46,
    /** The memory is smaller than the table. */
    KT_MEMORY_TOO_SMALL = 60,
    /** A capacity that is 0 or above its maximum. */
    KT_CAPACITY = 61,
    /** No plan, or more than there is room for. */
    KT_PLAN_COUNT = 62,
    /** Two plans of one name. */
    KT_PLAN_TWICE = 63,
    /** Plans that differ in windows or algorithm. */
    KT_PLAN_WINDOWS = 64,
    /** The memory holds something else. */
    KT_NOT_A_TABLE = 65,
    /** The table's creation was interrupted. */
    KT_UNFINISHED = 66,
    /** A table of another version of the format. */
    KT_OTHER_FORMAT = 67,
    /** A limiter where a gate was expected, or the other way round. */
    KT_OTHER_KIND = 68,
    /** The table's size isn't what its header says. */
    KT_TRUNCATED = 69,
    /** The table's header is damaged. */
    KT_DAMAGED = 70,
    /** The gate has no environment of that number. */
    KT_NO_SUCH_ENV = 71,
    /** The limiter there has another capacity. */
    KT_OTHER_CAPACITY = 72,
    /** The limiter there has another policy. */
    KT_OTHER_POLICY = 73,
    /** Another administrator is changing this gate, and did not end in time. */
    KT_BUSY = 80,
    /** Every record is taken. */
    KT_GATE_FULL = 81,
    /** The records that this key could be imported into are taken. */
    KT_NO_ROOM_TO_IMPORT = 82,
    /** The gate has no such key. */
    KT_NO_SUCH_KEY = 83,
    /** The gate has no such plan. */
    KT_NO_SUCH_PLAN = 84,
    /** No room for another plan. */
    KT_PLANS_FULL = 85,
    /** A limit above what the gate's tallies can count. */
    KT_PLAN_LIMIT = 86,
    /** No room for another environment. */
    KT_ENVS_FULL = 87,
    /** The key was revoked and can't be changed. */
    KT_REVOKED = 88,
    /** The key's record is damaged. */
    KT_RECORD_DAMAGED = 89,
    /** The key is in the gate already. */
    KT_ALREADY_IMPORTED = 90,
    /** The text can't be imported as a key. */
    KT_NOT_IMPORTABLE = 91,
    /** Keys under 4 peppers are in the gate. */
    KT_PEPPERS_FULL = 92,
    /** The secret before the key's last rotation is still valid, and another rotation would end it. */
    KT_IN_GRACE = 93,
    /** No such file or folder. */
    KT_FILE_NOT_FOUND = 100,
    /** The system doesn't let this process. */
    KT_FILE_DENIED = 101,
    /** A file of that name exists, and was left as it is. */
    KT_FILE_EXISTS = 102,
    /** Users who must not can get at the file. */
    KT_FILE_MODE = 103,
    /** The file belongs to a stranger. */
    KT_FILE_OWNER = 104,
    /** A folder, a device or the like. */
    KT_NOT_A_FILE = 105,
    /** The file is too short to be any table. */
    KT_FILE_TOO_SHORT = 106,
    /** The file was removed or replaced since it was opened. */
    KT_FILE_REPLACED = 107,
    /** No room on the disk. */
    KT_DISK_FULL = 108,
    /** The system gives no random bytes. */
    KT_NO_ENTROPY = 109,
    /** The system refused something else; errno may still tell what. */
    KT_IO = 110,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_status kt_status;
#else
typedef int32_t kt_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What was decided. */
enum kt_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The request may go on; its cost is charged. */
    KT_ADMITTED = 0,
    /** Some window lacks room; nothing is charged. */
    KT_DENIED = 1,
    /** No key was presented. */
    KT_MISSING_KEY = 2,
    /** The key is no good, for a `kt_reason` that the client isn't told. */
    KT_INVALID_KEY = 3,
    /** The cost is above a limit and can never be admitted. */
    KT_TOO_COSTLY = 4,
    /** A limiter has no slot for a new subject; nothing is charged. */
    KT_FULL = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_outcome kt_outcome;
#else
typedef uint8_t kt_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Why a key is invalid: for logs and metrics, never for the client. */
enum kt_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The key isn't invalid. */
    KT_REASON_NONE = 0,
    /** The text has no form that a key of this gate could have. */
    KT_REASON_MALFORMED = 1,
    /** The checksum of a well-formed key is wrong: a typo. */
    KT_REASON_CHECKSUM = 2,
    /** No key of this gate has this key id. */
    KT_REASON_UNKNOWN = 3,
    /** The key id exists and the secret is another. */
    KT_REASON_WRONG_SECRET = 4,
    /** The key was revoked. */
    KT_REASON_REVOKED = 5,
    /** The key, or the grace of its previous secret, ended. */
    KT_REASON_EXPIRED = 6,
    /** The header was sent more than once. */
    KT_REASON_DUPLICATE = 7,
    /** The key belongs to a pepper that this process wasn't given. */
    KT_REASON_PEPPER_MISSING = 8,
    /** The key's record can't be read. */
    KT_REASON_DAMAGED = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_reason kt_reason;
#else
typedef uint8_t kt_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What is wrong with a record. */
enum kt_flaw_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It is half-written, and nothing says what it was to be. */
    KT_FLAW_HALF_WRITTEN = 0,
    /** Its key id belongs into another record, so no check finds it. */
    KT_FLAW_MISPLACED = 1,
    /** The gate has no plan of that number. */
    KT_FLAW_NO_PLAN = 2,
    /** The gate has no environment of that number. */
    KT_FLAW_NO_ENV = 3,
    /** The gate has no pepper of that number. */
    KT_FLAW_NO_PEPPER = 4,
    /** Where its tally should be is something else. */
    KT_FLAW_NO_TALLY = 5,
    /**
     * Its tally is more than 60 s ahead: a wrong clock stamped it. The next check by the system
     * clock corrects it.
     */
    KT_FLAW_FUTURE_TALLY = 6,
    /** Something that this version of the header has no name for; the sentence tells. */
    KT_FLAW_OTHER = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_flaw_kind kt_flaw_kind;
#else
typedef uint32_t kt_flaw_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The public parts of a key. */
typedef struct kt_key_parts {
    /** The key id. */
    uint64_t key_id;
    /** The prefix, ended by a NUL. */
    char prefix[KT_NAME_SIZE];
    /** The environment, ended by a NUL. */
    char env[KT_NAME_SIZE];
} kt_key_parts;

/**
 * A whole key, secret and all, as it must be handed to its holder: ended by a NUL. The only copy there is. Wipe it with
 * `kt_key_wipe` when it has been shown, and don't log it.
 */
typedef struct kt_key {
    /** The text. */
    char text[KT_KEY_SIZE];
} kt_key;

/** Units that were charged, and when: what `refund` and `settle` need to give back just those. */
typedef struct kt_charge {
    /** The time that the decision held for, in Unix milliseconds. */
    uint64_t at_ms;
    /** The units; 0 when nothing was charged, so that refunding it does nothing. */
    uint32_t cost;
} kt_charge;

/** One window of a verdict, after the decision. */
typedef struct kt_quota {
    /** The most that one window admits. */
    uint32_t limit;
    /** What is left, at most the limit. */
    uint32_t remaining;
    /** The length of the window in seconds. */
    uint32_t window_s;
    /** 1 when this window is why the request was denied, else 0. */
    uint8_t lacking;
    /** 1 when what is counted now will still count in the window after this one, as in sliding windows, else 0. */
    uint8_t lasting;
    /** When all that is counted now will be forgotten, in Unix seconds. */
    uint64_t reset_unix_s;
} kt_quota;

/** The answer to a check: a plain struct without pointers, to be copied, stored and sent at will. */
typedef struct kt_verdict {
    /** What was decided. */
    kt_outcome outcome;
    /** Why the key is invalid: for logs and metrics, never for the client. */
    kt_reason reason;
    /** The HTTP status: 401, 429, 503, or 200 when admitted, which is the application's to replace. */
    uint16_t http_status;
    /** Seconds to wait, at least 1; 0 unless denied or full. */
    uint32_t retry_after_s;
    /**
     * The key's public name; 0 when it isn't known whose key it was. Known once the secret was found right, also when
     * the key turns out revoked or expired.
     */
    uint64_t key_id;
    /** The team account that the key belongs to; says nothing when `key_id` is 0. */
    uint32_t account;
    /** The number of the key's plan; `kt_gate_plan` tells its name. */
    uint8_t plan;
    /** The number of the key's environment; `kt_gate_env` tells its name. */
    uint8_t env;
    /** How many quotas there are; 0 when no tally was reached. */
    uint8_t quota_count;
    /** What was charged; its cost is 0 unless admitted. */
    kt_charge charge;
    /** The caller's time, in Unix milliseconds: the last reading, if it was the system clock's. */
    uint64_t now_ms;
    /** When a denied request is worth trying again, in Unix milliseconds; 0 unless denied or full. */
    uint64_t retry_at_ms;
    /** What was asked for. */
    uint32_t cost;
    /** What a `settle` found no room for; 0 in every other verdict. */
    uint32_t uncharged;
    /**
     * By how many seconds the tally was ahead of the caller, rounded up; 0 if it was not. More
     * than 60 says that a clock, or an explicit time, was wrong. The next check by the system
     * clock corrects the tally.
     */
    uint32_t clock_ahead_s;
    /** The quotas, shortest window first; those from `quota_count` on are zeros. */
    kt_quota quotas[KT_MAX_QUOTAS];
} kt_verdict;

/** A header field of a response. */
typedef struct kt_field {
    /** Its name, ended by a NUL: always there. */
    const char *name;
    /** The name's length. */
    size_t name_len;
    /** Its value, ended by a NUL: in the buffer that was given. */
    const char *value;
    /** The value's length. */
    size_t value_len;
} kt_field;

/**
 * A limiter as one process holds it. Declare one beside the table's memory and give it to `kt_limiter_init` or
 * `kt_limiter_attach`, or get one from `kt_limiter_open`. It must not be moved or copied once it is in use. What is in
 * it is this library's.
 */
typedef struct kt_limiter {
    uint64_t private_[48];
} kt_limiter;

/** A plan: a named policy. */
typedef struct kt_plan {
    /** 1 to 16 characters of a-z, 0-9, - and _. */
    const char *name;
    /** Its length. */
    size_t name_len;
    /** What it admits, such as `100/minute, 1000/hour`. */
    const char *policy;
    /** Its length. */
    size_t policy_len;
} kt_plan;

/** What a gate is made of. */
typedef struct kt_gate_config {
    /** The plans, the first for keys that name none. All share their windows and algorithm. */
    const kt_plan *plans;
    /** How many: at least 1; in memory at most `KT_GATE_PLAN_SLOTS`, in files 116. */
    size_t plans_len;
    /** What every key begins with, 1 to 8 characters of a-z and 0-9. */
    const char *prefix;
    /** Its length. */
    size_t prefix_len;
    /** The most keys, 1 to `KT_MAX_KEYS`. */
    uint32_t keys;
} kt_gate_config;

/** Some bytes, such as a pepper. */
typedef struct kt_bytes {
    /** Where they are. */
    const uint8_t *data;
    /** How many. */
    size_t len;
} kt_bytes;

/**
 * A gate as one process holds it, with the server's peppers, which are in the table never. Declare one beside the table's
 * memory and give it to `kt_gate_init` or `kt_gate_attach`, or get one from `kt_gate_open`. It must not be moved or copied
 * once it is in use. What is in it is this library's.
 */
typedef struct kt_gate {
    uint64_t private_[128];
} kt_gate;

/** What a new key is to be. */
typedef struct kt_new_key {
    /** The environment, 1 to 8 characters of a-z and 0-9; the gate learns new ones as they come, 16 of them. */
    const char *env;
    /** Its length. */
    size_t env_len;
    /** The plan's name; the gate's first plan when the length is 0. */
    const char *plan;
    /** Its length. */
    size_t plan_len;
    /** The team account that the key belongs to. */
    uint32_t account;
    /** When the key expires, in Unix seconds; 0 for never. */
    uint32_t not_after_s;
} kt_new_key;

/** Everything that may be shown of a key. */
typedef struct kt_key_info {
    /** The key's public name. */
    uint64_t key_id;
    /** When the key was last charged, in Unix milliseconds, rounded down to the smallest window; 0 when never, or reset since. */
    uint64_t last_used_ms;
    /** The team account that the key belongs to. */
    uint32_t account;
    /** When the key expires, in Unix seconds; 0 for never. */
    uint32_t not_after_s;
    /**
     * Until when the previous secret is valid, in Unix seconds: its grace ends or the key expires. 0 when it is not valid now,
     * as after a revocation.
     */
    uint32_t grace_until_s;
    /** 1 when the key was revoked, else 0. */
    uint8_t revoked;
    /** The number of the plan; `kt_gate_plan` tells its name. */
    uint8_t plan;
    /** The number of the pepper that the secret is stored under. */
    uint8_t pepper;
    /** How many quotas there are. */
    uint8_t quota_count;
    /** By how many seconds the tally is ahead of the caller's time, rounded up; 0 if it is not. */
    uint32_t clock_ahead_s;
    /** The environment, ended by a NUL; empty in a damaged record. */
    char env[KT_NAME_SIZE];
    /** The last four characters, ended by a NUL; empty where the gate doesn't keep them, as in memory of the caller's. */
    char last_characters[KT_LAST_CHARACTERS_SIZE];
    /**
     * The key's quotas now, or at the tally's own time if that is ahead, shortest window first.
     * Those from `quota_count` on are zeros.
     */
    kt_quota quotas[KT_MAX_QUOTAS];
} kt_key_info;

/**
 * What is called for each key: with the `context` that was given to `kt_gate_list`, and the key, which is there for the call
 * only. 0 goes on; anything else ends the list. It must return: no exception, no `longjmp`.
 */
typedef int (*kt_key_visitor)(void *context, const kt_key_info *info);

/** A plan of a gate. */
typedef struct kt_plan_info {
    /** The name, ended by a NUL. */
    char name[KT_PLAN_NAME_SIZE];
    /** What it admits, ended by a NUL. */
    char policy[KT_POLICY_SIZE];
} kt_plan_info;

/** Something in a gate that no administrator and no check could have left there. */
typedef struct kt_flaw {
    /** The key that the record holds, as far as it can be told, else 0. */
    uint64_t key_id;
    /** The number of the record. */
    uint32_t record;
    /** What is wrong. */
    kt_flaw_kind kind;
    /** The same as a sentence, ended by a NUL. */
    char sentence[KT_FLAW_SENTENCE_SIZE];
} kt_flaw;

/** What is called for each flaw, as a `kt_key_visitor` is for keys; it can't end the reading. */
typedef void (*kt_flaw_visitor)(void *context, const kt_flaw *flaw);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library in use, as `KT_VERSION` of the header that a program was compiled with:
 * `major << 16 | minor << 8 | patch`. They may differ where the library is shared.
 */
uint32_t kt_version(void);

/** The same as text, such as `0.1.0`. Never NULL; always there. */
const char *kt_version_string(void);

/**
 * One sentence that tells what a status means and what would be right, in English, without a full stop.
 *
 * Never NULL, also for a number that is no status; the text is always there and must not be freed.
 *
 * ```c
 * kt_status status = kt_limiter_open("addresses.limiter", &limiter);
 * if (status != KT_OK) fprintf(stderr, "addresses.limiter: %s\n", kt_status_message(status));
 * ```
 */
const char *kt_status_message(kt_status status);

/**
 * Checks a policy, and tells how it is written.
 *
 * On `KT_OK` the policy as this library writes it (`1000/hour,100/m` as `100/minute, 1000/hour`) is in `buffer`, ended
 * by a NUL, and its length without that in `written_out`.
 *
 * Statuses: those that begin with `KT_POLICY_`; `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
 */
kt_status kt_policy_check(const char *policy,
                          size_t policy_len,
                          char *buffer,
                          size_t buffer_len,
                          size_t *written_out);

/**
 * Writes in one sentence what is wrong with a policy, naming the part of it. Writes the empty text when nothing is.
 *
 * The sentence is in `buffer`, ended by a NUL, and its length without that in `written_out`. It is shown to whoever
 * wrote the policy, as `kt_status_message` cannot name the part. A part of 16 bytes or more may be a key that was given in
 * place of a policy, so it is not named: the sentence is then that of `kt_status_message`.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
 */
kt_status kt_policy_explain(const char *policy,
                            size_t policy_len,
                            char *buffer,
                            size_t buffer_len,
                            size_t *written_out);

/**
 * Reads a key's public parts, and checks its form and checksum, without any gate. It says nothing about whether a gate
 * knows the key.
 *
 * Statuses: `KT_KEY_FORM`, `KT_KEY_CHECKSUM`.
 */
kt_status kt_key_parse(const uint8_t *api_key,
                       size_t api_key_len,
                       kt_key_parts *parts_out);

/**
 * Makes the text of a key from its parts; gates do that by themselves. `secret` is 16 random bytes.
 *
 * Statuses: `KT_NAME_FORM`, `KT_NAMES_TOO_LONG`, `KT_KEY_ID_FORM` for the key id 0.
 */
kt_status kt_key_mint(const char *prefix,
                      size_t prefix_len,
                      const char *env,
                      size_t env_len,
                      uint64_t key_id,
                      const uint8_t secret[16],
                      kt_key *key_out);

/** Overwrites a key, in a way that compilers don't leave out. NULL is left alone. */
void kt_key_wipe(kt_key *key);

/**
 * Writes what may be shown of a key, such as `kt_live_…9aZk` in UTF-8, ended by a NUL, and its length without that.
 * Of a key of another form only the last four characters are shown, and of a short one none.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`: `KT_HINT_SIZE` bytes are always enough.
 */
kt_status kt_key_hint(const uint8_t *api_key,
                      size_t api_key_len,
                      char *buffer,
                      size_t buffer_len,
                      size_t *written_out);

/**
 * Writes a key id as its 11 characters and a NUL, and their number.
 *
 * Statuses: `KT_KEY_ID_FORM` for 0; `KT_BUFFER_TOO_SMALL`: `KT_KEY_ID_SIZE` bytes are always enough.
 */
kt_status kt_key_id_text(uint64_t key_id, char *buffer, size_t buffer_len, size_t *written_out);

/**
 * Reads a key id from its 11 characters.
 *
 * Statuses: `KT_KEY_ID_FORM`.
 */
kt_status kt_key_id_parse(const char *text, size_t text_len, uint64_t *key_id_out);

/**
 * Writes the header fields of the response: each `Name: value` with CR LF, ended by a NUL; and their length without that.
 * Set them, don't append: there must be one of each.
 *
 * Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL`, and nothing was written: `KT_HEADERS_SIZE` bytes are always enough.
 *
 * ```c
 * char headers[KT_HEADERS_SIZE];
 * size_t written;
 * if (kt_verdict_headers(&verdict, headers, sizeof headers, &written) == KT_OK) write_all(socket, headers, written);
 * ```
 */
kt_status kt_verdict_headers(const kt_verdict *verdict,
                             char *buffer,
                             size_t buffer_len,
                             size_t *written_out);

/**
 * Gives the header fields of the response one by one, for servers that set them so; and how many there are. Their values are
 * written into `buffer`. Set them, don't append: there must be one of each.
 *
 * Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL` when the buffer has fewer than `KT_HEADERS_SIZE` bytes.
 *
 * ```c
 * char buffer[KT_HEADERS_SIZE];
 * kt_field fields[KT_MAX_FIELDS];
 * size_t count;
 * if (kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, &count) == KT_OK)
 *     for (size_t i = 0; i < count; i++) set_header(response, fields[i].name, fields[i].value);
 * ```
 */
kt_status kt_verdict_fields(const kt_verdict *verdict,
                            char *buffer,
                            size_t buffer_len,
                            kt_field fields_out[KT_MAX_FIELDS],
                            size_t *count_out);

/**
 * The response body, JSON, ended by a NUL; empty when admitted, and for a struct that is no verdict. It never tells why a
 * key is invalid. Never NULL; the text is always there and must not be freed.
 */
const char *kt_verdict_body(const kt_verdict *verdict);

/**
 * Writes the body as a problem document (`application/problem+json`, RFC 9457), for clients that want to be told which
 * quota it was, ended by a NUL; and its length without that. Empty when admitted.
 *
 * Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL`, and nothing was written: `KT_PROBLEM_SIZE` bytes are always enough.
 */
kt_status kt_verdict_problem(const kt_verdict *verdict,
                             char *buffer,
                             size_t buffer_len,
                             size_t *written_out);

/**
 * The verdict on a request whose key header came more than once: it is invalid, whatever the values are, since the next
 * server in the chain might pick another one. No gate needs to be asked.
 */
kt_status kt_verdict_duplicate_header(uint64_t now_ms,
                                      kt_verdict *verdict_out);

/** A short word for logs and metric labels, such as `invalid_key`. Never NULL. */
const char *kt_outcome_name(kt_outcome outcome);

/** A short word for logs and metric labels, such as `wrong_secret`. Never NULL. */
const char *kt_reason_name(kt_reason reason);

/**
 * Bytes of the memory that a limiter for `capacity` subjects takes; 0 when there can be no such limiter.
 * `KT_LIMITER_SIZE` is the same as a constant.
 */
size_t kt_limiter_size(uint32_t capacity);

/** Bytes of a limiter's handle, as this library has it: `KT_LIMITER_HANDLE_SIZE` of the header that it belongs to. */
size_t kt_limiter_handle_size(void);

/**
 * Makes a limiter for `capacity` subjects, 1 to `KT_MAX_SUBJECTS`, in memory that nobody uses.
 *
 * `memory` is at least `kt_limiter_size(capacity)` bytes at a multiple of 64, which stay where they are and are used for
 * nothing else until the handle is closed. `seed` is 16 random bytes: they keep clients from choosing subjects that meet in
 * one bucket.
 *
 * Statuses: those that begin with `KT_POLICY_`; `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`.
 *
 * ```c
 * static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(1000)];
 * kt_limiter limiter;
 * kt_status status = kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 1000, seed, &limiter);
 * ```
 */
kt_status kt_limiter_init(void *memory,
                          size_t memory_len,
                          const char *policy,
                          size_t policy_len,
                          uint32_t capacity,
                          const uint8_t seed[16],
                          kt_limiter *limiter_out);

/**
 * Opens a limiter that was made in this memory, by this process or by another that shares it: it may lie at another
 * address there. `memory_len` may be more than the limiter has.
 *
 * Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
 * `KT_OVERLAP`.
 */
kt_status kt_limiter_attach(void *memory,
                            size_t memory_len,
                            kt_limiter *limiter_out);

/**
 * Ends a handle, of whichever origin: wipes it, unmaps its file, frees it if this library made it. The table itself stays
 * as it is. No call that uses the handle may be under way. NULL and what is no handle are left alone.
 */
void kt_limiter_close(kt_limiter *limiter);

/**
 * Charges `cost` to every window of the subject if all have room for it, else to none.
 *
 * A subject is any bytes: an address, a user, a route; only their hash is kept. A cost of 0 is admitted and writes nothing.
 * `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`: see the contract.
 *
 * Every answer is `KT_OK`: whether the request may go on is the verdict's `outcome`, which is `KT_ADMITTED`, `KT_DENIED`,
 * `KT_TOO_COSTLY` or `KT_FULL`.
 *
 * ```c
 * kt_verdict verdict;
 * if (kt_limiter_check(&limiter, address, address_len, 1, KT_SYSTEM_CLOCK, &verdict) == KT_OK
 *     && verdict.outcome != KT_ADMITTED)
 *     return verdict.http_status;
 * ```
 */
kt_status kt_limiter_check(kt_limiter *limiter,
                           const uint8_t *subject,
                           size_t subject_len,
                           uint32_t cost,
                           uint64_t now_ms,
                           kt_verdict *verdict_out);

/** What `kt_limiter_check` would answer now, without the charge. It doesn't look whether a new subject would find a slot. */
kt_status kt_limiter_peek(kt_limiter *limiter,
                          const uint8_t *subject,
                          size_t subject_len,
                          uint32_t cost,
                          uint64_t now_ms,
                          kt_verdict *verdict_out);

/**
 * Gives back what a check charged, in the windows that still count it. `charge` is the `charge` of its verdict. Refund a
 * charge once.
 */
kt_status kt_limiter_refund(kt_limiter *limiter,
                            const uint8_t *subject,
                            size_t subject_len,
                            const kt_charge *charge,
                            uint64_t now_ms,
                            kt_verdict *verdict_out);

/**
 * Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What found no
 * room is the verdict's `uncharged`. Settle a charge once.
 */
kt_status kt_limiter_settle(kt_limiter *limiter,
                            const uint8_t *subject,
                            size_t subject_len,
                            const kt_charge *estimate,
                            uint32_t actual,
                            uint64_t now_ms,
                            kt_verdict *verdict_out);

/** Forgets all counts of the subject. */
kt_status kt_limiter_reset(kt_limiter *limiter,
                           const uint8_t *subject,
                           size_t subject_len,
                           uint64_t now_ms,
                           kt_verdict *verdict_out);

/** How many subjects the limiter was made for. */
kt_status kt_limiter_capacity(kt_limiter *limiter, uint32_t *capacity_out);

/** How many subjects have a slot that can't be reused now. Reads the whole table. */
kt_status kt_limiter_live(kt_limiter *limiter, uint64_t now_ms, uint64_t *live_out);

/**
 * Writes the policy that the limiter was made with, ended by a NUL, and its length without that.
 *
 * Statuses: `KT_DAMAGED`; `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
 */
kt_status kt_limiter_policy(kt_limiter *limiter, char *buffer, size_t buffer_len, size_t *written_out);

/**
 * Bytes of the memory that a gate for `keys` keys takes; 0 when there can be no such gate. `KT_GATE_SIZE` is the same
 * as a constant.
 */
size_t kt_gate_size(uint32_t keys);

/** Bytes of a gate's handle, as this library has it: `KT_GATE_HANDLE_SIZE` of the header that it belongs to. */
size_t kt_gate_handle_size(void);

/**
 * Makes a gate in memory that nobody uses.
 *
 * `memory` is at least `kt_gate_size(config->keys)` bytes at a multiple of 64, which stay where they are and are used
 * for nothing else until the handle is closed. `peppers` are the server's secrets as they are, at least 32 random bytes
 * each, newest last: new keys use the newest. Nothing that is pointed to is kept but `memory`.
 *
 * Statuses: `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`, `KT_NAME_FORM` for the prefix, `KT_PLAN_COUNT`,
 * `KT_PLAN_NAME_FORM`, `KT_PLAN_TWICE`, `KT_PLAN_WINDOWS`, those that begin with `KT_POLICY_`, `KT_PEPPER_COUNT`,
 * `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`.
 *
 * ```c
 * static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(64)];
 * kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
 * kt_gate_config config = {&plan, 1, KT_TEXT("kt"), 64};
 * kt_bytes pepper = {secret, sizeof secret};
 * kt_gate gate;
 * kt_status status = kt_gate_init(memory, sizeof memory, &config, &pepper, 1, &gate);
 * ```
 */
kt_status kt_gate_init(void *memory,
                       size_t memory_len,
                       const kt_gate_config *config,
                       const kt_bytes *peppers,
                       size_t peppers_len,
                       kt_gate *gate_out);

/**
 * Opens a gate that was made in this memory, by this process or by another that shares it: it may lie at another address
 * there. `memory_len` may be more than the gate has. One of the peppers must be the gate's.
 *
 * Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
 * `KT_OVERLAP`, `KT_WRONG_PEPPER`, `KT_PEPPER_COUNT`, `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`.
 */
kt_status kt_gate_attach(void *memory,
                         size_t memory_len,
                         const kt_bytes *peppers,
                         size_t peppers_len,
                         kt_gate *gate_out);

/**
 * Ends a handle, of whichever origin: wipes it and its peppers, unmaps its file, frees it if this library made it. The table
 * itself stays as it is. No call that uses the handle may be under way. NULL and what is no handle are left alone.
 */
void kt_gate_close(kt_gate *gate);

/**
 * Checks the key, and then charges `cost` to every window of its plan if all have room for it, else to none. Only a key
 * that passed its check touches a tally.
 *
 * `api_key` is the value of the `X-API-Key` header, of `api_key_len` bytes and without a NUL; NULL
 * when there was none. When the header came more than once, ask `kt_verdict_duplicate_header`
 * instead. `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`: see the
 * contract.
 *
 * Every answer is `KT_OK`: whether the request may go on is the verdict's `outcome`, which is `KT_ADMITTED`, `KT_DENIED`,
 * `KT_TOO_COSTLY`, `KT_MISSING_KEY` or `KT_INVALID_KEY`.
 *
 * ```c
 * kt_verdict verdict;
 * if (kt_gate_check(gate, api_key, api_key_len, 1, KT_SYSTEM_CLOCK, &verdict) == KT_OK
 *     && verdict.outcome != KT_ADMITTED)
 *     return respond(verdict.http_status, kt_verdict_body(&verdict));
 * ```
 */
kt_status kt_gate_check(kt_gate *gate,
                        const uint8_t *api_key,
                        size_t api_key_len,
                        uint32_t cost,
                        uint64_t now_ms,
                        kt_verdict *verdict_out);

/** What `kt_gate_check` would answer now, without the charge. */
kt_status kt_gate_peek(kt_gate *gate,
                       const uint8_t *api_key,
                       size_t api_key_len,
                       uint32_t cost,
                       uint64_t now_ms,
                       kt_verdict *verdict_out);

/**
 * Gives back what a check charged, in the windows that still count it. `key_id` and `charge` are those of its verdict.
 * Refund a charge once.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
 */
kt_status kt_gate_refund(kt_gate *gate,
                         uint64_t key_id,
                         const kt_charge *charge,
                         uint64_t now_ms,
                         kt_verdict *verdict_out);

/**
 * Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What found no
 * room is the verdict's `uncharged`. Settle a charge once.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
 */
kt_status kt_gate_settle(kt_gate *gate,
                         uint64_t key_id,
                         const kt_charge *estimate,
                         uint32_t actual,
                         uint64_t now_ms,
                         kt_verdict *verdict_out);

/**
 * Forgets all counts of the key.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
 */
kt_status kt_gate_reset(kt_gate *gate,
                        uint64_t key_id,
                        uint64_t now_ms,
                        kt_verdict *verdict_out);

/**
 * Declares that every `now_ms` given with this handle is a cached reading of the system clock, as
 * an event loop has one. A call reads the clock itself if a tally is ahead of the reading, and
 * uses the later of both. Without this, a `now_ms` is an explicit time, which corrects nothing. It
 * holds for this handle until it is closed. Host builds only.
 */
kt_status kt_gate_use_system_clock(kt_gate *gate);

/**
 * Declares that every `now_ms` given with this handle is a cached reading of the system clock, as
 * an event loop has one. A call reads the clock itself if a tally is ahead of the reading, and
 * uses the later of both. Without this, a `now_ms` is an explicit time, which corrects nothing. It
 * holds for this handle until it is closed. Host builds only.
 */
kt_status kt_limiter_use_system_clock(kt_limiter *limiter);

/**
 * Corrects every tally of the gate that is more than 60 s ahead, counts kept, and writes how many.
 * Checks by the system clock correct the tallies that they meet; this is for all others. Reads the
 * whole table.
 *
 * The system clock is read after each tally was loaded. An explicit `now_ms` is older than the
 * loads: if the call is stopped for more than 60 s in between, each tally that is charged
 * meanwhile may admit one more window. With an explicit time, call it while no other thread or
 * process charges.
 */
kt_status kt_gate_correct_clock(kt_gate *gate, uint64_t now_ms, uint64_t *corrected_out);

/**
 * Corrects every tally of the limiter that is more than 60 s ahead, counts kept, and writes how
 * many. Checks by the system clock correct the tallies that they meet; this is for all others.
 * Reads the whole table.
 *
 * The system clock is read after each tally was loaded. An explicit `now_ms` is older than the
 * loads: if the call is stopped for more than 60 s in between, each tally that is charged
 * meanwhile may admit one more window. With an explicit time, call it while no other thread or
 * process charges.
 */
kt_status kt_limiter_correct_clock(kt_limiter *limiter, uint64_t now_ms, uint64_t *corrected_out);

/**
 * Issues a key. What it writes to `key_out` is the only copy of the secret.
 *
 * `entropy` is 24 bytes from the system's entropy, used for this key only (in host builds `kt_entropy` gets them). The key takes
 * a free record, or that of a key that was revoked or has expired and whose counts have been forgotten everywhere.
 *
 * Statuses: `KT_NAME_FORM` for the environment, `KT_NAMES_TOO_LONG`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`, `KT_GATE_FULL`,
 * `KT_ENVS_FULL`, `KT_PEPPERS_FULL`; `KT_BUSY`, see `kt_gate_set_wait` and `kt_gate_take_over`; of a file also
 * `KT_FILE_REPLACED`, `KT_IO`, and those of `kt_gate_open` if the file was replaced.
 *
 * ```c
 * kt_new_key new_key = {KT_TEXT("live"), KT_TEXT("default"), 42, 0};
 * kt_key key;
 * uint64_t key_id;
 * kt_status status = kt_gate_issue(gate, &new_key, entropy, KT_SYSTEM_CLOCK, &key, &key_id);
 * ```
 */
kt_status kt_gate_issue(kt_gate *gate,
                        const kt_new_key *new_key,
                        const uint8_t entropy[KT_ENTROPY_SIZE],
                        uint64_t now_ms,
                        kt_key *key_out,
                        uint64_t *key_id_out);

/**
 * Takes in a key that was issued elsewhere, of any form, so that its holder keeps it. A key of this library's form keeps its
 * key id and its environment.
 *
 * Statuses: `KT_NOT_IMPORTABLE`, `KT_ALREADY_IMPORTED`, `KT_NO_ROOM_TO_IMPORT`, and those of `kt_gate_issue`.
 */
kt_status kt_gate_import(kt_gate *gate,
                         const uint8_t *api_key,
                         size_t api_key_len,
                         const kt_new_key *new_key,
                         uint64_t now_ms,
                         uint64_t *key_id_out);

/**
 * Gives a key a new secret. The old one stays valid until `grace_until_s`, in Unix seconds (0 for not at all), and both spend
 * the same quota. `entropy` is as in `kt_gate_issue`.
 *
 * A key has two secrets at most. If the one before the last rotation is still valid, this rotation would end it at once, and
 * is refused unless `force` is not 0.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_IN_GRACE`, `KT_NAMES_TOO_LONG` for an
 * imported key, `KT_PEPPERS_FULL`, `KT_RECORD_DAMAGED`; `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_rotate(kt_gate *gate,
                         uint64_t key_id,
                         uint32_t grace_until_s,
                         uint8_t force,
                         const uint8_t entropy[KT_ENTROPY_SIZE],
                         uint64_t now_ms,
                         kt_key *key_out);

/**
 * Ends a key, and its previous secret with it, at once: the next check in any process sees it. The record stays, to be listed,
 * until its place is needed. A key that was revoked before stays so.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`; `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_revoke(kt_gate *gate,
                         uint64_t key_id);

/**
 * Moves a key to another plan, counts kept.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`;
 * `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_assign(kt_gate *gate,
                         uint64_t key_id,
                         const char *plan,
                         size_t plan_len);

/**
 * Adds a plan, or gives the plan of that name other limits, counts kept.
 *
 * Statuses: `KT_PLAN_NAME_FORM`, those that begin with `KT_POLICY_`, `KT_PLAN_WINDOWS`, `KT_PLAN_LIMIT`, `KT_PLANS_FULL`;
 * `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_set_plan(kt_gate *gate,
                           const kt_plan *plan);

/**
 * Ends the administration that a process left which died in the middle of it, and completes its change. Call it when a lock of
 * yours, or that you are alone, proves that no other thread or process administers.
 *
 * A file needs it in one case only: when the administrator was killed in another container while another program or a
 * forked child held an `flock` on the file.
 *
 * Statuses: of a file `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_take_over(kt_gate *gate);

/**
 * Everything that may be shown of one key.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
 */
kt_status kt_gate_key(kt_gate *gate, uint64_t key_id, uint64_t now_ms, kt_key_info *info_out);

/**
 * Calls `visit` with everything that may be shown of each key, revoked ones too, in the order of their key ids. Reads the
 * whole gate. `visit` may call any function of this library, of this gate too.
 */
kt_status kt_gate_list(kt_gate *gate,
                       uint64_t now_ms,
                       kt_key_visitor visit,
                       void *context);

/**
 * The plan of this number: of a verdict, or from 0 on until `KT_NO_SUCH_PLAN`.
 *
 * Statuses: `KT_NO_SUCH_PLAN`.
 */
kt_status kt_gate_plan(kt_gate *gate, uint8_t plan, kt_plan_info *info_out);

/**
 * Writes the name of an environment, ended by a NUL, and its length without that.
 *
 * Statuses: `KT_NO_SUCH_ENV`; `KT_BUFFER_TOO_SMALL`: `KT_NAME_SIZE` bytes are always enough.
 */
kt_status kt_gate_env(kt_gate *gate,
                      uint8_t env,
                      char *buffer,
                      size_t buffer_len,
                      size_t *written_out);

/** The most keys that the gate can hold. */
kt_status kt_gate_capacity(kt_gate *gate, uint32_t *keys_out);

/**
 * Reads the whole gate, and calls `report` with what no administrator and no check could have left there. First it completes
 * the change of an administrator that was killed. Other administrators wait only if something is wrong: then the gate is
 * read again under the lock, and in `report` no function that changes this gate may be called.
 *
 * Records have no checksum. So a value that was changed into another valid one is not seen: the key id within its record, a
 * MAC, an account, a time, a count, or the number of another plan, environment or pepper.
 *
 * Statuses: `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
 */
kt_status kt_gate_verify(kt_gate *gate,
                         uint64_t now_ms,
                         kt_flaw_visitor report,
                         void *context);

/**
 * Returns the system clock's time, in Unix milliseconds. Host builds only.
 *
 * To a function it is an explicit time, unless its handle was declared by
 * `kt_gate_use_system_clock` or `kt_limiter_use_system_clock`: give `KT_SYSTEM_CLOCK` instead.
 */
uint64_t kt_now_ms(void);

/**
 * Gets 24 bytes of the system's entropy, for `kt_gate_issue` and `kt_gate_rotate`, or as a seed. Host builds only.
 *
 * Statuses: `KT_NO_ENTROPY`.
 */
kt_status kt_entropy(uint8_t entropy_out[KT_ENTROPY_SIZE]);

/**
 * Writes a new pepper: 32 bytes of the system's entropy as 64 hex digits and a NUL. Keep it where the server finds it, and
 * nowhere near the gate. Host builds only.
 *
 * Statuses: `KT_NO_ENTROPY`; `KT_BUFFER_TOO_SMALL`: `KT_PEPPER_SIZE` bytes are enough.
 */
kt_status kt_pepper_generate(char *buffer,
                             size_t buffer_len);

/**
 * Creates a gate in a new file at `path`, mode 0600, with its room on the disk taken. It appears whole or not at all. Host
 * builds only.
 *
 * `path` ends with a NUL. `peppers` is text as `KEYTALLY_PEPPER` holds it: each at least 32 bytes in hex or base64, several
 * separated by commas, newest last.
 *
 * Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`, `KT_DISK_FULL`, `KT_IO`, `KT_CAPACITY`,
 * `KT_NAME_FORM`, those that begin with `KT_PLAN_`, `KT_POLICY_` and `KT_PEPPER_`.
 *
 * ```c
 * kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
 * kt_gate_config config = {&plan, 1, KT_TEXT("kt"), 100000};
 * kt_gate *gate;
 * kt_status status = kt_gate_create("api.gate", peppers, strlen(peppers), &config, &gate);
 * ```
 */
kt_status kt_gate_create(const char *path,
                         const char *peppers,
                         size_t peppers_len,
                         const kt_gate_config *config,
                         kt_gate **gate_out);

/**
 * Opens the gate at `path`, which any number of processes may have open. Host builds only.
 *
 * `path` ends with a NUL. `peppers` is text as `KEYTALLY_PEPPER` holds it: each in hex or base64, several separated by commas,
 * newest last. One of them must be the gate's. End it with `kt_gate_close`.
 *
 * Statuses: `KT_FILE_NOT_FOUND`, `KT_FILE_DENIED`, `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NOT_A_FILE`, `KT_FILE_TOO_SHORT`,
 * `KT_IO`, `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
 * `KT_WRONG_PEPPER`, those that begin with `KT_PEPPER_`.
 *
 * ```c
 * kt_gate *gate;
 * const char *peppers = getenv("KEYTALLY_PEPPER");
 * kt_status status = kt_gate_open("api.gate", peppers, peppers ? strlen(peppers) : 0, &gate);
 * if (status != KT_OK) fprintf(stderr, "api.gate: %s\n", kt_status_message(status));
 * ```
 */
kt_status kt_gate_open(const char *path,
                       const char *peppers,
                       size_t peppers_len,
                       kt_gate **gate_out);

/**
 * Opens the gate at `path` with the peppers in a file, one a line; blank lines and lines that begin with `#` are ignored.
 * Host builds only.
 *
 * The path `-` is standard input, and the file may be a pipe: then the call waits for what is written to it. Symbolic links
 * are followed. Two kinds of file are accepted: one that root owns and no other user can write, as systemd, Kubernetes and
 * Docker provide secrets, and one that only its owner can read and write. The owner is the user of this process, unless that
 * is root.
 *
 * Statuses: those of `kt_gate_open`, of either file.
 */
kt_status kt_gate_open_with_pepper_file(const char *path,
                                        const char *pepper_path,
                                        kt_gate **gate_out);

/**
 * Sets how long the functions that change this gate's keys or plans wait for another administrator, in milliseconds: 10000 unless
 * set, and 0 to try once. Then they return `KT_BUSY`. It may be called at any time, and by any thread. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
 */
kt_status kt_gate_set_wait(kt_gate *gate,
                           uint64_t wait_ms);

/**
 * Writes the id of the process that is changing this gate: after `KT_BUSY`, the one that was waited for, unless it has ended since.
 * 0 when there is none, or when it is in another container. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory.
 */
kt_status kt_gate_administrator(kt_gate *gate,
                                uint32_t *pid_out);

/**
 * Lets a thread of this library look once a second whether another file was renamed over the gate's, and open that one. Checks
 * do not wait for it, and a call that is under way ends with the table that it began with. While the new file cannot
 * be opened, the old one decides, and the new one is tried again every second: see `kt_gate_reopen_status`.
 *
 * The thread ends with `kt_gate_close`. A forked child does not have it: call this again there. A second call in one process
 * does nothing. Without this call, `kt_gate_reopen_if_replaced` and the functions that change keys or plans look. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory; `KT_IO` when the system gives no thread.
 */
kt_status kt_gate_watch(kt_gate *gate);

/**
 * Looks whether another file was renamed over the gate's, and if so opens that one. Any thread may call it at any time, also
 * while others check. If it fails, the old file stays in use. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FILE_NOT_FOUND` when the file was removed, those of `kt_gate_open`.
 */
kt_status kt_gate_reopen_if_replaced(kt_gate *gate);

/**
 * Opens the file at the gate's path, whether it was replaced or not. Otherwise it is as `kt_gate_reopen_if_replaced`. Host builds
 * only.
 *
 * Statuses: those of `kt_gate_reopen_if_replaced`.
 */
kt_status kt_gate_reopen(kt_gate *gate);

/**
 * Writes how often another file took the place of the gate's, and into `failing_out` 1 while what is at the path cannot be
 * opened, else 0. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory.
 */
kt_status kt_gate_reopen_status(kt_gate *gate,
                                uint64_t *reopened_out,
                                uint32_t *failing_out);

/**
 * Creates a limiter for `capacity` subjects in a new file at `path`, mode 0600, with its room on the disk taken: about 25
 * bytes for each. It appears whole or not at all. Host builds only.
 *
 * Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`, `KT_DISK_FULL`, `KT_IO`, `KT_CAPACITY`,
 * `KT_NO_ENTROPY`, those that begin with `KT_POLICY_`.
 */
kt_status kt_limiter_create(const char *path,
                            const char *policy,
                            size_t policy_len,
                            uint32_t capacity,
                            kt_limiter **limiter_out);

/**
 * Opens the limiter at `path`. End it with `kt_limiter_close`. Host builds only.
 *
 * Statuses: those of `kt_gate_open`, but those of peppers.
 */
kt_status kt_limiter_open(const char *path, kt_limiter **limiter_out);

/**
 * Opens the limiter at `path`, or creates it if there is none. Of several processes that do so at once, one creates it and the
 * others open the same. Host builds only.
 *
 * Statuses: `KT_OTHER_POLICY` and `KT_OTHER_CAPACITY` when the limiter there has another; those of `kt_limiter_open` and
 * `kt_limiter_create`.
 */
kt_status kt_limiter_open_or_create(const char *path,
                                    const char *policy,
                                    size_t policy_len,
                                    uint32_t capacity,
                                    kt_limiter **limiter_out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEYTALLY_H */
