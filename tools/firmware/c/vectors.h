#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>

/* Runs the shared vectors and prints how many agreed. Creates the gates in this memory. */
void run_vectors(uint8_t *gate_memory, size_t gate_len);

#endif
