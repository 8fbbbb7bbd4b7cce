/*
 * keytally.hpp: Keytally for C++17, over keytally.h. The contract of keytally.h holds here too.
 *
 *     auto gate = keytally::Gate::open("api.gate", std::getenv("KEYTALLY_PEPPER"));
 *     keytally::Verdict verdict = gate.check(api_key);
 *     if (!verdict.admitted()) return respond(verdict.http_status, verdict.body());
 *     for (const kt_quota &quota : verdict.quotas()) log(quota.remaining, quota.limit);
 *
 * keytally::Gate and keytally::Limiter own their handle: they can be moved and not copied, and
 * their destructor closes it. A moved-from object may only be assigned to or destroyed; its methods
 * fail with KT_NULL_POINTER. keytally::Verdict and keytally::Charge are the plain structs
 * kt_verdict and kt_charge with methods, and may be copied. Any number of threads may call methods
 * of one object at the same time. While an object is made, moved or destroyed, no other thread may
 * use it.
 *
 * A function that can fail exists twice. `open(...)` throws keytally::Error. `try_open(...)` throws
 * nothing and returns a keytally::Result, which holds the value or the kt_status. With
 * -fno-exceptions only the second exists. A refused request is not a failure: it is the verdict's
 * outcome.
 *
 * Methods that depend on time take a keytally::Clock: the system clock, unless an explicit time is
 * given. An explicit time is used as given and never corrected. The section "Wrong clocks" of
 * keytally.h says what that costs. check, peek, refund, settle and reset allocate nothing, and take
 * as long as the C function. Those with a Request or a Settlement allocate the lists of groups and
 * scopes, if there are any.
 *
 *     auto charged = gate.check(api_key, {.groups = {"write"}, .costs = {{"tokens", 2500}},
 *                                         .need = {"write"}});   // C++20
 *     if (!charged.admitted()) return respond(charged.http_status, charged.body());
 *
 * A text is given as a std::string, a std::string_view, a literal or a `const char *`. A null
 * pointer, which std::getenv may return, does not crash: it is a missing key, a missing pepper, and
 * KT_NULL_POINTER for any other text.
 *
 * Some systems define a macro named `check`. This header compiles after it. Where the macro is in
 * force, write `(gate.check)(api_key)`.
 */
#ifndef KEYTALLY_HPP
#define KEYTALLY_HPP

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions)
#include <exception>
#include <stdexcept>
#endif

#if __cplusplus >= 202002L
#include <span>
#endif

#include "keytally.h"

/* AssertMacros.h of macOS defines it. It is restored at the end. */
#pragma push_macro("check")
#undef check

