/* bench_simd.c
   Goal: is kv_hash_batch faster than a loop of kv_hash, and by how much, for keys that are in the
   cache and for keys that lie scattered in memory larger than the cache?
   Method: both over the same slices, in turns, in batches of 64; the median of the ratios counts.
   Scattered: key bytes lie in random order over 256 MiB, so that each key is a cache miss. */
#define KV_SIMD_IMPLEMENTATION
#include "../../kv_simd.h"
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 15
#define BATCH 64

static double now(void) { return (double)kvi_now_ns(); }
static int    ascending(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }

static uint64_t sink;
KVI_NOINLINE void hash_loop(const kv_slice *keys, size_t count, uint64_t *hashes)
{
    for (size_t i = 0; i < count; i++) hashes[i] = kv_hash(keys[i], 42);
}

static void measure(const char *name, const kv_slice *keys, size_t count, size_t repeats, bool json)
{
    double   loops[ROUNDS], batches[ROUNDS], ratios[ROUNDS];
    uint64_t hashes[BATCH];
    for (int round = 0; round < ROUNDS; round++) {
        for (int which = 0; which < 2; which++) {
            bool   batch = (which == 1) == (round % 2 == 0);    /* who goes first alternates */
            double start = now(), ns;
            for (size_t r = 0; r < repeats; r++)
                for (size_t i = 0; i + BATCH <= count; i += BATCH) {
                    if (batch) kv_hash_batch(keys + i, BATCH, 42, hashes); else hash_loop(keys + i, BATCH, hashes);
                    sink += hashes[i / BATCH % BATCH];
                }
            ns = (now() - start) / (double)(repeats * (count / BATCH * BATCH));
            if (batch) batches[round] = ns; else loops[round] = ns;
        }
        ratios[round] = batches[round] / loops[round];
    }
    qsort(loops, ROUNDS, sizeof *loops, ascending);
    qsort(batches, ROUNDS, sizeof *batches, ascending);
    qsort(ratios, ROUNDS, sizeof *ratios, ascending);
    if (json) printf("{\"bench\":\"hash_batch\",\"keys\":\"%s\",\"level\":\"%s\",\"loop_ns\":%.2f,\"batch_ns\":%.2f,\"ratio\":%.3f}\n", name, kv_simd_name(), loops[ROUNDS / 2], batches[ROUNDS / 2], ratios[ROUNDS / 2]);
    else printf("%-34s %8.2f %8.2f %8.2f\n", name, loops[ROUNDS / 2], batches[ROUNDS / 2], ratios[ROUNDS / 2]);
    fflush(stdout);
}

/* `count` keys of `size` bytes (0: 30 to 100), each in a slot of its own, the slots in random order. */
static void run(const char *name, size_t count, size_t size, size_t slot, size_t repeats, bool json)
{
    uint8_t  *memory = (uint8_t *)malloc(count * slot);
    kv_slice *keys = (kv_slice *)malloc(count * sizeof *keys);
    uint32_t *order = (uint32_t *)malloc(count * sizeof *order);
    uint64_t  state = 1;
    if (!memory || !keys || !order) { fprintf(stderr, "out of memory\n"); exit(1); }
    for (size_t i = 0; i < count; i++) {
        size_t j = (size_t)(kvi_mix64(++state) % (i + 1));
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (size_t i = 0; i < count * slot; i++) memory[i] = (uint8_t)kvi_mix64(i);
    for (size_t i = 0; i < count; i++) keys[i] = kv_bytes(memory + order[i] * slot, size ? size : 30 + (size_t)(kvi_mix64(i) % 71));
    measure(name, keys, count, repeats, json);
    free(memory); free(keys); free(order);
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && !strcmp(argv[1], "--json");
    if (argc > (json ? 2 : 1)) { fprintf(stderr, "%s: the only option is --json\n", argv[json ? 2 : 1]); return 2; }
    if (!json) printf("level %s, ns a key\n%-34s %8s %8s %8s\n", kv_simd_name(), "keys", "loop", "batch", "ratio");
    run("8 bytes, in the cache", 1024, 8, 8, 2000, json);
    run("16 bytes, in the cache", 1024, 16, 16, 2000, json);
    run("30-100 bytes, in the cache", 1024, 0, 128, 2000, json);
    run("8 bytes, scattered", 1u << 21, 8, 128, 1, json);
    run("16 bytes, scattered", 1u << 21, 16, 128, 1, json);
    run("30-100 bytes, scattered", 1u << 21, 0, 128, 1, json);
    run("1000 bytes, scattered", 1u << 18, 1000, 1024, 1, json);
    return sink == 1;
}
