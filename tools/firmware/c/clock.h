/* Unix time from a 32-bit tick counter that wraps; see checks/src/clock.rs. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t ms;
    uint32_t rest, ticks, hz;
};

/* Starts a clock: `now_ms` is the time at the count `ticks` of a counter of `hz` ticks a second. */
static inline void clock_start(struct clock *clock, uint64_t now_ms, uint32_t ticks, uint32_t hz) {
    *clock = (struct clock){now_ms, 0, ticks, hz};
}

/* Returns the Unix milliseconds at the count `ticks`. Fewer than 2^32 ticks may pass between two
 * calls. */
static inline uint64_t clock_at(struct clock *clock, uint32_t ticks) {
    uint64_t passed = (uint64_t)(ticks - clock->ticks) * 1000 + clock->rest;
    clock->ms += passed / clock->hz;
    clock->rest = (uint32_t)(passed % clock->hz);
    clock->ticks = ticks;
    return clock->ms;
}

#endif
