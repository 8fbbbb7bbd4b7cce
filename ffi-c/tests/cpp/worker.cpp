// A process of the interop test in C++: checks keys of a gate file, and prints how often each was
// admitted. See ../c/worker.c.
#include <keytally.hpp>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

int main(int count, char **arguments) {
    std::vector<std::string> words(arguments + 1, arguments + count);
    auto gate = keytally::Gate::open(words.at(0), std::getenv("KEYTALLY_PEPPER"));
    keytally::Time at{std::chrono::milliseconds(std::stoll(words.at(1)))};
    auto turns = std::stoul(words.at(2));
    std::vector<std::string> keys(words.begin() + 3, words.end());
    std::vector<unsigned long> admitted(keys.size());
    std::cout << "ready" << std::endl;
    if (std::cin.get() == EOF) return 1;
    for (unsigned long turn = 0; turn < turns; turn++)
        for (std::size_t key = 0; key < keys.size(); key++)
            admitted[key] += gate.check(keys[key], 1, at).admitted();
    for (auto each : admitted) std::cout << each << "\n";
}
