// Without exceptions, only the methods that begin with try_ exist.
#include <keytally.hpp>

#include <cstdio>

template <class T, class = void>
struct Throws : std::false_type {};
template <class T>
struct Throws<T, std::void_t<decltype(std::declval<T &>().check("a"))>> : std::true_type {};
static_assert(!Throws<keytally::Limiter>::value, "nothing can throw here");

int main() {
    auto limiter = keytally::Limiter::try_in_memory("1/minute", 8);
    if (!limiter) return std::fprintf(stderr, "%s\n", kt_status_message(limiter.status())), 1;
    auto first = limiter->try_check("a"), second = limiter->try_check("a");
    if (!first || !first->admitted() || !second || second->admitted()) return 2;
    return keytally::Limiter::try_in_memory("never", 8).status() == KT_POLICY_SYNTAX ? 0 : 3;
}
