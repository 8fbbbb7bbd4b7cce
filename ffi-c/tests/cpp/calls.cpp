// Tests the wrapper: each method, both ways to fail, ownership. Built as C++17 and C++20.
#include <keytally.hpp>

#include <keytally.hpp> // A second time, without effect.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

using namespace std::chrono_literals;
using keytally::Gate;
using keytally::Key;
using keytally::Limiter;
using keytally::Verdict;

#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))

static void failed(const char *file, int line, const char *condition) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    std::exit(1);
}

/** Returns the status of the exception; KT_OK if there is none. */
static kt_status thrown(const std::function<void()> &work) {
    try {
        work();
    } catch (const keytally::Error &error) {
        CHECK(std::string_view(error.what()) == kt_status_message(error.status()));
        return error.status();
    }
    return KT_OK;
}

static constexpr std::uint64_t NOW_MS = 1767225600000;
static const keytally::Time NOW{std::chrono::milliseconds(NOW_MS)};
static constexpr std::string_view PEPPER = "a pepper of at least 32 bytes ...";

static_assert(!std::is_copy_constructible_v<Gate> && std::is_nothrow_move_constructible_v<Gate>);
static_assert(!std::is_copy_constructible_v<Limiter> && std::is_nothrow_move_assignable_v<Limiter>);
static_assert(!std::is_copy_constructible_v<Key> && std::is_nothrow_move_constructible_v<Key>);
static_assert(std::is_trivially_copyable_v<Verdict> && sizeof(Verdict) == sizeof(kt_verdict));

static void limiters_charge_refund_and_close() {
    auto limiter = Limiter::in_memory("3/minute, 100/hour", 100);
    Verdict verdict = limiter.check("203.0.113.9", 2, NOW);
    CHECK(verdict.admitted() && verdict.quotas()[0].remaining == 1 && verdict.charge().cost() == 2);
    CHECK(verdict.retry_after() == 0s && !verdict.retry_at());
    Verdict denied = limiter.check("203.0.113.9", 2, NOW + 1s);
    CHECK(!denied.admitted() && denied.retry_after() == 59s && denied.retry_at() == NOW + 60s);
    CHECK(denied.body() == R"({"error": "Rate limit exceeded. Please try again later."})");
    CHECK(denied.problem().view().find("\"violated-policies\": [\"minute\"]") !=
          std::string_view::npos);

    int fields = 0;
    denied.for_each_header([&](std::string_view name, std::string_view value) {
        CHECK(!name.empty() && !value.empty());
        fields++;
        if (name == "Retry-After") CHECK(value == "59");
        if (name == "X-RateLimit-Limit") CHECK(value == "100");
    });
    CHECK(fields == 6);

    keytally::Charge charge = verdict.charge();
    CHECK(charge.cost() == 2 && charge.at() == NOW && denied.charge().cost() == 0);
    CHECK(keytally::Charge(2, NOW).bytes() == charge.bytes() && charge.bytes()[0] == 2);
    keytally::Charge::Bytes bytes = charge.bytes();
    CHECK(keytally::Charge::from_bytes(bytes).bytes() == bytes);
    bytes.back() = 1;
    CHECK(keytally::Charge::try_from_bytes(bytes).status() == KT_NOT_A_CHARGE);
    CHECK(thrown([&] { keytally::Charge::from_bytes(bytes); }) == KT_NOT_A_CHARGE);

    CHECK(limiter.refund("203.0.113.9", charge, NOW).quotas()[0].remaining == 3);
    verdict = limiter.check("203.0.113.9", 1, NOW);
    CHECK(limiter.settle("203.0.113.9", verdict.charge(), 3, NOW).quotas()[0].remaining == 0);
    keytally::Settlement settlement;
    settlement.cost = 9;
    settlement.overdraw = true;
    auto overdrawn = limiter.settle("203.0.113.9", verdict.charge(), settlement, NOW);
    CHECK(overdrawn.quotas()[0].remaining == 0 && overdrawn.uncharged == 0);
    settlement.costs = {{"write", 1}};
    CHECK(limiter.try_settle("203.0.113.9", verdict.charge(), settlement, NOW).status() ==
          KT_NO_SUCH_GROUP);
    CHECK(limiter.peek("203.0.113.9", 1, NOW).outcome == KT_DENIED);
    CHECK(limiter.reset("203.0.113.9", NOW).quotas()[0].remaining == 3);
    CHECK(limiter.check("203.0.113.9", 4, NOW).outcome == KT_TOO_COSTLY);

    keytally::Request request;
    request.cost = 2;
    request.at = NOW;
    verdict = limiter.check("198.51.100.7", request);
    CHECK(verdict.cost == 2 && verdict.now_ms == NOW_MS && verdict.quotas()[1].remaining == 98);
    CHECK(limiter.try_check("198.51.100.7", keytally::Request{2, NOW})->outcome == KT_DENIED);
    CHECK(limiter.check("198.51.100.8", keytally::Request{}).cost == 1);
    std::uint32_t limits = 0;
    for (const kt_quota &quota : verdict.quotas()) limits += quota.limit;
    CHECK(limits == 103 && verdict.quotas().size() == 2);
    CHECK(Verdict::duplicate_header(NOW).quotas().empty());
#if __cplusplus >= 202002L
    CHECK(limiter.check("198.51.100.7", {.cost = 1, .at = NOW}).admitted());
#endif

    // A moved-from limiter returns a status and does not crash.
    Limiter moved = std::move(limiter);
    CHECK(moved.check("203.0.113.9", 1, NOW).quotas()[0].remaining == 2);
    CHECK(limiter.try_check("x").status() == KT_NULL_POINTER);
    CHECK(thrown([&] { limiter.check("x"); }) == KT_NULL_POINTER);
    limiter = Limiter::in_memory("1/second", 1);
    CHECK(limiter.check("x", 1, NOW).admitted());
    limiter = std::move(moved);
    CHECK(limiter.peek("203.0.113.9", 1, NOW).quotas()[0].remaining == 2);

    CHECK(Limiter::try_in_memory("3/fortnight", 100).status() == KT_POLICY_UNIT);
    CHECK(Limiter::try_in_memory("3/minute", 0).status() == KT_CAPACITY);
    CHECK(thrown([] { Limiter::in_memory("", 5); }) == KT_POLICY_EMPTY);
    CHECK(keytally::policy_explain("3/fortnight").view().substr(0, 11) == "\"fortnight\"");
    CHECK(keytally::policy_explain("3/minute").view().empty());

    // A time before 1970 is 1970, and any precision is rounded down to milliseconds.
    CHECK(limiter.check("old", 1, keytally::Time(-5s)).now_ms == 0);
    CHECK(limiter.check("fine", 1, std::chrono::system_clock::time_point(1999us)).now_ms == 1);
    std::chrono::time_point<std::chrono::system_clock, std::chrono::hours> one_hour(1h);
    CHECK(limiter.check("coarse", 1, one_hour).now_ms == 3600000);

#if __cplusplus >= 202002L
    const std::byte address[4] = {std::byte{203}, std::byte{0}, std::byte{113}, std::byte{9}};
    CHECK(limiter.check(std::span<const std::byte>(address), 1, NOW).quotas()[0].remaining == 2);
    CHECK(limiter.try_check(std::span<const std::byte>(address), 1, NOW)->quotas()[0].remaining ==
          1);
#endif
}

