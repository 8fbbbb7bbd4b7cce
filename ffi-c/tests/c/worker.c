/* A process of the interop test: checks keys of a gate file, and prints how often each was
   admitted. Usage: worker GATE NOW_MS TURNS KEY... It begins when a line arrives on standard input.
   KEYTALLY_PEPPER holds the peppers. */
#include "check.h"

int main(int count, char **arguments) {
    CHECK(count > 4);
    const char *peppers = getenv("KEYTALLY_PEPPER");
    kt_gate *gate;
    OK(kt_gate_open(arguments[1], peppers, peppers == NULL ? 0 : strlen(peppers), &gate));
    uint64_t now_ms = strtoull(arguments[2], NULL, 10);
    unsigned long turns = strtoul(arguments[3], NULL, 10);
    unsigned long *admitted = calloc((size_t)count, sizeof *admitted);
    CHECK(admitted != NULL);
    puts("ready");
    fflush(stdout);
    CHECK(getchar() != EOF);
    for (unsigned long turn = 0; turn < turns; turn++) {
        for (int at = 4; at < count; at++) {
            const uint8_t *key = bytes(arguments[at]);
            size_t len = strlen(arguments[at]);
            if (turn % 2 == 0) {
                kt_verdict verdict;
                OK(kt_gate_check(gate, key, len, 1, now_ms, &verdict));
                admitted[at] += verdict.outcome == KT_ADMITTED;
            } else {
                const kt_part part = {.gate = gate, .text = key, .text_len = len, .cost = 1};
                kt_compound compound;
                OK(kt_check_all(&part, 1, now_ms, &compound));
                admitted[at] += compound.outcome == KT_ADMITTED;
            }
        }
    }
    for (int at = 4; at < count; at++) printf("%lu\n", admitted[at]);
    free(admitted);
    kt_gate_close(gate);
    return 0;
}
