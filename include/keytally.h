/*
 * keytally.h: may the holder of this API key make this request now?
 *
 * Generated from ffi-c by `cargo xtask header`: make changes there.
 *
 * A gate is a table of issued keys with their counts: kt_gate_check verifies a key, then charges
 * it. A limiter is a table of counts for any subject, such as an address, a user or a route:
 * kt_limiter_check charges a subject. Both functions write a kt_verdict, a plain struct with all
 * that an HTTP response needs. The counts of one key or subject are its tally. A pepper is a secret
 * HMAC key of the server, under which a gate stores its keys. Plans may have sections with tallies
 * of their own, for all keys of an account (team) and for groups of routes:
 * kt_gate_check_request and kt_check_all charge several tallies, all or none.
 *
 *     kt_gate *gate;
 *     const char *peppers = getenv("KEYTALLY_PEPPER");
 *     kt_status status = kt_gate_open("api.gate", peppers, peppers ? strlen(peppers) : 0, &gate);
 *     if (status != KT_OK) die(kt_status_message(status));
 *
 *     kt_verdict verdict;
 *     status = kt_gate_check(gate, api_key, api_key_len, 1, KT_SYSTEM_CLOCK, &verdict);
 *     if (status != KT_OK) die(kt_status_message(status));
 *     if (verdict.outcome != KT_ADMITTED) respond(verdict.http_status, kt_verdict_body(&verdict));
 *
 * THE CONTRACT. It holds for each function unless its comment says otherwise.
 *
 * Results. A function that can fail returns a kt_status. KT_OK is 0. A refused request is not a
 *     failure: it is the verdict's outcome. Outputs come last, are named ..._out (and `buffer`),
 *     and are written only on KT_OK. A call that failed changed nothing. One exception: if a change
 *     to a gate file cannot be flushed to disk, the status is KT_IO or KT_DISK_FULL, and the
 *     change was made. A comment lists the statuses of its function, except those of the next two
 *     paragraphs and KT_INTERNAL, which is a defect of this library.
 * Features. A library for a device may be built without sliding windows, keys of other forms,
 *     more than one pepper per gate, weeks and months, or sections, teams and scopes. A policy, a
 *     table, an import, a configuration or a list of peppers that needs them is then KT_NO_SLIDING,
 *     KT_NO_IMPORTED_KEYS, KT_NO_PEPPER_ROTATION, KT_NO_CALENDAR or KT_NO_SECTIONS.
 * Pointers. NULL, a misaligned pointer and an impossible length are statuses, never a crash:
 *     KT_NULL_POINTER, KT_MISALIGNED, KT_BAD_LENGTH. A struct that was never made a handle, or that
 *     was closed, moved or copied, is KT_NOT_A_HANDLE, as long as its memory exists. The caller
 *     must ensure that a pointer refers to at least as many bytes as its length says; this cannot
 *     be checked. An empty input may have a NULL pointer. Input pointers are not retained.
 * Texts. The length of an input text is the next parameter or member and does not count a NUL.
 *     KT_TEXT("...") gives both. Only a path has no length and ends with a NUL. A text that a
 *     function writes ends with a NUL, which its length does not count.
 * Structs. They can grow without a change for programs that were compiled with an older header.
 *     - A struct that the caller fills in and that may grow begins with `size`: set it to sizeof
 *       that struct. For members that the caller's header lacks, the library takes zeros, which
 *       mean what the older version did. A member that is newer than the library must be zero, else
 *       the status is KT_UNKNOWN_MEMBER. If `size` leaves out a required member or is above 4096,
 *       the status is KT_STRUCT_SIZE. These are kt_request, kt_gate_config, kt_new_key and
 *       kt_settlement.
 *     - A struct that this library writes has a fixed size with reserved zeros. New members replace
 *       reserved ones, so a library that does not know them writes zeros. These are kt_verdict,
 *       kt_quota, kt_tally, kt_compound, kt_key_info, kt_key_usage, kt_plan_info,
 *       kt_account_info, kt_key_parts and kt_flaw. Do not use members whose name ends with an
 *       underscore.
 *     - kt_charge is opaque, has a fixed size, and may be stored. A struct that is not a charge is
 *       KT_NOT_A_CHARGE.
 *     - kt_bytes, kt_name, kt_group, kt_part, kt_plan, kt_field and kt_key do not change.
 *     - kt_gate and kt_limiter are opaque handles, whose content only this library reads and
 *       writes. Their sizes, which kt_gate_handle_size and kt_limiter_handle_size return, change
 *       only with the SONAME. They differ by the width of pointers, and by KT_WITHOUT_SECTIONS.
 * Ownership. kt_gate_init, kt_gate_attach, kt_limiter_init and kt_limiter_attach make a handle in a
 *     struct of the caller, and allocate nothing. kt_gate_open, kt_limiter_open and the other
 *     functions of files return a pointer to a handle that belongs to the library until it is
 *     closed. Close each handle once, with kt_gate_close or kt_limiter_close. Only these functions
 *     allocate: those that open or create files, those that change keys or plans in files,
 *     kt_gate_verify, kt_gate_take_over, kt_gate_administrator, kt_gate_watch, kt_gate_reopen,
 *     kt_gate_reopen_if_replaced, kt_gate_reopen_status, kt_gate_set_usage, kt_pepper_generate, the
 *     first use of a gate file in each thread, which prepares for a replaced file, and the first
 *     use after another process began to count uses, which opens the file of the counts.
 * Memory that must not move. While a handle of a table is in use, the table's memory must not be
 *     moved, freed or used for anything else, and the handle must not be moved or copied. The table
 *     itself holds no addresses. Processes may share a table at different addresses, each with a
 *     handle of its own. While no call uses a table, it may be saved to a disk and loaded again.
 * Secrets. A table holds MACs (message authentication codes) of its keys and never a pepper. A
 *     gate's handle holds the peppers, and closing the handle wipes them. No message contains a
 *     key.
 * Threads. Any number of threads may use one handle, and any number of processes one table, at the
 *     same time. Only these functions block:
 *     - Those that change keys or plans in a file, kt_gate_verify, kt_gate_take_over and
 *       kt_gate_set_usage wait for each other. They and the functions that create files also wait
 *       until the disk has the data.
 *     - kt_gate_open_with_pepper_file waits for the data of a pipe.
 *     - kt_gate_close waits for the end of the thread that kt_gate_watch started.
 *     The first charge of a subject in a limiter waits for a bounded number of steps. While a
 *     handle is created or closed, no other thread may use it. After fork, the child may use the
 *     parent's handles.
 * Signals and interrupts. A handler that interrupted a call may itself call kt_gate_check and
 *     kt_limiter_check. For a gate file, the thread must have called kt_gate_check before, outside
 *     of a handler, and if uses are counted, the process must have opened the file after
 *     kt_gate_set_usage.
 * Panics. A panic (a defect of this library) never leaves a function. In host builds it becomes
 *     KT_INTERNAL. Without the host part it would loop endlessly. SAFETY.md says why no check
 *     panics.
 * Time. `now_ms` is an explicit time in Unix milliseconds, or KT_SYSTEM_CLOCK. The system clock is
 *     read in the call, and again if a tally is ahead of that reading or lacks room. An explicit
 *     time is used as given and never corrected. An event loop has cached readings of the system
 *     clock. To use such readings, call kt_gate_use_system_clock or kt_limiter_use_system_clock
 *     once, and give them as `now_ms`.
 * Wrong clocks. A tally keeps the latest time by which it was changed. For an earlier time, by any
 *     amount, a decision uses the tally's time instead. A later time moves the tally to that time.
 *     If that time is wrong, the counts of its windows stay until it comes, and `clock_ahead_s`
 *     says how far ahead the tally is. A call by the system clock corrects a tally that is more
 *     than 60 s ahead and keeps its counts. kt_gate_correct_clock and kt_limiter_correct_clock
 *     correct a whole table. A charge counts in the window that contains its decision time, which
 *     kt_charge_at_ms writes. Wrong clocks can let some windows of one tally admit their limit a
 *     second time. These are:
 *     - For late clocks, stale readings and explicit times that disagree: none. In a limiter, one
 *       each time that a caller that is more than 1 s late finds its subject's slot reused. So a
 *       clock that is set back by more than 1 s costs one for each such slot.
 *     - For a system clock that ran more than 60 s ahead and is set right, or that is set back by
 *       more than 60 s: one, when the tally is corrected. Each check that read the clock before the
 *       step and charges after the correction costs one more. So does each thread that is stopped
 *       in the middle of that correction for as long as the tally was ahead.
 *     - For system clocks that stay more than 60 s apart, or explicit times more than 60 s ahead
 *       that are mixed with the system clock: one each time that they take turns. These cases are
 *       outside the guarantee.
 *     If the times of callers differ by up to d, an interval of real time of length s admits at
 *     most the limits of the windows that an interval of length s + d meets.
 * Units. A name ends with its unit: _ms milliseconds, _s seconds, _len and _SIZE bytes. The _len of
 *     an array counts elements. These are times since the Unix epoch: now_ms, at_ms, retry_at_ms,
 *     last_used_ms, expires_s and all that end with _unix_s or _until_s.
 * Stability. Until 1.0 a minor version may change functions and structs, and the SONAME changes
 *     with it. Numbers of statuses, outcomes, reasons and flaws never change their meaning. New
 *     ones may be added. KT_VERSION is the version of the header, kt_version() that of the library.
 * Host builds. A function whose comment says "Host builds only" needs an operating system. A
 *     library that was built without the feature `host`, for bare metal, lacks it. Such a library
 *     needs only memcpy, memmove, memset and memcmp.
 */


#ifndef KEYTALLY_H
#define KEYTALLY_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header. `kt_version` returns that of the library. */
#define KT_VERSION_MAJOR 0
#define KT_VERSION_MINOR 1
#define KT_VERSION_PATCH 0
#define KT_VERSION (KT_VERSION_MAJOR << 16 | KT_VERSION_MINOR << 8 | KT_VERSION_PATCH)
#define KT_VERSION_STRING "0.1.0"

/**
 * A string literal and its length, for two parameters or two members:
 * `kt_policy_parse(KT_TEXT("5/minute"), ...)`.
 */
#define KT_TEXT(literal) (literal), (sizeof(literal) - 1)

/** The value of `kt_limiter_size` as a constant, for arrays. */
#define KT_LIMITER_SIZE(capacity) \
    ((size_t)64 * (3 + 2 * KT_LIMITER_BUCKETS_(capacity) + (KT_LIMITER_BUCKETS_(capacity) + 3) / 4))
#define KT_LIMITER_BUCKETS_(capacity) (((size_t)(capacity) * 3 + 15) / 16)

/** The value of `kt_gate_size` as a constant, for arrays. */
#define KT_GATE_SIZE(keys) ((size_t)64 * (6 + KT_GATE_PLAN_SLOTS / 2 + (size_t)(keys)))

/**
 * 1 in a program for a library that was built without the feature `sections`, which defines it
 * before it includes this header, else 0. The program's handles of gates are then smaller. It
 * cannot be linked with a library that has `sections`, whose handles would not fit.
 */
#ifndef KT_WITHOUT_SECTIONS
#define KT_WITHOUT_SECTIONS 0
#endif
#if KT_WITHOUT_SECTIONS
#define kt_gate_init kt_gate_init_without_sections
#define kt_gate_attach kt_gate_attach_without_sections
#endif

/** Bytes of a gate's handle. */
#define KT_GATE_HANDLE_SIZE \
    (UINTPTR_MAX > UINT32_MAX ? (KT_WITHOUT_SECTIONS ? 1024 : 3072) \
                              : (KT_WITHOUT_SECTIONS ? 768 : 2048))
#define KT_GATE_HANDLE_WORDS_ (KT_GATE_HANDLE_SIZE / 8)


/** The version of the table format. For another version, functions return `KT_OTHER_FORMAT`. */
#define KT_TABLE_FORMAT 2

/**
 * Bytes that are always enough for a policy as text and for a sentence about an invalid one, with
 * the NUL.
 */
#define KT_POLICY_SIZE 256

/**
 * Bytes that are always enough for the sections of a plan as text, with the NUL. They are more
 * than a plan may be written with, since `1/s` becomes `1/second`.
 */
#define KT_SECTIONS_SIZE 1536

/** Bytes of a key as text, with the NUL. */
#define KT_KEY_SIZE 56

/** Bytes of a prefix or an environment, with the NUL. */
#define KT_NAME_SIZE 9

/** Bytes of a key id as text, with the NUL. */
#define KT_KEY_ID_SIZE 12

/** Bytes of a hint, with the NUL. */
#define KT_HINT_SIZE 24

/**
 * As `now_ms`: the system clock. It is read in the call, and again if a tally is ahead of that
 * reading or lacks room. A check first reads the kernel's coarse clock, which is late by up to a
 * tick, and by longer if the kernel could not run its tick. A library without the host part
 * returns `KT_NO_CLOCK`.
 */
#define KT_SYSTEM_CLOCK 18446744073709551615ull

/** The most tallies of a plan, and so the most groups of a request. */
#define KT_MAX_TALLIES 8

/** The most quotas of a policy. */
#define KT_MAX_QUOTAS 4

/** Bytes that are always enough for the header fields of a verdict, with the NUL. */
#define KT_HEADERS_SIZE 640

/** Bytes that are always enough for a problem document, with the NUL. */
#define KT_PROBLEM_SIZE 384

/** The most header fields of a verdict. */
#define KT_MAX_FIELDS 6

/** The value of `calendar` in a quota whose window is a week. */
#define KT_WEEK 32

/** The most parts of a compound charge, and the most tallies that its parts charge together. */
#define KT_MAX_PARTS 8

/** Bytes of the name of a section, with the NUL. */
#define KT_SECTION_SIZE 17

/** Bytes of the name of a quota in header fields, such as `team-hour`, with the NUL. */
#define KT_QUOTA_NAME_SIZE 26

/** Bytes that are always enough for the header fields of a compound charge, with the NUL. */
#define KT_COMPOUND_HEADERS_SIZE 4096

/** Bytes that are always enough for the problem document of a compound charge, with the NUL. */
#define KT_COMPOUND_PROBLEM_SIZE 1280

/** Bytes of a limiter's handle. */
#define KT_LIMITER_HANDLE_SIZE 384

/** The alignment of a handle, in bytes. */
#define KT_HANDLE_ALIGN 8

/** The alignment of a table's memory, in bytes. */
#define KT_TABLE_ALIGN 64

/** Bytes of memory that a limiter of addresses needs in addition to `kt_limiter_size`. */
#define KT_PREFIXES_SIZE 256

/** The most subjects of a limiter. */
#define KT_MAX_SUBJECTS 1073741824

