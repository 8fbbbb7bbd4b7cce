/* A device that only checks keys. Its gate was created on the host (tables/src/main.rs) and is part
 * of its flash image. */
#include <keytally.h>

#include "board.h"
#include "gate.h"

/* board.c copies it from flash to memory before main begins. */
__asm__(
    ".section .data.gate_memory, \"aw\"\n"
    ".balign 64\n"
    "gate_memory: .incbin \"gate.bin\"\n"
    "gate_memory_end:\n"
    ".previous\n");
extern uint8_t gate_memory[], gate_memory_end[];

static kt_gate gate;

int main(void) {
    static const uint8_t pepper[32] = "a pepper for all to see, 32 byte";
    const kt_bytes peppers = {pepper, sizeof pepper};
    kt_status status =
        kt_gate_attach(gate_memory, (size_t)(gate_memory_end - gate_memory), &peppers, 1, &gate);
    kt_verdict verdict;
    if (status == KT_OK) {
        status = kt_gate_check(&gate, (const uint8_t *)DEVICE_KEY, sizeof DEVICE_KEY - 1, 1,
                               1767225600000, &verdict);
    }
    if (status != KT_OK) {
        return status;
    }
    return verdict.outcome == KT_ADMITTED && verdict.account == 42 ? 0 : 2;
}