/** A check may read the kernel's coarse clock, which is late by up to a tick of at most 10 ms. */
static bool is_now(std::uint64_t ms, keytally::Time before) {
    auto time = keytally::Time(std::chrono::milliseconds(ms));
    return before - 10ms <= time && time <= keytally::now();
}

/** An explicit time far ahead locks a tally. The default, the system clock, corrects the tally and
 *  keeps its counts. */
static void parts_are_charged_all_or_none() {
    auto users = Limiter::in_memory("5/minute", 8);
    auto teams = Limiter::in_memory("4/hour", 8);
    auto admitted = *keytally::try_check_all({users.part("ann", 3), teams.part("42", 3)}, NOW);
    CHECK(admitted.admitted() && admitted.size() == 2 && admitted.charge(1).cost() == 3);
    CHECK(admitted[1].part == 1 && admitted.retry_after() == 0s && admitted.body().empty());
    auto denied = keytally::check_all({users.part("ann", 2), teams.part("42", 2)}, NOW);
    CHECK(!denied.admitted() && denied.decisive_index == 1 && denied.retry_after() == 1h);
    CHECK(denied.decisive().outcome == KT_DENIED && denied.retry_at() == NOW + 1h);
    CHECK(denied.verdict(0).admitted() && denied.charge(0).cost() == 0);
    std::size_t count = 0;
    for (const kt_tally &tally : denied) count += keytally::Quotas(tally.verdict).size();
    CHECK(count == 2);
    auto peeked = keytally::peek_all({users.part("ann", 2), teams.part("42", 1)}, NOW);
    CHECK(peeked.admitted() && peeked.charge().cost() == 0);
    CHECK(keytally::try_check_all({}).status() == KT_PART_COUNT);
    auto one = users.part("ann");
    CHECK(keytally::try_check_all({one, one, one, one, one, one, one, one, one}).status() ==
          KT_PART_COUNT);
    Limiter moved = std::move(users);
    CHECK(keytally::try_check_all({users.part("ann")}).status() == KT_PART_TABLE);
}

