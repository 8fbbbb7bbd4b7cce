/*
 * Gates and limiters in a fleet, with a fleet file that this program fills like an agent. The
 * argument is the path of an empty folder.
 */
#include "check.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/** The length of a fleet file with few tallies, its first tally's position, and words of a page. */
#define FLEET_LEN 8192
#define TALLIES_AT ((4096 + 64 + 64) / 8)
#define STATE 9
#define HEARTBEAT 16

/** What an agent writes into the page: that it leads, or that it has lost the store. */
enum { LEADING = 2, CUT = 3 };

/** What its operator chose for a lost store. */
enum { CLOSED = 1, SHARE = 2, OPEN = 3 };

static const char *PEPPER = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
static const kt_plan PLAN = {KT_TEXT("default"), KT_TEXT("10/week")};

/** A gate in a fleet with one key, and its fleet file. */
typedef struct {
    char path[512], fleet_path[512];
    kt_gate *gate;
    uint64_t *fleet;
    kt_key key;
    uint64_t key_id;
} machine;

/** Maps a file that exists, or one of zeros that it creates. */
static uint64_t *mapped(const char *path, size_t *len) {
    int file = open(path, O_RDWR | O_CREAT, 0600);
    struct stat info;
    CHECK(file >= 0 && fstat(file, &info) == 0);
    if (info.st_size == 0) CHECK(ftruncate(file, (off_t)*len) == 0);
    else *len = (size_t)info.st_size;
    void *memory = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(memory != MAP_FAILED);
    close(file);
    return memory;
}

/** Creates a gate with a key in a fleet, and an empty fleet file. */
static void create(machine *it, const char *folder, const char *name) {
    CHECK(snprintf(it->path, sizeof it->path, "%s/%s.gate", folder, name) > 0);
    CHECK(snprintf(it->fleet_path, sizeof it->fleet_path, "%s/%s.fleet", folder, name) > 0);
    kt_gate_config config = {.size = sizeof config, .keys = 8, .plans = &PLAN, .plans_len = 1,
                             .prefix = "kt", .prefix_len = 2};
    OK(kt_gate_create(it->path, PEPPER, strlen(PEPPER), &config, &it->gate));
    uint8_t entropy[KT_ENTROPY_SIZE];
    OK(kt_entropy(entropy));
    kt_new_key key = {.size = sizeof key, .account = 7, .env = "live", .env_len = 4};
    OK(kt_gate_issue(it->gate, &key, entropy, KT_SYSTEM_CLOCK, &it->key, &it->key_id));
    size_t len = FLEET_LEN;
    it->fleet = mapped(it->fleet_path, &len);
    CHECK(len == FLEET_LEN);
}

static void release(machine *it) {
    kt_gate_close(it->gate);
    munmap(it->fleet, FLEET_LEN);
}

/** Writes into the page what an agent says, with a heartbeat that stays fresh. */
static void say(machine *it, uint64_t phase, uint64_t on_loss, uint64_t machines) {
    it->fleet[HEARTBEAT] = kt_now_ms() + 3600000;
    it->fleet[STATE] = machines << 32 | on_loss << 8 | phase;
}

typedef kt_status (*check_function)(kt_gate *, const uint8_t *, size_t, uint32_t, uint64_t,
                                    kt_verdict *);

static kt_verdict checked(machine *it, check_function function, uint32_t cost) {
    kt_verdict verdict;
    OK(function(it->gate, bytes(it->key.text), strlen(it->key.text), cost, KT_SYSTEM_CLOCK,
                &verdict));
    return verdict;
}

/** Whether a verdict is that of a gate which does not decide, for this reason. */
static bool is_unavailable(const kt_verdict *verdict, kt_unavailability why) {
    return verdict->outcome == KT_UNAVAILABLE && verdict->unavailability == why &&
           verdict->http_status == 503 && verdict->retry_after_s == 1 && verdict->charged == 0 &&
           verdict->is_leased == 0 && verdict->key_id != 0;
}

/** Grants the units that were counted in the gate before it was in a fleet: the only words of the
 *  gate that this charge changes is the tally, whose form credits have. */
