/* A process that spends the units of a fleet. Usage: spend GATE FLEET WINDOW_S END KEY...
 * It checks each key in turns, until there is a file END. Then it prints, for each key and window
 * in which requests were admitted, how many windows later they returned, and how many they were:
 *   KEY WINDOW LATE COUNT
 * LATE is -1 for requests that were denied. KEYTALLY_PEPPER holds the peppers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <keytally.h>

enum { KEYS = 8, WINDOWS = 128, LATE = 8, DENIED = LATE, FIRST_KEY = 5 };

/* What was counted, by key, window since the first one, and lateness. */
static unsigned long counts[KEYS][WINDOWS][LATE + 1];
static uint64_t first;

static void fail(const char *what)
{
    fprintf(stderr, "spend: %s\n", what);
    exit(1);
}

static void count(int key, const kt_verdict *verdict, uint64_t window_s)
{
    kt_quota quota;
    if (kt_verdict_quota(verdict, 0, &quota) != KT_OK)
        fail("the verdict has no quota");
    uint64_t window = quota.reset_unix_s / window_s - 1;
    if (first == 0)
        first = window - 1;
    uint64_t late = (kt_now_ms() + 10) / 1000 / window_s - window;
    if (window - first >= WINDOWS)
        fail("the process ran for too long");
    if (verdict->outcome == KT_DENIED)
        late = DENIED;
    else if (verdict->is_leased == 0 || late >= LATE)
        fail("a request was admitted without a unit, or returned too late");
    counts[key][window - first][late] += 1;
}

int main(int argc, char **argv)
{
    const char *peppers = getenv("KEYTALLY_PEPPER");
    kt_gate *gate;
    if (argc <= FIRST_KEY || argc > FIRST_KEY + KEYS || peppers == NULL)
        return 2;
    uint64_t window_s = strtoull(argv[3], NULL, 10);
    if (kt_gate_open(argv[1], peppers, strlen(peppers), &gate) != KT_OK ||
        kt_gate_join(gate, argv[2]) != KT_OK)
        fail("cannot open the gate or its fleet file");
    puts("ready");
    fflush(stdout);
    while (access(argv[4], F_OK) != 0) {
        for (int at = FIRST_KEY; at < argc; at++) {
            kt_verdict verdict;
            const uint8_t *key = (const uint8_t *)argv[at];
            if (kt_gate_check(gate, key, strlen(argv[at]), 1, KT_SYSTEM_CLOCK, &verdict) != KT_OK)
                fail("a check failed");
            if (verdict.outcome == KT_ADMITTED || verdict.outcome == KT_DENIED)
                count(at - FIRST_KEY, &verdict, window_s);
            else if (verdict.outcome != KT_UNAVAILABLE)
                fail("the key is invalid");
        }
        usleep(5000);
    }
    for (int key = 0; key < KEYS; key++)
        for (uint64_t window = 0; window < WINDOWS; window++)
            for (int late = 0; late <= LATE; late++)
                if (counts[key][window][late] > 0)
                    printf("%d %llu %d %lu\n", key, (unsigned long long)(first + window),
                           late == DENIED ? -1 : late, counts[key][window][late]);
    kt_gate_close(gate);
    return 0;
}