/** The most keys of a gate. */
#define KT_MAX_KEYS 67108864

/**
 * The plans that a gate in the caller's memory has room for. There are few, because two of them
 * take as much memory as a key, and a microcontroller may have only a few KiB.
 */
#define KT_GATE_PLAN_SLOTS 4

/** The most peppers of a gate at a time. */
#define KT_MAX_PEPPERS 4

/** The most scopes of a gate. */
#define KT_MAX_SCOPES 64

/** Random bytes for one new key or secret. */
#define KT_ENTROPY_SIZE 24

/** Bytes of a plan's name, with the NUL. */
#define KT_PLAN_NAME_SIZE 17

/** Bytes of the name of a scope, with the NUL. */
#define KT_SCOPE_SIZE 17

/** Bytes of the name of a window, with the NUL. */
#define KT_WINDOW_SIZE 9

/** Bytes of a key's last characters, with the NUL. */
#define KT_LAST_CHARACTERS_SIZE 5

/** Bytes of a flaw's sentence, with the NUL. */
#define KT_FLAW_SENTENCE_SIZE 192

/** Bytes of a new pepper as text, with the NUL. */
#define KT_PEPPER_SIZE 65

/**
 * The result of a function that can fail: 0 if it did its work, else the reason why it did
 * not. Numbers never change their meaning. `kt_status_message` returns a sentence for each.
 */
enum kt_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Done. */
    KT_OK = 0,
    /** A pointer is NULL that must point to something. */
    KT_NULL_POINTER = 1,
    /**
     * A pointer is not aligned for what it points to; a table's memory begins at a multiple of
     * 64.
     */
    KT_MISALIGNED = 2,
    /** A length exceeds PTRDIFF_MAX bytes or the address space after its pointer. */
    KT_BAD_LENGTH = 3,
    /**
     * The struct is not a handle of this kind: it was never initialized, was closed, or was
     * moved or copied.
     */
    KT_NOT_A_HANDLE = 4,
    /** The handle overlaps the memory that is given for the table; keep the two apart. */
    KT_OVERLAP = 5,
    /** The buffer is too small; one of the size that keytally.h names for it is always enough. */
    KT_BUFFER_TOO_SMALL = 6,
    /**
     * The struct is neither a verdict nor a kt_key_info: this library never wrote it, or it was
     * changed since.
     */
    KT_NOT_A_VERDICT = 7,
    /** The system has no memory for this table. */
    KT_NO_MEMORY = 8,
    /** Keytally has a defect here and stopped; please report it. */
    KT_INTERNAL = 9,
    /** This library has no system clock; give an explicit time, in Unix milliseconds. */
    KT_NO_CLOCK = 10,
    /**
     * The size of a struct leaves out a required member or is above 4096; set its first member
     * to sizeof that struct.
     */
    KT_STRUCT_SIZE = 11,
    /**
     * A struct sets a member, or a call passes a number, that this library does not know; pass
     * zero, or use the library of that header or a newer one.
     */
    KT_UNKNOWN_MEMBER = 12,
    /** There is no quota of that index; they count from 0 to quota_count - 1. */
    KT_NO_SUCH_QUOTA = 13,
    /** A compound charge has 1 to 8 parts, and at most 8 tallies. */
    KT_PART_COUNT = 14,
    /** A part has a gate or a limiter, not both and not none. */
    KT_PART_TABLE = 15,
    /**
     * The struct is not a charge: this library never wrote it, or it was changed since; or the
     * verdict has no charge.
     */
    KT_NOT_A_CHARGE = 16,
    /**
     * The subject is not an address, such as 203.0.113.9 or 2001:db8::1; this limiter counts
     * addresses.
     */
    KT_NOT_AN_ADDRESS = 17,
    /** A policy needs at least one quota, like "100/minute, 1000/hour". */
    KT_POLICY_EMPTY = 20,
    /** The policy is longer than 128 bytes, or the sections of the plan are longer than 512. */
    KT_POLICY_TOO_LONG = 21,
    /**
     * A quota of the policy is not of the form LIMIT/UNIT or LIMIT/N UNIT, like 100/minute,
     * 5/10s or 100 per minute.
     */
    KT_POLICY_SYNTAX = 22,
    /** A limit of the policy is not 1 to 4294967295. */
    KT_POLICY_LIMIT = 23,
    /** A window of the policy is not 1 second to 31 days, week, month, or month@1 to month@31. */
    KT_POLICY_WINDOW = 24,
    /**
     * A unit of the policy is none of second, minute, hour, day, week, month, sec, min, s, m,
     * h, d, w.
     */
    KT_POLICY_UNIT = 25,
    /** The policy has more than 4 quotas. */
    KT_POLICY_TOO_MANY = 26,
    /** Two quotas of the policy have the same window, or both are months. */
    KT_POLICY_DUPLICATE = 27,
    /**
     * A month of the policy cannot slide, since months differ in length; write it in a fixed
     * policy, or use 30d.
     */
    KT_POLICY_SLIDING_MONTH = 28,
    /**
     * The policy needs more than 64 bits for its time and counts; use smaller limits, longer
     * windows or fewer quotas.
     */
    KT_POLICY_TOO_MANY_BITS = 29,
    /** A prefix or an environment is not 1 to 8 characters of a-z and 0-9. */
    KT_NAME_FORM = 30,
    /** Prefix and environment have more than 14 characters together. */
    KT_NAMES_TOO_LONG = 31,
    /** A plan's name is not 1 to 16 characters of a-z, 0-9, - and _. */
    KT_PLAN_NAME_FORM = 32,
    /** A key is prefix_env_ and 39 characters of 0-9, A-Z and a-z. */
    KT_KEY_FORM = 33,
    /** The key's checksum is wrong: a character was mistyped or lost. */
    KT_KEY_CHECKSUM = 34,
    /** A key id is 11 characters of 0-9, A-Z and a-z, and its number is not 0. */
    KT_KEY_ID_FORM = 35,
    /** This build has no sliding windows; build it with the feature `sliding`. */
    KT_NO_SLIDING = 36,
    /** This build has no keys of other forms; build it with the feature `imported-keys`. */
    KT_NO_IMPORTED_KEYS = 37,
    /** This build has one pepper per gate; build it with the feature `pepper-rotation`. */
    KT_NO_PEPPER_ROTATION = 38,
    /** This build has no weeks and months; build it with the feature `calendar`. */
    KT_NO_CALENDAR = 39,
    /** A pepper has fewer than 32 bytes; `openssl rand -hex 32` makes one. */
    KT_PEPPER_TOO_SHORT = 40,
    /**
     * No pepper is given, or more than 4; is KEYTALLY_PEPPER unset, or the file of peppers
     * empty? `openssl rand -hex 32` makes one for a new gate.
     */
    KT_PEPPER_COUNT = 41,
    /** The same pepper is given twice; give each once, newest last. */
    KT_PEPPER_TWICE = 42,
    /** A pepper is neither hex nor base64. */
    KT_PEPPER_FORM = 43,
    /** The file has more than 65536 bytes, so it cannot be a pepper file. */
    KT_PEPPER_FILE_TOO_LONG = 44,
    /** None of the peppers belongs to this gate; give the one that it was created with. */
    KT_WRONG_PEPPER = 45,
    /**
     * The text of the peppers begins with a byte-order mark; save it as ASCII or as UTF-8
     * without that mark.
     */
    KT_PEPPER_BYTE_ORDER_MARK = 46,
    /** This build has no sections, teams and scopes; build it with the feature `sections`. */
    KT_NO_SECTIONS = 50,
    /**
     * A section of the plan is not of the form team: QUOTAS or group NAME: QUOTAS, with a name
     * of 1 to 16 characters of a-z, 0-9, - and _ that is not key or team.
     */
    KT_POLICY_SECTION = 51,
    /** Two sections of the plan have the same name. */
    KT_POLICY_SECTION_TWICE = 52,
    /**
     * The quotas of the plan need more tallies than it may have; drop a group or a window, or
     * lower a limit.
     */
    KT_POLICY_TOO_MANY_TALLIES = 53,
    /** The quotas of the team need more than 2 tallies; drop a window, or lower a limit. */
    KT_POLICY_TOO_MANY_TEAM_TALLIES = 54,
    /**
     * A warning of the plan is not of the form QUOTA warn 80% or QUOTA warn 80% 95%, with
     * ascending percentages from 1% to 100%.
     */
    KT_POLICY_WARNING = 55,
    /**
     * A policy for addresses is not of the form addresses: /PREFIX QUOTAS; /PREFIX QUOTAS, with
     * 1 to 4 different prefixes of 33 to 64.
     */
    KT_POLICY_PREFIX = 56,
    /**
     * The limits of an account have more than quotas: a section, an algorithm or a warning,
     * which only plans have.
     */
    KT_ACCOUNT_LIMITS = 57,
    /**
     * The memory is smaller than the table; kt_limiter_size and kt_gate_size return the size
     * that it needs.
     */
    KT_MEMORY_TOO_SMALL = 60,
    /** A limiter is for 1 to 1073741824 subjects, and a gate for 1 to 67108864 keys. */
    KT_CAPACITY = 61,
    /**
     * A gate needs at least one plan, and has room for 4 in the caller's memory and for 116 in
     * a file.
     */
    KT_PLAN_COUNT = 62,
    /** Two plans have the same name. */
    KT_PLAN_TWICE = 63,
    /**
     * All plans of a gate must share their sections, windows and algorithms, and fit the same
     * tallies together.
     */
    KT_PLAN_WINDOWS = 64,
    /** This is not a keytally table: it does not begin as one does. */
    KT_NOT_A_TABLE = 65,
    /**
     * This table is incomplete: its creation was interrupted, or it was damaged; restore a
     * backup, or create it again.
     */
    KT_UNFINISHED = 66,
    /** This table has another version of the format than this library reads. */
    KT_OTHER_FORMAT = 67,
    /** This is a limiter where a gate was expected, or the other way round. */
    KT_OTHER_KIND = 68,
    /** This table has another size than its header says. */
    KT_TRUNCATED = 69,
    /** This table's header is damaged: it holds a number that no table has. */
    KT_DAMAGED = 70,
    /** The gate has no environment of that number. */
    KT_NO_SUCH_ENV = 71,
    /**
     * The limiter there has another capacity; open it with its own, or create another file, and
     * check requests with both until the longest window of this one has passed.
     */
    KT_OTHER_CAPACITY = 72,
    /**
     * The limiter there has other windows or cannot count a limit; create another file for the
     * new policy, and check requests with both until the longest window of this one has passed.
     */
    KT_OTHER_POLICY = 73,
    /**
     * A gate has at most 64 scopes, each of 1 to 16 printable ASCII characters without spaces,
     * commas and quotation marks, and each once.
     */
    KT_SCOPES = 74,
    /** The room for teams is at most 67108864, and at least 1 if a plan has a section for teams. */
    KT_TEAM_COUNT = 75,
    /** The window to describe must be that of a quota of keys, such as month. */
    KT_DESCRIBED = 76,
    /** Another administrator is changing this gate; try again, wait longer, or end that process. */
    KT_BUSY = 80,
    /**
     * The gate is full: all its records hold keys, and that of a revoked or expired key is free
     * once its longest window has passed; for room at once, enlarge the gate: `keytally
     * migrate`.
     */
    KT_GATE_FULL = 81,
    /**
     * The records that this key could be imported into are taken; migrate the gate to one with
     * a third more keys than you import.
     */
    KT_NO_ROOM_TO_IMPORT = 82,
    /** The gate has no such key. */
    KT_NO_SUCH_KEY = 83,
    /** The gate has no such plan. */
    KT_NO_SUCH_PLAN = 84,
    /** The gate has no room for another plan. */
    KT_PLANS_FULL = 85,
    /** A limit of the plan is more than this gate's tallies can count in that window. */
    KT_PLAN_LIMIT = 86,
    /** The gate has room for 16 environments and has them all. */
    KT_ENVS_FULL = 87,
    /** The key was revoked and cannot be changed; issue a new one. */
    KT_REVOKED = 88,
    /** The key's record is damaged; kt_gate_verify reports how. */
    KT_RECORD_DAMAGED = 89,
    /** The key is in the gate already. */
    KT_ALREADY_IMPORTED = 90,
    /** A key to import has 16 to 256 bytes of printable ASCII without spaces. */
    KT_NOT_IMPORTABLE = 91,
    /**
     * Keys under 4 peppers are in this gate; rotate those of the oldest pepper before you use
     * another.
     */
    KT_PEPPERS_FULL = 92,
    /**
     * The secret that the key had before its last rotation is still valid, and another rotation
     * would end it at once; wait, or force the rotation.
     */
    KT_IN_GRACE = 93,
    /** The gate has no room for another team; create one with room for more. */
    KT_TEAMS_FULL = 94,
    /**
     * The gate has no such account; an account is made with its first key, in a gate with room
     * for teams.
     */
    KT_NO_SUCH_ACCOUNT = 95,
    /** The gate has no such scope; its scopes are named when it is created, at most 64. */
    KT_NO_SUCH_SCOPE = 96,
    /** The plans of this gate have no such group or section. */
    KT_NO_SUCH_GROUP = 97,
    /**
     * The uses of the gate's keys are not counted, or the file of the counts cannot be opened;
     * kt_gate_set_usage begins to count them.
     */
    KT_NOT_COUNTED = 98,
    /** There is no such file or folder. */
    KT_FILE_NOT_FOUND = 100,
    /** The system does not let this process do that with the file. */
    KT_FILE_DENIED = 101,
    /** A file of that name already exists, and it was not changed. */
    KT_FILE_EXISTS = 102,
    /**
     * The file's group or every user has access to it; fix it with: chmod 600 FILE, or, if root
     * owns a file of peppers, with: chmod go-w FILE.
     */
    KT_FILE_MODE = 103,
    /**
     * The file belongs to a user who is neither this process's nor root; fix it with: chown
     * USER FILE.
     */
    KT_FILE_OWNER = 104,
    /**
     * This is not a regular file: the path is that of a folder, a device or the like, or the
     * gate is in memory.
     */
    KT_NOT_A_FILE = 105,
    /** This is not a keytally table: the file is too short to be one. */
    KT_FILE_TOO_SHORT = 106,
    /** The file was removed or replaced since it was opened; open it again. */
    KT_FILE_REPLACED = 107,
    /** There is no room on the disk. */
    KT_DISK_FULL = 108,
    /** The system provides no random bytes. */
    KT_NO_ENTROPY = 109,
    /**
     * The system refused to read, write, map or lock the file, or to start a thread; errno may
     * hold the reason.
     */
    KT_IO = 110,
    /** This process has joined a fleet with the gate or limiter already. */
    KT_JOINED = 120,
    /**
     * This is not the fleet file of the gate or limiter, or its credits are void, as after a
     * restart of the machine; give the path that `keytally agent` was given, and start the
     * agent.
     */
    KT_NOT_A_FLEET_FILE = 121,
    /**
     * A fleet shares fixed windows only, and this policy has sliding ones: write `fixed` in its
     * text.
     */
    KT_FLEET_SLIDING = 122,
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
    /** The request is admitted, and its cost is charged. */
    KT_ADMITTED = 0,
    /** Some window lacks room. Nothing is charged. */
    KT_DENIED = 1,
    /** No key was presented. */
    KT_MISSING_KEY = 2,
    /** The key is invalid; see `kt_reason`. Do not disclose the reason to the client. */
    KT_INVALID_KEY = 3,
    /** The cost is above a limit and can never be admitted. */
    KT_TOO_COSTLY = 4,
    /** A limiter with `KT_ON_FULL_REFUSE` has no slot for a new subject. Nothing is charged. */
    KT_FULL = 5,
    /** The key does not have a scope that the request needs; nothing is charged. */
    KT_FORBIDDEN = 6,
    /** The gate does not decide now; see `kt_unavailability`. Nothing is charged. */
    KT_UNAVAILABLE = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_outcome kt_outcome;