static void grant_as_charged(machine *it, uint32_t cost) {
    size_t len = 0;
    uint64_t *words = mapped(it->path, &len), *before = malloc(len);
    CHECK(before != NULL);
    memcpy(before, words, len);
    kt_verdict verdict = checked(it, kt_gate_check, cost);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 0);
    size_t at = 0, changed = 0;
    for (size_t i = 0; i < len / 8; i++)
        if (words[i] != before[i]) (at = i, changed++);
    CHECK(changed == 1);
    for (size_t tally = 0; tally < 8; tally++) {
        uint64_t *line = &it->fleet[TALLIES_AT + 8 * tally];
        line[0] = line[1] = words[at];
        line[4] = it->key_id;
    }
    OK(kt_gate_reset(it->gate, it->key_id, KT_SYSTEM_CLOCK, &verdict));
    free(before);
    munmap(words, len);
}

static void gate_in_a_fleet_spends_credits(const char *folder) {
    machine it;
    create(&it, folder, "credits");
    uint32_t is_in_fleet = 9;
    OK(kt_gate_is_in_fleet(it.gate, &is_in_fleet));
    CHECK(is_in_fleet == 0);
    grant_as_charged(&it, 3);
    OK(kt_gate_set_fleet(it.gate, 1));
    OK(kt_gate_is_in_fleet(it.gate, &is_in_fleet));
    CHECK(is_in_fleet == 1);
    kt_verdict verdict = checked(&it, kt_gate_check, 1);
    CHECK(is_unavailable(&verdict, KT_UNAVAILABILITY_NOT_RESERVING));

    kt_gate *gate = it.gate;
    const char *fleet_path = it.fleet_path;
    kt_status status = kt_gate_join(gate, fleet_path);
    OK(status);
    EXPECT(kt_gate_join(gate, fleet_path), KT_JOINED);
    say(&it, LEADING, CLOSED, 1);
    OK(kt_gate_set_credit_wait(it.gate, 1000));
    kt_verdict spent = checked(&it, kt_gate_check, 2);
    CHECK(spent.outcome == KT_ADMITTED && spent.is_leased == 1 && spent.charged == 2 &&
          spent.unavailability == KT_UNAVAILABILITY_NONE);
    /* One credit is left, so a request of two waits. */
    verdict = checked(&it, kt_gate_try_check, 2);
    CHECK(is_unavailable(&verdict, KT_UNAVAILABILITY_WAITING));
    verdict = checked(&it, kt_gate_check_without_wait, 2);
    CHECK(is_unavailable(&verdict, KT_UNAVAILABILITY_LOST));
    verdict = checked(&it, kt_gate_check, 2);
    CHECK(is_unavailable(&verdict, KT_UNAVAILABILITY_LOST));
    verdict = checked(&it, kt_gate_try_check, 1);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 1);
    /* A refund returns credits. */
    kt_charge charge = charge_of(&spent);
    OK(kt_gate_refund(it.gate, it.key_id, &charge, KT_SYSTEM_CLOCK, &verdict));
    verdict = checked(&it, kt_gate_try_check, 2);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 1);
    CHECK(strcmp(kt_unavailability_name(KT_UNAVAILABILITY_WAITING), "waiting") == 0);

    OK(kt_gate_set_fleet(it.gate, 0));
    verdict = checked(&it, kt_gate_check, 1);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 0);
    release(&it);
}

