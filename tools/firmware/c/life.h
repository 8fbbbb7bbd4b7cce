#ifndef LIFE_H
#define LIFE_H

#include <stddef.h>
#include <stdint.h>

/* Runs the scenario of a device in this memory, and prints it. */
void live(uint8_t *gate_memory, size_t gate_len, uint8_t *limiter_memory, size_t limiter_len,
          uint32_t subjects);

#endif