namespace keytally {

/** A time, in milliseconds since 1970-01-01 00:00 UTC. */
using Time = std::chrono::time_point<std::chrono::system_clock, std::chrono::milliseconds>;

/** Returns the system clock's time. */
inline Time now() noexcept {
    return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

namespace detail {

/** Returns Unix milliseconds. A time before 1970 is 0. */
inline std::uint64_t unix_ms(Time time) noexcept {
    auto ms = time.time_since_epoch().count();
    return ms < 0 ? 0 : static_cast<std::uint64_t>(ms);
}

/** Returns Unix seconds, rounded up. A time after 2106, when 32 bits end, is UINT32_MAX. */
inline std::uint32_t unix_s(Time time) noexcept {
    std::uint64_t seconds = unix_ms(time) / 1000 + (unix_ms(time) % 1000 != 0);
    return seconds > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(seconds);
}

inline Time from_ms(std::uint64_t ms) noexcept {
    return Time(std::chrono::milliseconds(static_cast<std::chrono::milliseconds::rep>(ms)));
}

inline const std::uint8_t *bytes(const char *text) noexcept {
    return reinterpret_cast<const std::uint8_t *>(text);
}

/** Whether a T converts to Target and is not a pointer, which may be null. */
template <class T, class Target>
using IfText =
    std::enable_if_t<std::is_convertible_v<const T &, Target> &&
                         !std::is_pointer_v<std::decay_t<T>> && !std::is_null_pointer_v<T>,
                     int>;

} // namespace detail

/** Text or bytes as an argument. A null pointer fails with KT_NULL_POINTER, unless a function says
 *  otherwise. */
class Input {
public:
    constexpr Input() noexcept = default;
    constexpr Input(const char *text) noexcept
        : data_(text), size_(text == nullptr ? 1 : std::string_view(text).size()) {}
    template <class T, detail::IfText<T, std::string_view> = 0>
    constexpr Input(const T &text) noexcept {
        std::string_view view = text;
        data_ = view.data();
        size_ = view.size();
    }

    /** The text; empty for a null pointer. */
    constexpr std::string_view view() const noexcept {
        return data_ == nullptr ? std::string_view() : std::string_view(data_, size_);
    }

    /** The parameters of a C function, which refuses a length without a pointer. */
    constexpr const char *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const char *data_ = nullptr;
    std::size_t size_ = 0;
};

/** The value of an X-API-Key header. std::nullopt or a null pointer means that the request has no
 *  such header. */
class ApiKey {
public:
    constexpr ApiKey() noexcept = default;
    constexpr ApiKey(const char *header) noexcept
        : ApiKey(header == nullptr ? std::nullopt : std::optional(std::string_view(header))) {}
    constexpr ApiKey(const std::optional<const char *> &header) noexcept
        : ApiKey(header.value_or(nullptr)) {}
    template <class T, detail::IfText<T, std::optional<std::string_view>> = 0>
    constexpr ApiKey(const T &header) noexcept {
        if (std::optional<std::string_view> view = header) {
            // An empty view may have no address, and is a header nevertheless.
            data_ = view->data() == nullptr ? "" : view->data();
            size_ = view->size();
        }
    }

    /** The parameters of a C function. */
    constexpr const char *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const char *data_ = nullptr;
    std::size_t size_ = 0;
};

#if defined(__cpp_exceptions)
/** A path as an argument. A null pointer fails with KT_NULL_POINTER. */
class Path {
public:
    Path(const char *path) {
        if (path != nullptr) path_ = path;
    }
    Path(std::string_view path) : path_(path) {}
    template <class T, detail::IfText<T, std::string> = 0>
    Path(const T &path) {
        std::string text = path;
        path_ = std::move(text);
    }

    const char *c_str() const noexcept { return path_ ? path_->c_str() : nullptr; }

private:
    std::optional<std::string> path_;
};
#endif

/** The time of a call: the system clock, or an explicit time. */
class Clock {
public:
    /** An explicit time of any precision. A time before 1970 is 1970. */
    template <class Duration>
    Clock(std::chrono::time_point<std::chrono::system_clock, Duration> time) noexcept
        : now_ms_(detail::unix_ms(std::chrono::floor<std::chrono::milliseconds>(time))) {}

    /** The system clock. It is read in the call, and again if a tally is ahead of that reading. */
    static constexpr Clock system() noexcept { return Clock(KT_SYSTEM_CLOCK); }

    /** Returns the explicit time, or the system clock's time now. */
    Time time() const noexcept {
        return now_ms_ == KT_SYSTEM_CLOCK ? now() : detail::from_ms(now_ms_);
    }

    /** Returns the parameter `now_ms` of keytally.h. */
    constexpr std::uint64_t now_ms() const noexcept { return now_ms_; }

private:
    explicit constexpr Clock(std::uint64_t now_ms) noexcept : now_ms_(now_ms) {}

    std::uint64_t now_ms_;
};

#if defined(__cpp_exceptions)
/** The exception of the methods that do not begin with try_. */
class Error : public std::runtime_error {
public:
    explicit Error(kt_status status)
        : std::runtime_error(kt_status_message(status)), status_(status) {}

    /** Returns the status; what() returns its sentence. */
    kt_status status() const noexcept { return status_; }

private:
    kt_status status_;
};
#endif

/** A value, or the status that is the reason why there is none. */
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(kt_status status) noexcept : content_(std::in_place_index<1>, status) {}

    bool has_value() const noexcept { return content_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /** Returns KT_OK if there is a value, else the reason why there is none. */
    kt_status status() const noexcept { return has_value() ? KT_OK : *std::get_if<1>(&content_); }

    /** Returns the value. There must be one. */
    T &operator*() & noexcept { return *std::get_if<0>(&content_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&content_); }
    T &&operator*() && noexcept { return std::move(*std::get_if<0>(&content_)); }
    T *operator->() noexcept { return std::get_if<0>(&content_); }
    const T *operator->() const noexcept { return std::get_if<0>(&content_); }

#if defined(__cpp_exceptions)
    /** Returns the value. Throws Error if there is none. */
    T value() && {
        if (!has_value()) throw Error(status());
        return std::move(**this);
    }
#endif

private:
    std::variant<T, kt_status> content_;
};

/** Success, or the status that is the reason for a failure. */
template <>
class [[nodiscard]] Result<void> {
public:
    Result(kt_status status) noexcept : status_(status) {}

    bool has_value() const noexcept { return status_ == KT_OK; }
    explicit operator bool() const noexcept { return has_value(); }
    kt_status status() const noexcept { return status_; }

#if defined(__cpp_exceptions)
    void value() && {
        if (!has_value()) throw Error(status_);
    }
#endif

private:
    kt_status status_;
};

/** A short text in a buffer of fixed size. */
template <std::size_t Size>
class Text {
public:
    std::string_view view() const noexcept { return {buffer_, length_}; }
    operator std::string_view() const noexcept { return view(); }
    const char *c_str() const noexcept { return buffer_; }
    std::string str() const { return std::string(view()); }

    /** Calls a C function that takes a buffer, its size and where the length goes. */
    template <class Write>
    kt_status fill(Write &&write) noexcept {
        return write(buffer_, Size, &length_);
    }

private:
    char buffer_[Size] = {};
    std::size_t length_ = 0;
};

/** The quotas of a verdict, of a key or of an account, shortest window first. */
class Quotas {
public:
    /** Returns the number of quotas. 0 if the check reached no tally. */
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    /** Returns the quota at `index`, which must be below size(). */
    const kt_quota &operator[](std::size_t index) const noexcept { return all_[index]; }
    const kt_quota *begin() const noexcept { return all_; }
    const kt_quota *end() const noexcept { return all_ + size_; }

    explicit Quotas(const kt_verdict &verdict) noexcept { fill(kt_verdict_quota, verdict); }
    explicit Quotas(const kt_key_info &info) noexcept { fill(kt_key_info_quota, info); }
    explicit Quotas(const kt_account_info &info) noexcept { fill(kt_account_info_quota, info); }

private:
    template <class Function, class Source>
    void fill(Function function, const Source &source) noexcept {
        while (size_ < Most && function(&source, size_, &all_[size_]) == KT_OK) size_++;
    }

    /** The most quotas that the structs have room for. */
    static constexpr std::size_t Most = 8;
    kt_quota all_[Most] = {};
    std::size_t size_ = 0;
};

/** The cost of a group. */
struct Cost {
    Input group;
    std::uint32_t cost = 1;
};

/** A request with options. In C++20: `gate.check(api_key, {.cost = 5, .groups = {"write"}})`. Its
 *  texts must live as long as it. */
struct Request {
    /** The units to charge. */
    std::uint32_t cost = 1;
    /** The time of the request. */
    Clock at = Clock::system();
    /** The groups of the gate's plans that are charged the cost of the request, too. */
    std::vector<Input> groups = {};
    /** The groups that are charged a cost of their own. */
    std::vector<Cost> costs = {};
    /** The scopes that the key must have. */
    std::vector<Input> need = {};
    /** What the request does if it lacks credits of a fleet: see Gate::join and Limiter::join. */
    kt_patience patience = KT_PATIENCE_WAIT;
};

/** What a request really cost. In C++20:
 *  `gate.settle(key_id, charge, {.costs = {{"tokens", 2310}}})`. */
struct Settlement {
    /** The cost of the request itself. std::nullopt: the estimate was right. */
    std::optional<std::uint32_t> cost = std::nullopt;
    /** The costs of groups that were charged a cost of their own. Other groups keep theirs. */
    std::vector<Cost> costs = {};
    /** Whether units for which there is no room are counted, too. */
    bool overdraw = false;
};

namespace detail {

/** Returns names as C functions take them. */
inline std::vector<kt_name> c_names(const std::vector<Input> &names) {
    std::vector<kt_name> all;
    all.reserve(names.size());
    for (const Input &name : names) all.push_back({name.data(), name.size()});
    return all;
}

/** Returns groups as C functions take them. */
inline std::vector<kt_group> c_groups(const std::vector<Input> &groups,
                                      const std::vector<Cost> &costs) {
    std::vector<kt_group> all;
    all.reserve(groups.size() + costs.size());
    for (const Input &group : groups) all.push_back({group.data(), group.size(), 0, 0});
    for (const Cost &cost : costs)
        all.push_back({cost.group.data(), cost.group.size(), cost.cost, 1});
    return all;
}

/** Returns a settlement as C functions take it, with its groups. */
inline kt_settlement c_settlement(const Settlement &settlement,
                                  const std::vector<kt_group> &groups) noexcept {
    return {sizeof(kt_settlement), settlement.cost.value_or(0), settlement.cost.has_value(),
            settlement.overdraw,   {},                          groups.data(),
            groups.size()};
}

} // namespace detail

/** What a request was charged, for a later refund or settlement. */
struct Charge : kt_charge {
    /** The charge of one tally, the first of its table: `cost` units at the time `at`. */
    Charge(std::uint32_t cost, Time at) noexcept : kt_charge{} {
        kt_charge_new(cost, detail::unix_ms(at), this);
    }

    /** Returns the units that the first tally was charged. */
    std::uint32_t cost() const noexcept {
        std::uint32_t cost = 0;
        kt_charge_cost(this, &cost);
        return cost;
    }

    /** Returns the time of the decision that charged the first tally. */
    Time at() const noexcept {
        std::uint64_t at_ms = 0;
        kt_charge_at_ms(this, &at_ms);
        return detail::from_ms(at_ms);
    }

    /** The bytes of a charge, which are the same in every language and on every machine. */
    using Bytes = std::array<std::uint8_t, sizeof(kt_charge)>;

    /** Returns the bytes, to be stored. */
    Bytes bytes() const noexcept {
        Bytes bytes;
        std::memcpy(bytes.data(), words, sizeof words);
        return bytes;
    }

    /** Returns the charge with these bytes. KT_NOT_A_CHARGE if bytes() does not return them. */
    static Result<Charge> try_from_bytes(const Bytes &bytes) noexcept {
        Charge charge(0, Time());
        std::memcpy(charge.words, bytes.data(), bytes.size());
        std::uint32_t cost = 0;
        if (kt_status status = kt_charge_cost(&charge, &cost); status != KT_OK) return status;
        return charge;
    }

#if defined(__cpp_exceptions)
    static Charge from_bytes(const Bytes &bytes) { return try_from_bytes(bytes).value(); }
#endif
};

/** The answer to a check: all members of kt_verdict, and what an HTTP response needs. */
struct Verdict : kt_verdict {
    /** Returns whether the request is admitted. */
    bool admitted() const noexcept { return outcome == KT_ADMITTED; }

    /** Returns how long to wait. Zero unless denied, full or unavailable. */
    std::chrono::seconds retry_after() const noexcept {
        return std::chrono::seconds(retry_after_s);
    }

    /** Returns by how much the tally was ahead of the caller; zero if it was not. More than 60 s
     *  means that a clock, or an explicit time, was wrong. */
    std::chrono::seconds clock_ahead() const noexcept {
        return std::chrono::seconds(clock_ahead_s);
    }

    /** Returns when to try a denied request again. Nothing unless denied, full or unavailable. */
    std::optional<Time> retry_at() const noexcept {
        return retry_after_s == 0 ? std::nullopt : std::optional(detail::from_ms(retry_at_ms));
    }

    /** Returns what the check charged. Its cost is 0 if the check was not admitted. KT_NOT_A_CHARGE
     *  if it was and has no charge: see kt_verdict_charge. */
    Result<Charge> try_charge() const noexcept {
        Charge charge(0, Time());
        if (kt_status status = kt_verdict_charge(this, &charge); status != KT_OK) return status;
        return charge;
    }

#if defined(__cpp_exceptions)
    Charge charge() const { return try_charge().value(); }
#endif

    /** Returns all windows after the decision, shortest first. */
    Quotas quotas() const noexcept { return Quotas(*this); }

    /** Returns the response body, JSON. Empty if admitted. */
    std::string_view body() const noexcept { return kt_verdict_body(this); }

    /** Returns the header fields, each with CR LF. for_each_header passes them one by one. */
    Text<KT_HEADERS_SIZE> headers() const noexcept {
        Text<KT_HEADERS_SIZE> text;
        text.fill([this](auto... to) { return kt_verdict_headers(this, to...); });
        return text;
    }

    /** Returns the body as application/problem+json (RFC 9457). Empty if admitted. */
    Text<KT_PROBLEM_SIZE> problem() const noexcept {
        Text<KT_PROBLEM_SIZE> text;
        text.fill([this](auto... to) { return kt_verdict_problem(this, to...); });
        return text;
    }

    /** Calls set(name, value) with each header field. Set these fields instead of appending them: a
     *  response must have each only once. */
    template <class Set>
    void for_each_header(Set &&set) const {
        char buffer[KT_HEADERS_SIZE];
        kt_field fields[KT_MAX_FIELDS];
        std::size_t count = 0;
        if (kt_verdict_fields(this, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &count) != KT_OK)
            return;
        for (std::size_t i = 0; i < count; i++)
            set(std::string_view(fields[i].name, fields[i].name_len),
                std::string_view(fields[i].value, fields[i].value_len));
    }

    /** Returns the verdict on a request that has the key header more than once. */
    static Verdict duplicate_header(Clock at = Clock::system()) noexcept {
        Verdict verdict{};
        kt_verdict_duplicate_header(at.now_ms(), &verdict);
        return verdict;
    }
};

/** A warning that a charge reached. */
struct Warning {
    /** The index of the tally in its Compound. */
    std::size_t tally;
    /** The index of the quota in the verdict on that tally. */
    std::size_t quota;
    /** The percentage of its limit. */
    std::uint8_t percent;
};

/** The answer to a request that charges several tallies, all or none: all members of kt_compound,
 *  and what an HTTP response needs. */
struct Compound : kt_compound {
    /** Returns whether the request is admitted. Every tally is then charged, else none. */
    bool admitted() const noexcept { return outcome == KT_ADMITTED; }

    /** Returns how long to wait. Zero unless denied, full or unavailable. */
    std::chrono::seconds retry_after() const noexcept {
        return std::chrono::seconds(retry_after_s);
    }

    /** Returns when to try a denied request again. Nothing unless denied or full. */
    std::optional<Time> retry_at() const noexcept {
        return retry_after_s == 0 ? std::nullopt : std::optional(detail::from_ms(retry_at_ms));
    }

    /** Returns the number of tallies, at least 1. They are in the order of the parts. */
    std::size_t size() const noexcept { return tally_count; }
    /** Returns the tally at `index`, which must be below size(). */
    const kt_tally &operator[](std::size_t index) const noexcept { return tallies[index]; }
    const kt_tally *begin() const noexcept { return tallies; }
    const kt_tally *end() const noexcept { return tallies + tally_count; }

    /** Returns the verdict on the tally at `index`, which must be below size(). */
    Verdict verdict(std::size_t index) const noexcept { return Verdict{tallies[index].verdict}; }
    /** Returns the verdict that decided, whose status and body the response has. */
    Verdict decisive() const noexcept { return verdict(decisive_index); }

    /** Returns what the part at `index` was charged. Its cost is 0 unless the request was admitted.
     *  gate.check has one part. */
    Charge charge(std::size_t index = 0) const noexcept {
        Charge charge(0, Time());
        kt_compound_charge(this, index, &charge);
        return charge;
    }

    /** Returns each warning that this charge reached. One request reports each. */
    std::vector<Warning> crossed() const {
        std::vector<Warning> all;
        for (std::size_t tally = 0; tally < size(); tally++)
            for (std::size_t quota = 0; quota < tallies[tally].verdict.quota_count; quota++)
                for (std::uint8_t percent : tallies[tally].crossed[quota])
                    if (percent > 0) all.push_back({tally, quota, percent});
        return all;
    }

    /** Returns the response body, JSON. Empty if admitted. */
    std::string_view body() const noexcept { return kt_compound_body(this); }

    /** Returns the header fields, each with CR LF. for_each_header passes them one by one. */
    Text<KT_COMPOUND_HEADERS_SIZE> headers() const noexcept {
        Text<KT_COMPOUND_HEADERS_SIZE> text;
        text.fill([this](auto... to) { return kt_compound_headers(this, to...); });
        return text;
    }

    /** Returns the body as application/problem+json (RFC 9457). Empty if admitted. */
    Text<KT_COMPOUND_PROBLEM_SIZE> problem() const noexcept {
        Text<KT_COMPOUND_PROBLEM_SIZE> text;
        text.fill([this](auto... to) { return kt_compound_problem(this, to...); });
        return text;
    }

    /** Calls set(name, value) with each header field. Set these fields instead of appending them: a
     *  response must have each only once. */
    template <class Set>
    void for_each_header(Set &&set) const {
        char buffer[KT_COMPOUND_HEADERS_SIZE];
        kt_field fields[KT_MAX_FIELDS];
        std::size_t count = 0;
        if (kt_compound_fields(this, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &count) != KT_OK)
            return;
        for (std::size_t i = 0; i < count; i++)
            set(std::string_view(fields[i].name, fields[i].name_len),
                std::string_view(fields[i].value, fields[i].value_len));
    }
};

/** The result of a settlement. */
struct Settled {
    /** The verdict on the first tally. Its `uncharged` is the part of the request's own cost that
     *  found no room. */
    Verdict verdict;
    /** The part of each cost of the Settlement that found no room. */
    std::vector<std::uint32_t> uncharged;
    /** The verdict on each tally of the charge. */
    Compound compound;

    /** Returns each warning that the settlement reached by units that it charged. */
    std::vector<Warning> crossed() const { return compound.crossed(); }
};

static_assert(sizeof(Verdict) == sizeof(kt_verdict) && std::is_trivially_copyable_v<Verdict>,
              "a verdict is plain");
static_assert(sizeof(Compound) == sizeof(kt_compound) && std::is_trivially_copyable_v<Compound>,
              "a compound is plain");
static_assert(sizeof(Charge) == sizeof(kt_charge) && std::is_trivially_copyable_v<Charge>,
              "a charge is plain");

/** Returns a key id as its 11 characters. Empty for 0, which is not a key id. */
inline Text<KT_KEY_ID_SIZE> key_id_text(std::uint64_t key_id) noexcept {
    Text<KT_KEY_ID_SIZE> text;
    text.fill([key_id](auto... to) { return kt_key_id_text(key_id, to...); });
    return text;
}

/** Returns the name that header fields have for a quota of a tally, such as team-hour. Empty if
 *  there is no quota of that index. */
inline Text<KT_QUOTA_NAME_SIZE> quota_name(const kt_tally &tally, std::size_t index) noexcept {
    Text<KT_QUOTA_NAME_SIZE> text;
    text.fill([&tally, index](auto... to) { return kt_tally_quota_name(&tally, index, to...); });
    return text;
}

/** Returns what may be shown of a key, such as kt_live_…9aZk. */
inline Text<KT_HINT_SIZE> key_hint(Input api_key) noexcept {
    Text<KT_HINT_SIZE> text;
    text.fill([api_key](auto... to) {
        return kt_key_hint(detail::bytes(api_key.data()), api_key.size(), to...);
    });
    return text;
}

/** Returns one sentence about what is wrong with a policy. Empty if it is valid. */
inline Text<KT_POLICY_SIZE> policy_explain(Input policy) noexcept {
    Text<KT_POLICY_SIZE> text;
    text.fill(
        [policy](auto... to) { return kt_policy_explain(policy.data(), policy.size(), to...); });
    return text;
}

/** Returns one sentence about what is wrong with the sections of a plan. Empty if they are
 *  valid. */
inline Text<KT_POLICY_SIZE> sections_explain(Input sections) noexcept {
    Text<KT_POLICY_SIZE> text;
    text.fill([sections](auto... to) {
        return kt_sections_explain(sections.data(), sections.size(), to...);
    });
    return text;
}

/** A complete key with its secret: the only copy. The destructor wipes it. */
class Key {
public:
    Key() noexcept : key_{} {}
    Key(const Key &) = delete;
    Key &operator=(const Key &) = delete;
    Key(Key &&other) noexcept : key_(other.key_), key_id_(other.key_id_) {
        kt_key_wipe(&other.key_);
    }
    Key &operator=(Key &&other) noexcept {
        if (this != &other) {
            key_ = other.key_;
            key_id_ = other.key_id_;
            kt_key_wipe(&other.key_);
        }
        return *this;
    }
    ~Key() { kt_key_wipe(&key_); }

    /** Returns the key as the client must send it. Do not log it. */
    std::string_view expose() const noexcept { return key_.text; }

    /** Returns the key id. */
    std::uint64_t key_id() const noexcept { return key_id_; }

private:
    friend class Gate;
    kt_key key_;
    std::uint64_t key_id_ = 0;
};

/** Quotas with a name. */
struct Plan {
    Input name;
    /** The quotas in sections, such as `100/minute; team: 5000/hour; group write: 20/minute`. */
    Input sections;
};

/** The configuration of a new gate. */
struct GateConfig {
    /** The plans. The first is for keys that name none. All have the same sections, windows and
     *  algorithms. */
    std::vector<Plan> plans = {{"default", "100/minute, 1000/hour"}};
    /** The most keys. */
    std::uint32_t keys = 100000;
    /** The text that each key begins with. */
    Input prefix = "kt";
    /** The most teams (accounts). 0 stands for the number of keys if the plans have a section
     *  `team`, and else for none. */
    std::uint32_t teams = 0;
    /** The names of the scopes that keys may have. */
    std::vector<Input> scopes = {};
    /** The window that `X-RateLimit-*` describe, such as `month`: one of the quotas of keys. Empty:
     *  the longest of at most a day, or the shortest if all are longer. */
    Input described = {};
};

/** The properties of a new key. */
struct NewKey {
    std::uint32_t account = 0;
    Input env = "live";
    /** The plan's name. If empty, the gate's first plan. */
    Input plan = {};
    /** When it expires. std::nullopt: never. */
    std::optional<Time> expires = std::nullopt;
    /** Its scopes. */
    std::vector<Input> scopes = {};
};

/** Memory of a table, owned by an object. */
class TableMemory {
public:
    explicit TableMemory(std::size_t size) noexcept
        : begin_(size == 0 ? nullptr
                           : ::operator new(size, std::align_val_t(KT_TABLE_ALIGN), std::nothrow)),
          size_(size) {
        if (begin_ != nullptr) std::memset(begin_.get(), 0, size);
    }

    void *data() const noexcept { return begin_.get(); }
    std::size_t size() const noexcept { return size_; }

private:
    struct Free {
        void operator()(void *begin) const noexcept {
            ::operator delete(begin, std::align_val_t(KT_TABLE_ALIGN));
        }
    };
    std::unique_ptr<void, Free> begin_;
    std::size_t size_;
};

namespace detail {

/** Entropy of the system. It holds a new secret, so the destructor wipes it. */
class Entropy {
public:
    Entropy() noexcept : status_(kt_entropy(bytes_)) {}
    Entropy(const Entropy &) = delete;
    Entropy &operator=(const Entropy &) = delete;
    ~Entropy() {
        // Stores to a volatile object are not left out.
        for (volatile std::uint8_t &byte : bytes_) byte = 0;
    }

    /** Returns KT_OK, or the reason why there is no entropy. */
    kt_status status() const noexcept { return status_; }
    const std::uint8_t *bytes() const noexcept { return bytes_; }

private:
    std::uint8_t bytes_[KT_ENTROPY_SIZE] = {};
    kt_status status_;
};

/** Closes a handle, and frees it if this header allocated it. */
template <class Handle, void (*close)(Handle *)>
struct Close {
    bool ours = false;
    void operator()(Handle *handle) const noexcept {
        close(handle);
        if (ours) delete handle;
    }
};

template <class Handle, void (*close)(Handle *)>
using Owned = std::unique_ptr<Handle, Close<Handle, close>>;

/** Makes a handle that this header allocates, so that it does not move with its owner. */
template <class Handle, void (*close)(Handle *), class Init>
Result<Owned<Handle, close>> make(Init &&init) noexcept {
    std::unique_ptr<Handle> handle(new (std::nothrow) Handle);
    if (!handle) return KT_NO_MEMORY;
    if (kt_status status = init(handle.get()); status != KT_OK) return status;
    return Owned<Handle, close>(handle.release(), Close<Handle, close>{true});
}

/** Opens a handle that the library allocates. */
template <class Handle, void (*close)(Handle *), class Open>
Result<Owned<Handle, close>> open(Open &&open) noexcept {
    Handle *handle = nullptr;
    if (kt_status status = open(&handle); status != KT_OK) return status;
    return Owned<Handle, close>(handle);
}

/** Calls a C function that writes a verdict. */
template <class Call>
Result<Verdict> verdict(Call &&call) noexcept {
    Verdict verdict;
    if (kt_status status = call(&verdict); status != KT_OK) return status;
    return verdict;
}

#if defined(__cpp_exceptions)
/** Calls a C function that writes a verdict. Throws Error if it fails. */
template <class Call>
Verdict verdict_or_throw(Call &&call) {
    Verdict verdict;
    if (kt_status status = call(&verdict); status != KT_OK) throw Error(status);
    return verdict;
}
#endif

/** Calls a C function that writes the result of a compound charge. */
template <class Call>
Result<Compound> compound(Call &&call) noexcept {
    Compound compound;
    if (kt_status status = call(&compound); status != KT_OK) return status;
    return compound;
}

/** Calls a C function that takes a request. */
template <class Call>
auto with_request(const Request &request, Call &&call) {
    const auto groups = c_groups(request.groups, request.costs);
    const auto need = c_names(request.need);
    const kt_request fields{sizeof(kt_request), request.cost, request.at.now_ms(), groups.data(),
                            groups.size(),      need.data(),  need.size(),         request.patience,
                            0};
    return call(&fields);
}

/** Calls a C function that writes a text, with 0, 1 and so on. Returns the texts until it fails. */
template <std::size_t Size, class Write>
std::vector<std::string> texts(Write &&write) {
    std::vector<std::string> all;
    for (Text<Size> text;;) {
        kt_status status =
            text.fill([&](auto... to) { return write(all.size(), to...); });
        if (status != KT_OK) return all;
        all.push_back(text.str());
    }
}

} // namespace detail

/** A key or a subject with a cost, for check_all. `part` of Gate and Limiter returns it. It refers
 *  to the table and to the text. */
class Part {
public:
    /** Returns the struct of keytally.h, which refers to this object. */
    kt_part to_c() const noexcept {
        kt_part part = part_;
        part.groups = groups_.data();
        part.groups_len = groups_.size();
        part.need = need_.data();
        part.need_len = need_.size();
        return part;
    }

private:
    friend class Gate;
    friend class Limiter;

    Part(kt_gate *gate, kt_limiter *limiter, const char *text, std::size_t size,
         std::uint32_t cost) noexcept
        : part_{gate,    limiter, detail::bytes(text), size, cost, KT_PATIENCE_WAIT, nullptr, 0,
                nullptr, 0} {}

    kt_part part_;
    std::vector<kt_group> groups_;
    std::vector<kt_name> need_;
};

/** A table of counts for any subject: an address, a user, a route. A policy that begins with
 *  `addresses:` makes a limiter of client addresses: see kt_limiter_init. Its `check` returns the
 *  verdict that decided, and `check_all` with one part those on all networks. */
class Limiter {
    /** Binds all arguments of a C function but the last, the verdict. */
    template <class Function, class... Arguments>
    auto call(Function function, Input subject, Arguments... arguments) const noexcept {
        return [=, handle = handle_.get()](kt_verdict *out) {
            return function(handle, detail::bytes(subject.data()), subject.size(), arguments...,
                            out);
        };
    }

public:
    /** Creates a limiter in memory of this process. */
    static Result<Limiter> try_in_memory(Input policy, std::uint32_t capacity) noexcept {
        const detail::Entropy entropy;
        if (entropy.status() != KT_OK) return entropy.status();
        const std::size_t size = kt_limiter_size(capacity);
        TableMemory memory(size == 0 ? 0 : size + KT_PREFIXES_SIZE);
        if (memory.data() == nullptr) return memory.size() == 0 ? KT_CAPACITY : KT_NO_MEMORY;
        auto handle = detail::make<kt_limiter, kt_limiter_close>([&](kt_limiter *out) {
            return kt_limiter_init(memory.data(), memory.size(), policy.data(), policy.size(),
                                   capacity, entropy.bytes(), out);
        });
        return made(std::move(handle), std::move(memory));
    }

    /** Opens a limiter in the caller's memory, which must not move while the object exists. */
    static Result<Limiter> try_attach(void *memory, std::size_t size) noexcept {
        return made(detail::make<kt_limiter, kt_limiter_close>(
            [&](kt_limiter *out) { return kt_limiter_attach(memory, size, out); }));
    }

    /** Opens the limiter in a file, which any number of processes share. `path` ends with a NUL. */
    static Result<Limiter> try_open(const char *path) noexcept {
        return made(detail::open<kt_limiter, kt_limiter_close>(
            [&](kt_limiter **out) { return kt_limiter_open(path, out); }));
    }

    /** Opens the limiter in a file, or creates it if there is none. */
    static Result<Limiter> try_open_or_create(const char *path, Input policy,
                                              std::uint32_t capacity) noexcept {
        return made(detail::open<kt_limiter, kt_limiter_close>([&](kt_limiter **out) {
            return kt_limiter_open_or_create(path, policy.data(), policy.size(), capacity, out);
        }));
    }

    Result<Verdict> try_check(Input subject, std::uint32_t cost = 1,
                              Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_limiter_check, subject, cost, at.now_ms()));
    }
    Result<Verdict> try_check(Input subject, const Request &request) const {
        return detail::with_request(request, [&](const kt_request *fields) {
            return detail::verdict(call(kt_limiter_check_request, subject, fields));
        });
    }
    Result<Verdict> try_peek(Input subject, std::uint32_t cost = 1,
                             Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_limiter_peek, subject, cost, at.now_ms()));
    }
    Result<Verdict> try_refund(Input subject, const kt_charge &charge,
                               Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_limiter_refund, subject, &charge, at.now_ms()));
    }
    Result<Verdict> try_settle(Input subject, const kt_charge &estimate, std::uint32_t actual,
                               Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_limiter_settle, subject, &estimate, actual, at.now_ms()));
    }
    Result<Verdict> try_settle(Input subject, const kt_charge &estimate,
                               const Settlement &settlement, Clock at = Clock::system()) const {
        const auto groups = detail::c_groups({}, settlement.costs);
        const kt_settlement fields = detail::c_settlement(settlement, groups);
        return detail::verdict(
            call(kt_limiter_settle_all, subject, &estimate, &fields, at.now_ms()));
    }
    Result<Verdict> try_reset(Input subject, Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_limiter_reset, subject, at.now_ms()));
    }
    Result<std::uint64_t> try_correct_clock(Clock at = Clock::system()) const noexcept {
        std::uint64_t corrected = 0;
        kt_status status = kt_limiter_correct_clock(get(), at.now_ms(), &corrected);
        if (status != KT_OK) return status;
        return corrected;
    }
    Result<void> try_use_system_clock() const noexcept {
        return kt_limiter_use_system_clock(get());
    }
    /** Joins the fleet of this machine: requests spend credits of the fleet file, which the
     *  machine's agent fills. `fleet_path` ends with a NUL. They wait for credits, unless the
     *  patience of their Request is another. The comment of kt_limiter_join says what holds. */
    Result<void> try_join(const char *fleet_path) const noexcept {
        return kt_limiter_join(get(), fleet_path);
    }
    /** Puts the limiter in a fleet, in every process that has it open, or takes it out of it. */
    Result<void> try_set_fleet(bool is_in_fleet) const noexcept {
        return kt_limiter_set_fleet(get(), is_in_fleet);
    }
    /** Returns whether the limiter is in a fleet, in every process that has it open. */
    Result<bool> try_is_in_fleet() const noexcept {
        std::uint32_t is_in_fleet = 0;
        kt_status status = kt_limiter_is_in_fleet(get(), &is_in_fleet);
        if (status != KT_OK) return status;
        return is_in_fleet != 0;
    }
    /** Sets the longest time that a request waits for credits of a fleet. The default is 20 ms. */
    Result<void> try_set_credit_wait(std::chrono::microseconds wait) const noexcept {
        return kt_limiter_set_credit_wait(
            get(), wait.count() > 0 ? static_cast<std::uint64_t>(wait.count()) : 0);
    }
    /** Returns the number of subjects that the limiter was created for. */
    Result<std::uint32_t> try_capacity() const noexcept {
        std::uint32_t capacity = 0;
        kt_status status = kt_limiter_capacity(get(), &capacity);
        if (status != KT_OK) return status;
        return capacity;
    }
    /** Returns the number of slots, each for one subject. */
    Result<std::uint64_t> try_slots_total() const noexcept {
        std::uint64_t total = 0;
        kt_status status = kt_limiter_slots_total(get(), &total);
        if (status != KT_OK) return status;
        return total;
    }
    /** Returns the number of subjects whose slot cannot be given to another subject now. Reads the
     *  whole table. */
    Result<std::uint64_t> try_live_subjects(Clock at = Clock::system()) const noexcept {
        std::uint64_t live = 0;
        kt_status status = kt_limiter_live_subjects(get(), at.now_ms(), &live);
        if (status != KT_OK) return status;
        return live;
    }
    /** Returns the number of requests that found no slot for their subject. */
    Result<std::uint64_t> try_refusals() const noexcept {
        std::uint64_t refusals = 0;
        kt_status status = kt_limiter_refusals(get(), &refusals);
        if (status != KT_OK) return status;
        return refusals;
    }
    /** Returns what happens to a new subject that finds no slot. */
    Result<kt_on_full> try_on_full() const noexcept {
        std::uint8_t on_full = KT_ON_FULL_SHARE;
        kt_status status = kt_limiter_on_full(get(), &on_full);
        if (status != KT_OK) return status;
        return static_cast<kt_on_full>(on_full);
    }
    /** Sets what happens to a new subject that finds no slot. */
    Result<void> try_set_on_full(kt_on_full on_full) const noexcept {
        return kt_limiter_set_on_full(get(), on_full);
    }