static void patience_of_a_request_says_whether_it_waits(const char *folder) {
    machine it;
    create(&it, folder, "patience");
    OK(kt_gate_set_fleet(it.gate, 1));
    OK(kt_gate_join(it.gate, it.fleet_path));
    say(&it, LEADING, CLOSED, 1);
    kt_limiter *limiter;
    char path[600];
    CHECK(snprintf(path, sizeof path, "%s/addresses.limiter", folder) > 0);
    OK(kt_limiter_create(path, KT_TEXT("5/week"), 8, &limiter));
    static const kt_unavailability WHY[] = {KT_UNAVAILABILITY_LOST, KT_UNAVAILABILITY_WAITING,
                                            KT_UNAVAILABILITY_LOST};
    for (uint32_t patience = 0; patience < 3; patience++) {
        kt_request request = {.size = sizeof request, .cost = 1, .now_ms = KT_SYSTEM_CLOCK,
                              .patience = (kt_patience)patience};
        kt_compound compound;
        OK(kt_gate_check_request(it.gate, bytes(it.key.text), strlen(it.key.text), &request,
                                 &compound));
        CHECK(is_unavailable(&compound.tallies[0].verdict, WHY[patience]));
        const kt_part parts[] = {
            {.limiter = limiter, .text = bytes("203.0.113.9"), .text_len = 11, .cost = 2},
            {.gate = it.gate, .text = bytes(it.key.text), .text_len = strlen(it.key.text),
             .cost = 1, .patience = (kt_patience)patience}};
        OK(kt_check_all(parts, 2, KT_SYSTEM_CLOCK, &compound));
        CHECK(compound.outcome == KT_UNAVAILABLE && compound.decisive_index == 1);
        CHECK(is_unavailable(&compound.tallies[1].verdict, WHY[patience]));
        CHECK(compound.tallies[0].verdict.charged == 0);
    }
    kt_verdict verdict;
    OK(kt_limiter_peek(limiter, bytes("203.0.113.9"), 11, 1, KT_SYSTEM_CLOCK, &verdict));
    CHECK(quota(&verdict, 0).remaining == 5);

    /* Only 0 to 2 is a patience. */
    kt_compound compound;
    kt_request request = {.size = sizeof request, .cost = 1, .patience = (kt_patience)3};
    EXPECT(kt_gate_check_request(it.gate, NULL, 0, &request, &compound), KT_UNKNOWN_MEMBER);
    EXPECT(kt_limiter_check_request(limiter, bytes("a"), 1, &request, &verdict),
           KT_UNKNOWN_MEMBER);
    request.patience = KT_PATIENCE_WAIT;
    request.reserved_ = 1;
    EXPECT(kt_gate_check_request(it.gate, NULL, 0, &request, &compound), KT_UNKNOWN_MEMBER);
    kt_part part = {.limiter = limiter, .text = bytes("a"), .text_len = 1,
                    .patience = (kt_patience)3};
    EXPECT(kt_check_all(&part, 1, KT_SYSTEM_CLOCK, &compound), KT_UNKNOWN_MEMBER);
    part = (kt_part){.gate = it.gate, .patience = (kt_patience)3};
    EXPECT(kt_check_all(&part, 1, KT_SYSTEM_CLOCK, &compound), KT_UNKNOWN_MEMBER);
    kt_limiter_close(limiter);
    release(&it);
}

static void lost_store_is_decided_as_the_operator_chose(const char *folder) {
    machine it;
    create(&it, folder, "lost");
    grant_as_charged(&it, 3);
    OK(kt_gate_set_fleet(it.gate, 1));
    OK(kt_gate_join(it.gate, it.fleet_path));
    say(&it, CUT, SHARE, 2);
    kt_verdict verdict = checked(&it, kt_gate_check, 3);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 1);
    kt_verdict first = checked(&it, kt_gate_check, 2);
    CHECK(first.outcome == KT_ADMITTED && first.is_leased == 0 && first.charged == 2);
    verdict = checked(&it, kt_gate_check, 1);
    CHECK(verdict.outcome == KT_DENIED && verdict.is_leased == 0);
    say(&it, CUT, OPEN, 2);
    verdict = checked(&it, kt_gate_check, 5);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 0);
    verdict = checked(&it, kt_gate_check, 1);
    CHECK(verdict.outcome == KT_DENIED);
    say(&it, CUT, CLOSED, 2);
    /* This charge spent no credits, so its refund returns none. */
    kt_charge charge = charge_of(&first);
    OK(kt_gate_refund(it.gate, it.key_id, &charge, KT_SYSTEM_CLOCK, &verdict));
    verdict = checked(&it, kt_gate_check, 1);
    CHECK(is_unavailable(&verdict, KT_UNAVAILABILITY_LOST));
    release(&it);
}