#else
typedef uint8_t kt_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Why a key is invalid. For logs and metrics only: do not disclose it to the client. */
enum kt_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The key is not invalid. */
    KT_REASON_NONE = 0,
    /**
     * The text does not have this library's form, and cannot be an imported key: the gate has
     * none, or the text has fewer than 16 or more than 256 bytes.
     */
    KT_REASON_MALFORMED = 1,
    /**
     * The text has this library's form and a wrong checksum, as after a typing error. No
     * imported key has this text.
     */
    KT_REASON_CHECKSUM = 2,
    /**
     * No key of this gate has this key id. For a text without this library's form: the gate
     * has imported keys, and none under a pepper of this process has this text.
     */
    KT_REASON_UNKNOWN = 3,
    /** The key id exists, and the secret is wrong. */
    KT_REASON_WRONG_SECRET = 4,
    /** The key was revoked. */
    KT_REASON_REVOKED = 5,
    /** The key has expired, or its previous secret was sent after the grace of a rotation. */
    KT_REASON_EXPIRED = 6,
    /** The request has the key header more than once. */
    KT_REASON_DUPLICATE = 7,
    /** The key belongs to a pepper that this process was not given. */
    KT_REASON_PEPPER_MISSING = 8,
    /** The key's record is damaged. */
    KT_REASON_DAMAGED = 9,
    /** The key's team is suspended. */
    KT_REASON_SUSPENDED = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_reason kt_reason;
#else
typedef uint8_t kt_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Why a gate does not decide about a request now. */
enum kt_unavailability
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The gate has decided. */
    KT_UNAVAILABILITY_NONE = 0,
    /** The key's counts are being moved to another file, which is not in force yet. */
    KT_UNAVAILABILITY_MOVING = 1,
    /** The gate is in a fleet, and this process did not join it: see `kt_gate_join`. */
    KT_UNAVAILABILITY_NOT_RESERVING = 2,
    /**
     * The store of the limits that machines share cannot be reached, and the operator of the
     * agent chose to admit nothing then.
     */
    KT_UNAVAILABILITY_LOST = 3,
    /** Credits were requested: check again after a millisecond. See `kt_patience`. */
    KT_UNAVAILABILITY_WAITING = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_unavailability kt_unavailability;
#else
typedef uint8_t kt_unavailability;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a request in a fleet does if it lacks credits that the store may have. It has no effect
 * outside of a fleet: see `kt_gate_join` and `kt_limiter_join`.
 */
enum kt_patience
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It waits for the agent, at most 20 ms or what `kt_gate_set_credit_wait` sets. */
    KT_PATIENCE_WAIT = 0,
    /**
     * Its outcome is `KT_UNAVAILABLE`, with the unavailability `KT_UNAVAILABILITY_WAITING`, and
     * the caller checks again after a millisecond.
     */
    KT_PATIENCE_RETURN = 1,
    /** It is decided as after a wait without effect: by the choice of the agent's operator. */
    KT_PATIENCE_DECIDE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_patience kt_patience;
#else
typedef uint32_t kt_patience;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What happens to a request whose subject is new and finds no slot in a limiter. */
enum kt_on_full
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It is charged to an overflow tally, under the same limits. The subjects that find the same
     * bucket full share one. A subject that gets a slot later begins there with its whole limit.
     * This is the value of a new limiter.
     */
    KT_ON_FULL_SHARE = 0,
    /** It is refused with the outcome `KT_FULL`. */
    KT_ON_FULL_REFUSE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_on_full kt_on_full;
#else
typedef uint8_t kt_on_full;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The kind of a flaw in a record. */
enum kt_flaw_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The record is half-written, and no redo record completes it. */
    KT_FLAW_HALF_WRITTEN = 0,
    /** The key id belongs in another record, so no check finds this one. */
    KT_FLAW_MISPLACED = 1,
    /** The gate has no plan of that number. */
    KT_FLAW_NO_PLAN = 2,
    /** The gate has no environment of that number. */
    KT_FLAW_NO_ENV = 3,
    /** The gate has no pepper of that number. */
    KT_FLAW_NO_PEPPER = 4,
    /** The tally is not a valid tally. */
    KT_FLAW_NO_TALLY = 5,
    /**
     * The tally is more than 60 s ahead of the call's time. If a wrong clock stamped it, the next
     * check by the system clock corrects it.
     */
    KT_FLAW_FUTURE_TALLY = 6,
    /** A flaw that this version of the header has no name for; see the sentence. */
    KT_FLAW_OTHER = 7,
    /** The words of the record do not have the checksum that was stored with them. */
    KT_FLAW_CHECKSUM = 8,
    /** The team of the record does not exist, or is of another account. */
    KT_FLAW_NO_TEAM = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kt_flaw_kind kt_flaw_kind;
#else
typedef uint32_t kt_flaw_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The public parts of a key. This library writes it; reserved members are zeros. */
typedef struct kt_key_parts {
    /** The key id. */
    uint64_t key_id;
    /** The prefix, with a NUL. */
    char prefix[KT_NAME_SIZE];
    /** The environment, with a NUL. */
    char env[KT_NAME_SIZE];
    /** Zeros. */
    uint8_t reserved_[14];
} kt_key_parts;

/**
 * A complete key with its secret, as text with a NUL. This is the only copy of the secret.
 *
 * Hand it to its holder, then call `kt_key_wipe`. Do not log it.
 */
typedef struct kt_key {
    /** The text. */
    char text[KT_KEY_SIZE];
} kt_key;

/**
 * What a request was charged: an opaque struct of a fixed size and without pointers, which may
 * be copied, stored and sent. Refunds and settlements take it.
 *
 * `kt_verdict_charge` and `kt_charge_new` write it. Its 128 bytes are the same in every
 * language and on every machine. Zeros are not a charge.
 */
typedef struct kt_charge {
    /** The bytes of the charge. Only this library reads their content. */
    uint64_t words[16];
} kt_charge;

/**
 * The answer to a check: a struct without pointers, which may be copied, stored and sent.
 *
 * Its size is fixed. This library writes it; reserved members are zeros. `kt_verdict_quota`
 * returns its quotas.
 */
typedef struct kt_verdict {
    /** What was decided. */
    kt_outcome outcome;
    /** Why the key is invalid. Do not disclose it to the client. */
    kt_reason reason;
    /**
     * The HTTP status: 401, 403, 429, 503, or 200 if admitted, which the application may
     * replace.
     */
    uint16_t http_status;
    /** Seconds to wait, at least 1. 0 unless denied, full or unavailable. */
    uint32_t retry_after_s;
    /**
     * The key id. 0 if the holder is not known. It is known once the secret was found right,
     * also if the key was revoked or has expired.
     */
    uint64_t key_id;
    /** The account (team) that the key belongs to. Without meaning if `key_id` is 0. */
    uint32_t account;
    /** The number of the key's plan; `kt_gate_plan` returns its name. */
    uint8_t plan;
    /** The number of the key's environment; `kt_gate_env` returns its name. */
    uint8_t env;
    /** The number of quotas. 0 if the check reached no tally. */
    uint8_t quota_count;
    /**
     * 1 if a limiter had no slot for the subject and charged it to an overflow tally, which it
     * shares with others, or denied it for lack of room there. Else 0. See `kt_on_full`.
     */
    uint8_t is_shared;
    /** The time that the decision holds for, in Unix milliseconds. */
    uint64_t at_ms;
    /**
     * The caller's time in Unix milliseconds: the explicit time, or the last reading of the
     * system clock.
     */
    uint64_t now_ms;
    /** When to try a denied request again, in Unix milliseconds. 0 unless denied or full. */
    uint64_t retry_at_ms;
    /** The cost of the request. */
    uint32_t cost;
    /**
     * The units that were charged, for `kt_verdict_charge`. 0 unless a check was admitted, so
     * also after a peek. 0 also after a `kt_gate_check` of a gate that is not plain: the
     * verdict has no charge then, see `kt_gate_check_request`.
     */
    uint32_t charged;
    /** The units that a `settle` found no room for. 0 in every other verdict. */
    uint32_t uncharged;
    /**
     * By how many seconds the tally was ahead of the caller, rounded up; 0 if it was not. More
     * than 60 means that a clock, or an explicit time, was wrong. The next check by the system
     * clock corrects the tally.
     */
    uint32_t clock_ahead_s;
    /** The quotas in a form of this library: see `kt_verdict_quota`. */
    uint32_t private_[32];
    /**
     * 1 if the counts are those of units that the machines of a fleet share, 0 if the tally of
     * this machine decided. See `kt_gate_join`.
     */
    uint8_t is_leased;
    /** Why the outcome is `KT_UNAVAILABLE`. */
    kt_unavailability unavailability;
    /** Zeros. */
    uint8_t reserved_1_[6];
    /** Zeros. */
    uint64_t reserved_[7];
} kt_verdict;

/**
 * One window of a verdict or of a key, after the decision. This library writes it; reserved
 * members are zeros.
 */
typedef struct kt_quota {
    /** The most units that one window admits. */
    uint32_t limit;
    /** The units that are left, at most the limit. */
    uint32_t remaining;
    /** The length of the window in seconds; of a month that of the longest one, 31 days. */
    uint32_t window_s;
    /** 1 if the request was denied because this window lacks room, else 0. */
    uint8_t lacking;
    /**
     * 1 if the units counted now still count in the next window, as in a sliding window, else
     * 0.
     */
    uint8_t lasting;
    /**
     * 1 to 31 if the window is a month that begins on this day, `KT_WEEK` if it is a week that
     * begins on Monday, else 0.
     */
    uint8_t calendar;
    /** Zero. */
    uint8_t reserved_8_;
    /** When all units counted now will be forgotten, in Unix seconds. */
    uint64_t reset_unix_s;
    /** Zeros. */
    uint64_t reserved_[5];
} kt_quota;

/** A header field of a response. */
typedef struct kt_field {
    /** The name, with a NUL. The text is static. */
    const char *name;
    /** The name's length. */
    size_t name_len;
    /** The value, with a NUL. It lies in the `buffer` of the call. */
    const char *value;
    /** The value's length. */
    size_t value_len;
} kt_field;

/**
 * The verdict on one tally of a compound charge. Its size is fixed. This library writes it;
 * reserved members are zeros.
 */
typedef struct kt_tally {
    /** The verdict. */
    kt_verdict verdict;
    /** The charge in a form of this library: see `kt_compound_charge`. */
    uint64_t private_[2];
    /**
     * The section of the gate's plans: `key`, `team` or the name of a group, with a NUL. In a
     * limiter of addresses, a network larger than the client's own: `prefix-56`. Otherwise
     * empty for a limiter, and if the check reached no tally.
     */
    char section[KT_SECTION_SIZE];
    /** The index of the part in the call. */
    uint8_t part;
    /**
     * The warnings that this charge reached: for each quota of the verdict, up to two
     * percentages of its limit, else 0. One request reports each warning.
     */
    uint8_t crossed[8][2];
    /** Zeros. */
    uint8_t reserved_[14];
} kt_tally;

/**
 * The answer to a request that charges several tallies, all or none. It is a struct without
 * pointers, which may be copied, stored and sent.
 *
 * Its size is fixed. This library writes it; reserved members are zeros.
 */
typedef struct kt_compound {
    /** What was decided about the request. */
    kt_outcome outcome;
    /** Why a key is invalid. Do not disclose it to the client. */
    kt_reason reason;
    /**
     * The HTTP status: 401, 403, 429, 503, or 200 if admitted, which the application may
     * replace.
     */
    uint16_t http_status;
    /** Seconds to wait, at least 1. 0 unless denied or full. */
    uint32_t retry_after_s;
    /** The key id of the first key whose secret is right. 0 if there is none. */
    uint64_t key_id;
    /** The account (team) of that key. Without meaning if `key_id` is 0. */
    uint32_t account;
    /** The number of that key's plan; `kt_gate_plan` returns its name. */
    uint8_t plan;
    /** The number of that key's environment; `kt_gate_env` returns its name. */
    uint8_t env;
    /** The number of verdicts in `tallies`, at least 1. */
    uint8_t tally_count;
    /**
     * The index of the verdict that decided. It is that of a missing or invalid key, else of a
     * missing scope, else of a full limiter, else of a tally that the cost is above a limit
     * of, else the denial that lasts longest. If the request is admitted, it is 0.
     */
    uint8_t decisive_index;
    /** When to try a denied request again, in Unix milliseconds. 0 unless denied or full. */
    uint64_t retry_at_ms;
    /**
     * The units left in the window that the fields `X-RateLimit-*` describe; 0 if there is
     * none.
     */
    uint32_t remaining;
    /** Zero. */
    uint32_t reserved_4_;
    /** Zeros. */
    uint64_t reserved_[3];
    /**
     * The verdicts, in the order of the parts. Those of a gate are in the order of its
     * sections, and the first of them is that of the key. If the request is refused, each part
     * that refused it has a verdict with another outcome than `KT_ADMITTED`.
     */
    kt_tally tallies[KT_MAX_PARTS];
} kt_compound;

/**
 * A handle of a limiter in one process.
 *
 * Declare one in addition to the table's memory and give it to `kt_limiter_init` or
 * `kt_limiter_attach`, or get a pointer to one from `kt_limiter_open`. Do not move or copy it
 * while it is in use. Its content is private.
 */
typedef struct kt_limiter {
    uint64_t private_[48];
} kt_limiter;

