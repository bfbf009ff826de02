/* fst_freeze.c - freeze a store: from a map that changes to one that only reads
   Any ordered store is a sorted stream of entries, which is what a builder wants. The file appears under
   its name when it is whole, and not before. */
#define KV_ART_IMPLEMENTATION
#define KV_FST_IMPLEMENTATION
#include "../kv_art.h"
#include "../kv_fst.h"
#include <stdio.h>

static kv_status freeze(kv_store *store, const char *path)
{
    kv_fst_build_options o = { 0 };
    kv_fst_builder      *b;
    kv_iter             *i;
    kv_status            s;
    o.values = KV_FST_BYTES;
    s = kv_fst_build_begin_file(&o, path, &b);
    if (s < 0) return s;
    s = kv_iter_open(store, NULL, &i);
    if (s < 0) { kv_fst_build_abandon(b); return s; }
    for (; kv_iter_valid(i); kv_iter_next(i)) kv_fst_add_bytes(b, kv_iter_key(i), kv_iter_value(i));
    s = kv_iter_status(i);
    kv_iter_close(i);
    if (s < 0) { kv_fst_build_abandon(b); return s; }
    return kv_fst_build_finish(b);
}

int main(void)
{
    static const char path[] = "fst_freeze.tmp.fst";
    char     key[40], value[40];
    kv_art  *live;
    kv_fst  *frozen;
    kv_stats stats;
    kv_buf   found = { 0 };

    if (kv_art_open(NULL, &live) < 0) return 1;
    for (int i = 0; i < 10000; i++) {
        snprintf(key, sizeof key, "sensor/%02d/reading/%05d", i % 20, i);
        snprintf(value, sizeof value, "%d.%d", 20 + i % 5, i % 10);
        if (kv_art_set(live, kv_cstr(key), kv_cstr(value)) < 0) return 1;
    }
    if (freeze(kv_art_store(live), path) < 0) return 1;
    kv_art_close(live);

    if (kv_fst_open_file(NULL, path, &frozen) < 0) return 1;
    kv_store_stats(kv_fst_store(frozen), &stats);
    printf("%u entries, keys of %u bytes and values of %u\n", (unsigned)stats.keys, (unsigned)stats.key_bytes, (unsigned)stats.value_bytes);
    printf("frozen, all of it takes less than a fifth: %s\n", stats.disk_bytes < (stats.key_bytes + stats.value_bytes) / 5 ? "yes" : "no");
    if (kv_get(kv_fst_store(frozen), KV_STR("sensor/07/reading/00127"), &found) == KV_OK) printf("sensor/07/reading/00127 = %.*s\n", (int)found.size, (const char *)found.data);
    printf("and it stays as it is: %s\n", kv_status_text(kv_set(kv_fst_store(frozen), KV_STR("x"), KV_STR("y"))));
    kv_buf_free(&found);
    kv_fst_close(frozen);
    remove(path);
    return 0;
}
