/* Measures calls of the library: instructions and stack. device/src/cost.rs measures the core in
 * Rust. */
#include "cost.h"

#include <keytally.h>

#include "board.h"

enum { ROUNDS = 64, DEPTH = 1024 };

/* SysTick, ARMv7-M B3.3: a 24-bit counter that counts down, one tick in 80 ns of the board's time.
 * How ticks become instructions: see tools/audit/checks/tests/firmware.rs. */
static volatile uint32_t *const SYSTICK = (volatile uint32_t *)0xe000e010;
enum { CONTROL, RELOAD, CURRENT, TICK_NS = 80, LAST = 0xffffff };

static const uint32_t PAINT = 0x5a17ca4b;

/* Returns the bytes of stack that a call needs, with all that it calls. There are no interrupts, so
 * the memory below the stack pointer is unused. */
static __attribute__((noinline)) uint32_t stack_of(void (*call)(void)) {
    volatile uint32_t *top;
    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (int depth = 1; depth <= DEPTH; depth++) {
        top[-depth] = PAINT;
    }
    call();
    int used = DEPTH;
    while (used > 0 && top[-used] == PAINT) {
        used--;
    }
    EXPECT(used < DEPTH);
    return 4 * (uint32_t)used;
}

static void cost(const char *what, void (*call)(void)) {
    const uint32_t stack = stack_of(call);
    SYSTICK[RELOAD] = LAST;
    SYSTICK[CURRENT] = 0;
    SYSTICK[CONTROL] = 5;
    const uint32_t begin = SYSTICK[CURRENT];
    for (int round = 0; round < ROUNDS; round++) {
        call();
    }
    const uint32_t ticks = (begin - SYSTICK[CURRENT]) & LAST;
    print("cost: ");
    print(what);
    print(": ");
    print_number(ticks * TICK_NS / ROUNDS);
    print(" instructions, ");
    print_number(stack);
    print(" bytes of stack\n");
}

static const uint64_t NOW_MS = 1767225600000;

static kt_gate gate;
static kt_limiter limiter;
static kt_key key;
static size_t key_len;
static kt_verdict verdict;

static void check_gate(void) {
    EXPECT(kt_gate_check(&gate, (const uint8_t *)key.text, key_len, 1, NOW_MS, &verdict) == KT_OK);
}

static void check_limiter(void) {
    EXPECT(kt_limiter_check(&limiter, (const uint8_t *)"203.0.113.9", 11, 1, NOW_MS, &verdict) ==
           KT_OK);
}

static void write_headers(void) {
    static char headers[KT_HEADERS_SIZE];
    size_t written;
    EXPECT(kt_verdict_headers(&verdict, headers, sizeof headers, &written) == KT_OK);
}

void print_costs(uint8_t *gate_memory, size_t gate_len, uint8_t *limiter_memory, size_t limiter_len,
                 uint32_t subjects) {
    static const uint8_t pepper[32] = "a pepper for all to see, 32 byte";
    const kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
    const kt_gate_config config = {
        sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    const kt_bytes peppers = {pepper, sizeof pepper};
    const kt_new_key new_key = {
        sizeof(kt_new_key), 1, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
    const uint8_t *entropy = (const uint8_t *)"24 bytes, random for you";
    uint64_t key_id;
    EXPECT(kt_gate_init(gate_memory, gate_len, &config, &peppers, 1, &gate) == KT_OK);
    EXPECT(kt_limiter_init(limiter_memory, limiter_len, plan.sections, plan.sections_len, subjects,
                           pepper, &limiter) == KT_OK);
    EXPECT(kt_gate_issue(&gate, &new_key, entropy, NOW_MS, &key, &key_id) == KT_OK);
    key_len = strlen(key.text);

    cost("gate: check, admitted", check_gate);
    kt_quota quota;
    EXPECT(kt_verdict_quota(&verdict, 0, &quota) == KT_OK);
    EXPECT(verdict.outcome == KT_ADMITTED && quota.remaining == 100 - ROUNDS - 1);
    cost("limiter: check, admitted", check_limiter);
    EXPECT(verdict.outcome == KT_ADMITTED);
    cost("verdict: headers", write_headers);
}