static void request_in_a_fleet_has_the_time_of_the_store(const char *folder) {
    enum { OFFSET = 8, HOUR_MS = 3600000 };
    machine it;
    create(&it, folder, "time");
    OK(kt_gate_set_fleet(it.gate, 1));
    OK(kt_gate_join(it.gate, it.fleet_path));
    say(&it, CUT, OPEN, 1);
    it.fleet[OFFSET] = HOUR_MS;
    kt_verdict verdict = checked(&it, kt_gate_check, 1);
    uint64_t now_ms = kt_now_ms();
    CHECK(verdict.now_ms > now_ms + HOUR_MS / 2 && verdict.now_ms < now_ms + 2 * HOUR_MS);
    const kt_part part = {.gate = it.gate, .text = bytes(it.key.text),
                          .text_len = strlen(it.key.text), .cost = 1};
    kt_compound compound;
    OK(kt_check_all(&part, 1, KT_SYSTEM_CLOCK, &compound));
    CHECK(compound.tallies[0].verdict.now_ms > now_ms + HOUR_MS / 2);
    /* A cached reading of the clock is one of this machine, and an explicit time is none. */
    OK(kt_gate_check(it.gate, bytes(it.key.text), strlen(it.key.text), 1, now_ms, &verdict));
    CHECK(verdict.now_ms == now_ms);
    OK(kt_gate_use_system_clock(it.gate));
    OK(kt_gate_check(it.gate, bytes(it.key.text), strlen(it.key.text), 1, now_ms, &verdict));
    CHECK(verdict.now_ms >= now_ms + HOUR_MS);
    release(&it);
}

static void wrong_fleet_files_are_refused(const char *folder) {
    machine it, other;
    create(&it, folder, "wrong");
    create(&other, folder, "other");
    OK(kt_gate_join(other.gate, other.fleet_path));
    EXPECT(kt_gate_join(it.gate, other.fleet_path), KT_NOT_A_FLEET_FILE);
    EXPECT(kt_gate_join(it.gate, it.path), KT_NOT_A_FLEET_FILE);
    EXPECT(kt_gate_join(it.gate, folder), KT_NOT_A_FILE);
    EXPECT(kt_gate_join(it.gate, "/nonexistent/api.gate.fleet"), KT_FILE_NOT_FOUND);
    EXPECT(kt_gate_join(it.gate, NULL), KT_NULL_POINTER);
    EXPECT(kt_gate_join(NULL, it.fleet_path), KT_NULL_POINTER);
    CHECK(chmod(it.fleet_path, 0666) == 0);
    EXPECT(kt_gate_join(it.gate, it.fleet_path), KT_FILE_MODE);

    /* A gate in memory is in no fleet. */
    kt_bytes pepper = {bytes(PEPPER), strlen(PEPPER)};
    kt_gate_config config = {.size = sizeof config, .keys = 8, .plans = &PLAN, .plans_len = 1,
                             .prefix = "kt", .prefix_len = 2};
    size_t size = kt_gate_size(8);
    void *memory = table_memory(size);
    kt_gate gate;
    kt_verdict verdict;
    uint32_t is_in_fleet = 9;
    OK(kt_gate_init(memory, size, &config, &pepper, 1, &gate));
    EXPECT(kt_gate_join(&gate, it.fleet_path), KT_NOT_A_FILE);
    EXPECT(kt_gate_set_fleet(&gate, 1), KT_NOT_A_FILE);
    EXPECT(kt_gate_set_credit_wait(&gate, 1), KT_NOT_A_FILE);
    OK(kt_gate_is_in_fleet(&gate, &is_in_fleet));
    CHECK(is_in_fleet == 0);
    OK(kt_gate_try_check(&gate, NULL, 0, 1, KT_SYSTEM_CLOCK, &verdict));
    CHECK(verdict.outcome == KT_MISSING_KEY && verdict.unavailability == 0);
    OK(kt_gate_check_without_wait(&gate, NULL, 0, 1, KT_SYSTEM_CLOCK, &verdict));
    EXPECT(kt_gate_try_check(&gate, NULL, 0, 1, KT_SYSTEM_CLOCK, NULL), KT_NULL_POINTER);
    EXPECT(kt_gate_try_check(NULL, NULL, 0, 1, KT_SYSTEM_CLOCK, &verdict), KT_NULL_POINTER);
    EXPECT(kt_gate_is_in_fleet(&gate, NULL), KT_NULL_POINTER);
    kt_gate_close(&gate);
    free(memory);

    /* Sliding windows cannot be shared. */
    char path[600];
    kt_gate *sliding;
    kt_plan plan = {KT_TEXT("default"), KT_TEXT("sliding 10/minute")};
    config.plans = &plan;
    CHECK(snprintf(path, sizeof path, "%s/sliding.gate", folder) > 0);
    OK(kt_gate_create(path, PEPPER, strlen(PEPPER), &config, &sliding));
    EXPECT(kt_gate_set_fleet(sliding, 1), KT_FLEET_SLIDING);
    kt_gate_close(sliding);
    release(&it);
    release(&other);
}

