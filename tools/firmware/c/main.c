/* The firmware in C: runs the vectors and the scenario of a device, and prints their results and
 * the costs. */
#include <keytally.h>

#include "cost.h"
#include "life.h"
#include "vectors.h"

enum { SUBJECTS = 16 };

static _Alignas(KT_TABLE_ALIGN) uint8_t gate_memory[KT_GATE_SIZE(64)];
static _Alignas(KT_TABLE_ALIGN) uint8_t limiter_memory[KT_LIMITER_SIZE(SUBJECTS)];

int main(void) {
    run_vectors(gate_memory, sizeof gate_memory);
    live(gate_memory, sizeof gate_memory, limiter_memory, sizeof limiter_memory, SUBJECTS);
    print_costs(gate_memory, sizeof gate_memory, limiter_memory, sizeof limiter_memory, SUBJECTS);
    return 0;
}