#if defined(__cpp_exceptions)
    static Limiter in_memory(Input policy, std::uint32_t capacity) {
        return try_in_memory(policy, capacity).value();
    }
    static Limiter attach(void *memory, std::size_t size) {
        return try_attach(memory, size).value();
    }
    static Limiter open(const Path &path) { return try_open(path.c_str()).value(); }
    static Limiter open_or_create(const Path &path, Input policy, std::uint32_t capacity) {
        return try_open_or_create(path.c_str(), policy, capacity).value();
    }

    /** Charges `cost` to each window of the subject if all have room for it, else to none. */
    Verdict check(Input subject, std::uint32_t cost = 1, Clock at = Clock::system()) const {
        return detail::verdict_or_throw(call(kt_limiter_check, subject, cost, at.now_ms()));
    }
    /** Charges the cost of `request` to each window of the subject if all have room for it, else to
     *  none. */
    Verdict check(Input subject, const Request &request) const {
        return try_check(subject, request).value();
    }
    /** Returns the verdict that check would give now, without a charge. */
    Verdict peek(Input subject, std::uint32_t cost = 1, Clock at = Clock::system()) const {
        return detail::verdict_or_throw(call(kt_limiter_peek, subject, cost, at.now_ms()));
    }
    /** Gives back what a check charged. Refund a charge only once. */
    Verdict refund(Input subject, const kt_charge &charge, Clock at = Clock::system()) const {
        return try_refund(subject, charge, at).value();
    }
    /** Replaces an estimated cost by the actual cost. Settle a charge only once. */
    Verdict settle(Input subject, const kt_charge &estimate, std::uint32_t actual,
                   Clock at = Clock::system()) const {
        return try_settle(subject, estimate, actual, at).value();
    }
    /** Replaces an estimated cost by the actual cost. A limiter has no groups. Settle a charge only
     *  once. */
    Verdict settle(Input subject, const kt_charge &estimate, const Settlement &settlement,
                   Clock at = Clock::system()) const {
        return try_settle(subject, estimate, settlement, at).value();
    }
    /** Resets all counts of the subject. */
    Verdict reset(Input subject, Clock at = Clock::system()) const {
        return try_reset(subject, at).value();
    }
    /** Corrects each tally that is more than 60 s ahead, and returns their number. Counts are kept.
     *  With an explicit time, call it while nothing else charges: see kt_gate_correct_clock. */
    std::uint64_t correct_clock(Clock at = Clock::system()) const {
        return try_correct_clock(at).value();
    }
    /** Declares that each time given to this object is a cached reading of the system clock. */
    void use_system_clock() const { try_use_system_clock().value(); }
    /** Joins the fleet of this machine: see try_join. */
    void join(const Path &fleet_path) const { try_join(fleet_path.c_str()).value(); }
    /** Puts the limiter in a fleet, or takes it out of it: see try_set_fleet. */
    void set_fleet(bool is_in_fleet) const { try_set_fleet(is_in_fleet).value(); }
    /** Returns whether the limiter is in a fleet: see try_is_in_fleet. */
    bool is_in_fleet() const { return try_is_in_fleet().value(); }
    /** Sets the longest time that a request waits for credits: see try_set_credit_wait. */
    void set_credit_wait(std::chrono::microseconds wait) const {
        try_set_credit_wait(wait).value();
    }
    /** Returns the number of subjects that the limiter was created for. */
    std::uint32_t capacity() const { return try_capacity().value(); }
    /** Returns the number of slots, each for one subject. */
    std::uint64_t slots_total() const { return try_slots_total().value(); }
    /** Returns the number of subjects whose slot cannot be given to another subject now. Reads the
     *  whole table. */
    std::uint64_t live_subjects(Clock at = Clock::system()) const {
        return try_live_subjects(at).value();
    }
    /** Returns the number of requests that found no slot for their subject. */
    std::uint64_t refusals() const { return try_refusals().value(); }
    /** Returns what happens to a new subject that finds no slot. */
    kt_on_full on_full() const { return try_on_full().value(); }
    /** Sets what happens to a new subject that finds no slot. */
    void set_on_full(kt_on_full on_full) const { try_set_on_full(on_full).value(); }
