// Compiles the header after macros that system headers define: AssertMacros.h, sys/sysmacros.h,
// Windows, Qt, X11.
#define check(assertion) (assertion)
#define verify(assertion) (assertion)
#define require(assertion, label) (assertion)
#define major(device) ((device) >> 8)
#define minor(device) ((device) & 255)
#define makedev(first, second) ((first) << 8 | (second))
#define interface struct
#define small char
#define near
#define far
#define signals public
#define slots
#define emit
#define foreach for
#define Status int
#define Bool int
#define None 0L
#define Success 0
#define Always 2
#include <keytally.hpp>

static_assert(check(1) == 1 && major(256) == 1, "the macros are restored");

int main() {
    auto limiter = keytally::Limiter::in_memory("1/minute", 8);
    if (!(limiter.check)("a").admitted() || limiter.try_check("a")->admitted()) return 1;
#undef check
    return limiter.check("a").admitted() ? 2 : 0;
}