/** A group of a gate's plans, and its cost. This struct does not change. */
typedef struct kt_group {
    /** The name of the group. */
    const char *name;
    /** The name's length. */
    size_t name_len;
    /**
     * The units of the group, for example the number of tokens. Without meaning if
     * `has_own_cost` is 0.
     */
    uint32_t cost;
    /** 0 if the group is charged the cost of the request, else 1. */
    uint32_t has_own_cost;
} kt_group;

/** A name, such as that of a scope. This struct does not change. */
typedef struct kt_name {
    /** The name. */
    const char *text;
    /** Its length. */
    size_t text_len;
} kt_name;

/**
 * A request with options, for `kt_gate_check_request` and `kt_limiter_check_request`. It may
 * get more members; see "Structs" in the contract.
 *
 * ```c
 * const kt_group groups[] = {{KT_TEXT("write"), 0, 0}, {KT_TEXT("tokens"), 2500, 1}};
 * const kt_name need[] = {{KT_TEXT("write")}};
 * kt_request request = {sizeof request, 1, KT_SYSTEM_CLOCK, groups, 2, need, 1, 0, 0};
 * ```
 */
typedef struct kt_request {
    /** `sizeof` this struct. */
    uint32_t size;
    /** The units to charge. 0 is admitted and charges nothing. */
    uint32_t cost;
    /** An explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`. */
    uint64_t now_ms;
    /** The groups of the gate's plans that the request charges, too. */
    const kt_group *groups;
    /** The number of groups. */
    size_t groups_len;
    /** The scopes that the key must have. */
    const kt_name *need;
    /** The number of scopes. */
    size_t need_len;
    /**
     * What the request does if it lacks credits of a fleet. If `size` ends before this member,
     * it waits.
     */
    kt_patience patience;
    /** Zero. */
    uint32_t reserved_;
} kt_request;

/**
 * What a request really cost, for `kt_gate_settle_all` and `kt_limiter_settle_all`. It may get
 * more members; see "Structs" in the contract.
 *
 * ```c
 * const kt_group groups[] = {{KT_TEXT("tokens"), 2310, 1}};
 * kt_settlement settlement = {.size = sizeof settlement, .groups = groups, .groups_len = 1};
 * ```
 */
typedef struct kt_settlement {
    /** `sizeof` this struct. */
    uint32_t size;
    /** The cost of the request itself. Without meaning if `has_cost` is 0. */
    uint32_t cost;
    /** 0 if the estimate of the request's own cost was right, else 1. */
    uint8_t has_cost;
    /**
     * 1 if units for which there is no room are counted, too. The windows are then above their
     * limits, and deny requests for longer. Else 0.
     */
    uint8_t overdraw;
    /** Zeros. */
    uint8_t reserved_[6];
    /**
     * The costs of groups that were charged a cost of their own. A group that is left out, or
     * whose `has_own_cost` is 0, keeps its estimate.
     */
    const kt_group *groups;
    /** The number of groups, at most `KT_MAX_TALLIES`. */
    size_t groups_len;
} kt_settlement;

/** A plan: quotas with a name. This struct does not change. */
typedef struct kt_plan {
    /** The name: 1 to 16 characters of a-z, 0-9, - and _. */
    const char *name;
    /** The name's length. */
    size_t name_len;
    /**
     * The quotas in sections, such as
     * `100/minute, 30000/month; team: 5000/hour; group write: 20/minute`. A policy is the
     * section of the key alone.
     */
    const char *sections;
    /** The length of the sections. */
    size_t sections_len;
} kt_plan;

/** The configuration of a new gate. It may get more members; see "Structs" in the contract. */
typedef struct kt_gate_config {
    /** `sizeof` this struct. */
    uint32_t size;
    /** The most keys, 1 to `KT_MAX_KEYS`. */
    uint32_t keys;
    /**
     * The plans. The first is for keys that name none. All have the same sections, windows
     * and algorithms.
     */
    const kt_plan *plans;
    /**
     * The number of plans, at least 1. At most `KT_GATE_PLAN_SLOTS` in the caller's memory,
     * and 116 in a file.
     */
    size_t plans_len;
    /** The text that each key begins with: 1 to 8 characters of a-z and 0-9. */
    const char *prefix;
    /** The prefix's length. */
    size_t prefix_len;
    /**
     * The most teams (accounts), which take 64 bytes each. 0 stands for the number of keys if
     * the plans have a section `team`, and else for none. If `size` ends before this member,
     * it is 0.
     */
    uint32_t teams;
    /** Zero. */
    uint32_t reserved_;
    /** The names of the scopes that keys may have, of 1 to 16 characters each. */
    const kt_name *scopes;
    /** The number of scopes, at most `KT_MAX_SCOPES`. */
    size_t scopes_len;
    /**
     * The window that `X-RateLimit-*` describe, such as `month`: one of the quotas of keys. An
     * empty text stands for the longest of at most a day, or the shortest if all are longer.
     */
    const char *described;
    /** The length of the window's text. */
    size_t described_len;
} kt_gate_config;

/** Bytes, such as a pepper. This struct does not change. */
typedef struct kt_bytes {
    /** The first byte. */
    const uint8_t *data;
    /** The number of bytes. */
    size_t len;
} kt_bytes;

/**
 * A handle of a gate in one process, with the server's peppers, which are never in the table.
 *
 * Declare one in addition to the table's memory and give it to `kt_gate_init` or `kt_gate_attach`,
 * or get a pointer to one from `kt_gate_open`. Do not move or copy it while it is in use. Its
 * content is private.
 */
typedef struct kt_gate {
    uint64_t private_[KT_GATE_HANDLE_WORDS_];
} kt_gate;

/** A key or a subject with a cost, for `kt_check_all`. This struct does not change. */
typedef struct kt_part {
    /** The gate of the key; NULL for a subject. */
    kt_gate *gate;
    /** The limiter of the subject; NULL for a key. */
    kt_limiter *limiter;
    /** The key or the subject. NULL for a key that the request does not have. */
    const uint8_t *text;
    /** The length of the text in bytes. */
    size_t text_len;
    /** The units to charge. 0 is admitted and charges nothing. */
    uint32_t cost;
    /**
     * What the request does if it lacks credits of the gate's fleet. `KT_PATIENCE_WAIT` for a
     * subject.
     */
    kt_patience patience;
    /** The groups of the gate's plans that the request charges, too. None for a subject. */
    const kt_group *groups;
    /** The number of groups. */
    size_t groups_len;
    /** The scopes that the key must have. None for a subject. */
    const kt_name *need;
    /** The number of scopes. */
    size_t need_len;
} kt_part;

/** The properties of a new key. It may get more members; see "Structs" in the contract. */
typedef struct kt_new_key {
    /** `sizeof` this struct. */
    uint32_t size;
    /** The account (team) that the key belongs to. */
    uint32_t account;
    /**
     * The environment: 1 to 8 characters of a-z and 0-9. A gate has room for 16 different
     * ones.
     */
    const char *env;
    /** The environment's length. */
    size_t env_len;
    /** The plan's name. If the length is 0, the gate's first plan. */
    const char *plan;
    /** The length of the plan's name. */
    size_t plan_len;
    /**
     * When the key expires, in Unix seconds; 0 for never. If `size` ends before this member,
     * it is 0.
     */
    uint32_t expires_s;
    /** Zero. */
    uint32_t reserved_;
    /** The scopes of the key. */
    const kt_name *scopes;
    /** The number of scopes. */
    size_t scopes_len;
} kt_new_key;

/**
 * The properties of a key that may be shown.
 *
 * Its size is fixed. This library writes it; reserved members are zeros. `kt_key_info_quota`
 * returns its quotas.
 */
typedef struct kt_key_info {
    /** The key id. */
    uint64_t key_id;
    /**
     * When a charge, refund or settle last changed the key's counts, in Unix milliseconds. It
     * is rounded down to the policy's shortest window, to less if its windows do not nest, and
     * to a day if all are weeks and months. 0 if its tally counts no unit, as before the first
     * charge and after a reset.
     */
    uint64_t last_used_ms;
    /** The account (team) that the key belongs to. */
    uint32_t account;
    /** When the key expires, in Unix seconds; 0 for never. */
    uint32_t expires_s;
    /**
     * Until when the previous secret is valid, in Unix seconds: until its grace ends or the
     * key expires. 0 if it is not valid now, as after a revocation.
     */
    uint32_t grace_until_s;
    /** 1 if the key was revoked, else 0. */
    uint8_t revoked;
    /** The number of the plan; `kt_gate_plan` returns its name. */
    uint8_t plan;
    /** The number of the pepper that the secret is stored under. */
    uint8_t pepper;
    /** The number of quotas. */
    uint8_t quota_count;
    /** By how many seconds the tally is ahead of the caller's time, rounded up; 0 if it is not. */
    uint32_t clock_ahead_s;
    /** The environment, with a NUL. Empty in a damaged record. */
    char env[KT_NAME_SIZE];
    /**
     * The last four characters of the key, with a NUL. Empty if the gate does not store them,
     * as in the caller's memory.
     */
    char last_characters[KT_LAST_CHARACTERS_SIZE];
    /** Zeros. */
    uint8_t reserved_8_[6];
    /**
     * The quotas, now or at the tally's own time if that is ahead, in a form of this library:
     * see `kt_key_info_quota`.
     */
    uint64_t private_at_ms_;
    /** More of the quotas, in the same form. */
    uint32_t private_[32];
    /**
     * The scopes that the key has, one bit each: bit 0 for the scope that `kt_gate_scope`
     * names at index 0.
     */
    uint64_t scopes;
    /** Zeros. */
    uint64_t reserved_[7];
} kt_key_info;

/**
 * A callback for each key, with the `context` that was given to `kt_gate_list`. `info` is valid
 * during the callback only. Return 0 to continue and any other number to end the list. Do not
 * leave it by an exception or `longjmp`.
 */
typedef int (*kt_key_visitor)(void *context, const kt_key_info *info);

/** A plan of a gate. Its size is fixed. This library writes it; reserved members are zeros. */
typedef struct kt_plan_info {
    /** The name, with a NUL. */
    char name[KT_PLAN_NAME_SIZE];
    /** The quotas in sections, with a NUL. */
    char sections[KT_SECTIONS_SIZE];
    /** Zeros. */
    uint8_t reserved_[239];
} kt_plan_info;

/**
 * A flaw: content of a gate that neither an administrator nor a check can have left. Its size
 * is fixed. This library writes it; reserved members are zeros.
 */
typedef struct kt_flaw {
    /** The key that the record holds; 0 if it is not known. */
    uint64_t key_id;
    /** The number of the record. */
    uint32_t record;
    /** The kind of flaw. */
    kt_flaw_kind kind;
    /** A sentence about it, with a NUL. */
    char sentence[KT_FLAW_SENTENCE_SIZE];
    /** Zeros. */
    uint64_t reserved_[2];
} kt_flaw;

/**
 * A callback for each flaw, with the `context` that was given to `kt_gate_verify`. `flaw` is valid
 * during the callback only. Do not leave it by an exception or `longjmp`.
 */
typedef void (*kt_flaw_visitor)(void *context, const kt_flaw *flaw);

/**
 * The properties of an account in a gate with teams.
 *
 * Its size is fixed. This library writes it; reserved members are zeros.
 * `kt_account_info_quota` returns its quotas.
 */
typedef struct kt_account_info {
    /** The number of the account. */
    uint32_t account;
    /** 1 if the keys of the account are refused, else 0. */
    uint8_t suspended;
    /**
     * The number of the plan whose team limits hold for the account; `kt_gate_plan` returns
     * its name.
     */
    uint8_t plan;
    /** 1 if the account has limits of its own instead of the plan's, else 0. */
    uint8_t has_own_limits;
    /** The number of quotas. 0 if the plans have no section `team`, or do not limit it. */
    uint8_t quota_count;
    /**
     * The quotas that all keys of the account share, in a form of this library: see
     * `kt_account_info_quota`.
     */
    uint64_t private_at_ms_;
    /** More of the quotas, in the same form. */
    uint32_t private_[32];
    /** Zeros. */
    uint64_t reserved_[6];
} kt_account_info;

/**
 * A callback for each account, with the `context` that was given to `kt_gate_accounts`. `info` is
 * valid during the callback only. Return 0 to continue and any other number to end the list. Do
 * not leave it by an exception or `longjmp`.
 */
typedef int (*kt_account_visitor)(void *context, const kt_account_info *info);

/**
 * How a key was used, since the gate counts uses. A request counts only if its secret was
 * right. Host builds only.
 *
 * Its size is fixed. This library writes it; reserved members are zeros. A count of 32 bits
 * continues from 0 after 4294967295.
 */
typedef struct kt_key_usage {
    /** The units that the admitted requests cost, without those that were given back. */
    uint64_t units;
    /** When a request was last admitted, in Unix seconds; 0 if none was. */
    uint64_t last_used_s;
    /** The requests that were admitted. */
    uint32_t admitted;
    /**
     * The requests that were admitted with the previous secret, during the grace of a
     * rotation. `admitted` includes them.
     */
    uint32_t with_previous_secret;
    /** The requests that the quotas of the key denied. */
    uint32_t denied_by_key;
    /** The requests that the quotas of the key's team denied. */
    uint32_t denied_by_team;
    /** The requests that the quotas of a group denied. */
    uint32_t denied_by_group;
    /** The requests that needed a scope that the key did not have. */
    uint32_t forbidden;
    /** The requests after the key was revoked. */
    uint32_t revoked;
    /** The requests after the key, or its previous secret, expired. */
    uint32_t expired;
    /** The requests while the account of the key was suspended. */
    uint32_t suspended;
    /** Zero. */
    uint32_t reserved_4_;
    /** Zeros. */
    uint64_t reserved_[9];
} kt_key_usage;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the library in use: `major << 16 | minor << 8 | patch`.
 *
 * `KT_VERSION` is the version of the header that a program was compiled with. The two may differ
 * if the library is shared.
 */
uint32_t kt_version(void);

/**
 * Returns the version of the library in use as text, such as `0.1.0`. Never NULL. The text is
 * static: do not free it.
 */
const char *kt_version_string(void);

/**
 * Returns the message of a status: one English sentence, without a full stop, on what is wrong and
 * what is expected instead.
 *
 * Never returns NULL: an unknown number has a message too. The text is static: do not free it. Any
 * thread may call this function.
 *
 * ```c
 * kt_status status = kt_limiter_open("addresses.limiter", &limiter);
 * if (status != KT_OK) fprintf(stderr, "addresses.limiter: %s\n", kt_status_message(status));
 * ```
 */
const char *kt_status_message(kt_status status);

