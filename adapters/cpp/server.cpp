/*
 * An HTTP server that checks each request's API key, with cpp-httplib: GET /api/v1/contacts.
 *
 *     c++ -std=c++17 server.cpp -o server -pthread \
 *         $(pkg-config --cflags --libs keytally cpp-httplib)
 *     KEYTALLY_PEPPER=... ./server api.gate 8080
 *
 * Create the gate and its keys with the command line (`keytally create`, `keytally issue`). A
 * change there, such as a revocation, holds for the next request.
 */
#include <keytally.hpp>

#include <httplib.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

namespace {

constexpr auto JSON = "application/json";

/** Returns the verdict on a request. More than one X-API-Key header is invalid, because another
 *  server of the chain might read another one. */
keytally::Verdict verdict_on(const keytally::Gate &gate, const httplib::Request &request) {
    switch (request.get_header_value_count("X-API-Key")) {
    case 0: return gate.check(std::nullopt);
    case 1: return gate.check(request.get_header_value("X-API-Key"));
    default: return keytally::Verdict::duplicate_header();
    }
}

} // namespace

int main(int count, char **arguments) try {
    const char *peppers = std::getenv("KEYTALLY_PEPPER");
    if (count != 3 || peppers == nullptr) {
        std::cerr << "usage: KEYTALLY_PEPPER=... " << arguments[0] << " GATE PORT\n";
        return 2;
    }
    // All threads share one object, without a lock.
    const auto gate = keytally::Gate::open(arguments[1], peppers);

    httplib::Server server;
    server.set_pre_routing_handler([&](const httplib::Request &request,
                                       httplib::Response &response) {
        auto verdict = verdict_on(gate, request);
        verdict.for_each_header([&](std::string_view name, std::string_view value) {
            response.set_header(std::string(name).c_str(), std::string(value));
        });
        if (verdict.admitted()) return httplib::Server::HandlerResponse::Unhandled;
        response.status = verdict.http_status;
        response.set_content(std::string(verdict.body()), JSON);
        return httplib::Server::HandlerResponse::Handled;
    });
    server.Get("/api/v1/contacts", [](const httplib::Request &, httplib::Response &response) {
        response.set_content(R"({"contacts": [{"name": "Ada"}, {"name": "Grace"}]})", JSON);
    });
    server.set_error_handler([](const httplib::Request &, httplib::Response &response) {
        if (response.body.empty()) response.set_content(R"({"error": "Not found"})", JSON);
    });

    int port = std::stoi(arguments[2]);
    bool bound = port == 0 ? (port = server.bind_to_any_port("127.0.0.1")) > 0
                           : server.bind_to_port("127.0.0.1", port);
    if (!bound) throw std::runtime_error("cannot listen on port " + std::string(arguments[2]));
    std::cout << "http://127.0.0.1:" << port << "/api/v1/contacts" << std::endl;
    std::thread serving([&] { server.listen_after_bind(); });
    while (std::cin.get() != EOF) {
    } // Until standard input ends.
    server.stop();
    serving.join();
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