typedef kt_status (*limiter_check)(kt_limiter *, const uint8_t *, size_t, uint32_t, uint64_t,
                                   kt_verdict *);

static kt_verdict counted(kt_limiter *limiter, limiter_check function, uint32_t cost) {
    kt_verdict verdict;
    OK(function(limiter, bytes("ann"), 3, cost, KT_SYSTEM_CLOCK, &verdict));
    return verdict;
}

static bool waits(const kt_verdict *verdict, kt_unavailability why) {
    return verdict->outcome == KT_UNAVAILABLE && verdict->unavailability == why &&
           verdict->http_status == 503 && verdict->charged == 0;
}

static void limiter_in_a_fleet_spends_credits(const char *folder) {
    char path[600], fleet_path[600];
    CHECK(snprintf(path, sizeof path, "%s/users.limiter", folder) > 0);
    CHECK(snprintf(fleet_path, sizeof fleet_path, "%s/users.fleet", folder) > 0);
    kt_limiter *limiter;
    OK(kt_limiter_create(path, KT_TEXT("10/week"), 8, &limiter));
    uint32_t is_in_fleet = 9;
    OK(kt_limiter_is_in_fleet(limiter, &is_in_fleet));
    CHECK(is_in_fleet == 0);

    /* The second charge changes the tally of the subject only, whose form credits have. */
    kt_verdict verdict = counted(limiter, kt_limiter_check, 1);
    size_t len = 0;
    uint64_t *words = mapped(path, &len), *before = malloc(len), tally = 0;
    CHECK(before != NULL);
    memcpy(before, words, len);
    verdict = counted(limiter, kt_limiter_try_check, 2);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 0);
    size_t changed = 0;
    for (size_t i = 0; i < len / 8; i++)
        if (words[i] != before[i]) (tally = words[i], changed++);
    CHECK(changed == 1);
    free(before);
    munmap(words, len);
    OK(kt_limiter_reset(limiter, bytes("ann"), 3, KT_SYSTEM_CLOCK, &verdict));

    OK(kt_limiter_set_fleet(limiter, 1));
    OK(kt_limiter_is_in_fleet(limiter, &is_in_fleet));
    CHECK(is_in_fleet == 1);
    verdict = counted(limiter, kt_limiter_check, 1);
    CHECK(waits(&verdict, KT_UNAVAILABILITY_NOT_RESERVING));
    len = FLEET_LEN;
    machine it = {.fleet = mapped(fleet_path, &len)};
    OK(kt_limiter_join(limiter, fleet_path));
    EXPECT(kt_limiter_join(limiter, fleet_path), KT_JOINED);
    say(&it, LEADING, CLOSED, 1);
    OK(kt_limiter_set_credit_wait(limiter, 1000));
    verdict = counted(limiter, kt_limiter_try_check, 1);
    CHECK(waits(&verdict, KT_UNAVAILABILITY_WAITING));

    /* The subject that waits has claimed the words of its slot. */
    size_t claimed = 0;
    for (size_t at = TALLIES_AT; at + 8 <= FLEET_LEN / 8; at += 8)
        if (it.fleet[at + 5] != 0) {
            it.fleet[at] = it.fleet[at + 1] = tally;
            it.fleet[at + 4] = it.fleet[at + 5];
            claimed++;
        }
    CHECK(claimed == 1);
    kt_verdict spent = counted(limiter, kt_limiter_check, 2);
    CHECK(spent.outcome == KT_ADMITTED && spent.is_leased == 1 && spent.charged == 2);
    verdict = counted(limiter, kt_limiter_check, 2);
    CHECK(waits(&verdict, KT_UNAVAILABILITY_LOST));
    verdict = counted(limiter, kt_limiter_check_without_wait, 2);
    CHECK(waits(&verdict, KT_UNAVAILABILITY_LOST));
    kt_request request = {.size = sizeof request, .cost = 2, .now_ms = KT_SYSTEM_CLOCK,
                          .patience = KT_PATIENCE_RETURN};
    OK(kt_limiter_check_request(limiter, bytes("ann"), 3, &request, &verdict));
    CHECK(waits(&verdict, KT_UNAVAILABILITY_WAITING));
    /* A refund returns credits. */
    kt_charge charge = charge_of(&spent);
    OK(kt_limiter_refund(limiter, bytes("ann"), 3, &charge, KT_SYSTEM_CLOCK, &verdict));
    kt_part part = {.limiter = limiter, .text = bytes("ann"), .text_len = 3, .cost = 3};
    kt_compound compound;
    OK(kt_check_all(&part, 1, KT_SYSTEM_CLOCK, &compound));
    CHECK(compound.outcome == KT_ADMITTED && compound.tallies[0].verdict.is_leased == 1);
    part.cost = 1;
    part.patience = KT_PATIENCE_RETURN;
    OK(kt_check_all(&part, 1, KT_SYSTEM_CLOCK, &compound));
    CHECK(waits(&compound.tallies[0].verdict, KT_UNAVAILABILITY_WAITING));

    OK(kt_limiter_set_fleet(limiter, 0));
    verdict = counted(limiter, kt_limiter_check, 1);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.is_leased == 0);
    munmap(it.fleet, FLEET_LEN);
    kt_limiter_close(limiter);
}