/**
 * Parses a policy, and writes it in its normal form: `1000/hour,100/m` becomes
 * `100/minute, 1000/hour`. In a host build, it may be one for addresses: see `kt_limiter_init`.
 *
 * Writes the policy and a NUL into `buffer`, and its length without the NUL to `written_out`.
 *
 * Statuses: those that begin with `KT_POLICY_`. `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are
 * always enough, and for a policy for addresses `KT_SECTIONS_SIZE`.
 */
kt_status kt_policy_parse(const char *policy,
                          size_t policy_len,
                          char *buffer,
                          size_t buffer_len,
                          size_t *written_out);

/**
 * Parses the sections of a plan, and writes them in their normal form:
 * `100/m;team:5000/hour` becomes `100/minute; team: 5000/hour`.
 *
 * Writes the sections and a NUL into `buffer`, and their length without the NUL to `written_out`.
 *
 * Statuses: those that begin with `KT_POLICY_`, `KT_NO_SECTIONS`. `KT_BUFFER_TOO_SMALL`;
 * `KT_SECTIONS_SIZE` bytes are always enough.
 */
kt_status kt_sections_parse(const char *sections,
                            size_t sections_len,
                            char *buffer,
                            size_t buffer_len,
                            size_t *written_out);

/**
 * Writes one sentence about what is wrong with a policy, for the person who wrote the policy.
 * Writes the empty text if the policy is valid.
 *
 * Writes the sentence and a NUL into `buffer`, and its length without the NUL to `written_out`.
 * Unlike `kt_status_message`, it names the part of the policy that is wrong. A part with 16 bytes
 * or more between spaces, commas, semicolons and colons may be a key that was given by mistake,
 * and is not named. The sentence is then that of `kt_status_message`.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough.
 */
kt_status kt_policy_explain(const char *policy,
                            size_t policy_len,
                            char *buffer,
                            size_t buffer_len,
                            size_t *written_out);

/**
 * Writes one sentence about what is wrong with the sections of a plan, for the person who wrote
 * them. Writes the empty text if they are valid.
 *
 * The sentence is as in `kt_policy_explain`.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough.
 */
kt_status kt_sections_explain(const char *sections,
                              size_t sections_len,
                              char *buffer,
                              size_t buffer_len,
                              size_t *written_out);

/**
 * Parses a key without a gate: checks its form and its checksum, and writes its public parts.
 * Whether a gate holds the key remains open.
 *
 * Statuses: `KT_KEY_FORM`, `KT_KEY_CHECKSUM`.
 */
kt_status kt_key_parse(const uint8_t *api_key, size_t api_key_len, kt_key_parts *parts_out);

/**
 * Makes the text of a key from its parts. A gate does this itself when it issues a key. `secret`
 * is 16 random bytes.
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

/** Overwrites a key with zeros in a way that a compiler cannot leave out. Does nothing for NULL. */
void kt_key_wipe(kt_key *key);

/**
 * Writes what may be shown of a key, such as `kt_live_…9aZk`: UTF-8 and a NUL. Writes the length
 * without the NUL to `written_out`.
 *
 * Of a key of another form, only the last four characters are shown; of a short one, none.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`; `KT_HINT_SIZE` bytes are always enough.
 */
kt_status kt_key_hint(const uint8_t *api_key,
                      size_t api_key_len,
                      char *buffer,
                      size_t buffer_len,
                      size_t *written_out);

/**
 * Writes a key id as its 11 characters and a NUL. Writes the length without the NUL to
 * `written_out`.
 *
 * Statuses: `KT_KEY_ID_FORM` for 0. `KT_BUFFER_TOO_SMALL`; `KT_KEY_ID_SIZE` bytes are always
 * enough.
 */
kt_status kt_key_id_text(uint64_t key_id, char *buffer, size_t buffer_len, size_t *written_out);

/**
 * Parses a key id of 11 characters.
 *
 * Statuses: `KT_KEY_ID_FORM`.
 */
kt_status kt_key_id_parse(const char *text, size_t text_len, uint64_t *key_id_out);

/**
 * Writes the charge of one tally: `cost` units, at a decision of the time `at_ms`. For callers
 * that stored these two numbers.
 *
 * ```c
 * kt_charge charge;
 * if (kt_charge_new(cost, at_ms, &charge) == KT_OK)
 *     kt_gate_refund(gate, key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
 * ```
 */
kt_status kt_charge_new(uint32_t cost, uint64_t at_ms, kt_charge *charge_out);

/**
 * Writes the units that the request itself was charged; 0 if only groups with costs of their own
 * were charged.
 *
 * Statuses: `KT_NOT_A_CHARGE`.
 */
kt_status kt_charge_cost(const kt_charge *charge, uint32_t *cost_out);

/**
 * Writes the time of the decision that charged the first tally, in Unix milliseconds.
 *
 * Statuses: `KT_NOT_A_CHARGE`.
 */
kt_status kt_charge_at_ms(const kt_charge *charge, uint64_t *at_ms_out);

/**
 * Writes the quota at `index` of a verdict, from 0 for the shortest window to `quota_count - 1`.
 *
 * Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT`.
 *
 * ```c
 * kt_quota quota;
 * for (size_t i = 0; kt_verdict_quota(&verdict, i, &quota) == KT_OK; i++)
 *     printf("%u of %u\n", (unsigned)quota.remaining, (unsigned)quota.limit);
 * ```
 */
kt_status kt_verdict_quota(const kt_verdict *verdict,
                           size_t index,
                           kt_quota *quota_out);

/**
 * Writes what the check charged, for a later refund or settlement. If the check was not admitted,
 * the cost of the charge is 0, and a refund of it does nothing.
 *
 * An admitted verdict of `kt_gate_check` has no charge if the gate is not plain (see
 * `kt_gate_size`): call `kt_gate_check_request` and `kt_compound_charge` for such a gate. That of
 * a peek, a refund, a settlement or a reset has none either.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_NOT_A_CHARGE` if the verdict is admitted and has no charge.
 *
 * ```c
 * kt_charge charge;
 * if (kt_verdict_charge(&verdict, &charge) == KT_OK)
 *     kt_gate_refund(gate, verdict.key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
 * ```
 */
kt_status kt_verdict_charge(const kt_verdict *verdict, kt_charge *charge_out);

/**
 * Writes the header fields of the response, each `Name: value` with CR LF, and a NUL. Writes their
 * length without the NUL to `written_out`.
 *
 * Set these fields instead of appending them: a response must have each only once.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_HEADERS_SIZE`
 * bytes are always enough.
 *
 * ```c
 * char headers[KT_HEADERS_SIZE];
 * size_t written;
 * if (kt_verdict_headers(&verdict, headers, sizeof headers, &written) == KT_OK)
 *     write_all(socket, headers, written);
 * ```
 */
kt_status kt_verdict_headers(const kt_verdict *verdict,
                             char *buffer,
                             size_t buffer_len,
                             size_t *written_out);

/**
 * Writes the header fields of the response one by one, for servers that set each field by a call.
 * Writes their number to `count_out`.
 *
 * `buffer` receives the values, and `fields_out` receives one element for each field. Set these
 * fields instead of appending them: a response must have each only once.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_HEADERS_SIZE`
 * bytes and `KT_MAX_FIELDS` elements are always enough.
 *
 * ```c
 * char buffer[KT_HEADERS_SIZE];
 * kt_field fields[KT_MAX_FIELDS];
 * size_t count;
 * if (kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &count) == KT_OK)
 *     for (size_t i = 0; i < count; i++)
 *         set_header(response, fields[i].name, fields[i].value);
 * ```
 */
kt_status kt_verdict_fields(const kt_verdict *verdict,
                            char *buffer,
                            size_t buffer_len,
                            kt_field *fields_out,
                            size_t fields_len,
                            size_t *count_out);

/**
 * Returns the response body, JSON with a NUL. It is empty if admitted, and for a struct that is
 * not a verdict. It does not disclose why a key is invalid.
 *
 * Never NULL. The text is static: do not free it.
 */
const char *kt_verdict_body(const kt_verdict *verdict);

/**
 * Writes the body as a problem document (`application/problem+json`, RFC 9457), with a NUL. It
 * names the violated quotas. Writes the length without the NUL to `written_out`. Empty if
 * admitted.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_PROBLEM_SIZE`
 * bytes are always enough.
 */
kt_status kt_verdict_problem(const kt_verdict *verdict,
                             char *buffer,
                             size_t buffer_len,
                             size_t *written_out);

/**
 * Writes the verdict on a request that has the key header more than once. Such a request is
 * invalid, whatever the values are, because another server in the chain might read another one.
 * No gate is needed.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_verdict_duplicate_header(uint64_t now_ms, kt_verdict *verdict_out);

/**
 * Returns a short word for logs and metric labels, such as `invalid_key`; `unknown` for an unknown
 * number. Never NULL. The text is static: do not free it.
 */
const char *kt_outcome_name(kt_outcome outcome);

/**
 * Returns a short word for logs and metric labels, such as `wrong_secret`; `unknown` for an
 * unknown number. Never NULL. The text is static: do not free it.
 */
const char *kt_reason_name(kt_reason reason);

/**
 * Returns a short word for logs and metric labels, such as `waiting`; `unknown` for an unknown
 * number. Never NULL. The text is static: do not free it.
 */
const char *kt_unavailability_name(kt_unavailability unavailability);

/**
 * Writes what a part was charged, for a later refund or settlement of all its tallies. Its cost is
 * 0 unless the request was admitted: a refund of it then does nothing.
 *
 * `part` is the index of the part in the call; 0 for `kt_gate_check_request`.
 *
 * Statuses: `KT_NOT_A_VERDICT`, `KT_PART_COUNT` if there is no such part.
 *
 * ```c
 * kt_charge charge;
 * if (kt_compound_charge(&compound, 0, &charge) == KT_OK)
 *     kt_gate_refund(gate, compound.key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
 * ```
 */
kt_status kt_compound_charge(const kt_compound *compound,
                             size_t part,
                             kt_charge *charge_out);

/**
 * Writes the name that header fields have for the quota at `index` of a tally, such as `hour` or
 * `team-hour`, and a NUL. Writes the length without the NUL to `written_out`.
 *
 * Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`; `KT_QUOTA_NAME_SIZE`
 * bytes are always enough.
 *
 * ```c
 * char name[KT_QUOTA_NAME_SIZE];
 * size_t written;
 * for (size_t i = 0; i < tally->verdict.quota_count; i++)
 *     if (tally->crossed[i][0] > 0 &&
 *         kt_tally_quota_name(tally, i, name, sizeof name, &written) == KT_OK)
 *         printf("%s has reached %u %%\n", name, (unsigned)tally->crossed[i][0]);
 * ```
 */
kt_status kt_tally_quota_name(const kt_tally *tally,
                              size_t index,
                              char *buffer,
                              size_t buffer_len,
                              size_t *written_out);

/**
 * Writes the header fields of the response, each `Name: value` with CR LF, and a NUL. Writes their
 * length without the NUL to `written_out`.
 *
 * `X-RateLimit-*` describe a window of the first key, or of the first part if there is no key.
 * `RateLimit` and `RateLimit-Policy` list the windows of all tallies. Set these fields instead of
 * appending them: a response must have each only once.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
 * `KT_COMPOUND_HEADERS_SIZE` bytes are always enough.
 */
kt_status kt_compound_headers(const kt_compound *compound,
                              char *buffer,
                              size_t buffer_len,
                              size_t *written_out);

/**
 * Writes the header fields of the response one by one, for servers that set each field by a call.
 * Writes their number to `count_out`.
 *
 * `buffer` receives the values, and `fields_out` receives one element for each field. Set these
 * fields instead of appending them: a response must have each only once.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
 * `KT_COMPOUND_HEADERS_SIZE` bytes and `KT_MAX_FIELDS` elements are always enough.
 */
kt_status kt_compound_fields(const kt_compound *compound,
                             char *buffer,
                             size_t buffer_len,
                             kt_field *fields_out,
                             size_t fields_len,
                             size_t *count_out);

/**
 * Returns the response body, JSON with a NUL. It is empty if admitted, and for a struct that is
 * not the result of a compound charge. It does not disclose why a key is invalid.
 *
 * Never NULL. The text is static: do not free it.
 */
const char *kt_compound_body(const kt_compound *compound);

/**
 * Writes the body as a problem document (`application/problem+json`, RFC 9457), with a NUL. It
 * names the violated quotas of all tallies. Writes the length without the NUL to `written_out`.
 * Empty if admitted.
 *
 * Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
 * `KT_COMPOUND_PROBLEM_SIZE` bytes are always enough.
 */
kt_status kt_compound_problem(const kt_compound *compound,
                              char *buffer,
                              size_t buffer_len,
                              size_t *written_out);

/**
 * Returns the bytes of memory that a limiter for `capacity` subjects needs. Returns 0 if
 * `capacity` is not 1 to `KT_MAX_SUBJECTS`. The macro `KT_LIMITER_SIZE` gives the same as a
 * constant.
 */
size_t kt_limiter_size(uint32_t capacity);

/**
 * Returns the bytes of a limiter's handle in this library, which is `KT_LIMITER_HANDLE_SIZE` of
 * its header.
 */
size_t kt_limiter_handle_size(void);

/**
 * Creates a limiter for `capacity` subjects, 1 to `KT_MAX_SUBJECTS`, in memory that is not in use.
 *
 * `memory` is at least `kt_limiter_size(capacity)` bytes at a multiple of 64. Until the handle is
 * closed the memory must not move and must not be used for anything else. `seed` is 16 random
 * bytes, which keep clients from choosing subjects that collide in one bucket.
 *
 * In a host build, a policy like `addresses: /64 20/minute; /48 1000/minute` makes a limiter of
 * client addresses. It needs `KT_PREFIXES_SIZE` more bytes of memory, and memory of the heap for
 * its handle until that is closed. Its subjects are addresses as text, which may have a port,
 * brackets and a zone. A request is charged to the networks of all prefixes, or to none. Functions
 * that write a `kt_verdict` write the one that decided, without a charge. `kt_check_all` with one
 * part writes the verdicts on all networks, and its charge is for `kt_limiter_refund`.
 *
 * Statuses: those that begin with `KT_POLICY_`, `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`,
 * `KT_OVERLAP`.
 *
 * ```c
 * static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(1000)];
 * kt_limiter limiter;
 * kt_status status =
 *     kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 1000, seed, &limiter);
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
 * Opens a limiter that this process, or another that shares the memory, created there. The memory
 * may have another address here, and `memory_len` may be larger than the limiter.
 *
 * Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`,
 * `KT_DAMAGED`, `KT_OVERLAP`.
 */
kt_status kt_limiter_attach(void *memory, size_t memory_len, kt_limiter *limiter_out);

