#ifndef COST_H
#define COST_H

#include <stddef.h>
#include <stdint.h>

/* Prints what each of the calls costs that a device makes; the tables are made in this memory. */
void tell_costs(uint8_t *gate_memory, size_t gate_len, uint8_t *limiter_memory, size_t limiter_len, uint32_t subjects);

#endif