static void limiter_without_a_fleet_file_joins_nothing(const char *folder) {
    char path[600];
    CHECK(snprintf(path, sizeof path, "%s/sliding.limiter", folder) > 0);
    kt_limiter *sliding;
    OK(kt_limiter_create(path, KT_TEXT("sliding 10/minute"), 8, &sliding));
    EXPECT(kt_limiter_set_fleet(sliding, 1), KT_FLEET_SLIDING);
    EXPECT(kt_limiter_join(sliding, path), KT_FLEET_SLIDING);
    kt_limiter_close(sliding);
    CHECK(snprintf(path, sizeof path, "%s/fixed.limiter", folder) > 0);
    OK(kt_limiter_create(path, KT_TEXT("10/minute"), 8, &sliding));
    EXPECT(kt_limiter_join(sliding, path), KT_NOT_A_FLEET_FILE);
    EXPECT(kt_limiter_join(sliding, "/nonexistent/api.fleet"), KT_FILE_NOT_FOUND);
    EXPECT(kt_limiter_join(sliding, NULL), KT_NULL_POINTER);
    kt_limiter_close(sliding);

    /* A limiter in memory is in no fleet. */
    static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(8)];
    const uint8_t seed[16] = {7};
    kt_limiter limiter;
    kt_verdict verdict;
    OK(kt_limiter_init(memory, sizeof memory, KT_TEXT("10/week"), 8, seed, &limiter));
    EXPECT(kt_limiter_join(&limiter, path), KT_NOT_A_FILE);
    EXPECT(kt_limiter_set_fleet(&limiter, 1), KT_NOT_A_FILE);
    EXPECT(kt_limiter_set_credit_wait(&limiter, 1), KT_NOT_A_FILE);
    EXPECT(kt_limiter_is_in_fleet(&limiter, NULL), KT_NULL_POINTER);
    verdict = counted(&limiter, kt_limiter_try_check, 1);
    CHECK(verdict.outcome == KT_ADMITTED && verdict.unavailability == 0);
    verdict = counted(&limiter, kt_limiter_check_without_wait, 1);
    CHECK(verdict.outcome == KT_ADMITTED);
    EXPECT(kt_limiter_try_check(NULL, bytes("a"), 1, 1, KT_SYSTEM_CLOCK, &verdict),
           KT_NULL_POINTER);
    kt_limiter_close(&limiter);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    gate_in_a_fleet_spends_credits(argv[1]);
    patience_of_a_request_says_whether_it_waits(argv[1]);
    lost_store_is_decided_as_the_operator_chose(argv[1]);
    request_in_a_fleet_has_the_time_of_the_store(argv[1]);
    wrong_fleet_files_are_refused(argv[1]);
    limiter_in_a_fleet_spends_credits(argv[1]);
    limiter_without_a_fleet_file_joins_nothing(argv[1]);
    return 0;
}
