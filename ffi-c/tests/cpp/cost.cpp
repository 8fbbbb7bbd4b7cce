// Makes the same checks by the C functions, or by the C++ wrapper: `cost c TIMES` or
// `cost cpp TIMES`. The suite `cpp` runs both and counts their instructions. The wrapper may add at
// most two instructions to a check.
#include <keytally.hpp>

#include <cstdio>
#include <cstdlib>

using keytally::Gate;
using keytally::Limiter;
using keytally::Time;

static constexpr std::uint64_t START_MS = 1767225600000;
static constexpr std::string_view SUBJECT = "203.0.113.9";
static constexpr std::string_view PEPPER = "a pepper of at least 32 bytes ...";
#define POLICY KT_TEXT("100000/minute, 1000000/hour")

alignas(KT_TABLE_ALIGN) static unsigned char limiter_memory[KT_LIMITER_SIZE(100)];
alignas(KT_TABLE_ALIGN) static unsigned char gate_memory[KT_GATE_SIZE(64)];

static void must(kt_status status) {
    if (status == KT_OK) return;
    std::fprintf(stderr, "%s\n", kt_status_message(status));
    std::exit(1);
}

[[gnu::noinline]] static long check_by_c(kt_limiter *limiter, kt_gate *gate,
                                          const kt_key &key, std::size_t key_len, long times) {
    long admitted = 0;
    for (long i = 0; i < times; i++) {
        kt_verdict verdict;
        std::uint64_t now_ms = START_MS + static_cast<std::uint64_t>(i);
        must(kt_limiter_check(limiter, reinterpret_cast<const std::uint8_t *>(SUBJECT.data()),
                              SUBJECT.size(), 1, now_ms, &verdict));
        admitted += verdict.outcome == KT_ADMITTED;
        must(kt_gate_check(gate, reinterpret_cast<const std::uint8_t *>(key.text), key_len, 1,
                           now_ms, &verdict));
        admitted += verdict.outcome == KT_ADMITTED;
    }
    return admitted;
}

[[gnu::noinline]] static long check_by_cpp(const Limiter &limiter, const Gate &gate,
                                            std::string_view key, long times) {
    long admitted = 0;
    Time now{std::chrono::milliseconds(START_MS)};
    for (long i = 0; i < times; i++) {
        admitted += limiter.check(SUBJECT, 1, now).admitted();
        admitted += gate.check(key, 1, now).admitted();
        now += std::chrono::milliseconds(1);
    }
    return admitted;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    // The seed and the entropy are fixed, so that each run executes the same instructions.
    static const std::uint8_t seed[16] = {7};
    kt_limiter limiter;
    must(kt_limiter_init(limiter_memory, sizeof limiter_memory, POLICY, 100, seed, &limiter));
    kt_plan plan = {KT_TEXT("default"), POLICY};
    kt_gate_config config = {
        sizeof(kt_gate_config), 64, &plan, 1, KT_TEXT("kt"), 0, 0, nullptr, 0, nullptr, 0};
    kt_bytes pepper = {reinterpret_cast<const std::uint8_t *>(PEPPER.data()), PEPPER.size()};
    kt_gate gate;
    must(kt_gate_init(gate_memory, sizeof gate_memory, &config, &pepper, 1, &gate));
    kt_new_key new_key = {
        sizeof(kt_new_key), 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, nullptr, 0};
    static const std::uint8_t entropy[KT_ENTROPY_SIZE] = {9};
    kt_key key;
    std::uint64_t key_id;
    must(kt_gate_issue(&gate, &new_key, entropy, START_MS, &key, &key_id));

    long times = std::atol(arguments[2]);
    auto wrapped_limiter = Limiter::attach(limiter_memory, sizeof limiter_memory);
    auto wrapped_gate = Gate::attach(gate_memory, sizeof gate_memory, PEPPER);
    std::string_view text = key.text;
    long admitted = arguments[1] == std::string_view("c")
                        ? check_by_c(wrapped_limiter.get(), wrapped_gate.get(), key,
                                     text.size(), times)
                        : check_by_cpp(wrapped_limiter, wrapped_gate, text, times);
    kt_gate_close(&gate);
    kt_limiter_close(&limiter);
    return admitted == 2 * times ? 0 : 1;
}