#endif

#if __cplusplus >= 202002L
    /** Checks a subject that is not text. */
    Result<Verdict> try_check(std::span<const std::byte> subject, std::uint32_t cost = 1,
                              Clock at = Clock::system()) const noexcept {
        return try_check(
            std::string_view(reinterpret_cast<const char *>(subject.data()), subject.size()), cost,
            at);
    }
#if defined(__cpp_exceptions)
    Verdict check(std::span<const std::byte> subject, std::uint32_t cost = 1,
                  Clock at = Clock::system()) const {
        return check(
            std::string_view(reinterpret_cast<const char *>(subject.data()), subject.size()), cost,
            at);
    }
#endif
#endif

    /** Returns the subject and a cost as a part of check_all. The part refers to this limiter and
     *  to the text of the subject. */
    Part part(Input subject, std::uint32_t cost = 1) const noexcept {
        return Part(nullptr, get(), subject.data(), subject.size(), cost);
    }

    /** Returns the handle, for the functions of keytally.h. */
    kt_limiter *get() const noexcept { return handle_.get(); }

private:
    using Owned = detail::Owned<kt_limiter, kt_limiter_close>;

    Limiter(Owned handle, TableMemory memory) noexcept
        : memory_(std::move(memory)), handle_(std::move(handle)) {}

    static Result<Limiter> made(Result<Owned> handle,
                                TableMemory memory = TableMemory(0)) noexcept {
        if (!handle) return handle.status();
        return Limiter(*std::move(handle), std::move(memory));
    }

    // The memory outlives the handle.
    TableMemory memory_;
    Owned handle_;
};