static void system_clock_corrects_what_an_explicit_time_locked() {
    auto limiter = Limiter::in_memory("5/hour", 100);
    // By the library's clock: that of std::time may be some milliseconds late.
    auto before = keytally::now(), ahead = before + 3h;
    CHECK(is_now(limiter.check("new").now_ms, before));
    CHECK(limiter.check("a", 5, ahead).admitted());
    Verdict locked = limiter.check("a", 1, before);
    CHECK(!locked.admitted() && locked.clock_ahead() > 2h &&
          before + locked.retry_after() >= ahead);
    CHECK(limiter.peek("a", 1, before).clock_ahead() > 2h); // An explicit time corrects nothing.
    Verdict corrected = limiter.check("a");
    CHECK(!corrected.admitted() && corrected.clock_ahead() == 0s && corrected.retry_after() <= 1h);
    CHECK(is_now(corrected.now_ms, before));

    // A reading is an explicit time until it is declared a reading.
    CHECK(limiter.reset("a", ahead).admitted() && limiter.check("a", 5, ahead).admitted());
    CHECK(limiter.check("a", 1, before).clock_ahead() > 2h);
    limiter.use_system_clock();
    corrected = limiter.check("a", 1, before - 3h);
    CHECK(!corrected.admitted() && corrected.clock_ahead() == 0s &&
          is_now(corrected.now_ms, before));

    auto tables = Limiter::in_memory("5/hour", 100);
    for (const char *subject : {"a", "b"}) CHECK(tables.check(subject, 5, ahead).admitted());
    CHECK(tables.correct_clock(before) == 2 && tables.correct_clock() == 0);
    CHECK(tables.reset("a", ahead).admitted() && tables.correct_clock() == 1);
    tables.set_on_full(KT_ON_FULL_REFUSE);
    CHECK(tables.on_full() == KT_ON_FULL_REFUSE && tables.refusals() == 0);

    keytally::GateConfig config;
    config.plans = {{"default", "5/hour"}};
    config.keys = 8;
    auto gate = Gate::in_memory(PEPPER, config);
    Key key = gate.issue({42});
    CHECK(gate.check(key.expose(), 5, ahead).admitted());
    CHECK(gate.check(key.expose(), 1, before).clock_ahead() > 2h &&
          gate.key(key.key_id()).clock_ahead_s > 2 * 3600);
    corrected = gate.check(key.expose());
    CHECK(!corrected.admitted() && corrected.clock_ahead() == 0s &&
          is_now(corrected.now_ms, before));
    CHECK(gate.reset(key.key_id(), ahead).admitted() && gate.correct_clock(before) == 1 &&
          gate.correct_clock() == 0);
    CHECK(gate.reset(key.key_id(), ahead).admitted());
    gate.use_system_clock();
    CHECK(is_now(gate.peek(key.expose(), 1, before - 3h).now_ms, before));
    CHECK(is_now(Verdict::duplicate_header().now_ms, before));

    // A grace and an expiry begin at the time that is given, also where that is the system clock.
    Key fresh = gate.rotate(key.key_id(), 1h), brief = gate.issue({7, "live", {}, before + 1h});
    CHECK(gate.check(key.expose(), 0).admitted() && gate.check(brief.expose(), 0).admitted());
    CHECK(!gate.check(key.expose(), 0, ahead).admitted() &&
          !gate.check(brief.expose(), 0, ahead).admitted());
    CHECK(gate.check(fresh.expose(), 0, ahead).admitted());

    CHECK(Limiter(std::move(limiter)).try_correct_clock().has_value());
    CHECK(limiter.try_correct_clock().status() == KT_NULL_POINTER);
    CHECK(limiter.try_use_system_clock().status() == KT_NULL_POINTER);
}

