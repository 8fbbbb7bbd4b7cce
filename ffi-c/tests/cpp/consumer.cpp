// A program of a project that found the package by CMake.
#include <keytally.hpp>

int main() {
    auto limiter = keytally::Limiter::in_memory("2/minute", 100);
    bool admitted =
        limiter.check("203.0.113.9").admitted() && limiter.check("203.0.113.9").admitted();
    return admitted && !limiter.check("203.0.113.9").admitted() ? 0 : 1;
}