/**
 * Closes a handle in a struct of the caller, or one that belongs to this library: wipes it, unmaps
 * its file, and frees it if this library allocated it. The table itself remains.
 *
 * No other call may use the handle during this call or after it. Does nothing for NULL and for
 * memory that is not a handle.
 */
void kt_limiter_close(kt_limiter *limiter);

/**
 * Charges `cost` to each window of the subject if all have room for it, else to none.
 *
 * A subject is any bytes, such as an address, a user or a route. Only their hash is stored. A cost
 * of 0 is admitted and writes nothing. `now_ms` is an explicit time in Unix milliseconds, or
 * `KT_SYSTEM_CLOCK`. Any thread may call it at any time; see the contract.
 *
 * `KT_OK` means that there is a verdict. Its `outcome` is `KT_ADMITTED`, `KT_DENIED`,
 * `KT_TOO_COSTLY`, `KT_FULL` or, in a fleet, `KT_UNAVAILABLE`.
 *
 * In a fleet (see `kt_limiter_join`), the call waits for credits, at most 20 ms or what
 * `kt_limiter_set_credit_wait` says.
 *
 * Statuses: `KT_NOT_AN_ADDRESS` in a limiter of addresses, `KT_NO_CLOCK`.
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

/**
 * Checks like `kt_limiter_check`, with the options of a request. A NULL `request` has a cost of 1
 * and the time of the system clock.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
 * `KT_NO_SUCH_GROUP` and `KT_NO_SUCH_SCOPE` for a request with groups or scopes, which a limiter
 * does not have.
 */
kt_status kt_limiter_check_request(kt_limiter *limiter,
                                   const uint8_t *subject,
                                   size_t subject_len,
                                   const kt_request *request,
                                   kt_verdict *verdict_out);

/**
 * Writes the verdict that `kt_limiter_check` would give now, without a charge. With
 * `KT_ON_FULL_REFUSE`, does not look for a free slot for a new subject.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_peek(kt_limiter *limiter,
                          const uint8_t *subject,
                          size_t subject_len,
                          uint32_t cost,
                          uint64_t now_ms,
                          kt_verdict *verdict_out);

/**
 * Gives back what a check charged, in the windows that still count it. `charge` is that of the
 * check's verdict. Refund a charge only once.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_refund(kt_limiter *limiter,
                            const uint8_t *subject,
                            size_t subject_len,
                            const kt_charge *charge,
                            uint64_t now_ms,
                            kt_verdict *verdict_out);

/**
 * Replaces an estimated cost by the actual cost: refunds the difference, or charges it as far as
 * there is room. The verdict's `uncharged` is what found no room. Settle a charge only once.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_settle(kt_limiter *limiter,
                            const uint8_t *subject,
                            size_t subject_len,
                            const kt_charge *estimate,
                            uint32_t actual,
                            uint64_t now_ms,
                            kt_verdict *verdict_out);

/**
 * Replaces an estimated cost by the actual cost, as `settlement` says. If it overdraws, units for
 * which there is no room are charged too. The verdict's `uncharged` is what found no room. Settle
 * a charge only once.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_SUCH_GROUP` for a settlement with
 * groups, which a limiter does not have, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_settle_all(kt_limiter *limiter,
                                const uint8_t *subject,
                                size_t subject_len,
                                const kt_charge *estimate,
                                const kt_settlement *settlement,
                                uint64_t now_ms,
                                kt_verdict *verdict_out);

/**
 * Resets all counts of the subject. If it has no slot and would be charged to an overflow tally,
 * resets that one. In a limiter of addresses, larger networks than the client's own keep their
 * counts.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_reset(kt_limiter *limiter,
                           const uint8_t *subject,
                           size_t subject_len,
                           uint64_t now_ms,
                           kt_verdict *verdict_out);

/** Writes the number of subjects that the limiter was created for. */
kt_status kt_limiter_capacity(kt_limiter *limiter, uint32_t *capacity_out);

/** Writes the number of slots: at least 1.5 times the capacity. */
kt_status kt_limiter_slots_total(kt_limiter *limiter, uint64_t *slots_out);

/**
 * Writes the number of subjects whose slot cannot be given to another subject now. Reads the whole
 * table.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_limiter_live_subjects(kt_limiter *limiter, uint64_t now_ms, uint64_t *live_out);

/**
 * Writes the number of requests that found no slot for their subject since the limiter was
 * created. What became of them is the choice of `kt_limiter_on_full` at that time.
 */
kt_status kt_limiter_refusals(kt_limiter *limiter, uint64_t *refusals_out);

/** Writes what happens to a new subject that finds no slot, a `kt_on_full`. */
kt_status kt_limiter_on_full(kt_limiter *limiter, uint8_t *on_full_out);

/**
 * Sets what happens to a new subject that finds no slot. The table stores it. It applies to all
 * processes that have the table open, from their next such request on.
 *
 * Statuses: `KT_UNKNOWN_MEMBER` if the value is neither `KT_ON_FULL_SHARE` nor
 * `KT_ON_FULL_REFUSE`.
 *
 * ```c
 * kt_status status = kt_limiter_set_on_full(&limiter, KT_ON_FULL_REFUSE);
 * ```
 */
kt_status kt_limiter_set_on_full(kt_limiter *limiter, kt_on_full on_full);

/**
 * Writes the policy that the limiter was created with, and a NUL. Writes the length without the
 * NUL to `written_out`.
 *
 * Statuses: `KT_DAMAGED`. `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough, and for
 * a limiter of addresses `KT_SECTIONS_SIZE`.
 */
kt_status kt_limiter_policy(kt_limiter *limiter,
                            char *buffer,
                            size_t buffer_len,
                            size_t *written_out);

/**
 * Returns the bytes of memory that a plain gate for `keys` keys needs. Returns 0 if `keys` is not
 * 1 to `KT_MAX_KEYS`. The macro `KT_GATE_SIZE` gives the same as a constant.
 *
 * A gate is plain if each plan fits one tally and has no warnings, and the gate has no teams and
 * no scopes. For any other gate, `kt_gate_config_size` writes the size.
 */
size_t kt_gate_size(uint32_t keys);

/**
 * Writes the bytes of memory that a gate with this configuration needs for `kt_gate_init`.
 *
 * Statuses: those of `kt_gate_init` about `config`.
 */
kt_status kt_gate_config_size(const kt_gate_config *config, size_t *size_out);

/**
 * Returns the bytes of a gate's handle in this library, which is `KT_GATE_HANDLE_SIZE` of its
 * header.
 *
 * A program that defines `KT_WITHOUT_SECTIONS` can be linked only with a library that was built
 * without the feature `sections`. So its smaller handles are always large enough.
 */
size_t kt_gate_handle_size(void);

/**
 * Creates a gate in memory that is not in use.
 *
 * `memory` is at least `kt_gate_size(config->keys)` bytes for a plain gate, else at least what
 * `kt_gate_config_size` writes, at a multiple of 64. Until the handle is closed the memory must
 * not move and must not be used for anything else. `peppers` are the server's secrets as bytes, at
 * least 32 random bytes each, newest last: new keys use the newest. Of all pointers, only `memory`
 * is retained.
 *
 * Statuses: `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`, `KT_NAME_FORM` for the prefix,
 * `KT_PLAN_COUNT`, `KT_PLAN_NAME_FORM`, `KT_PLAN_TWICE`, `KT_PLAN_WINDOWS`, those that begin with
 * `KT_POLICY_`, `KT_SCOPES`, `KT_TEAM_COUNT`, `KT_DESCRIBED`, `KT_PEPPER_COUNT`,
 * `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`.
 *
 * ```c
 * static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(64)];
 * kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
 * kt_gate_config config = {.size = sizeof config, .keys = 64, .plans = &plan, .plans_len = 1,
 *                          .prefix = "kt", .prefix_len = 2};
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
 * Opens a gate that this process, or another that shares the memory, created there. The memory may
 * have another address here, and `memory_len` may be larger than the gate. One of the peppers must
 * be the gate's.
 *
 * Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`,
 * `KT_DAMAGED`, `KT_OVERLAP`, `KT_WRONG_PEPPER`, `KT_PEPPER_COUNT`, `KT_PEPPER_TOO_SHORT`,
 * `KT_PEPPER_TWICE`.
 */
kt_status kt_gate_attach(void *memory,
                         size_t memory_len,
                         const kt_bytes *peppers,
                         size_t peppers_len,
                         kt_gate *gate_out);

/**
 * Closes a handle in a struct of the caller, or one that belongs to this library: wipes it and its
 * peppers, unmaps its file, and frees it if this library allocated it. The table itself remains.
 *
 * No other call may use the handle during this call or after it. Does nothing for NULL and for
 * memory that is not a handle.
 */
void kt_gate_close(kt_gate *gate);

/**
 * Checks a key, then charges `cost` to each window of its plan if all have room for it, else to
 * none. Only a valid key is charged.
 *
 * If the gate is not plain (see `kt_gate_size`), the windows of the key's team are charged too.
 * The verdict is then that of the tally that decided: it has the quotas of that tally only, and
 * no charge, so that `kt_verdict_charge` returns `KT_NOT_A_CHARGE`. For such a gate, call
 * `kt_gate_check_request`: its compound has the header fields of all quotas, and the charge.
 *
 * `api_key` is the value of the `X-API-Key` header: `api_key_len` bytes without a NUL, or NULL if
 * the request has no such header. If it has more than one, call `kt_verdict_duplicate_header`
 * instead. `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`. Any thread may
 * call it at any time; see the contract.
 *
 * `KT_OK` means that there is a verdict. Its `outcome` is `KT_ADMITTED`, `KT_DENIED`,
 * `KT_TOO_COSTLY`, `KT_MISSING_KEY`, `KT_INVALID_KEY` or, during a migration and in a fleet,
 * `KT_UNAVAILABLE`.
 *
 * In a fleet (see `kt_gate_join`), the call waits for credits, at most 20 ms or what
 * `kt_gate_set_credit_wait` sets. `kt_gate_try_check` does not wait.
 *
 * Statuses: `KT_NO_CLOCK`.
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

/**
 * Writes the verdict that `kt_gate_check` would give now, without a charge.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_peek(kt_gate *gate,
                       const uint8_t *api_key,
                       size_t api_key_len,
                       uint32_t cost,
                       uint64_t now_ms,
                       kt_verdict *verdict_out);

/**
 * Gives back what a check charged, in the windows that still count it. `key_id` and `charge` are
 * those of the check's verdict or compound. All tallies of the charge are refunded, and the
 * verdict is that of the first. Refund a charge only once.
 *
 * Statuses: `KT_NOT_A_CHARGE`, `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_refund(kt_gate *gate,
                         uint64_t key_id,
                         const kt_charge *charge,
                         uint64_t now_ms,
                         kt_verdict *verdict_out);

/**
 * Replaces an estimated cost by the actual cost: refunds the difference, or charges it as far as
 * there is room. The verdict's `uncharged` is what found no room. Settle a charge only once.
 *
 * Statuses: `KT_NOT_A_CHARGE`, `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_settle(kt_gate *gate,
                         uint64_t key_id,
                         const kt_charge *estimate,
                         uint32_t actual,
                         uint64_t now_ms,
                         kt_verdict *verdict_out);

/**
 * Replaces the estimates of a charge by the actual costs. Each cost is settled for itself: the
 * difference is refunded, or charged to all its tallies as far as the smallest room allows.
 *
 * The verdict is that of the first tally, and its `uncharged` is the part of the request's own
 * cost that found no room. `uncharged_out` has room for `groups_len` numbers: the part of the cost
 * of each group that found no room. It may be NULL if there is none. `compound_out` gets the
 * verdict on each tally of the charge, whose `crossed` are the warnings that this settlement
 * reached by units that it charged. It may be NULL. Settle a charge only once.
 *
 * Statuses: `KT_NOT_A_CHARGE`, `KT_NO_SUCH_GROUP`, also for more than `KT_MAX_TALLIES` groups,
 * `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`,
 * `KT_NO_CLOCK`.
 */
kt_status kt_gate_settle_all(kt_gate *gate,
                             uint64_t key_id,
                             const kt_charge *estimate,
                             const kt_settlement *settlement,
                             uint64_t now_ms,
                             kt_verdict *verdict_out,
                             uint32_t *uncharged_out,
                             kt_compound *compound_out);

/**
 * Resets all counts of the key. Those of its team are kept: see `kt_gate_reset_account`.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_reset(kt_gate *gate,
                        uint64_t key_id,
                        uint64_t now_ms,
                        kt_verdict *verdict_out);

/**
 * Checks several keys and subjects of one request, and charges all or none.
 *
 * If a key is invalid or a window lacks room, nothing is charged. If another request spends the
 * room while this one is charged, charges made before are given back, and may deny other requests
 * meanwhile. Do not reset the counts of these tallies while requests are checked. `count` is 1 to
 * `KT_MAX_PARTS`. `now_ms` means what it means to the handle of the first part.
 *
 * A gate or limiter in a fleet spends credits of all its tallies. `patience` of its part is what
 * the request does if it lacks some; several such parts may wait one after another. All charges
 * and credits are given back if one refuses. See `kt_gate_join` and `kt_limiter_join`.
 *
 * A key charges a tally for each section of its plan: the key's own, its team's, and those of the
 * groups in the part. A plan with many windows takes several tallies for a section. An address
 * charges one for each prefix of its limiter's policy. All parts together have at most
 * `KT_MAX_PARTS` tallies.
 *
 * Statuses: `KT_PART_COUNT`, `KT_PART_TABLE`, `KT_NOT_AN_ADDRESS`, `KT_NO_SUCH_GROUP`,
 * `KT_NO_SUCH_SCOPE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
 *
 * ```c
 * const kt_part parts[] = {
 *     {.gate = gate, .text = api_key, .text_len = api_key_len, .cost = 1},
 *     {.limiter = addresses, .text = address, .text_len = address_len, .cost = 1}};
 * kt_compound compound;
 * if (kt_check_all(parts, 2, KT_SYSTEM_CLOCK, &compound) == KT_OK
 *     && compound.outcome != KT_ADMITTED)
 *     return respond(compound.http_status, kt_compound_body(&compound));
 * ```
 */
kt_status kt_check_all(const kt_part *parts,
                       size_t count,
                       uint64_t now_ms,
                       kt_compound *compound_out);

/**
 * Writes what `kt_check_all` would write now, without a charge.
 *
 * Statuses: those of `kt_check_all`.
 */
kt_status kt_peek_all(const kt_part *parts,
                      size_t count,
                      uint64_t now_ms,
                      kt_compound *compound_out);