/** A table of issued keys with their counts: verify, then charge. */
class Gate {
    using Check = kt_status (*)(kt_gate *, const std::uint8_t *, std::size_t, std::uint32_t,
                                std::uint64_t, kt_verdict *);

    /** Binds all arguments of a C function but the last, the verdict. */
    auto call(Check function, ApiKey api_key, std::uint32_t cost, Clock at) const noexcept {
        return [=, handle = handle_.get()](kt_verdict *out) {
            return function(handle, detail::bytes(api_key.data()), api_key.size(), cost,
                            at.now_ms(), out);
        };
    }

public:
    /** Opens the gate in a file, which any number of processes share. `path` ends with a NUL, and
     *  `peppers` has the form of KEYTALLY_PEPPER. A null pointer or an empty text is
     *  KT_PEPPER_COUNT. */
    static Result<Gate> try_open(const char *path, Input peppers) noexcept {
        return made(detail::open<kt_gate, kt_gate_close>([&](kt_gate **out) {
            return kt_gate_open(path, peppers.view().data(), peppers.view().size(), out);
        }));
    }

    /** Opens the gate in a file, with the peppers in another file. */
    static Result<Gate> try_open_with_pepper_file(const char *path,
                                                  const char *pepper_path) noexcept {
        return made(detail::open<kt_gate, kt_gate_close>(
            [&](kt_gate **out) { return kt_gate_open_with_pepper_file(path, pepper_path, out); }));
    }

    /** Creates a gate in a new file. */
    static Result<Gate> try_create(const char *path, Input peppers, const GateConfig &config) {
        const auto plans = c_plans(config);
        const auto scopes = detail::c_names(config.scopes);
        const auto shape = c_config(config, plans, scopes);
        return made(detail::open<kt_gate, kt_gate_close>([&](kt_gate **out) {
            return kt_gate_create(path, peppers.view().data(), peppers.view().size(), &shape, out);
        }));
    }

