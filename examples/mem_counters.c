/* mem_counters.c - changes that are one step: increment, insert, compare-and-set, update; and a snapshot */
#define KV_MEM_IMPLEMENTATION
#include "../kv_mem.h"
#include <stdio.h>

/* read, modify, write: keep the longer of two strings */
static kv_status keep_longer(void *user, bool found, kv_slice old, kv_buf *value)
{
    kv_slice candidate = *(kv_slice *)user;
    return kv_buf_assign(value, found && old.size >= candidate.size ? old : candidate);
}
static void print(kv_mem *m, const char *key)
{
    kv_buf value = {0};
    if (kv_mem_get(m, kv_cstr(key), &value) == KV_OK) printf("%s is %.*s\n", key, (int)value.size, (const char *)value.data);
    kv_buf_free(&value);
}

int main(void)
{
    kv_mem  *m, *copy;
    int64_t  hits = 0;
    kv_slice word = KV_STR("hash");
    int      i;
    if (kv_mem_open(NULL, &m) < 0 || kv_mem_open(NULL, &copy) < 0) return 1;

    for (i = 0; i < 3; i++) kv_mem_increment(m, KV_STR("hits"), 14, &hits);
    printf("hits is %d\n", (int)hits);

    /* a lock with an owner: insert takes it, compare-and-set hands it on */
    printf("ann takes the lock: %s\n", kv_status_text(kv_mem_insert(m, KV_STR("lock"), KV_STR("ann"))));
    printf("bob takes the lock: %s\n", kv_status_text(kv_mem_insert(m, KV_STR("lock"), KV_STR("bob"))));
    printf("bob hands it to cid: %s\n", kv_status_text(kv_mem_compare_and_set(m, KV_STR("lock"), KV_STR("bob"), KV_STR("cid"))));
    printf("ann hands it to bob: %s\n", kv_status_text(kv_mem_compare_and_set(m, KV_STR("lock"), KV_STR("ann"), KV_STR("bob"))));
    print(m, "lock");

    kv_mem_update(m, KV_STR("longest"), keep_longer, &word);
    word = KV_STR("concurrent");
    kv_mem_update(m, KV_STR("longest"), keep_longer, &word);
    word = KV_STR("map");
    kv_mem_update(m, KV_STR("longest"), keep_longer, &word);
    print(m, "longest");

    /* all of it in a file, and back */
    if (kv_mem_save(m, "mem_counters.snapshot") < 0 || kv_mem_load(copy, "mem_counters.snapshot") < 0) {
        printf("%s\n", kv_last_error(kv_mem_store(m)));
        return 1;
    }
    remove("mem_counters.snapshot");
    printf("the copy has %d entries; ", (int)kv_mem_count(copy));
    print(copy, "longest");
    kv_mem_close(copy);
    kv_mem_close(m);
    return 0;
}