/**
 * Checks a key like `kt_gate_check`, with the options of a request: the groups that it charges and
 * the scopes that it needs. A NULL `request` has a cost of 1 and the time of the system clock.
 *
 * Each section of the key's plan has a tally: the key's own, its team's, and those of the groups.
 * All are charged, or none. If the key lacks a scope, the outcome is `KT_FORBIDDEN`.
 *
 * Statuses: `KT_NO_SUCH_GROUP`, `KT_NO_SUCH_SCOPE`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`,
 * `KT_NO_CLOCK`.
 *
 * ```c
 * const kt_group groups[] = {{KT_TEXT("write"), 0, 0}};
 * kt_request request = {sizeof request, 1, KT_SYSTEM_CLOCK, groups, 1, NULL, 0, 0, 0};
 * kt_compound compound;
 * if (kt_gate_check_request(gate, api_key, api_key_len, &request, &compound) == KT_OK
 *     && compound.outcome != KT_ADMITTED)
 *     return respond(compound.http_status, kt_compound_body(&compound));
 * ```
 */
kt_status kt_gate_check_request(kt_gate *gate,
                                const uint8_t *api_key,
                                size_t api_key_len,
                                const kt_request *request,
                                kt_compound *compound_out);

/**
 * Writes what `kt_gate_check_request` would write now, without a charge.
 *
 * Statuses: those of `kt_gate_check_request`.
 */
kt_status kt_gate_peek_request(kt_gate *gate,
                               const uint8_t *api_key,
                               size_t api_key_len,
                               const kt_request *request,
                               kt_compound *compound_out);

/**
 * Declares that each `now_ms` given with this handle is a cached reading of the system clock. An
 * event loop has such readings. Host builds only.
 *
 * A later call reads the clock itself if a tally is ahead of the reading, before it denies a
 * request for lack of room, and before it inserts a subject into a limiter. It uses the later of
 * both readings. Without this declaration a `now_ms` is an explicit time, which corrects nothing.
 * The declaration holds until the handle is closed. Any thread may make it at any time.
 */
kt_status kt_gate_use_system_clock(kt_gate *gate);

/**
 * Declares that each `now_ms` given with this handle is a cached reading of the system clock. An
 * event loop has such readings. Host builds only.
 *
 * A later call reads the clock itself if a tally is ahead of the reading, before it denies a
 * request for lack of room, and before it inserts a subject into a limiter. It uses the later of
 * both readings. Without this declaration a `now_ms` is an explicit time, which corrects nothing.
 * The declaration holds until the handle is closed. Any thread may make it at any time.
 */
kt_status kt_limiter_use_system_clock(kt_limiter *limiter);

/**
 * Corrects each tally of the gate that is more than 60 s ahead of the call's time. Counts are
 * kept. Writes the number of corrected tallies. Reads the whole table.
 *
 * A check by the system clock corrects the tally that it charges. This function corrects all
 * others.
 *
 * With `KT_SYSTEM_CLOCK` the clock is read after each tally was loaded. An explicit `now_ms` is
 * older than the loads. If the call is then stopped for more than 60 s between a load and its
 * correction, each tally that is charged meanwhile may admit one more window. With an explicit
 * time, call this while no other thread or process charges.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_correct_clock(kt_gate *gate, uint64_t now_ms, uint64_t *corrected_out);

/**
 * Corrects each tally of the limiter that is more than 60 s ahead of the call's time. Counts are
 * kept. Writes the number of corrected tallies. Reads the whole table.
 *
 * A check by the system clock corrects the tally that it charges. This function corrects all
 * others.
 *
 * With `KT_SYSTEM_CLOCK` the clock is read after each tally was loaded. An explicit `now_ms` is
 * older than the loads. If the call is then stopped for more than 60 s between a load and its
 * correction, each tally that is charged meanwhile may admit one more window. With an explicit
 * time, call this while no other thread or process charges.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_limiter_correct_clock(kt_limiter *limiter,
                                   uint64_t now_ms,
                                   uint64_t *corrected_out);

/**
 * Issues a key. Writes the only copy of its secret to `key_out`.
 *
 * `entropy` is 24 bytes from the system's entropy, used for this key only. In host builds
 * `kt_entropy` gets them. The secret is a part of them, so overwrite them after the call.
 *
 * The key takes a free record. Else it takes the record of a key that was revoked or has expired,
 * if all windows of its counts have ended.
 *
 * The first key of an account makes the account's team, if the gate has teams. The team has the
 * plan of that key.
 *
 * Statuses: `KT_NAME_FORM` for the environment, `KT_NAMES_TOO_LONG`, `KT_NO_SUCH_PLAN`,
 * `KT_PLAN_NAME_FORM`, `KT_NO_SUCH_SCOPE`, `KT_GATE_FULL`, `KT_ENVS_FULL`, `KT_TEAMS_FULL`,
 * `KT_PEPPERS_FULL`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`, `KT_BUSY` (see
 * `kt_gate_set_wait` and `kt_gate_take_over`).
 * For a file also `KT_FILE_REPLACED`, `KT_DISK_FULL`, `KT_IO`, and those of `kt_gate_open` if the
 * file was replaced.
 *
 * ```c
 * kt_new_key new_key = {sizeof new_key, 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
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
 * Imports a key of any form that was issued elsewhere, so that its holder can keep it. A key of
 * this library's form keeps its key id and its environment.
 *
 * Statuses: `KT_NOT_IMPORTABLE`, `KT_ALREADY_IMPORTED`, `KT_NO_ROOM_TO_IMPORT`, and those of
 * `kt_gate_issue`.
 */
kt_status kt_gate_import(kt_gate *gate,
                         const uint8_t *api_key,
                         size_t api_key_len,
                         const kt_new_key *new_key,
                         uint64_t now_ms,
                         uint64_t *key_id_out);

/**
 * Gives a key a new secret. The old secret stays valid until `grace_until_s`, in Unix seconds; 0
 * ends it at once. Both secrets share one quota. `entropy` is as in `kt_gate_issue`.
 *
 * A key has at most two secrets. If the secret before the last rotation is still valid, this
 * rotation would end it at once, and is refused unless `force` is not 0.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_IN_GRACE`,
 * `KT_NAMES_TOO_LONG` for an imported key, `KT_PEPPERS_FULL`, `KT_RECORD_DAMAGED`, `KT_NO_CLOCK`,
 * `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_rotate(kt_gate *gate,
                         uint64_t key_id,
                         uint32_t grace_until_s,
                         uint8_t force,
                         const uint8_t entropy[KT_ENTROPY_SIZE],
                         uint64_t now_ms,
                         kt_key *key_out);

/**
 * Revokes a key and its previous secret at once: the next check in any process refuses them. The
 * record stays listed until a new key needs it. Revoking a revoked key changes nothing.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_BUSY`. For a file also those
 * that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_revoke(kt_gate *gate, uint64_t key_id);

/**
 * Sets the moment from which a key is no longer valid, in Unix seconds; 0 for never. A moment that
 * has passed ends the key at once. An expired key is valid again if the moment is in the future
 * and no other key has got its record.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_BUSY`. For a
 * file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_expire(kt_gate *gate, uint64_t key_id, uint32_t expires_s);

/**
 * Ends the previous secret of a key at once, without waiting for the end of its grace. Does
 * nothing if the key has none.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_BUSY`. For a
 * file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_end_grace(kt_gate *gate, uint64_t key_id);

/**
 * Moves a key to another plan. Counts are kept.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_PLAN`,
 * `KT_PLAN_NAME_FORM`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_assign(kt_gate *gate, uint64_t key_id, const char *plan, size_t plan_len);

/**
 * Replaces the scopes of a key.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_SCOPE`,
 * `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_set_scopes(kt_gate *gate,
                             uint64_t key_id,
                             const kt_name *scopes,
                             size_t scopes_len);

/**
 * Adds a plan, or gives the plan of that name other limits. Counts are kept.
 *
 * Statuses: `KT_PLAN_NAME_FORM`, those that begin with `KT_POLICY_`, `KT_PLAN_WINDOWS`,
 * `KT_PLAN_LIMIT`, `KT_PLANS_FULL`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists
 * for a file.
 */
kt_status kt_gate_set_plan(kt_gate *gate, const kt_plan *plan);

/**
 * Completes the change of an administrator whose process was killed, and lets others administer
 * the gate again. Call it only if you are sure that no other thread or process administers the
 * gate, for instance because you hold a lock of your own.
 *
 * A file needs it in one case only: the administrator was killed in another container, while
 * another program or a forked child held an `flock` on the file.
 *
 * Statuses: for a file `KT_BUSY`, and those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_take_over(kt_gate *gate);

/**
 * Writes the properties of one key.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_key(kt_gate *gate,
                      uint64_t key_id,
                      uint64_t now_ms,
                      kt_key_info *info_out);

/**
 * Writes the quota at `index` of a key, from 0 for the shortest window to `quota_count - 1`.
 *
 * Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT` if this library did not write `info`.
 */
kt_status kt_key_info_quota(const kt_key_info *info,
                            size_t index,
                            kt_quota *quota_out);

/**
 * Calls `visit` with the properties of each key, in the order of their key ids. Revoked keys are
 * included. Reads the whole gate.
 *
 * `visit` may call any function of this library, also of this gate.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_list(kt_gate *gate, uint64_t now_ms, kt_key_visitor visit, void *context);

/**
 * Writes the plan with this number, such as the `plan` of a verdict. To list all plans, count from
 * 0 until `KT_NO_SUCH_PLAN`.
 *
 * Statuses: `KT_NO_SUCH_PLAN`.
 */
kt_status kt_gate_plan(kt_gate *gate, uint8_t plan, kt_plan_info *info_out);

/**
 * Writes the name of an environment and a NUL. Writes the length without the NUL to `written_out`.
 *
 * Statuses: `KT_NO_SUCH_ENV`. `KT_BUFFER_TOO_SMALL`; `KT_NAME_SIZE` bytes are always enough.
 */
kt_status kt_gate_env(kt_gate *gate,
                      uint8_t env,
                      char *buffer,
                      size_t buffer_len,
                      size_t *written_out);

/**
 * Writes the name of a scope of the gate, and a NUL. Writes the length without the NUL to
 * `written_out`. To list all scopes, count `index` from 0 until `KT_NO_SUCH_SCOPE`.
 *
 * Statuses: `KT_NO_SUCH_SCOPE`. `KT_BUFFER_TOO_SMALL`; `KT_SCOPE_SIZE` bytes are always enough.
 */
kt_status kt_gate_scope(kt_gate *gate,
                        size_t index,
                        char *buffer,
                        size_t buffer_len,
                        size_t *written_out);

/**
 * Writes the name of a section that all plans of the gate share, and a NUL: `key`, `team` or the
 * name of a group. Writes the length without the NUL to `written_out`. To list all sections, count
 * `index` from 0 until `KT_NO_SUCH_GROUP`.
 *
 * Statuses: `KT_NO_SUCH_GROUP`. `KT_BUFFER_TOO_SMALL`; `KT_SECTION_SIZE` bytes are always enough.
 */
kt_status kt_gate_section(kt_gate *gate,
                          size_t index,
                          char *buffer,
                          size_t buffer_len,
                          size_t *written_out);

/**
 * Writes the window that the gate names to be described by `X-RateLimit-*`, and a NUL. The text is
 * empty if it names none. Writes the length without the NUL to `written_out`.
 *
 * Statuses: `KT_BUFFER_TOO_SMALL`; `KT_WINDOW_SIZE` bytes are always enough.
 */
kt_status kt_gate_described(kt_gate *gate,
                            char *buffer,
                            size_t buffer_len,
                            size_t *written_out);

/** Writes the most teams that the gate can hold; 0 if it has none. */
kt_status kt_gate_team_capacity(kt_gate *gate, uint32_t *teams_out);

/**
 * Writes 0 if the gate is plain (see `kt_gate_size`), else 1. A check of a gate that is not plain
 * may charge several tallies, and takes longer.
 */
kt_status kt_gate_is_extended(kt_gate *gate, uint32_t *extended_out);

/** Writes the most keys that the gate can hold. */
kt_status kt_gate_capacity(kt_gate *gate, uint32_t *keys_out);

/**
 * Reads the whole gate and calls `report` for each flaw. First it completes the change of an
 * administrator that was killed.
 *
 * Other administrators wait only if there is a flaw. Then the gate is read again under the lock,
 * and `report` must not call a function that changes this gate.
 *
 * In a file, each record has a checksum, which does not cover its counts. In the caller's memory
 * there are no checksums. A value that was changed into another valid value is not found there:
 * another key id of the same record, a MAC, an account, a time, a count, or the number of another
 * plan, environment or pepper.
 *
 * Statuses: `KT_BUSY`, `KT_NO_CLOCK`. For a file also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_verify(kt_gate *gate,
                         uint64_t now_ms,
                         kt_flaw_visitor report,
                         void *context);

/**
 * Writes the properties of an account.
 *
 * Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_account(kt_gate *gate,
                          uint32_t account,
                          uint64_t now_ms,
                          kt_account_info *info_out);

/**
 * Writes the quota at `index` of an account, from 0 for the shortest window to `quota_count - 1`.
 *
 * Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT` if this library did not write `info`.
 */
kt_status kt_account_info_quota(const kt_account_info *info,
                                size_t index,
                                kt_quota *quota_out);

/**
 * Calls `visit` with the properties of each account, in no particular order. Reads all teams.
 *
 * `visit` may call any function of this library, also of this gate. A gate without teams has no
 * accounts.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_accounts(kt_gate *gate,
                           uint64_t now_ms,
                           kt_account_visitor visit,
                           void *context);

/**
 * Refuses all keys of an account from the next check on if `suspended` is not 0, else accepts them
 * again. The reason of such a refusal is `KT_REASON_SUSPENDED`.
 *
 * Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists for
 * a file.
 */
kt_status kt_gate_set_suspended(kt_gate *gate, uint32_t account, uint8_t suspended);

/**
 * Lets the team limits of another plan hold for an account, and ends limits of its own. Its keys
 * keep their plans. Counts are kept.
 *
 * Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`, `KT_BUSY`. For a file
 * also those that `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_assign_account(kt_gate *gate,
                                 uint32_t account,
                                 const char *plan,
                                 size_t plan_len);

/**
 * Gives an account limits of its own instead of those of its plan. `quotas` are written as in the
 * section `team` of a plan, such as `5000/hour, 100000/day`, with the same windows. They count by
 * the algorithm of that section, and its warnings hold. Counts are kept.
 *
 * Statuses: `KT_NO_SUCH_ACCOUNT`, those that begin with `KT_POLICY_`, `KT_ACCOUNT_LIMITS`,
 * `KT_PLAN_WINDOWS`, `KT_PLAN_LIMIT`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists
 * for a file.
 */