    /** Creates a gate in memory of this process. The pepper is bytes. */
    static Result<Gate> try_in_memory(Input pepper, const GateConfig &config) {
        const auto plans = c_plans(config);
        const auto scopes = detail::c_names(config.scopes);
        const auto shape = c_config(config, plans, scopes);
        kt_bytes bytes{detail::bytes(pepper.data()), pepper.size()};
        std::size_t size = 0;
        if (kt_status status = kt_gate_config_size(&shape, &size); status != KT_OK) return status;
        TableMemory memory(size);
        if (memory.data() == nullptr) return KT_NO_MEMORY;
        auto handle = detail::make<kt_gate, kt_gate_close>([&](kt_gate *out) {
            return kt_gate_init(memory.data(), memory.size(), &shape, &bytes, 1, out);
        });
        return made(std::move(handle), std::move(memory));
    }

    /** Opens a gate in the caller's memory, which must not move while the object exists. */
    static Result<Gate> try_attach(void *memory, std::size_t size, Input pepper) noexcept {
        kt_bytes bytes{detail::bytes(pepper.data()), pepper.size()};
        return made(detail::make<kt_gate, kt_gate_close>(
            [&](kt_gate *out) { return kt_gate_attach(memory, size, &bytes, 1, out); }));
    }

    Result<Verdict> try_check(ApiKey api_key, std::uint32_t cost = 1,
                              Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_gate_check, api_key, cost, at));
    }
    Result<Compound> try_check(ApiKey api_key, const Request &request) const {
        return call_request(kt_gate_check_request, api_key, request);
    }
    Result<Verdict> try_peek(ApiKey api_key, std::uint32_t cost = 1,
                             Clock at = Clock::system()) const noexcept {
        return detail::verdict(call(kt_gate_peek, api_key, cost, at));
    }
    Result<Compound> try_peek(ApiKey api_key, const Request &request) const {
        return call_request(kt_gate_peek_request, api_key, request);
    }
    Result<Verdict> try_refund(std::uint64_t key_id, const kt_charge &charge,
                               Clock at = Clock::system()) const noexcept {
        return detail::verdict([&](kt_verdict *out) {
            return kt_gate_refund(get(), key_id, &charge, at.now_ms(), out);
        });
    }
    Result<Verdict> try_settle(std::uint64_t key_id, const kt_charge &estimate,
                               std::uint32_t actual, Clock at = Clock::system()) const noexcept {
        return detail::verdict([&](kt_verdict *out) {
            return kt_gate_settle(get(), key_id, &estimate, actual, at.now_ms(), out);
        });
    }
    Result<Settled> try_settle(std::uint64_t key_id, const kt_charge &estimate,
                               const Settlement &settlement, Clock at = Clock::system()) const {
        const auto groups = detail::c_groups({}, settlement.costs);
        const kt_settlement fields = detail::c_settlement(settlement, groups);
        Settled settled{{}, std::vector<std::uint32_t>(groups.size()), {}};
        kt_status status = kt_gate_settle_all(get(), key_id, &estimate, &fields, at.now_ms(),
                                              &settled.verdict, settled.uncharged.data(),
                                              &settled.compound);
        if (status != KT_OK) return status;
        return Result<Settled>(std::move(settled));
    }
    Result<Verdict> try_reset(std::uint64_t key_id, Clock at = Clock::system()) const noexcept {
        return detail::verdict(
            [&](kt_verdict *out) { return kt_gate_reset(get(), key_id, at.now_ms(), out); });
    }
    Result<std::uint64_t> try_correct_clock(Clock at = Clock::system()) const noexcept {
        std::uint64_t corrected = 0;
        kt_status status = kt_gate_correct_clock(get(), at.now_ms(), &corrected);
        if (status != KT_OK) return status;
        return corrected;
    }
    Result<void> try_use_system_clock() const noexcept { return kt_gate_use_system_clock(get()); }

    Result<Key> try_issue(const NewKey &new_key, Clock at = Clock::system()) const {
        Key key;
        const detail::Entropy entropy;
        if (entropy.status() != KT_OK) return entropy.status();
        const auto scopes = detail::c_names(new_key.scopes);
        kt_new_key fields = c_new_key(new_key, scopes);
        kt_status status =
            kt_gate_issue(get(), &fields, entropy.bytes(), at.now_ms(), &key.key_, &key.key_id_);
        if (status != KT_OK) return status;
        return Result<Key>(std::move(key));
    }
    Result<std::uint64_t> try_import(Input api_key, const NewKey &new_key,
                                     Clock at = Clock::system()) const {
        std::uint64_t key_id = 0;
        const auto scopes = detail::c_names(new_key.scopes);
        kt_new_key fields = c_new_key(new_key, scopes);
        kt_status status = kt_gate_import(get(), detail::bytes(api_key.data()), api_key.size(),
                                          &fields, at.now_ms(), &key_id);
        if (status != KT_OK) return status;
        return key_id;
    }
    Result<Key> try_rotate(std::uint64_t key_id, std::chrono::seconds grace, bool force = false,
                           Clock at = Clock::system()) const noexcept {
        Key key;
        const detail::Entropy entropy;
        if (entropy.status() != KT_OK) return entropy.status();
        std::uint32_t until = grace.count() > 0 ? detail::unix_s(at.time() + grace) : 0;
        kt_status status =
            kt_gate_rotate(get(), key_id, until, force, entropy.bytes(), at.now_ms(), &key.key_);
        if (status != KT_OK) return status;
        key.key_id_ = key_id;
        return Result<Key>(std::move(key));
    }
    Result<void> try_revoke(std::uint64_t key_id) const noexcept {
        return kt_gate_revoke(get(), key_id);
    }
    Result<void> try_expire(std::uint64_t key_id, std::optional<Time> not_after) const noexcept {
        return kt_gate_expire(get(), key_id, not_after ? detail::unix_s(*not_after) : 0);
    }
    Result<void> try_end_grace(std::uint64_t key_id) const noexcept {
        return kt_gate_end_grace(get(), key_id);
    }
    Result<void> try_assign(std::uint64_t key_id, Input plan) const noexcept {
        return kt_gate_assign(get(), key_id, plan.data(), plan.size());
    }
    Result<void> try_set_scopes(std::uint64_t key_id, const std::vector<Input> &scopes) const {
        const auto names = detail::c_names(scopes);
        return kt_gate_set_scopes(get(), key_id, names.data(), names.size());
    }
    Result<void> try_set_plan(const Plan &plan) const noexcept {
        kt_plan fields = c_plan(plan);
        return kt_gate_set_plan(get(), &fields);
    }
    Result<kt_account_info> try_account(std::uint32_t account,
                                        Clock at = Clock::system()) const noexcept {
        kt_account_info info;
        kt_status status = kt_gate_account(get(), account, at.now_ms(), &info);
        if (status != KT_OK) return status;
        return info;
    }
    Result<void> try_set_suspended(std::uint32_t account, bool suspended) const noexcept {
        return kt_gate_set_suspended(get(), account, suspended);
    }
    Result<void> try_assign_account(std::uint32_t account, Input plan) const noexcept {
        return kt_gate_assign_account(get(), account, plan.data(), plan.size());
    }
    Result<void> try_limit_account(std::uint32_t account, Input quotas) const noexcept {
        return kt_gate_limit_account(get(), account, quotas.data(), quotas.size());
    }
    Result<void> try_reset_account(std::uint32_t account,
                                   Clock at = Clock::system()) const noexcept {
        return kt_gate_reset_account(get(), account, at.now_ms());
    }
    Result<std::uint32_t> try_team_capacity() const noexcept {
        std::uint32_t teams = 0;
        kt_status status = kt_gate_team_capacity(get(), &teams);
        if (status != KT_OK) return status;
        return teams;
    }
    Result<kt_key_info> try_key(std::uint64_t key_id, Clock at = Clock::system()) const noexcept {
        kt_key_info info;
        kt_status status = kt_gate_key(get(), key_id, at.now_ms(), &info);
        if (status != KT_OK) return status;
        return info;
    }
    Result<kt_plan_info> try_plan(std::uint8_t number) const noexcept {
        kt_plan_info info;
        kt_status status = kt_gate_plan(get(), number, &info);
        if (status != KT_OK) return status;
        return info;
    }
    /** Returns the name of the environment with this number, such as the `env` of a verdict. Empty
     *  if the number is unknown. */
    Text<KT_NAME_SIZE> env(std::uint8_t number) const noexcept {
        Text<KT_NAME_SIZE> text;
        text.fill([&](auto... to) { return kt_gate_env(get(), number, to...); });
        return text;
    }

    /** Returns the names of the gate's scopes. Empty for a moved-from gate. */
    std::vector<std::string> scopes() const {
        return detail::texts<KT_SCOPE_SIZE>(
            [&](auto... to) { return kt_gate_scope(get(), to...); });
    }
    /** Returns the names of the scopes that a key of this gate has. Empty for a moved-from gate. */
    std::vector<std::string> scopes(const kt_key_info &info) const {
        const auto all = scopes();
        std::vector<std::string> its;
        for (std::size_t at = 0; at < all.size(); at++)
            if (info.scopes >> at & 1) its.push_back(all[at]);
        return its;
    }
    /** Returns the window that the gate names to be described by `X-RateLimit-*`. Empty if it names
     *  none. */
    Text<KT_WINDOW_SIZE> described() const noexcept {
        Text<KT_WINDOW_SIZE> text;
        text.fill([&](auto... to) { return kt_gate_described(get(), to...); });
        return text;
    }
    /** Returns the names of the sections that all plans share: `key`, `team` and those of groups.
     *  Empty for a moved-from gate. */
    std::vector<std::string> sections() const {
        return detail::texts<KT_SECTION_SIZE>(
            [&](auto... to) { return kt_gate_section(get(), to...); });
    }

    /** Calls visit(const kt_key_info &) with each key. If visit returns false, the list ends. */
    template <class Visit>
    Result<void> try_list(Visit &&visit, Clock at = Clock::system()) const {
        return visited<kt_key_info>(kt_gate_list, visit, at);
    }
    /** Calls visit(const kt_account_info &) with each account. If visit returns false, the list
     *  ends. */
    template <class Visit>
    Result<void> try_accounts(Visit &&visit, Clock at = Clock::system()) const {
        return visited<kt_account_info>(kt_gate_accounts, visit, at);
    }

