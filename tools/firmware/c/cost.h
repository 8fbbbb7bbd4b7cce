#ifndef COST_H
#define COST_H

#include <stddef.h>
#include <stdint.h>

/* Prints the cost of each call that a device makes. Creates the tables in this memory. */
void print_costs(uint8_t *gate_memory, size_t gate_len, uint8_t *limiter_memory, size_t limiter_len,
                 uint32_t subjects);

#endif
