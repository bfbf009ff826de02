/* compress_store.c - a store whose values are packed on their way in and unpacked on their way out */
#define KV_IMPLEMENTATION
#include "../kv_art.h"
#include "../kv_compress.h"
#include <stdio.h>

static bool print_entry(void *user, kv_slice key, kv_slice value)
{
    (void)user;
    printf("  %.*s: %zu bytes, \"%.20s...\"\n", (int)key.size, (const char *)key.data, value.size, (const char *)value.data);
    return true;
}

int main(void)
{
    kv_compress_options options = {0};
    kv_compress_stats   stats;
    kv_art             *map;
    kv_compressed      *packed;
    kv_store           *pages;
    kv_range            range = {0};
    char                page[3000], key[20];
    int64_t             visits;

    if (kv_art_open(NULL, &map) < 0) return 1;
    options.codec = KV_CODEC_LZ4;
    if (kv_compressed_open(kv_art_store(map), &options, &packed) < 0) return 1;
    pages = kv_compressed_store(packed);            /* a kv_store like any other */
    printf("%s\n", kv_store_name(pages));

    for (int i = 0; i < 100; i++) {
        int at = 0;
        while (at < (int)sizeof page - 40) at += snprintf(page + at, sizeof page - (size_t)at, "page %d says hello in line %d. ", i, at % 7);
        snprintf(key, sizeof key, "page/%02d", i);
        if (kv_set(pages, kv_cstr(key), kv_bytes(page, (size_t)at)) < 0) return 1;
    }
    if (kv_set_int64(pages, KV_STR("visits"), 17) < 0 || kv_get_int64(pages, KV_STR("visits"), &visits) < 0) return 1;
    printf("visits: %d\n", (int)visits);

    range.from = KV_STR("page/41");
    range.limit = 3;
    if (kv_scan(pages, &range, print_entry, NULL) < 0) return 1;

    if (kv_compressed_stats(packed, &stats) < 0) return 1;
    printf("%d values, %d of them stored as they were, packed to less than a tenth: %s\n",
           (int)stats.values, (int)stats.values_raw, stats.packed_bytes * 10 < stats.raw_bytes ? "yes" : "no");
    kv_close(pages);                                /* closes the wrapper; the map is ours */
    kv_art_close(map);
    return 0;
}