/** What is the same in memory and in a file. */
static void use(Gate &gate) {
    Key key = gate.issue({42, "live", "default"}, NOW);
    CHECK(key.expose().substr(0, 8) == "kt_live_" && key.key_id() != 0);
    Verdict verdict = gate.check(key.expose(), 1, NOW);
    CHECK(verdict.admitted() && verdict.account == 42 && verdict.key_id == key.key_id());
    CHECK(gate.env(verdict.env).view() == "live" &&
          std::string_view(gate.plan(verdict.plan).name) == "default");
    CHECK(gate.refund(key.key_id(), verdict.charge(), NOW).quotas()[1].remaining == 1000);
    verdict = gate.check(key.expose(), 5, NOW);
    CHECK(gate.settle(key.key_id(), verdict.charge(), 7, NOW).quotas()[1].remaining == 993);
    CHECK(gate.reset(key.key_id(), NOW).quotas()[1].remaining == 1000);
    CHECK(gate.peek(key.expose(), 1, NOW).admitted());

    CHECK(gate.check(std::nullopt, 1, NOW).outcome == KT_MISSING_KEY);
    CHECK(gate.check(std::string_view{}, 1, NOW).outcome == KT_INVALID_KEY); // Empty, and there.
    CHECK(gate.check("nonsense", 1, NOW).reason == KT_REASON_MALFORMED);
    CHECK(Verdict::duplicate_header(NOW).reason == KT_REASON_DUPLICATE);

    gate.set_plan({"pro", "1000/minute, 20000/hour"});
    gate.assign(key.key_id(), "pro");
    CHECK(gate.check(key.expose(), 1, NOW).quotas()[1].limit == 20000);
    CHECK(thrown([&] { gate.assign(key.key_id(), "gold"); }) == KT_NO_SUCH_PLAN);

    Key fresh = gate.rotate(key.key_id(), 60s, false, NOW);
    CHECK(fresh.key_id() == key.key_id() && fresh.expose() != key.expose());
    CHECK(gate.check(key.expose(), 1, NOW).admitted() &&
          gate.check(fresh.expose(), 1, NOW).admitted());
    CHECK(gate.check(key.expose(), 1, NOW + 60s).reason == KT_REASON_EXPIRED);
    CHECK(thrown([&] { gate.rotate(key.key_id(), 60s, false, NOW); }) == KT_IN_GRACE);
    CHECK(gate.check(key.expose(), 0, NOW).admitted());
    fresh = gate.rotate(key.key_id(), 60s, true, NOW);
    CHECK(!gate.check(key.expose(), 0, NOW).admitted() &&
          gate.check(fresh.expose(), 0, NOW).admitted());

    auto checked = gate.check(fresh.expose(), keytally::Request{0, NOW});
    CHECK(checked.admitted() && checked.size() == 1 && checked.key_id == key.key_id());
    CHECK(keytally::Quotas(gate.key(key.key_id(), NOW)).size() == 2);
    auto imported = gate.import("legacy-key-0123456789", {7}, NOW);
    CHECK(gate.check("legacy-key-0123456789", 1, NOW).key_id == imported);
    CHECK(gate.try_import("legacy-key-0123456789", {7}, NOW).status() == KT_ALREADY_IMPORTED);
    Key brief = gate.issue({8, "test", {}, NOW + 1s}, NOW);
    CHECK(gate.check(brief.expose(), 1, NOW).admitted() &&
          !gate.check(brief.expose(), 1, NOW + 1s).admitted());

    int keys = 0;
    gate.list([&](const kt_key_info &info) { keys += info.key_id != 0; }, NOW);
    CHECK(keys == 3);
    gate.list([&](const kt_key_info &) { return --keys > 2; }, NOW);
    CHECK(keys == 2);
    struct Stop {};
    bool stopped = false;
    try {
        gate.list([](const kt_key_info &) { throw Stop{}; }, NOW);
    } catch (const Stop &) {
        stopped = true; // The exception does not pass through the library.
    }
    CHECK(stopped);

    gate.revoke(key.key_id());
    CHECK(gate.check(fresh.expose(), 1, NOW).reason == KT_REASON_REVOKED &&
          gate.key(key.key_id(), NOW).revoked == 1);
    CHECK(thrown([&] { gate.rotate(key.key_id(), 0s, false, NOW); }) == KT_REVOKED);
    CHECK(gate.try_revoke(1).status() == KT_NO_SUCH_KEY && !gate.try_revoke(1));

    // A key is wiped by its destructor and when it is moved from.
    Key taken = std::move(fresh);
    CHECK(fresh.expose().empty() && !taken.expose().empty());
    CHECK(keytally::key_hint(taken.expose()).view().substr(0, 8) == "kt_live_");
    CHECK(keytally::key_id_text(1).view() == "00000000001" &&
          keytally::key_id_text(0).view().empty());
}

static void gates_check_and_administer_keys(const std::string &folder) {
    keytally::GateConfig config;
    config.keys = 64;
    auto gate = Gate::in_memory(PEPPER, config);
    use(gate);
    CHECK(Gate::try_in_memory("short", config).status() == KT_PEPPER_TOO_SHORT);
    config.plans = {{"a", "5/minute"}, {"b", "5/hour"}};
    CHECK(thrown([&] { Gate::in_memory(PEPPER, config); }) == KT_PLAN_WINDOWS);

    char pepper[KT_PEPPER_SIZE];
    CHECK(kt_pepper_generate(pepper, sizeof pepper) == KT_OK);
    auto path = folder + "/cpp.gate";
    config.plans = keytally::GateConfig().plans;
    CHECK(Gate::try_open(path.c_str(), pepper).status() == KT_FILE_NOT_FOUND);
    auto file = Gate::create(path, pepper, config);
    use(file);
    auto same = Gate::open(path, pepper);
    same.set_wait(std::chrono::milliseconds(20));
    CHECK(!same.administrator());
    same.reopen_if_replaced();
    same.reopen();
    same.watch();
    CHECK(gate.try_watch().status() == KT_NOT_A_FILE &&
          gate.try_set_wait(1s).status() == KT_NOT_A_FILE);
    Key key = file.issue({1}, NOW);
    CHECK(same.check(key.expose(), 1, NOW).admitted());
    CHECK(same.try_key_usage(key.key_id()).status() == KT_NOT_COUNTED);
    CHECK(gate.try_set_usage(true).status() == KT_NOT_A_FILE);
    file.set_usage(true);
    CHECK(same.check(key.expose(), 0, NOW).admitted());
    CHECK(file.key_usage(key.key_id()).admitted == 1);
    file.set_usage(false);
    CHECK(thrown([&] { same.key_usage(key.key_id()); }) == KT_NOT_COUNTED);
    CHECK(thrown([&] { Gate::create(path, pepper, config); }) == KT_FILE_EXISTS);
    CHECK(thrown([&] { Gate::open(path, "letmein"); }) == KT_PEPPER_FORM);
    CHECK(thrown([&] { Gate::open_with_pepper_file(path, folder); }) == KT_NOT_A_FILE);
    gate = std::move(file);
    CHECK(gate.check(key.expose(), 1, NOW).quotas()[1].remaining == 998);

    auto limiter = Limiter::open_or_create(folder + "/cpp.limiter", "5/minute", 100);
    auto again = Limiter::open(folder + "/cpp.limiter");
    CHECK(limiter.check("a", 5, NOW).admitted() && !again.check("a", 1, NOW).admitted());
}

