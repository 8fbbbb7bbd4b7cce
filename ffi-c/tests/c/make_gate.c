/* Creates api.gate in the current folder with the peppers in KEYTALLY_PEPPER, and prints a key of
 * it. */
#include "check.h"

int main(void) {
    const char *peppers = getenv("KEYTALLY_PEPPER");
    CHECK(peppers != NULL);
    const kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
    const kt_gate_config config = {
        sizeof(kt_gate_config), 100, &plan, 1, KT_TEXT("kt"), 0, 0, NULL, 0, NULL, 0};
    const kt_new_key new_key = {sizeof(kt_new_key), 42, KT_TEXT("live"), NULL, 0, 0, 0, NULL, 0};
    uint8_t entropy[KT_ENTROPY_SIZE];
    kt_gate *gate;
    kt_key key;
    uint64_t key_id;
    OK(kt_gate_create("api.gate", peppers, strlen(peppers), &config, &gate));
    OK(kt_entropy(entropy));
    OK(kt_gate_issue(gate, &new_key, entropy, KT_SYSTEM_CLOCK, &key, &key_id));
    puts(key.text);
    kt_key_wipe(&key);
    kt_gate_close(gate);
    return 0;
}