kt_status kt_gate_limit_account(kt_gate *gate,
                                uint32_t account,
                                const char *quotas,
                                size_t quotas_len);

/**
 * Resets the counts that all keys of an account share. Those of each key are kept: see
 * `kt_gate_reset`.
 *
 * The status is `KT_BUSY` if the counts are being moved to another file.
 *
 * Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_BUSY`, `KT_NO_CLOCK`.
 */
kt_status kt_gate_reset_account(kt_gate *gate, uint32_t account, uint64_t now_ms);

/**
 * Returns the system clock's time, in Unix milliseconds. Host builds only.
 *
 * Given to a function as `now_ms`, it is an explicit time, unless `kt_gate_use_system_clock` or
 * `kt_limiter_use_system_clock` declared otherwise. Give `KT_SYSTEM_CLOCK` instead.
 */
uint64_t kt_now_ms(void);

/**
 * Writes 24 bytes of the system's entropy, for `kt_gate_issue` and `kt_gate_rotate`, or as a seed.
 * Host builds only.
 *
 * Statuses: `KT_NO_ENTROPY`.
 */
kt_status kt_entropy(uint8_t entropy_out[KT_ENTROPY_SIZE]);

/**
 * Writes a new pepper: 32 bytes of the system's entropy as 64 hex digits and a NUL. Host builds
 * only.
 *
 * Store it where the server finds it, but not in the folder of the gate.
 *
 * Statuses: `KT_NO_ENTROPY`. `KT_BUFFER_TOO_SMALL`; `KT_PEPPER_SIZE` bytes are enough.
 */
kt_status kt_pepper_generate(char *buffer, size_t buffer_len);

/**
 * Creates a gate in a new file at `path`, with mode 0600 and its disk blocks allocated. The file
 * appears atomically. Host builds only.
 *
 * `path` ends with a NUL. `peppers` is text in the form of `KEYTALLY_PEPPER`: each at least 32
 * bytes in hex or base64, several separated by commas, newest last.
 *
 * Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`,
 * `KT_DISK_FULL`, `KT_NO_MEMORY`, `KT_IO`, `KT_CAPACITY`, `KT_NAME_FORM`, those that begin with
 * `KT_PLAN_`, `KT_POLICY_` and `KT_PEPPER_`, `KT_SCOPES`, `KT_TEAM_COUNT`, `KT_DESCRIBED`,
 * `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`.
 *
 * ```c
 * kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
 * kt_gate_config config = {.size = sizeof config, .keys = 100000, .plans = &plan, .plans_len = 1,
 *                          .prefix = "kt", .prefix_len = 2};
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
 * Opens the gate at `path`. Any number of processes may have it open. Host builds only.
 *
 * `path` ends with a NUL. `peppers` is text in the form of `KEYTALLY_PEPPER`: each in hex or
 * base64, several separated by commas, newest last. One of them must be the gate's. Close the
 * handle with `kt_gate_close`.
 *
 * Statuses: `KT_FILE_NOT_FOUND`, `KT_FILE_DENIED`, `KT_FILE_MODE`, `KT_FILE_OWNER`,
 * `KT_NOT_A_FILE`, `KT_FILE_TOO_SHORT`, `KT_NO_MEMORY`, `KT_IO`, `KT_NOT_A_TABLE`,
 * `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
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
 * Opens the gate at `path` with the peppers in a file, one on each line. Blank lines and lines
 * that begin with `#` are ignored. Host builds only.
 *
 * The path `-` is standard input. If the file is a pipe, the call waits for the data. Symbolic
 * links are followed. Two kinds of file are accepted. One is owned by root and not writable by any
 * other user, as systemd, Kubernetes and Docker provide secrets. The other is readable and
 * writable only by its owner, which is the user of this process, unless that is root.
 *
 * Statuses: those of `kt_gate_open`, for either file.
 */
kt_status kt_gate_open_with_pepper_file(const char *path,
                                        const char *pepper_path,
                                        kt_gate **gate_out);

/**
 * Sets how long a function that changes this gate's keys or plans waits for another administrator,
 * in milliseconds. Then it returns `KT_BUSY`. The default is 10000, and 0 does not wait. Any
 * thread may call it at any time. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
 */
kt_status kt_gate_set_wait(kt_gate *gate, uint64_t wait_ms);

/**
 * Writes the id of the process that is changing this gate. After `KT_BUSY` it is the process that
 * was waited for, unless that has ended since. Host builds only.
 *
 * The id is 0 if there is no such process, or if it runs in another container.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory.
 */
kt_status kt_gate_administrator(kt_gate *gate, uint32_t *pid_out);

/**
 * Starts a thread that checks once a second whether another file was renamed over the gate's, and
 * opens it. Host builds only.
 *
 * Checks do not wait for it. A call in progress finishes with the table that it began with. If the
 * new file cannot be opened, the old one stays in use, and the thread tries again each second: see
 * `kt_gate_reopen_status`.
 *
 * `kt_gate_close` ends the thread. A forked child does not have the thread: call this again there.
 * A second call in one process does nothing. Without this call, `kt_gate_reopen_if_replaced` and
 * the functions that change keys or plans check the file.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory. `KT_IO` if the system gives no thread.
 */
kt_status kt_gate_watch(kt_gate *gate);

/**
 * Opens the file that was renamed over the gate's, if there is one. If it fails, the old file
 * stays in use. Any thread may call it at any time, also during checks. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FILE_NOT_FOUND` if the file was removed,
 * those of `kt_gate_open`.
 */
kt_status kt_gate_reopen_if_replaced(kt_gate *gate);

/**
 * Opens the file at the gate's path, whether or not it was replaced. If it fails, the old file
 * stays in use. Any thread may call it at any time, also during checks. Host builds only.
 *
 * Statuses: those of `kt_gate_reopen_if_replaced`.
 */
kt_status kt_gate_reopen(kt_gate *gate);

/**
 * Writes to `reopened_out` how often the file at the path was opened again. Writes 1 to
 * `failing_out` while the file at the path cannot be opened, else 0. Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory.
 */
kt_status kt_gate_reopen_status(kt_gate *gate,
                                uint64_t *reopened_out,
                                uint32_t *failing_out);

/**
 * Begins to count how each key of a gate is used if `is_counted` is not 0, else ends it, in every
 * process that has the gate open. Host builds only.
 *
 * The counts are in a file next to the gate's, whose name is that of the gate and `.usage`. It
 * takes 64 bytes for each key that the gate has room for, and remains when counting ends. The
 * counts are for pictures and reviews: those of the last seconds are lost if the machine loses
 * power.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_BUSY`, those of `kt_gate_create` about the
 * file, those of `kt_gate_open` for the file of the counts, and those that `kt_gate_issue` lists
 * for a file.
 */
kt_status kt_gate_set_usage(kt_gate *gate, uint8_t is_counted);

/**
 * Writes how a key was used. Host builds only.
 *
 * Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NOT_A_FILE` for a gate in memory,
 * `KT_NOT_COUNTED`, `KT_NO_SUCH_KEY`.
 */
kt_status kt_gate_key_usage(kt_gate *gate, uint64_t key_id, kt_key_usage *usage_out);

/**
 * Creates a limiter for `capacity` subjects in a new file at `path`, with mode 0600 and its disk
 * blocks allocated: about 27 bytes for each subject, and up to 432 KiB for fewer than 16,384. The
 * file appears atomically. Host builds only.
 *
 * Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`,
 * `KT_DISK_FULL`, `KT_NO_MEMORY`, `KT_IO`, `KT_CAPACITY`, `KT_NO_ENTROPY`, those that begin with
 * `KT_POLICY_`.
 */
kt_status kt_limiter_create(const char *path,
                            const char *policy,
                            size_t policy_len,
                            uint32_t capacity,
                            kt_limiter **limiter_out);

/**
 * Opens the limiter at `path`. Close the handle with `kt_limiter_close`. Host builds only.
 *
 * Statuses: those of `kt_gate_open`, except those about peppers.
 */
kt_status kt_limiter_open(const char *path, kt_limiter **limiter_out);

/**
 * Opens the limiter at `path`, or creates it if there is none. If several processes do so at once,
 * one creates the limiter and the others open it. If only the limits of the policy differ, they
 * are changed in the file, and all processes use them from their next check on. Host builds only.
 *
 * Statuses: `KT_OTHER_POLICY` if the limiter there has other windows or prefixes, or cannot count
 * a limit; `KT_OTHER_CAPACITY` if it has another; those of `kt_limiter_open` and
 * `kt_limiter_create`.
 */
kt_status kt_limiter_open_or_create(const char *path,
                                    const char *policy,
                                    size_t policy_len,
                                    uint32_t capacity,
                                    kt_limiter **limiter_out);

/**
 * Joins the fleet of this machine: requests spend credits of the fleet file at `fleet_path`, which
 * the machine's agent (`keytally agent`) fills. Host builds only.
 *
 * `fleet_path` ends with a NUL. Join once for each handle. What a request without credits gets is
 * the choice of the agent's operator. A gate that replaces this one joins too, by the fleet file
 * at the same path. It has no effect while the gate is not in a fleet: see `kt_gate_set_fleet`.
 * The gate's check, its refund and its settlement have the clock of the fleet's store, unless
 * their time is explicit.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_JOINED`, `KT_NOT_A_FLEET_FILE`,
 * `KT_FLEET_SLIDING`, `KT_FILE_NOT_FOUND` if no agent has created the file, `KT_FILE_DENIED`,
 * `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NO_MEMORY`, `KT_IO`.
 *
 * ```c
 * kt_status status = kt_gate_join(gate, "/dev/shm/api.gate.fleet");
 * if (status != KT_OK) fprintf(stderr, "api.gate.fleet: %s\n", kt_status_message(status));
 * ```
 */
kt_status kt_gate_join(kt_gate *gate, const char *fleet_path);

/**
 * Puts the gate in a fleet if `is_in_fleet` is not 0, else takes it out of it, for every process
 * that has it open. In a process that has not joined, all requests are then unavailable. Host
 * builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FLEET_SLIDING`, `KT_BUSY`, those that
 * `kt_gate_issue` lists for a file.
 */
kt_status kt_gate_set_fleet(kt_gate *gate, uint8_t is_in_fleet);

/** Writes 1 if the gate is in a fleet, in every process that has it open, else 0. Host builds only. */
kt_status kt_gate_is_in_fleet(kt_gate *gate, uint32_t *is_in_fleet_out);

/**
 * Sets the longest time that a request of this handle waits for credits of a fleet, in
 * microseconds. The default is 20000, and 0 does not wait. Any thread may call it at any time.
 * Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
 */
kt_status kt_gate_set_credit_wait(kt_gate *gate, uint64_t wait_us);

/**
 * Checks a key as `kt_gate_check` does, but does not wait for credits of a fleet. While they are
 * requested, the outcome is `KT_UNAVAILABLE` and the unavailability `KT_UNAVAILABILITY_WAITING`,
 * and nothing is charged. Host builds only.
 *
 * An event loop checks again after a millisecond, and calls `kt_gate_check_without_wait` after
 * about 20 ms.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_try_check(kt_gate *gate,
                            const uint8_t *api_key,
                            size_t api_key_len,
                            uint32_t cost,
                            uint64_t now_ms,
                            kt_verdict *verdict_out);

/**
 * Checks a key as `kt_gate_check` does after a wait for credits of a fleet that had no effect:
 * without credits, the choice of the agent's operator decides. Host builds only.
 *
 * Statuses: `KT_NO_CLOCK`.
 */
kt_status kt_gate_check_without_wait(kt_gate *gate,
                                     const uint8_t *api_key,
                                     size_t api_key_len,
                                     uint32_t cost,
                                     uint64_t now_ms,
                                     kt_verdict *verdict_out);

/**
 * Joins the fleet of this machine: requests spend credits of the fleet file at `fleet_path`, which
 * the machine's agent (`keytally agent`) fills. Host builds only.
 *
 * `fleet_path` ends with a NUL. Join once for each handle. What a request without credits gets is
 * the choice of the agent's operator. It has no effect while the limiter is not in a fleet: see
 * `kt_limiter_set_fleet`. The limiter's check, its refund and its settlement have the clock of the
 * fleet's store, unless their time is explicit. All machines must have copies of one limiter file.
 *
 * Statuses: `KT_NOT_A_FILE` for a limiter in memory, `KT_JOINED`, `KT_NOT_A_FLEET_FILE`,
 * `KT_FLEET_SLIDING`, `KT_FILE_NOT_FOUND` if no agent has created the file, `KT_FILE_DENIED`,
 * `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NO_MEMORY`, `KT_IO`.
 */
kt_status kt_limiter_join(kt_limiter *limiter, const char *fleet_path);

/**
 * Puts the limiter in a fleet if `is_in_fleet` is not 0, else takes it out of it, for every
 * process that has it open. In a process that has not joined, all requests are then unavailable.
 * Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a limiter in memory, `KT_FLEET_SLIDING`.
 */
kt_status kt_limiter_set_fleet(kt_limiter *limiter, uint8_t is_in_fleet);

/**
 * Writes 1 if the limiter is in a fleet, in every process that has it open, else 0. Host builds
 * only.
 */
kt_status kt_limiter_is_in_fleet(kt_limiter *limiter, uint32_t *is_in_fleet_out);

/**
 * Sets the longest time that a request of this handle waits for credits of a fleet, in
 * microseconds. The default is 20000, and 0 does not wait. Any thread may call it at any time.
 * Host builds only.
 *
 * Statuses: `KT_NOT_A_FILE` for a limiter in memory, which never waits.
 */
kt_status kt_limiter_set_credit_wait(kt_limiter *limiter, uint64_t wait_us);

/**
 * Charges a subject as `kt_limiter_check` does, but does not wait for credits of a fleet. While
 * they are requested, the outcome is `KT_UNAVAILABLE` and the unavailability
 * `KT_UNAVAILABILITY_WAITING`, and nothing is charged. Host builds only.
 *
 * An event loop checks again after a millisecond, and calls `kt_limiter_check_without_wait` after
 * about 20 ms.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_try_check(kt_limiter *limiter,
                               const uint8_t *subject,
                               size_t subject_len,
                               uint32_t cost,
                               uint64_t now_ms,
                               kt_verdict *verdict_out);

/**
 * Charges a subject as `kt_limiter_check` does after a wait for credits of a fleet that had no
 * effect: without credits, the choice of the agent's operator decides. Host builds only.
 *
 * Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
 */
kt_status kt_limiter_check_without_wait(kt_limiter *limiter,
                                        const uint8_t *subject,
                                        size_t subject_len,
                                        uint32_t cost,
                                        uint64_t now_ms,
                                        kt_verdict *verdict_out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEYTALLY_H */