/** A gate with teams, groups and scopes. */
static void use_sections(Gate &gate) {
    Key key = gate.issue({42, "live", {}, std::nullopt, {"read"}}, NOW);
    keytally::Request request;
    request.at = NOW;
    request.cost = 4;
    request.groups = {"write"};
    request.costs = {{"tokens", 2500}};
    request.need = {"read"};
    auto peeked = gate.peek(key.expose(), request);
    CHECK(peeked.admitted() && peeked.remaining == 100 && peeked.charge().cost() == 0);
    auto charged = gate.check(key.expose(), request);
    CHECK(charged.admitted() && charged.account == 42 && charged.size() == 4);
    CHECK(charged.remaining == 96 && charged.verdict(1).quotas()[0].remaining == 146);
    CHECK(std::string_view(charged[2].section) == "write" && charged[3].verdict.cost == 2500);
    CHECK(charged.headers().view().find("\"team-minute\";q=150;w=60") != std::string_view::npos);
    int fields = 0;
    charged.for_each_header([&](std::string_view name, std::string_view value) {
        if (name == "X-RateLimit-Remaining") CHECK(value == "96");
        fields++;
    });
    CHECK(fields == 5 && charged.crossed().empty());

    // A check of the key alone has no charge: a request has one.
    auto alone = gate.check(key.expose(), 1, NOW);
    CHECK(alone.admitted() && alone.try_charge().status() == KT_NOT_A_CHARGE);
    CHECK(thrown([&] { alone.charge(); }) == KT_NOT_A_CHARGE);
    gate.reset(key.key_id(), NOW);
    gate.reset_account(42, NOW);
    charged = gate.check(key.expose(), request);

    // The actual number of tokens is above the group's limit.
    keytally::Settlement settlement;
    settlement.cost = 2;
    settlement.costs = {{"tokens", 6000}};
    auto settled = gate.settle(key.key_id(), charged.charge(), settlement, NOW);
    CHECK(settled.verdict.quotas()[0].remaining == 98 && settled.uncharged[0] == 1000);
    auto denied = gate.check(key.expose(), request);
    CHECK(denied.outcome == KT_DENIED && std::string_view(denied[denied.decisive_index].section) ==
                                             "tokens");
    CHECK(denied.problem().view().find("[\"tokens-hour\"]") != std::string_view::npos);

    request.costs = {};
    request.cost = 3;
    auto warned = gate.check(key.expose(), request);
    CHECK(warned.crossed().size() == 1 && warned.crossed()[0].percent == 50 &&
          warned.crossed()[0].tally == 2 && warned.crossed()[0].quota == 0);
    CHECK(keytally::quota_name(warned[2], 0).view() == "write-minute");
    CHECK(keytally::quota_name(warned[0], 0).view() == "minute");
    CHECK(keytally::quota_name(warned[2], 1).view().empty());
    gate.refund(key.key_id(), warned.charge(), NOW);
    CHECK(gate.peek(key.expose(), request).remaining == 98);
    settlement.cost = 7;
    settlement.costs = {};
    settled = gate.settle(key.key_id(), charged.charge(), settlement, NOW);
    CHECK(settled.crossed().size() == 1 && settled.crossed()[0].percent == 50 &&
          settled.compound[settled.crossed()[0].tally].section == std::string_view("write"));
    settlement.cost = 1;
    CHECK(gate.settle(key.key_id(), charged.charge(), settlement, NOW).crossed().empty());

    request.need = {"read", "write"};
    CHECK(gate.check(key.expose(), request).http_status == 403);
    gate.set_scopes(key.key_id(), {"write"});
    CHECK((gate.scopes(gate.key(key.key_id())) == std::vector<std::string>{"write"}));
    gate.set_scopes(key.key_id(), {"read", "write"});
    CHECK(gate.scopes(gate.key(key.key_id())) == gate.scopes());
    CHECK(gate.check(key.expose(), request).admitted());
    gate.expire(key.key_id(), NOW + 60s);
    CHECK(gate.key(key.key_id(), NOW).expires_s == NOW_MS / 1000 + 60);
    gate.expire(key.key_id(), std::nullopt);
    CHECK(gate.key(key.key_id(), NOW).expires_s == 0);
    keytally::Key next = gate.rotate(key.key_id(), 60s, false, NOW);
    gate.end_grace(key.key_id());
    CHECK(gate.check(key.expose(), 0, NOW).reason == KT_REASON_EXPIRED);
    CHECK(gate.check(next.expose(), 0, NOW).outcome == KT_ADMITTED);
    key = std::move(next);
    request.need = {"admin"};
    CHECK(thrown([&] { gate.check(key.expose(), request); }) == KT_NO_SUCH_SCOPE);
    request.need = {};
    request.groups = {"none"};
    CHECK(gate.try_check(key.expose(), request).status() == KT_NO_SUCH_GROUP);
    settlement.costs = {{"none", 1}};
    CHECK(gate.try_settle(key.key_id(), charged.charge(), settlement).status() ==
          KT_NO_SUCH_GROUP);
#if __cplusplus >= 202002L
    auto designated = gate.check(key.expose(), {.cost = 1,
                                                .at = NOW,
                                                .groups = {"write"},
                                                .costs = {{"tokens", 0}},
                                                .need = {"write"}});
    CHECK(designated.admitted() && designated.size() == 4);
#endif

    auto addresses = Limiter::in_memory("5/minute", 8);
    request.groups = {"write"};
    request.cost = 1;
    auto both = keytally::check_all({gate.part(key.expose(), request), addresses.part("a")}, NOW);
    CHECK(both.admitted() && both.size() == 4 && both[3].part == 1 && both[2].part == 0);

    CHECK((gate.sections() == std::vector<std::string>{"key", "team", "write", "tokens"}));
    CHECK((gate.scopes() == std::vector<std::string>{"read", "write"}));
    CHECK(gate.team_capacity() == 3);
    gate.reset_account(42, NOW);
    CHECK(keytally::Quotas(gate.account(42, NOW))[0].remaining == 150);
    gate.limit_account(42, "7/minute");
    CHECK(gate.account(42, NOW).has_own_limits == 1);
    gate.assign_account(42, "default");
    CHECK(gate.account(42, NOW).has_own_limits == 0);
    gate.set_suspended(42, true);
    CHECK(gate.check(key.expose(), 1, NOW).reason == KT_REASON_SUSPENDED);
    gate.set_suspended(42, false);
    CHECK(gate.check(key.expose(), 1, NOW).admitted());
    int accounts = 0;
    gate.accounts([&](const kt_account_info &info) { accounts += info.account == 42; }, NOW);
    CHECK(accounts == 1);
    CHECK(thrown([&] { gate.account(43); }) == KT_NO_SUCH_ACCOUNT);
}

