/* What a call costs from C: reads lines "limiter TIMES" and "gate TIMES", makes so many calls, and prints the nanoseconds
 * that they took of the processor. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keytally.h"

#define SUBJECT "customer-0000000000-0123456789abcdef0123"
/* Limits that no run reaches: time passes by a few milliseconds with every call. */
#define POLICY KT_TEXT("100000/minute, 1000000/hour")
#define STEP_MS 8
/* A full hour. */
#define START_MS UINT64_C(1700049600000)

static _Alignas(KT_TABLE_ALIGN) unsigned char limiter_memory[KT_LIMITER_SIZE(1000)];
static _Alignas(KT_TABLE_ALIGN) unsigned char gate_memory[KT_GATE_SIZE(64)];

static void must(kt_status status) {
  if (status != KT_OK) {
    fprintf(stderr, "%s\n", kt_status_message(status));
    exit(1);
  }
}

static uint64_t processor_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(void) {
  static const uint8_t seed[16] = {7};
  static kt_limiter limiter;
  must(kt_limiter_init(limiter_memory, sizeof limiter_memory, POLICY, 1000, seed, &limiter));

  kt_plan plan = {KT_TEXT("default"), POLICY};
  kt_gate_config config = {&plan, 1, KT_TEXT("kt"), 64};
  static const uint8_t secret[32] = {5};
  kt_bytes pepper = {secret, sizeof secret};
  static kt_gate gate;
  must(kt_gate_init(gate_memory, sizeof gate_memory, &config, &pepper, 1, &gate));
  kt_new_key new_key = {KT_TEXT("live"), KT_TEXT("default"), 42, 0};
  static const uint8_t entropy[KT_ENTROPY_SIZE] = {9};
  kt_key key;
  uint64_t key_id;
  must(kt_gate_issue(&gate, &new_key, entropy, START_MS, &key, &key_id));

  size_t key_len = strlen(key.text);

  uint64_t limiter_ms = START_MS, gate_ms = START_MS;
  char what[16];
  uint64_t times;
  while (scanf("%15s %" SCNu64, what, &times) == 2) {
    kt_verdict verdict;
    uint64_t admitted = 0, started = processor_ns();
    if (strcmp(what, "limiter") == 0) {
      for (uint64_t i = 0; i < times; i++) {
        limiter_ms += STEP_MS;
        must(kt_limiter_check(&limiter, (const uint8_t *)SUBJECT, sizeof SUBJECT - 1, 1, limiter_ms, &verdict));
        admitted += verdict.outcome == KT_ADMITTED;
      }
    } else {
      for (uint64_t i = 0; i < times; i++) {
        gate_ms += STEP_MS;
        must(kt_gate_check(&gate, (const uint8_t *)key.text, key_len, 1, gate_ms, &verdict));
        admitted += verdict.outcome == KT_ADMITTED;
      }
    }
    uint64_t took = processor_ns() - started;
    if (admitted != times) {
      fprintf(stderr, "%" PRIu64 " of %" PRIu64 " admitted\n", admitted, times);
      return 1;
    }
    printf("%" PRIu64 "\n", took);
    fflush(stdout);
  }
  return 0;
}
