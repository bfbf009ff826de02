/* fuzz_fst_regex.c
   Goal: any pattern is taken or refused in bounded time and memory, and any key can be run through it.
   Method: the input is the pattern up to the first 0 byte, and then a key. */
#define KV_FST_IMPLEMENTATION
#include "../../kv_fst.h"
#include "fuzz_main.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t       pattern = 0;
    kv_automaton a;
    uint64_t     states[2][KV_AUTOMATON_STATE_MAX / 8];
    for (int kind = KV_AUTOMATON_LEVENSHTEIN; kind <= KV_AUTOMATON_REGEX; kind++) {
        pattern = 0;
        while (pattern < size && data[pattern]) pattern++;
        if (kv_automaton_make(NULL, (kv_automaton_kind)kind, kv_bytes(data, pattern), size ? data[size - 1] % 70u : 0, &a) == KV_OK) {
            unsigned now = 0;
            FUZZ_CHECK(a.state_size <= KV_AUTOMATON_STATE_MAX);
            a.start(a.user, states[now]);
            for (size_t i = pattern; i < size; i++, now ^= 1) {
                bool could = !a.can_match || a.can_match(a.user, states[now]);
                a.step(a.user, states[now], data[i], states[now ^ 1]);
                if (!could) FUZZ_CHECK(!a.is_match(a.user, states[now ^ 1]));       /* what is dead stays dead */
            }
            (void)a.is_match(a.user, states[now]);
        }
        kv_automaton_free(&a);
    }
    return 0;
}
