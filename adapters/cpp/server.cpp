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

/** Sets the header fields of a verdict or a compound, and the response if the request is refused. */
template <class Result>
httplib::Server::HandlerResponse answer(httplib::Response &response, const Result &result) {
    result.for_each_header([&](std::string_view name, std::string_view value) {
        response.set_header(std::string(name).c_str(), std::string(value));
    });
    if (result.admitted()) return httplib::Server::HandlerResponse::Unhandled;
    response.status = result.http_status;
    response.set_content(std::string(result.body()), JSON);
    return httplib::Server::HandlerResponse::Handled;
}

/** Checks the key of a request. A gate may have teams and groups: the compound then lists all quotas
 *  in its header fields, and has the charge for a refund. More than one X-API-Key header is
 *  invalid, because another server of the chain might read another one. */
httplib::Server::HandlerResponse check(const keytally::Gate &gate, const httplib::Request &request,
                                       httplib::Response &response) {
    switch (request.get_header_value_count("X-API-Key")) {
    case 0: return answer(response, gate.check(std::nullopt, keytally::Request{}));
    case 1: {
        std::string api_key = request.get_header_value("X-API-Key");
        return answer(response, gate.check(api_key, keytally::Request{}));
    }
    default: return answer(response, keytally::Verdict::duplicate_header());
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
    server.set_pre_routing_handler(
        [&](const httplib::Request &request, httplib::Response &response) {
            return check(gate, request, response);
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