#if defined(__cpp_exceptions)
    static Gate open(const Path &path, Input peppers) {
        return try_open(path.c_str(), peppers).value();
    }
    static Gate open_with_pepper_file(const Path &path, const Path &pepper_path) {
        return try_open_with_pepper_file(path.c_str(), pepper_path.c_str()).value();
    }
    static Gate create(const Path &path, Input peppers, const GateConfig &config = {}) {
        return try_create(path.c_str(), peppers, config).value();
    }
    static Gate in_memory(Input pepper, const GateConfig &config = {}) {
        return try_in_memory(pepper, config).value();
    }
    static Gate attach(void *memory, std::size_t size, Input pepper) {
        return try_attach(memory, size, pepper).value();
    }

    /** Checks a key, then charges `cost` to each window of its plan if all have room for it, else
     *  to none. `api_key` is the value of the X-API-Key header, or std::nullopt if the request has
     *  none. */
    Verdict check(ApiKey api_key, std::uint32_t cost = 1, Clock at = Clock::system()) const {
        return detail::verdict_or_throw(call(kt_gate_check, api_key, cost, at));
    }
    /** Checks a key, then charges the costs of `request` to the key, to its team and to the groups
     *  that it names, all or none. */
    Compound check(ApiKey api_key, const Request &request) const {
        return try_check(api_key, request).value();
    }
    /** Returns the verdict that check would give now, without a charge. */
    Verdict peek(ApiKey api_key, std::uint32_t cost = 1, Clock at = Clock::system()) const {
        return detail::verdict_or_throw(call(kt_gate_peek, api_key, cost, at));
    }
    /** Returns the result that check would give now, without a charge. */
    Compound peek(ApiKey api_key, const Request &request) const {
        return try_peek(api_key, request).value();
    }
    /** Gives back what a check charged. Refund a charge only once. */
    Verdict refund(std::uint64_t key_id, const kt_charge &charge,
                   Clock at = Clock::system()) const {
        return try_refund(key_id, charge, at).value();
    }
    /** Replaces an estimated cost by the actual cost. Settle a charge only once. */
    Verdict settle(std::uint64_t key_id, const kt_charge &estimate, std::uint32_t actual,
                   Clock at = Clock::system()) const {
        return try_settle(key_id, estimate, actual, at).value();
    }
    /** Replaces the estimates of a charge by the actual costs, each for itself. Settle a charge
     *  only once. */
    Settled settle(std::uint64_t key_id, const kt_charge &estimate, const Settlement &settlement,
                   Clock at = Clock::system()) const {
        return try_settle(key_id, estimate, settlement, at).value();
    }
    /** Resets all counts of the key. Those of its team are kept. */
    Verdict reset(std::uint64_t key_id, Clock at = Clock::system()) const {
        return try_reset(key_id, at).value();
    }
    /** Corrects each tally that is more than 60 s ahead, and returns their number. Counts are kept.
     *  With an explicit time, call it while nothing else charges: see kt_gate_correct_clock. */
    std::uint64_t correct_clock(Clock at = Clock::system()) const {
        return try_correct_clock(at).value();
    }
    /** Declares that each time given to this object is a cached reading of the system clock. */
    void use_system_clock() const { try_use_system_clock().value(); }
    /** Issues a key. The result holds the only copy of the secret. */
    Key issue(const NewKey &new_key, Clock at = Clock::system()) const {
        return try_issue(new_key, at).value();
    }
    /** Imports a key of any form that was issued elsewhere. Returns its key id. */
    std::uint64_t import(Input api_key, const NewKey &new_key, Clock at = Clock::system()) const {
        return try_import(api_key, new_key, at).value();
    }
    /** Gives a key a new secret. The old secret stays valid for `grace`. If the secret before the
     *  old one is still valid, the rotation would end it at once, and is refused unless `force` is
     *  set. */
    Key rotate(std::uint64_t key_id, std::chrono::seconds grace, bool force = false,
               Clock at = Clock::system()) const {
        return try_rotate(key_id, grace, force, at).value();
    }
    /** Revokes a key at once, in all processes. */
    void revoke(std::uint64_t key_id) const { try_revoke(key_id).value(); }
    /** Sets when a key expires. std::nullopt: never. A time that has passed ends the key at once. */
    void expire(std::uint64_t key_id, std::optional<Time> not_after) const {
        try_expire(key_id, not_after).value();
    }
    /** Ends the previous secret of a key at once, without waiting for the end of its grace. */
    void end_grace(std::uint64_t key_id) const { try_end_grace(key_id).value(); }
    /** Moves a key to another plan. Counts are kept. */
    void assign(std::uint64_t key_id, Input plan) const { try_assign(key_id, plan).value(); }
    /** Replaces the scopes of a key. */
    void set_scopes(std::uint64_t key_id, const std::vector<Input> &scopes) const {
        try_set_scopes(key_id, scopes).value();
    }
    /** Adds a plan, or gives the plan of that name other limits. Counts are kept. */
    void set_plan(const Plan &plan) const { try_set_plan(plan).value(); }
    /** Returns the properties of an account in a gate with teams. */
    kt_account_info account(std::uint32_t account, Clock at = Clock::system()) const {
        return try_account(account, at).value();
    }
    /** Calls visit(const kt_account_info &) with each account. If visit returns false, the list
     *  ends. visit may throw. */
    template <class Visit>
    void accounts(Visit &&visit, Clock at = Clock::system()) const {
        try_accounts(std::forward<Visit>(visit), at).value();
    }
    /** Refuses all keys of an account from the next check on, or accepts them again. */
    void set_suspended(std::uint32_t account, bool suspended) const {
        try_set_suspended(account, suspended).value();
    }
    /** Lets the team limits of another plan hold for an account, and ends limits of its own. */
    void assign_account(std::uint32_t account, Input plan) const {
        try_assign_account(account, plan).value();
    }
    /** Gives an account limits of its own, such as `5000/hour`. */
    void limit_account(std::uint32_t account, Input quotas) const {
        try_limit_account(account, quotas).value();
    }
    /** Resets the counts that all keys of an account share. */
    void reset_account(std::uint32_t account, Clock at = Clock::system()) const {
        try_reset_account(account, at).value();
    }
    /** Returns the most teams that the gate can hold; 0 if it has none. */
    std::uint32_t team_capacity() const { return try_team_capacity().value(); }
    /** Sets how long changes to keys and plans wait for another administrator: see try_set_wait. */
    void set_wait(std::chrono::milliseconds wait) const { try_set_wait(wait).value(); }
    /** Joins the fleet of this machine: see try_join. */
    void join(const Path &fleet_path) const { try_join(fleet_path.c_str()).value(); }
    /** Puts the gate in a fleet, or takes it out of it: see try_set_fleet. */
    void set_fleet(bool is_in_fleet) const { try_set_fleet(is_in_fleet).value(); }
    /** Returns whether the gate is in a fleet: see try_is_in_fleet. */
    bool is_in_fleet() const { return try_is_in_fleet().value(); }
    /** Sets the longest time that a request waits for credits: see try_set_credit_wait. */
    void set_credit_wait(std::chrono::microseconds wait) const {
        try_set_credit_wait(wait).value();
    }
    /** Begins or ends to count how each key is used: see try_set_usage. */
    void set_usage(bool is_counted) const { try_set_usage(is_counted).value(); }
    /** Returns how a key was used, since uses are counted. */
    kt_key_usage key_usage(std::uint64_t key_id) const { return try_key_usage(key_id).value(); }
    /** Returns the id of the process that is changing this gate: see try_administrator. */
    std::optional<std::uint32_t> administrator() const { return try_administrator().value(); }
    /** Starts a thread that opens a file renamed over the gate's: see try_watch. */
    void watch() const { try_watch().value(); }
    /** Opens the file that was renamed over the gate's, if there is one. */
    void reopen_if_replaced() const { try_reopen_if_replaced().value(); }
    /** Opens the file at the gate's path. */
    void reopen() const { try_reopen().value(); }
    /** Returns the properties of one key. */
    kt_key_info key(std::uint64_t key_id, Clock at = Clock::system()) const {
        return try_key(key_id, at).value();
    }
    /** Returns the plan with this number, such as the `plan` of a verdict. */
    kt_plan_info plan(std::uint8_t number) const { return try_plan(number).value(); }
    /** Calls visit(const kt_key_info &) with each key. If visit returns false, the list ends. visit
     *  may throw. */
    template <class Visit>
    void list(Visit &&visit, Clock at = Clock::system()) const {
        try_list(std::forward<Visit>(visit), at).value();
    }
