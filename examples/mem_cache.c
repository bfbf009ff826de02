/* mem_cache.c - a cache: entries that live for a while, a memory limit, and a watch that sees them go */
#define KV_MEM_IMPLEMENTATION
#include "../kv_mem.h"
#include <stdio.h>

static uint64_t clock_ms;
static uint64_t now_ms(void *user) { (void)user; return clock_ms; }     /* your own clock; the default is the system's */

static void tell(void *user, kv_event event, kv_slice key, kv_slice value)
{
    static const char *const names[] = { "", "set", "deleted", "expired", "evicted" };
    (void)user; (void)value;
    printf("    %.*s was %s\n", (int)key.size, (const char *)key.data, names[event]);
}

int main(void)
{
    kv_mem_options o = {0};
    kv_mem_stats_t stats;
    kv_mem   *cache;
    kv_watch *watch;
    char      page[2000] = "<html>...";
    int       i;
    uint64_t  left;

    o.memory_limit_bytes = 256 * 1024;
    o.now_ms = now_ms;
    if (kv_mem_open(&o, &cache) < 0) return 1;
    if (kv_mem_subscribe(cache, KV_STR("session:"), tell, NULL, &watch) < 0) return 1;

    printf("two sessions, of 10 and 30 minutes\n");
    kv_mem_set_ttl(cache, KV_STR("session:anna"), KV_STR("{\"cart\":3}"), 10 * 60000);
    kv_mem_set_ttl(cache, KV_STR("session:bert"), KV_STR("{\"cart\":0}"), 30 * 60000);

    printf("12 minutes later\n");
    clock_ms += 12 * 60000;
    printf("    anna: %s\n", kv_status_text(kv_mem_exists(cache, KV_STR("session:anna"))));
    if (kv_mem_ttl(cache, KV_STR("session:bert"), &left) == KV_OK) printf("    bert has %d minutes left\n", (int)(left / 60000));
    printf("    swept: %d\n", (int)kv_mem_sweep(cache, 1000));
    kv_mem_unsubscribe(watch);

    printf("a thousand pages of 2 KB, in 256 KB\n");
    for (i = 0; i < 1000; i++) {
        char path[32];
        int  size = snprintf(path, sizeof path, "/page/%d", i);
        if (kv_mem_set(cache, kv_bytes(path, (size_t)size), kv_bytes(page, sizeof page)) < 0) return 1;
        kv_mem_exists(cache, KV_STR("/page/0"));        /* the one that everybody asks for */
    }
    if (kv_mem_stats(cache, &stats) < 0) return 1;
    printf("    within the limit: %s\n", stats.memory_bytes <= 256 * 1024 ? "yes" : "no");
    printf("    most were evicted: %s\n", stats.evicted > 850 ? "yes" : "no");
    printf("    /page/0: %s\n", kv_mem_exists(cache, KV_STR("/page/0")) == KV_OK ? "still there" : "gone");
    kv_mem_close(cache);
    return 0;
}
