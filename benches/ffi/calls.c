/* Measures checks from C. Reads lines "WHAT BATCHES TIMES" from standard input, where WHAT is
 * limiter, limiter-in-turn, gate or gate-in-turn. For each line, it makes BATCHES batches of TIMES
 * calls. Then it prints the time of each batch in nanoseconds, one per line. With "-in-turn", each
 * call depends on the verdict of the previous call. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "keytally.h"

#define SUBJECT "customer-0000000000-0123456789abcdef0123"
/* Limits that no run reaches: each call is a few milliseconds later. */
#define POLICY KT_TEXT("100000/minute, 1000000/hour")
#define STEP_MS 8
/* The start of an hour. */
#define START_MS UINT64_C(1700049600000)

static _Alignas(KT_TABLE_ALIGN) unsigned char limiter_memory[KT_LIMITER_SIZE(1000)];
static _Alignas(KT_TABLE_ALIGN) unsigned char gate_memory[KT_GATE_SIZE(64)];

/* Exits with a message if a call has failed. */
static void must(kt_status status) {
  if (status != KT_OK) {
    fprintf(stderr, "%s\n", kt_status_message(status));
    exit(1);
  }
}

/* Returns the time of the wall clock. */
static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static kt_limiter limiter;
static kt_gate gate;
static kt_key key;

/* Returns the index at which the text of the next call begins if it depends on this verdict. The
 * index is always 0, since a wait is shorter than 2^31 s, but the processor knows that only when it
 * has the verdict. */
static size_t next_begin(const kt_verdict *verdict) { return verdict->retry_after_s >> 31; }

/* Each of the following functions makes `times` calls and returns how many were admitted. `in_turn`
 * is a compile-time constant. */

static inline uint64_t call_limiter(uint64_t times, int in_turn) {
  static uint64_t now_ms = START_MS;
  uint64_t admitted = 0;
  size_t begin = 0;
  kt_verdict verdict;
  for (uint64_t i = 0; i < times; i++) {
    now_ms += STEP_MS;
    const uint8_t *subject = (const uint8_t *)SUBJECT + begin;
    must(kt_limiter_check(&limiter, subject, sizeof SUBJECT - 1 - begin, 1, now_ms, &verdict));
    admitted += verdict.outcome == KT_ADMITTED;
    if (in_turn) begin = next_begin(&verdict);
  }
  return admitted;
}

static inline uint64_t call_gate(uint64_t times, int in_turn) {
  static uint64_t now_ms = START_MS;
  uint64_t admitted = 0;
  size_t begin = 0, len = strlen(key.text);
  kt_verdict verdict;
  for (uint64_t i = 0; i < times; i++) {
    now_ms += STEP_MS;
    must(kt_gate_check(&gate, (const uint8_t *)key.text + begin, len - begin, 1, now_ms, &verdict));
    admitted += verdict.outcome == KT_ADMITTED;
    if (in_turn) begin = next_begin(&verdict);
  }
  return admitted;
}

int main(void) {
  static const uint8_t seed[16] = {7};
  must(kt_limiter_init(limiter_memory, sizeof limiter_memory, POLICY, 1000, seed, &limiter));

  kt_plan plan = {KT_TEXT("default"), POLICY};
  kt_gate_config config = {
      sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
  static const uint8_t secret[32] = {5};
  kt_bytes pepper = {secret, sizeof secret};
  must(kt_gate_init(gate_memory, sizeof gate_memory, &config, &pepper, 1, &gate));
  kt_new_key new_key = {sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
  static const uint8_t entropy[KT_ENTROPY_SIZE] = {9};
  uint64_t key_id;
  must(kt_gate_issue(&gate, &new_key, entropy, START_MS, &key, &key_id));

  char command[16];
  size_t batches;
  uint64_t times;
  while (scanf("%15s %zu %" SCNu64, command, &batches, &times) == 3) {
    uint64_t *ends = malloc((batches + 1) * sizeof *ends), admitted = 0;
    if (ends == NULL) return 1;
    ends[0] = now_ns();
    for (size_t i = 1; i <= batches; i++) {
      if (strcmp(command, "limiter") == 0) {
        admitted += call_limiter(times, 0);
      } else if (strcmp(command, "limiter-in-turn") == 0) {
        admitted += call_limiter(times, 1);
      } else if (strcmp(command, "gate") == 0) {
        admitted += call_gate(times, 0);
      } else {
        admitted += call_gate(times, 1);
      }
      ends[i] = now_ns();
    }
    if (admitted != batches * times) {
      fprintf(stderr, "%" PRIu64 " of %" PRIu64 " checks were admitted, not all\n", admitted, batches * times);
      return 1;
    }
    for (size_t i = 0; i < batches; i++) printf("%" PRIu64 "\n", ends[i + 1] - ends[i]);
    fflush(stdout);
    free(ends);
  }
  return 0;
}
