/* lsm_low_memory.c - a small memory budget, and background work in your own loop

   kv_lsm_low_memory has a 1 MiB memtable, no cache, no filters. With no_background the store has no
   thread: the program calls kv_lsm_step when it has time, each step a bounded piece of work. */
#define KV_LSM_IMPLEMENTATION
#include "../kv_lsm.h"
#include <stdio.h>

int main(void)
{
    kv_lsm_options options = kv_lsm_low_memory();
    kv_lsm_stats_t stats;
    kv_lsm        *db;
    uint64_t       count = 0;
    options.memtable_bytes = 64 * 1024;
    options.block_bytes = 4096;
    options.sync = KV_SYNC_NONE;
    options.no_background = true;
    if (kv_lsm_open("small", &options, &db) < 0) return 1;
    for (int i = 0; i < 20000; i++) {
        char key[16], value[40];
        int  size = snprintf(key, sizeof key, "event%08d", i);
        if (kv_lsm_set(db, kv_bytes(key, (size_t)size), kv_bytes(value, (size_t)snprintf(value, sizeof value, "measured %d", i * 7))) < 0) return 1;
        if (i % 16 == 0) kv_lsm_step(db);
    }
    while (kv_lsm_step(db) == KV_OK) {}         /* until KV_END: nothing is left to do */
    if (kv_lsm_count(db, NULL, &count) < 0 || kv_lsm_stats(db, &stats) < 0) return 1;
    printf("%u events; memory below 512 KiB: %s; waited for disk work: %s\n", (unsigned)count,
           stats.memory_bytes < 512 * 1024 ? "yes" : "no", stats.levels[0].tables < 4 ? "no backlog" : "backlog");
    return kv_lsm_close(db) < 0;
}