#endif

    /** Sets how long changes to keys and plans wait for another administrator. After that
     *  time they fail with KT_BUSY. The default is 10 seconds. */
    Result<void> try_set_wait(std::chrono::milliseconds wait) const noexcept {
        return kt_gate_set_wait(get(),
                                wait.count() > 0 ? static_cast<std::uint64_t>(wait.count()) : 0);
    }
    /** Joins the fleet of this machine: requests spend credits of the fleet file, which the
     *  machine's agent fills. `fleet_path` ends with a NUL. They wait for credits, unless the
     *  patience of their Request is another. The comment of kt_gate_join says what holds. */
    Result<void> try_join(const char *fleet_path) const noexcept {
        return kt_gate_join(get(), fleet_path);
    }
    /** Puts the gate in a fleet, in every process that has it open, or takes it out of it. */
    Result<void> try_set_fleet(bool is_in_fleet) const noexcept {
        return kt_gate_set_fleet(get(), is_in_fleet);
    }
    /** Returns whether the gate is in a fleet, in every process that has it open. */
    Result<bool> try_is_in_fleet() const noexcept {
        std::uint32_t is_in_fleet = 0;
        kt_status status = kt_gate_is_in_fleet(get(), &is_in_fleet);
        if (status != KT_OK) return status;
        return is_in_fleet != 0;
    }
    /** Sets the longest time that a request waits for credits of a fleet. The default is 20 ms. */
    Result<void> try_set_credit_wait(std::chrono::microseconds wait) const noexcept {
        return kt_gate_set_credit_wait(
            get(), wait.count() > 0 ? static_cast<std::uint64_t>(wait.count()) : 0);
    }
    /** Begins to count how each key is used, in every process that has the gate open, or ends it.
     *  The counts are in a file next to the gate's. A gate in memory has none: KT_NOT_A_FILE. */
    Result<void> try_set_usage(bool is_counted) const noexcept {
        return kt_gate_set_usage(get(), is_counted);
    }
    /** Returns how a key was used. KT_NOT_COUNTED if uses are not counted. */
    Result<kt_key_usage> try_key_usage(std::uint64_t key_id) const noexcept {
        kt_key_usage usage;
        kt_status status = kt_gate_key_usage(get(), key_id, &usage);
        if (status != KT_OK) return status;
        return usage;
    }
    /** Returns the id of the process that is changing this gate. std::nullopt if there is none, or
     *  if it runs in another container. */
    Result<std::optional<std::uint32_t>> try_administrator() const noexcept {
        std::uint32_t pid = 0;
        kt_status status = kt_gate_administrator(get(), &pid);
        if (status != KT_OK) return status;
        return pid == 0 ? std::nullopt : std::optional<std::uint32_t>(pid);
    }
    /** Starts a thread that opens a file renamed over the gate's within a second. Call it again in
     *  a forked child. */
    Result<void> try_watch() const noexcept { return kt_gate_watch(get()); }
    /** Opens the file that was renamed over the gate's, if there is one. */
    Result<void> try_reopen_if_replaced() const noexcept {
        return kt_gate_reopen_if_replaced(get());
    }
    /** Opens the file at the gate's path. */
    Result<void> try_reopen() const noexcept { return kt_gate_reopen(get()); }

    /** Returns the key and a cost as a part of check_all, std::nullopt if the request has no key.
     *  The part refers to this gate and to the text of the key. */
    Part part(ApiKey api_key, std::uint32_t cost = 1) const noexcept {
        return Part(get(), nullptr, api_key.data(), api_key.size(), cost);
    }
    /** Returns the key and a request as a part of check_all, which has a time of its own. */
    Part part(ApiKey api_key, const Request &request) const {
        Part part(get(), nullptr, api_key.data(), api_key.size(), request.cost);
        part.groups_ = detail::c_groups(request.groups, request.costs);
        part.need_ = detail::c_names(request.need);
        part.part_.patience = request.patience;
        return part;
    }

    /** Returns the handle, for the functions of keytally.h. */
    kt_gate *get() const noexcept { return handle_.get(); }

private:
    using Owned = detail::Owned<kt_gate, kt_gate_close>;

    Gate(Owned handle, TableMemory memory) noexcept
        : memory_(std::move(memory)), handle_(std::move(handle)) {}

    static Result<Gate> made(Result<Owned> handle, TableMemory memory = TableMemory(0)) noexcept {
        if (!handle) return handle.status();
        return Gate(*std::move(handle), std::move(memory));
    }

    static std::vector<kt_plan> c_plans(const GateConfig &config) {
        std::vector<kt_plan> plans;
        for (const Plan &plan : config.plans)
            plans.push_back(c_plan(plan));
        return plans;
    }

    static kt_plan c_plan(const Plan &plan) noexcept {
        return {plan.name.data(), plan.name.size(), plan.sections.data(), plan.sections.size()};
    }

    static kt_gate_config c_config(const GateConfig &config, const std::vector<kt_plan> &plans,
                                   const std::vector<kt_name> &scopes) noexcept {
        const Input &prefix = config.prefix;
        return {sizeof(kt_gate_config), config.keys,  plans.data(), plans.size(),
                prefix.data(),          prefix.size(), config.teams, 0,
                scopes.data(),          scopes.size(), config.described.data(),
                config.described.size()};
    }

    static kt_new_key c_new_key(const NewKey &new_key,
                                const std::vector<kt_name> &scopes) noexcept {
        return {sizeof(kt_new_key),
                new_key.account,
                new_key.env.data(),
                new_key.env.size(),
                new_key.plan.data(),
                new_key.plan.size(),
                new_key.expires ? detail::unix_s(*new_key.expires) : 0,
                0,
                scopes.data(),
                scopes.size()};
    }

    /** Calls a C function that takes a request and writes the result of a compound charge. */
    template <class Function>
    Result<Compound> call_request(Function function, ApiKey api_key,
                                  const Request &request) const {
        return detail::with_request(request, [&](const kt_request *fields) {
            return detail::compound([&](kt_compound *out) {
                return function(get(), detail::bytes(api_key.data()), api_key.size(), fields, out);
            });
        });
    }

    /** Calls a C function that passes each of its elements to a callback. */
    template <class Info, class Function, class Visit>
    Result<void> visited(Function function, Visit &visit, Clock at) const {
        Visitor<Info, Visit> visitor{&visit};
        kt_status status = function(get(), at.now_ms(), visitor.each, &visitor);
#if defined(__cpp_exceptions)
        if (visitor.thrown) std::rethrow_exception(visitor.thrown);
#endif
        return status;
    }

    /** The context of a C callback. An exception must not pass through the library. */
    template <class Info, class Visit>
    struct Visitor {
        Visit *visit;
#if defined(__cpp_exceptions)
        std::exception_ptr thrown = nullptr;
#endif

        static int each(void *context, const Info *info) noexcept {
            auto *self = static_cast<Visitor *>(context);
#if defined(__cpp_exceptions)
            try {
                return self->ends(*info);
            } catch (...) {
                self->thrown = std::current_exception();
                return 1;
            }
#else
            return self->ends(*info);
#endif
        }

        int ends(const Info &info) {
            if constexpr (std::is_void_v<decltype((*visit)(info))>) {
                (*visit)(info);
                return 0;
            } else {
                return (*visit)(info) ? 0 : 1;
            }
        }
    };

    // The memory outlives the handle.
    TableMemory memory_;
    Owned handle_;
};

namespace detail {

/** Calls a C function that takes parts. */
template <class Function>
Result<Compound> all(Function function, std::initializer_list<Part> parts, Clock at) noexcept {
    kt_part fields[KT_MAX_PARTS] = {};
    if (parts.size() > KT_MAX_PARTS) return KT_PART_COUNT;
    std::size_t count = 0;
    for (const Part &part : parts) fields[count++] = part.to_c();
    return compound(
        [&](kt_compound *out) { return function(fields, count, at.now_ms(), out); });
}

} // namespace detail

/** Checks several keys and subjects of one request, and charges all or none. The comment of
 *  kt_check_all says what holds.
 *
 *     auto charged = keytally::check_all({gate.part(api_key), addresses.part(address)});
 */
inline Result<Compound> try_check_all(std::initializer_list<Part> parts,
                                      Clock at = Clock::system()) noexcept {
    return detail::all(kt_check_all, parts, at);
}

/** Returns the result that try_check_all would give now, without a charge. */
inline Result<Compound> try_peek_all(std::initializer_list<Part> parts,
                                     Clock at = Clock::system()) noexcept {
    return detail::all(kt_peek_all, parts, at);
}

#if defined(__cpp_exceptions)
/** Checks several keys and subjects of one request, and charges all or none. */
inline Compound check_all(std::initializer_list<Part> parts, Clock at = Clock::system()) {
    return try_check_all(parts, at).value();
}

/** Returns the result that check_all would give now, without a charge. */
inline Compound peek_all(std::initializer_list<Part> parts, Clock at = Clock::system()) {
    return try_peek_all(parts, at).value();
}
#endif

} // namespace keytally

#pragma pop_macro("check")

#endif
