/* A C program on the gate that Python and Rust use at the same time. It reads commands from
 * standard input, one per line:
 *   check KEY     prints the outcome of a check
 *   spend KEY     checks until a request is not admitted, and prints how many were admitted
 *   revoke ID     revokes a key, and prints the status
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <keytally.h>

static uint32_t check(kt_gate *gate, const char *key)
{
    kt_verdict verdict;
    kt_status status = kt_gate_check(gate, (const uint8_t *)key, strlen(key), 1, kt_now_ms(), &verdict);
    return status == KT_OK ? (uint32_t)verdict.outcome : UINT32_MAX;
}

static unsigned long spend(kt_gate *gate, const char *key)
{
    unsigned long admitted = 0;
    while (check(gate, key) == KT_ADMITTED) {
        admitted += 1;
        usleep(20);
    }
    return admitted;
}

static kt_status revoke_key(kt_gate *gate, const char *text)
{
    uint64_t key_id;
    kt_status status = kt_key_id_parse(text, strlen(text), &key_id);
    return status == KT_OK ? kt_gate_revoke(gate, key_id) : status;
}

int main(int argc, char **argv)
{
    char line[256], command[16], word[128];
    kt_gate *gate;
    if (argc != 3)
        return 2;
    kt_status status = kt_gate_open_with_pepper_file(argv[1], argv[2], &gate);
    if (status != KT_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], kt_status_message(status));
        return 1;
    }
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%15s %127s", command, word) == 2) {
        if (strcmp(command, "check") == 0)
            printf("%u\n", check(gate, word));
        else if (strcmp(command, "spend") == 0)
            printf("%lu\n", spend(gate, word));
        else if (strcmp(command, "revoke") == 0)
            printf("%d\n", (int)revoke_key(gate, word));
        else
            return 2;
        fflush(stdout);
    }
    kt_gate_close(gate);
    return 0;
}
