#ifndef VECTORS_H
#define VECTORS_H

#include <stddef.h>
#include <stdint.h>

/* Runs the shared vectors through the library; the gates are made in this memory. Prints how many agreed. */
void run_vectors(uint8_t *gate_memory, size_t gate_len);

#endif