static void requests_charge_key_team_and_groups(const std::string &folder) {
    keytally::GateConfig config;
    config.keys = 8;
    config.teams = 3;
    config.scopes = {"read", "write"};
    config.plans = {{"default", "100/minute; team: 150/minute; group write: 10/minute warn 50%; "
                                "group tokens: 5000/hour"}};
    auto gate = Gate::in_memory(PEPPER, config);
    CHECK(gate.described().view().empty());
    use_sections(gate);
    config.described = "minute";
    CHECK(Gate::in_memory(PEPPER, config).described().view() == "minute");
    config.described = {};
    char pepper[KT_PEPPER_SIZE];
    CHECK(kt_pepper_generate(pepper, sizeof pepper) == KT_OK);
    auto file = Gate::create(folder + "/sections.gate", pepper, config);
    use_sections(file);
    Gate moved = std::move(file);
    CHECK(file.scopes().empty() && moved.sections().size() == 4);
    CHECK(keytally::sections_explain("1/s; team: 1/s").view().empty());
    CHECK(!keytally::sections_explain("1/s; teams: 1/s").view().empty());
    config.scopes = {"two words"};
    CHECK(Gate::try_in_memory(PEPPER, config).status() == KT_SCOPES);
}

/** A null `const char *` is a status in place of a text, and a missing key in place of a key. */
static void null_pointer_is_a_status(const std::string &folder) {
    const char *null = std::getenv("KEYTALLY_NO_SUCH_VARIABLE");
    CHECK(null == nullptr);
    keytally::GateConfig config;
    config.keys = 8;
    char pepper[KT_PEPPER_SIZE];
    CHECK(kt_pepper_generate(pepper, sizeof pepper) == KT_OK);
    auto path = folder + "/null.gate";
    CHECK(thrown([&] { Gate::create(path, null, config); }) == KT_PEPPER_COUNT);
    CHECK(thrown([&] { Gate::create(null, pepper, config); }) == KT_NULL_POINTER);
    auto gate = Gate::create(path, pepper, config);
    CHECK(thrown([&] { Gate::open(path, null); }) == KT_PEPPER_COUNT);
    CHECK(thrown([&] { Gate::open(path, nullptr); }) == KT_PEPPER_COUNT);
    CHECK(Gate::try_open(path.c_str(), null).status() == KT_PEPPER_COUNT);
    CHECK(std::string_view(kt_status_message(KT_PEPPER_COUNT)).find("KEYTALLY_PEPPER") !=
          std::string_view::npos);
    CHECK(thrown([&] { Gate::open(null, pepper); }) == KT_NULL_POINTER);
    CHECK(Gate::try_open(null, pepper).status() == KT_NULL_POINTER);
    CHECK(thrown([&] { Gate::open_with_pepper_file(path, null); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { Gate::open_with_pepper_file(null, path); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { Gate::in_memory(null, config); }) == KT_NULL_POINTER);
    alignas(KT_TABLE_ALIGN) static unsigned char memory[KT_GATE_SIZE(8)];
    CHECK(thrown([&] { Gate::attach(memory, sizeof memory, null); }) == KT_NULL_POINTER);
    config.prefix = null;
    CHECK(thrown([&] { Gate::in_memory(PEPPER, config); }) == KT_NULL_POINTER);

    CHECK(gate.check(null).outcome == KT_MISSING_KEY &&
          gate.check(nullptr).outcome == KT_MISSING_KEY);
    CHECK(gate.check(std::optional<const char *>()).outcome == KT_MISSING_KEY);
    CHECK(gate.check(std::optional<const char *>(nullptr)).outcome == KT_MISSING_KEY);
    CHECK(Gate::open(std::string_view(path), pepper).check(null).outcome == KT_MISSING_KEY);
    CHECK(gate.try_check(null)->outcome == KT_MISSING_KEY &&
          gate.peek(null).outcome == KT_MISSING_KEY);
    CHECK(gate.check(std::optional<std::string>()).outcome == KT_MISSING_KEY);
    CHECK(gate.check(std::optional<std::string>("x")).outcome == KT_INVALID_KEY);
    CHECK(gate.check("").outcome == KT_INVALID_KEY);
    Key key = gate.issue({1});
    CHECK(thrown([&] { gate.issue({1, null}); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { gate.issue({1, "live", null}); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { gate.import(null, {1}); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { gate.assign(key.key_id(), null); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { gate.set_plan({null, "1/minute"}); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { gate.set_plan({"a", null}); }) == KT_NULL_POINTER);

    CHECK(thrown([&] { Limiter::in_memory(null, 8); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { Limiter::open(null); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { Limiter::open_or_create(null, "1/minute", 8); }) == KT_NULL_POINTER);
    CHECK(thrown([&] { Limiter::open_or_create(folder + "/null.limiter", null, 8); }) ==
          KT_NULL_POINTER);
    auto limiter = Limiter::in_memory("1/minute", 8);
    CHECK(thrown([&] { limiter.check(null); }) == KT_NULL_POINTER);
    CHECK(limiter.try_check(null).status() == KT_NULL_POINTER &&
          limiter.try_peek(null).status() == KT_NULL_POINTER);
    CHECK(thrown([&] { limiter.reset(null); }) == KT_NULL_POINTER);
    CHECK(limiter.check("").admitted() &&
          limiter.try_check(std::string_view())->outcome == KT_DENIED);
    CHECK(keytally::key_hint(null).view().empty() && keytally::policy_explain(null).view().empty());
}

/** Writes a word of a file. */
static void write_word(const std::string &path, std::streamoff word, std::uint64_t value) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8 * word).write(reinterpret_cast<const char *>(&value), sizeof value);
    CHECK(file.good());
}

static void gate_in_a_fleet_waits_as_the_request_says(const std::string &folder) {
    const char *pepper = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
    keytally::GateConfig config;
    config.keys = 8;
    config.plans = {{"default", "10/week"}};
    auto gate = Gate::create(folder + "/fleet.gate", pepper, config);
    const Key key = gate.issue({7});
    // An empty fleet file for a few tallies, and what an agent says in its page.
    auto path = folder + "/api.fleet";
    std::ofstream(path, std::ios::binary) << std::string(8192, '\0');
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    CHECK(!gate.is_in_fleet());
    gate.set_fleet(true);
    CHECK(gate.is_in_fleet() && *gate.try_is_in_fleet());
    CHECK(gate.check(key.expose()).unavailability == KT_UNAVAILABILITY_NOT_RESERVING);
    gate.join(path);
    CHECK(gate.try_join(path.c_str()).status() == KT_JOINED);
    CHECK(thrown([&] { gate.join(path); }) == KT_JOINED);
    constexpr std::uint64_t leading = 2, closed = 1;
    write_word(path, 9, std::uint64_t(1) << 32 | closed << 8 | leading);
    write_word(path, 16, kt_now_ms() + 3600000);
    gate.set_credit_wait(1ms);
    CHECK(gate.check(key.expose()).unavailability == KT_UNAVAILABILITY_LOST);
    keytally::Request request;
    request.patience = KT_PATIENCE_RETURN;
    auto waiting = gate.check(key.expose(), request);
    CHECK(waiting.outcome == KT_UNAVAILABLE && waiting.retry_after() == 1s);
    CHECK(waiting.decisive().unavailability == KT_UNAVAILABILITY_WAITING);
    auto all = keytally::check_all({gate.part(key.expose(), request)});
    CHECK(all.decisive().unavailability == KT_UNAVAILABILITY_WAITING);
    request.patience = KT_PATIENCE_DECIDE;
    CHECK(gate.try_check(key.expose(), request)->outcome == KT_UNAVAILABLE);
    gate.set_fleet(false);
    CHECK(gate.check(key.expose()).admitted() && gate.check(key.expose()).is_leased == 0);
    auto memory = Gate::in_memory(PEPPER, config);
    CHECK(memory.try_join(path.c_str()).status() == KT_NOT_A_FILE);
    CHECK(memory.try_set_fleet(true).status() == KT_NOT_A_FILE);
    CHECK(memory.try_set_credit_wait(1ms).status() == KT_NOT_A_FILE);
}

static void limiter_in_a_fleet_waits_as_the_request_says(const std::string &folder) {
    auto limiter = Limiter::open_or_create(folder + "/fleet.limiter", "10/week", 8);
    auto path = folder + "/limiter.fleet";
    std::ofstream(path, std::ios::binary) << std::string(8192, '\0');
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    CHECK(!limiter.is_in_fleet());
    limiter.set_fleet(true);
    CHECK(limiter.is_in_fleet() && *limiter.try_is_in_fleet());
    CHECK(limiter.check("ann").unavailability == KT_UNAVAILABILITY_NOT_RESERVING);
    limiter.join(path);
    CHECK(limiter.try_join(path.c_str()).status() == KT_JOINED);
    CHECK(thrown([&] { limiter.join(path); }) == KT_JOINED);
    constexpr std::uint64_t leading = 2, closed = 1;
    write_word(path, 9, std::uint64_t(1) << 32 | closed << 8 | leading);
    write_word(path, 16, kt_now_ms() + 3600000);
    limiter.set_credit_wait(1ms);
    CHECK(limiter.check("ann").unavailability == KT_UNAVAILABILITY_LOST);
    keytally::Request request;
    request.patience = KT_PATIENCE_RETURN;
    CHECK(limiter.check("ann", request).unavailability == KT_UNAVAILABILITY_WAITING);
    request.patience = KT_PATIENCE_DECIDE;
    CHECK(limiter.try_check("ann", request)->unavailability == KT_UNAVAILABILITY_LOST);
    limiter.set_fleet(false);
    CHECK(limiter.check("ann").admitted() && limiter.peek("ann").quotas()[0].remaining == 9);
    CHECK(limiter.try_set_credit_wait(1ms).status() == KT_OK);
}

/** Opens tables in the caller's memory that C created. */
static void table_that_c_created_is_attached() {
    alignas(KT_TABLE_ALIGN) static unsigned char limits[KT_LIMITER_SIZE(8)], keys[KT_GATE_SIZE(8)];
    const std::uint8_t seed[16] = {1};
    kt_limiter limiter;
    CHECK(kt_limiter_init(limits, sizeof limits, KT_TEXT("1/minute"), 8, seed, &limiter) == KT_OK);
    auto same = Limiter::attach(limits, sizeof limits);
    CHECK(same.check("a", 1, NOW).admitted() && !same.check("a", 1, NOW).admitted());
    kt_limiter_close(&limiter);
    CHECK(Gate::try_attach(keys, sizeof keys, PEPPER).status() == KT_UNFINISHED);
    CHECK(Limiter::try_attach(keys + 1, sizeof keys - 1).status() == KT_MISALIGNED);
}

static void threads_admit_exactly_the_limit() {
    auto limiter = Limiter::in_memory("1000/minute", 8);
    unsigned admitted[4] = {};
    std::vector<std::thread> spenders;
    for (unsigned &count : admitted)
        spenders.emplace_back([&limiter, &count] {
            for (int turn = 0; turn < 2000; turn++)
                count += limiter.check("one", 1, NOW).admitted();
        });
    for (auto &spender : spenders) spender.join();
    CHECK(admitted[0] + admitted[1] + admitted[2] + admitted[3] == 1000);
}

static void address_is_charged_in_all_networks() {
    auto limiter = Limiter::in_memory("addresses: /64 2/minute; /48 3/minute", 64);
    CHECK(limiter.check("2001:db8::1", 2, NOW).admitted());
    auto compound = keytally::check_all({limiter.part("2001:db8:0:1::1")}, NOW);
    CHECK(compound.admitted() && !limiter.check("2001:db8:0:2::1", 1, NOW).admitted());
    CHECK(limiter.try_check("ann").status() == KT_NOT_AN_ADDRESS);
    CHECK(limiter.live_subjects(NOW) == 3); // Two clients of one /48.
    CHECK(limiter.capacity() == 64 && limiter.slots_total() == 96);
    CHECK(Limiter::try_in_memory("addresses: /65 2/minute", 64).status() == KT_POLICY_PREFIX);
}

int main(int count, char **arguments) {
    CHECK(count == 2); // A folder for files.
    address_is_charged_in_all_networks();
    limiters_charge_refund_and_close();
    parts_are_charged_all_or_none();
    system_clock_corrects_what_an_explicit_time_locked();
    gates_check_and_administer_keys(arguments[1]);
    requests_charge_key_team_and_groups(arguments[1]);
    gate_in_a_fleet_waits_as_the_request_says(arguments[1]);
    limiter_in_a_fleet_waits_as_the_request_says(arguments[1]);
    null_pointer_is_a_status(arguments[1]);
    table_that_c_created_is_attached();
    threads_admit_exactly_the_limit();
}
