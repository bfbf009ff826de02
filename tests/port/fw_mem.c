/* fw_mem.c
   Goal: kv_mem.h works in fixed memory on a small core; how much a thousand keys need.
   Method: fill, read, change, let expire, delete, close; the arena must be empty at the end. */
#include "../../kv_mem.h"
#include "fw.h"

static uint64_t clock_ms;
static uint64_t now_ms(void *user) { (void)user; return clock_ms; }

TEST(fw_mem, a_thousand_keys)
{
    kv_mem        *m = NULL;
    kv_mem_options o;
    char           key[16];
    unsigned char  bytes[8];
    int64_t        n = 0;
    memset(&o, 0, sizeof o);
    o.allocator = fw_start();
    o.single_thread = true;
    o.now_ms = now_ms;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    fw_fill(kv_mem_store(m));
    fw_read(kv_mem_store(m));
    CHECK_EQ(kv_mem_count(m), FW_KEYS);
    CHECK_OK(kv_mem_increment(m, KV_STR("boots"), 3, &n));
    CHECK_EQ(n, 3);
    CHECK_OK(kv_mem_set_ttl(m, fw_key(0, key), fw_value(0, bytes), 50));
    CHECK_OK(kv_mem_exists(m, fw_key(0, key)));
    clock_ms += 50;
    CHECK_STATUS(kv_mem_exists(m, fw_key(0, key)), KV_NOT_FOUND);
    for (uint32_t i = 1; i < FW_KEYS; i++) CHECK_OK(kv_mem_delete(m, fw_key(i, key)));
    CHECK(kv_mem_sweep(m, 10) <= 1);        /* the look above may have freed it */
    CHECK_EQ(kv_mem_count(m), 1);
    CHECK_STATUS(kv_mem_save(m, "snapshot"), KV_ERR_UNSUPPORTED);       /* no files here */
    kv_mem_close(m);
    fw_report("mem");
}
TEST(fw_mem, memory_that_is_used_up_is_a_status)
{
    kv_mem        *m = NULL;
    kv_mem_options o;
    kv_arena       small;
    char           key[16];
    unsigned char  bytes[8];
    uint32_t       i = 0, k;
    kv_buf         value = kv_buf_fixed(bytes, sizeof bytes);
    memset(&o, 0, sizeof o);
    o.allocator = kv_arena_init(&small, fw_memory + 1, 12000);          /* any address will do */
    o.single_thread = true;
    if (!CHECK_OK(kv_mem_open(&o, &m))) return;
    while (i < 100000 && kv_mem_set(m, fw_key(i, key), fw_value(i, bytes)) == KV_OK) i++;
    CHECK(i > 20 && i < 1000);
    for (k = 0; k < i; k++) CHECK_OK(kv_mem_get(m, fw_key(k, key), &value));
    kv_mem_close(m);
    CHECK_EQ(small.used_bytes, 0);
}
TEST_MAIN()
