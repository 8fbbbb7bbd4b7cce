// Links libkeytally.a together with another static library made by Rust. Each contains Rust's
// standard library.
#include <keytally.h>

#include <stdlib.h>

uint32_t other_answer(uint32_t number);

int main(void) {
    const uint8_t seed[16] = {7};
    void *memory = aligned_alloc(KT_TABLE_ALIGN, KT_LIMITER_SIZE(8));
    kt_limiter limiter;
    kt_verdict verdict;
    if (kt_limiter_init(memory, KT_LIMITER_SIZE(8), KT_TEXT("1/minute"), 8, seed, &limiter) !=
        KT_OK)
        return 1;
    if (kt_limiter_check(&limiter, seed, sizeof seed, 1, KT_SYSTEM_CLOCK, &verdict) != KT_OK)
        return 2;
    kt_limiter_close(&limiter);
    free(memory);
    return verdict.outcome == KT_ADMITTED && other_answer(20) == 42 ? 0 : 3;
}
